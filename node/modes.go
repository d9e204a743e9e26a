package node

import (
	"context"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// ChangeCode replaces the code of a manual slot. The token checks the old one, once.
func (s *Slots) ChangeCode(ctx context.Context, actor cluster.Actor, label string, old, code []byte) error {
	defer clear(old)
	defer clear(code)
	t, unlock, err := s.lockCode(label)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	if rec.Mode != cluster.Manual {
		return refuse("the code of slot %q was not chosen by people; switch it to manual mode to choose one", label)
	}
	if err := checkManual(code, rec.MinCode, rec.MaxCode); err != nil {
		return err
	}
	if len(old) == 0 {
		return refuse("enter the present code of slot %q", label)
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayManageSlots, "slot.change-code", "slot/" + label, "node " + s.m.Name()}, func() error {
		return s.changeManual(ctx, t, old, code)
	})
}

// changeManual gives the token another code that people chose. None is stored, so a mark says for the case
// of a crash that either of the two may be right.
func (s *Slots) changeManual(ctx context.Context, t *seat, old, code []byte) error {
	if err := s.update(t, func() { t.rec.Changing = true }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: change stored")
	if err := s.setCode(ctx, t, old, code); err != nil {
		if IsRefusal(err) {
			s.update(t, func() { t.rec.Changing = false })
		}
		return err
	}
	s.m.node.cfg.Fault("code: set on the token")
	if err := s.update(t, func() { t.rec.set(cluster.Manual, nil) }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: stored")
	s.m.Apps.codeChanged(ctx, t.rec.Slot)
	s.nudge()
	return nil
}

// SetMode switches who holds the code of a slot. To generated mode, old is the present code and code is
// ignored; a slot that is in generated mode already gets another generated code, where its stored one was
// refused. To manual mode, code is the one people chose; old is needed only where the stored code is not
// the token's any more. A shared slot takes it too: whoever has the present code, because another program
// has set it, needs no custodians, and they could not open the token any more. The token checks it, once.
func (s *Slots) SetMode(ctx context.Context, actor cluster.Actor, label, mode string, old, code []byte) error {
	defer clear(old)
	defer clear(code)
	if mode != cluster.Generated && mode != cluster.Manual {
		return refuse("a slot's mode is %q or %q, not %q", cluster.Generated, cluster.Manual, mode)
	}
	t, unlock, err := s.lockCode(label)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	if rec.Mode == cluster.Shared && len(old) == 0 {
		return refuse("slot %q is shared: its custodians have to agree to another mode; where another program has changed the code of the token, give its present code", label)
	}
	if rec.Mode == mode && !(mode == cluster.Generated && rec.Refused) {
		return refuse("slot %q is in %s mode already", label, mode)
	}
	if mode == cluster.Manual {
		if err := checkManual(code, rec.MinCode, rec.MaxCode); err != nil {
			return err
		}
	}
	if len(old) == 0 && (mode == cluster.Generated || rec.Refused) {
		return refuse("enter the present code of slot %q", label)
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayManageCodes, "slot.set-mode", "slot/" + label, "to " + mode + ", node " + s.m.Name()}, func() error {
		if mode == cluster.Generated {
			return s.toGenerated(ctx, t, old)
		}
		return s.toManual(ctx, t, old, code)
	})
}

// toGenerated stores a new code as pending, gives it to the token, and then counts it as the code. The
// caller holds t.changing.
func (s *Slots) toGenerated(ctx context.Context, t *seat, old []byte) error {
	rec := s.recordOf(t)
	code, err := generatedCode(rec.MinCode, rec.MaxCode)
	if err != nil {
		return err
	}
	defer clear(code)
	sealed, err := s.sealCode(&rec, code)
	if err != nil {
		return err
	}
	if err := s.update(t, func() { t.rec.Pending = sealed }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: pending stored")
	if err := s.setCode(ctx, t, old, code); err != nil {
		if IsRefusal(err) { // the token has the old one for sure
			s.update(t, func() { t.rec.Pending = nil })
		}
		return err
	}
	s.m.node.cfg.Fault("code: set on the token")
	if err := s.update(t, func() { t.rec.set(cluster.Generated, sealed) }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: stored")
	s.mu.Lock()
	open := t.open
	s.mu.Unlock()
	if !open {
		if err := s.login(ctx, t, code, s.m.self().String(), time.Time{}); err != nil {
			return err
		}
	}
	s.m.Apps.codeChanged(ctx, rec.Slot)
	if rec.Mode == cluster.Generated {
		s.nudge() // the cluster learns of the new code's age by a report
		return nil
	}
	return s.tell(ctx, t)
}

// toManual gives the token a code that people chose, and forgets the stored one.
func (s *Slots) toManual(ctx context.Context, t *seat, old, code []byte) error {
	rec := s.recordOf(t)
	stored := len(old) == 0
	if stored {
		code, err := s.unsealCode(&rec, rec.Code)
		if err != nil {
			return err
		}
		defer clear(code)
		old = code
	}
	if err := s.update(t, func() { t.rec.Leaving = true }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: leaving stored")
	if err := s.setCode(ctx, t, old, code); err != nil {
		if IsRefusal(err) {
			s.update(t, func() { t.rec.Leaving = false })
		}
		if stored && isRefused(err) {
			s.refuseStored(t, err)
		}
		return err
	}
	s.m.node.cfg.Fault("code: set on the token")
	if err := s.update(t, func() {
		t.rec.set(cluster.Manual, nil)
		t.reason = waitingReason(t.rec) // of a closed slot; an open one has none
		if t.open {
			t.reason = ""
		}
	}); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: stored")
	s.m.Apps.codeChanged(ctx, rec.Slot)
	return s.tell(ctx, t)
}

// setCode has the token change its code. Whoever asked may go away meanwhile: the answer must be waited for.
func (s *Slots) setCode(ctx context.Context, t *seat, old, code []byte) error {
	ctx = context.WithoutCancel(ctx)
	rec := s.recordOf(t)
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	if err := mod.Token(rec.Serial).SetCode(ctx, old, code); err != nil {
		return codeError(rec.Slot, err)
	}
	s.mu.Lock()
	t.changes++
	t.stale = false
	s.mu.Unlock()
	return nil
}
