package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

const testPassphrase = "a passphrase of some length"

// cheapTerms makes argon2id cheap, for tests that are not about its cost.
func cheapTerms(t testing.TB) {
	t.Helper()
	dear := keyTerms
	keyTerms = argonTerms{Passes: 1, Memory: 64, Threads: 1}
	t.Cleanup(func() { keyTerms = dear })
}

// startTPM runs a software TPM 2.0 with a seed of its own, and returns its socket.
func startTPM(t testing.TB) string {
	t.Helper()
	tool := hsmtest.Tool(t, "swtpm")
	dir, err := os.MkdirTemp("", "tpm") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "tpm.sock")
	cmd := exec.Command(tool, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	eventually(t, "the TPM listens", func() bool {
		info, err := os.Stat(socket)
		return err == nil && info.Mode()&os.ModeSocket != 0
	})
	return socket
}

// TestProtect switches a node with a generated slot from one protection to the next, and starts it anew
// each time.
func TestProtect(t *testing.T) {
	tpm := startTPM(t)
	cfg := testConfig(t, t.TempDir(), "node1")
	cfg.Seal.TPM = tpm
	n := open(t, cfg)
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	newSlot(t, []*Member{m}, "auto", cluster.Generated)
	protect := func(by string) {
		t.Helper()
		if err := m.Protect(t.Context(), console, by, []byte(testPassphrase)); err != nil {
			t.Fatal(err)
		}
		if got := m.State().Nodes["node1"].Protector; got != by || n.Sealing().Protector != by {
			t.Errorf("protected by %s, says the cluster; want %s", got, by)
		}
	}
	has := func(files ...string) {
		t.Helper()
		found, _ := filepath.Glob(filepath.Join(cfg.Dir, "node.key*"))
		for i := range found {
			found[i] = filepath.Base(found[i])
		}
		if strings.Join(found, " ") != strings.Join(files, " ") {
			t.Errorf("the files are %v, want %v", found, files)
		}
	}
	restart := func() {
		t.Helper()
		n.Close()
		n = open(t, cfg)
	}
	works := func() {
		t.Helper()
		if m, err = n.Member(); err != nil {
			t.Fatal(err)
		}
		state(t, m, "auto", cluster.Active)
	}

	protect(cluster.ByPassphrase)
	has(sealedFile)
	restart()
	if _, err := n.Member(); !errors.Is(err, ErrSealed) {
		t.Fatalf("a node whose passphrase nobody has entered: %v", err)
	}
	if s := n.Sealing(); !strings.Contains(s.Sealed, "passphrase") || s.Protector != cluster.ByPassphrase {
		t.Errorf("it says %+v", s)
	}
	if _, err := n.Found(t.Context(), console, "again"); !errors.Is(err, ErrSealed) {
		t.Errorf("founding a cluster on a sealed node: %v", err)
	}
	if err := n.Unseal(t.Context(), []byte("another passphrase")); !IsRefusal(err) || !errors.Is(err, errPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if err := n.Unseal(t.Context(), []byte(testPassphrase)); !IsRefusal(err) || !strings.Contains(err.Error(), "wait") {
		t.Errorf("at once after a wrong one: %v", err)
	}
	n.tries.until = time.Time{}
	if err := n.Unseal(t.Context(), []byte(testPassphrase)); err != nil {
		t.Fatal(err)
	}
	works()
	if err := n.Unseal(t.Context(), []byte(testPassphrase)); !IsRefusal(err) {
		t.Errorf("unsealing again: %v", err)
	}

	protect(cluster.ByTPM)
	has(sealedFile)
	restart()
	works()
	n.Close()
	other := cfg
	other.Seal.TPM = startTPM(t)
	n = open(t, other)
	if s := n.Sealing(); !strings.Contains(s.Sealed, "did not seal") {
		t.Errorf("with another TPM it says %+v", s)
	}
	if err := n.Unseal(t.Context(), nil); !IsRefusal(err) || !strings.Contains(err.Error(), "did not seal") {
		t.Errorf("unsealing with another TPM: %v", err)
	}
	restart()
	works()
	protect(cluster.ByFile)
	has(keyFile)
	restart()
	works()
}

// TestPassphraseFile reads the passphrase where a system provides it.
func TestPassphraseFile(t *testing.T) {
	cheapTerms(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "credential")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := openNodeKey(dir, SealConfig{})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Seal("name", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.protect(cluster.ByPassphrase, []byte(testPassphrase), func(string) {}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ content, says string }{
		{testPassphrase, ""}, {testPassphrase + "\n", ""}, {testPassphrase + "\r\n", ""},
		{"", "not the passphrase"}, {testPassphrase + "\n\n", "not the passphrase"}, {strings.Repeat("x", 1<<20), "not the passphrase"}, {"\xff\xfe", "not the passphrase"},
	} {
		write(c.content)
		k, err := openNodeKey(dir, SealConfig{PassphraseFile: file})
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Open("name", sealed)
		if s := k.Where(); c.says == "" && (err != nil || string(got) != "value" || s.Protector != cluster.ByCredential) ||
			c.says != "" && (!errors.Is(err, ErrSealed) || !strings.Contains(s.Sealed, c.says)) {
			t.Errorf("%.40q: %q, %v, %+v", c.content, got, err, s)
		}
	}
	os.Remove(file)
	if k, err := openNodeKey(dir, SealConfig{PassphraseFile: file}); err != nil || !strings.Contains(k.Where().Sealed, file) {
		t.Errorf("without the file: %v, %v", k, err)
	}
	write("another passphrase")
	k.cfg.PassphraseFile = file
	if err := k.checkFile([]byte(testPassphrase)); !IsRefusal(err) {
		t.Errorf("a passphrase that is not the one in the file: %v", err)
	}
}

// TestProtectCutOff ends a switch at each of its steps. Whatever counts then opens, to the same key.
func TestProtectCutOff(t *testing.T) {
	cheapTerms(t)
	for _, from := range []string{cluster.ByFile, cluster.ByPassphrase} {
		to := map[string]string{cluster.ByFile: cluster.ByPassphrase, cluster.ByPassphrase: cluster.ByFile}[from]
		for _, step := range []string{"written", "proved", "renamed", "switched", ""} {
			t.Run(fmt.Sprintf("%s to %s, %s", from, to, step), func(t *testing.T) {
				dir := t.TempDir()
				k, err := openNodeKey(dir, SealConfig{})
				if err != nil {
					t.Fatal(err)
				}
				key := bytes.Clone(k.key)
				if from == cluster.ByPassphrase {
					if err := k.protect(from, []byte(testPassphrase), func(string) {}); err != nil {
						t.Fatal(err)
					}
				}
				func() {
					defer func() { recover() }()
					k.protect(to, []byte(testPassphrase), func(s string) {
						if s == "protect: "+step {
							panic(s)
						}
					})
				}()
				if err := os.WriteFile(filepath.Join(dir, ".new-cut"), key, 0o600); err != nil { // killed while it wrote
					t.Fatal(err)
				}
				again, err := openNodeKey(dir, SealConfig{})
				if err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); left != nil {
					t.Errorf("left: %v", left)
				}
				if _, err := os.Stat(filepath.Join(dir, wipedFile)); err == nil {
					t.Error("the plain key is still there, sealed or not")
				}
				if again.Where().Sealed != "" {
					if err := again.unseal([]byte(testPassphrase)); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.Equal(again.key, key) {
					t.Error("it is another key")
				}
				if err := again.protect(cluster.ByFile, nil, func(string) {}); err != nil {
					t.Fatal(err)
				}
				if left, _ := filepath.Glob(filepath.Join(dir, "*.old")); left != nil {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

// TestDamagedKeys opens what was changed on the disk.
func TestDamagedKeys(t *testing.T) {
	cheapTerms(t)
	dir := t.TempDir()
	k, err := openNodeKey(dir, SealConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.protect(cluster.ByPassphrase, []byte(testPassphrase), func(string) {}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, sealedFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut off": string(good[:len(good)/2]), "not JSON": "node key", "another format": strings.Replace(string(good), "key-1", "key-9", 1),
		"another field": strings.Replace(string(good), `"format"`, `"x":1,"format"`, 1), "protected by nothing": strings.Replace(string(good), `"passphrase"`, `"none"`, 1),
		"much memory": strings.Replace(string(good), `"memory":64`, `"memory":4294967295`, 1), "no passes": strings.Replace(string(good), `"passes":1`, `"passes":0`, 1),
		"a TPM without its part": strings.Replace(string(good), `"passphrase"`, `"tpm"`, 1), "long": strings.Repeat(" ", maxKept) + string(good),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openNodeKey(dir, SealConfig{}); err == nil || !strings.Contains(err.Error(), sealedFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openNodeKey(dir, SealConfig{}); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a short node.key: %v", err)
	}
}

func TestCheckPassphrase(t *testing.T) {
	for passphrase, says := range map[string]string{
		testPassphrase: "", "zwölf Zeichen": "", "": "at least 12", "elf Zeichen": "at least 12", strings.Repeat("x", maxPassphrase+1): "at most",
		"not UTF-8 \xff\xff\xff": "UTF-8", "two lines\nof it all": "one line", "with a zero\x00 in it": "one line",
	} {
		err := CheckPassphrase([]byte(passphrase))
		if (err == nil) != (says == "") || err != nil && (!IsRefusal(err) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.40q: %v", passphrase, err)
		}
	}
}

// TestWrongPassphrases has each further wrong passphrase wait longer.
func TestWrongPassphrases(t *testing.T) {
	var waits []time.Duration
	for wrong := 1; wrong <= 20; wrong++ {
		waits = append(waits, (&unsealing{wrong: wrong}).wait())
	}
	if waits[0] != time.Second || waits[1] != 2*time.Second || waits[5] != 32*time.Second || waits[19] != mostUnsealWait {
		t.Errorf("waits: %v", waits)
	}
}
