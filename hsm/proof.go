package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // crypto.SHA256
	_ "crypto/sha512" // crypto.SHA384 and crypto.SHA512
	"crypto/x509"
	"fmt"
	"math/big"
)

// VerifyProof checks the proof of a private key: a signature over challenge that public (SPKI, DER)
// verifies. Signatures are those of JWS (RFC 7518, RFC 8037), so that a receipt with them can be checked
// with public tools: ES256, ES384 or ES512 by the curve (r||s, which is also how PKCS#11 gives them),
// RS256, EdDSA.
func VerifyProof(public, challenge, proof []byte) error {
	failed := &Error{Code: NotProved, Detail: "its signature does not verify with the promised public key"}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return &Error{Code: NotProved, Detail: err.Error()}
	}
	switch key := parsed.(type) {
	case *ecdsa.PublicKey:
		half := len(proof) / 2
		if half == 0 || len(proof) != 2*half ||
			!ecdsa.Verify(key, digest(key.Params().Name, challenge), new(big.Int).SetBytes(proof[:half]), new(big.Int).SetBytes(proof[half:])) {
			return failed
		}
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest("", challenge), proof) != nil {
			return failed
		}
	case ed25519.PublicKey:
		if !ed25519.Verify(key, challenge, proof) {
			return failed
		}
	default:
		return &Error{Code: NotProved, Detail: fmt.Sprintf("no proof with %T", parsed)}
	}
	return nil
}

// digest hashes a challenge as the JWS algorithm for a curve does; RSA uses SHA-256.
func digest(curve string, challenge []byte) []byte {
	hash := crypto.SHA256
	switch curve {
	case "P-384":
		hash = crypto.SHA384
	case "P-521":
		hash = crypto.SHA512
	}
	h := hash.New()
	h.Write(challenge)
	return h.Sum(nil)
}

// ProofInput says what a key signs as its proof, and how.
func ProofInput(key Key, challenge []byte) (Mechanism, []byte, error) {
	switch key.Type {
	case "EC":
		return ECDSA, digest(key.Curve, challenge), nil
	case "RSA":
		_, info, err := rsaMechanism(digest("", challenge), crypto.SHA256)
		return RSAPKCS1, info, err
	case "Ed25519":
		return EdDSA, challenge, nil
	}
	return "", nil, &Error{Code: Unsupported, Detail: "proof of a key of type " + key.Type}
}

// Prove lets a key that is on the token sign a challenge, as an import does.
func (t *Token) Prove(key Key, challenge []byte) ([]byte, error) {
	mechanism, data, err := ProofInput(key, challenge)
	if err != nil {
		return nil, err
	}
	proof, err := t.sign(key.Ref, mechanism, data)
	if err != nil {
		return nil, err
	}
	return proof, VerifyProof(key.Public, challenge, proof)
}
