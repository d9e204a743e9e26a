package syncpkg

import (
	"crypto"
	"fmt"
)

// statement is what a node signs with its identity key in a compact JWS with the payload inside (RFC 7515 section 7.1).
// The payload is one line of JSON.
type statement interface {
	signer() (cluster, node string)
	validate() error // of the kind ErrContent where it has no kind
}

// statementKind tells one kind of statement from another.
type statementKind struct {
	name string // for messages
	typ  string // JWS type
	max  int    // bytes of the JWS
}

func signStatement(kind statementKind, s statement, signer crypto.Signer) (string, error) {
	if err := s.validate(); err != nil {
		return "", fail(kindOf(err, ErrContent), "%s: %w", kind.name, err)
	}
	payload, err := encodeJSON(s, "")
	if err != nil {
		return "", err
	}
	protected, value, err := sign(signer, kind.typ, payload)
	if err != nil {
		return "", fmt.Errorf("%s: %w", kind.name, err)
	}
	jws := protected + "." + encodeBase64(payload) + "." + value
	if len(jws) > kind.max {
		return "", fail(ErrTooLarge, "%s has %d bytes, more than the %d allowed", kind.name, len(jws), kind.max)
	}
	return jws, nil
}

// verifyStatement decodes jws into s, a pointer, after the pattern of Open: size, form, trust, signature, rules. On an
// error s must not be used.
func verifyStatement(kind statementKind, jws string, s statement, trust Trust) error {
	if jws == "" {
		return fail(ErrMalformed, "%s: it is empty", kind.name)
	}
	if len(jws) > kind.max {
		return fail(ErrTooLarge, "%s has %d bytes, more than the %d allowed", kind.name, len(jws), kind.max)
	}
	protected, encoded, value, err := splitCompact(jws)
	if err != nil {
		return fmt.Errorf("%s: %w", kind.name, err)
	}
	sig, err := parseSignature(protected, value, kind.typ)
	if err != nil {
		return fmt.Errorf("%s: %w", kind.name, err)
	}
	payload, err := decodeBase64(encoded)
	if err != nil {
		return fail(ErrMalformed, "%s: its payload is not base64url: %w", kind.name, err)
	}
	if err := decodeJSON(payload, s, ""); err != nil {
		return fail(ErrMalformed, "%s: %w", kind.name, err)
	}
	cluster, node := s.signer()
	key, err := trust.key(cluster, node, sig.keyID)
	if err != nil {
		return fail(ErrUntrusted, "%s is by %.80q, which is not trusted here: %w", kind.name, node, err)
	}
	if err := sig.verify(key, payload); err != nil {
		return fmt.Errorf("%s by %.80q: %w", kind.name, node, err)
	}
	if err := s.validate(); err != nil {
		return fail(kindOf(err, ErrContent), "%s by %.80q: %w", kind.name, node, err)
	}
	return nil
}
