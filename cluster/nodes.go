package cluster

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

// Node is a member of the cluster.
type Node struct {
	Name        string     `json:"name"`
	Serial      string     `json:"serial"`   // token serial of the admin token
	PeerAddress string     `json:"peer"`     // "host:port" where its Link listens
	WebURL      string     `json:"web"`      // https address of its console, if it has one
	Version     string     `json:"version"`  // of the program, for people
	Protocol    int        `json:"protocol"` // of the program, for machines
	Identity    []byte     `json:"identity"` // the identity certificate (PIC), DER
	Key         string     `json:"key"`      // KeyHash of the identity key (PIK)
	Status      NodeStatus `json:"status"`   // how far it has come in joining
	Joined      time.Time  `json:"joined,omitzero"`
	Protector   string     `json:"protector,omitempty"` // what protects the node key that seals stored codes: one of the Protectors

	Past     []PastIdentity `json:"past,omitempty"`     // identity keys that the node had before, oldest first
	Changing bool           `json:"changing,omitempty"` // the last of them is admitted, too, until the node has changed over
	Renewed  []byte         `json:"renewed,omitempty"`  // while the owner is replaced: the certificate (PIC) that the next one has made, DER
}

// Protectors are the ways to keep the node key that seals a node's stored codes.
const (
	ByFile       = "file"       // in a file, readable for whoever has the disk
	ByPassphrase = "passphrase" // somebody enters a passphrase after each start of the daemon
	ByCredential = "credential" // the passphrase comes from a file that the system provides at the start
	ByTPM        = "tpm"        // sealed to the machine's TPM 2.0
)

// NodeStatus is how far a node has come in joining.
type NodeStatus string

// A node only moves forward in this order.
const (
	Initializing NodeStatus = "initializing" // admitted, not heard of since
	Connecting   NodeStatus = "connecting"   // running, fetching the state; has no vote
	Connected    NodeStatus = "connected"    // a full member
)

// KeyHash identifies an identity key: the SHA-256 of the SubjectPublicKeyInfo, in hexadecimal.
func KeyHash(identity *x509.Certificate) string {
	sum := sha256.Sum256(identity.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// CertificateHash identifies a certificate: the SHA-256 of its DER form, in hexadecimal.
func CertificateHash(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// validate checks what a node says about itself. Key must be of the certificate: apply compares Key
// alone, because parsers of certificates differ between versions.
func (n *Node) validate() error {
	if err := check(checkName("node name", n.Name), checkText("serial of the admin token", n.Serial, maxSerial),
		checkAddress("peer address", n.PeerAddress), checkWebURL(n.WebURL), checkText("version", n.Version, maxText),
		checkRange("protocol", n.Protocol, 1, 1<<16), checkOneOf("protector of the node key", n.Protector, "", ByFile, ByPassphrase, ByCredential, ByTPM)); err != nil {
		return err
	}
	return checkIdentity(n.Identity, n.Key)
}

func checkIdentity(der []byte, key string) error {
	if len(der) > maxCertificate {
		return errorf(Invalid, "the identity certificate is too long: %d bytes, at most %d are allowed", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return errorf(Invalid, "the identity certificate cannot be read: %v", err)
	}
	if KeyHash(cert) != key {
		return errorf(Invalid, "the key hash does not belong to the identity certificate")
	}
	return nil
}

// checkNode refuses what would make n collide with another member.
func (s *State) checkNode(n Node) error {
	if err := s.barred(n); err != nil {
		return err
	}
	for _, name := range sorted(s.Nodes) {
		other := s.Nodes[name]
		switch {
		case name == n.Name:
		case other.Had(n.Key):
			return errorf(Conflict, "node %q has the same identity key, or had it", name)
		case other.PeerAddress == n.PeerAddress:
			return errorf(Conflict, "node %q has the peer address %s already: remove that node first, or give this one another address", name, n.PeerAddress)
		case other.Serial == n.Serial && n.Serial != "":
			return errorf(Conflict, "node %q uses the admin token with the serial %s already", name, n.Serial)
		}
	}
	if low := s.protocol(); n.Protocol < low {
		return errorf(Upgrade, "node %q speaks protocol %d, and this cluster speaks %d: upgrade the node first", n.Name, n.Protocol, low)
	}
	return nil
}

// protocol is the highest Protocol that all members follow; 0 while there are none.
func (s *State) protocol() int {
	low := 0
	for _, n := range s.Nodes {
		if low == 0 || n.Protocol < low {
			low = n.Protocol
		}
	}
	return low
}

// CreateCluster makes the cluster, with its first node.
type CreateCluster struct {
	ID    string `json:"id"`    // NewID
	Name  string `json:"name"`  // for people
	Owner []byte `json:"owner"` // the owner certificate (POC), DER
	Node  Node   `json:"node"`  // the first node; what keeping names is set by apply
}

func (c *CreateCluster) Kind() string               { return "cluster.create" }
func (c *CreateCluster) describe() (string, string) { return "cluster/" + c.ID, c.Name }

func (c *CreateCluster) validate() error {
	if err := check(checkName("cluster id", c.ID), CheckClusterName(c.Name), c.Node.validate()); err != nil {
		return err
	}
	if len(c.Owner) > maxCertificate {
		return errorf(Invalid, "the owner certificate is too long: %d bytes, at most %d are allowed", len(c.Owner), maxCertificate)
	}
	if _, err := x509.ParseCertificate(c.Owner); err != nil {
		return errorf(Invalid, "the owner certificate cannot be read: %v", err)
	}
	return nil
}

func (c *CreateCluster) apply(s *State, m Meta) error {
	if s.Cluster.ID != "" {
		return errorf(Conflict, "this node is in the cluster %q already", s.Cluster.Name)
	}
	if c.Node.Name != m.Node {
		return errorf(Denied, "node %q cannot speak for node %q", m.Node, c.Node.Name)
	}
	n := c.Node.keeping(Node{Status: Connected, Joined: m.Time})
	s.Cluster = Info{ID: c.ID, Name: c.Name, Created: m.Time, Owner: c.Owner}
	s.Nodes = with(s.Nodes, n.Name, n)
	return nil
}

// SetNode is what a node says about itself, whole. Its identity stays what it was: see ReplaceIdentity.
type SetNode struct {
	Node Node `json:"node"` // Identity and what keeping names are ignored
}

func (c *SetNode) Kind() string               { return "node.set" }
func (c *SetNode) describe() (string, string) { return "node/" + c.Node.Name, "" }
func (c *SetNode) validate() error            { return c.Node.validate() }

func (c *SetNode) apply(s *State, m Meta) error {
	if c.Node.Name != m.Node {
		return errorf(Denied, "node %q cannot speak for node %q", m.Node, c.Node.Name)
	}
	old, n := s.Nodes[m.Node], c.Node
	if n.Key != old.Key {
		return errorf(Denied, "the identity key of node %q is not the one it joined with; an administrator can replace it", n.Name)
	}
	if err := s.checkNode(n); err != nil {
		return err
	}
	n = n.keeping(old)
	n.Identity = old.Identity
	if changed := n.changes(old); changed != "" {
		s.Nodes = with(s.Nodes, n.Name, n)
		s.record(m, Entry{Act: c.Kind(), Object: "node/" + n.Name, Result: Done, Detail: "changed: " + changed})
	}
	return nil
}

// keeping is n with what the cluster knows of a node by itself, from old.
func (n Node) keeping(old Node) Node {
	n.Status, n.Joined, n.Past, n.Changing, n.Renewed = old.Status, old.Joined, old.Past, old.Changing, old.Renewed
	return n
}

// changes lists what differs between what a node said before and says now.
func (n Node) changes(old Node) string {
	var changed []string
	for _, f := range []struct {
		what  string
		equal bool
	}{
		{"admin token", n.Serial == old.Serial},
		{"peer address", n.PeerAddress == old.PeerAddress},
		{"console address", n.WebURL == old.WebURL},
		{"version", n.Version == old.Version && n.Protocol == old.Protocol},
		{"what protects the node key", n.Protector == old.Protector},
	} {
		if !f.equal {
			changed = append(changed, f.what)
		}
	}
	return strings.Join(changed, ", ")
}

// ConnectNode is a joining node's word of how far it has come. Connected means that it has caught up
// and is ready for a vote.
type ConnectNode struct {
	Status NodeStatus `json:"status"`
}

func (c *ConnectNode) Kind() string               { return "node.connect" }
func (c *ConnectNode) describe() (string, string) { return "node", string(c.Status) }

func (c *ConnectNode) validate() error {
	return checkOneOf("status", string(c.Status), string(Connecting), string(Connected))
}

func (c *ConnectNode) apply(s *State, m Meta) error {
	n := s.Nodes[m.Node]
	if n.Status == c.Status || n.Status == Connected {
		return nil
	}
	n.Status = c.Status
	s.Nodes = with(s.Nodes, n.Name, n)
	s.record(m, Entry{Act: c.Kind(), Object: "node/" + n.Name, Result: Done, Detail: string(c.Status)})
	return nil
}

// RemoveNode forgets a node: its seats, its inventory, the trust in it and by it. Its name stays in the
// Nodes of applications, where an empty list would mean all nodes.
type RemoveNode struct {
	Node   string `json:"node"`
	GiveUp bool   `json:"give_up,omitempty"` // also where its tokens have codes that custodians share: their keys are lost
	Stolen bool   `json:"stolen,omitempty"`  // it is in strange hands: it is remembered and never let in again; see Stolen
}

func (c *RemoveNode) Kind() string { return "node.remove" }
func (c *RemoveNode) describe() (string, string) {
	if c.Stolen {
		return "node/" + c.Node, "it is stolen"
	}
	return "node/" + c.Node, givenUp(c.GiveUp)
}
func (c *RemoveNode) validate() error { return checkName("node name", c.Node) }

func (c *RemoveNode) apply(s *State, m Meta) error {
	n, err := s.node(c.Node)
	if err != nil {
		return err
	}
	if len(s.Nodes) == 1 {
		return errorf(Conflict, "node %q is the only one of this cluster, so there is nothing to remove it from", c.Node)
	}
	for _, label := range sorted(s.Slots) {
		if err := s.keepsShared(label, c.Node, c.GiveUp || c.Stolen); err != nil {
			return err
		}
	}
	if c.Stolen {
		if c.Node == m.Node {
			return errorf(Conflict, "node %q cannot declare itself stolen: do it on another node", c.Node)
		}
		if err := s.stolen(n, m); err != nil {
			return err
		}
	}
	s.Nodes = without(s.Nodes, c.Node)
	s.removeTrust(c.Node)
	for _, label := range sorted(s.Slots) {
		s.removeSeat(label, c.Node)
	}
	for _, name := range sorted(s.Apps) {
		app := s.Apps[name]
		app.Runs = without(app.Runs, c.Node)
		s.Apps = with(s.Apps, name, app)
	}
	for _, id := range sorted(s.Acts) {
		if act := s.Acts[id]; act.Node == c.Node {
			s.Acts = without(s.Acts, id)
			s.record(m, Entry{Act: act.Act, Object: act.Object, Result: Failed, Detail: "the node was removed", ActID: id})
		}
	}
	s.finishOwner(m) // it may have been the last that had no certificate of the next owner
	return nil
}

// members are the names of all nodes but one, in order.
func (s *State) members(but string) []string {
	return slices.DeleteFunc(sorted(s.Nodes), func(name string) bool { return name == but })
}
