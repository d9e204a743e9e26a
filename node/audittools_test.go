package node

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// TestAuditByPublicTools runs the commands of cluster/AUDIT.md as they stand, on a good file and on bad ones.
func TestAuditByPublicTools(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"jose", "jq", "openssl"} {
		hsmtest.Tool(t, tool)
	}
	text, err := os.ReadFile("../cluster/AUDIT.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\n"
	for _, part := range strings.Split(string(text), "```sh\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		script += block
	}
	w := newSignedTrail(t, 4)
	w.state.Audit[2].Alert, w.state.Audit[3].ActID = cluster.AlertDenied, "act-1"
	w.state.Audit[1].Detail = ""
	w.chain()
	w.state.Checkpoints = nil
	w.sign(t, "node2", 4)
	good := w.export(t)
	run := func(lines []string) (string, error) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{"file": []byte(strings.Join(lines, "")), "owner.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.poc.Raw})} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "F=file", "OWNER=owner.pem", "NODE=node1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(good); err != nil || strings.Contains(out, "changed") {
		t.Errorf("a good file: %v\n%s", err, out)
	}
	bad := append([]string{}, good...)
	at := entryLine(t, good, 3)
	bad[at] = strings.Replace(bad[at], "anna", "otto", 1)
	if out, err := run(bad); err == nil {
		t.Errorf("a changed file passes:\n%s", out)
	}
	// Signed again as it is, so that only the chain tells.
	w.state.Audit[2].Actor.Name = "otto"
	if out, err := run(w.export(t)); err != nil || !strings.Contains(out, "entry 3 was changed") {
		t.Errorf("a changed entry: %v\n%s", err, out)
	}
}
