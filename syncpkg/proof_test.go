package syncpkg

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"testing"
)

// prove signs a challenge as a receiver's HSM does.
func (w *world) prove(t testing.TB, key, algorithm string) Proof {
	t.Helper()
	p := Proof{Kind: ProofSignature, Algorithm: algorithm, Challenge: make([]byte, 32)}
	rand.Read(p.Challenge)
	raw := func(hash crypto.Hash) []byte {
		k := w.keys[key].(*ecdsa.PrivateKey)
		r, s, err := ecdsa.Sign(rand.Reader, k, digest(hash, p.Challenge))
		must(t, err)
		n := (k.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))...)
	}
	var err error
	switch algorithm {
	case "RS256":
		p.Value, err = rsa.SignPKCS1v15(nil, w.keys[key].(*rsa.PrivateKey), crypto.SHA256, digest(crypto.SHA256, p.Challenge))
	case "PS256":
		p.Value, err = rsa.SignPSS(rand.Reader, w.keys[key].(*rsa.PrivateKey), crypto.SHA256, digest(crypto.SHA256, p.Challenge),
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case "ES256":
		p.Value = raw(crypto.SHA256)
	case "ES384":
		p.Value = raw(crypto.SHA384)
	case "ES512":
		p.Value = raw(crypto.SHA512)
	case "EdDSA":
		p.Value = ed25519.Sign(w.keys[key].(ed25519.PrivateKey), p.Challenge)
	}
	must(t, err)
	return p
}

func TestProofVerify(t *testing.T) {
	w := newWorld(t)
	pairs := map[string]string{"RS256": "rsa2048", "PS256": "rsa2048", "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed25519"}
	for algorithm, key := range pairs {
		t.Run(algorithm, func(t *testing.T) {
			public := w.privateKey(t, key).Public
			p := w.prove(t, key, algorithm)
			must(t, p.Verify(public))

			bad := p
			bad.Challenge = flip(0)(p.Challenge)
			wantKind(t, bad.Verify(public), ErrSignature)
			bad = p
			bad.Value = flip(-1)(p.Value)
			wantKind(t, bad.Verify(public), ErrSignature)
			bad.Value = p.Value[:len(p.Value)-1]
			wantKind(t, bad.Verify(public), ErrSignature)
			bad.Value = nil
			wantKind(t, bad.Verify(public), ErrContent)
			wantKind(t, p.Verify(nil), ErrContent)
			if p.Verify(x25519SPKI) == nil { // of which kind depends on FIPS mode
				t.Error("it verifies by a key of X25519")
			}
			for other, otherKey := range pairs {
				if other != algorithm {
					bad = p
					bad.Algorithm = other
					wantKind(t, bad.Verify(public), ErrSignature)
				}
				if otherKey != key {
					wantKind(t, p.Verify(w.privateKey(t, otherKey).Public), ErrSignature)
				}
			}
		})
	}
	public := w.privateKey(t, "p256").Public
	good := w.prove(t, "p256", "ES256")
	for name, edit := range map[string]func(p *Proof){
		"a MAC":                    func(p *Proof) { p.Kind, p.Algorithm = ProofMAC, "HS256" },
		"a decryption":             func(p *Proof) { *p = Proof{Kind: ProofDecryption} },
		"a decryption with more":   func(p *Proof) { p.Kind = ProofDecryption },
		"a kind that is none":      func(p *Proof) { p.Kind = "trust me" },
		"the algorithm of a MAC":   func(p *Proof) { p.Algorithm = "HS256" },
		"no algorithm":             func(p *Proof) { p.Algorithm = "" },
		"a challenge too short":    func(p *Proof) { p.Challenge = p.Challenge[:MinChallenge-1] },
		"a challenge too long":     func(p *Proof) { p.Challenge = make([]byte, MaxChallenge+1) },
		"a value too long":         func(p *Proof) { p.Value = make([]byte, MaxProof+1) },
		"an algorithm of one more": func(p *Proof) { p.Algorithm = "ES256K" },
	} {
		p := good
		edit(&p)
		t.Run(name, func(t *testing.T) { wantKind(t, p.Verify(public), ErrContent) })
	}
}
