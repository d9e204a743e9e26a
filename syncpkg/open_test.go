package syncpkg

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// exchanger is an ECDH key that is not an *ecdh.PrivateKey, as one in an HSM.
type exchanger struct {
	key   *ecdh.PrivateKey
	calls int
	err   error
}

func (x *exchanger) PublicKey() *ecdh.PublicKey { return x.key.PublicKey() }
func (x *exchanger) Curve() ecdh.Curve          { return x.key.Curve() }
func (x *exchanger) ECDH(p *ecdh.PublicKey) ([]byte, error) {
	x.calls++
	if x.err != nil {
		return nil, x.err
	}
	return x.key.ECDH(p)
}

// TestRoundTrip seals to two receivers whose elliptic-curve keys are opaque, and opens as each.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	hybrid := &exchanger{key: result(ecdh.P384().GenerateKey(rand.Reader))(t)}
	classic := &exchanger{key: result(ecdh.P521().GenerateKey(rand.Reader))(t)}
	w.private["node2"] = result(hpke.NewHybridPrivateKey(result(mlkem.GenerateKey1024())(t), hybrid))(t)
	w.private["node3"] = result(hpke.NewDHKEMPrivateKey(classic))(t)

	h := w.header()
	h.ID = NewID()
	want := w.content(t, h, []string{"node2", "node3"}, w.allKeys(t)...)
	file, err := Seal(h, want, w.recipients("node3", "node2"), w.source) // in any order
	must(t, err)
	for _, node := range []string{"node2", "node3"} {
		p, err := Open(iotest.OneByteReader(bytes.NewReader(file)), w.opener(node))
		must(t, err)
		if !reflect.DeepEqual(p.Content, want) {
			t.Errorf("%s got the content\n%+v\nwant\n%+v", node, p.Content, want)
		}
		got := p.Head.Header
		if got.Body.SHA256 == "" || got.Keys != len(want.Keys) || strings.Join(got.Receivers, ",") != "node2,node3" || got.Suite != Suite {
			t.Errorf("%s got the header %+v", node, got)
		}
		got.Body, got.Keys, got.Receivers, got.Suite = h.Body, h.Keys, h.Receivers, h.Suite
		if !reflect.DeepEqual(got, h) {
			t.Errorf("%s got the header\n%+v\nwant\n%+v", node, got, h)
		}
		wrapped, ok := p.Content.PackageKey(node)
		if !ok || len(wrapped) != wrappedKey {
			t.Errorf("%s has no package key", node)
		}
	}
	if hybrid.calls != 1 || classic.calls != 1 {
		t.Errorf("the keys were used %d and %d times, want once each", hybrid.calls, classic.calls)
	}
	if _, ok := want.PackageKey("node9"); ok {
		t.Error("node9 has a package key")
	}
}

// TestPrivateKeyUnused opens every damaged vector that fails before the private key's turn with a key that must not be
// used.
func TestPrivateKeyUnused(t *testing.T) {
	w := newWorld(t)
	after := map[string]bool{"ok": true, "cannot be unsealed": true, "bad content": true, "unsupported": true}
	n := 0
	for _, v := range w.madePackages(t) {
		if v.data == nil || after[v.Want] {
			continue
		}
		n++
		untouchable := &exchanger{key: result(ecdh.P521().NewPrivateKey(result(w.private["node3"].Bytes())(t)))(t)}
		o := w.opener("node3")
		o.Private = result(hpke.NewDHKEMPrivateKey(untouchable))(t)
		_, err := Open(bytes.NewReader(v.data), o)
		checkWant(t, err, v.Want)
		if untouchable.calls > 0 {
			t.Errorf("%s: the private key was used", v.File)
		}
	}
	if n < 40 {
		t.Errorf("only %d packages were tried", n)
	}
}

// TestOpenOrder breaks everything from some check on, and sees that this check speaks first.
func TestOpenOrder(t *testing.T) {
	w := newWorld(t)
	h := w.header()
	late := h.Expires.AddDate(1, 0, 0)
	stranger := func(string, string, string) (*ecdsa.PublicKey, error) { return nil, errors.New("no edge") }
	badBody := func(b []byte) []byte { b[len(b)-1]++; return b }
	for _, c := range []struct {
		name string
		f    forgery
		edit func(o *Opener)
		want Kind
	}{
		{"version before header", forgery{text: swap(`"id"`, `"ID"`), file: swapBytes("/1\n", "/9\n")}, func(o *Opener) { o.Trust = stranger }, ErrUnsupported},
		{"header before trust", forgery{text: swap(`"id"`, `"ID"`)}, func(o *Opener) { o.Trust = stranger }, ErrMalformed},
		{"trust before signature", forgery{file: swapBytes("Issuing", "issuing")}, func(o *Opener) { o.Trust = stranger }, ErrUntrusted},
		{"signature before receiver", forgery{file: swapBytes("Issuing", "issuing")}, func(o *Opener) { o.Receiver = "node9" }, ErrSignature},
		{"receiver before time", forgery{}, func(o *Opener) { o.Receiver, o.Now = "node9", late }, ErrNotReceiver},
		{"time before size", forgery{text: swap(`"size": `, `"size": 99999999`)}, func(o *Opener) { o.Now = late }, ErrExpired},
		{"size before digest", forgery{text: swap(`"size": `, `"size": 99999999`), file: badBody}, func(*Opener) {}, ErrTooLarge},
		{"digest before end", forgery{file: func(b []byte) []byte { return append(badBody(b), 0) }}, func(*Opener) {}, ErrDigest},
		{"end before seals", forgery{body: swapBytes("[{", "[ {"), file: func(b []byte) []byte { return append(b, 0) }}, func(*Opener) {}, ErrMalformed},
		{"seals before unsealing", forgery{body: swapBytes("[{", "[ {")}, func(o *Opener) { o.Private = nil }, ErrContent},
		{"unsealing before content", forgery{plaintext: swap(`"keys"`, `"Keys"`)}, func(o *Opener) { o.Private = nil }, ErrUnseal},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := w.opener("node3")
			c.edit(&o)
			_, err := Open(bytes.NewReader(w.forge(t, c.f)), o)
			wantKind(t, err, c.want)
		})
	}
}

func TestTrust(t *testing.T) {
	w := newWorld(t)
	file := w.small(t)
	cause := errors.New("the edge was removed on Monday")
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	for name, trust := range map[string]Trust{
		"nil":       nil,
		"no key":    func(_, _, _ string) (*ecdsa.PublicKey, error) { return nil, nil },
		"error":     func(_, _, _ string) (*ecdsa.PublicKey, error) { return &w.source.PublicKey, cause },
		"other key": func(_, _, _ string) (*ecdsa.PublicKey, error) { return &w.stranger.PublicKey, nil },
		"P-256":     func(_, _, _ string) (*ecdsa.PublicKey, error) { return &p256.PublicKey, nil },
	} {
		t.Run(name, func(t *testing.T) {
			o := w.opener("node3")
			o.Trust = trust
			_, err := Open(bytes.NewReader(file), o)
			wantKind(t, err, ErrUntrusted)
			if name == "error" && !errors.Is(err, cause) {
				t.Errorf("the cause is lost: %v", err)
			}
			if name == "other key" && !strings.Contains(err.Error(), "known by key") {
				t.Errorf("the message does not name both keys: %v", err)
			}
		})
	}
	o := w.opener("node3")
	o.Trust = func(cluster, node, keyID string) (*ecdsa.PublicKey, error) {
		if cluster != "c1" || node != "node1" || keyID != result(Thumbprint(&w.source.PublicKey))(t) {
			t.Errorf("asked for cluster %q, node %q, key %q", cluster, node, keyID)
		}
		return &w.source.PublicKey, nil
	}
	_, err = Open(bytes.NewReader(file), o)
	must(t, err)
}

func TestUnseal(t *testing.T) {
	w := newWorld(t)
	file := w.small(t)
	gone := errors.New("CKR_DEVICE_REMOVED")
	broken := &exchanger{key: result(ecdh.P521().GenerateKey(rand.Reader))(t), err: gone}
	for name, private := range map[string]hpke.PrivateKey{
		"no key":    nil,
		"other KEM": w.private["node2"],
		"other key": result(hpke.DHKEM(ecdh.P521()).GenerateKey())(t),
		"HSM error": result(hpke.NewDHKEMPrivateKey(broken))(t),
	} {
		t.Run(name, func(t *testing.T) {
			o := w.opener("node3")
			o.Private = private
			_, err := Open(bytes.NewReader(file), o)
			wantKind(t, err, ErrUnseal)
			if name == "HSM error" && !errors.Is(err, gone) {
				t.Errorf("the cause is lost: %v", err)
			}
		})
	}
}

// endless gives a file and then zeros for ever, and counts.
type endless struct {
	file io.Reader
	n    int64
}

func (e *endless) Read(p []byte) (int, error) {
	n, err := e.file.Read(p)
	if errors.Is(err, io.EOF) {
		clear(p)
		n, err = len(p), nil
	}
	e.n += int64(n)
	return n, err
}

// TestReadsBounded gives Open endless readers, and looks at how much it takes from them.
func TestReadsBounded(t *testing.T) {
	w := newWorld(t)
	claim := func(size string) []byte {
		return w.forge(t, forgery{text: swap(`"size": `, `"size": `+size)})
	}
	for _, c := range []struct {
		name string
		file []byte
		want Kind
		max  int64
	}{
		{"nothing but zeros", nil, ErrMalformed, 8 << 10},
		{"a first line without end", []byte("keyferry-sync-package/1"), ErrMalformed, 8 << 10},
		{"a header without end", []byte("keyferry-sync-package/1\n{\n"), ErrTooLarge, MaxHead + 8<<10},
		{"a body without end", w.small(t), ErrMalformed, 16 << 10},
		{"a claim of 2^53 bytes", claim("900719925474"), ErrTooLarge, 8 << 10},
		{"a body of more than it has", claim("1"), ErrDigest, 64 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &endless{file: bytes.NewReader(c.file)}
			_, err := Open(r, w.opener("node3"))
			wantKind(t, err, c.want)
			if r.n > c.max {
				t.Errorf("%d bytes were read, want %d at most", r.n, c.max)
			}
		})
	}
}

// TestClaimedSizeUnallocated claims the largest body allowed and brings a few bytes.
func TestClaimedSizeUnallocated(t *testing.T) {
	w := newWorld(t)
	file := w.forge(t, forgery{text: func(s string) string {
		i := strings.Index(s, `"size": `) + len(`"size": `)
		return s[:i] + "67108864" + s[i+strings.Index(s[i:], ","):]
	}})
	o := w.opener("node3")
	n := allocated(func() {
		_, err := Open(bytes.NewReader(file), o)
		wantKind(t, err, ErrTruncated)
	})
	if n > 1<<20 {
		t.Errorf("%d bytes were allocated for a file of %d", n, len(file))
	}
}

func TestReadError(t *testing.T) {
	w := newWorld(t)
	file := w.small(t)
	gone := errors.New("connection reset")
	for _, at := range []int{0, 5, 100, len(file) - 900, len(file) - 10, len(file)} {
		r := io.MultiReader(bytes.NewReader(file[:at]), iotest.ErrReader(gone))
		_, err := Open(r, w.opener("node3"))
		var kind Kind
		if !errors.Is(err, gone) || errors.As(err, &kind) {
			t.Errorf("after %d bytes: got %v (%v), want the reader's error without a kind", at, err, kind)
		}
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	for _, v := range w.madePackages(t) {
		if v.data == nil {
			continue
		}
		want := v.Want
		if strings.HasPrefix(v.File, "seals-") || strings.HasPrefix(v.File, "c") { // ciphertext-, content-, certificate
			want = "ok" // what only the receiver can see
		}
		if v.File == "certificate.package" {
			want = v.Want
		}
		head, err := Check(bytes.NewReader(v.data), v.Now, w.trust)
		t.Run(v.File, func(t *testing.T) { checkWant(t, err, want) })
		if err == nil && head.Header.Source != "node1" {
			t.Errorf("%s: the head is %+v", v.File, head)
		}
	}
	file := w.small(t)
	_, err := Check(bytes.NewReader(file), w.header().Expires, w.trust)
	wantKind(t, err, ErrExpired)
}
