package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Severed is what stops when one node does not trust another any more, and what stays.
type Severed struct {
	Trusting string           `json:"trusting"`
	Trusted  string           `json:"trusted"`
	Edge     TrustEdge        `json:"edge"`   // as it is now
	Mutual   bool             `json:"mutual"` // trusted takes packages from trusting, and goes on to
	Slots    []SeveredSlot    `json:"slots"`
	Packages []SeveredPackage `json:"packages"` // made, not imported, and refused from then on
	Lacks    int              `json:"lacks"`    // keys of trusted that trusting does not have, in all slots
	Only     int              `json:"only"`     // of those: no other node that it trusts has them
	Got      int              `json:"got"`      // keys that trusting has imported from there, and keeps
}

// SeveredSlot is a slot that both nodes have.
type SeveredSlot struct {
	Slot  string   `json:"slot"`
	Lacks int      `json:"lacks"`
	Only  int      `json:"only"`
	Got   int      `json:"got"`  // by the packages that the cluster remembers
	Ways  []string `json:"ways"` // nodes of this slot that trusting goes on to take keys from
}

// SeveredPackage is a package on its way.
type SeveredPackage struct {
	ID      string    `json:"id"`
	SHA256  string    `json:"sha256"`
	Slot    string    `json:"slot"`
	Keys    int       `json:"keys"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Severed tells what would stop if node trusting did not trust node trusted any more.
func (t *Trust) Severed(trusting, trusted string) (Severed, error) {
	return severed(t.m.State(), trusting, trusted, t.m.node.cfg.Now())
}

func severed(s *cluster.State, trusting, trusted string, now time.Time) (Severed, error) {
	for _, name := range []string{trusting, trusted} {
		if _, ok := s.Nodes[name]; !ok {
			return Severed{}, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no node %q in this cluster", name)}}
		}
	}
	e, ok := s.Edge(trusting, trusted)
	if !ok || !e.Holds() {
		return Severed{}, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("node %q does not trust node %q, so there is no trust to remove", trusting, trusted)}}
	}
	v := Severed{Trusting: trusting, Trusted: trusted, Edge: TrustEdge{trusting, trusted, e.Since, e.Removed, e.By}, Mutual: s.Trusts(trusted, trusting),
		Slots: []SeveredSlot{}, Packages: []SeveredPackage{}}
	got := map[string]int{}
	for _, p := range s.Packages {
		if p.Source != trusted || !slices.Contains(p.Receivers, trusting) {
			continue
		}
		r, done := p.Receipts[trusting]
		got[p.Slot] += r.Imported
		if !done && now.Before(p.Expires) && !p.Created.Before(e.Since) {
			v.Packages = append(v.Packages, SeveredPackage{p.ID, p.SHA256, p.Slot, len(p.Keys), p.Created, p.Expires})
		}
	}
	slices.SortFunc(v.Packages, func(a, b SeveredPackage) int { return strings.Compare(a.ID, b.ID) })
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seats := s.Slots[label].Seats
		_, here := seats[trusting]
		_, there := seats[trusted]
		if !here || !there {
			continue
		}
		one := severedSlot(s, label, trusting, trusted)
		one.Got = got[label]
		v.Slots = append(v.Slots, one)
		v.Lacks, v.Only, v.Got = v.Lacks+one.Lacks, v.Only+one.Only, v.Got+one.Got
	}
	return v, nil
}

func severedSlot(s *cluster.State, label, trusting, trusted string) SeveredSlot {
	one := SeveredSlot{Slot: label, Ways: []string{}}
	for _, other := range s.TrustedBy(trusting) {
		if _, seated := s.Slots[label].Seats[other]; seated && other != trusted {
			one.Ways = append(one.Ways, other)
		}
	}
	held := s.Keys[label]
	for fp := range held[trusted].Keys {
		if _, has := held[trusting].Keys[fp]; has {
			continue
		}
		one.Lacks++
		if !slices.ContainsFunc(one.Ways, func(other string) bool { _, has := held[other].Keys[fp]; return has }) {
			one.Only++
		}
	}
	return one
}
