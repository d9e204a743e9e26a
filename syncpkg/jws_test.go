package syncpkg

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// TestJOSE holds signatures and thumbprints against go-jose.
func TestJOSE(t *testing.T) {
	w := newWorld(t)
	key := &jose.JSONWebKey{Key: &w.source.PublicKey}
	sum, err := key.Thumbprint(crypto.SHA256)
	must(t, err)
	if got := result(Thumbprint(&w.source.PublicKey))(t); got != encodeBase64(sum) {
		t.Errorf("the thumbprint is %s, want %s", got, encodeBase64(sum))
	}

	head, _ := split(t, w.small(t))
	line := strings.Split(string(head.Raw), "\n}\n")[1]
	j, err := jose.ParseDetached(strings.TrimSpace(line), head.text, []jose.SignatureAlgorithm{jose.ES512})
	must(t, err)
	must(t, j.DetachedVerify(head.text, &w.source.PublicKey))

	rk := w.receiverKeys("node2")
	jws := result(SignReceiverKeys(rk, w.source))(t)
	j, err = jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.ES512})
	must(t, err)
	payload, err := j.Verify(&w.source.PublicKey)
	must(t, err)
	if want := result(encodeJSON(rk, ""))(t); !bytes.Equal(payload, want) {
		t.Errorf("go-jose reads\n%s\nwant\n%s", payload, want)
	}

	// And the other way: what go-jose signs.
	options := (&jose.SignerOptions{}).WithType(typeReceiverKeys).WithHeader("kid", encodeBase64(sum))
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES512, Key: w.source}, options)
	must(t, err)
	j, err = signer.Sign(payload)
	must(t, err)
	_, err = VerifyReceiverKeys(result(j.CompactSerialize())(t), w.trust, testNow)
	must(t, err)
}

// signerFunc is an identity key that signs by a function.
type signerFunc struct {
	public crypto.PublicKey
	sign   func(digest []byte) ([]byte, error)
}

func (s signerFunc) Public() crypto.PublicKey { return s.public }
func (s signerFunc) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return s.sign(digest)
}

// TestBrokenSigner gives Seal identity keys that are none, or that do not do their work.
func TestBrokenSigner(t *testing.T) {
	w := newWorld(t)
	public := &w.source.PublicKey
	pair := func(r, s *big.Int) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return asn1.Marshal(struct{ R, S *big.Int }{r, s}) }
	}
	one, order := big.NewInt(1), elliptic.P521().Params().N
	gone := errors.New("CKR_DEVICE_REMOVED")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	rsaKey := w.keys["rsa2048"].(*rsa.PrivateKey)
	for name, signer := range map[string]crypto.Signer{
		"P-256":           p256,
		"RSA":             rsaKey,
		"device gone":     signerFunc{public, func([]byte) ([]byte, error) { return nil, gone }},
		"no bytes":        signerFunc{public, func([]byte) ([]byte, error) { return nil, nil }},
		"raw signature":   signerFunc{public, func([]byte) ([]byte, error) { return make([]byte, 132), nil }},
		"negative r":      signerFunc{public, pair(big.NewInt(-1), one)},
		"zero s":          signerFunc{public, pair(one, new(big.Int))},
		"r too large":     signerFunc{public, pair(order, one)},
		"s far too large": signerFunc{public, pair(one, new(big.Int).Lsh(one, 4000))},
		"other key":       signerFunc{public, func(d []byte) ([]byte, error) { return w.stranger.Sign(rand.Reader, d, crypto.SHA512) }},
		"trailing byte": signerFunc{public, func(d []byte) ([]byte, error) {
			der, err := w.source.Sign(rand.Reader, d, crypto.SHA512)
			return append(der, 0), err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.header()
			file, err := Seal(h, w.content(t, h, []string{"node3"}, w.privateKey(t, "p256")), w.recipients("node3"), signer)
			if err == nil || file != nil {
				t.Fatalf("got a package, want an error")
			}
			if name == "device gone" && !errors.Is(err, gone) {
				t.Errorf("the cause is lost: %v", err)
			}
			if _, err := SignReceiverKeys(w.receiverKeys("node3"), signer); err == nil {
				t.Error("got a statement, want an error")
			}
		})
	}
}

func TestThumbprint(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	for name, key := range map[string]*ecdsa.PublicKey{
		"nil": nil, "empty": {}, "P-256": &p256.PublicKey,
	} {
		if id, err := Thumbprint(key); err == nil {
			t.Errorf("%s: got %q, want an error", name, id)
		}
	}
}

func TestBase64(t *testing.T) {
	for _, s := range []string{"AA=", "AB", "A", "A A", "AA\n", "\nAAAA", "AA\r\nAA", "+/+/", "AAé"} {
		if b, err := decodeBase64(s); err == nil {
			t.Errorf("%q decodes to %x, want an error", s, b)
		}
	}
	for _, b := range [][]byte{{}, {0}, {0xfb, 0xff}, {1, 2, 3}} {
		if got, err := decodeBase64(encodeBase64(b)); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%x comes back as %x, %v", b, got, err)
		}
	}
}

// TestMalleable makes a second valid signature from a first, as anybody can, and sees that the package stays the same one.
func TestMalleable(t *testing.T) {
	w := newWorld(t)
	file := w.small(t)
	head, body := split(t, file)
	s := new(big.Int).SetBytes(head.signature.value[p521Scalar:])
	s.Sub(elliptic.P521().Params().N, s)
	value := append(bytes.Clone(head.signature.value[:p521Scalar]), s.FillBytes(make([]byte, p521Scalar))...)
	other := bytes.Replace(head.Raw, []byte(encodeBase64(head.signature.value)), []byte(encodeBase64(value)), 1)
	if bytes.Equal(other, head.Raw) {
		t.Fatal("the signature is the same")
	}
	p, err := Open(bytes.NewReader(append(other, body...)), w.opener("node3"))
	must(t, err)
	if p.Head.Digest() != head.Digest() {
		t.Error("the package has another digest")
	}
}
