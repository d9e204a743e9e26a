package syncpkg

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The JWS types (RFC 7515 section 4.1.9), one for each kind of thing that an identity key signs, so that none can
// be taken for another (RFC 8725 section 3.11).
const (
	typePackage         = "keyferry-sync-package"
	typeReceiverKeys    = "keyferry-receiver-keys"
	typeReceipt         = "keyferry-sync-receipt"
	typeAuditCheckpoint = "keyferry-audit-checkpoint"
	typeAuditEnd        = "keyferry-audit-end"
	typeWebhook         = "keyferry-webhook"
)

const (
	p521Scalar    = 66             // bytes of r and of s in an ES512 signature (RFC 7518 section 3.4)
	signatureSize = 2 * p521Scalar // bytes
)

// signature is the parsed outside of a JWS: what it claims, not yet whether that is so.
type signature struct {
	protected string // base64url, as signed
	keyID     string // RFC 7638 thumbprint of the signer's key
	value     []byte // r || s
}

// protectedHeader gives the only protected header that this format has for a type and a key.
func protectedHeader(typ, keyID string) string {
	return `{"alg":"ES512","kid":"` + keyID + `","typ":"` + typ + `"}`
}

// parseSignature reads the first and last part of a compact JWS. Every other protected header than the one of
// protectedHeader is refused, and with it every other algorithm.
func parseSignature(protected, value, typ string) (*signature, error) {
	raw, err := decodeBase64(protected)
	if err != nil {
		return nil, fail(ErrMalformed, "the signature's header is not base64url: %w", err)
	}
	var header struct{ Alg, Kid, Typ string }
	if err := json.Unmarshal(raw, &header); err != nil {
		return nil, fail(ErrMalformed, "the signature's header is not JSON: %.200v", err)
	}
	if header.Alg != "ES512" {
		return nil, fail(ErrSignature, "the signature uses the algorithm %.20q, and only ES512 is accepted",
			header.Alg)
	}
	if header.Typ != typ {
		return nil, fail(ErrSignature, "the signature is for a %.40q, and a %q was expected", header.Typ, typ)
	}
	if id, err := decodeBase64(header.Kid); err != nil || len(id) != sha256.Size {
		return nil, fail(ErrMalformed, "the signature's key id is not an RFC 7638 SHA-256 thumbprint")
	}
	if string(raw) != protectedHeader(typ, header.Kid) {
		return nil, fail(ErrMalformed, "the signature's header is not in the one form this format allows")
	}
	rs, err := decodeBase64(value)
	if err != nil || len(rs) != signatureSize {
		return nil, fail(ErrMalformed, "the signature is not %d bytes of base64url", signatureSize)
	}
	return &signature{protected: protected, keyID: header.Kid, value: rs}, nil
}

// verify checks that key is the key that the signature names, and that it made it over payload.
func (s *signature) verify(key *ecdsa.PublicKey, payload []byte) error {
	id, err := Thumbprint(key)
	if err != nil {
		return fail(ErrUntrusted, "the key to verify with: %w", err)
	}
	if id != s.keyID {
		return fail(ErrUntrusted, "signed with key %s, but the signer is known by key %s: "+
			"if it has a new identity key, make that one known first", s.keyID, id)
	}
	r := new(big.Int).SetBytes(s.value[:p521Scalar])
	t := new(big.Int).SetBytes(s.value[p521Scalar:])
	if !ecdsa.Verify(key, signingDigest(s.protected, payload), r, t) {
		return fail(ErrSignature, "the signature by key %s does not fit: what was signed has been changed", s.keyID)
	}
	return nil
}

// signingDigest returns the digest that ES512 signs (RFC 7515 section 5.1).
func signingDigest(protected string, payload []byte) []byte {
	h := sha512.New()
	h.Write([]byte(protected + "."))
	h.Write([]byte(encodeBase64(payload)))
	return h.Sum(nil)
}

// sign makes the first and last part of a compact JWS over payload.
func sign(signer crypto.Signer, typ string, payload []byte) (protected, value string, err error) {
	key, ok := signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return "", "", fmt.Errorf("the identity key must be an EC key on P-521, and it is a %T", signer.Public())
	}
	keyID, err := Thumbprint(key)
	if err != nil {
		return "", "", fmt.Errorf("the identity key: %w", err)
	}
	protected = encodeBase64([]byte(protectedHeader(typ, keyID)))
	der, err := signer.Sign(rand.Reader, signingDigest(protected, payload), crypto.SHA512)
	if err != nil {
		return "", "", fmt.Errorf("the identity key could not sign: %w", err)
	}
	rs, err := rawSignature(der)
	if err != nil {
		return "", "", fmt.Errorf("the identity key's module returned something else than a P-521 signature: %w", err)
	}
	s := signature{protected: protected, keyID: keyID, value: rs}
	if err := s.verify(key, payload); err != nil {
		return "", "", fmt.Errorf("the identity key's module returned a wrong signature: %w", err)
	}
	return protected, encodeBase64(rs), nil
}

// rawSignature turns the DER of a crypto.Signer into r || s (RFC 7518 section 3.4).
func rawSignature(der []byte) ([]byte, error) {
	var s struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &s)
	if err != nil {
		return nil, err
	}
	order := elliptic.P521().Params().N
	if len(rest) > 0 || s.R.Sign() <= 0 || s.S.Sign() <= 0 || s.R.Cmp(order) >= 0 || s.S.Cmp(order) >= 0 {
		return nil, errors.New("r or s is out of range")
	}
	raw := make([]byte, signatureSize)
	s.R.FillBytes(raw[:p521Scalar])
	s.S.FillBytes(raw[p521Scalar:])
	return raw, nil
}

// Thumbprint returns the RFC 7638 SHA-256 thumbprint of an identity key in base64url: the key id (kid) of its
// signatures. The key must be on P-521.
func Thumbprint(key *ecdsa.PublicKey) (string, error) {
	if key == nil || key.Curve != elliptic.P521() {
		return "", errors.New("not an EC key on P-521")
	}
	point, err := key.Bytes()
	if err != nil {
		return "", err
	}
	x, y := point[1:1+p521Scalar], point[1+p521Scalar:]
	jwk := fmt.Sprintf(`{"crv":"P-521","kty":"EC","x":"%s","y":"%s"}`,
		encodeBase64(x), encodeBase64(y))
	sum := sha256.Sum256([]byte(jwk))
	return encodeBase64(sum[:]), nil
}

// splitCompact splits a compact JWS into its three parts.
func splitCompact(jws string) (protected, payload, value string, err error) {
	parts := strings.SplitN(jws, ".", 4)
	if len(parts) != 3 {
		return "", "", "", fail(ErrMalformed, "not a compact JWS, which has three parts separated by dots")
	}
	return parts[0], parts[1], parts[2], nil
}
