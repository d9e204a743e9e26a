package hsm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// TestPublic: without its code a token shows public keys and certificates, and that is all.
func TestPublic(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		k := generate(t, tok, hsm.KeySpec{Type: "EC", Curve: "P-521"}, 1)
		generate(t, tok, hsm.KeySpec{Type: "AES", Bits: 256}, 2)
		c := certificate(t, tok, k)
		if err := tok.StoreCertificates(t.Context(), []hsm.Certificate{c}); err != nil {
			t.Fatal(err)
		}
		for _, open := range []bool{true, false} {
			if !open {
				if err := tok.Logout(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			o, err := tok.Public(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(o.Keys) != 1 || !bytes.Equal(o.Keys[0].DER, k.Public) || !bytes.Equal(o.Keys[0].ID, k.ID) {
				t.Errorf("open %v: public keys %+v", open, o.Keys)
			}
			if len(o.Certificates) != 1 || !bytes.Equal(o.Certificates[0].DER, c.DER) || !bytes.Equal(o.Certificates[0].ID, k.ID) {
				t.Errorf("open %v: certificates %+v", open, o.Certificates)
			}
		}
		if _, err := m.Token("none").Public(t.Context()); !errors.Is(err, hsm.NoToken) {
			t.Errorf("a token that is not there: %v", err)
		}
	})
	m := hsmtest.Start(t, hsm.Config{Name: "none", Path: "/does/not/exist"})
	if _, err := m.Token("01").Public(t.Context()); !errors.Is(err, hsm.Down) {
		t.Errorf("no module: %v", err)
	}
}
