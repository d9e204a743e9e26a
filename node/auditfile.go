package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// An exported audit trail is lines of JSON (cluster/AUDIT.md): a header; the entries, each signature after
// the entry that it is under; and the end, signed by the node that exported.

const auditFileFormat = "keyferry-audit-1"

// ParseMoment reads a day or an RFC 3339 time, as a filter of the audit trail has it; the zero time when s is
// empty. As an end, a day is its last moment.
func ParseMoment(s string, end bool) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		if end {
			day = day.AddDate(0, 0, 1).Add(-1)
		}
		return day, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%q is neither a day like 2026-03-01 nor a time like 2026-03-01T12:00:00Z", s)
	}
	return t, nil
}

// An auditLine is one line: exactly one of its fields is set.
type auditLine struct {
	Header    *auditHeader   `json:"header,omitempty"`
	Entry     *cluster.Entry `json:"entry,omitempty"`
	Signature string         `json:"signature,omitempty"` // JWS
	End       string         `json:"end,omitempty"`       // JWS
}

type auditHeader struct {
	Format  string        `json:"format"`
	Cluster string        `json:"cluster"` // id
	Name    string        `json:"name"`
	Owner   []byte        `json:"owner"`            // owner certificate, DER
	Others  [][]byte      `json:"others,omitempty"` // owners before it, who vouch for some of the signers
	Signers []AuditSigner `json:"signers"`          // whose signatures may follow
	First   uint64        `json:"first"`            // number of the first entry; 0: there is none
	Before  string        `json:"before"`           // hash before the first entry
}

// AuditSigner is an identity that signs trails.
type AuditSigner struct {
	Node     string `json:"node"`
	Identity []byte `json:"identity"` // certificate, DER
}

// encodeLine gives the one form of a line, with its newline.
func encodeLine(l auditLine) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(l)
	return b.Bytes(), err
}

// lineWriter writes lines and hashes what it wrote.
type lineWriter struct {
	to  io.Writer
	sum hash.Hash
}

func (w *lineWriter) write(l auditLine) error {
	b, err := encodeLine(l)
	if err != nil {
		return err
	}
	w.sum.Write(b)
	_, err = w.to.Write(b)
	return err
}

// Export writes the entries from since to until (zero: no bound) and the signatures under them. It is an
// act, recorded in the trail that it exports. to is flushed by the caller.
func (t *Trail) Export(ctx context.Context, actor cluster.Actor, to io.Writer, since, until time.Time) error {
	pik, err := t.m.Identity.signer()
	if err != nil {
		return refusal{err}
	}
	act := act{actor: actor, permission: cluster.MayExportAudit, name: "audit.export", object: "cluster/" + t.m.State().Cluster.ID, detail: rangeWords(since, until)}
	return t.m.acts.doLocally(ctx, act, func() error {
		s := t.m.State()
		err := writeTrail(ctx, to, s, between(s.Audit, since, until), t.m.Name(), t.m.Identity.certificate(), pik)
		if err != nil {
			err = fmt.Errorf("the audit trail was not exported: %w", err)
		}
		return err
	})
}

func rangeWords(since, until time.Time) string {
	var words []string
	if !since.IsZero() {
		words = append(words, "from "+since.UTC().Format(time.RFC3339))
	}
	if !until.IsZero() {
		words = append(words, "until "+until.UTC().Format(time.RFC3339))
	}
	return strings.Join(words, " ")
}

// between cuts the trail from the first entry that is not before since to the last that is not after
// until. It leaves nothing out in between, whatever the clocks of the leaders said.
func between(audit []cluster.Entry, since, until time.Time) []cluster.Entry {
	from := slices.IndexFunc(audit, func(e cluster.Entry) bool { return !e.Time.Before(since) })
	if from < 0 {
		return nil
	}
	to := len(audit)
	for !until.IsZero() && to > from && audit[to-1].Time.After(until) {
		to--
	}
	return audit[from:to]
}

// writeTrail writes entries, which are a part of the trail of s, and signs them in the name of a node with the identity
// certificate pic, which is under the owner of s.
func writeTrail(ctx context.Context, to io.Writer, s *cluster.State, entries []cluster.Entry, node string, pic []byte, signer crypto.Signer) error {
	w := &lineWriter{to: to, sum: sha256.New()}
	end := syncpkg.AuditEnd{Cluster: s.Cluster.ID, Node: node, Hash: s.AuditBase}
	h := auditHeader{Format: auditFileFormat, Cluster: s.Cluster.ID, Name: s.Cluster.Name, Owner: s.Cluster.Owner, Others: s.Cluster.Former, Signers: signersOf(s, AuditSigner{node, pic}), Before: s.AuditBase}
	if len(entries) > 0 {
		last := entries[len(entries)-1]
		h.First, end.First, end.Last, end.Hash = entries[0].Seq, entries[0].Seq, last.Seq, last.Hash
		if before, ok := s.EntryAt(h.First - 1); ok {
			h.Before = before.Hash
		}
	}
	if err := w.write(auditLine{Header: &h}); err != nil {
		return err
	}
	under := map[uint64][]string{}
	for _, c := range s.Checkpoints {
		if e, ok := s.EntryAt(c.Seq); ok && e.Hash == c.Hash {
			under[c.Seq] = append(under[c.Seq], c.Statement)
		}
	}
	for i := range entries {
		lines := []auditLine{{Entry: &entries[i]}}
		for _, jws := range under[entries[i].Seq] {
			end.Checkpoints++
			lines = append(lines, auditLine{Signature: jws})
		}
		for _, l := range lines {
			if err := errors.Join(ctx.Err(), w.write(l)); err != nil {
				return err
			}
		}
	}
	end.Time, end.SHA256 = time.Now(), hex.EncodeToString(w.sum.Sum(nil))
	jws, err := syncpkg.SignAuditEnd(end, signer)
	if err != nil {
		return err
	}
	return w.write(auditLine{End: jws})
}

// signersOf lists the identities behind the signatures of s, and last the one that exports.
func signersOf(s *cluster.State, exporter AuditSigner) []AuditSigner {
	var list []AuditSigner
	for _, signer := range s.Signers {
		if !bytes.Equal(signer.Identity, exporter.Identity) {
			list = append(list, AuditSigner{signer.Node, signer.Identity})
		}
	}
	slices.SortFunc(list, func(a, b AuditSigner) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), bytes.Compare(a.Identity, b.Identity))
	})
	return append(list, exporter)
}
