package webconf

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type slotsView struct {
	Node   string
	Here   []slotRow
	Absent []absentSlot
	Others []otherSeat
	Hidden int // other nodes' active slots that are not listed
	Active int
}

// A slotRow is one slot of this node.
type slotRow struct {
	node.SlotView
	Apps []string // that use it here
}

// Closed tells whether somebody can open the slot by entering its code.
func (s slotRow) Closed() bool { return s.Mode == cluster.Manual && s.State == cluster.Down }

// Together tells whether custodians have to come to open the slot.
func (s slotRow) Together() bool { return s.Mode == cluster.Shared && s.State == cluster.Down }

// An absentSlot is one that other nodes have and this one has not.
type absentSlot struct {
	Label string
	Nodes []string
}

// An otherSeat is another node's token in a slot.
type otherSeat struct {
	Label string
	URL   string // of the slot's page on that node
	cluster.Seat
	Answers bool
	Keys    int
}

func slotsPage(c *call) error {
	return c.show(page{Name: "slots", Title: "PKCS#11 slots", Nav: "/slots", Data: newSlotsView(c.look())})
}

func newSlotsView(v *situation) slotsView {
	s := slotsView{Node: v.Node, Active: v.active()}
	for _, here := range v.Slots {
		s.Here = append(s.Here, slotRow{here, v.apps(here.Label)})
	}
	for _, label := range slices.Sorted(maps.Keys(v.State.Slots)) {
		slot := v.State.Slots[label]
		others := v.others(slot)
		s.Others = append(s.Others, others...)
		if v.has(label) || len(others) == 0 {
			continue
		}
		absent := absentSlot{Label: label}
		for _, o := range others {
			absent.Nodes = append(absent.Nodes, o.Node)
		}
		s.Absent = append(s.Absent, absent)
	}
	if len(s.Others) > mostSeats {
		all := len(s.Others)
		s.Others = slices.DeleteFunc(s.Others, func(o otherSeat) bool { return o.Answers && o.State == cluster.Active })
		s.Hidden = all - len(s.Others)
	}
	return s
}

// has tells whether this node has a token in a slot, also one that the cluster does not know yet.
func (v *situation) has(label string) bool {
	return slices.ContainsFunc(v.Slots, func(s node.SlotView) bool { return s.Label == label })
}

// others are the tokens that other nodes have in a slot.
func (v *situation) others(slot cluster.Slot) []otherSeat {
	var list []otherSeat
	for _, name := range slices.Sorted(maps.Keys(slot.Seats)) {
		if name == v.Node {
			continue
		}
		list = append(list, otherSeat{slot.Label, v.State.Nodes[name].WebURL + slotPath(slot.Label), slot.Seats[name], v.Seen[name].Answers, len(v.State.Keys[slot.Label][name].Keys)})
	}
	return list
}

// apps are the applications that use a slot on this node.
func (v *situation) apps(label string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(v.State.Apps)) {
		a := v.State.Apps[name]
		if slices.Contains(a.Slots, label) && (len(a.Nodes) == 0 || slices.Contains(a.Nodes, v.Node)) {
			names = append(names, name)
		}
	}
	return names
}

type slotView struct {
	Split   cluster.Split // that the token here has its code from
	Newest  string        // how many custodians there are, and who; empty: none
	Label   string
	Node    string
	Slot    *slotRow // nil when this node has no token in it
	Others  []otherSeat
	Sealing node.Sealing // what protects a generated code
	Gaps    int          // keys of the slot that are not everywhere
	Keys    int          // keys of the slot on any node
	MinCode int          // characters

	Rotates cluster.Slot // as the cluster knows it: when nodes replace generated codes
}

// OtherNodes are the names of the other nodes that have a token in the slot.
func (v slotView) OtherNodes() []string {
	var names []string
	for _, o := range v.Others {
		names = append(names, o.Node)
	}
	return names
}

func slotPage(c *call) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	return showSlot(c, label, nil)
}

// showSlot shows a slot, with the one of its forms that was not accepted.
func showSlot(c *call, label string, f *form) error {
	v, err := newSlotView(c.look(), label)
	if err != nil {
		return err
	}
	v.Sealing = c.m.Node().Sealing()
	p := page{Name: "slot", Title: "Slot " + label, Nav: "/slots", Crumbs: []crumb{{"PKCS#11 slots", "/slots"}}, Form: f, Data: v}
	return c.show(p)
}

func newSlotView(s *situation, label string) (slotView, error) {
	v := slotView{Label: label, Node: s.Node, MinCode: node.MinCode}
	slot, known := s.State.Slots[label]
	v.Others, v.Rotates = s.others(slot), slot
	v.Split, _ = slot.Generation(slot.Seats[s.Node].Generation)
	if p, ok := slot.Newest(); ok {
		v.Newest = custodyWords(p) + ": " + and(p.Holders())
	}
	for _, here := range s.Slots {
		if here.Label == label {
			v.Slot = &slotRow{here, s.apps(label)}
			v.MinCode = max(node.MinCode, here.Min)
		}
	}
	if v.Slot == nil && !known {
		return v, &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no slot %q in this cluster", label)}
	}
	for _, k := range s.Coverage {
		if k.Slot == label {
			v.Keys++
			if !k.Complete() {
				v.Gaps++
			}
		}
	}
	return v, nil
}
