package node

import (
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cluster"
)

// Losses is what the cluster would not have any more without a node, as far as the replicated state tells.
type Losses struct {
	Node    string       `json:"node"`
	Member  bool         `json:"member"`
	Answers bool         `json:"answers"`
	Owner   bool         `json:"owner"` // no other node that answers holds the owner key
	Slots   []LossesSlot `json:"slots"` // in which it has a token
	Keys    int          `json:"keys"`  // that it holds, in all slots
	Alone   int          `json:"alone"` // of those: no other node does
	Apps    []string     `json:"applications"`
}

// LossesSlot is one token of the node.
type LossesSlot struct {
	Slot   string   `json:"slot"`
	Keys   int      `json:"keys"`
	Alone  int      `json:"alone"`
	Shared bool     `json:"shared"` // custodians share its code, which goes with the node
	Others []string `json:"others"` // nodes that have the slot, too
}

// Losses tells what goes with a node when it is removed, or when its HSM is lost. For a name that is no
// member's it is empty, but for the name.
func (m *Member) Losses(name string) (Losses, error) {
	if err := cluster.CheckNodeName(name); err != nil {
		return Losses{}, refusal{err}
	}
	l := losses(m.State(), name)
	l.Answers = l.Member && m.Peers.Seen(name).Answers
	l.Owner = l.Member && !slices.ContainsFunc(slices.Collect(maps.Keys(m.State().Nodes)), func(other string) bool {
		seen := m.Peers.Seen(other)
		return other != name && seen.Answers && seen.Health.HoldsOwner
	})
	return l, nil
}

func losses(s *cluster.State, name string) Losses {
	_, member := s.Nodes[name]
	l := Losses{Node: name, Member: member, Slots: []LossesSlot{}, Apps: []string{}}
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seat, ok := s.Slots[label].Seats[name]
		if !ok {
			continue
		}
		one := LossesSlot{Slot: label, Shared: seat.Mode == cluster.Shared || seat.Next > 0, Others: []string{}}
		for _, other := range slices.Sorted(maps.Keys(s.Slots[label].Seats)) {
			if other != name {
				one.Others = append(one.Others, other)
			}
		}
		held := s.Keys[label]
		for fp := range held[name].Keys {
			one.Keys++
			if !slices.ContainsFunc(one.Others, func(other string) bool { _, has := held[other].Keys[fp]; return has }) {
				one.Alone++
			}
		}
		l.Slots = append(l.Slots, one)
		l.Keys, l.Alone = l.Keys+one.Keys, l.Alone+one.Alone
	}
	for _, app := range slices.Sorted(maps.Keys(s.Apps)) {
		if nodes := s.Apps[app].Nodes; len(nodes) == 1 && nodes[0] == name {
			l.Apps = append(l.Apps, app)
		}
	}
	return l
}
