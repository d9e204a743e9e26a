package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// carryOut does what a need is for, with the secrets of its splits, of which the last share was entered at a
// time. They are wiped by the caller.
func (c *Custody) carryOut(ctx context.Context, actor cluster.Actor, n ShareNeed, secrets map[string][]byte, entered time.Time) (result, detail string, err error) {
	switch n.Purpose {
	case ForOpening:
		return Opened, "", c.m.Slots.openShared(ctx, actor, n, secrets, entered)
	case ForSwitching:
		return Changed, "the token has the code of the newest custodians now", c.m.Slots.switchShared(ctx, actor, n, secrets)
	case ForReplacing:
		return c.replace(ctx, n, secrets[n.Splits[0]])
	case ForLeaving:
		return c.leave(ctx, actor, n, secrets[n.Splits[0]])
	}
	return NotOpened, "", errors.New("shares have come for nothing")
}

// derived is the code of this node's token in a generation.
func (s *Slots) derived(rec seatRecord, p cluster.Split, secret []byte) ([]byte, error) {
	return s.m.nameOf(rec.Slot, p).nodeCode(secret, s.m.Name(), rec.MinCode, rec.MaxCode)
}

// openShared opens a slot whose code its custodians have rebuilt. After a crash while the token got
// another code there are two, the newer first; each is tried once.
func (s *Slots) openShared(ctx context.Context, actor cluster.Actor, n ShareNeed, secrets map[string][]byte, entered time.Time) error {
	t, unlock, err := s.lock(n.Slot)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	rec, open := t.rec, t.open
	s.mu.Unlock()
	if open {
		return refuse("slot %q is activated already on node %s", n.Slot, s.m.Name())
	}
	slot := s.m.State().Slots[n.Slot]
	detail := fmt.Sprintf("node %s, by %d custodians", s.m.Name(), n.Threshold)
	return s.m.acts.doLocally(ctx, act{actor, cluster.MayActivate, "slot.activate", "slot/" + n.Slot, detail}, func() error {
		for i, id := range n.Splits {
			p := splitOf(slot, id)
			code, err := s.derived(rec, p, secrets[id])
			if err != nil {
				return err
			}
			err = s.login(ctx, t, code, actor.String(), entered)
			clear(code)
			if err == nil {
				return s.settleShared(t, p.Generation)
			}
			if !errors.Is(err, hsm.WrongCode) || i == len(n.Splits)-1 {
				return err
			}
		}
		return errors.New("there is no shared code to try")
	})
}

// settleShared records which shared code was right.
func (s *Slots) settleShared(t *seat, generation int) error {
	s.mu.Lock()
	clean := t.rec.Mode == cluster.Shared && t.rec.Generation == generation && t.rec.Next == 0 && !t.rec.Leaving
	s.mu.Unlock()
	if clean {
		return nil
	}
	return s.update(t, func() {
		since, had := t.rec.CodeSince, t.rec.Mode == cluster.Shared && t.rec.Generation == generation
		t.rec.share(generation)
		if had { // a change that was under way has come to nothing
			t.rec.CodeSince = since
		}
		t.forgetPrepared()
	})
}

// switchShared gives the token the code of the newest split: from the code that the node keeps, one that
// somebody has entered for this, or the shared one of an older generation.
func (s *Slots) switchShared(ctx context.Context, actor cluster.Actor, n ShareNeed, secrets map[string][]byte) error {
	t, unlock, err := s.lock(n.Slot)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	slot := s.m.State().Slots[n.Slot]
	p := splitOf(slot, n.Splits[0])
	if newest, ok := slot.Newest(); !ok || newest.ID != p.ID {
		return refuse("the custodians of slot %q were changed meanwhile: look again", n.Slot)
	}
	var old []byte
	switch rec.Mode {
	case cluster.Generated:
		old, err = s.unsealCode(&rec, rec.Code)
	case cluster.Manual:
		s.mu.Lock()
		old = t.takePrepared(time.Now())
		s.mu.Unlock()
	case cluster.Shared:
		old, err = s.derived(rec, splitOf(slot, n.Splits[1]), secrets[n.Splits[1]])
	}
	if err != nil {
		return err
	}
	defer clear(old)
	if len(old) == 0 {
		return refuse("the present code of slot %q on node %s is not at hand: enter it there first", n.Slot, s.m.Name())
	}
	code, err := s.derived(rec, p, secrets[p.ID])
	if err != nil {
		return err
	}
	defer clear(code)
	detail := fmt.Sprintf("to shared, generation %d, node %s, by %d custodians", p.Generation, s.m.Name(), p.Threshold)
	// The security officer decided on the mode when publishing the split; custodians carry it out.
	return s.m.acts.do(ctx, act{actor, cluster.MayActivate, "slot.share", "slot/" + n.Slot, detail}, func() error {
		return s.toShared(ctx, t, p, old, code)
	})
}

// toShared gives the token a shared code. The cluster hears of it before, so that the split is kept; the
// node writes it down before, so that after a crash it knows what the token may have. The caller holds
// t.changing.
func (s *Slots) toShared(ctx context.Context, t *seat, p cluster.Split, old, code []byte) error {
	s.mu.Lock()
	rec, state, reason := t.rec, t.state, t.reason
	s.mu.Unlock()
	if _, err := s.m.Cluster.Apply(ctx, &cluster.ReportSeat{Slot: rec.Slot, State: state, Reason: reason, Next: p.Generation}, s.m.self()); err != nil {
		return err
	}
	if err := s.update(t, func() { t.rec.Next = p.Generation }); err != nil {
		return err
	}
	s.m.node.cfg.Fault("shared: next stored")
	if err := s.setCode(ctx, t, old, code); err != nil {
		if _, refused := errors.AsType[refusal](err); refused { // the token has the old one for sure
			s.update(t, func() { t.rec.Next = 0 })
		}
		return err
	}
	s.m.node.cfg.Fault("shared: set on the token")
	if err := s.settleShared(t, p.Generation); err != nil {
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
	return s.tell(ctx, t)
}

// preparedLife is how long a code that somebody entered is kept for custodians to come.
const preparedLife = time.Hour

// Prepare keeps the present code of a manual slot in memory, for at most an hour, so that its custodians
// can replace it. The token, or what the node has open, says whether it is right.
func (s *Slots) Prepare(ctx context.Context, actor cluster.Actor, label string, code []byte) error {
	defer clear(code)
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	if rec.Mode != cluster.Manual {
		return refuse("slot %q on node %s is in %s mode: no present code is needed", label, s.m.Name(), rec.Mode)
	}
	if !s.m.State().Slots[label].Due(s.m.Name()) {
		return refuse("slot %q has no custodians that are to take over its code on node %s", label, s.m.Name())
	}
	if len(code) == 0 {
		return refuse("enter the present code of slot %q", label)
	}
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayActivate, "slot.prepare", "slot/" + label, "node " + s.m.Name()}, func() error {
		if held, same := mod.Token(rec.Serial).Holds(code); held && !same {
			return refuse("that is not the code with which slot %q is open; the token was not asked", label)
		} else if !held {
			if err := s.login(ctx, t, code, actor.String(), justNow()); err != nil {
				return err
			}
		}
		s.mu.Lock()
		t.prepare(code, time.Now())
		s.mu.Unlock()
		return nil
	})
}

// prepare keeps a code for custodians. The caller holds Slots.mu.
func (t *seat) prepare(code []byte, now time.Time) {
	t.forgetPrepared()
	t.present, t.presentUntil = append([]byte(nil), code...), now.Add(preparedLife)
}

func (t *seat) prepared(now time.Time) bool { return t.present != nil && now.Before(t.presentUntil) }

func (t *seat) takePrepared(now time.Time) []byte {
	if !t.prepared(now) {
		t.forgetPrepared()
		return nil
	}
	code := t.present
	t.present = nil
	return code
}

func (t *seat) forgetPrepared() {
	clear(t.present)
	t.present = nil
}
