package node

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// CertState is how a certificate stands at a moment; package identity has the words.
type CertState = identity.State

// What can be said of the certificate of an owner or a node of a cluster.
const (
	CertNone     = identity.None
	CertValid    = identity.Valid
	CertExpiring = identity.Expiring
	CertExpired  = identity.Expired     // or its owner's is
	CertNotYet   = identity.NotYetValid // a clock is wrong
	CertForeign  = identity.Invalid     // not made by the owner key of this cluster
)

// CertificateWarning is how long before the end of an owner's or a node's certificate people are told. They
// replace those by hand, on a day when the people for it can be there.
const CertificateWarning = identity.ExpiringBefore

// Certificate is what people compare of a certificate.
type Certificate struct {
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	State       CertState `json:"state"`
	Problem     string    `json:"problem,omitempty"` // what is wrong with it and what to do
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the DER form, "AB:CD:..."
}

// NodeIdentity is who a node is, and whom it believes.
type NodeIdentity struct {
	Node        string      `json:"node"`
	Serial      string      `json:"serial"` // of the admin token
	Certificate Certificate `json:"certificate"`
	Key         string      `json:"key"`                // SHA-256 of the identity key, hexadecimal
	HoldsOwner  bool        `json:"holds_owner"`        // the owner key is on its admin token, by what it said last
	Asked       bool        `json:"asked"`              // it has answered since this node started
	Changing    bool        `json:"changing,omitempty"` // it has a new identity key, and the last one is still admitted, too
	Trusts      []string    `json:"trusts"`             // nodes that it takes packages from
	TrustedBy   []string    `json:"trusted_by"`         // nodes that take packages from it
}

// TrustEdge is the trust of one node in another, as it is, or as it was until it was removed.
type TrustEdge struct {
	Trusting string    `json:"trusting"`
	Trusted  string    `json:"trusted"`
	Since    time.Time `json:"since"`
	Removed  time.Time `json:"removed,omitzero"`
	By       string    `json:"by"` // who made or removed it
}

// Identities is the owner of a cluster, its nodes, and their trust in each other.
type Identities struct {
	Cluster string         `json:"cluster"`
	Owner   Certificate    `json:"owner"`
	Next    *Certificate   `json:"next_owner,omitempty"` // while the owner is replaced
	Awaited []string       `json:"awaited,omitempty"`    // nodes that have no certificate of the next owner yet
	Nodes   []NodeIdentity `json:"nodes"`
	Edges   []TrustEdge    `json:"edges"` // also removed ones
}

// Identities tells of all nodes, as this one sees them.
func (m *Member) Identities() Identities {
	return identities(m.State(), m.Identity.Owners(), m.Peers.Seen, m.node.cfg.Now())
}

func identities(s *cluster.State, owners []*x509.Certificate, seen func(string) Seen, now time.Time) Identities {
	list := Identities{Cluster: s.Cluster.Name, Owner: describeCertificate(owners[0], owners[0], now), Nodes: []NodeIdentity{}, Edges: []TrustEdge{}}
	if len(owners) > 1 && s.Cluster.Next != nil {
		next := describeCertificate(owners[1], owners[1], now)
		list.Next, list.Awaited = &next, s.Awaited()
	}
	trustedBy := map[string][]string{}
	for _, trusting := range slices.Sorted(maps.Keys(s.Trust)) {
		for _, e := range s.Trust[trusting] {
			list.Edges = append(list.Edges, TrustEdge{trusting, e.Node, e.Since, e.Removed, e.By})
			if e.Holds() {
				trustedBy[e.Node] = append(trustedBy[e.Node], trusting)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n, health := s.Nodes[name], seen(name)
		one := NodeIdentity{Node: name, Serial: n.Serial, Key: n.Key, Changing: n.Changing, HoldsOwner: health.Health.HoldsOwner, Asked: !health.Last.IsZero(),
			Trusts: append([]string{}, s.TrustedBy(name)...), TrustedBy: append([]string{}, trustedBy[name]...)}
		if pic, err := x509.ParseCertificate(n.Identity); err == nil {
			one.Certificate = describeCertificate(pic, ownerOf(pic, owners), now)
		} else {
			one.Certificate = Certificate{State: CertNone, Problem: fmt.Sprintf("the identity certificate of %s cannot be read: %v", name, err)}
		}
		list.Nodes = append(list.Nodes, one)
	}
	return list
}

func describeCertificate(c, poc *x509.Certificate, now time.Time) Certificate {
	d := Certificate{Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Fingerprint: cluster.Fingerprint(c.Raw)}
	d.State, d.Problem = judgeCertificate(c, poc, now)
	return d
}

// judgeCertificate tells how a certificate of a node, or poc itself, stands at a moment.
func judgeCertificate(c, poc *x509.Certificate, now time.Time) (CertState, string) {
	what := "the identity certificate of " + c.Subject.CommonName
	renew := "have its identity certified anew, on its page Identity and trust or by \"keyferry ident renew\" on it"
	if c.Equal(poc) {
		what, renew = "the owner certificate", "replace the owner, on the page \"Replace keys\" or by \"keyferry ident replace-owner\""
	}
	show := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case now.Before(c.NotBefore):
		return CertNotYet, fmt.Sprintf("%s is valid from %s on, and it is %s here: compare the clocks of the nodes", what, show(c.NotBefore), show(now))
	case now.After(c.NotAfter):
		if !c.Equal(poc) { // the other nodes do not let it connect any more
			renew = "remove the node from the cluster and let it join anew"
		}
		return CertExpired, fmt.Sprintf("%s ended at %s, and it is %s here: if the clock is right, %s", what, show(c.NotAfter), show(now), renew)
	case c.Equal(poc):
	case now.Before(poc.NotBefore) || now.After(poc.NotAfter):
		state, problem := judgeCertificate(poc, poc, now)
		return state, fmt.Sprintf("%s is worth nothing now: %s", what, problem)
	default:
		if err := madeBy(c, poc); err != nil {
			return CertForeign, fmt.Sprintf("%s does not end in the owner certificate of this cluster (%v): have it certified by the owner key of this cluster", what, err)
		}
	}
	if identity.StateOf(c, now) == CertExpiring {
		return CertExpiring, fmt.Sprintf("%s ends at %s: before that, %s", what, show(c.NotAfter), renew)
	}
	return CertValid, ""
}

// madeBy tells whether the owner key of poc has signed c, whatever time it is.
func madeBy(c, poc *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, poc.RawSubject) {
		return fmt.Errorf("it was issued by %q", c.Issuer)
	}
	if c.CheckSignatureFrom(poc) != nil {
		return errors.New("another owner key of the same name has signed it")
	}
	return nil
}

// Chain is the identity certificate of a node and the owner certificate under which it was made, in PEM.
func (m *Member) Chain(name string) ([]byte, error) {
	n, ok := m.State().Nodes[name]
	if !ok {
		return nil, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no node %q in this cluster", name)}}
	}
	owner := m.Identity.Owner()
	if pic, err := x509.ParseCertificate(n.Identity); err == nil {
		owner = ownerOf(pic, m.Identity.Owners())
	}
	return append(certificatePEM(n.Identity), certificatePEM(owner.Raw)...), nil
}

// OwnerPEM is the owner certificate in PEM, and while the owner is replaced also that of the next one.
func (m *Member) OwnerPEM() []byte {
	var all []byte
	for _, poc := range m.Identity.Owners() {
		all = append(all, certificatePEM(poc.Raw)...)
	}
	return all
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
