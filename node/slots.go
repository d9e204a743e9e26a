package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// Slots are the places for keys on this node: each a token, opened with its authentication code.
type Slots struct {
	m    *Member
	wake chan struct{} // there may be something to open or to report

	mu         sync.Mutex
	seats      map[string]*seat // by slot label
	unfinished []seatRecord     // the node stopped while it made their tokens
}

// A seat is this node's token in a slot, as it runs.
type seat struct {
	changing sync.Mutex // one change of code, mode or activation at a time

	// Guarded by Slots.mu.
	rec      seatRecord
	state    cluster.SeatState
	reason   string
	open     bool // somebody logged in; the module keeps the token open through its restarts
	stale    bool // while a code is pending: the token has refused the one before it
	since    time.Time
	by       string    // who opened it
	changes  int       // of the code, since the node started
	stated   stated    // the statement of its receiver keys, as it was last verified
	attested time.Time // when the statement of its receiver keys was last looked at, by Config.Now
	resting  time.Time // a scheduled change that failed is not tried again before

	present      []byte    // the code of a manual slot, kept for its custodians to replace it
	presentUntil time.Time // and wiped then
}

func newSlots(m *Member) *Slots {
	s := &Slots{m: m, wake: make(chan struct{}, 1), seats: map[string]*seat{}}
	records, err := all[seatRecord](m.node.store, bucketSeats)
	if err != nil {
		m.log.Error("the slots of this node cannot be read", "error", err)
	}
	for _, r := range records {
		if r.Serial == "" {
			s.unfinished = append(s.unfinished, r)
			continue
		}
		s.seats[r.Slot] = &seat{rec: r, state: cluster.Down, reason: waitingReason(r), since: time.Now()}
	}
	return s
}

func waitingReason(r seatRecord) string {
	switch {
	case r.Mode == cluster.Shared:
		return "waits for its custodians"
	case r.Changing:
		return "waits for its code; the node stopped while that was being changed, so it is the new one or the old one: try the new one first"
	case r.Mode == cluster.Manual:
		return "waits for somebody to enter its code"
	case r.Refused:
		return refusedReason
	}
	return "opens as soon as its module runs"
}

// nudge wakes the loop that opens and reports slots.
func (s *Slots) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SlotView is what this node knows of a slot: its own token there, with the state of this moment.
type SlotView struct {
	Label  string            `json:"label"`
	Node   string            `json:"node"`
	Module string            `json:"module"`
	Serial string            `json:"serial"`
	Mode   string            `json:"mode"`
	State  cluster.SeatState `json:"state"`
	Reason string            `json:"reason,omitempty"`
	Since  time.Time         `json:"since"`
	By     string            `json:"by,omitempty"` // who opened it
	Keys   int               `json:"keys"`
	Loose  int               `json:"loose,omitempty"` // incomplete objects on the token
	Listed time.Time         `json:"listed,omitzero"` // when the cluster last learned which keys are there
	Min    int               `json:"min_code"`
	Max    int               `json:"max_code"`
	Tried  time.Time         `json:"code_tried,omitzero"` // when the token last took the stored code
	cluster.CodeFacts
}

// Here lists the slots of this node.
func (s *Slots) Here() []SlotView {
	state := s.m.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []SlotView{}
	for _, label := range slices.Sorted(maps.Keys(s.seats)) {
		t := s.seats[label]
		inv := state.Keys[label][s.m.Name()]
		list = append(list, SlotView{Label: label, Node: s.m.Name(), Module: t.rec.Module, Serial: t.rec.Serial, Mode: t.rec.Mode,
			State: t.state, Reason: t.reason, Since: t.since, By: t.by, Keys: len(inv.Keys), Loose: inv.Loose, Listed: inv.Reported, Min: t.rec.MinCode, Max: t.rec.MaxCode,
			Tried: t.rec.Tried, CodeFacts: t.rec.facts()})
	}
	return list
}

// One returns one slot of this node.
func (s *Slots) One(label string) (SlotView, error) {
	for _, v := range s.Here() {
		if v.Label == label {
			return v, nil
		}
	}
	return SlotView{}, s.absent(label)
}

func (s *Slots) absent(label string) error {
	return refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no slot %q on node %s", label, s.m.Name())}}
}

// lock finds a seat and keeps other changes away from it.
func (s *Slots) lock(label string) (*seat, func(), error) {
	s.mu.Lock()
	t := s.seats[label]
	s.mu.Unlock()
	if t == nil {
		return nil, nil, s.absent(label)
	}
	for patience := time.Now().Add(lockPatience); !t.changing.TryLock(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(patience) {
			return nil, nil, refuse("slot %q is just being changed by somebody else; try again in a moment", label)
		}
	}
	return t, func() { t.changing.Unlock(); s.nudge() }, nil // what changed is reported once it is let go
}

// recordOf is what the node has stored of a seat.
func (s *Slots) recordOf(t *seat) seatRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.rec
}

// lockCode is lock for whoever brings the present code. When somebody else has changed it during the wait,
// the token would refuse what was right a moment ago, and count a wrong try.
func (s *Slots) lockCode(label string) (*seat, func(), error) {
	s.mu.Lock()
	before := 0
	if t := s.seats[label]; t != nil {
		before = t.changes
	}
	s.mu.Unlock()
	t, unlock, err := s.lock(label)
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	changed := t.changes != before
	s.mu.Unlock()
	if changed {
		unlock()
		return nil, nil, refuse("somebody else has just changed the code of slot %q, so nothing was tried; look at the slot again first", label)
	}
	return t, unlock, nil
}

// lockPatience is how long a change of a slot waits for another one: a login takes less.
const lockPatience = 2 * time.Second

// record is what the node has stored of a slot.
func (s *Slots) record(label string) (seatRecord, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.seats[label]; t != nil {
		return t.rec, nil
	}
	return seatRecord{}, s.absent(label)
}

// token returns the token of a slot that is open.
func (s *Slots) token(label string) (*hsm.Token, error) {
	s.mu.Lock()
	t := s.seats[label]
	var rec seatRecord
	var state cluster.SeatState
	if t != nil {
		rec, state = t.rec, t.state
	}
	s.mu.Unlock()
	if t == nil {
		return nil, s.absent(label)
	}
	if state != cluster.Active {
		return nil, refuse("slot %q is not activated on node %s; activate it first", label, s.m.Name())
	}
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return nil, err
	}
	return mod.Token(rec.Serial), nil
}

// NewSlot says which slot to make on this node.
type NewSlot struct {
	Label  string `json:"label"`
	Module string `json:"module,omitempty"` // the first one when empty
	Mode   string `json:"mode"`
	Code   []byte `json:"code,omitempty"`   // manual mode
	Serial string `json:"serial,omitempty"` // take this token, which is there already and has that code, instead of a new one
}

// Create gives this node a token in a slot: a new one or, with a serial number, one that is there
// already. The officer code of a new token is random and thrown away, so that nobody can reset the user
// code by it.
func (s *Slots) Create(ctx context.Context, actor cluster.Actor, n NewSlot) error {
	defer clear(n.Code)
	n.Label = strings.TrimSpace(n.Label)
	if n.Label == identity.AdminLabel {
		return refuse("%q is the name of the admin token", identity.AdminLabel)
	}
	if n.Mode != cluster.Generated && n.Mode != cluster.Manual {
		return refuse("a slot's mode is %q or %q, not %q", cluster.Generated, cluster.Manual, n.Mode)
	}
	s.mu.Lock()
	_, taken := s.seats[n.Label]
	s.mu.Unlock()
	if taken {
		return refusal{&cluster.Error{Code: cluster.Conflict, Message: fmt.Sprintf("node %s has a slot %q already", s.m.Name(), n.Label)}}
	}
	mod := s.m.node.modules[0]
	if n.Module != "" {
		var err error
		if mod, err = s.m.node.module(n.Module); err != nil {
			return refusal{err}
		}
	}
	rec := seatRecord{Slot: n.Label, Module: mod.Name(), Serial: n.Serial, Mode: n.Mode, By: actor}
	if err := cluster.CheckLabel(n.Label); err != nil {
		return refusal{err}
	}
	if err := s.limits(ctx, mod, &rec, n); err != nil {
		return err
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayManageSlots, "slot.create", "slot/" + n.Label, "mode " + n.Mode + ", module " + rec.Module}, func() error {
		if n.Serial != "" {
			return s.adopt(ctx, mod, rec, n.Code)
		}
		return s.initialize(ctx, mod, rec, n.Code)
	})
}

// limits finds what codes the token will take, and checks the given one.
func (s *Slots) limits(ctx context.Context, mod *hsm.Module, rec *seatRecord, n NewSlot) error {
	info, err := mod.Info(ctx)
	if err != nil {
		return err
	}
	for _, t := range info.Tokens {
		if t.Initialized && t.Label == n.Label && n.Serial == "" {
			return refuse("module %s has a token %q already (serial %s); take that one, or choose another label", mod.Name(), t.Label, t.Serial)
		}
	}
	i := slices.IndexFunc(info.Tokens, func(t hsm.TokenInfo) bool {
		return n.Serial == "" && !t.Initialized || n.Serial != "" && t.Serial == n.Serial && t.Initialized
	})
	switch {
	case i < 0 && n.Serial != "":
		return refuse("module %s shows no token with the serial number %s", mod.Name(), n.Serial)
	case i < 0:
		return refuse("module %s has no free slot for another token", mod.Name())
	case n.Serial != "" && info.Tokens[i].Label != n.Label:
		return refuse("the token with the serial number %s is called %q, so the slot must be too", n.Serial, info.Tokens[i].Label)
	}
	rec.MinCode, rec.MaxCode = info.Tokens[i].MinCode, info.Tokens[i].MaxCode
	if n.Serial != "" {
		if len(n.Code) == 0 {
			return refuse("the token %q is there already: its code is needed to take it", n.Label)
		}
		return nil
	}
	if n.Mode == cluster.Manual {
		return checkManual(n.Code, rec.MinCode, rec.MaxCode)
	}
	return nil
}

// initialize makes a token. What is to become of it is stored before, so that a node which stops in
// between finds it again.
func (s *Slots) initialize(ctx context.Context, mod *hsm.Module, rec seatRecord, code []byte) error {
	code = bytes.Clone(code)
	defer func() { clear(code) }()
	if rec.Mode == cluster.Generated {
		var err error
		if code, err = generatedCode(rec.MinCode, rec.MaxCode); err != nil {
			return err
		}
		if rec.Code, err = s.sealCode(&rec, code); err != nil {
			return err
		}
	}
	if err := s.save(rec); err != nil {
		return err
	}
	s.m.node.cfg.Fault("slot: recorded")
	officer := newCode(maxGenerated)
	if rec.MaxCode > 0 {
		officer = officer[:min(len(officer), rec.MaxCode)]
	}
	made, err := mod.InitToken(ctx, rec.Slot, officer, bytes.Clone(code))
	if made.Serial == "" {
		if !errors.Is(err, hsm.Timeout) && !errors.Is(err, hsm.Down) {
			s.m.node.store.drop(bucketSeats, rec.Slot) // it was not made for sure
		}
		return fmt.Errorf("making the token: %w", err)
	}
	s.m.node.cfg.Fault("slot: token made")
	rec.Serial, rec.CodeSince = made.Serial, time.Now().UTC().Round(0)
	return s.begin(ctx, mod, rec, code)
}

// adopt takes a token that is there. To have a generated code it gets a new one.
func (s *Slots) adopt(ctx context.Context, mod *hsm.Module, rec seatRecord, code []byte) error {
	mode := rec.Mode
	rec.Mode = cluster.Manual // its code came from people, until it is changed
	if err := mod.Token(rec.Serial).Login(ctx, code, true); err != nil {
		return codeError(rec.Slot, err)
	}
	if err := s.begin(ctx, mod, rec, code); err != nil || mode == cluster.Manual {
		return err
	}
	t, unlock, err := s.lock(rec.Slot)
	if err != nil {
		return err
	}
	defer unlock()
	return s.toGenerated(ctx, t, code)
}

// begin stores a new seat, opens it, and has the cluster told.
func (s *Slots) begin(ctx context.Context, mod *hsm.Module, rec seatRecord, code []byte) error {
	if err := s.save(rec); err != nil {
		return err
	}
	t := &seat{rec: rec, state: cluster.Down, reason: waitingReason(rec), since: time.Now()}
	s.mu.Lock()
	s.seats[rec.Slot] = t
	s.mu.Unlock()
	s.m.node.cfg.Fault("slot: stored")
	t.changing.Lock()
	defer t.changing.Unlock()
	if err := s.login(ctx, t, code, rec.By.String(), time.Time{}); err != nil {
		return err
	}
	return s.tell(ctx, t)
}

// tell makes the seat known to the cluster, in the name of who made it, or of the node where that person
// may do so no more: the token is as it is.
func (s *Slots) tell(ctx context.Context, t *seat) error {
	s.mu.Lock()
	rec, state, reason := t.rec, t.state, t.reason
	s.mu.Unlock()
	put := &cluster.PutSeat{Slot: rec.Slot, Seat: cluster.Seat{
		Module: rec.Module, Serial: rec.Serial, Mode: rec.Mode, State: state, Reason: reason,
		Receiver: rec.Receiver, MinCode: rec.MinCode, MaxCode: rec.MaxCode, Generation: rec.Generation, Next: rec.Next, CodeFacts: rec.facts(),
	}}
	_, err := s.m.Cluster.Apply(ctx, put, rec.By)
	if errors.Is(err, cluster.Denied) {
		_, err = s.m.Cluster.Apply(ctx, put, s.m.self())
	}
	if err != nil {
		return err
	}
	return s.update(t, func() { t.rec.Told = true })
}

// update changes a seat and stores its record.
func (s *Slots) update(t *seat, f func()) error {
	s.mu.Lock()
	f()
	rec := t.rec
	s.mu.Unlock()
	return s.save(rec)
}
