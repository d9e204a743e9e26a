package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// powerCut ends all daemons with SIGKILL and starts them again. Then three people in three browsers, each at
// another node, open every slot of every node from the activation page: the administrator enters the code of
// the manual slot, and two of three custodians their passphrases for the shared one. The generated slot opens
// by itself. The daemons live as long as all.
func powerCut(all, t *testing.T, d *testDemo) {
	hsmtest.Tool(t, "chromium")
	people := custodians(t, d)
	a, b, c := openBrowser(t, d.CAFile), openBrowser(t, d.CAFile), openBrowser(t, d.CAFile)
	a.becomeCustodian(d.Nodes[0].WebConf, people["anna"])
	enroll(t, d.Nodes[1].WebConf, people["bert"], "passphrase of bert")
	enroll(t, d.Nodes[2].WebConf, people["cleo"], "passphrase of cleo")
	for i := range d.Nodes {
		d.must(t, i, "", "slots", "create", "vault")
	}
	d.must(t, 0, "", "slots", "custody", "vault", "--threshold", "2", "--holders", "anna,bert,cleo")
	d.settle(t, "every node knows the custodians", func() bool {
		return strings.Count(d.must(t, 0, "", "custodians", "needs"), "0 of 2") == demoNodes
	})
	d.must(t, 1, "passphrase of anna\nanother passphrase\n", "custodians", "change", "anna")
	d.settle(t, "node1 knows of the other passphrase too", func() bool {
		var puts []cluster.Entry
		err := json.Unmarshal([]byte(d.must(t, 0, "", "audit", "-o", "json", "--act", "custodian.put")), &puts)
		return err == nil && len(puts) == len(people)+1
	})
	if out := d.must(t, 0, "another passphrase\n", "slots", "contribute", "--as", "anna"); strings.Count(out, "waits") != demoNodes {
		t.Errorf("the first custodian:\n%s", out)
	}
	if out, err := d.keyferry(2, "passphrase of nobody\n", "slots", "contribute", "--as", "bert"); err == nil || !strings.Contains(err.Error(), "passphrase is wrong") {
		t.Errorf("a wrong passphrase: %v\n%s", err, out)
	}
	d.must(t, 2, "passphrase of bert\n", "slots", "contribute", "--as", "bert")
	d.settle(t, "every token has the shared code", func() bool { return !strings.Contains(d.must(t, 0, "", "custodians", "needs"), "switch") })

	for i := range d.Nodes {
		syscall.Kill(d.Nodes[i].PID, syscall.SIGKILL)
	}
	for i := range d.Nodes {
		waitGone(t, d.Nodes[i].PID)
	}
	for i := range d.Nodes {
		d.daemon(all, i)
	}
	d.settle(t, "the nodes see each other, and the generated slot is open", func() bool {
		states := d.states(t)
		return states["demo-auto"] == "active active active" && states["demo-ca"] == "down down down" && states["vault"] == "down down down"
	})

	a.login(d.Nodes[0].WebConf, d.Admin)
	a.menu("Activation")
	a.reloadUntil("3 of 9 tokens")
	a.screenshot("power-1-closed")
	a.do("enter the code", chromedp.SendKeys(chromedp.CSS(`main input[type=password][name^="code."]`), d.Slots[0].PIN, chromedp.NodeVisible))
	a.send("Open what can be opened")
	a.reloadUntil("demo-ca node3 Open")
	a.screenshot("power-2-codes")
	b.contribute(d.Nodes[1].WebConf, people["bert"])
	b.reloadUntil("Waits for others")
	b.screenshot("power-3-first")
	c.contribute(d.Nodes[2].WebConf, people["cleo"])
	c.reloadUntil("vault node3 Open")
	c.screenshot("power-4-second")
	d.settle(t, "every slot of every node is open", func() bool {
		for _, s := range d.states(t) {
			if s != "active active active" {
				return false
			}
		}
		return true
	})
	a.visit(d.Nodes[0].WebConf + "/activate")
	a.reloadUntil("Nothing waits for anybody")
	a.screenshot("power-5-open")
}

// A demoPerson is somebody with an account of the demo.
type demoPerson struct{ name, password string }

// custodians makes three people who may open slots.
func custodians(t *testing.T, d *testDemo) map[string]demoPerson {
	t.Helper()
	people := map[string]demoPerson{}
	for _, name := range []string{"anna", "bert", "cleo"} {
		var made struct {
			Password string `json:"temporary_password"`
		}
		if err := json.Unmarshal([]byte(d.must(t, 0, "", "people", "add", name, "--role", "crypto-user", "-o", "json")), &made); err != nil {
			t.Fatal(err)
		}
		people[name] = demoPerson{name, made.Password}
	}
	return people
}

func (p demoPerson) own() string { return "own password of " + p.name }

// becomeCustodian logs in for the first time, chooses a password, and sets a custodian passphrase.
func (b *tab) becomeCustodian(webconf string, p demoPerson) {
	b.t.Helper()
	b.visit(webconf)
	b.fill("name", p.name)
	b.fill("password", p.password)
	b.click("Log in")
	b.see("Your password is temporary")
	field := func(form, name, value string) {
		b.t.Helper()
		b.do("fill "+name, chromedp.SendKeys(chromedp.CSS(fmt.Sprintf(`main form[action=%q] [name=%q]`, form, name)), value, chromedp.NodeVisible))
	}
	field("/account/password", "old", p.password)
	field("/account/password", "new", p.own())
	field("/account/password", "again", p.own())
	b.send("Change password")
	b.see("Your password is changed")
	b.visit(webconf + "/account")
	field("/account/custodian", "new", "passphrase of "+p.name)
	field("/account/custodian", "again", "passphrase of "+p.name)
	b.send("Set the passphrase")
	b.see("You are a custodian")
}

// contribute logs in again and enters the custodian passphrase.
func (b *tab) contribute(webconf string, p demoPerson) {
	b.t.Helper()
	b.login(webconf, readyAdmin{User: p.name, Password: p.own()})
	b.menu("Activation")
	b.reloadUntil("of 2")
	b.fill("passphrase", "passphrase of "+p.name)
	b.send("Open what can be opened")
}

// daemon starts a node's daemon in place of the demo's own, or of the one before.
func (d *testDemo) daemon(all *testing.T, i int) *daemonProcess {
	p := startDaemon(all, "serve-until", d.conf(i))
	d.Nodes[i].PID = p.cmd.Process.Pid
	d.own = append(d.own, p)
	return p
}

func (d *testDemo) conf(i int) string { return filepath.Join(d.dir, d.Nodes[i].Name, "keyferry.toml") }

// states are the states of each slot on the nodes in order, as node1 sees them.
func (d *testDemo) states(t *testing.T) map[string]string {
	t.Helper()
	var list slotList
	out, err := d.keyferry(0, "", "slots", "-o", "json")
	if err != nil || json.Unmarshal([]byte(out), &list) != nil {
		return nil
	}
	states := map[string]string{}
	for _, s := range list.Slots {
		var all []string
		for _, n := range d.Nodes {
			seat, ok := s.Seats[n.Name]
			if !ok {
				seat.State = cluster.SeatState("absent")
			}
			all = append(all, string(seat.State))
		}
		states[s.Label] = strings.Join(all, " ")
	}
	return states
}

// settle waits until something is so.
func (d *testDemo) settle(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !f(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in two minutes: %s; the slots are %v", what, d.states(t))
		}
	}
}
