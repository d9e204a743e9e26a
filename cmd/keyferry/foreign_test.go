package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// freeBase finds six ports in a row that nothing listens on.
func freeBase(t testing.TB) int {
	t.Helper()
next:
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(20000))
		if err != nil {
			t.Fatal(err)
		}
		base := 10000 + int(n.Int64())
		for i := range 2 * demoNodes {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
			if err != nil {
				continue next
			}
			ln.Close()
		}
		return base
	}
	t.Fatal("no free ports")
	return 0
}

// A foreign program on one node's token. It knows nothing of Keyferry.
type foreign struct {
	d    *testDemo
	node int
}

// command prepares a program in the environment of a node's applications. The code goes by the environment.
func (f foreign) command(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(hsmtest.Tool(t, name), args...)
	cmd.Env = append(os.Environ(), "PIN="+f.d.Slots[0].PIN)
	for k, v := range f.d.Nodes[f.node].Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	return cmd
}

func (f foreign) run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := f.command(t, name, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s%s", name, args, err, errs.String(), out)
	}
	return out
}

func (f foreign) pkcs11Tool(t testing.TB, args ...string) []byte {
	t.Helper()
	return f.run(t, "pkcs11-tool", append([]string{"--module", f.d.Nodes[f.node].Module, "--token-label", f.d.Slots[0].Label, "--login", "--pin", "env:PIN"}, args...)...)
}

// signAndVerify signs with pkcs11-tool on a node and verifies with openssl and a public key from another.
func (f foreign) signAndVerify(t testing.TB, id, publicKey string) {
	t.Helper()
	dir := t.TempDir()
	digest, signature := filepath.Join(dir, "digest"), filepath.Join(dir, "signature")
	sum := sha256.Sum256([]byte("signed on " + f.d.Nodes[f.node].Name))
	if err := os.WriteFile(digest, sum[:], 0o600); err != nil {
		t.Fatal(err)
	}
	f.pkcs11Tool(t, "--id", id, "--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--input-file", digest, "--output-file", signature)
	out := f.run(t, "openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", publicKey, "-in", digest, "-sigfile", signature)
	if !strings.Contains(string(out), "Verified Successfully") {
		t.Errorf("openssl says: %s", out)
	}
}

var p256Point = regexp.MustCompile(`EC_POINT:\s+0441(04[0-9a-f]{128})\s`)

// writePublic writes a public key on P-256 to a file, as pkcs11-tool lists it: OpenSC 0.23 cannot read EC
// public keys with OpenSSL 3.
func (f foreign) writePublic(t testing.TB, id, file string) {
	t.Helper()
	var point string
	for object := range strings.SplitSeq(string(f.pkcs11Tool(t, "--list-objects", "--type", "pubkey")), "Public Key Object") { // it lists all of them
		if m := p256Point.FindStringSubmatch(object); m != nil && regexp.MustCompile(`ID:\s+`+id+`\s`).MatchString(object) {
			point = m[1]
		}
	}
	raw, err := hex.DecodeString(point)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err == nil {
		err = os.WriteFile(file, der, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// foreignKey takes a key made by pkcs11-tool on node1 to the others, with the command line.
func foreignKey(t *testing.T, d *testDemo) {
	first := foreign{d, 0}
	first.pkcs11Tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "foreign", "--id", "f0", "--usage-sign", "--extractable")
	public := filepath.Join(t.TempDir(), "public.der")
	first.writePublic(t, "f0", public)
	d.waitCoverage(t, 0, "foreign", node.Present, "node1")
	d.waitCoverage(t, 0, "foreign", node.Missing, "node2", "node3")
	file := filepath.Join(t.TempDir(), "foreign.keyferry")
	d.must(t, 0, "", "sync", "build", "--slot", d.Slots[0].Label, "--to", "node2,node3", "-o", file)
	if out := d.must(t, 1, "", "sync", "inspect", file); !strings.Contains(out, "good: identity key of node node1") {
		t.Errorf("inspect: %s", out)
	}
	if out := d.must(t, 1, "", "sync", "import", "--dry-run", file); !strings.Contains(out, "foreign") || !strings.Contains(out, "imported") {
		t.Errorf("dry run: %s", out)
	}
	if k, _ := d.coverage(t, 1, "foreign"); k.Nodes["node2"] != node.Missing {
		t.Errorf("after the dry run the key is %s", k.Nodes["node2"])
	}
	for i := 1; i < demoNodes; i++ {
		d.must(t, i, "", "sync", "import", file)
		foreign{d, i}.signAndVerify(t, "f0", public)
	}
	for i := range d.Nodes {
		d.waitCoverage(t, i, "foreign", node.Present, "node1", "node2", "node3")
	}
	out := d.must(t, 1, "", "sync", "import", file, "-o", "json") // once more: nothing to do
	var r node.ImportReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.There == 0 || r.Imported != 0 {
		t.Errorf("imported twice: %+v, %v", r, err)
	}
}

// javaKey takes a key and certificate made by keytool on node1 to the others, where jarsigner uses it.
func javaKey(t *testing.T, d *testDemo) {
	dir := t.TempDir()
	cfg := func(i int) string {
		path := filepath.Join(dir, d.Nodes[i].Name+".cfg")
		text := fmt.Sprintf("name = %s\nlibrary = %s\nslot = %d\nattributes(*, CKO_PRIVATE_KEY, *) = {\n  CKA_EXTRACTABLE = true\n  CKA_SENSITIVE = true\n}\n",
			d.Nodes[i].Name, d.Nodes[i].Module, slotNumber(t, d, i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	store := func(i int) []string {
		return []string{"-keystore", "NONE", "-storetype", "PKCS11", "-storepass:env", "PIN", "-providerClass", "sun.security.pkcs11.SunPKCS11", "-providerArg", cfg(i)}
	}
	first := foreign{d, 0}
	first.run(t, "keytool", append(store(0), "-genkeypair", "-alias", "java-ca", "-keyalg", "EC", "-groupname", "secp384r1", "-sigalg", "SHA384withECDSA",
		"-dname", "CN=Java CA", "-validity", "100")...)
	cert := filepath.Join(dir, "cert.pem")
	first.run(t, "keytool", append(store(0), "-exportcert", "-rfc", "-alias", "java-ca", "-file", cert)...)
	d.waitCoverage(t, 0, "java-ca", node.Missing, "node2", "node3")
	d.carry(t, 0, d.Slots[0].Label, 1, 2)
	trust := filepath.Join(dir, "trust.p12")
	first.run(t, "keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", cert, "-keystore", trust, "-storepass:env", "PIN")
	for i := 1; i < demoNodes; i++ {
		f := foreign{d, i}
		if out := f.run(t, "keytool", append(store(i), "-list")...); !strings.Contains(string(out), "java-ca, PrivateKeyEntry") {
			t.Errorf("keytool on %s lists:\n%s", d.Nodes[i].Name, out)
		}
		jar := filepath.Join(dir, d.Nodes[i].Name+".jar")
		f.run(t, "jar", "--create", "--file", jar, "-C", dir, "cert.pem")
		f.run(t, "jarsigner", append(store(i), jar, "java-ca")...)
		if out := f.run(t, "jarsigner", "-verify", "-strict", "-keystore", trust, "-storepass:env", "PIN", jar, "ca"); !strings.Contains(string(out), "jar verified") {
			t.Errorf("jarsigner says:\n%s", out)
		}
	}
}

// slotNumber is what the module calls the demo's slot on a node.
func slotNumber(t testing.TB, d *testDemo, i int) uint {
	t.Helper()
	var modules []node.ModuleView
	if err := json.Unmarshal([]byte(d.must(t, i, "", "hsm", "-o", "json")), &modules); err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		for _, tok := range m.Tokens {
			if tok.Label == d.Slots[0].Label {
				return tok.SlotID
			}
		}
	}
	t.Fatalf("%s shows no token %s", d.Nodes[i].Name, d.Slots[0].Label)
	return 0
}
