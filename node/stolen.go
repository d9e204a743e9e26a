package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Theft is what is in strange hands when a node was stolen, or somebody took it over, and what declaring it stolen
// takes back.
type Theft struct {
	Losses
	Protector string     `json:"protector"` // what protects the codes that it has stored: one of cluster.Protectors
	Held      []TheftKey `json:"held"`
	Packages  int        `json:"packages"` // for it or by it, not imported yet: they are withdrawn
	Invites   int        `json:"invites"`  // open ones, all of which are withdrawn
	Since     time.Time  `json:"since,omitzero"`
	By        string     `json:"by,omitempty"`
	Record    string     `json:"record,omitempty"` // of a node that was declared stolen: for SettleStolen
	Open      int        `json:"open"`             // keys that nobody has dealt with
}

// TheftKey is a key that a stolen node holds.
type TheftKey struct {
	Slot   string       `json:"slot"`
	Mode   string       `json:"mode"` // who had the code of its token
	Key    cluster.Held `json:"key"`
	Others []string     `json:"others"`       // nodes that hold it, too
	Apps   []string     `json:"applications"` // that use the slot
	Name   string       `json:"name"`         // for SettleStolen
	Dealt  time.Time    `json:"dealt,omitzero"`
	By     string       `json:"by,omitempty"`
}

// Theft tells what would be in strange hands with a member.
func (m *Member) Theft(name string) (Theft, error) {
	l, err := m.Losses(name)
	if err != nil {
		return Theft{}, err
	}
	s := m.State()
	v := Theft{Losses: l, Protector: s.Nodes[name].Protector, Held: []TheftKey{}}
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seat, ok := s.Slots[label].Seats[name]
		if !ok {
			continue
		}
		for _, held := range s.Keys[label][name].Keys {
			v.Held = append(v.Held, theftKey(s, cluster.StolenKey{Slot: label, Mode: seat.Mode, Key: held}, name))
		}
	}
	sortTheft(v.Held)
	v.Open = len(v.Held)
	for _, p := range s.Packages {
		_, done := p.Receipts[name]
		if p.Source == name || slices.Contains(p.Receivers, name) && !done {
			v.Packages++
		}
	}
	for _, i := range s.Invites {
		if i.Used == "" && m.node.cfg.Now().Before(i.Expires) {
			v.Invites++
		}
	}
	return v, nil
}

// Thefts are the nodes that were declared stolen, the latest first.
func (m *Member) Thefts() []Theft {
	s := m.State()
	list := []Theft{}
	for record, r := range s.Stolen {
		v := Theft{Losses: Losses{Node: r.Node, Keys: r.Held, Slots: []LossesSlot{}, Apps: []string{}}, Protector: r.Protector, Held: []TheftKey{},
			Since: r.Time, By: r.By, Record: record, Open: r.Open()}
		for _, k := range r.Keys {
			v.Held = append(v.Held, theftKey(s, k, r.Node))
		}
		sortTheft(v.Held)
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b Theft) int { return cmp.Or(b.Since.Compare(a.Since), strings.Compare(a.Record, b.Record)) })
	return list
}

func theftKey(s *cluster.State, k cluster.StolenKey, thief string) TheftKey {
	v := TheftKey{Slot: k.Slot, Mode: k.Mode, Key: k.Key, Others: []string{}, Apps: []string{}, Name: k.Name(), Dealt: k.Dealt, By: k.By}
	for _, other := range slices.Sorted(maps.Keys(s.Keys[k.Slot])) {
		if _, has := s.Keys[k.Slot][other].Keys[k.Key.Fingerprint]; has && other != thief {
			v.Others = append(v.Others, other)
		}
	}
	for _, app := range slices.Sorted(maps.Keys(s.Apps)) {
		if slices.Contains(s.Apps[app].Slots, k.Slot) {
			v.Apps = append(v.Apps, app)
		}
	}
	return v
}

func sortTheft(keys []TheftKey) {
	slices.SortFunc(keys, func(a, b TheftKey) int {
		return cmp.Or(strings.Compare(a.Slot, b.Slot), strings.Compare(a.Key.Label, b.Key.Label), strings.Compare(a.Key.Fingerprint, b.Key.Fingerprint))
	})
}

// DeclareStolen removes a node that is in strange hands: its membership, the trust in it, its receiver keys, and what
// was on its way to it or from it. It is never let in again, and the keys that it held stay listed; see Thefts.
func (m *Member) DeclareStolen(ctx context.Context, actor cluster.Actor, node string) error {
	if node == m.Name() {
		return refuse("%s cannot declare itself stolen: do it on another node of the cluster", node)
	}
	_, err := m.Cluster.Apply(ctx, &cluster.RemoveNode{Node: node, Stolen: true}, actor)
	return err
}

// SettleStolen says that a key of a stolen node, or with an empty key all of them, are dealt with.
func (m *Member) SettleStolen(ctx context.Context, actor cluster.Actor, record, key string) error {
	_, err := m.Cluster.Apply(ctx, &cluster.SettleStolen{Record: record, Key: key}, actor)
	return err
}
