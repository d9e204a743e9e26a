package node

import (
	"maps"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A HeldCode is who holds the code of one token, and what has become of that code.
type HeldCode struct {
	Slot      string            `json:"slot"`
	Node      string            `json:"node"`
	Mode      string            `json:"mode"`
	State     cluster.SeatState `json:"state"`
	Threshold int               `json:"threshold,omitempty"`    // so many custodians are needed
	Holders   []string          `json:"holders,omitempty"`      // accounts of the custodians
	Protector string            `json:"protector,omitempty"`    // of the node key that seals a generated code
	Rotate    int               `json:"rotate_every,omitempty"` // days
	Due       time.Time         `json:"rotation_due,omitzero"`
	cluster.CodeFacts
}

// CustodyMap lists who holds which code, by slot and node.
func CustodyMap(s *cluster.State) []HeldCode {
	list := []HeldCode{}
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		slot := s.Slots[label]
		for _, name := range slices.Sorted(maps.Keys(slot.Seats)) {
			seat := slot.Seats[name]
			c := HeldCode{Slot: label, Node: name, Mode: seat.Mode, State: seat.State, CodeFacts: seat.CodeFacts}
			switch seat.Mode {
			case cluster.Generated:
				c.Protector, c.Rotate, c.Due = s.Nodes[name].Protector, slot.RotateEvery, RotationDue(slot, seat)
			case cluster.Manual:
			default:
				c.Threshold, c.Holders = custodians(slot, seat)
			}
			list = append(list, c)
		}
	}
	return list
}

// custodians are how many must come together for a code in shares, and of whom.
func custodians(slot cluster.Slot, seat cluster.Seat) (threshold int, holders []string) {
	p, _ := slot.Generation(seat.Generation)
	return p.Threshold, p.Holders()
}
