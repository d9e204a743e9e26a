package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Activate opens a slot of this node with a code that somebody enters now. It works without a quorum.
func (s *Slots) Activate(ctx context.Context, actor cluster.Actor, label string, code []byte) error {
	return s.activateSince(ctx, actor, label, code, justNow())
}

// justNow is when a code was entered that has just come.
func justNow() time.Time { return time.Now().Add(-hsm.Recent) }

// activateSince is Activate with a code that was entered at a time, for many slots perhaps.
func (s *Slots) activateSince(ctx context.Context, actor cluster.Actor, label string, code []byte, entered time.Time) error {
	defer clear(code)
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	s.mu.Lock()
	rec, state := t.rec, t.state
	s.mu.Unlock()
	if state == cluster.Active {
		return refuse("slot %q is activated already on node %s", label, s.m.Name())
	}
	switch {
	case rec.Mode == cluster.Generated:
		return refuse("slot %q has a generated code, which the node keeps: nobody enters it", label)
	case rec.Mode == cluster.Shared && !rec.Leaving:
		return refuse("the code of slot %q exists only as shares: its custodians open it together", label)
	}
	if len(code) == 0 {
		return refuse("enter the authentication code of slot %q", label)
	}
	return s.m.acts.doLocally(ctx, act{actor, cluster.MayActivate, "slot.activate", "slot/" + label, "node " + s.m.Name()}, func() error {
		if err := s.login(ctx, t, code, actor.String(), entered); err != nil {
			return err
		}
		return s.settleTyped(t, code)
	})
}

// settleTyped records that a code which somebody entered is the token's: what was under way when the node
// stopped has come to that, or to nothing. Where custodians are to take over, they find the code at hand for
// an hour.
func (s *Slots) settleTyped(t *seat, code []byte) error {
	rec := s.recordOf(t)
	if rec.Mode == cluster.Shared || rec.Mode == cluster.Manual && rec.Next > 0 {
		if err := s.update(t, func() { t.rec.set(cluster.Manual, nil); t.rec.Told = false }); err != nil {
			return err
		}
	}
	if rec.Mode != cluster.Generated && s.m.State().Slots[rec.Slot].Due(s.m.Name()) {
		s.mu.Lock()
		t.prepare(code, time.Now())
		s.mu.Unlock()
	}
	if !rec.Refused && rec.Pending == nil {
		return nil
	}
	return s.update(t, func() { t.rec.Refused, t.rec.Pending = false, nil }) // of a switch to generated mode that came to nothing
}

// Deactivate closes a manual slot until somebody enters its code again. Sessions of applications are
// their own and go on.
func (s *Slots) Deactivate(ctx context.Context, actor cluster.Actor, label string) error {
	t, unlock, err := s.lock(label)
	if err != nil {
		return err
	}
	defer unlock()
	rec := s.recordOf(t)
	if rec.Mode == cluster.Generated {
		return refuse("slot %q has a generated code, so the node would open it again at once; switch it to manual mode first", label)
	}
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	return s.m.acts.doLocally(ctx, act{actor, cluster.MayActivate, "slot.deactivate", "slot/" + label, "node " + s.m.Name()}, func() error {
		err := mod.Token(rec.Serial).Logout(ctx)
		s.set(t, cluster.Down, waitingReason(rec), false, "")
		return err
	})
}

// login opens a token with a code, once, and makes it ready to receive packages. entered is when people
// entered the code, zero where nobody did. The caller holds t.changing.
func (s *Slots) login(ctx context.Context, t *seat, code []byte, by string, entered time.Time) error {
	rec := s.recordOf(t)
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	token := mod.Token(rec.Serial)
	if err := token.LoginSince(ctx, code, entered); err != nil {
		err = codeError(rec.Slot, err)
		s.set(t, cluster.Down, line(err.Error()), false, "")
		return err
	}
	if err := s.update(t, func() {
		now := time.Now().UTC().Round(0)
		t.rec.Opened, t.rec.OpenedBy, t.rec.Tried, t.rec.Changing = now, by, now, false
	}); err != nil {
		s.m.log.Error("a slot's record cannot be stored", "slot", rec.Slot, "error", err)
	}
	if err := s.receiver(ctx, t, token); err != nil {
		s.m.log.Error("this slot cannot receive packages", "slot", rec.Slot, "error", err)
	}
	s.set(t, cluster.Active, "", true, by)
	return nil
}

// set changes the state of a seat and has it reported.
func (s *Slots) set(t *seat, state cluster.SeatState, reason string, open bool, by string) {
	s.mu.Lock()
	if t.state != state {
		t.since = time.Now()
	}
	t.state, t.reason, t.open, t.by = state, reason, open, by
	s.mu.Unlock()
	s.nudge()
	s.m.Keys.nudge()
	s.m.Apps.nudge()
}

// receiverLife is how long a statement of receiver keys is good; it is renewed at half of it.
const receiverLife = 365 * 24 * time.Hour

// stated is a statement of receiver keys with what was read from it. To verify its signature takes longer than
// to look at the token.
type stated struct {
	text string
	syncpkg.ReceiverKeys
}

// holds tells whether the statement is about these keys, and need not be renewed.
func (k *stated) holds(transport, seal []byte, now time.Time) bool {
	return bytes.Equal(k.Transport, transport) && bytes.Equal(k.Seal.Public, seal) &&
		!k.Created.After(now.Add(syncpkg.MaxSkew)) && now.Before(k.NotAfter.Add(-receiverLife/2))
}

// receiver makes sure that the token has a transport key and that there is a valid statement of it,
// signed by the node's identity key.
func (s *Slots) receiver(ctx context.Context, t *seat, token *hsm.Token) error {
	transport, err := identity.EnsureKey(ctx, token, identity.TransportID, "P-521", hsm.UseDerive)
	if err != nil {
		return err
	}
	public, err := transport.Public().(*ecdsa.PublicKey).ECDH()
	if err != nil {
		return err
	}
	pik, err := s.m.Identity.signer()
	if err != nil {
		return err
	}
	sealing, err := s.m.Identity.sealing()
	if err != nil {
		return err
	}
	s.mu.Lock()
	rec, old := t.rec, t.stated
	now := s.m.node.cfg.Now()
	t.attested = now
	s.mu.Unlock()
	if old.text != rec.Receiver {
		mine := func(_, _, _ string) (*ecdsa.PublicKey, error) { return pik.Public().(*ecdsa.PublicKey), nil }
		if old.ReceiverKeys, err = syncpkg.VerifyReceiverKeys(rec.Receiver, mine, now); err == nil {
			old.text = rec.Receiver
			s.mu.Lock()
			t.stated = old
			s.mu.Unlock()
		}
	}
	if err == nil && old.holds(public.Bytes(), sealing.PublicKey().Bytes(), now) {
		return nil
	}
	statement, err := syncpkg.SignReceiverKeys(syncpkg.ReceiverKeys{
		Cluster: s.m.State().Cluster.ID, Node: s.m.Name(), Slot: rec.Slot, Scheme: syncpkg.SchemeECDHP521,
		Transport: public.Bytes(), Seal: syncpkg.SealKey{KEM: sealing.KEM().ID(), Public: sealing.PublicKey().Bytes()},
		Created: now, NotAfter: now.Add(receiverLife),
	}, pik)
	if err != nil {
		return err
	}
	return s.update(t, func() { t.rec.Receiver = statement })
}

// restate states the receiver keys of all open slots anew, after the identity key has changed.
func (s *Slots) restate(ctx context.Context) {
	s.mu.Lock()
	seats := slices.Collect(maps.Values(s.seats))
	for _, t := range seats {
		t.attested, t.stated = time.Time{}, stated{}
	}
	s.mu.Unlock()
	for _, t := range seats {
		t.changing.Lock()
		s.attest(ctx, t)
		t.changing.Unlock()
	}
}

// attest looks once a minute whether the statement of an open slot's receiver keys holds, and renews it. So it
// is renewed also in a slot that stays open for a year, and made once the admin token is back. The caller holds
// t.changing.
func (s *Slots) attest(ctx context.Context, t *seat) {
	now := s.m.node.cfg.Now()
	s.mu.Lock()
	rec, due := t.rec, t.state == cluster.Active && now.Sub(t.attested).Abs() >= time.Minute
	if due {
		t.attested = now
	}
	s.mu.Unlock()
	if !due {
		return
	}
	mod, err := s.m.node.module(rec.Module)
	if err == nil {
		err = s.receiver(ctx, t, mod.Token(rec.Serial))
	}
	if err != nil {
		s.m.log.Error("this slot cannot receive packages", "slot", rec.Slot, "error", err)
	}
}

// moduleChanged follows what happens to a module. The module calls it, so it must not call back.
func (s *Slots) moduleChanged(module string, e hsm.Event) {
	var refused []seatRecord
	s.mu.Lock()
	for _, t := range s.seats {
		if t.rec.Module != module || e.Serial != "" && t.rec.Serial != e.Serial {
			continue
		}
		switch {
		case e.Serial != "": // it did not open again
			t.state, t.reason, t.open, t.since = cluster.Down, line(codeError(t.rec.Slot, e.Err).Error()), false, time.Now()
			if t.refuse(e.Err) {
				refused = append(refused, t.rec)
			}
		case !e.Up:
			t.state, t.reason, t.since = cluster.Broken, line(fmt.Sprintf("module %s does not run: %v", module, e.Err)), time.Now()
		case t.open && t.rec.Refused: // it was open from before; the code is not tried again
			t.state, t.reason, t.open, t.since = cluster.Down, refusedReason, false, time.Now()
		case t.open:
			t.state, t.reason, t.since = cluster.Active, "", time.Now()
		default:
			t.state, t.reason, t.since = cluster.Down, waitingReason(t.rec), time.Now()
		}
	}
	s.mu.Unlock()
	for _, rec := range refused {
		if err := s.save(rec); err != nil {
			s.m.log.Error("a slot's record cannot be stored", "slot", rec.Slot, "error", err)
		}
	}
	s.nudge()
	s.m.Apps.nudge()
}

// activate opens generated slots, finishes interrupted changes of codes, and tells the cluster the state
// of every slot of this node.
func (s *Slots) activate(ctx context.Context) {
	for {
		s.finishMaking(ctx)
		s.mu.Lock()
		seats := make([]*seat, 0, len(s.seats))
		for _, t := range s.seats {
			seats = append(seats, t)
		}
		s.mu.Unlock()
		var work sync.WaitGroup
		turn := make(chan struct{}, openAtOnce) // reports that come together are committed together
		for _, t := range seats {
			if !t.changing.TryLock() {
				continue // whoever is changing it reports at the end, or nudges this loop
			}
			s.openStored(ctx, t)
			s.attest(ctx, t)
			t.changing.Unlock()
			if s.m.StillMember() != nil {
				continue // the cluster takes no word of it
			}
			work.Go(func() {
				turn <- struct{}{}
				s.report(ctx, t)
				<-turn
			})
		}
		work.Wait()
		select {
		case <-s.wake:
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// finishMaking finds the tokens that were being made when the node stopped. A generated code was stored
// before, so it is known whether a token took it; of a manual one people know it.
func (s *Slots) finishMaking(ctx context.Context) {
	s.mu.Lock()
	unfinished := s.unfinished
	s.mu.Unlock()
	var left []seatRecord
	for _, rec := range unfinished {
		done, err := s.findMade(ctx, &rec)
		if err != nil {
			s.m.log.Error("a token that was being made cannot be looked for", "slot", rec.Slot, "error", err)
		}
		if !done {
			left = append(left, rec)
		}
	}
	s.mu.Lock()
	s.unfinished = left
	s.mu.Unlock()
}

func (s *Slots) findMade(ctx context.Context, rec *seatRecord) (done bool, err error) {
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return false, err
	}
	info, err := mod.Info(ctx)
	if err != nil {
		return false, err
	}
	for _, t := range info.Tokens {
		if t.Initialized && t.CodeSet && t.Label == rec.Slot {
			rec.Serial = t.Serial
			s.mu.Lock()
			s.seats[rec.Slot] = &seat{rec: *rec, state: cluster.Down, reason: waitingReason(*rec), since: time.Now()}
			s.mu.Unlock()
			return true, s.save(*rec)
		}
	}
	return true, s.m.node.store.drop(bucketSeats, rec.Slot) // it was never made
}

// report tells the cluster what it does not know yet of a seat.
func (s *Slots) report(ctx context.Context, t *seat) {
	s.mu.Lock()
	rec, state, reason := t.rec, t.state, t.reason
	s.mu.Unlock()
	known, ok := s.m.State().Slots[rec.Slot].Seats[s.m.Name()]
	var err error
	switch {
	case !rec.Told || !ok:
		err = s.tell(ctx, t)
	case known.State != state || known.Reason != reason || known.Next != rec.Next || rec.Receiver != "" && known.Receiver != rec.Receiver || known.CodeFacts != rec.facts():
		_, err = s.m.Cluster.Apply(ctx, &cluster.ReportSeat{Slot: rec.Slot, State: state, Reason: reason, Receiver: rec.Receiver, Next: rec.Next, CodeFacts: rec.facts()}, s.m.self())
	}
	if err != nil {
		s.m.log.Warn("the cluster does not know the state of a slot yet", "slot", rec.Slot, "error", err)
	}
}
