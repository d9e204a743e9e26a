package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
)

func TestMain(m *testing.M) { hsmtest.Main(m) }

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// An issuer is an owner whose key is in no HSM.
type issuer struct {
	key *ecdsa.PrivateKey
	poc *x509.Certificate
}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parsed(t testing.TB) func(der []byte, err error) *x509.Certificate {
	return func(der []byte, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func newIssuer(t testing.TB, now time.Time) issuer {
	k := newKey(t, elliptic.P521())
	return issuer{k, parsed(t)(OwnerCertificate("Test", k, now))}
}

func (i issuer) identity(t testing.TB, name, serial string, key *ecdsa.PrivateKey, now time.Time) *x509.Certificate {
	t.Helper()
	der, err := Request(name, serial, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t)(Certificate(r, i.poc, i.key, now))
}

// TestProfiles has other programs judge a whole chain and a self-signed identity.
func TestProfiles(t *testing.T) {
	openssl := hsmtest.Tool(t, "openssl")
	now := time.Now()
	owner, pik, tls := newIssuer(t, now), newKey(t, elliptic.P521()), newKey(t, elliptic.P256())
	pic := owner.identity(t, "node1", "0123abcd", pik, now)
	leaf := parsed(t)(Leaf(&url.URL{Scheme: "keyferry", Opaque: "c1/node1"}, "node1", []string{"localhost", "127.0.0.1"}, tls.Public(), pic, pik, now))
	self := parsed(t)(SelfSigned("node2", "4567", pik, now))

	dir := t.TempDir()
	file := func(name string, c *x509.Certificate) string {
		path := filepath.Join(dir, name)
		if err := WriteCertificates(path, c); err != nil {
			t.Fatal(err)
		}
		return path
	}
	poc, picFile, leafFile, selfFile := file("poc", owner.poc), file("pic", pic), file("leaf", leaf), file("self", self)
	other := file("other", newIssuer(t, now).poc)
	for _, c := range []struct {
		name string
		args []string
		ok   bool
	}{
		{"owner", []string{"-CAfile", poc, poc}, true},
		{"identity", []string{"-CAfile", poc, picFile}, true},
		{"leaf as server", []string{"-CAfile", poc, "-untrusted", picFile, "-purpose", "sslserver", "-verify_hostname", "localhost", leafFile}, true},
		{"leaf as client", []string{"-CAfile", poc, "-untrusted", picFile, "-purpose", "sslclient", leafFile}, true},
		{"self-signed identity", []string{"-CAfile", selfFile, selfFile}, true},
		{"identity under another owner", []string{"-CAfile", other, picFile}, false},
		{"leaf without the identity", []string{"-CAfile", poc, leafFile}, false},
		{"leaf for another host", []string{"-CAfile", poc, "-untrusted", picFile, "-verify_hostname", "example.org", leafFile}, false},
	} {
		out, err := exec.Command(openssl, append([]string{"verify", "-x509_strict", "-check_ss_sig"}, c.args...)...).CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("openssl verify, %s: %v\n%s", c.name, err, out)
		}
	}
	text, err := exec.Command(openssl, "x509", "-noout", "-text", "-in", picFile).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"secp521r1", "ecdsa-with-SHA512", "pathlen:0", "Digital Signature, Certificate Sign", "serialNumber = 0123abcd"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the identity certificate has no %q:\n%s", want, text)
		}
	}
	for name, c := range map[string]*x509.Certificate{"owner": owner.poc, "identity": pic, "leaf": leaf, "self-signed": self} {
		lint(t, name, c)
	}
}
