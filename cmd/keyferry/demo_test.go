package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// TestDemo runs the demo once and plays everything on it that an administrator, other programs and bad
// luck do.
func TestDemo(t *testing.T) {
	hsmtest.SoftHSMLibrary(t)
	dir := t.TempDir()
	base := freeBase(t)
	d := startDemo(t, dir, base, "--story")
	checkReady(t, d, dir, base)
	t.Run("browser", func(t *testing.T) { browserStory(t, d) })
	t.Run("pkcs11-tool", func(t *testing.T) { foreignKey(t, d) })
	t.Run("keytool", func(t *testing.T) { javaKey(t, d) })
	t.Run("memory", func(t *testing.T) {
		needRoot(t)
		noKeysInMemory(t, d)
	})
	t.Run("bad input", func(t *testing.T) { badInput(t, d) })
	t.Run("identity", func(t *testing.T) { identCluster(t, d) })
	t.Run("new keys", func(t *testing.T) { rekeyDemo(t, d) })
	t.Run("trust while one dies", func(t *testing.T) { trustWhileOneDies(t, d) }) // the next one starts it again
	t.Run("killed daemons", func(sub *testing.T) { killedImports(t, sub, d) })
	t.Run("power cut", func(sub *testing.T) { powerCut(t, sub, d) })
	t.Run("people", func(t *testing.T) { peopleByCommand(t, d) })
	t.Run("settings", func(t *testing.T) { settingsByCommand(t, d) })
	t.Run("audit", func(t *testing.T) { auditedRun(t, d) })
	if t.Failed() {
		return
	}
	t.Run("again", func(t *testing.T) {
		d.stop(t)
		again := startDemo(t, dir, base, "--story")
		again.waitCoverage(t, 2, "foreign", node.Present, "node1", "node2", "node3")
		if again.Admin != d.Admin || again.Slots[0] != d.Slots[0] {
			t.Error("the demo has other secrets than before")
		}
		nodesByCommand(t, again)
	})
}

// checkReady holds the ready file to what other programs rely on.
func checkReady(t *testing.T, d *testDemo, dir string, base int) {
	t.Helper()
	if len(d.Nodes) != 3 || d.Admin.User != "admin" || d.Admin.Password == "" {
		t.Errorf("ready: %+v", d.readyFile)
	}
	for i, n := range d.Nodes {
		if n.Name != fmt.Sprintf("node%d", i+1) || n.WebConf != fmt.Sprintf("https://127.0.0.1:%d", base+i) || !strings.HasPrefix(n.Socket, filepath.Join(dir, n.Name)) ||
			n.Env["SOFTHSM2_CONF"] == "" || n.PID == 0 {
			t.Errorf("ready: %+v", n)
		}
	}
	if len(d.Slots) != 2 || d.Slots[0].Label != "demo-ca" || d.Slots[0].Mode != "manual" || len(d.Slots[0].PIN) < 8 || d.Slots[1].Label != "demo-auto" || d.Slots[1].Mode != "generated" {
		t.Errorf("ready: %+v", d.Slots)
	}
	if pem, err := os.ReadFile(d.CAFile); err != nil || !strings.Contains(string(pem), "BEGIN CERTIFICATE") {
		t.Errorf("CA file: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "ready.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file, which holds secrets: %v, %v", info.Mode(), err)
	}
}

// badInput is what a person types wrong on the command line. Each says what was wrong, and ends with a
// status that is not 0.
func badInput(t *testing.T, d *testDemo) {
	dir := t.TempDir()
	text := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(text, []byte("Dear administrator,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, in, says string
		args           []string
	}{
		{"no such file", "", "no such file", []string{"sync", "import", filepath.Join(dir, "absent")}},
		{"a text file", "", "not a", []string{"sync", "import", text}},
		{"a text file, inspected offline", "", "not a", []string{"sync", "inspect", "--offline", text}},
		{"no such slot", "", "nowhere", []string{"sync", "build", "--slot", "nowhere", "-o", filepath.Join(dir, "x")}},
		{"no such node", "", "node9", []string{"sync", "build", "--slot", "demo-ca", "--to", "node9", "-o", filepath.Join(dir, "x")}},
		{"itself", "", "node1", []string{"sync", "build", "--slot", "demo-ca", "--to", "node1", "-o", filepath.Join(dir, "x")}},
		{"nothing missing", "", "nothing to send", []string{"sync", "build", "--slot", "demo-auto", "-o", filepath.Join(dir, "x")}},
		{"no code", "", "standard input", []string{"slots", "activate", "demo-ca"}},
		{"a short code", "short\n", "at least 8", []string{"slots", "create", "new", "--mode", "manual"}},
		{"a wrong old code", "wrong code\nanother code\n", "wrong", []string{"slots", "change-code", "demo-ca"}},
		{"an unknown mode", "code code\n", "mode", []string{"slots", "mode", "demo-ca", "sometimes"}},
		{"one custodian", "", "at least two", []string{"slots", "custody", "demo-ca", "--holders", "admin"}},
		{"custodians of no slot", "", "no slot", []string{"slots", "custody", "nowhere", "--holders", "admin,zoe"}},
		{"a custodian without name", "", "--as", []string{"slots", "contribute"}},
		{"a custodian without account", "some passphrase\n", "no account", []string{"slots", "contribute", "--as", "zoe"}},
		{"a slot that is open everywhere", "some code\n", "not closed", []string{"slots", "activate", "demo-ca", "--node", "all"}},
		{"an unknown format", "", "table or json", []string{"coverage", "-o", "yaml"}},
		{"init again", "", "already", []string{"init"}},
		{"an unknown command", "", "unknown command", []string{"launch"}},
		{"an argument too many", "", "unknown command", []string{"coverage", "demo-ca"}},
		{"an app without slot", "", "slot", []string{"apps", "add", "ejbca"}},
		{"an app with a path", "", "command", []string{"apps", "add", "ejbca", "--slot", "demo-ca", "--command", "../../bin/sh"}},
		{"an audit trail of no day", "", "neither a day", []string{"audit", "export", "--since", "yesterday", "-o", filepath.Join(dir, "x")}},
		{"an audit trail without a file", "", "output", []string{"audit", "export"}},
		{"a code that all can read", "", "0440", []string{"apps", "add", "ejbca", "--slot", "demo-ca", "--codes", "file", "--mode", "0444"}},
		{"an app after one that is not", "", "nginx", []string{"apps", "add", "ejbca", "--slot", "demo-ca", "--after", "nginx"}},
		{"two ways to restart an app", "", "webhook", []string{"apps", "add", "ejbca", "--slot", "demo-ca", "--unit", "x.service", "--webhook", "x"}},
		{"an app that is not there", "", "ejbca", []string{"apps", "show", "ejbca"}},
		{"no such app", "", "ejbca", []string{"apps", "restart", "ejbca"}},
	} {
		out, err := d.process(0, c.in, c.args...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a package file was left behind")
	}
}
