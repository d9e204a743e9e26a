package syncpkg

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Receipt is what became of a package on a node. Signed by the identity key of that node.
type Receipt struct {
	Cluster string      `json:"cluster"`
	Package string      `json:"package"` // Header.ID
	SHA256  string      `json:"sha256"`  // Head.Digest
	Node    string      `json:"node"`    // the node that received the package and signs
	Slot    string      `json:"slot"`
	Time    time.Time   `json:"time"` // UTC, whole seconds: when the import ended
	Keys    []KeyResult `json:"keys"` // no two of the same fingerprint
}

// Result is what became of one key.
type Result string

const (
	Imported     Result = "imported"      // it was made on the token; Proof is there
	AlreadyThere Result = "already there" // the token had it before; Proof may be there
	Conflict     Result = "conflict"      // another key has its id or label; nothing was changed; Error says which
	Failed       Result = "failed"        // it is not on the token; Error says why
)

// KeyResult is the line of one key in a receipt.
type KeyResult struct {
	Fingerprint string `json:"fingerprint"` // Key.Fingerprint
	ID          string `json:"id"`          // CKA_ID, lower-case hexadecimal
	Label       string `json:"label"`       // what the key is called: CKA_LABEL, or its certificate's where it has none
	Result      Result `json:"result"`
	Proof       *Proof `json:"proof,omitempty"`
	Error       string `json:"error,omitempty"` // for people
}

// Proof is how the receiver's token showed that it has the key.
type Proof struct {
	Kind      string `json:"kind"`                // ProofSignature or ProofMAC
	Final     bool   `json:"final"`               // by the object as it is; false: before its usage was cut
	Challenge []byte `json:"challenge,omitempty"` // random, MinChallenge to MaxChallenge bytes; none for a MAC
	Value     []byte `json:"value"`
}

// The kinds of proof.
const (
	// ProofSignature is for private keys: Value is a signature of Challenge by the algorithm that JWS has for the key:
	// RS256, ES256, ES384 or ES512 by the curve (r || s), EdDSA (RFC 7518, RFC 8037). Anybody can verify it.
	ProofSignature = "signature"
	// ProofMAC is for secret keys: Value is the check value, computed again (Key.Check).
	ProofMAC = "mac"
)

var receiptKind = statementKind{"the receipt", typeReceipt, MaxReceipt}

// SignReceipt returns r as a compact JWS signed by the receiving node's identity key, with its time cut to a whole
// second.
func SignReceipt(r Receipt, signer crypto.Signer) (string, error) {
	r.Time = wholeSecond(r.Time)
	return signStatement(receiptKind, &r, signer)
}

// VerifyReceipt returns the receipt in jws if a trusted node signed it for itself. Trust is asked for the node that the
// receipt names. A receipt is a record and does not expire. Whether it is about a certain package is for the caller
// to see (Package and SHA256), and so are the proofs in it.
func VerifyReceipt(jws string, trust Trust) (Receipt, error) {
	var r Receipt
	if err := verifyStatement(receiptKind, jws, &r, trust); err != nil {
		return Receipt{}, err
	}
	return r, nil
}

func (r *Receipt) validate() error {
	checks := []struct {
		field string
		err   error
	}{
		{"cluster", checkName(r.Cluster, MaxCluster)},
		{"package", checkHex(r.Package, 16)},
		{"sha256", checkHex(r.SHA256, sha256.Size)},
		{"node", checkNode(r.Node)},
		{"slot", checkName(r.Slot, MaxSlot)},
		{"time", checkTime(r.Time)},
	}
	for _, c := range checks {
		if c.err != nil {
			return fmt.Errorf("%s %w", c.field, c.err)
		}
	}
	if len(r.Keys) == 0 || len(r.Keys) > MaxKeys {
		return fmt.Errorf("it is about %d keys; allowed are 1 to %d", len(r.Keys), MaxKeys)
	}
	seen := make(map[string]bool, len(r.Keys))
	for i, k := range r.Keys {
		if err := k.validate(); err != nil {
			return fmt.Errorf("key %d (id %.40s, label %.80q): %w", i+1, k.ID, k.Label, err)
		}
		if seen[k.Fingerprint] {
			return fmt.Errorf("key %d is in it twice (fingerprint %s)", i+1, k.Fingerprint)
		}
		seen[k.Fingerprint] = true
	}
	return nil
}

func (k KeyResult) validate() error {
	if err := checkHex(k.Fingerprint, sha256.Size); err != nil {
		return fmt.Errorf("the fingerprint %w", err)
	}
	if err := (Key{ID: k.ID, Label: k.Label}).checkNames(); err != nil {
		return err
	}
	if err := checkText(k.Error, MaxReason); err != nil {
		return fmt.Errorf("the error %w", err)
	}
	if k.Proof != nil {
		if err := k.Proof.validate(); err != nil {
			return fmt.Errorf("the proof: %w", err)
		}
	}
	switch k.Result {
	case Imported:
		if k.Proof == nil || k.Error != "" {
			return errors.New("an imported key has a proof and no error")
		}
	case AlreadyThere:
		if k.Error != "" {
			return errors.New("a key that was already there has no error")
		}
	case Conflict, Failed:
		if k.Proof != nil || k.Error == "" {
			return errors.New("a key that was not imported has an error and no proof")
		}
	default:
		return fmt.Errorf("%.40q is not a result", k.Result)
	}
	return nil
}

func (p Proof) validate() error {
	switch p.Kind {
	case ProofSignature:
		if n := len(p.Challenge); n < MinChallenge || n > MaxChallenge {
			return fmt.Errorf("the challenge has %d bytes; allowed are %d to %d", n, MinChallenge, MaxChallenge)
		}
		if n := len(p.Value); n == 0 || n > MaxProof {
			return fmt.Errorf("the signature has %d bytes; allowed are 1 to %d", n, MaxProof)
		}
	case ProofMAC:
		if n := len(p.Value); len(p.Challenge) > 0 || n != cmacSize && n != hmacSize {
			return fmt.Errorf("a MAC has no challenge and a value of %d or %d bytes", cmacSize, hmacSize)
		}
	default:
		return fmt.Errorf("%.20q is not a kind of proof", p.Kind)
	}
	return nil
}
