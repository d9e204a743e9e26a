package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
	toml "github.com/pelletier/go-toml/v2"
)

// A loneNode is a cluster of one real daemon. Between it and SoftHSM stands OpenSC's pkcs11-spy, which
// writes down what codes the token was asked to take, and what it answered.
type loneNode struct {
	t      *testing.T
	conf   string
	socket string
	spy    string
	daemon *daemonProcess
	base   int
}

func newLoneNode(t *testing.T) *loneNode {
	t.Helper()
	dir := t.TempDir()
	soft := hsmtest.SoftHSM(t, filepath.Join(dir, "softhsm"))
	n := &loneNode{t: t, conf: filepath.Join(dir, "keyferry.toml"), socket: filepath.Join(dir, "k.sock"), spy: filepath.Join(dir, "spy.log"), base: freeBase(t)}
	soft.Env["PKCS11SPY"], soft.Env["PKCS11SPY_OUTPUT"] = soft.Path, n.spy
	c := config{Name: "node1", DataDir: filepath.Join(dir, "data"), Socket: n.socket,
		Modules: []moduleConfig{{Name: "softhsm", Path: hsmtest.Spy(t), Env: soft.Env}}}
	c.Peer.Listen = fmt.Sprintf("127.0.0.1:%d", n.base)
	c.Peer.Address, c.WebConf.Listen = c.Peer.Listen, fmt.Sprintf("127.0.0.1:%d", n.base+1)
	c.WebConf.URL = "https://" + c.WebConf.Listen
	b, err := toml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.conf, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

// start runs a daemon that ends itself at a step, and waits until it answers.
func (n *loneNode) start(step string) {
	n.t.Helper()
	n.daemon = startDaemon(n.t, "serve-until", step, n.conf)
	n.wait("the daemon answers", func() bool { _, err := n.keyferry("", "status"); return err == nil })
}

func (n *loneNode) wait(what string, f func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); time.Sleep(30 * time.Millisecond) {
		if time.Now().After(deadline) {
			slots, _ := n.keyferry("", "slots")
			n.t.Fatalf("not in a minute: %s\n%s", what, slots)
		}
	}
}

func (n *loneNode) keyferry(in string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(os.Args[0], append(args, "--socket", n.socket)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

func (n *loneNode) must(in string, args ...string) string {
	n.t.Helper()
	out, err := n.keyferry(in, args...)
	if err != nil {
		n.t.Fatalf("keyferry %v: %v", args, err)
	}
	return out
}

// slot is how the node sees a slot; it has no label where there is none.
func (n *loneNode) slot(label string) node.SlotView {
	n.t.Helper()
	var list slotList
	if err := json.Unmarshal([]byte(n.must("", "slots", "-o", "json")), &list); err != nil {
		n.t.Fatal(err)
	}
	for _, v := range list.Here {
		if v.Label == label {
			return v
		}
	}
	return node.SlotView{}
}

// refusals counts the codes that tokens have refused.
func (n *loneNode) refusals() int {
	n.t.Helper()
	b, err := os.ReadFile(n.spy)
	if err != nil || !bytes.Contains(b, []byte("C_Login")) {
		n.t.Fatalf("the spy has seen nothing: %v", err)
	}
	return bytes.Count(b, []byte("CKR_PIN_INCORRECT"))
}

// opens waits until the slot is active: by itself, or with the first of the codes that the token takes, in
// the order in which the node tells to try them. It returns the mode.
func (n *loneNode) opens(label string, codes ...string) string {
	n.t.Helper()
	waits := func(v node.SlotView) bool {
		return v.Mode == cluster.Manual && strings.HasPrefix(v.Reason, "waits for")
	}
	var v node.SlotView
	n.wait("slot "+label+" is active, or waits for its code", func() bool { v = n.slot(label); return v.State == cluster.Active || waits(v) })
	if v.State == cluster.Active {
		return v.Mode
	}
	if len(codes) > 1 && !strings.Contains(v.Reason, "try the new one first") {
		n.t.Errorf("slot %s does not say which codes may be right: %s", label, v.Reason)
	}
	for _, code := range codes {
		if _, err := n.keyferry(code+"\n", "slots", "activate", label); err == nil {
			return v.Mode
		}
	}
	n.t.Fatalf("nobody opens slot %s any more: %+v", label, v)
	return ""
}

// A cutOff is a command in the middle of which the daemon is killed, and what is looked at after its next
// start.
type cutOff struct {
	step string
	in   string
	args []string
	then func(n *loneNode)
}

// cutOffs are the steps of all changes of codes, in an order in which each finds what it needs.
func cutOffs() []cutOff {
	create := func(label, mode, step string, made bool) cutOff {
		in := map[string]string{cluster.Generated: "", cluster.Manual: "first code " + label + "\n"}[mode]
		return cutOff{"slot: " + step, in, []string{"slots", "create", label, "--mode", mode}, func(n *loneNode) {
			if got := n.slot(label).Label != ""; got != made {
				n.t.Errorf("slot %s is there: %t, want %t", label, got, made)
			}
			if made && n.opens(label, "first code "+label) != mode {
				n.t.Errorf("slot %s has another mode", label)
			}
		}}
	}
	modes := func(step, to, in, code string, modes ...string) cutOff {
		return cutOff{"code: " + step, in, []string{"slots", "mode", "auto", to}, func(n *loneNode) {
			if mode := n.opens("auto", code); !strings.Contains(strings.Join(modes, " "), mode) {
				n.t.Errorf("the slot is in %s mode", mode)
			}
			if mode := n.slot("auto").Mode; mode != modes[0] { // for what comes next
				n.must(in, "slots", "mode", "auto", modes[0])
			}
		}}
	}
	rotate := func(step string) cutOff {
		return cutOff{"code: " + step, "", []string{"slots", "rotate", "auto"}, func(n *loneNode) {
			if mode := n.opens("auto"); mode != cluster.Generated {
				n.t.Errorf("the slot is in %s mode", mode)
			}
		}}
	}
	change := func(step, old, code string, codes ...string) cutOff {
		return cutOff{"code: " + step, old + "\n" + code + "\n", []string{"slots", "change-code", "hand"}, func(n *loneNode) { n.opens("hand", codes...) }}
	}
	const hand, second, third = "first code hand", "second code hand", "third code hand"
	return []cutOff{
		create("auto", cluster.Generated, "recorded", false), create("auto", cluster.Generated, "token made", true), create("auto2", cluster.Generated, "stored", true),
		create("hand", cluster.Manual, "recorded", false), create("hand", cluster.Manual, "token made", true), create("hand2", cluster.Manual, "stored", true),
		rotate("pending stored"), rotate("set on the token"), rotate("stored"),
		modes("leaving stored", cluster.Manual, "a manual code\n", "", cluster.Generated),
		modes("set on the token", cluster.Manual, "a manual code\n", "a manual code", cluster.Manual),
		modes("pending stored", cluster.Generated, "a manual code\n", "a manual code", cluster.Manual),
		modes("set on the token", cluster.Generated, "a manual code\n", "", cluster.Generated),
		modes("stored", cluster.Manual, "a manual code\n", "a manual code", cluster.Manual),
		modes("stored", cluster.Generated, "a manual code\n", "", cluster.Generated),
		change("change stored", hand, second, second, hand), change("set on the token", hand, second, second, hand), change("stored", second, third, third),
	}
}

// TestKilledWhileChangingCodes kills the daemon with SIGKILL between every two steps of what changes a
// code. Nobody is locked out, and the token sees one wrong code at most.
func TestKilledWhileChangingCodes(t *testing.T) {
	n := newLoneNode(t)
	list := cutOffs()
	n.start(list[0].step)
	n.must("", "init")
	for i, c := range list {
		if out, err := n.keyferry(c.in, c.args...); err == nil {
			t.Fatalf("%v, %s: it ended well: %s", c.args, c.step, out)
		}
		if state := n.daemon.wait(); !strings.Contains(state, "killed") {
			t.Fatalf("%v, %s: the daemon ended so: %s", c.args, c.step, state)
		}
		before := n.refusals()
		next := "none"
		if i+1 < len(list) {
			next = list[i+1].step
		}
		n.start(next)
		c.then(n)
		if tries := n.refusals() - before; tries > 1 {
			t.Errorf("%v, %s: the token refused %d codes", c.args, c.step, tries)
		}
	}
	if n.refusals() == 0 { // a pending code that the token never got is a wrong one
		t.Error("the spy has seen no refusal at all")
	}
	protectCutOff(t, n)
}

// protectCutOff kills the daemon between the steps of protecting the node key by a passphrase.
func protectCutOff(t *testing.T, n *loneNode) {
	t.Helper()
	const passphrase = "a passphrase of some length\n"
	for _, step := range []string{"written", "proved", "renamed", "switched"} {
		n.daemon.cmd.Process.Signal(syscall.SIGTERM)
		n.daemon.wait()
		n.start("protect: " + step)
		n.opens("auto")
		if out, err := n.keyferry(passphrase, "protect", "passphrase"); err == nil {
			t.Fatalf("%s: it ended well: %s", step, out)
		}
		if state := n.daemon.wait(); !strings.Contains(state, "killed") {
			t.Fatalf("%s: the daemon ended so: %s", step, state)
		}
		n.start("none")
		out := n.must("", "status")
		if sealed := strings.Contains(out, "keyferry unseal"); sealed != (step == "switched") {
			t.Errorf("%s: sealed is %t:\n%s", step, sealed, out)
		} else if sealed {
			if _, err := n.keyferry("another passphrase\n", "unseal"); err == nil || !strings.Contains(err.Error(), "not the passphrase") {
				t.Errorf("a wrong passphrase: %v", err)
			}
			if _, err := n.keyferry("", "slots"); err == nil || !strings.Contains(err.Error(), "sealed") {
				t.Errorf("slots of a sealed node: %v", err)
			}
			n.wait("the node takes the passphrase", func() bool { _, err := n.keyferry(passphrase, "unseal"); return err == nil })
		}
		n.opens("auto")
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(n.conf), "data", "node.key*")); len(files) != 1 || filepath.Base(files[0]) != "node.key.sealed" {
		t.Errorf("the key files are %v", files)
	}
	everyCodeCommand(n)
	n.daemon.stop()
}

// everyCodeCommand runs what there is about codes on the command line, with good input and bad.
func everyCodeCommand(n *loneNode) {
	n.t.Helper()
	n.must("", "slots", "rotation", "auto", "--days", "30")
	n.must("", "slots", "try", "--all")
	var rotated []node.SlotView
	if err := json.Unmarshal([]byte(n.must("", "slots", "rotate", "--all", "-o", "json")), &rotated); err != nil || len(rotated) != 2 {
		n.t.Errorf("rotated: %+v, %v", rotated, err)
	}
	var custody []node.HeldCode
	if err := json.Unmarshal([]byte(n.must("", "custody", "-o", "json")), &custody); err != nil || len(custody) != 4 {
		n.t.Errorf("custody: %+v, %v", custody, err)
	}
	var forecasts []node.Forecast
	if err := json.Unmarshal([]byte(n.must("", "forecast", "--node", "node1", "-o", "json")), &forecasts); err != nil || len(forecasts) != 1 ||
		!strings.Contains(forecasts[0].Sentence, "closed as a whole") || len(forecasts[0].Slots) != 4 {
		n.t.Errorf("forecast: %+v, %v", forecasts, err)
	}
	n.must("", "custody")
	n.must("", "forecast")
	for _, c := range []struct {
		says string
		in   string
		args []string
	}{
		{"--all", "", []string{"slots", "rotate"}}, {"--all", "", []string{"slots", "try", "auto", "--all"}}, {"kept by people", "", []string{"slots", "rotate", "hand"}},
		{"no slot", "", []string{"slots", "try", "absent"}}, {"between 0 and 3650", "", []string{"slots", "rotation", "auto", "--days", "-1"}}, {"days", "", []string{"slots", "rotation", "auto"}},
		{"no node", "", []string{"forecast", "--node", "node9"}}, {"not sealed", "", []string{"unseal"}}, {"at least 12", "short\n", []string{"protect", "passphrase"}},
		{"not \"prayer\"", "", []string{"protect", "prayer"}}, {"names no TPM", "", []string{"protect", "tpm"}}, {"standard input", "", []string{"protect", "passphrase"}},
	} {
		if out, err := n.keyferry(c.in, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			n.t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
