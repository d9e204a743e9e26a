package node

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// An appNode is a node of its own whose applications are scripts.
type appNode struct {
	*Member
	cfg   Config
	proof string // what the scripts write
}

func newAppNode(t testing.TB, change func(*Config)) *appNode {
	t.Helper()
	cfg := testConfig(t, t.TempDir(), "node1")
	cfg.CodesDir = filepath.Join(inMemory(t), "codes")
	if change != nil {
		change(&cfg)
	}
	n := open(t, cfg)
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	a := &appNode{cfg: cfg, proof: filepath.Join(t.TempDir(), "proof")}
	a.member(t, n)
	if err := os.MkdirAll(cfg.RestartDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *appNode) member(t testing.TB, n *Node) {
	t.Helper()
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	a.Member = m
	eventually(t, "the node is connected", func() bool { return m.State().Nodes["node1"].Status == cluster.Connected })
}

// app makes an application whose restart command is a script.
func (a *appNode) app(t testing.TB, app cluster.App, script string) {
	t.Helper()
	app.Nodes = []string{}
	app.Restart = cluster.Restart{Kind: cluster.RestartCommand, Target: app.Name}
	if err := os.WriteFile(filepath.Join(a.cfg.RestartDir, app.Name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Apps.Put(t.Context(), console, app, nil); err != nil {
		t.Fatal(err)
	}
}

func (a *appNode) proved(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(a.proof)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

// waitRun waits until the last restart of an application has this reason and succeeded.
func (a *appNode) waitRun(t testing.TB, app, reason string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the last run is %+v", a.State().Apps[app].Runs["node1"])
		}
	}()
	eventually(t, app+" is restarted, because "+reason, func() bool {
		r := a.State().Apps[app].Runs["node1"]
		return r.OK && r.Reason == reason
	})
}

// held is the code that the token of a slot is held open by.
func (a *appNode) held(t testing.TB, slot string) string {
	t.Helper()
	code, err := a.Slots.code(slot)
	if err != nil {
		t.Fatal(err)
	}
	return string(code)
}

// TestDeliverFiles follows the files with codes through everything that changes them.
func TestDeliverFiles(t *testing.T) {
	a := newAppNode(t, nil)
	newSlot(t, []*Member{a.Member}, "auto", cluster.Generated)
	newSlot(t, []*Member{a.Member}, "by hand", cluster.Manual)
	app := cluster.App{Name: "signer", Slots: []string{"auto", "by hand"}, Delivery: cluster.Delivery{Kind: cluster.DeliverFile}}
	auto, hand := a.Apps.codes.path("signer", "auto"), a.Apps.codes.path("signer", "by hand")
	content := func(path string) string {
		b, _ := os.ReadFile(path)
		return string(b)
	}
	secrets := map[string]bool{manualCode: true}
	has := func(what, path, slot string) {
		t.Helper()
		eventually(t, what, func() bool {
			got := content(path)
			if slot == "" {
				return got == ""
			}
			secrets[a.held(t, slot)] = true
			return got == a.held(t, slot)
		})
	}
	a.app(t, app, "cat "+auto+" >>"+a.proof)
	has("the generated code is delivered", auto, "auto")
	files := a.Apps.Files(a.State().Apps["signer"])
	if len(files) != 2 || !files[0].There || files[1].There || !strings.Contains(files[1].Problem, "people hold") || !strings.HasSuffix(files[1].URI, "/signer/by_20hand") {
		t.Errorf("files %+v", files)
	}
	app.Delivery.Manual = true
	a.app(t, app, "cat "+auto+" >>"+a.proof)
	has("the other code is delivered, too", hand, "by hand")

	if err := a.Slots.Deactivate(t.Context(), console, "by hand"); err != nil {
		t.Fatal(err)
	}
	has("the file goes with the activation", hand, "")
	if err := a.Slots.Activate(t.Context(), console, "by hand", []byte(manualCode)); err != nil {
		t.Fatal(err)
	}
	a.waitRun(t, "signer", "its slots are open")
	has("the file comes with the activation", hand, "by hand")

	before := a.held(t, "auto")
	if err := a.Slots.Rotate(t.Context(), console, "auto"); err != nil {
		t.Fatal(err)
	}
	a.waitRun(t, "signer", "the code of slot auto was changed")
	if after := a.held(t, "auto"); after == before || !strings.HasSuffix(a.proved(t), after) {
		t.Error("the application was restarted without the new code")
	}
	// A node that starts anew has the application restarted, and the file is as it was.
	a.node.Close()
	if content(auto) == "" {
		t.Error("the file of a generated slot is gone when the daemon is")
	}
	a.member(t, open(t, a.cfg))
	has("a code that people hold is not there after a start", hand, "")
	has("the generated one is", auto, "auto")
	if why := a.Apps.Waits("signer", "node1"); !strings.Contains(why, "slot by hand") {
		t.Errorf("it waits for %q", why)
	}

	if err := a.Slots.SetMode(t.Context(), console, "auto", cluster.Manual, nil, []byte("people chose this")); err != nil {
		t.Fatal(err)
	}
	secrets["people chose this"] = true
	app.Delivery.Manual = false
	a.app(t, app, "true")
	has("a code that people hold is not delivered any more", auto, "")
	app.Delivery.Manual = true
	a.app(t, app, "true")
	has("unless the application asks for it", auto, "auto")
	if err := a.Apps.Remove(t.Context(), console, "signer"); err != nil {
		t.Fatal(err)
	}
	has("nothing is left of an application that was removed", auto, "")
	a.noSecrets(t, secrets)
}

// noSecrets looks for codes in the replicated state, and for the acts that delivered them.
func (a *appNode) noSecrets(t testing.TB, secrets map[string]bool) {
	t.Helper()
	b, err := json.Marshal(a.State())
	if err != nil {
		t.Fatal(err)
	}
	for secret := range secrets {
		if bytes.Contains(b, []byte(secret)) {
			t.Error("a code is in the replicated state")
		}
	}
	delivered := 0
	for _, e := range a.State().Audit {
		if e.Act == "app.deliver" && e.Result == cluster.Done {
			delivered++
		}
	}
	if delivered < 5 {
		t.Errorf("%d deliveries are in the audit trail", delivered)
	}
}

// A restart command reads the codes of open slots in lines, from nowhere but its standard input.
func TestDeliverStdin(t *testing.T) {
	a := newAppNode(t, nil)
	newSlot(t, []*Member{a.Member}, "auto 1", cluster.Generated)
	newSlot(t, []*Member{a.Member}, "hand", cluster.Manual)
	app := cluster.App{Name: "signer", Slots: []string{"auto 1", "hand"}, Delivery: cluster.Delivery{Kind: cluster.DeliverStdin}}
	script := "cat >" + a.proof + "; [ $# = 0 ] || exit 1; env >" + a.proof + ".env"
	a.app(t, app, script)
	restart := func() string {
		t.Helper()
		if _, err := a.Apps.Restart(t.Context(), console, "signer"); err != nil {
			t.Fatal(err)
		}
		if env, err := os.ReadFile(a.proof + ".env"); err != nil || bytes.Contains(env, []byte(a.held(t, "auto 1"))) {
			t.Errorf("environment: %v", err)
		}
		return a.proved(t)
	}
	want := "auto 1\t" + a.held(t, "auto 1") + "\n"
	if got := restart(); got != want {
		t.Errorf("it read %q, want %q", got, want)
	}
	app.Delivery.Manual = true
	a.app(t, app, script)
	if got := restart(); got != want+"hand\t"+manualCode+"\n" {
		t.Errorf("it read %q", got)
	}
}

// What cannot be delivered is said, and no application is restarted without its code.
func TestDeliverProblem(t *testing.T) {
	a := newAppNode(t, func(c *Config) { c.CodesDir = filepath.Join(c.Dir, "codes") })
	newSlot(t, []*Member{a.Member}, "auto", cluster.Generated)
	a.app(t, cluster.App{Name: "signer", Slots: []string{"auto"}, Delivery: cluster.Delivery{Kind: cluster.DeliverFile}}, "echo ran >"+a.proof)
	_, err := a.Apps.Restart(t.Context(), console, "signer")
	if err == nil || !strings.Contains(err.Error(), "is on a disk") || a.proved(t) != "" {
		t.Errorf("error %v, it wrote %q", err, a.proved(t))
	}
	if f := a.Apps.Files(a.State().Apps["signer"]); len(f) != 1 || !strings.Contains(f[0].Problem, "is on a disk") {
		t.Errorf("files %+v", f)
	}
	if _, err := os.Stat(filepath.Join(a.cfg.CodesDir, "signer")); err == nil {
		t.Error("something was written to the disk")
	}
}
