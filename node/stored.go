package node

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// refusedReason is what a generated slot says whose stored code the token does not take.
const refusedReason = "the token refuses the stored code: another program has changed it. The stored code is not tried again: " +
	"enter the code as it is now, or switch the slot to manual mode with it"

// isRefused tells whether an error means that a code is wrong, or that the token takes none any more.
func isRefused(err error) bool {
	return errors.Is(err, hsm.WrongCode) || errors.Is(err, hsm.CodeLocked)
}

// refuse notes that the token did not take the stored code. While another code is pending, that one may be
// right. It tells whether the record must be stored. The caller holds Slots.mu.
func (t *seat) refuse(err error) bool {
	switch {
	case !isRefused(err):
		return false
	case t.rec.Pending != nil || t.rec.Leaving || t.rec.Next > 0:
		t.stale = true
		return false
	case t.rec.Mode != cluster.Generated || t.rec.Refused:
		return false
	}
	t.rec.Refused = true
	if !t.open {
		t.state, t.reason = cluster.Down, refusedReason
	}
	return true
}

// refuseStored is refuse for those who do not hold Slots.mu.
func (s *Slots) refuseStored(t *seat, why error) {
	s.mu.Lock()
	changed, rec := t.refuse(why), t.rec
	s.mu.Unlock()
	if mod, err := s.m.node.module(rec.Module); err == nil && rec.Refused {
		mod.Token(rec.Serial).Forget() // the worker's next start must not try it either
	}
	if changed {
		if err := s.save(rec); err != nil {
			s.m.log.Error("a slot's record cannot be stored", "slot", rec.Slot, "error", err)
		}
	}
	s.nudge()
}

// openStored opens a seat with what the node has stored, if there is something and it was not refused. It
// also finds out which of two codes is right, after a change that was cut off. The caller holds t.changing.
func (s *Slots) openStored(ctx context.Context, t *seat) {
	s.mu.Lock()
	rec, open, stale := t.rec, t.open, t.stale
	s.mu.Unlock()
	switch {
	case rec.Refused || rec.Code == nil && rec.Pending == nil:
		return
	case open:
		s.settleOpen(ctx, t)
		return
	case s.m.StillMember() != nil:
		return
	}
	for _, sealed := range [][]byte{rec.Pending, rec.Code} { // a pending code is the newer one
		if sealed == nil || stale && bytes.Equal(sealed, rec.Code) {
			continue
		}
		code, err := s.unsealCode(&rec, sealed)
		if err == nil {
			err = s.login(ctx, t, code, s.m.self().String(), time.Time{})
			clear(code)
		}
		switch {
		case err == nil:
			s.settle(t, sealed)
			return
		case errors.Is(err, hsm.CodeLocked): // which of them was right cannot be told any more
			if err := s.update(t, func() { t.rec.Refused = true }); err != nil {
				s.m.log.Error("a slot's record cannot be stored", "slot", rec.Slot, "error", err)
			}
			return
		case !isRefused(err):
			s.m.log.Error("slot does not open", "slot", rec.Slot, "error", err)
			return // the module may come back: try again later
		}
	}
	s.unsettled(t)
}

// settleOpen ends a change of which the answer did not come, at a token that is open all the same: the
// module has opened it again since, so what it holds is right.
func (s *Slots) settleOpen(ctx context.Context, t *seat) {
	rec := s.recordOf(t)
	if rec.Pending == nil && !rec.Leaving && rec.Next == 0 {
		return
	}
	mod, err := s.m.node.module(rec.Module)
	if err == nil {
		_, err = mod.Info(ctx) // waits for a child that is just starting, and opening its tokens
	}
	if err != nil {
		return
	}
	for _, sealed := range [][]byte{rec.Pending, rec.Code} {
		if sealed == nil {
			continue
		}
		code, err := s.unsealCode(&rec, sealed)
		if err != nil {
			s.m.log.Error("a stored code does not open", "slot", rec.Slot, "error", err)
			return
		}
		_, same := mod.Token(rec.Serial).Holds(code)
		clear(code)
		if same {
			s.settle(t, sealed)
			return
		}
	}
}

// settle records which of two codes turned out to be right.
func (s *Slots) settle(t *seat, right []byte) {
	s.mu.Lock()
	clean := t.rec.Pending == nil && !t.rec.Leaving && t.rec.Next == 0
	changed := t.rec.Pending != nil && bytes.Equal(right, t.rec.Pending)
	s.mu.Unlock()
	if clean {
		return
	}
	if err := s.update(t, func() {
		since := t.rec.CodeSince
		t.rec.set(cluster.Generated, right)
		if !changed {
			t.rec.CodeSince = since
		}
		t.stale = false
	}); err != nil {
		s.m.log.Error("a slot's record cannot be stored", "error", err)
	}
	s.nudge()
}

// unsettled records that no stored code is right.
func (s *Slots) unsettled(t *seat) {
	err := s.update(t, func() {
		switch {
		case t.rec.Mode == cluster.Shared: // the node stopped before a generated code was set
			t.rec.Pending = nil
		case t.rec.Next > 0 && t.rec.Mode == cluster.Generated: // the token has taken the shared code
			t.rec.share(t.rec.Next)
			t.state, t.reason = cluster.Down, waitingReason(t.rec)
		case t.rec.Leaving || t.rec.Mode == cluster.Manual:
			// The node stopped while people took the code over, or before a generated one was set.
			since := t.rec.CodeSince
			if t.rec.Leaving {
				since = time.Now().UTC().Round(0)
			}
			t.rec.set(cluster.Manual, nil)
			t.rec.CodeSince, t.rec.Told = since, false
			t.state, t.reason = cluster.Down, waitingReason(t.rec)
		default:
			t.rec.Pending, t.rec.Refused = nil, true
			t.state, t.reason = cluster.Down, refusedReason
		}
		t.stale = false
	})
	if err != nil {
		s.m.log.Error("a slot's record cannot be stored", "error", err)
	}
	s.nudge()
}
