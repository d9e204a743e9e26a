package syncpkg

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// AuditCheckpoint is a node's word on the audit trail as it has it: the entry Seq has the hash Hash, and with it every
// entry before (cluster/AUDIT.md). Signed by the identity key of that node.
type AuditCheckpoint struct {
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`
	Seq     uint64    `json:"seq"`
	Hash    string    `json:"hash"`
	Time    time.Time `json:"time"` // UTC, whole seconds
}

// AuditEnd closes an exported audit trail, so that a file without it, or with other lines before it, shows. Signed by
// the identity key of the node that exported.
type AuditEnd struct {
	Cluster     string    `json:"cluster"`
	Node        string    `json:"node"`
	First       uint64    `json:"first"`       // number of the first entry in the file; 0: there is none
	Last        uint64    `json:"last"`        // and of the last
	Checkpoints int       `json:"checkpoints"` // how many are in the file
	Hash        string    `json:"hash"`        // of the entry Last
	SHA256      string    `json:"sha256"`      // of all lines before this one, with their newlines
	Time        time.Time `json:"time"`        // UTC, whole seconds
}

var (
	checkpointKind = statementKind{"the signature under the audit trail", typeAuditCheckpoint, MaxAuditStatement}
	auditEndKind   = statementKind{"the end of the audit trail", typeAuditEnd, MaxAuditStatement}
)

// SignAuditCheckpoint returns c as a compact JWS, with its time cut to a whole second.
func SignAuditCheckpoint(c AuditCheckpoint, signer crypto.Signer) (string, error) {
	c.Time = wholeSecond(c.Time)
	return signStatement(checkpointKind, &c, signer)
}

// VerifyAuditCheckpoint returns what is in jws if a trusted node signed it for itself. Whether the trail has that hash
// is for the caller to see.
func VerifyAuditCheckpoint(jws string, trust Trust) (AuditCheckpoint, error) {
	var c AuditCheckpoint
	if err := verifyStatement(checkpointKind, jws, &c, trust); err != nil {
		return AuditCheckpoint{}, err
	}
	return c, nil
}

// SignAuditEnd returns e as a compact JWS, with its time cut to a whole second.
func SignAuditEnd(e AuditEnd, signer crypto.Signer) (string, error) {
	e.Time = wholeSecond(e.Time)
	return signStatement(auditEndKind, &e, signer)
}

// VerifyAuditEnd returns what is in jws if a trusted node signed it for itself.
func VerifyAuditEnd(jws string, trust Trust) (AuditEnd, error) {
	var e AuditEnd
	if err := verifyStatement(auditEndKind, jws, &e, trust); err != nil {
		return AuditEnd{}, err
	}
	return e, nil
}

func (c *AuditCheckpoint) validate() error {
	if c.Seq == 0 {
		return errors.New("seq is 0, and entries are counted from 1")
	}
	return validateAudit(c.Cluster, c.Node, c.Hash, c.Time)
}

func (e *AuditEnd) validate() error {
	if e.Last < e.First || (e.First == 0) != (e.Last == 0) || e.Checkpoints < 0 {
		return fmt.Errorf("it is about %d signatures under the entries %d to %d", e.Checkpoints, e.First, e.Last)
	}
	if err := checkHex(e.SHA256, sha256.Size); err != nil {
		return fmt.Errorf("sha256 %w", err)
	}
	return validateAudit(e.Cluster, e.Node, e.Hash, e.Time)
}

func validateAudit(cluster, node, hash string, at time.Time) error {
	for _, c := range []struct {
		field string
		err   error
	}{
		{"cluster", checkName(cluster, MaxCluster)},
		{"node", checkNode(node)},
		{"hash", checkHex(hash, sha256.Size)},
		{"time", checkTime(at)},
	} {
		if c.err != nil {
			return fmt.Errorf("%s %w", c.field, c.err)
		}
	}
	return nil
}
