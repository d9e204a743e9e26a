package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// auditedRun exports the trail of all that the demo did, on every node, and verifies it as an auditor
// would: in a process of its own that knows no daemon.
func auditedRun(t *testing.T, d *testDemo) {
	dir := t.TempDir()
	verify := func(args ...string) (string, int) {
		cmd := exec.Command(os.Args[0], append([]string{"audit", "verify"}, args...)...)
		cmd.Env = append(os.Environ(), "KEYFERRY_SOCKET=/nonexistent")
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(out), exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		return string(out), 0
	}
	var files []string
	for i, n := range d.Nodes {
		file := filepath.Join(dir, n.Name+".jsonl")
		d.must(t, i, "", "audit", "export", "-o", file)
		files = append(files, file)
		out, status := verify("--owner", d.CAFile, file)
		if status != 0 || !strings.Contains(out, "as given") || !strings.Contains(out, "Exported by "+n.Name) {
			t.Errorf("%s: status %d\n%s", n.Name, status, out)
		}
	}
	if out, status := verify(files[0]); status != 3 || !strings.Contains(out, "NOT COMPARED") {
		t.Errorf("without an owner certificate: status %d\n%s", status, out)
	}
	one, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	three, err := os.ReadFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	entries := func(b []byte) (list []string) {
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, `{"entry"`) {
				list = append(list, line)
			}
		}
		return list
	}
	if a, b := entries(one), entries(three); len(b) <= len(a) || strings.Join(a, "") != strings.Join(b[:len(a)], "") {
		t.Errorf("two nodes export different trails: %d and %d entries", len(a), len(b))
	}
	lines := strings.SplitAfter(string(one), "\n")
	cut := filepath.Join(dir, "cut.jsonl")
	if err := os.WriteFile(cut, []byte(strings.Join(append(lines[:10:10], lines[11:]...), "")), 0o600); err != nil {
		t.Fatal(err)
	}
	var v node.AuditVerdict
	out, status := verify("--owner", d.CAFile, "-o", "json", cut)
	text, _, _ := strings.Cut(out, "\nkeyferry:")
	if err := json.Unmarshal([]byte(text), &v); err != nil || status != 1 || len(v.Findings) == 0 || !strings.Contains(v.Findings[0], "missing") {
		t.Errorf("a line is missing: status %d, %v\n%s", status, err, out)
	}
	for _, args := range [][]string{{filepath.Join(dir, "absent")}, {d.CAFile}, {"--owner", files[0], files[0]}, {"--owner", filepath.Join(dir, "absent"), files[0]}, {}} {
		if out, status := verify(args...); status != 1 {
			t.Errorf("%v: status %d\n%s", args, status, out)
		}
	}
	var list []cluster.Entry
	if err := json.Unmarshal([]byte(d.must(t, 1, "", "audit", "-o", "json", "--act", "audit.export", "--result", "done", "--node", "node1")), &list); err != nil || len(list) != 1 || list[0].Hash == "" {
		t.Errorf("the export on node1 is recorded %d times, %v", len(list), err)
	}
	if out := d.must(t, 1, "", "audit", "status"); !strings.Contains(out, "Signed by node1") || strings.Contains(out, "does not hold") {
		t.Errorf("status:\n%s", out)
	}
}

// A [syslog] section that cannot work is refused before the node starts.
func TestSyslogConfig(t *testing.T) {
	good := func() *syslogConfig {
		return &syslogConfig{Address: "log.example:6514", CAFile: "/etc/keyferry/syslog-ca.pem"}
	}
	c := good()
	if err := c.check(); err != nil || c.Facility != node.DefaultFacility {
		t.Errorf("facility %q, %v", c.Facility, err)
	}
	for want, change := range map[string]func(*syslogConfig){
		"host:port":         func(c *syslogConfig) { c.Address = "log.example" },
		"not \":6514\"":     func(c *syslogConfig) { c.Address = ":6514" },
		"syslog.ca_file":    func(c *syslogConfig) { c.CAFile = "" },
		"belong together":   func(c *syslogConfig) { c.Certificate = "/etc/x.pem" },
		"syslog.key must":   func(c *syslogConfig) { c.Certificate, c.Key = "/etc/x.pem", "y.pem" },
		"facility \"mail\"": func(c *syslogConfig) { c.Facility = "mail" },
	} {
		c := good()
		change(c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", c, err, want)
		}
	}
}
