package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"
)

// The audit trail is a hash chain: each entry's Hash covers the entry and the Hash before it, the first
// one the cluster's id. AUDIT.md describes the bytes, so that other programs can compute them.

// chainFormat is the first field of all that is hashed here: nothing else has the same bytes.
const chainFormat = "keyferry-audit-1"

// ChainStart is what stands for the hash before the first entry of a cluster's trail.
func ChainStart(cluster string) string { return chainHash("start", cluster) }

// Chained computes the Hash of e after an entry with the hash prev. It does not look at e.Hash.
func (e Entry) Chained(prev string) string {
	return chainHash("entry", prev, strconv.FormatUint(e.Seq, 10), e.Time.UTC().Format(time.RFC3339Nano), e.Node,
		e.Actor.Kind, e.Actor.Name, e.Act, e.Object, e.Result, e.Detail, e.ActID, e.Alert)
}

// chainHash is the SHA-256 of the fields, each preceded by its length as four bytes, big-endian, so that
// no two lists of fields are the same bytes.
func chainHash(fields ...string) string {
	b := make([]byte, 0, 512)
	for _, f := range append([]string{chainFormat}, fields...) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
		b = append(b, f...)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// EntryAt finds an entry of the trail by its number.
func (s *State) EntryAt(seq uint64) (Entry, bool) {
	if len(s.Audit) == 0 || seq < s.Audit[0].Seq || seq > lastSeq(s) {
		return Entry{}, false
	}
	return s.Audit[seq-s.Audit[0].Seq], true
}

// Checkpoint is a node's signature under the trail as it has it: whoever changes an entry up to Seq, or
// leaves one out, contradicts it. It is not an entry itself, or each would call for the next.
type Checkpoint struct {
	Node      string    `json:"node"`
	Seq       uint64    `json:"seq"`
	Hash      string    `json:"hash"` // of the entry Seq
	Time      time.Time `json:"time"`
	Signer    string    `json:"signer"`    // CertificateHash of the identity that signed: in Signers
	Statement string    `json:"statement"` // JWS
}

// Signer is an identity that signed a checkpoint. The node may have another one by now, or another certificate
// for the same key, or be gone.
type Signer struct {
	Node     string `json:"node"`
	Identity []byte `json:"identity"` // certificate (PIC), DER
}

// SignAudit is a node's signature under the trail. It carries the statement unread: whoever relies on it
// verifies it. What counts here is that it agrees with the trail.
type SignAudit struct {
	Seq       uint64 `json:"seq"`
	Hash      string `json:"hash"`
	Signer    string `json:"signer"` // CertificateHash of the identity that signed
	Statement string `json:"statement"`
}

func (c *SignAudit) Kind() string { return "audit.sign" }
func (c *SignAudit) describe() (string, string) {
	return "entry/" + strconv.FormatUint(c.Seq, 10), ""
}

func (c *SignAudit) validate() error {
	if c.Statement == "" || len(c.Statement) > maxCheckpoint {
		return errorf(Invalid, "the signature under the audit trail has %d bytes; 1 to %d are allowed", len(c.Statement), maxCheckpoint)
	}
	return check(checkHash("hash", c.Hash), checkHash("hash of the identity certificate", c.Signer), checkBlob("signature", c.Statement, maxCheckpoint))
}

func (c *SignAudit) apply(s *State, m Meta) error {
	e, ok := s.EntryAt(c.Seq)
	if !ok {
		return errorf(NotFound, "the audit trail has no entry %d (any more)", c.Seq)
	}
	if e.Hash != c.Hash {
		return errorf(Conflict, "node %q signed another audit trail than the cluster's: they differ at entry %d or before", m.Node, c.Seq)
	}
	for _, other := range s.Checkpoints {
		if other.Node == m.Node && other.Seq >= c.Seq {
			return errorf(Conflict, "node %q has signed the audit trail up to entry %d already", m.Node, other.Seq)
		}
	}
	node := s.Nodes[m.Node]
	if c.Signer != CertificateHash(node.Identity) {
		return errorf(Conflict, "node %q has signed with another identity than it has now: it signs again", m.Node)
	}
	if len(s.Checkpoints) >= maxCheckpoints {
		s.thinCheckpoints()
	}
	s.Checkpoints = append(s.Checkpoints, Checkpoint{Node: m.Node, Seq: c.Seq, Hash: c.Hash, Time: m.Time, Signer: CertificateHash(node.Identity), Statement: c.Statement})
	if hash := CertificateHash(node.Identity); s.Signers[hash].Node == "" {
		s.Signers = with(s.Signers, hash, Signer{Node: m.Node, Identity: node.Identity})
	}
	return nil
}

// thinCheckpoints makes room: first goes what no kept entry needs, then every second one of the older
// half. A later signature covers all that an earlier one did; what is lost is that it was so by then. Each
// node's newest stays.
func (s *State) thinCheckpoints() {
	newest := make(map[string]uint64, len(s.Nodes))
	for _, c := range s.Checkpoints {
		newest[c.Node] = max(newest[c.Node], c.Seq)
	}
	first := uint64(0)
	if len(s.Audit) > 0 {
		first = s.Audit[0].Seq
	}
	kept := make([]Checkpoint, 0, maxCheckpoints)
	for i, c := range s.Checkpoints {
		dispensable := c.Seq < first || i < maxCheckpoints/2 && i%2 == 1
		if !dispensable || c.Seq == newest[c.Node] {
			kept = append(kept, c)
		}
	}
	signers := make(map[string]Signer, len(s.Signers))
	for _, c := range kept {
		signers[c.Signer] = s.Signers[c.Signer]
	}
	s.Checkpoints, s.Signers = kept, signers
}
