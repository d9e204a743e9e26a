package syncpkg

import (
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
	"time"
)

// ReceiverKeys is what a node offers so that others can send it the keys of a slot. Signed by its identity key.
type ReceiverKeys struct {
	Cluster   string    `json:"cluster"`
	Node      string    `json:"node"` // the node that signs and will receive
	Slot      string    `json:"slot"`
	Scheme    string    `json:"scheme"`    // SchemeECDHP521
	Transport []byte    `json:"transport"` // public key in the slot's HSM: uncompressed P-521 point, 133 bytes
	Seal      SealKey   `json:"seal"`
	Created   time.Time `json:"created"`  // UTC, whole seconds
	NotAfter  time.Time `json:"notAfter"` // UTC, whole seconds; from this instant on it is refused
}

// SealKey is an HPKE public key.
type SealKey struct {
	KEM    uint16 `json:"kem"`    // KEMMLKEM1024P384 or KEMP521
	Public []byte `json:"public"` // SerializePublicKey of RFC 9180 section 4
}

// NewSealKey returns the serialized form of an HPKE public key.
func NewSealKey(key hpke.PublicKey) SealKey {
	return SealKey{KEM: key.KEM().ID(), Public: key.Bytes()}
}

// PublicKey returns the key for sealing. The error is of the kind ErrUnsupported or ErrContent.
func (k SealKey) PublicKey() (hpke.PublicKey, error) {
	if _, ok := sealSize(k.KEM); !ok {
		return nil, fail(ErrUnsupported, "the sealing key is for KEM %#04x, unknown to this Keyferry: update this node first",
			k.KEM)
	}
	kem, err := hpke.NewKEM(k.KEM)
	if err != nil {
		return nil, fail(ErrUnsupported, "the sealing key is for KEM %#04x: %w", k.KEM, err)
	}
	key, err := kem.NewPublicKey(k.Public)
	if err != nil {
		return nil, fail(ErrContent, "the sealing key is not a public key of KEM %#04x: %w", k.KEM, err)
	}
	return key, nil
}

// Recipient returns what Seal needs to know of the node.
func (r ReceiverKeys) Recipient() (Recipient, error) {
	key, err := r.Seal.PublicKey()
	if err != nil {
		return Recipient{}, err
	}
	return Recipient{Node: r.Node, Key: key}, nil
}

var receiverKeysKind = statementKind{"the receiver keys statement", typeReceiverKeys, MaxReceiverKeys}

// SignReceiverKeys returns rk as a compact JWS signed by the node's identity key, with the times cut to whole seconds.
func SignReceiverKeys(rk ReceiverKeys, signer crypto.Signer) (string, error) {
	rk.Created, rk.NotAfter = wholeSecond(rk.Created), wholeSecond(rk.NotAfter)
	return signStatement(receiverKeysKind, &rk, signer)
}

// VerifyReceiverKeys returns the statement in jws if a trusted node signed it for itself and now lies in its time.
// Trust is asked for the node that the statement names.
func VerifyReceiverKeys(jws string, trust Trust, now time.Time) (ReceiverKeys, error) {
	var rk ReceiverKeys
	if err := verifyStatement(receiverKeysKind, jws, &rk, trust); err != nil {
		return ReceiverKeys{}, err
	}
	what := fmt.Sprintf("the receiver keys statement of %s for slot %q", rk.Node, rk.Slot)
	if err := checkWindow(what, rk.Created, rk.NotAfter, now); err != nil {
		return ReceiverKeys{}, err
	}
	return rk, nil
}

func (r *ReceiverKeys) validate() error {
	checks := []struct {
		field string
		err   error
	}{
		{"cluster", checkName(r.Cluster, MaxCluster)},
		{"node", checkNode(r.Node)},
		{"slot", checkName(r.Slot, MaxSlot)},
		{"created", checkTime(r.Created)},
		{"notAfter", checkTime(r.NotAfter)},
		{"transport", checkPoint(r.Transport)},
	}
	for _, c := range checks {
		if c.err != nil {
			return fmt.Errorf("%s %w", c.field, c.err)
		}
	}
	if !r.NotAfter.After(r.Created) {
		return errors.New("it ends before it begins")
	}
	if r.Scheme != SchemeECDHP521 {
		return fail(ErrUnsupported, "the scheme %.80q is unknown to this Keyferry: update this node first", r.Scheme)
	}
	_, err := r.Seal.PublicKey()
	return err
}
