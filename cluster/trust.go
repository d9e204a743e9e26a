package cluster

import (
	"slices"
	"strings"
	"time"
)

// An Edge is the trust of one node in another: whether it takes key packages from there. A removed edge is
// remembered, so that a node can say why it refuses what was made before.
type Edge struct {
	Node    string    `json:"node"`             // which is trusted
	Since   time.Time `json:"since"`            // when the edge was made, the last time
	Removed time.Time `json:"removed,omitzero"` // when it was removed; zero while it holds
	By      string    `json:"by"`               // who made or removed it
}

// Holds tells whether packages are taken by the edge.
func (e Edge) Holds() bool { return !e.Since.IsZero() && e.Removed.IsZero() }

// SetTrust makes or removes one edge: whether node Trusting takes key packages from node Trusted.
type SetTrust struct {
	Trusting string `json:"trusting"`
	Trusted  string `json:"trusted"`
	Trust    bool   `json:"trust"`
}

func (c *SetTrust) Kind() string { return "trust.set" }

func (c *SetTrust) describe() (string, string) {
	verb := "does not trust"
	if c.Trust {
		verb = "trusts"
	}
	return "node/" + c.Trusting, verb + " node/" + c.Trusted
}

func (c *SetTrust) validate() error {
	if c.Trusting == c.Trusted {
		return errorf(Invalid, "node %q and the node it trusts are the same", c.Trusted)
	}
	return check(checkName("node name", c.Trusting), checkName("node name", c.Trusted))
}

func (c *SetTrust) apply(s *State, m Meta) error {
	for _, name := range []string{c.Trusting, c.Trusted} {
		if _, err := s.node(name); err != nil {
			return err
		}
	}
	if c.Trust {
		s.addTrust(c.Trusting, c.Trusted, m)
		return nil
	}
	e, ok := s.Edge(c.Trusting, c.Trusted)
	if !ok || !e.Holds() {
		return errorf(NotFound, "node %q does not trust node %q", c.Trusting, c.Trusted)
	}
	e.Removed, e.By = m.Time, m.Actor.String()
	s.setEdge(c.Trusting, e)
	return nil
}

// Edge is the trust of one node in another, as it is or was; false where there never was any.
func (s *State) Edge(trusting, trusted string) (Edge, bool) {
	i, found := findEdge(s.Trust[trusting], trusted)
	if !found {
		return Edge{}, false
	}
	return s.Trust[trusting][i], true
}

// Trusts tells whether node trusting takes key packages from node trusted.
func (s *State) Trusts(trusting, trusted string) bool {
	e, ok := s.Edge(trusting, trusted)
	return ok && e.Holds()
}

// TrustedBy are the nodes that node trusting takes key packages from, in order.
func (s *State) TrustedBy(trusting string) []string {
	var names []string
	for _, e := range s.Trust[trusting] {
		if e.Holds() {
			names = append(names, e.Node)
		}
	}
	return names
}

func findEdge(edges []Edge, trusted string) (int, bool) {
	return slices.BinarySearchFunc(edges, trusted, func(e Edge, name string) int { return strings.Compare(e.Node, name) })
}

// setEdge puts e in the place of the edge to the same node.
func (s *State) setEdge(trusting string, e Edge) {
	edges := slices.Clone(s.Trust[trusting])
	i, found := findEdge(edges, e.Node)
	if found {
		edges[i] = e
	} else {
		edges = slices.Insert(edges, i, e)
	}
	s.Trust = with(s.Trust, trusting, edges)
}

// addTrust makes an edge, where it does not hold already. It begins anew then: what was made before is not
// taken by it.
func (s *State) addTrust(trusting, trusted string, m Meta) {
	if !s.Trusts(trusting, trusted) {
		s.setEdge(trusting, Edge{Node: trusted, Since: m.Time, By: m.Actor.String()})
	}
}

// trustAll makes edges both ways between node and every other member.
func (s *State) trustAll(node string, m Meta) {
	for _, other := range s.members(node) {
		s.addTrust(node, other, m)
		s.addTrust(other, node, m)
	}
}

// removeTrust forgets every edge from and to node.
func (s *State) removeTrust(node string) {
	s.Trust = without(s.Trust, node)
	for _, trusting := range sorted(s.Trust) {
		edges := slices.DeleteFunc(slices.Clone(s.Trust[trusting]), func(e Edge) bool { return e.Node == node })
		if len(edges) == 0 {
			s.Trust = without(s.Trust, trusting)
		} else {
			s.Trust = with(s.Trust, trusting, edges)
		}
	}
}
