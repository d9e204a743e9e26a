package node

import (
	"context"
	"errors"

	"github.com/keyferry/keyferry/cluster"
)

// ChangeCode replaces the code of a manual slot. The token checks the old one, once.
func (s *Slots) ChangeCode(ctx context.Context, actor cluster.Actor, label string, old, code []byte) error {
	defer clear(old)
	defer clear(code)
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	rec := t.rec
	s.mu.Unlock()
	if rec.Mode != cluster.Manual {
		return refuse("slot %q has a generated code; switch it to manual mode to choose one", label)
	}
	if err := checkManual(code, rec.MinCode, rec.MaxCode); err != nil {
		return err
	}
	if len(old) == 0 {
		return refuse("enter the present code of slot %q", label)
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayManageSlots, "slot.change-code", "slot/" + label, "node " + s.m.Name()}, func() error {
		return s.setCode(ctx, t, old, code)
	})
}

// SetMode switches who holds the code of a slot. To generated mode, old is the present code and code is
// ignored. To manual mode, code is the one people chose; old is needed only where the stored code is not
// the token's any more.
func (s *Slots) SetMode(ctx context.Context, actor cluster.Actor, label, mode string, old, code []byte) error {
	defer clear(old)
	defer clear(code)
	if mode != cluster.Generated && mode != cluster.Manual {
		return refuse("a slot's mode is %q or %q, not %q", cluster.Generated, cluster.Manual, mode)
	}
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	rec := t.rec
	s.mu.Unlock()
	if rec.Mode == mode {
		return refuse("slot %q is in %s mode already", label, mode)
	}
	if mode == cluster.Manual {
		if err := checkManual(code, rec.MinCode, rec.MaxCode); err != nil {
			return err
		}
	} else if len(old) == 0 {
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
	s.mu.Lock()
	rec := t.rec
	s.mu.Unlock()
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
		if _, refused := errors.AsType[refusal](err); refused { // the token has the old one for sure
			s.update(t, func() { t.rec.Pending = nil })
		}
		return err
	}
	s.m.node.cfg.Fault("code: set on the token")
	if err := s.update(t, func() { t.rec.Code, t.rec.Pending, t.rec.Mode, t.rec.Told = sealed, nil, cluster.Generated, false }); err != nil {
		return err
	}
	s.mu.Lock()
	open := t.open
	s.mu.Unlock()
	if !open {
		if err := s.login(ctx, t, code, s.m.self().String(), false); err != nil {
			return err
		}
	}
	return s.tell(ctx, t)
}

// toManual gives the token a code that people chose, and forgets the stored one.
func (s *Slots) toManual(ctx context.Context, t *seat, old, code []byte) error {
	s.mu.Lock()
	rec := t.rec
	s.mu.Unlock()
	if len(old) == 0 {
		stored, err := s.unsealCode(&rec, rec.Code)
		if err != nil {
			return err
		}
		defer clear(stored)
		old = stored
	}
	if err := s.update(t, func() { t.rec.Leaving = true }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("code: leaving stored")
	if err := s.setCode(ctx, t, old, code); err != nil {
		if _, refused := errors.AsType[refusal](err); refused {
			s.update(t, func() { t.rec.Leaving = false })
		}
		return err
	}
	s.m.node.cfg.Fault("code: set on the token")
	if err := s.update(t, func() {
		t.rec.Code, t.rec.Pending, t.rec.Mode, t.rec.Leaving, t.rec.Told = nil, nil, cluster.Manual, false, false
		t.refused = false
	}); err != nil {
		return err
	}
	return s.tell(ctx, t)
}

func (s *Slots) setCode(ctx context.Context, t *seat, old, code []byte) error {
	s.mu.Lock()
	rec := t.rec
	s.mu.Unlock()
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	if err := mod.Token(rec.Serial).SetCode(ctx, old, code); err != nil {
		return codeError(rec.Slot, err)
	}
	return nil
}
