package syncpkg

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// commands returns the shell commands of FORMAT.md, by the word behind ```sh.
func commands(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("FORMAT.md")
	must(t, err)
	found := map[string]string{}
	for _, block := range strings.Split(string(text), "\n```sh ")[1:] {
		name, rest, _ := strings.Cut(block, "\n")
		script, _, ok := strings.Cut(rest, "\n```")
		if !ok {
			t.Fatalf("the block %q of FORMAT.md has no end", name)
		}
		found[name] = script
	}
	return found
}

// needTools skips the test where a tool is missing, but fails where CI promises that all are there.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

// identityCertificate makes a self-signed certificate for the source's identity key.
func (w *world) identityCertificate(t *testing.T) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node1"},
		NotBefore: testNow, NotAfter: testNow.AddDate(10, 0, 0),
	}
	der := result(x509.CreateCertificate(rand.Reader, template, template, &w.source.PublicKey, w.source))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestPublicTools runs the commands of FORMAT.md on a fresh package and a fresh receipt, then on damaged ones.
func TestPublicTools(t *testing.T) {
	needTools(t, "sh", "jose", "jq", "openssl", "sed", "tail", "sha256sum")
	script := commands(t)
	w := newWorld(t)
	h := w.header()
	h.Expires = time.Now().Add(time.Hour)
	both := []string{"node2", "node3"}
	good := result(Seal(h, w.content(t, h, both, w.allKeys(t)...), w.recipients(both...), w.source))(t)
	receipt := w.receipt(t)
	statement := result(SignReceipt(receipt, w.source))(t)

	// run runs the named commands one after another in a shell that stops at the first that fails.
	run := func(t *testing.T, file []byte, statement string, names ...string) (string, error) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "package"), file, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "statement"), []byte(statement), 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "cert.pem"), w.identityCertificate(t), 0o600))
		all := "set -e\n"
		for _, name := range names {
			if script[name] == "" {
				t.Fatalf("FORMAT.md has no commands %q", name)
			}
			all += script[name] + "\n"
		}
		cmd := exec.Command("sh", "-c", all)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "F=package", "S=statement", "CERT=cert.pem", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, c := range []struct {
		name, says string
		names      []string
	}{
		{"head", "", []string{"key", "head"}},
		{"body", "", []string{"key", "head", "body"}},
		{"seals", "node2 81\nnode3 18\n", []string{"key", "head", "body", "seals"}},
		{"statement", receipt.Keys[0].Fingerprint + " imported\n", []string{"key", "statement"}},
	} {
		out, err := run(t, good, statement, c.names...)
		if err != nil || !strings.HasPrefix(out, c.says) || (c.says == "" && out != "") {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
	}
	for _, c := range []struct {
		name  string
		file  []byte
		names []string
	}{
		{"changed header", swapBytes("Issuing", "issuing")(good), []string{"key", "head"}},
		{"stranger's signature", w.forge(t, forgery{signer: w.stranger}), []string{"key", "head"}},
		{"other type", w.forge(t, forgery{protected: swap(typePackage, typeReceipt)}), []string{"key", "head"}},
		{"flipped body", flip(-1)(good), []string{"key", "head", "body"}},
		{"cut body", good[:len(good)-1], []string{"key", "head", "body"}},
		{"longer body", append(good[:len(good):len(good)], 0), []string{"key", "head", "body"}},
	} {
		if out, err := run(t, c.file, statement, c.names...); err == nil {
			t.Errorf("%s: the tools find nothing wrong\n%s", c.name, out)
		}
	}
	if out, err := run(t, good, result(SignReceiverKeys(w.receiverKeys("node2"), w.source))(t), "key", "statement"); err == nil {
		t.Errorf("receiver keys pass for a receipt\n%s", out)
	}
}
