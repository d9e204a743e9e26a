package hsm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
)

// VerifyProof checks the proof of a private key: a signature over challenge that public (SPKI, DER)
// verifies. ECDSA and RSA (PKCS #1 v1.5) sign its SHA-256 digest, Ed25519 the challenge itself; ECDSA
// signatures are r||s, as PKCS#11 gives them.
func VerifyProof(public, challenge, proof []byte) error {
	failed := &Error{Code: NotProved, Detail: "its signature does not verify with the promised public key"}
	parsed, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return &Error{Code: NotProved, Detail: err.Error()}
	}
	digest := sha256.Sum256(challenge)
	switch key := parsed.(type) {
	case *ecdsa.PublicKey:
		half := len(proof) / 2
		if half == 0 || len(proof) != 2*half || !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(proof[:half]), new(big.Int).SetBytes(proof[half:])) {
			return failed
		}
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], proof) != nil {
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

// ProofInput says what a key signs as its proof.
func ProofInput(keyType string, challenge []byte) (Mechanism, []byte, error) {
	digest := sha256.Sum256(challenge)
	switch keyType {
	case "EC":
		return ECDSA, digest[:], nil
	case "RSA":
		_, info, err := rsaMechanism(digest[:], crypto.SHA256)
		return RSAPKCS1, info, err
	case "Ed25519":
		return EdDSA, challenge, nil
	}
	return "", nil, &Error{Code: Unsupported, Detail: "proof of a key of type " + keyType}
}
