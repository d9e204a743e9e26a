package syncpkg

import (
	"crypto"
	"encoding/json"
	"fmt"
)

// statement is what a node signs with its identity key in a compact JWS with the payload inside (RFC 7515 section 7.1).
// The payload is one line of JSON.
type statement interface {
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

// verifyStatement decodes jws into s, a pointer to a zero value, after the pattern of Open: size, form, trust,
// signature, rules. On an error s must not be used.
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
	if err := verifyClaim(sig, payload, trust); err != nil {
		return fmt.Errorf("%s: %w", kind.name, err)
	}
	if err := decodeJSON(payload, s, ""); err != nil {
		return fail(kindOf(err, ErrContent), "%s: %w", kind.name, err)
	}
	if err := s.validate(); err != nil {
		return fail(kindOf(err, ErrContent), "%s: %w", kind.name, err)
	}
	return nil
}

// verifyClaim looks for the node that payload says it is from, and for nothing else before the signature is verified. A
// payload that names two nodes gets no further than decodeJSON.
func verifyClaim(sig *signature, payload []byte, trust Trust) error {
	var claim struct{ Cluster, Node string }
	if err := json.Unmarshal(payload, &claim); err != nil {
		return fail(ErrMalformed, "its payload is not JSON: %.200v", err)
	}
	if err := checkName(claim.Cluster, MaxCluster); err != nil {
		return fail(ErrMalformed, "its cluster %w", err)
	}
	if err := checkNode(claim.Node); err != nil {
		return fail(ErrMalformed, "its node %w", err)
	}
	key, err := trust.key(claim.Cluster, claim.Node, sig.keyID)
	if err != nil {
		return fail(ErrUntrusted, "it is from %s, which is not trusted here: %w", claim.Node, err)
	}
	if err := sig.verify(key, payload); err != nil {
		return fmt.Errorf("from %s: %w", claim.Node, err)
	}
	return nil
}
