package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

func TestMain(m *testing.M) { hsmtest.Main(m) }

// A real module that the conformance suite runs on.
type realModule struct {
	name  string
	start func(testing.TB, string) hsm.Config
	// cannot names the kinds of keys that the module is known not to export and import.
	cannot []string
	// What the module keeps of an object: NSS stores neither usages nor CKA_EXTRACTABLE of private keys and
	// knows no CKA_ALLOWED_MECHANISMS, SoftHSM cannot give back dates.
	keepsUsage, keepsDates, keepsMechanisms bool
}

var modules = []realModule{
	{name: "SoftHSM", start: hsmtest.SoftHSM, cannot: []string{"Ed25519"}, keepsUsage: true, keepsMechanisms: true},
	{name: "NSS", start: hsmtest.NSS, cannot: []string{"Ed25519"}, keepsDates: true},
}

// each runs a test on a fresh token of every module.
func each(t *testing.T, f func(t *testing.T, m *hsm.Module, tok *hsm.Token)) {
	t.Helper()
	for _, mod := range modules {
		t.Run(mod.name, func(t *testing.T) {
			m := hsmtest.Start(t, mod.start(t, t.TempDir()))
			f(t, m, hsmtest.NewToken(t, m, "conformance"))
		})
	}
}

var kinds = []hsm.KeySpec{
	{Type: "EC", Curve: "P-256"}, {Type: "EC", Curve: "P-384"}, {Type: "EC", Curve: "P-521"},
	{Type: "RSA", Bits: 2048}, {Type: "AES", Bits: 256}, {Type: "AES", Bits: 128},
}

func kindName(s hsm.KeySpec) string {
	return hsm.Key{Type: s.Type, Curve: s.Curve, Bits: s.Bits}.Kind()
}

func generate(t *testing.T, tok *hsm.Token, s hsm.KeySpec, id byte) hsm.Key {
	t.Helper()
	s.ID, s.Label, s.Usage, s.Extractable = []byte{id}, "key "+kindName(s), hsm.UseSign, true
	k, err := tok.Generate(t.Context(), s)
	if err != nil {
		t.Fatalf("%s: %v", kindName(s), err)
	}
	return k
}

func objects(t *testing.T, tok *hsm.Token) hsm.Objects {
	t.Helper()
	o, err := tok.Objects(t.Context(), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestSelfTest(t *testing.T) {
	for _, mod := range modules {
		t.Run(mod.name, func(t *testing.T) {
			m := hsmtest.Start(t, mod.start(t, t.TempDir()))
			tok := hsmtest.NewToken(t, m, "self-test")
			abilities, err := tok.SelfTest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(abilities) < 8 {
				t.Fatalf("only %d abilities", len(abilities))
			}
			for _, a := range abilities {
				known := slices.ContainsFunc(mod.cannot, func(k string) bool { return a.Name == "export and import "+k })
				if a.OK == known {
					t.Errorf("%s: ok=%v (%s)", a.Name, a.OK, a.Note)
				}
			}
			if o := objects(t, tok); len(o.Keys) != 0 {
				t.Errorf("the self-test left %d keys on the token", len(o.Keys))
			}
		})
	}
}

func TestGenerateListSign(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		for i, s := range kinds {
			k := generate(t, tok, s, byte(i+1))
			if k.Kind() != kindName(s) || k.Label != "key "+kindName(s) || !bytes.Equal(k.ID, []byte{byte(i + 1)}) {
				t.Errorf("generated %s, listed as %s %q ID %x", kindName(s), k.Kind(), k.Label, k.ID)
			}
			if !k.Sensitive || !k.Extractable || !k.Local && m.Name() == "softhsm" || k.Usage&hsm.UseSign == 0 || k.Usage&(hsm.UseDecrypt|hsm.UseUnwrap|hsm.UseDerive) != 0 && m.Name() == "softhsm" {
				t.Errorf("%s: attributes %+v", k.Kind(), k)
			}
			if k.Class == hsm.SecretKey {
				if len(k.Check) != 16 {
					t.Errorf("%s: check value %x", k.Kind(), k.Check)
				}
				continue
			}
			if !k.PublicObject || k.Public == nil {
				t.Errorf("%s: no public key", k.Kind())
			}
			signer, err := tok.Signer(k)
			if err != nil {
				t.Fatal(err)
			}
			checkSigner(t, signer)
		}
		if o := objects(t, tok); len(o.Keys) != len(kinds) {
			t.Errorf("%d keys listed, want %d", len(o.Keys), len(kinds))
		}
	})
}

func checkSigner(t *testing.T, signer crypto.Signer) {
	t.Helper()
	d256, d512 := sha256.Sum256([]byte("message")), sha512.Sum512([]byte("message"))
	switch pub := signer.Public().(type) {
	case *ecdsa.PublicKey:
		sig, err := signer.Sign(rand.Reader, d512[:], crypto.SHA512)
		if err != nil || !ecdsa.VerifyASN1(pub, d512[:], sig) {
			t.Errorf("ECDSA: %v", err)
		}
	case *rsa.PublicKey:
		sig, err := signer.Sign(rand.Reader, d256[:], crypto.SHA256)
		if err != nil || rsa.VerifyPKCS1v15(pub, crypto.SHA256, d256[:], sig) != nil {
			t.Errorf("PKCS #1 v1.5: %v", err)
		}
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA512}
		sig, err = signer.Sign(rand.Reader, d512[:], opts)
		if err != nil || rsa.VerifyPSS(pub, crypto.SHA512, d512[:], sig, opts) != nil {
			t.Errorf("PSS: %v", err)
		}
		if _, err = signer.Sign(rand.Reader, d256[:20], crypto.SHA1); hsm.CodeOf(err) != hsm.Unsupported {
			t.Errorf("SHA-1: %v", err)
		}
	default:
		t.Fatalf("%T", pub)
	}
}

func TestAgreement(t *testing.T) {
	each(t, func(t *testing.T, _ *hsm.Module, tok *hsm.Token) {
		for curve, goCurve := range map[string]ecdh.Curve{"P-256": ecdh.P256(), "P-384": ecdh.P384(), "P-521": ecdh.P521()} {
			k, err := tok.Generate(t.Context(), hsm.KeySpec{Type: "EC", Curve: curve, ID: []byte(curve), Label: curve, Usage: hsm.UseDerive})
			if err != nil {
				t.Fatal(err)
			}
			ex, err := tok.Agreement(k)
			if err != nil {
				t.Fatal(err)
			}
			for range 40 { // often enough to meet secrets that begin with zeros on P-521
				peer, err := goCurve.GenerateKey(rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				got, err := ex.ECDH(peer.PublicKey())
				if err != nil {
					t.Fatal(err)
				}
				want, err := peer.ECDH(ex.PublicKey())
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%s: token and Go disagree (%v)", curve, err)
				}
			}
			other, _ := ecdh.X25519().GenerateKey(rand.Reader)
			if _, err := ex.ECDH(other.PublicKey()); err == nil {
				t.Error("a key of another curve was taken")
			}
		}
	})
}

func TestCodes(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		ctx := t.Context()
		if err := tok.Login(ctx, []byte(hsmtest.Code), true); err != nil {
			t.Errorf("the same code again: %v", err)
		}
		if err := tok.Login(ctx, []byte("another"), true); !errors.Is(err, hsm.WrongCode) {
			t.Errorf("another code while open: %v", err)
		}
		if err := tok.SetCode(ctx, []byte("wrong old code"), []byte("new code 123")); !errors.Is(err, hsm.WrongCode) {
			t.Errorf("changing with a wrong old code: %v", err)
		}
		if err := tok.SetCode(ctx, []byte(hsmtest.Code), []byte("new code 123")); err != nil {
			t.Fatal(err)
		}
		generate(t, tok, kinds[0], 1) // still open
		if err := tok.TryCode(ctx, []byte(hsmtest.Code)); !errors.Is(err, hsm.WrongCode) {
			t.Errorf("trying the old code beside an open token: %v", err)
		}
		if err := tok.TryCode(ctx, []byte("new code 123")); err != nil {
			t.Errorf("trying the new code beside an open token: %v", err)
		}
		if err := m.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		generate(t, tok, kinds[0], 2) // open again, with the new code
		if err := tok.Logout(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := tok.Objects(ctx, 0, false); !errors.Is(err, hsm.NotLoggedIn) {
			t.Errorf("listing a closed token: %v", err)
		}
		for _, bad := range []string{hsmtest.Code, "", "x", string(make([]byte, hsm.MaxCode+1))} {
			err := tok.Login(ctx, []byte(bad), false)
			if !errors.Is(err, hsm.WrongCode) && !errors.Is(err, hsm.CodeLength) {
				t.Errorf("code of %d bytes: %v", len(bad), err)
			}
		}
		if err := tok.Login(ctx, []byte("new code 123"), false); err != nil {
			t.Error(err)
		}
		if err := m.Token("ffff").Login(ctx, []byte("whatever"), false); !errors.Is(err, hsm.NoToken) {
			t.Errorf("unknown token: %v", err)
		}
	})
}

func TestCodeLimits(t *testing.T) {
	m := hsmtest.Start(t, hsmtest.SoftHSM(t, t.TempDir()))
	for _, code := range []string{"abc", string(bytes.Repeat([]byte("x"), 256))} {
		if _, err := m.InitToken(t.Context(), "limits", []byte("officer-123"), []byte(code)); !errors.Is(err, hsm.CodeLength) {
			t.Errorf("new token with a code of %d bytes: %v", len(code), err)
		}
	}
	tok := hsmtest.NewToken(t, m, "limits")
	if err := tok.SetCode(t.Context(), []byte(hsmtest.Code), bytes.Repeat([]byte("x"), 256)); !errors.Is(err, hsm.CodeLength) {
		t.Errorf("a code longer than the token allows: %v", err)
	}
	if _, err := m.InitToken(t.Context(), "a label that is longer than 32 bytes", []byte("officer"), []byte("code")); !errors.Is(err, hsm.BadInput) {
		t.Errorf("long label: %v", err)
	}
}

func TestListingIsIncremental(t *testing.T) {
	each(t, func(t *testing.T, _ *hsm.Module, tok *hsm.Token) {
		generate(t, tok, kinds[0], 1)
		first := objects(t, tok)
		again, err := tok.Objects(t.Context(), first.Generation, false)
		if err != nil || !again.Unchanged || again.Keys != nil {
			t.Errorf("nothing changed, but: %+v, %v", again, err)
		}
		k := generate(t, tok, kinds[1], 2)
		more, err := tok.Objects(t.Context(), first.Generation, false)
		if err != nil || more.Unchanged || len(more.Keys) != 2 {
			t.Errorf("a key was made, but: %+v, %v", more, err)
		}
		if err := tok.Destroy(t.Context(), k.Ref); err != nil {
			t.Fatal(err)
		}
		less, err := tok.Objects(t.Context(), more.Generation, false)
		if err != nil || less.Unchanged || len(less.Keys) != 1 {
			t.Errorf("a key was removed, but: %+v, %v", less, err)
		}
	})
}

// certificate makes a self-signed certificate with a key of the token.
func certificate(t *testing.T, tok *hsm.Token, k hsm.Key) hsm.Certificate {
	t.Helper()
	signer, err := tok.Signer(k)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: k.Label}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return hsm.Certificate{ID: k.ID, Label: k.Label, DER: der}
}

func TestCertificates(t *testing.T) {
	each(t, func(t *testing.T, _ *hsm.Module, tok *hsm.Token) {
		c := certificate(t, tok, generate(t, tok, kinds[1], 9))
		for range 2 { // the second time it is there already
			if err := tok.StoreCertificates(t.Context(), []hsm.Certificate{c}); err != nil {
				t.Fatal(err)
			}
		}
		o := objects(t, tok)
		if len(o.Certificates) != 1 || !bytes.Equal(o.Certificates[0].DER, c.DER) || !bytes.Equal(o.Certificates[0].ID, c.ID) {
			t.Errorf("listed %+v", o.Certificates)
		}
		if err := tok.StoreCertificates(t.Context(), []hsm.Certificate{{DER: []byte("junk")}}); !errors.Is(err, hsm.BadInput) {
			t.Errorf("junk: %v", err)
		}
	})
}

func TestStaleReference(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		k := generate(t, tok, kinds[0], 1)
		signer, err := tok.Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := sha256.Sum256(nil)
		if _, err := signer.Sign(rand.Reader, d[:], crypto.SHA256); !errors.Is(err, hsm.Stale) {
			t.Errorf("signing with a reference from before the restart: %v", err)
		}
		if err := tok.Destroy(context.Background(), k.Ref); !errors.Is(err, hsm.Stale) {
			t.Errorf("destroying with it: %v", err)
		}
	})
}
