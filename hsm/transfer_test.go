package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

var challenge = []byte("a challenge of thirty-two bytes!")

// A receiver is a token with a transport key.
type receiver struct {
	tok       *hsm.Token
	transport hsm.Key
	point     []byte
	context   []byte
}

func newReceiver(t *testing.T, tok *hsm.Token) receiver {
	t.Helper()
	k, err := tok.Generate(t.Context(), hsm.KeySpec{Type: "EC", Curve: "P-521", ID: []byte("transport"), Label: "transport", Usage: hsm.UseDerive})
	if err != nil {
		t.Fatal(err)
	}
	ex, err := tok.Agreement(k)
	if err != nil {
		t.Fatal(err)
	}
	return receiver{tok, k, ex.PublicKey().Bytes(), bytes.Repeat([]byte{42}, 32)}
}

// send exports keys and returns what the receiver gets.
func send(t *testing.T, from *hsm.Token, to receiver, keys ...hsm.Key) (hsm.Envelope, []hsm.Incoming) {
	t.Helper()
	exp, err := from.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer exp.Close()
	packageKey, err := exp.Address(t.Context(), hsm.Receiver{Transport: to.point, Context: to.context})
	if err != nil {
		t.Fatal(err)
	}
	var refs []hsm.Ref
	for _, k := range keys {
		refs = append(refs, k.Ref)
	}
	wrapped, err := exp.Wrap(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	var incoming []hsm.Incoming
	for i, w := range wrapped {
		if w.Err != nil {
			t.Fatalf("%s: %v", keys[i].Kind(), w.Err)
		}
		incoming = append(incoming, hsm.Incoming{Key: keys[i], Blob: w.Blob})
	}
	return hsm.Envelope{Transport: to.transport.Ref, Ephemeral: exp.Ephemeral, Context: to.context, PackageKey: packageKey}, incoming
}

func receive(t *testing.T, to receiver, e hsm.Envelope, keys []hsm.Incoming) []hsm.Arrived {
	t.Helper()
	imp, err := to.tok.Import(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	defer imp.Close()
	arrived, err := imp.Unwrap(t.Context(), challenge, keys)
	if err != nil {
		t.Fatal(err)
	}
	return arrived
}

// TestTravel sends keys of every kind between tokens of every pair of modules.
func TestTravel(t *testing.T) {
	for _, a := range modules {
		for _, b := range modules {
			t.Run(a.name+" to "+b.name, func(t *testing.T) {
				from := hsmtest.NewToken(t, hsmtest.Start(t, a.start(t, t.TempDir())), "source")
				to := newReceiver(t, hsmtest.NewToken(t, hsmtest.Start(t, b.start(t, t.TempDir())), "target"))
				var keys []hsm.Key
				for i, s := range kinds {
					keys = append(keys, generate(t, from, s, byte(i+1)))
				}
				envelope, incoming := send(t, from, to, keys...)
				incoming[1].Certificates = []hsm.Certificate{certificate(t, from, keys[1])}
				incoming[2].Usage = hsm.UseDerive // proved by a signature before, but may not sign once it is there
				if b.keepsMechanisms {
					incoming[0].Mechanisms = []uint32{0x1041}     // CKM_ECDSA
					incoming[3].Mechanisms = []uint32{0x40, 0x43} // not the mechanism of the proof
				}
				incoming[3].Subject = []byte{0x30, 0}
				incoming[3].Start = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
				for i, r := range receive(t, to, envelope, incoming) {
					if r.Err != nil {
						t.Errorf("%s: %v", incoming[i].Kind(), r.Err)
						continue
					}
					checkArrived(t, b, to.tok, incoming[i], r)
				}
				if o := objects(t, to.tok); len(o.Keys) != len(keys)+1 || len(o.Certificates) != 1 || o.Loose != 0 {
					t.Errorf("the target holds %d keys, %d certificates, %d loose objects", len(o.Keys), len(o.Certificates), o.Loose)
				}
			})
		}
	}
}

func checkArrived(t *testing.T, mod realModule, tok *hsm.Token, want hsm.Incoming, r hsm.Arrived) {
	t.Helper()
	var got hsm.Key
	for _, k := range objects(t, tok).Keys {
		if bytes.Equal(k.ID, want.ID) {
			got = k
		}
	}
	if r.Final != (want.Usage&hsm.UseSign != 0 && !slices.Contains(want.Mechanisms, 0x40)) {
		t.Errorf("%s: proof by the object on the token: %v", want.Kind(), r.Final)
	}
	if !mod.keepsDates {
		want.Start = time.Time{}
	}
	want.PublicUsage &^= hsm.UseDerive // which NSS adds to all EC keys
	got.PublicUsage &^= hsm.UseDerive
	if !mod.keepsUsage {
		got.Usage = want.Usage
	}
	if got.Kind() != want.Kind() && want.Class == hsm.PrivateKey || got.Label != want.Label || got.Usage != want.Usage || !slices.Equal(got.Mechanisms, want.Mechanisms) || !got.Sensitive ||
		got.Extractable != want.Extractable || !bytes.Equal(got.Subject, want.Subject) || !got.Start.Equal(want.Start) {
		got.Public, want.Public = nil, nil
		t.Errorf("sent %+v,\narrived as %+v", want.Key, got)
	}
	if want.Class == hsm.SecretKey {
		if !bytes.Equal(got.Check, want.Check) || !bytes.Equal(r.Proof, want.Check) {
			t.Errorf("%s: check value %x, want %x", want.Kind(), got.Check, want.Check)
		}
		return
	}
	if err := hsm.VerifyProof(want.Public, challenge, r.Proof); err != nil {
		t.Errorf("%s: %v", want.Kind(), err)
	}
	if !bytes.Equal(got.Public, want.Public) || got.PublicObject != want.PublicObject || got.PublicUsage != want.PublicUsage {
		t.Errorf("%s: public key object differs: %s, want %s", want.Kind(), got.PublicUsage, want.PublicUsage)
	}
	if r.Final && len(want.Mechanisms) == 0 {
		signer, err := tok.Signer(got)
		if err != nil {
			t.Fatal(err)
		}
		checkSigner(t, signer)
	}
}

// TestTravelRefused damages what travels in each way and expects nothing to be left on the target.
func TestTravelRefused(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		to := newReceiver(t, tok)
		a, b := generate(t, tok, kinds[0], 1), generate(t, tok, kinds[0], 2)
		secret := generate(t, tok, kinds[4], 3)
		envelope, incoming := send(t, tok, to, a, b, secret)
		before := len(objects(t, tok).Keys)
		imp, err := tok.Import(t.Context(), envelope)
		if err != nil {
			t.Fatal(err)
		}
		defer imp.Close()
		damaged := []struct {
			name   string
			damage func(*hsm.Incoming)
			key    int
			want   hsm.Code
		}{
			{"a flipped bit", func(k *hsm.Incoming) { k.Blob[20] ^= 1 }, 0, hsm.BadWrapped},
			{"no bytes", func(k *hsm.Incoming) { k.Blob = nil }, 0, hsm.BadWrapped},
			{"an odd length", func(k *hsm.Incoming) { k.Blob = k.Blob[:33] }, 0, hsm.BadWrapped},
			{"too many bytes", func(k *hsm.Incoming) { k.Blob = make([]byte, hsm.MaxWrapped+8) }, 0, hsm.BadWrapped},
			{"another key's public key", func(k *hsm.Incoming) { k.Public = b.Public }, 0, hsm.NotProved},
			{"a public key of another type", func(k *hsm.Incoming) { k.Type = "RSA" }, 0, hsm.BadInput},
			{"an unknown type", func(k *hsm.Incoming) { k.Type = "DSA" }, 0, hsm.Unsupported},
			{"a junk certificate", func(k *hsm.Incoming) { k.Certificates = []hsm.Certificate{{DER: []byte{1}}} }, 0, hsm.BadInput},
			{"a long label", func(k *hsm.Incoming) { k.Label = string(make([]byte, 1000)) }, 0, hsm.BadInput},
			{"another check value", func(k *hsm.Incoming) { k.Check = bytes.Repeat([]byte{1}, 16) }, 2, hsm.NotProved},
			{"no check value", func(k *hsm.Incoming) { k.Check = nil }, 2, hsm.BadInput},
			{"a private key called a secret one", func(k *hsm.Incoming) {
				k.Class, k.Type, k.Check = hsm.SecretKey, "generic", bytes.Repeat([]byte{1}, 16)
			}, 0, 0},
			{"a secret key called a private one", func(k *hsm.Incoming) { k.Class, k.Type, k.Curve, k.Public = hsm.PrivateKey, "EC", "P-256", a.Public }, 2, 0},
		}
		for _, d := range damaged {
			t.Run(d.name, func(t *testing.T) {
				k := incoming[d.key]
				k.Blob, k.ID, k.Label = bytes.Clone(k.Blob), []byte("copy"), "copy"
				d.damage(&k)
				r, err := imp.Unwrap(t.Context(), challenge, []hsm.Incoming{k})
				if err != nil {
					t.Fatal(err)
				}
				if r[0].Err == nil || d.want != 0 && r[0].Err.Code != d.want {
					t.Errorf("got %v, want %v", r[0].Err, d.want)
				}
				if o := objects(t, tok); len(o.Keys) != before || o.Loose != 0 || len(o.Certificates) != 0 {
					t.Errorf("it left something: %d keys, want %d", len(o.Keys), before)
				}
			})
		}
		if _, err := imp.Unwrap(t.Context(), nil, incoming[:1]); !errors.Is(err, hsm.BadInput) {
			t.Errorf("no challenge: %v", err)
		}
	})
}

func TestPackageKeyRefused(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		to := newReceiver(t, tok)
		envelope, _ := send(t, tok, to, generate(t, tok, kinds[0], 1))
		for name, damage := range map[string]func(*hsm.Envelope){
			"another context":   func(e *hsm.Envelope) { e.Context = bytes.Repeat([]byte{1}, 32) },
			"a short context":   func(e *hsm.Envelope) { e.Context = e.Context[:16] },
			"a flipped bit":     func(e *hsm.Envelope) { e.PackageKey = bytes.Clone(e.PackageKey); e.PackageKey[3] ^= 4 },
			"no package key":    func(e *hsm.Envelope) { e.PackageKey = nil },
			"no point":          func(e *hsm.Envelope) { e.Ephemeral = nil },
			"a point elsewhere": func(e *hsm.Envelope) { e.Ephemeral = bytes.Clone(e.Ephemeral); e.Ephemeral[100] ^= 1 },
			"a stale reference": func(e *hsm.Envelope) { e.Transport.Epoch++ },
		} {
			e := envelope
			damage(&e)
			if imp, err := tok.Import(t.Context(), e); err == nil {
				imp.Close()
				t.Errorf("%s: it opened", name)
			}
		}
	})
}

// TestRestrictedKey sends a key that is restricted to some mechanisms to a module that would forget that.
func TestRestrictedKey(t *testing.T) {
	tok := hsmtest.NewToken(t, hsmtest.Start(t, hsmtest.NSS(t, t.TempDir())), "restricted")
	to := newReceiver(t, tok)
	envelope, incoming := send(t, tok, to, generate(t, tok, kinds[0], 1))
	incoming[0].ID, incoming[0].Mechanisms = []byte("restricted"), []uint32{0x1041}
	if r := receive(t, to, envelope, incoming); r[0].Err == nil || r[0].Err.Code != hsm.Unsupported {
		t.Errorf("got %v", r[0].Err)
	}
	if o := objects(t, tok); len(o.Keys) != 2 {
		t.Errorf("%d keys on the token, want 2", len(o.Keys))
	}
}

func TestNotExtractable(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		k, err := tok.Generate(t.Context(), hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte{1}, Label: "fixed", Usage: hsm.UseSign})
		if err != nil {
			t.Fatal(err)
		}
		exp, err := tok.Export(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer exp.Close()
		w, err := exp.Wrap(t.Context(), []hsm.Ref{k.Ref, {Epoch: k.Ref.Epoch, Handle: 999999}})
		if err != nil {
			t.Fatal(err)
		}
		if m.Name() != "nss" && (w[0].Err == nil || w[0].Err.Code != hsm.NotExtractable) {
			t.Errorf("wrapping a key that is not extractable: %v", w[0].Err)
		}
		if w[1].Err == nil {
			t.Error("wrapping a key that is not there worked")
		}
	})
}

// TestListWhileImporting is the reason for the worker's lock: without it SoftHSM hands out objects
// without class or numbers, and fails signatures.
func TestListWhileImporting(t *testing.T) {
	tok := hsmtest.NewToken(t, hsmtest.Start(t, hsmtest.SoftHSM(t, t.TempDir())), "busy")
	to := newReceiver(t, tok)
	k := generate(t, tok, kinds[0], 1)
	envelope, incoming := send(t, tok, to, k)
	signer, err := tok.Signer(k)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			digest := sha256.Sum256(nil)
			for {
				select {
				case <-done:
					return
				default:
				}
				o, err := tok.Objects(t.Context(), 0, true)
				if err != nil || o.Loose != 0 {
					t.Errorf("%d loose objects, %v", o.Loose, err)
					return
				}
				if _, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 60 {
		one := incoming[0]
		one.ID, one.Label = fmt.Append(nil, "copy ", i), "copy"
		if r := receive(t, to, envelope, []hsm.Incoming{one}); r[0].Err != nil {
			t.Error(r[0].Err)
		}
	}
	close(done)
	readers.Wait()
	if o := objects(t, tok); len(o.Keys) != 62 {
		t.Errorf("%d keys, want 62", len(o.Keys))
	}
}
