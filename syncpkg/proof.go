package syncpkg

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"

	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
)

// The kinds of proof that a key works on the receiver's token. Anybody can verify a signature, and who holds the key can
// verify a MAC. The other two are the receiver's word, for keys that may do nothing else.
const (
	ProofSignature  = "signature"  // Value is a signature of Challenge
	ProofMAC        = "mac"        // Value is a MAC of Challenge
	ProofDecryption = "decryption" // the token decrypted what had been encrypted to the public key
	ProofAgreement  = "agreement"  // the token agreed on the same secret as the other side of a key agreement
)

// Proof is how the receiver found that a key works.
type Proof struct {
	Kind string `json:"kind"` // one of the Proof constants
	// Algorithm is the RFC 7518 name for signatures (RS256, PS256, ES256, ES384, ES512, and RFC 8037's EdDSA), for MACs
	// AES-CMAC, HS256, HS384 or HS512, else empty.
	Algorithm string `json:"algorithm,omitempty"`
	Challenge []byte `json:"challenge,omitempty"` // random; what is signed
	Value     []byte `json:"value,omitempty"`     // as in a JWS: r || s for ECDSA
}

func (p Proof) validate() error {
	switch p.Kind {
	case ProofSignature, ProofMAC:
	case ProofDecryption, ProofAgreement:
		if p.Algorithm != "" || len(p.Challenge) > 0 || len(p.Value) > 0 {
			return fmt.Errorf("a proof by %s has no algorithm, challenge or value", p.Kind)
		}
		return nil
	default:
		return fmt.Errorf("%.20q is not a kind of proof", p.Kind)
	}
	switch p.Kind + " " + p.Algorithm {
	case "signature RS256", "signature PS256", "signature ES256", "signature ES384", "signature ES512", "signature EdDSA":
	case "mac AES-CMAC", "mac HS256", "mac HS384", "mac HS512":
	default:
		return fmt.Errorf("%.20q is not an algorithm for a proof by %s", p.Algorithm, p.Kind)
	}
	if n := len(p.Challenge); n < MinChallenge || n > MaxChallenge {
		return fmt.Errorf("the challenge has %d bytes; allowed are %d to %d", n, MinChallenge, MaxChallenge)
	}
	if n := len(p.Value); n == 0 || n > MaxProof {
		return fmt.Errorf("the value has %d bytes; allowed are 1 to %d", n, MaxProof)
	}
	return nil
}

// Verify verifies a proof by signature with the key's public key, SubjectPublicKeyInfo in DER, as it is in [Key].Public.
// It fails for every other kind of proof.
func (p Proof) Verify(public []byte) error {
	if err := p.validate(); err != nil {
		return fail(ErrContent, "the proof: %w", err)
	}
	if p.Kind != ProofSignature {
		return fail(ErrContent, "a proof by %s cannot be verified here: only the receiver's token could", p.Kind)
	}
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return fail(ErrContent, "the public key to verify the proof with: %w", err)
	}
	if err := p.verifySignature(key); err != nil {
		return fail(ErrSignature, "the proof's %s signature does not fit the key: %w", p.Algorithm, err)
	}
	return nil
}

func (p Proof) verifySignature(public any) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		switch p.Algorithm {
		case "RS256":
			return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest(crypto.SHA256, p.Challenge), p.Value)
		case "PS256":
			return rsa.VerifyPSS(key, crypto.SHA256, digest(crypto.SHA256, p.Challenge), p.Value,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	case *ecdsa.PublicKey:
		if alg, hash := ecdsaAlgorithm(key.Curve); alg == p.Algorithm {
			return verifyRaw(key, digest(hash, p.Challenge), p.Value)
		}
	case ed25519.PublicKey:
		if p.Algorithm == "EdDSA" {
			return ed25519.VerifyWithOptions(key, p.Challenge, p.Value, &ed25519.Options{})
		}
	}
	return fmt.Errorf("it cannot be by a %T", public)
}

// ecdsaAlgorithm returns the one algorithm that RFC 7518 section 3.4 has for a curve.
func ecdsaAlgorithm(c elliptic.Curve) (string, crypto.Hash) {
	switch c {
	case elliptic.P256():
		return "ES256", crypto.SHA256
	case elliptic.P384():
		return "ES384", crypto.SHA384
	case elliptic.P521():
		return "ES512", crypto.SHA512
	}
	return "", 0
}

func digest(h crypto.Hash, message []byte) []byte {
	d := h.New()
	d.Write(message)
	return d.Sum(nil)
}
