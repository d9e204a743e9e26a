package identity

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
)

// refused checks that an error is there and says what it should.
func refused(t *testing.T, what string, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, which does not say %q", what, err, says)
	}
}

func TestRequestsRefused(t *testing.T) {
	good := newKey(t, elliptic.P521())
	subject := pkix.Name{CommonName: "node1", SerialNumber: "01"}
	request := func(key any, r x509.CertificateRequest) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &r, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	plain := request(good, x509.CertificateRequest{Subject: subject})
	if _, err := ParseRequest(plain); err != nil {
		t.Fatalf("a good request: %v", err)
	}
	tampered := slices.Clone(plain)
	tampered[len(tampered)-1] ^= 1
	foreign := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Value: []byte{5, 0}}
	twice := pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: "node1"}, {Type: oidCommonName, Value: "node2"}, {Type: oidSerialNumber, Value: "01"}}}
	for _, c := range []struct {
		name string
		der  []byte
		says string
	}{
		{"another curve", request(newKey(t, elliptic.P256()), x509.CertificateRequest{Subject: subject}), "P-521"},
		{"a bad signature", tampered, "not signed by its own key"},
		{"a foreign extension", request(good, x509.CertificateRequest{Subject: subject, ExtraExtensions: []pkix.Extension{foreign}}), "asks for extensions"},
		{"a host name", request(good, x509.CertificateRequest{Subject: subject, DNSNames: []string{"example.org"}}), "asks for extensions"},
		{"no name", request(good, x509.CertificateRequest{Subject: pkix.Name{SerialNumber: "01"}}), "common name of the certificate request is missing"},
		{"no serial number", request(good, x509.CertificateRequest{Subject: pkix.Name{CommonName: "node1"}}), "serial number in the certificate request is missing"},
		{"an organization", request(good, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a", SerialNumber: "b", Organization: []string{"c"}}}), "nothing else"},
		{"two names", request(good, x509.CertificateRequest{Subject: twice}), "names two devices"},
		{"a name that hides", request(good, x509.CertificateRequest{Subject: pkix.Name{CommonName: "a\x1b[2J", SerialNumber: "b"}}), "cannot be seen"},
		{"a long name", request(good, x509.CertificateRequest{Subject: pkix.Name{CommonName: strings.Repeat("a", 65), SerialNumber: "b"}}), "64 are the most"},
		{"too long", append(slices.Clone(plain), make([]byte, maxRequest)...), "too long"},
		{"no request", []byte("no"), "cannot be read"},
		{"a certificate", newIssuer(t, epoch).poc.Raw, "cannot be read"},
	} {
		_, err := ParseRequest(c.der)
		refused(t, c.name, err, c.says)
	}
}

func TestIdentitiesRefused(t *testing.T) {
	owner, other := newIssuer(t, epoch), newIssuer(t, epoch)
	pik := newKey(t, elliptic.P521())
	good := owner.identity(t, "node1", "01", pik, epoch)
	if err := CheckFor(good, owner.poc, "01", pik.Public(), epoch); err != nil {
		t.Fatalf("a good certificate: %v", err)
	}
	made := func(change func(*x509.Certificate)) *x509.Certificate {
		c := identityTemplate("node1", "01", epoch)
		change(c)
		return parsed(t)(x509.CreateCertificate(rand.Reader, c, owner.poc, pik.Public(), owner.key))
	}
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}
	late := epoch.Add(OwnerLife - 24*time.Hour)
	for _, c := range []struct {
		name string
		pic  *x509.Certificate
		now  time.Time
		says string
	}{
		{"of another owner", other.identity(t, "node1", "01", pik, epoch), epoch, "signed by"},
		{"for another device", owner.identity(t, "node2", "02", pik, epoch), epoch, "is for device \"02\""},
		{"for another key", owner.identity(t, "node1", "01", newKey(t, elliptic.P521()), epoch), epoch, "not for the identity key"},
		{"expired", good, epoch.Add(IdentityLife + time.Hour), "ended at"},
		{"of an expired owner", owner.identity(t, "node1", "01", pik, late), epoch.Add(OwnerLife + time.Hour), "owner certificate"},
		{"not yet valid", good, epoch.Add(-time.Hour), "not valid before"},
		{"no CA", made(func(c *x509.Certificate) {
			c.IsCA, c.MaxPathLenZero, c.KeyUsage = false, false, x509.KeyUsageDigitalSignature
		}), epoch, "path length 0"},
		{"a longer path", made(func(c *x509.Certificate) { c.MaxPathLenZero, c.MaxPathLen = false, 1 }), epoch, "path length 0"},
		{"another usage", made(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }), epoch, "key usage"},
		{"a critical extension", made(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{critical} }), epoch, "critical extension"},
		{"the owner's own", owner.poc, epoch, "is for device \"\""},
		{"signed by itself", parsed(t)(SelfSigned("node1", "01", pik, epoch)), epoch, "and not by the owner"},
	} {
		refused(t, c.name, CheckFor(c.pic, owner.poc, "01", pik.Public(), c.now), c.says)
	}
}

func TestOwnersRefused(t *testing.T) {
	owner := newIssuer(t, epoch)
	if err := CheckOwner(owner.poc, epoch); err != nil {
		t.Fatal(err)
	}
	pik, p256 := newKey(t, elliptic.P521()), newKey(t, elliptic.P256())
	// Two certificates that sign each other: neither is the end of a chain.
	a, b := newKey(t, elliptic.P521()), newKey(t, elliptic.P521())
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: epoch, NotAfter: epoch.Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign}
	}
	loopA := parsed(t)(x509.CreateCertificate(rand.Reader, template("a"), template("b"), a.Public(), b))
	loopB := parsed(t)(x509.CreateCertificate(rand.Reader, template("b"), template("a"), b.Public(), a))
	for _, c := range []struct {
		name string
		poc  *x509.Certificate
		now  time.Time
		says string
	}{
		{"an identity", owner.identity(t, "node1", "01", pik, epoch), epoch, "not by its own key"},
		{"a self-signed identity", parsed(t)(SelfSigned("node1", "01", pik, epoch)), epoch, "may not certify identities"},
		{"another curve", parsed(t)(OwnerCertificate("x", p256, epoch)), epoch, "P-521"},
		{"expired", owner.poc, epoch.Add(OwnerLife + time.Hour), "ended at"},
		{"not yet valid", owner.poc, epoch.Add(-time.Hour), "not valid before"},
		{"half of a loop", loopA, epoch, "not by its own key"},
	} {
		refused(t, c.name, CheckOwner(c.poc, c.now), c.says)
	}
	dir := t.TempDir()
	loop := filepath.Join(dir, "loop.crt")
	if err := WriteCertificates(loop, loopA, loopB); err != nil {
		t.Fatal(err)
	}
	_, err := ReadCertificate(loop)
	refused(t, "a chain with a loop", err, "ends in an owner's own signature")
	if err := WriteCertificates(loop, loopA, loopB, loopA); err != nil {
		t.Fatal(err)
	}
	_, err = ReadCertificate(loop)
	refused(t, "a chain that goes round", err, "2 are the most")
}

func TestStates(t *testing.T) {
	c := newIssuer(t, epoch).poc
	for _, s := range []struct {
		at   time.Time
		want State
	}{
		{epoch.Add(-time.Hour), NotYetValid}, {epoch, Valid}, {c.NotAfter.Add(-ExpiringBefore), Valid}, {c.NotAfter.Add(-ExpiringBefore + time.Second), Expiring},
		{c.NotAfter, Expiring}, {c.NotAfter.Add(time.Second), Expired},
	} {
		if got := StateOf(c, s.at); got != s.want {
			t.Errorf("at %s: %s, want %s", s.at, got, s.want)
		}
	}
	if StateOf(nil, epoch) != None {
		t.Error("no certificate has a state")
	}
}

func TestChoose(t *testing.T) {
	among := []Choice{{1, "aa", "node1"}, {2, "bb", "node2"}, {3, "cc", ""}, {4, "cc", ""}, {5, "3", ""}}
	for _, c := range []struct {
		list string
		want []int
		says string
	}{
		{"all", []int{0, 1, 2, 3, 4}, ""},
		{"2,1", []int{1, 0}, ""},
		{"sn:bb, 2,node2", []int{1}, ""},
		{"3", []int{2}, ""},
		{"sn:3", []int{4}, ""},
		{"sn:cc", nil, "claimed by two devices"},
		{"sn:dd", nil, "there is no device \"sn:dd\""},
		{"sn:node1", nil, "there is no device"},
		{"9", nil, "1 = sn:aa"},
		{"aa", nil, "there is no device"},
		{"1,,2", nil, "there is no device \"\""},
		{"", nil, "there is no device"},
	} {
		got, err := Choose(c.list, among)
		if c.says != "" {
			refused(t, c.list, err, c.says)
		} else if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, %v", c.list, got, err)
		}
	}
	_, err := Choose("all", nil)
	refused(t, "no devices", err, "no devices")
}

// TestTwins: a module that shows one serial number twice gets no code for either.
func TestTwins(t *testing.T) {
	m := hsm.Start(hsm.Config{Name: "none", Path: "/does/not/exist"})
	defer m.Close()
	token := func(serial string) hsm.TokenInfo {
		return hsm.TokenInfo{Serial: serial, Label: AdminLabel, Initialized: true}
	}
	all := devices(m, []hsm.TokenInfo{token("01"), {Serial: "02", Label: "app", Initialized: true}, token("03"), token("01"), {Serial: "03"}}, AdminLabel)
	if len(all) != 3 || all[1].Serial != "03" || all[1].Number != 2 || all[1].usable() != nil {
		t.Fatalf("devices: %+v", all)
	}
	refused(t, "a twin's login", all[0].Login(t.Context(), []byte("code")), "two tokens of the module have the serial number 01")
	if v := all[2].View(t.Context(), epoch); !strings.Contains(v.Problem, "two tokens") {
		t.Errorf("a twin is listed as %+v", v)
	}
}

func TestStore(t *testing.T) {
	s, err := OpenStore(filepath.Join(t.TempDir(), "certs"))
	if err != nil {
		t.Fatal(err)
	}
	owner, key := newIssuer(t, epoch), newKey(t, elliptic.P521())
	evil := "../../etc/owner"
	for _, serial := range []string{"01ab", "owner", evil, ".", "label:NSS Certificate DB"} {
		if err := s.PutCertificate(serial, owner.identity(t, "HSM", serial, key, epoch)); err != nil {
			t.Errorf("%q: %v", serial, err)
		}
		if c, err := s.Certificate(serial); err != nil || c == nil || c.Subject.SerialNumber != serial {
			t.Errorf("%q comes back as %v, %v", serial, c, err)
		}
		if filepath.Dir(s.CertificatePath(serial)) != filepath.Dir(s.OwnerPath()) {
			t.Errorf("%q leads out of the store: %s", serial, s.CertificatePath(serial))
		}
	}
	if poc, err := s.Owner(); poc != nil || err != nil {
		t.Errorf("a device called owner counts as the owner: %v, %v", poc, err)
	}
	if err := s.PutOwner(owner.poc); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckOwner(owner.poc); err != nil {
		t.Error(err)
	}
	refused(t, "another owner", s.CheckOwner(newIssuer(t, epoch).poc), "belongs to another owner")
	refused(t, "an owner to be made", s.CheckOwner(nil), "belongs to another owner")
	for name, text := range map[string]string{"empty.crt": "", "text.csr": "hello\n", "key.crt": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "large.crt": strings.Repeat("x", maxFile+1),
		"rest.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: owner.poc.Raw})) + "and more"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(s.OwnerPath()), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List(epoch)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for _, k := range list {
		switch {
		case k.Problem != "":
			bad++
		case k.PIC.State == Valid:
			good++
		}
	}
	if good != 5 || bad != 5 {
		t.Errorf("%d good and %d bad of %+v", good, bad, list)
	}
}
