package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

// Protocol is the version of the commands and of what they mean that this program speaks. It goes up
// with every change that an older program would not follow: a new kind of command, a new permission, a
// different effect or limit. The leader proposes nothing that a member's Protocol does not cover.
const Protocol = 1

// State is everything the nodes share, as of one log entry. It is immutable: a command makes a new
// State that shares what did not change. Readers need no lock and must change nothing they reach.
type State struct {
	Index     uint64                          `json:"index"`     // log index of the last command applied
	Cluster   Info                            `json:"cluster"`   // zero until CreateCluster
	Nodes     map[string]Node                 `json:"nodes"`     // by name
	Trust     map[string][]Edge               `json:"trust"`     // by trusting node, sorted by the trusted one
	Invites   map[string]Invite               `json:"invites"`   // by hash of the one-time code
	Slots     map[string]Slot                 `json:"slots"`     // by label
	Keys      map[string]map[string]Inventory `json:"keys"`      // slot label -> node -> what it holds there
	Packages  map[string]Package              `json:"packages"`  // by id
	Accounts  map[string]Account              `json:"accounts"`  // by name
	Apps      map[string]App                  `json:"apps"`      // by name
	Policies  map[string]Policy               `json:"policies"`  // by act
	Approvals map[string]Approval             `json:"approvals"` // by id
	Acts      map[string]Act                  `json:"acts"`      // by id: begun and not ended
	Audit     []Entry                         `json:"audit"`     // oldest first; the backing array is shared

	Custodians map[string]Custodian `json:"custodians"` // who can hold shares of codes, by account

	AuditBase   string            `json:"audit_base"`  // hash before the oldest entry of Audit
	Checkpoints []Checkpoint      `json:"checkpoints"` // as they came; the backing array is shared
	Signers     map[string]Signer `json:"signers"`     // of the checkpoints, by CertificateHash

	Settings Settings `json:"settings"`
	Lease    Lease    `json:"lease"` // who may change the settings now; zero until somebody does

	Stolen map[string]Stolen `json:"stolen"` // by KeyHash of the identity key that the node had last
}

// Info is what a cluster is.
type Info struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created,omitzero"`
	Owner   []byte    `json:"owner"` // the owner certificate (POC), DER: root of all identities

	Next   []byte   `json:"next,omitempty"`   // the owner that replaces it, DER: a root, too, while the nodes change over
	Former [][]byte `json:"former,omitempty"` // owners before, oldest first: only what was signed then is held to them
}

// Hash is the SHA-256 of the canonical form of s, in hexadecimal. Nodes at the same Index have the same
// Hash; where they have not, replication is broken.
func (s *State) Hash() string {
	h := sha256.New()
	if err := s.encode(h); err != nil {
		panic("cluster: a state that cannot be encoded: " + err.Error()) // a hash does not fail to write
	}
	return hex.EncodeToString(h.Sum(nil))
}

// node finds a member, or says which name is wrong.
func (s *State) node(name string) (Node, error) {
	n, ok := s.Nodes[name]
	if !ok {
		return n, errorf(NotFound, "no node %q is a member of this cluster", name)
	}
	return n, nil
}

func (s *State) slot(label string) (Slot, error) {
	slot, ok := s.Slots[label]
	if !ok {
		return slot, errorf(NotFound, "there is no slot %q", label)
	}
	return slot, nil
}

// seat finds what node has in slot label.
func (s *State) seat(label, node string) (Slot, Seat, error) {
	slot, err := s.slot(label)
	if err != nil {
		return slot, Seat{}, err
	}
	seat, ok := slot.Seats[node]
	if !ok {
		return slot, seat, errorf(NotFound, "node %q has no token in slot %q", node, label)
	}
	return slot, seat, nil
}

// with returns a copy of m in which k has the value v.
func with[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	c[k] = v
	return c
}

// without returns a copy of m that lacks k.
func without[K comparable, V any](m map[K]V, k K) map[K]V {
	c := maps.Clone(m)
	delete(c, k)
	return c
}

// sorted returns the keys of m in order: nothing that apply does may depend on the order of a map.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
