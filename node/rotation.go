package node

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

const (
	tryEvery    = 24 * time.Hour // how often stored codes are tried
	restAfter   = time.Hour      // after a scheduled change that did not work
	tendEvery   = time.Minute    // how often the node looks whether something is due
	mostJitter  = 24 * time.Hour
	jitterParts = 10 // of the time between two changes, one part at most
)

// Rotate replaces the generated code of a slot by another one. Applications that get the code from the
// node are told; sessions that others have opened go on with most modules, and break with some.
func (s *Slots) Rotate(ctx context.Context, actor cluster.Actor, label string) error {
	t, unlock, err := s.lockCode(label)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.mayRotate(t); err != nil {
		return err
	}
	return s.m.acts.do(ctx, act{actor, cluster.MayTendCodes, "slot.rotate", "slot/" + label, "node " + s.m.Name()}, func() error { return s.rotate(ctx, t) })
}

// mayRotate refuses a change that would fail, or disturb work on the slot.
func (s *Slots) mayRotate(t *seat) error {
	s.mu.Lock()
	rec, state := t.rec, t.state
	s.mu.Unlock()
	switch {
	case rec.Mode != cluster.Generated:
		return refuse("the code of slot %q is kept by people: only they can change it", rec.Slot)
	case rec.Refused:
		return refuse("slot %q: %s", rec.Slot, refusedReason)
	case state != cluster.Active:
		return refuse("slot %q is not open on node %s, so its code cannot be changed now", rec.Slot, s.m.Name())
	}
	if j, busy := s.m.Jobs.on("slot/" + rec.Slot); busy {
		return refuse("a job is running on slot %q (%s, begun by %s); change the code when it has ended", rec.Slot, j.Kind, j.Actor)
	}
	return nil
}

// rotate changes the code from the stored one to a new one. The caller holds t.changing.
func (s *Slots) rotate(ctx context.Context, t *seat) error {
	rec := s.recordOf(t)
	old, err := s.unsealCode(&rec, rec.Code)
	if err != nil {
		return err
	}
	defer clear(old)
	err = s.toGenerated(ctx, t, old)
	if isRefused(err) {
		s.refuseStored(t, err)
	}
	return err
}

// TryCode tries the stored code of a slot on its token, once, as the next start of the node would. So a
// code that another program has changed is found out before a restart leaves the slot closed.
func (s *Slots) TryCode(ctx context.Context, actor cluster.Actor, label string) error {
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	switch {
	case rec.Mode != cluster.Generated:
		return refuse("the code of slot %q is kept by people, so there is no stored code to try", label)
	case rec.Refused:
		return refuse("slot %q: %s", label, refusedReason)
	}
	return s.m.acts.doLocally(ctx, act{actor, cluster.MayTendCodes, "slot.try-code", "slot/" + label, "node " + s.m.Name()}, func() error { return s.tryStored(ctx, t) })
}

// tryStored tries the stored code. The caller holds t.changing.
func (s *Slots) tryStored(ctx context.Context, t *seat) error {
	rec := s.recordOf(t)
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	code, err := s.unsealCode(&rec, rec.Code)
	if err != nil {
		return err
	}
	defer clear(code)
	if err = mod.Token(rec.Serial).TryCode(ctx, code); err == nil {
		return s.update(t, func() { t.rec.Tried = time.Now().UTC().Round(0) })
	}
	if isRefused(err) {
		s.refuseStored(t, err)
		return refusal{worded{fmt.Sprintf("slot %q: %s", rec.Slot, refusedReason), err}}
	}
	return fmt.Errorf("the stored code of slot %q could not be tried: %w", rec.Slot, err)
}

// SetRotation says after how many days the nodes replace the generated codes of a slot; 0 is never.
func (s *Slots) SetRotation(ctx context.Context, actor cluster.Actor, label string, days int) error {
	_, err := s.m.Cluster.Apply(ctx, &cluster.SetRotation{Slot: label, Days: days}, actor)
	return err
}

// tend tries stored codes once a day, and replaces generated ones when their time has come.
func (s *Slots) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.tendOnce(ctx, time.Now())
		case <-ctx.Done():
			return
		}
	}
}

func (s *Slots) tendOnce(ctx context.Context, now time.Time) {
	for _, v := range s.Here() {
		due := RotationDue(s.m.State().Slots[v.Label], cluster.Seat{Node: v.Node, Mode: v.Mode, CodeFacts: v.CodeFacts})
		switch {
		case v.Mode != cluster.Generated || v.CodeRefused || v.State != cluster.Active:
		case !due.IsZero() && !now.Before(due):
			s.rotateBySchedule(ctx, v.Label, now)
		case now.Sub(v.Tried) >= tryEvery:
			t, unlock, err := s.lock(v.Label)
			if err != nil {
				continue
			}
			if err := s.tryStored(ctx, t); err != nil {
				s.m.log.Error("the stored code of a slot was tried", "slot", v.Label, "error", err)
			}
			unlock()
		}
	}
}

// rotateBySchedule changes a code in the node's own name. What does not work now is tried again later.
func (s *Slots) rotateBySchedule(ctx context.Context, label string, now time.Time) {
	s.mu.Lock()
	t := s.seats[label]
	resting := t == nil || now.Before(t.resting)
	s.mu.Unlock()
	if resting {
		return
	}
	if err := s.Rotate(ctx, s.m.self(), label); err != nil {
		s.m.log.Error("a code was not changed by its schedule", "slot", label, "again in", restAfter, "error", err)
		s.mu.Lock()
		t.resting = now.Add(restAfter)
		s.mu.Unlock()
	}
}

// RotationDue is when a node replaces the generated code of its seat in a slot; zero: never. Each node is a
// little early, by a part that its name and the slot's label decide: so no code gets older than its slot
// allows, and the nodes of a cluster do not all change theirs, and restart their applications, at once. For
// the same reason codes that are too old already when the schedule is made are replaced one after another.
func RotationDue(slot cluster.Slot, seat cluster.Seat) time.Time {
	every := time.Duration(slot.RotateEvery) * 24 * time.Hour
	if every <= 0 || seat.Mode != cluster.Generated {
		return time.Time{}
	}
	h := fnv.New64a()
	h.Write([]byte(strings.Join([]string{seat.Node, slot.Label}, "\x00")))
	jitter := min(every/jitterParts, mostJitter)
	part := time.Duration(h.Sum64()%uint64(jitter/time.Second+1)) * time.Second
	due, soonest := seat.CodeSince.Add(every-part), slot.RotateSince.Add(part)
	if due.Before(soonest) {
		return soonest
	}
	return due
}
