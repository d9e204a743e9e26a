package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// start runs the daemon, and waits until it answers.
func (n *loneNode) start() {
	n.t.Helper()
	n.daemon = startDaemon(n.t, "serve-until", n.conf)
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
	return commandLine(n.socket, in, args...)
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

// refusals counts the codes that each token has refused, by the number of its slot in SoftHSM.
func (n *loneNode) refusals() map[uint64]int {
	n.t.Helper()
	f, err := os.Open(n.spy)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	count := map[uint64]int{}
	slots := map[string]uint64{} // by session
	slot, session, logins := uint64(0), "", 0
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " = ")
		switch {
		case name == "[in] slotID":
			slot, _ = strconv.ParseUint(value, 0, 64)
		case name == "[out] *phSession":
			slots[value] = slot
		case name == "[in] hSession":
			session = value
		case strings.HasSuffix(name, ": C_Login"):
			logins++
		case strings.HasSuffix(name, "CKR_PIN_INCORRECT"):
			count[slots[session]]++
		}
	}
	if logins == 0 || lines.Err() != nil {
		n.t.Fatalf("the spy has seen nothing: %v", lines.Err())
	}
	return count
}

// softSlot is the number that SoftHSM gives the slot of a token: the end of its serial number, as 31 bits.
func softSlot(serial string) uint64 {
	number, _ := strconv.ParseUint(serial[max(0, len(serial)-8):], 16, 64)
	return number & 0x7fffffff
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

// needs waits until the node asks custodians for this and nothing else: "slot purpose".
func (n *loneNode) needs(want ...string) {
	n.t.Helper()
	var got []string
	n.wait(fmt.Sprintf("custodians are asked for %q", want), func() bool {
		var list []node.ShareNeed
		if err := json.Unmarshal([]byte(n.must("", "custodians", "needs", "-o", "json")), &list); err != nil {
			n.t.Fatal(err)
		}
		got = nil
		for _, need := range list {
			got = append(got, need.Slot+" "+need.Purpose)
		}
		return slices.Equal(got, want)
	})
}

// The custodians of a loneNode.
var twoCustodians = []string{"anna", "berta"}

func passphraseOf(custodian string) string { return "the passphrase of " + custodian + "\n" }

// custodians makes them.
func (n *loneNode) custodians() {
	n.t.Helper()
	for _, name := range twoCustodians {
		var made struct {
			Password string `json:"temporary_password"`
		}
		if err := json.Unmarshal([]byte(n.must("", "people", "add", name, "--role", "crypto-user", "-o", "json")), &made); err != nil {
			n.t.Fatal(err)
		}
		enroll(n.t, "https://"+n.console(), demoPerson{name, made.Password}, strings.TrimSpace(passphraseOf(name)))
	}
}

// enroll does what becomeCustodian does in a browser, with nothing but its forms.
func enroll(t *testing.T, webconf string, p demoPerson, passphrase string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	post := func(path string, fields url.Values) {
		t.Helper()
		resp, err := browser.PostForm(webconf+path, fields)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if page, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK { // of the page that answers
			t.Fatalf("%s: %s, %v\n%s", path, resp.Status, err, page)
		}
	}
	post("/login", url.Values{"name": {p.name}, "password": {p.password}})
	post("/account/password", url.Values{"old": {p.password}, "new": {p.own()}, "again": {p.own()}})
	post("/account/custodian", url.Values{"new": {passphrase}, "again": {passphrase}})
}

// come has both custodians give what the node asks for. It fails where a token refuses what comes of it.
func (n *loneNode) come() (err error) {
	for _, name := range twoCustodians {
		_, err = n.keyferry(passphraseOf(name), "slots", "contribute", "--as", name)
	}
	return err
}

// everyCodeCommand runs what there is about codes on the command line, with good input and bad. Slots 1 and 2
// are shared, 3 and 4 manual, 5 and 6 generated.
func everyCodeCommand(n *loneNode) {
	n.t.Helper()
	n.must("", "slots", "rotation", "5", "--days", "30")
	n.must("", "slots", "try", "--all")
	var rotated []node.SlotView
	if err := json.Unmarshal([]byte(n.must("", "slots", "rotate", "--all", "-o", "json")), &rotated); err != nil || len(rotated) != 2 {
		n.t.Errorf("rotated: %+v, %v", rotated, err)
	}
	var custody []node.HeldCode
	if err := json.Unmarshal([]byte(n.must("", "custody", "-o", "json")), &custody); err != nil || len(custody) != 6 {
		n.t.Errorf("custody: %+v, %v", custody, err)
	}
	var forecasts []node.Forecast
	if err := json.Unmarshal([]byte(n.must("", "forecast", "--node", "node1", "-o", "json")), &forecasts); err != nil || len(forecasts) != 1 ||
		!strings.Contains(forecasts[0].Sentence, "closed as a whole") || len(forecasts[0].Slots) != 6 {
		n.t.Errorf("forecast: %+v, %v", forecasts, err)
	}
	n.must("", "custody")
	n.must("", "forecast")
	for _, c := range []struct {
		says string
		in   string
		args []string
	}{
		{"--all", "", []string{"slots", "rotate"}}, {"--all", "", []string{"slots", "try", "5", "--all"}}, {"kept by people", "", []string{"slots", "rotate", "3"}},
		{"no slot", "", []string{"slots", "try", "absent"}}, {"between 0 and 3650", "", []string{"slots", "rotation", "5", "--days", "-1"}}, {"days", "", []string{"slots", "rotation", "5"}},
		{"no node", "", []string{"forecast", "--node", "node9"}}, {"not sealed", "", []string{"unseal"}}, {"at least 12", "short\n", []string{"protect", "passphrase"}},
		{"not \"prayer\"", "", []string{"protect", "prayer"}}, {"names no TPM", "", []string{"protect", "tpm"}}, {"standard input", "", []string{"protect", "passphrase"}},
	} {
		if out, err := n.keyferry(c.in, c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			n.t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}
