package syncpkg

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const vectorDir = "../testdata/syncpkg"

// testNow is the instant at which tests open packages.
var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a cluster with a source (node1) and two receivers: node2 with a hybrid sealing key, node3 with P-521.
type world struct {
	source, stranger *ecdsa.PrivateKey
	private          map[string]hpke.PrivateKey
	transport        map[string]*ecdh.PrivateKey
	ephemeral        *ecdh.PrivateKey
	packageKey       []byte
	keys             map[string]crypto.Signer
	secrets          map[string][]byte
}

// worldFile is the form of keys.json.
type worldFile struct {
	Note       string                  `json:"note"`
	Source     []byte                  `json:"source"`     // P-521 scalar
	Stranger   []byte                  `json:"stranger"`   // P-521 scalar
	Receivers  map[string]receiverFile `json:"receivers"`  //
	Ephemeral  []byte                  `json:"ephemeral"`  // P-521 scalar
	PackageKey []byte                  `json:"packageKey"` // AES-256
	Keys       map[string][]byte       `json:"keys"`       // PKCS#8
	Secrets    map[string][]byte       `json:"secrets"`
}

type receiverFile struct {
	KEM       uint16 `json:"kem"`
	Seal      []byte `json:"seal"`      // SerializePrivateKey
	Transport []byte `json:"transport"` // P-521 scalar
}

// newWorld reads the keys of the vectors.
func newWorld(t testing.TB) *world {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, "keys.json"))
	must(t, err)
	var f worldFile
	must(t, decodeJSON(data, &f, "  "))
	w := &world{
		private: map[string]hpke.PrivateKey{}, transport: map[string]*ecdh.PrivateKey{},
		packageKey: f.PackageKey, keys: map[string]crypto.Signer{}, secrets: f.Secrets,
	}
	w.source, err = ecdsa.ParseRawPrivateKey(elliptic.P521(), f.Source)
	must(t, err)
	w.stranger, err = ecdsa.ParseRawPrivateKey(elliptic.P521(), f.Stranger)
	must(t, err)
	w.ephemeral, err = ecdh.P521().NewPrivateKey(f.Ephemeral)
	must(t, err)
	for name, r := range f.Receivers {
		kem, err := hpke.NewKEM(r.KEM)
		must(t, err)
		w.private[name], err = kem.NewPrivateKey(r.Seal)
		must(t, err)
		w.transport[name], err = ecdh.P521().NewPrivateKey(r.Transport)
		must(t, err)
	}
	for name, der := range f.Keys {
		key, err := x509.ParsePKCS8PrivateKey(der)
		must(t, err)
		w.keys[name] = key.(crypto.Signer)
	}
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantKind fails unless err is of the given kind, and of no other.
func wantKind(t testing.TB, err error, want Kind) {
	t.Helper()
	var kind Kind
	if !errors.As(err, &kind) || kind != want || !errors.Is(err, want) {
		t.Errorf("got %v (%v), want an error of the kind %q", err, kind, want)
	}
}

// trust knows node1 by its identity key, and nobody else.
func (w *world) trust(cluster, node, _ string) (*ecdsa.PublicKey, error) {
	if cluster != "c1" || node != "node1" {
		return nil, fmt.Errorf("no trust edge to %q", node)
	}
	return &w.source.PublicKey, nil
}

func (w *world) opener(node string) Opener {
	return Opener{Receiver: node, Now: testNow, Trust: w.trust, Private: w.private[node]}
}

func (w *world) header() Header {
	return Header{
		ID: "000102030405060708090a0b0c0d0e0f", Cluster: "c1", Source: "node1", Slot: "Issuing & <CA>",
		Created: testNow.Add(-time.Hour), Expires: testNow.Add(24 * time.Hour),
	}
}

func (w *world) recipients(nodes ...string) []Recipient {
	var to []Recipient
	for _, n := range nodes {
		to = append(to, Recipient{Node: n, Key: w.private[n].PublicKey()})
	}
	return to
}

// content returns the content for a header with the given keys, wrapped as the HSMs would.
func (w *world) content(t testing.TB, h Header, nodes []string, keys ...Key) Content {
	t.Helper()
	ephemeral := w.ephemeral.PublicKey().Bytes()
	c := Content{Scheme: SchemeECDHP521, Ephemeral: ephemeral, Keys: keys}
	for _, n := range nodes {
		transport := w.transport[n].PublicKey().Bytes()
		kek := kdf(t, w.ephemeral, transport, h.Context(n, transport, ephemeral))
		c.PackageKeys = append(c.PackageKeys, PackageKey{n, wrapKWP(t, kek, w.packageKey)})
	}
	return c
}

// small is a package as short as can be: one EC key, one receiver with a short seal.
func (w *world) small(t testing.TB) []byte {
	t.Helper()
	h := w.header()
	file, err := Seal(h, w.content(t, h, []string{"node3"}, w.privateKey(t, "p256")), w.recipients("node3"), w.source)
	must(t, err)
	return file
}

// allKeys returns a key of each kind that travels.
func (w *world) allKeys(t testing.TB) []Key {
	rsaKey := w.privateKey(t, "rsa2048")
	rsaKey.Usage = []string{"decrypt", "sign", "unwrap"}
	rsaKey.Mechanisms = []uint32{0x40, 0x43}
	rsaKey.StartDate, rsaKey.EndDate = "2026-01-01", "2036-01-01"
	rsaKey.Subject = result(asn1.Marshal(pkix.Name{CommonName: "Test CA"}.ToRDNSequence()))(t)
	rsaKey.PublicObject = &PublicObject{Usage: []string{"encrypt", "verify"}}
	rsaKey.Certificates = []Certificate{{Label: "signer", DER: w.certificate(t, "rsa2048")}}
	p384 := w.privateKey(t, "p384")
	p384.Label = "Schlüssel mit \"Anführung\" \u200d"
	p521 := w.privateKey(t, "p521")
	p521.ID, p521.Usage = "", []string{"derive"}
	return []Key{rsaKey, w.privateKey(t, "p256"), p384, p521, w.privateKey(t, "ed25519"),
		w.secretKey(t, TypeAES, "aes256"), w.secretKey(t, TypeGeneric, "generic160")}
}

func result[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func (w *world) privateKey(t testing.TB, name string) Key {
	t.Helper()
	signer := w.keys[name]
	if signer == nil {
		t.Fatalf("no key %q in keys.json", name)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	must(t, err)
	k := Key{
		Class: ClassPrivate, ID: fmt.Sprintf("%x", name), Label: name, Usage: []string{"sign"},
		Sensitive: true, Extractable: true, Wrapped: wrapKWP(t, w.packageKey, der),
	}
	k.Public, err = x509.MarshalPKIXPublicKey(signer.Public())
	must(t, err)
	switch p := signer.Public().(type) {
	case *rsa.PublicKey:
		k.Type, k.Bits = TypeRSA, p.N.BitLen()
	case *ecdsa.PublicKey:
		k.Type, k.Curve = TypeEC, p.Curve.Params().Name
	case ed25519.PublicKey:
		k.Type = TypeEd25519
	}
	return k
}

func (w *world) secretKey(t testing.TB, typ, name string) Key {
	t.Helper()
	value := w.secrets[name]
	return Key{
		Class: ClassSecret, Type: typ, Bits: 8 * len(value), ID: fmt.Sprintf("%x", name), Label: name,
		Check: check(t, typ, value), Usage: []string{"sign", "verify"},
		Sensitive: true, Extractable: true, Wrapped: wrapKWP(t, w.packageKey, value),
	}
}

func (w *world) certificate(t testing.TB, name string, extra ...pkix.Extension) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: testNow.AddDate(-1, 0, 0), NotAfter: testNow.AddDate(9, 0, 0),
		ExtraExtensions: extra,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, w.keys[name].Public(), w.keys[name])
	must(t, err)
	return der
}

// makeWorldFile makes new keys for keys.json.
func makeWorldFile(t *testing.T) worldFile {
	scalar := func() []byte {
		return result(ecdh.P521().GenerateKey(rand.Reader))(t).Bytes()
	}
	secret := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	receiver := func(kem hpke.KEM) receiverFile {
		key := result(kem.GenerateKey())(t)
		return receiverFile{KEM: kem.ID(), Seal: result(key.Bytes())(t), Transport: scalar()}
	}
	pkcs8 := func(key any, err error) []byte {
		must(t, err)
		return result(x509.MarshalPKCS8PrivateKey(key))(t)
	}
	ec := func(c elliptic.Curve) []byte { return pkcs8(ecdsa.GenerateKey(c, rand.Reader)) }
	_, edKey, err := ed25519.GenerateKey(nil)
	return worldFile{
		Note:   "TEST KEYS, known to everybody. Made by 'go test ./syncpkg -run TestVectors -update'.",
		Source: scalar(), Stranger: scalar(), Ephemeral: scalar(), PackageKey: secret(32),
		Receivers: map[string]receiverFile{"node2": receiver(hpke.MLKEM1024P384()), "node3": receiver(hpke.DHKEM(ecdh.P521()))},
		Keys: map[string][]byte{
			"rsa2048": pkcs8(rsa.GenerateKey(rand.Reader, 2048)), "ed25519": pkcs8(edKey, err),
			"p256": ec(elliptic.P256()), "p384": ec(elliptic.P384()), "p521": ec(elliptic.P521()),
		},
		Secrets: map[string][]byte{"aes256": secret(32), "generic160": secret(20)},
	}
}
