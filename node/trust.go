package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Whom this node believes. Nothing of it comes from what is being verified: it is the node's own state, and
// the owner certificate that it had when it became a member.

// Trust is which nodes take packages from which: directed edges of the replicated state.
type Trust struct{ m *Member }

// Set makes or removes the edge by which node trusting takes packages from node trusted. An edge to a node
// whose certificate does not hold is not made: nothing could come by it.
func (t *Trust) Set(ctx context.Context, actor cluster.Actor, trusting, trusted string, trust bool) error {
	if n, ok := t.m.State().Nodes[trusted]; ok && trust {
		if _, err := t.m.believe(n, t.m.node.cfg.Now()); err != nil {
			return refuse("%w; so nobody can trust it", err)
		}
	}
	_, err := t.m.Cluster.Apply(ctx, &cluster.SetTrust{Trusting: trusting, Trusted: trusted, Trust: trust}, actor)
	return err
}

// believe returns the identity key that a member is registered with, if its certificate is good now: made by
// this cluster's owner key, and within its time.
func (m *Member) believe(n cluster.Node, now time.Time) (*ecdsa.PublicKey, error) {
	pic, err := x509.ParseCertificate(n.Identity)
	if err != nil {
		return nil, fmt.Errorf("the identity certificate of %s cannot be read: %w", n.Name, err)
	}
	poc := ownerOf(pic, m.Identity.Owners())
	if state, problem := judgeCertificate(pic, poc, now); problem != "" && state != CertExpiring {
		return nil, errors.New(problem)
	}
	return identity.CheckIdentity(pic, poc, now)
}

// keyNamed returns the key with the thumbprint kid, if the member has it now, or had it before. The latter is good
// for what it has signed then and this cluster has kept since.
func (m *Member) keyNamed(n cluster.Node, kid string, now time.Time) (key *ecdsa.PublicKey, past bool, err error) {
	if key, err = m.believe(n, now); err != nil {
		return nil, false, err
	}
	if print, err := syncpkg.Thumbprint(key); err != nil || print == kid {
		return key, false, err
	}
	for _, p := range slices.Backward(n.Past) {
		pic, err := x509.ParseCertificate(p.Identity)
		if err != nil {
			continue
		}
		key, err := identity.CheckIdentity(pic, ownerOf(pic, m.Identity.ownersEver(m.State())), pic.NotBefore)
		if err != nil {
			continue
		}
		if print, err := syncpkg.Thumbprint(key); err == nil && print == kid {
			return key, true, nil
		}
	}
	return nil, false, fmt.Errorf("it was signed with another key than the identity key of node %s", n.Name)
}

// IdentityKey is the identity key of a node: the present one, or the one with the RFC 7638 SHA-256 thumbprint kid,
// which may be one that was replaced.
func (m *Member) IdentityKey(name, kid string) (*ecdsa.PublicKey, error) {
	n, ok := m.State().Nodes[name]
	if !ok {
		return nil, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no node %q in this cluster", name)}}
	}
	if kid == "" {
		pic, err := x509.ParseCertificate(n.Identity)
		if err != nil {
			return nil, fmt.Errorf("the identity certificate of %s cannot be read: %w", name, err)
		}
		key, ok := pic.PublicKey.(*ecdsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("the identity key of %s is not an EC key", name)
		}
		return key, nil
	}
	key, _, err := m.keyNamed(n, kid, m.node.cfg.Now())
	if err != nil {
		return nil, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("node %q has and had no identity key with that thumbprint", name)}}
	}
	return key, nil
}

// memberKeys believes what a member has signed, as long as it is a member: receipts, and the keys that it
// receives by. Taking keys from it is another question; see trustIn.
func (y *Sync) memberKeys(now time.Time) syncpkg.Trust {
	return func(clusterID, name, kid string) (*ecdsa.PublicKey, error) {
		s := y.m.State()
		if clusterID != s.Cluster.ID {
			return nil, fmt.Errorf("it was made in another cluster (%s); this is %q (%s)", clusterID, s.Cluster.Name, s.Cluster.ID)
		}
		n, ok := s.Nodes[name]
		if !ok {
			return nil, fmt.Errorf("node %q is not a member of this cluster", name)
		}
		key, _, err := y.m.keyNamed(n, kid, now)
		return key, err
	}
}

// recorded refuses a package that is signed with a key which its source has no more, unless the cluster knows this
// very file from then: whoever has the old key cannot have made that record.
func (y *Sync) recorded(head *syncpkg.Head, sha256 string) error {
	s, h := y.m.State(), head.Header
	_, past, err := y.m.keyNamed(s.Nodes[h.Source], head.KeyID, y.now())
	if p := s.Packages[h.ID]; err != nil || !past || p.Source == h.Source && p.SHA256 == sha256 {
		return err
	}
	return packageError(&syncpkg.Error{Kind: syncpkg.ErrUntrusted, Err: fmt.Errorf(
		"package %s is signed with an identity key that node %s has replaced, and the cluster does not know this file: make a new package on %s", h.ID, h.Source, h.Source)})
}

// trustIn is whom this node takes packages from: members that it trusts.
func (y *Sync) trustIn(now time.Time) syncpkg.Trust {
	members := y.memberKeys(now)
	return func(clusterID, source, kid string) (*ecdsa.PublicKey, error) {
		key, err := members(clusterID, source, kid)
		if err != nil || source == y.m.Name() {
			return key, err
		}
		return key, y.trusts(source)
	}
}

// trusts tells whether there is an edge from this node to source, and what to do where there is none.
func (y *Sync) trusts(source string) error {
	const remedy = "if it should, a security officer makes the trust on the page Identity, and a new package is made then"
	e, known := y.m.State().Edge(y.m.Name(), source)
	switch {
	case e.Holds():
		return nil
	case known:
		return fmt.Errorf("node %s does not trust node %s any more: %s removed that at %s; %s", y.m.Name(), source, e.By, e.Removed.UTC().Format(time.RFC3339), remedy)
	}
	return fmt.Errorf("node %s does not trust node %s; %s", y.m.Name(), source, remedy)
}

// madeUnder refuses a package that is older than the present trust in its source: an edge that was removed
// and made again brings nothing back. When a package was made is what the cluster has recorded, by the same
// clock as the edge; only where there is no record, it is what the package says itself.
func (y *Sync) madeUnder(h syncpkg.Header) error {
	if h.Source == y.m.Name() {
		return nil
	}
	s := y.m.State()
	e, _ := s.Edge(y.m.Name(), h.Source)
	made, since := h.Created, e.Since.Truncate(time.Second) // headers have whole seconds
	if p, ok := s.Packages[h.ID]; ok && p.Source == h.Source {
		made, since = p.Created, e.Since
	}
	if !made.Before(since) {
		return nil
	}
	return packageError(&syncpkg.Error{Kind: syncpkg.ErrUntrusted, Err: fmt.Errorf(
		"package %s was made at %s, before the trust of node %s in node %s that there is now (since %s), and trust that was removed and made again does not bring older packages back: make a new one on %s",
		h.ID, made.UTC().Format(time.RFC3339), y.m.Name(), h.Source, e.Since.UTC().Format(time.RFC3339), h.Source)})
}

// check is what is asked of a package while its keys come in: that its source is trusted now, by the key that
// signed it, and was when it was made.
func (y *Sync) check(head *syncpkg.Head) error {
	h := head.Header
	if _, err := y.trustIn(y.now())(h.Cluster, h.Source, head.KeyID); err != nil {
		return packageError(&syncpkg.Error{Kind: syncpkg.ErrUntrusted, Err: fmt.Errorf("package %s is from %s, which is not trusted here: %w", h.ID, h.Source, err)})
	}
	return y.madeUnder(h)
}

// judged is when a package was found good, and by what.
type judged struct {
	at time.Time
	by grounds
}

// grounds are what of the replicated state decides whether a package is taken.
type grounds struct {
	member        bool
	key, identity string // of the source, and its certificate in DER
	edge          cluster.Edge
	made          time.Time // as the cluster has recorded it
}

func (y *Sync) grounds(h syncpkg.Header) grounds {
	s := y.m.State()
	n, member := s.Nodes[h.Source]
	e, _ := s.Edge(y.m.Name(), h.Source)
	return grounds{member, n.Key, string(n.Identity), e, s.Packages[h.ID].Created}
}

// stillTrusted is check, before each key of an import. As long as nothing has changed that decides, it is asked once
// a second: it verifies two signatures on P-521, which takes as long as a key does.
func (r *importRun) stillTrusted() error {
	by, now := r.y.grounds(r.pkg.Head.Header), r.y.now()
	if by == r.judged.by && now.Sub(r.judged.at).Abs() < time.Second {
		return nil
	}
	if err := r.y.check(r.pkg.Head); err != nil {
		return err
	}
	r.judged = judged{now, by}
	return nil
}
