package node

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// AuditVerdict is what VerifyAudit found out about an exported audit trail.
type AuditVerdict struct {
	Cluster  string            `json:"cluster"` // id
	Name     string            `json:"name"`
	Owner    string            `json:"owner"`    // SHA-256 of the owner certificate that the signatures lead to, hexadecimal
	Anchored bool              `json:"anchored"` // it is the one that the auditor gave
	First    uint64            `json:"first"`
	Last     uint64            `json:"last"`
	Entries  int               `json:"entries"`
	Alerts   int               `json:"alerts"`
	Signed   []AuditSignatures `json:"signed"`   // one for each node
	Exporter string            `json:"exporter"` // node that signed the end
	Exported time.Time         `json:"exported,omitzero"`
	Findings []string          `json:"findings"` // what is wrong, and where; empty: nothing
	More     int               `json:"more"`     // findings beyond those listed
	Notes    []string          `json:"notes"`    // what is right and good to know
}

// AuditSignatures are those of one node that fit.
type AuditSignatures struct {
	Node  string    `json:"node"`
	Count int       `json:"count"`
	Last  uint64    `json:"last"` // entry under the newest
	Time  time.Time `json:"time"` // of the newest, as the node says
}

// Intact tells whether nothing is wrong with the trail. Who vouches for it is another question: Anchored.
func (v *AuditVerdict) Intact() bool { return len(v.Findings) == 0 }

const (
	maxAuditLine   = 1 << 20 // bytes; a header with the identities of 200 nodes has 300 kB, an entry 4
	maxFindings    = 50      // what one person reads; all others are counted
	maxAuditSigner = 1000    // identities in a header
	maxAuditOwner  = 100     // owners in a header
)

// VerifyAudit reads an exported audit trail to its end and says what is wrong with it, and where. It needs
// nothing but the file and, for trust, the owner certificate from elsewhere; without one the signatures
// are held against the one in the file, which proves nothing about who made it. The error is of reading.
func VerifyAudit(r io.Reader, owner *x509.Certificate) (*AuditVerdict, error) {
	v := &auditVerifier{lines: bufio.NewReaderSize(r, 64<<10), sum: sha256.New(), given: owner,
		AuditVerdict: AuditVerdict{Findings: []string{}, Notes: []string{}, Signed: []AuditSignatures{}}}
	v.chain.report = v.report
	for {
		text, err := v.readLine()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if !v.take(text) {
			break
		}
	}
	v.finish()
	return &v.AuditVerdict, nil
}

// auditVerifier is VerifyAudit at work.
type auditVerifier struct {
	AuditVerdict
	lines   *bufio.Reader
	line    int
	sum     hash.Hash // of all lines up to the end line
	given   *x509.Certificate
	signers auditSigners
	closers auditSigners // those of them for whom the owner vouches, and no owner before
	header  *auditHeader
	chain   chainCheck
	signed  map[string]*AuditSignatures
	count   int    // of signature lines
	fitting uint64 // newest entry with a signature that fits
	end     string // JWS of the end line
	endLine int
	endSum  string // of the lines before it
	cut     bool   // the last line has no newline
}

func (v *auditVerifier) report(format string, args ...any) {
	if len(v.Findings) == maxFindings {
		v.More++
		return
	}
	v.Findings = append(v.Findings, fmt.Sprintf(format, args...))
}

// readLine returns the next line with its newline. A line that is too long comes as nil: its rest is read
// and hashed, but not kept.
func (v *auditVerifier) readLine() ([]byte, error) {
	v.line++
	if v.end == "" {
		v.endSum = hex.EncodeToString(v.sum.Sum(nil))
	}
	var text []byte
	long := false
	for {
		part, err := v.lines.ReadSlice('\n')
		v.sum.Write(part)
		if long = long || len(text)+len(part) > maxAuditLine; !long {
			text = append(text, part...)
		}
		switch {
		case err == nil && long:
			return nil, nil
		case err == nil:
			return text, nil
		case err == io.EOF && (len(text) > 0 || long):
			v.cut = true
			return text, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// take reads one line. It returns false when nothing more can be made of the file.
func (v *auditVerifier) take(text []byte) bool {
	l, err := decodeLine(text)
	switch {
	case v.line == 1:
		if err == nil && l.Header == nil {
			err = errors.New("its first line is no header")
		}
		if err == nil {
			err = v.begin(l.Header)
		}
		if err != nil {
			v.report("line 1: this is not an exported audit trail, or its header was changed: %v", err)
			return false
		}
	case v.end != "":
		v.report("line %d: something follows after the end line", v.line)
		return false
	case err != nil:
		v.chain.damaged(v.line, err)
	case l.Entry != nil:
		v.Entries++
		if l.Entry.Alert != "" {
			v.Alerts++
		}
		v.chain.entry(v.line, *l.Entry)
	case l.Signature != "":
		v.checkpoint(l.Signature)
	case l.End != "":
		v.end, v.endLine = l.End, v.line
	default:
		v.report("line %d: a second header", v.line)
	}
	return true
}

// decodeLine reads a line, which must be exactly what encodeLine writes: so no two files say the same, and
// nothing hides in what a JSON reader skips.
func decodeLine(text []byte) (l auditLine, err error) {
	if text == nil {
		return l, fmt.Errorf("it is longer than %d bytes", maxAuditLine)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, fmt.Errorf("%.200v", err)
	}
	again, err := encodeLine(l)
	if err != nil {
		return l, err
	}
	if !bytes.Equal(again, append(bytes.TrimSuffix(text, []byte("\n")), '\n')) {
		return l, errors.New("it is not in the one form that an export writes")
	}
	fields := 0
	for _, set := range []bool{l.Header != nil, l.Entry != nil, l.Signature != "", l.End != ""} {
		if set {
			fields++
		}
	}
	if fields != 1 {
		return l, errors.New("it is none of the kinds of line, or more than one")
	}
	return l, nil
}

// begin reads the header. The owner certificate in it is only compared with the one that was given.
func (v *auditVerifier) begin(h *auditHeader) error {
	if h.Format != auditFileFormat {
		return fmt.Errorf("its format is %.40q; this program reads %q", h.Format, auditFileFormat)
	}
	if len(h.Signers) > maxAuditSigner {
		return fmt.Errorf("it names %d identities; at most %d are read", len(h.Signers), maxAuditSigner)
	}
	if len(h.Others) > maxAuditOwner {
		return fmt.Errorf("it names %d owners; at most %d are read", len(h.Others), maxAuditOwner)
	}
	owner, err := x509.ParseCertificate(h.Owner)
	if err != nil {
		return fmt.Errorf("its owner certificate cannot be read: %w", err)
	}
	var others []*x509.Certificate
	for _, der := range h.Others {
		other, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("one of its owner certificates cannot be read: %w", err)
		}
		others = append(others, other)
	}
	v.header, v.Cluster, v.Name, v.signed = h, h.Cluster, h.Name, map[string]*AuditSignatures{}
	if v.given != nil {
		v.Anchored = true
		if !v.given.Equal(owner) {
			v.report("the file names another owner certificate (SHA-256 %s) than the one given: it is of another cluster, or was made up", fingerprintOf(owner))
		}
		owner = v.given
	}
	v.Owner = fingerprintOf(owner)
	v.signers, v.closers = auditSigners{}, auditSigners{}
	for _, a := range h.Signers {
		if closer, err := readSigners([]AuditSigner{a}, []*x509.Certificate{owner}); err == nil {
			for print, s := range closer {
				v.closers.add(print, s) // a key of two nodes is reported below
			}
		}
		good, err := readSigners([]AuditSigner{a}, append([]*x509.Certificate{owner}, others...))
		if err != nil {
			v.report("line 1: the owner certificate does not vouch for a signer: %v", err)
		}
		for print, s := range good {
			if err := v.signers.add(print, s); err != nil {
				v.report("line 1: %v", err)
			}
		}
	}
	v.chain.start(h.First, h.Before)
	if h.First == 1 && h.Before != cluster.ChainStart(h.Cluster) {
		v.report("line 1: the chain does not begin as that of cluster %s must", h.Cluster)
	}
	return nil
}

func fingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// checkpoint verifies a signature under the entry before it.
func (v *auditVerifier) checkpoint(jws string) {
	v.count++
	under := v.chain.latest()
	c, err := syncpkg.VerifyAuditCheckpoint(jws, v.signers.trust(v.header.Cluster))
	if err == nil {
		err = v.withinLife(c.Node, c.Time)
	}
	switch {
	case err != nil:
		v.report("line %d: the signature under entry %d does not hold: %v", v.line, under.Seq, err)
		return
	case v.chain.unread != nil: // what it is under cannot be read, which is reported
		return
	case c.Seq != under.Seq:
		v.report("line %d: %s's signature under entry %d stands after entry %d", v.line, c.Node, c.Seq, under.Seq)
		return
	case c.Hash != under.Hash:
		v.report("line %d: %s's signature at %d does not fit: an entry from %d to %d was changed after it was signed", v.line, c.Node, c.Seq, v.fitting+1, c.Seq)
		return
	}
	v.fitting = max(v.fitting, c.Seq)
	s := v.signed[c.Node]
	if s == nil {
		s = &AuditSignatures{Node: c.Node}
		v.signed[c.Node] = s
	}
	s.Count++
	if c.Seq >= s.Last {
		s.Last, s.Time = c.Seq, c.Time
	}
}

// withinLife checks that an identity signed while its certificate was good.
func (v *auditVerifier) withinLife(node string, at time.Time) error {
	for _, s := range v.signers {
		if s.node == node && slices.ContainsFunc(s.pics, func(pic *x509.Certificate) bool { return !at.Before(pic.NotBefore) && !at.After(pic.NotAfter) }) {
			return nil
		}
	}
	return fmt.Errorf("%s had no valid identity certificate at %s", node, at.Format(time.RFC3339))
}

// finish says what only the whole file shows.
func (v *auditVerifier) finish() {
	if v.header == nil {
		if v.Intact() {
			v.report("the file is empty")
		}
		return
	}
	v.chain.finish()
	v.First, v.Last = v.header.First, v.chain.latest().Seq
	for _, s := range v.signed {
		v.Signed = append(v.Signed, *s)
	}
	slices.SortFunc(v.Signed, func(a, b AuditSignatures) int { return bytes.Compare([]byte(a.Node), []byte(b.Node)) })
	if v.end == "" || v.cut {
		v.report("the end is cut off after entry %d: there is no end line", v.Last)
	} else {
		v.closing()
	}
	v.remarks()
}

// closing compares the end line with what was before it.
func (v *auditVerifier) closing() {
	e, err := syncpkg.VerifyAuditEnd(v.end, v.closers.trust(v.header.Cluster)) // it vouches for the owners in the header
	if err == nil {
		err = v.withinLife(e.Node, e.Time)
	}
	if err != nil {
		v.report("line %d: the end line does not hold: %v", v.endLine, err)
		return
	}
	v.Exporter, v.Exported = e.Node, e.Time
	whole := v.Intact()
	if last := v.chain.latest(); e.Last == last.Seq && e.Hash != last.Hash {
		v.report("entry %d is not the one that %s exported: the chain was computed anew", last.Seq, e.Node)
	}
	if e.First != v.header.First {
		v.report("the file begins with entry %d by its header, and with entry %d by its end line", v.header.First, e.First)
	}
	if e.Last > v.Last {
		v.report("%s missing at the end, before line %d", entriesAre(v.Last+1, e.Last), v.endLine)
	} else if e.Last != v.Last {
		v.report("the file has entries up to %d, and ends with entry %d by its end line", v.Last, e.Last)
	}
	if n := e.Checkpoints - v.count; n > 0 {
		v.report("%s of nodes under the trail, which %s had exported, are missing", plural(n, "signature"), e.Node)
	} else if n < 0 {
		v.report("%s of nodes were put into the file after %s exported it", plural(-n, "signature"), e.Node)
	}
	if whole && v.Intact() && e.SHA256 != v.endSum {
		v.report("something in the file was changed after %s exported it: the entries fit one another, so it is in the header or in a signature", e.Node)
	}
}

// remarks says what is right and still good to know.
func (v *auditVerifier) remarks() {
	note := func(format string, args ...any) { v.Notes = append(v.Notes, fmt.Sprintf(format, args...)) }
	if v.First > 1 {
		note("the file begins with entry %d; the entries before it are not in it", v.First)
	}
	if v.Entries > 0 && v.fitting < v.Last {
		note("the entries after %d are vouched for by the end line of %s alone", v.fitting, orNobody(v.Exporter))
	}
	for _, name := range v.signers.nodes() {
		if v.signed[name] == nil {
			note("no signature of %s is in the file", name)
		}
	}
	if len(v.Signed) == 1 && len(v.signers.nodes()) > 1 {
		note("all signatures are of %s: whoever controls it could have made this trail up; compare with an export of another node", v.Signed[0].Node)
	}
}

func orNobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}
