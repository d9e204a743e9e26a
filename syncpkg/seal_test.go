package syncpkg

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func p224SPKI(t testing.TB) []byte {
	t.Helper()
	p := elliptic.P224().Params()
	der := append([]byte{0x30, 0x4e, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x21,
		0x03, 0x3a, 0x00, 0x04}, p.Gx.FillBytes(make([]byte, 28))...)
	der = append(der, p.Gy.FillBytes(make([]byte, 28))...)
	_, err := x509.ParsePKIXPublicKey(der)
	must(t, err)
	return der
}

// TestSealRefuses gives Seal what a reader would refuse.
func TestSealRefuses(t *testing.T) {
	w := newWorld(t)
	x25519 := result(hpke.DHKEM(ecdh.X25519()).GenerateKey())(t)
	for _, c := range []struct {
		name string
		edit func(h *Header, c *Content, to *[]Recipient)
		want Kind
	}{
		{"no id", func(h *Header, _ *Content, _ *[]Recipient) { h.ID = "" }, ErrMalformed},
		{"id of another form", func(h *Header, _ *Content, _ *[]Recipient) { h.ID = strings.Repeat("g", 32) }, ErrMalformed},
		{"no cluster", func(h *Header, _ *Content, _ *[]Recipient) { h.Cluster = "" }, ErrMalformed},
		{"source", func(h *Header, _ *Content, _ *[]Recipient) { h.Source = "node 1" }, ErrMalformed},
		{"slot too long", func(h *Header, _ *Content, _ *[]Recipient) { h.Slot = strings.Repeat("s", MaxSlot+1) }, ErrMalformed},
		{"slot with a newline", func(h *Header, _ *Content, _ *[]Recipient) { h.Slot = "a\n}\nb" }, ErrMalformed},
		{"slot not UTF-8", func(h *Header, _ *Content, _ *[]Recipient) { h.Slot = "\xff" }, ErrMalformed},
		{"no times", func(h *Header, _ *Content, _ *[]Recipient) { h.Created, h.Expires = time.Time{}, time.Time{} }, ErrMalformed},
		{"a second that ends at once", func(h *Header, _ *Content, _ *[]Recipient) { h.Expires = h.Created.Add(999 * time.Millisecond) }, ErrMalformed},
		{"no recipients", func(_ *Header, c *Content, to *[]Recipient) { *to, c.PackageKeys = nil, nil }, ErrMalformed},
		{"a recipient twice", func(_ *Header, c *Content, to *[]Recipient) {
			*to, c.PackageKeys = append(*to, (*to)[0]), append(c.PackageKeys, c.PackageKeys[0])
		}, ErrMalformed},
		{"too many recipients", func(_ *Header, c *Content, to *[]Recipient) {
			for i := range MaxReceivers {
				*to = append(*to, Recipient{fmt.Sprintf("node%d", 100+i), (*to)[0].Key})
				c.PackageKeys = append(c.PackageKeys, PackageKey{fmt.Sprintf("node%d", 100+i), make([]byte, wrappedKey)})
			}
		}, ErrTooLarge},
		{"a recipient without a key", func(_ *Header, _ *Content, to *[]Recipient) { (*to)[0].Key = nil }, ErrContent},
		{"a recipient of X25519", func(_ *Header, _ *Content, to *[]Recipient) { (*to)[0].Key = x25519.PublicKey() }, ErrUnsupported},
		{"a package key for another", func(_ *Header, c *Content, _ *[]Recipient) { c.PackageKeys[0].Receiver = "node9" }, ErrContent},
		{"no keys", func(_ *Header, c *Content, _ *[]Recipient) { c.Keys = nil }, ErrMalformed},
		{"too many keys", func(_ *Header, c *Content, _ *[]Recipient) { c.Keys = make([]Key, MaxKeys+1) }, ErrTooLarge},
		{"a key twice", func(_ *Header, c *Content, _ *[]Recipient) { c.Keys = append(c.Keys, c.Keys[0]) }, ErrContent},
		{"a bad key", func(_ *Header, c *Content, _ *[]Recipient) { c.Keys[0].Label = "\x00" }, ErrContent},
		{"another scheme", func(_ *Header, c *Content, _ *[]Recipient) { c.Scheme = "" }, ErrUnsupported},
		{"ephemeral at infinity", func(_ *Header, c *Content, _ *[]Recipient) { c.Ephemeral = []byte{0} }, ErrContent},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, to := w.header(), w.recipients("node3")
			content := w.content(t, h, []string{"node3"}, w.privateKey(t, "p256"))
			c.edit(&h, &content, &to)
			file, err := Seal(h, content, to, w.source)
			wantKind(t, err, c.want)
			if file != nil {
				t.Error("a package was made all the same")
			}
		})
	}
}

// TestSealBodyTooLarge fills a package with long certificates until its body passes the limit.
func TestSealBodyTooLarge(t *testing.T) {
	w := newWorld(t)
	h := w.header()
	long := Certificate{DER: w.certificate(t, "p256", pkix.Extension{Id: []int{1, 3, 6, 1, 4, 1, 32473, 1}, Value: make([]byte, MaxCertificate-1024)})}
	c := w.content(t, h, []string{"node3"})
	for range 50 {
		k := w.privateKey(t, "p256")
		public := result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t).Public()
		k.Public = result(x509.MarshalPKIXPublicKey(public))(t)
		k.Certificates = slices.Repeat([]Certificate{long}, MaxCertificates)
		must(t, k.Validate())
		c.Keys = append(c.Keys, k)
	}
	_, err := Seal(h, c, w.recipients("node3"), w.source)
	wantKind(t, err, ErrTooLarge)
}

// TestSealKeepsArguments sees that Seal does not sort the caller's slices.
func TestSealKeepsArguments(t *testing.T) {
	w := newWorld(t)
	h := w.header()
	to := w.recipients("node3", "node2")
	c := w.content(t, h, []string{"node3", "node2"}, w.privateKey(t, "p256"))
	_, err := Seal(h, c, to, w.source)
	must(t, err)
	if to[0].Node != "node3" || c.PackageKeys[0].Receiver != "node3" {
		t.Errorf("the caller's order is gone: %v, %v", to[0].Node, c.PackageKeys[0].Receiver)
	}
}

// TestSealFresh sees that two packages of the same content share neither seals nor ciphertext.
func TestSealFresh(t *testing.T) {
	w := newWorld(t)
	_, one := split(t, w.small(t))
	_, two := split(t, w.small(t))
	for _, n := range []int{100, 32} {
		if bytes.Equal(one[len(one)-n:], two[len(two)-n:]) {
			t.Error("the ciphertext is the same")
		}
	}
	if bytes.Equal(one[:200], two[:200]) {
		t.Error("the seal is the same")
	}
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b || checkHex(a, 16) != nil {
		t.Errorf("got %q and %q", a, b)
	}
}

// TestKinds pins the numbers, which are stored and sent.
func TestKinds(t *testing.T) {
	for i, k := range []Kind{ErrMalformed, ErrTruncated, ErrTooLarge, ErrUnsupported, ErrUntrusted, ErrSignature, ErrDigest,
		ErrNotReceiver, ErrExpired, ErrNotYetValid, ErrUnseal, ErrContent} {
		if int(k) != i+1 || k.Error() == "" {
			t.Errorf("%q has the number %d, want %d", k, k, i+1)
		}
	}
	if got := Kind(99).Error(); got != "kind 99" {
		t.Errorf("an unknown kind is called %q", got)
	}
	cause := errors.New("cause")
	err := fmt.Errorf("outer: %w", fail(ErrExpired, "package x: %w", cause))
	if !errors.Is(err, ErrExpired) || errors.Is(err, ErrDigest) || !errors.Is(err, cause) || err.Error() != "outer: package x: cause" {
		t.Errorf("got %v", err)
	}
}

// TestMessages holds what people read for the commonest mistakes.
func TestMessages(t *testing.T) {
	w := newWorld(t)
	file := w.small(t)
	late := w.opener("node3")
	late.Now = w.header().Expires
	for _, c := range []struct {
		name string
		file []byte
		o    Opener
		want []string
	}{
		{"empty", nil, late, []string{"the file is empty"}},
		{"text", []byte("Dear colleague,\n"), late, []string{"not a key synchronization package", `"Dear colleague,\n"`}},
		{"CRLF", bytes.Replace(file, []byte("\n"), []byte("\r\n"), 1), late, []string{"CRLF", "binary"}},
		{"newer", swapBytes("/1\n", "/2\n")(file), late, []string{"format version 2", "newer Keyferry", "update this node"}},
		{"cut", file[:len(file)-7], w.opener("node3"), []string{w.header().ID, "cut short", "copy it again"}},
		{"for others", file, w.opener("node2"), []string{w.header().ID, "node1", "node2", "node3"}},
		{"expired", file, late, []string{w.header().ID, "2026-03-02T12:00:00Z", "make a new one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(bytes.NewReader(c.file), c.o)
			if err == nil {
				t.Fatal("it opens")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}
