package cluster

import (
	"strings"
	"time"
)

// Slot is one place for keys, with a token in the HSM of each node that takes part: its seats.
type Slot struct {
	Label       string          `json:"label"`
	Created     time.Time       `json:"created"`
	Seats       map[string]Seat `json:"seats"`                  // by node
	RotateEvery int             `json:"rotate_every,omitempty"` // days after which nodes replace generated codes; 0: never
	RotateSince time.Time       `json:"rotate_since,omitzero"`  // when that was decided
	Custody     []Split         `json:"custody,omitempty"`      // of codes that people share, the newest generation last
}

// Seat is what one node has in a slot.
type Seat struct {
	Node     string    `json:"node"`
	Module   string    `json:"module"` // name of the PKCS#11 module on that node
	Serial   string    `json:"serial"` // of the token: slots are addressed by it, never by slot number
	Mode     string    `json:"mode"`   // Generated, Manual or Shared
	State    SeatState `json:"state"`
	Reason   string    `json:"reason,omitempty"`   // of the state, for people
	Since    time.Time `json:"since"`              // when the state began
	By       string    `json:"by"`                 // who made the seat as it is
	Receiver string    `json:"receiver,omitempty"` // signed statement of the keys that receive packages (JWS), carried unread
	MinCode  int       `json:"min_code"`           // shortest authentication code the token takes
	MaxCode  int       `json:"max_code"`           // longest
	CodeFacts

	Generation int `json:"generation,omitempty"` // of the shared code that the token has
	Next       int `json:"next,omitempty"`       // that it is just getting, or may have got before the node stopped
}

// CodeFacts is what a node tells of the authentication code of a seat: never the code, only what has
// become of it. Instants are by the clock of that node.
type CodeFacts struct {
	CodeSince   time.Time `json:"code_since,omitzero"`    // when the code was last changed through Keyferry; zero: never
	CodeRefused bool      `json:"code_refused,omitempty"` // the token does not take the stored code, which is not tried again
	Opened      time.Time `json:"opened,omitzero"`        // last activation
	OpenedBy    string    `json:"opened_by,omitempty"`    // whose it was
}

func (f *CodeFacts) validate() error {
	return check(checkInstant("the last change of the code", f.CodeSince), checkInstant("the last activation", f.Opened),
		checkText("who activated", f.OpenedBy, maxText))
}

// checkInstant is checkTime for an instant that may not have been.
func checkInstant(what string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return checkTime(what, t)
}

// Authentication modes.
const (
	Generated = "generated" // the node made the code and keeps it
	Manual    = "manual"    // people keep the code
	Shared    = "shared"    // manual, m of n: the code exists only as shares of custodians
)

// SeatState is whether applications can use the token.
type SeatState string

// States of a seat.
const (
	Active SeatState = "active"
	Down   SeatState = "down"   // waits to be activated
	Broken SeatState = "failed" // does not work; Reason says why
)

// PutSeat gives the node where the actor works a token in a slot, or changes it. The first seat makes
// the slot.
type PutSeat struct {
	Slot string `json:"slot"`
	Seat Seat   `json:"seat"` // Node, Since and By are set by apply
}

func (c *PutSeat) slot() string { return c.Slot }
func (c *PutSeat) Kind() string { return "seat.put" }

func (c *PutSeat) describe() (string, string) {
	return "slot/" + c.Slot, "token " + c.Seat.Serial + " of " + c.Seat.Module + ", mode " + c.Seat.Mode
}

func (c *PutSeat) validate() error {
	seat := &c.Seat
	return check(checkLabel(c.Slot), checkLine("module name", seat.Module, 64), checkLine("token serial", seat.Serial, maxSerial),
		checkOneOf("mode", seat.Mode, Generated, Manual, Shared), checkSeat(seat.State, seat.Reason, seat.Receiver),
		checkRange("shortest code", seat.MinCode, 0, maxCode), checkRange("longest code", seat.MaxCode, seat.MinCode, maxCode), seat.CodeFacts.validate(),
		checkRange("generation", seat.Generation, 0, maxGeneration), checkRange("next generation", seat.Next, 0, maxGeneration))
}

func checkSeat(state SeatState, reason, receiver string) error {
	return check(checkOneOf("state", string(state), string(Active), string(Down), string(Broken)),
		checkText("reason", reason, maxText), checkBlob("receiver statement", receiver, maxStatement))
}

func (c *PutSeat) apply(s *State, m Meta) error {
	for _, label := range sorted(s.Slots) {
		if other, ok := s.Slots[label].Seats[m.Node]; ok && label != c.Slot && other.Serial == c.Seat.Serial {
			return errorf(Conflict, "the token with the serial %s is in slot %q already", other.Serial, label)
		}
	}
	slot, ok := s.Slots[c.Slot]
	if !ok {
		if len(s.Slots) >= maxSlots {
			return errorf(Full, "the cluster has %d slots, which is the most it can have", len(s.Slots))
		}
		slot = Slot{Label: c.Slot, Created: m.Time}
	}
	seat := c.Seat
	seat.Node, seat.Since, seat.By = m.Node, m.Time, m.Actor.String()
	if old, ok := slot.Seats[m.Node]; ok && old.State == seat.State {
		seat.Since = old.Since
	}
	if seat.Mode != Shared && slot.Seats[m.Node].Mode == Shared {
		slot.leaves(m.Node)
	}
	s.putSeat(slot, seat)
	return nil
}

// putSeat stores seat in slot.
func (s *State) putSeat(slot Slot, seat Seat) {
	slot.Seats = with(slot.Seats, seat.Node, seat)
	if len(slot.Custody) > 0 {
		slot.forget()
	}
	s.Slots = with(s.Slots, slot.Label, slot)
}

// ReportSeat is a node's word on the state of its token in a slot.
type ReportSeat struct {
	Slot     string    `json:"slot"`
	State    SeatState `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Receiver string    `json:"receiver,omitempty"` // empty: as it was
	Next     int       `json:"next,omitempty"`     // generation of the shared code that the token may have by now
	CodeFacts
}

func (c *ReportSeat) Kind() string               { return "seat.report" }
func (c *ReportSeat) describe() (string, string) { return "slot/" + c.Slot, string(c.State) }

func (c *ReportSeat) validate() error {
	return check(checkLabel(c.Slot), checkSeat(c.State, c.Reason, c.Receiver), c.CodeFacts.validate(), checkRange("next generation", c.Next, 0, maxGeneration))
}

func (c *ReportSeat) apply(s *State, m Meta) error {
	slot, seat, err := s.seat(c.Slot, m.Node)
	if err != nil {
		return err
	}
	old := seat
	seat.State, seat.Reason, seat.CodeFacts, seat.Next = c.State, c.Reason, c.CodeFacts, c.Next
	if c.Next > 0 {
		if _, ok := slot.Generation(c.Next); !ok { // before the token has a code that nobody could rebuild
			return errorf(Conflict, "slot %q has no shared code of generation %d any more", c.Slot, c.Next)
		}
	}
	if c.Receiver != "" {
		seat.Receiver = c.Receiver
	}
	if seat == old {
		return nil
	}
	if seat.CodeRefused && !old.CodeRefused {
		s.record(m, Entry{Act: NoteCodeDiffers, Object: "slot/" + c.Slot, Result: Failed,
			Detail: "the token of node " + m.Node + " does not take the stored code: another program has changed it; it is not tried again"})
	}
	if seat.State != old.State {
		seat.Since = m.Time
		detail := string(old.State) + " to " + string(seat.State)
		if seat.Reason != "" {
			detail += ": " + seat.Reason
		}
		s.record(m, Entry{Act: c.Kind(), Object: "slot/" + c.Slot, Result: Done, Detail: detail})
	}
	s.putSeat(slot, seat)
	return nil
}

// SetRotation says after how many days nodes replace the generated codes of a slot.
type SetRotation struct {
	Slot string `json:"slot"`
	Days int    `json:"days"` // 0: never
}

func (c *SetRotation) Kind() string { return "slot.rotation" }

func (c *SetRotation) describe() (string, string) {
	if c.Days == 0 {
		return "slot/" + c.Slot, "never"
	}
	return "slot/" + c.Slot, "every " + plural(c.Days, "day")
}

func (c *SetRotation) validate() error {
	return check(checkLabel(c.Slot), checkRange("days between two changes of a code", c.Days, 0, maxRotation))
}

func (c *SetRotation) apply(s *State, m Meta) error {
	slot, err := s.slot(c.Slot)
	if err != nil {
		return err
	}
	slot.RotateEvery, slot.RotateSince = c.Days, m.Time
	s.Slots = with(s.Slots, c.Slot, slot)
	return nil
}

// RemoveSeat forgets what a node has in a slot, and the slot with its last seat. The token itself stays
// as it is.
type RemoveSeat struct {
	Slot   string `json:"slot"`
	Node   string `json:"node"`
	GiveUp bool   `json:"give_up,omitempty"` // also where the token has a code that custodians share: its keys are lost
}

func (c *RemoveSeat) slot() string { return c.Slot }
func (c *RemoveSeat) Kind() string { return "seat.remove" }

func (c *RemoveSeat) describe() (string, string) {
	return "slot/" + c.Slot, strings.TrimSuffix("node/"+c.Node+": "+givenUp(c.GiveUp), ": ")
}

func (c *RemoveSeat) validate() error {
	return check(checkLabel(c.Slot), checkName("node name", c.Node))
}

func (c *RemoveSeat) apply(s *State, m Meta) error {
	if _, _, err := s.seat(c.Slot, c.Node); err != nil {
		return err
	}
	if err := s.keepsShared(c.Slot, c.Node, c.GiveUp); err != nil {
		return err
	}
	s.removeSeat(c.Slot, c.Node)
	return nil
}

// removeSeat drops a seat and its inventory, where there is one.
func (s *State) removeSeat(label, node string) {
	slot := s.Slots[label]
	if _, ok := slot.Seats[node]; !ok {
		return
	}
	if len(slot.Seats) == 1 {
		s.Slots, s.Keys = without(s.Slots, label), without(s.Keys, label)
		s.ungrant(label)
		return
	}
	slot.Seats = without(slot.Seats, node)
	if len(slot.Custody) > 0 {
		slot.leaves(node)
		slot.forget()
	}
	s.Slots = with(s.Slots, label, slot)
	if held, ok := s.Keys[label]; ok {
		s.Keys = with(s.Keys, label, without(held, node))
	}
}
