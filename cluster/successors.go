package cluster

import (
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// Identity keys and owner keys are replaced while the cluster runs. For as long as that takes the old and the new
// are both believed, so that no connection has to fail; who is done says so.

// PastIdentity is an identity key that a node had. What it has signed until then stays verifiable.
type PastIdentity struct {
	Identity []byte    `json:"identity"` // its last certificate (PIC), DER
	Key      string    `json:"key"`      // KeyHash
	Until    time.Time `json:"until"`
}

// Had tells whether the node has or had an identity key, by its KeyHash.
func (n Node) Had(key string) bool {
	return n.Key == key || slices.ContainsFunc(n.Past, func(p PastIdentity) bool { return p.Key == key })
}

// Admits tells whether the node may connect with an identity key: the present one, or the last one while the node
// changes over.
func (n Node) Admits(key string) bool {
	return n.Key == key || n.Changing && n.Past[len(n.Past)-1].Key == key
}

// Admits tells whether a certificate that names node and was signed under identity belongs to a member.
// It is what a Link needs for its Admit.
func (s *State) Admits(node string, identity *x509.Certificate) error {
	n, err := s.node(node)
	if err != nil {
		return err
	}
	if !n.Admits(KeyHash(identity)) {
		return errorf(Denied, "the identity key is not the one that node %q is registered with", node)
	}
	return nil
}

// ReplaceIdentity gives the node where the actor works another identity certificate, for the same key or for a new
// one. With a new one the old one is admitted until the node has changed over; see RetireIdentity.
type ReplaceIdentity struct {
	Identity []byte `json:"identity"` // the new identity certificate (PIC), DER
	Key      string `json:"key"`      // its KeyHash
}

func (c *ReplaceIdentity) Kind() string               { return "node.identity" }
func (c *ReplaceIdentity) describe() (string, string) { return "key/" + c.Key, "" }
func (c *ReplaceIdentity) validate() error            { return checkIdentity(c.Identity, c.Key) }

func (c *ReplaceIdentity) apply(s *State, m Meta) error {
	n := s.Nodes[m.Node]
	switch {
	case s.Cluster.Next != nil:
		return errorf(Conflict, "the owner of the cluster is being replaced: identities are replaced again when that is done")
	case c.Key == n.Key:
	case n.Changing:
		return errorf(Conflict, "node %q is just changing over to the identity key that it got at %s: it must have done that first", n.Name, n.Past[len(n.Past)-1].Until.UTC().Format(time.RFC3339))
	case n.Had(c.Key):
		return errorf(Conflict, "node %q has had that identity key before: a key that was replaced does not come back", n.Name)
	default:
		past := append(slices.Clone(n.Past), PastIdentity{n.Identity, n.Key, m.Time})
		n.Past, n.Changing = past[max(0, len(past)-maxPast):], true
	}
	n.Identity, n.Key = c.Identity, c.Key
	if err := s.checkNode(n); err != nil {
		return err
	}
	s.Nodes = with(s.Nodes, n.Name, n)
	return nil
}

// RetireIdentity is a node's word that it uses its present identity key for everything. From then on its last one is
// not admitted any more.
type RetireIdentity struct {
	Key string `json:"key"` // KeyHash of the present one
}

func (c *RetireIdentity) Kind() string               { return "node.retire" }
func (c *RetireIdentity) describe() (string, string) { return "key/" + c.Key, "" }
func (c *RetireIdentity) validate() error            { return checkHash("hash of the identity key", c.Key) }

func (c *RetireIdentity) apply(s *State, m Meta) error {
	n := s.Nodes[m.Node]
	if n.Key != c.Key {
		return errorf(Conflict, "node %q has another identity key than it uses", n.Name)
	}
	if !n.Changing {
		return nil
	}
	n.Changing = false
	s.Nodes = with(s.Nodes, n.Name, n)
	s.record(m, Entry{Act: c.Kind(), Object: "node/" + n.Name, Result: Done, Detail: "key " + n.Past[len(n.Past)-1].Key})
	return nil
}

// ReplaceOwner begins to put the cluster under another owner key. From then on both are believed, and each node gets
// a certificate of the next one; see CertifyUnder. Until the last has it, nobody is let in. It can begin again with
// another next owner, whose key is not lost.
type ReplaceOwner struct {
	Owner []byte `json:"owner"` // the owner certificate (POC) of the next owner, DER
}

func (c *ReplaceOwner) Kind() string { return "owner.replace" }
func (c *ReplaceOwner) describe() (string, string) {
	return "owner/" + CertificateHash(c.Owner), ""
}

func (c *ReplaceOwner) validate() error {
	if len(c.Owner) > maxCertificate {
		return errorf(Invalid, "the owner certificate is too long: %d bytes, at most %d are allowed", len(c.Owner), maxCertificate)
	}
	if _, err := x509.ParseCertificate(c.Owner); err != nil {
		return errorf(Invalid, "the owner certificate cannot be read: %v", err)
	}
	return nil
}

func (c *ReplaceOwner) apply(s *State, m Meta) error {
	is := func(other []byte) bool { return slices.Equal(other, c.Owner) }
	switch {
	case is(s.Cluster.Next):
		return errorf(Conflict, "the owner of the cluster is being replaced by this one already: %s have no certificate of it yet", strings.Join(s.Awaited(), ", "))
	case is(s.Cluster.Owner):
		return errorf(Conflict, "this is the owner that the cluster has")
	case slices.ContainsFunc(s.Cluster.Former, is):
		return errorf(Conflict, "this owner was replaced before, and does not come back: make another owner key")
	}
	s.Cluster.Next = c.Owner
	s.renewed(func(n Node) Node { n.Renewed = nil; return n })
	return nil
}

// renewed changes what is known of all nodes.
func (s *State) renewed(f func(Node) Node) {
	for _, name := range sorted(s.Nodes) {
		s.Nodes = with(s.Nodes, name, f(s.Nodes[name]))
	}
}

// ownerReplaced is the act of the audit entry that ends what ReplaceOwner has begun.
const ownerReplaced = "owner.replaced"

// Awaited are the nodes that have no certificate of the next owner yet, in order.
func (s *State) Awaited() []string {
	return slices.DeleteFunc(sorted(s.Nodes), func(name string) bool { return s.Nodes[name].Renewed != nil })
}

// CertifyUnder is a node's word that the next owner has certified it, for the key that it has. With the last one the
// next owner becomes the owner.
type CertifyUnder struct {
	Owner    string `json:"owner"`    // CertificateHash of the next owner
	Identity []byte `json:"identity"` // the identity certificate (PIC) that it has made, DER
	Key      string `json:"key"`      // its KeyHash
}

func (c *CertifyUnder) Kind() string               { return "owner.certified" }
func (c *CertifyUnder) describe() (string, string) { return "owner/" + c.Owner, "" }
func (c *CertifyUnder) validate() error {
	return check(checkHash("hash of the owner certificate", c.Owner), checkIdentity(c.Identity, c.Key))
}

func (c *CertifyUnder) apply(s *State, m Meta) error {
	n := s.Nodes[m.Node]
	switch {
	case s.Cluster.Next == nil || CertificateHash(s.Cluster.Next) != c.Owner:
		return errorf(Conflict, "the cluster is not being put under that owner")
	case n.Key != c.Key:
		return errorf(Denied, "the certificate is not for the identity key of node %q", n.Name)
	}
	n.Renewed = c.Identity
	s.Nodes = with(s.Nodes, n.Name, n)
	s.record(m, Entry{Act: c.Kind(), Object: "node/" + n.Name, Result: Done, Detail: "owner " + c.Owner})
	s.finishOwner(m)
	return nil
}

// finishOwner makes the next owner the owner once all nodes are certified by it.
func (s *State) finishOwner(m Meta) {
	if s.Cluster.Next == nil || len(s.Awaited()) > 0 {
		return
	}
	former := append(slices.Clone(s.Cluster.Former), s.Cluster.Owner)
	s.Cluster.Former = former[max(0, len(former)-maxPast):]
	s.Cluster.Owner, s.Cluster.Next = s.Cluster.Next, nil
	s.renewed(func(n Node) Node { n.Identity, n.Renewed = n.Renewed, nil; return n })
	for _, id := range sorted(s.Approvals) { // they rest on the owner before, or on a key that is gone with the change
		a := s.Approvals[id]
		if (a.Kind == new(ReplaceOwner).Kind() || a.Kind == new(ReplaceIdentity).Kind()) && a.StateAt(m.Time) == ApprovalWaiting {
			s.endApproval(a, m, ApprovalWithdrawn, "the owner of the cluster was replaced meanwhile: ask again")
		}
	}
	s.record(m, Entry{Act: ownerReplaced, Object: "owner/" + CertificateHash(s.Cluster.Owner), Result: Done, Detail: "before: " + CertificateHash(former[len(former)-1])})
}
