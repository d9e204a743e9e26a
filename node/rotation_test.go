package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// storedCode is the code that a node has stored for a slot.
func storedCode(t testing.TB, m *Member, label string) []byte {
	t.Helper()
	rec, err := get[seatRecord](m.node.store, bucketSeats, label)
	if err != nil {
		t.Fatal(err)
	}
	code, err := m.Slots.unsealCode(&rec, rec.Code)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// behindOurBack changes the code of a slot as another program does.
func behindOurBack(t testing.TB, m *Member, label string, old, code []byte) {
	t.Helper()
	v, err := m.Slots.One(label)
	if err != nil {
		t.Fatal(err)
	}
	c := m.node.cfg.Modules[0]
	other := hsm.Start(hsm.Config{Name: "other", Path: c.Path, Env: c.Env, Command: m.node.cfg.Command})
	defer other.Close()
	if err := other.Token(v.Serial).SetCode(t.Context(), old, code); err != nil {
		t.Fatal(err)
	}
}

// tokenOf is what the module says of a slot's token.
func tokenOf(t testing.TB, m *Member, label string) hsm.TokenInfo {
	t.Helper()
	for _, v := range m.Overview(t.Context()) {
		for _, token := range v.Tokens {
			if token.Slot == label {
				return token.TokenInfo
			}
		}
	}
	t.Fatalf("no token is in slot %s", label)
	return hsm.TokenInfo{}
}

// reopen stops a node and starts it again.
func reopen(t testing.TB, m *Member) *Member {
	t.Helper()
	cfg := m.node.cfg
	m.node.Close()
	again, err := open(t, cfg).Member()
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func state(t testing.TB, m *Member, label string, want cluster.SeatState) SlotView {
	t.Helper()
	eventually(t, fmt.Sprintf("slot %s is %s", label, want), func() bool {
		v, err := m.Slots.One(label)
		return err == nil && v.State == want && m.State().Slots[label].Seats[m.Name()].State == want
	})
	v, err := m.Slots.One(label)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestRotate changes a generated code, finds out that another program has changed it again, and never
// tries the refused code a second time.
func TestRotate(t *testing.T) {
	m := newCluster(t, 1)[0]
	newSlot(t, []*Member{m}, "auto", cluster.Generated)
	before, first := storedCode(t, m, "auto"), state(t, m, "auto", cluster.Active)
	if err := m.Slots.Rotate(t.Context(), console, "auto"); err != nil {
		t.Fatal(err)
	}
	code := storedCode(t, m, "auto")
	eventually(t, "the cluster knows the age of the code", func() bool {
		seat := m.State().Slots["auto"].Seats["node1"]
		return seat.CodeSince.After(first.CodeSince) && !first.CodeSince.IsZero() && seat.OpenedBy == "console/root" && !seat.Opened.IsZero()
	})
	if bytes.Equal(code, before) || len(code) != len(before) {
		t.Error("the code is the same as before")
	}
	if err := m.Slots.TryCode(t.Context(), console, "auto"); err != nil {
		t.Errorf("trying the new code: %v", err)
	}
	m = reopen(t, m)
	state(t, m, "auto", cluster.Active)

	changed := []byte("changed by another program")
	behindOurBack(t, m, "auto", code, changed)
	err := m.Slots.TryCode(t.Context(), console, "auto")
	if !errors.Is(err, hsm.WrongCode) || !IsRefusal(err) {
		t.Errorf("trying a code that is not right any more: %v", err)
	}
	v := state(t, m, "auto", cluster.Active) // the session is not touched
	if !v.CodeRefused {
		t.Errorf("the slot is shown as %+v", v)
	}
	eventually(t, "the cluster knows", func() bool { return m.State().Slots["auto"].Seats["node1"].CodeRefused })
	for name, again := range map[string]error{
		"try":    m.Slots.TryCode(t.Context(), console, "auto"),
		"rotate": m.Slots.Rotate(t.Context(), console, "auto"),
		"manual": m.Slots.SetMode(t.Context(), console, "auto", cluster.Manual, nil, []byte("a new manual code")),
	} {
		if !IsRefusal(again) || errors.Is(again, hsm.WrongCode) {
			t.Errorf("%s, with a code that is known to be wrong: %v", name, again)
		}
	}
	// The right code clears the token's counter; a wrong try would set it again.
	c := m.node.cfg.Modules[0]
	other := hsm.Start(hsm.Config{Name: "other", Path: c.Path, Env: c.Env, Command: m.node.cfg.Command})
	t.Cleanup(other.Close)
	if err := other.Token(v.Serial).Login(t.Context(), bytes.Clone(changed), true); err != nil {
		t.Fatal(err)
	}
	if err := m.node.modules[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := state(t, m, "auto", cluster.Down); !v.CodeRefused || tokenOf(t, m, "auto").CodeCountLow {
		t.Errorf("after a restart of the module: %+v", v)
	}
	m = reopen(t, m)
	if v := state(t, m, "auto", cluster.Down); !v.CodeRefused || !strings.Contains(v.Reason, "another program") {
		t.Errorf("after a restart: %+v", v)
	}
	if tokenOf(t, m, "auto").CodeCountLow {
		t.Error("the refused code was tried again")
	}
	if err := m.Slots.SetMode(t.Context(), console, "auto", cluster.Generated, bytes.Clone(changed), nil); err != nil {
		t.Fatalf("giving the node the present code: %v", err)
	}
	if v := state(t, m, "auto", cluster.Active); v.CodeRefused {
		t.Error("the code still counts as refused")
	}
	alerts := 0
	for _, e := range m.State().Audit {
		if e.Act == cluster.NoteCodeDiffers {
			alerts++
		}
	}
	if alerts != 1 {
		t.Errorf("%d entries say that the code was changed", alerts)
	}
}

// TestChangeWithoutAnswer leaves a change of a code open, as a module does that hangs. At a token that is
// open, what the module holds tells which code is right; where the token refused that, it is the other one.
func TestChangeWithoutAnswer(t *testing.T) {
	m := newCluster(t, 1)[0]
	newSlot(t, []*Member{m}, "auto", cluster.Generated)
	for name, arrived := range map[string]bool{"the change never arrived": false, "the token has the new code": true} {
		old, code := storedCode(t, m, "auto"), []byte("a code that is pending, "+name)
		seat, unlock, err := m.Slots.lock("auto")
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := m.Slots.sealCode(&seat.rec, code)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Slots.update(seat, func() { seat.rec.Pending = sealed }); err != nil {
			t.Fatal(err)
		}
		if arrived {
			behindOurBack(t, m, "auto", bytes.Clone(old), bytes.Clone(code))
			if err := m.node.modules[0].Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		unlock()
		eventually(t, "the change is settled", func() bool {
			rec, err := get[seatRecord](m.node.store, bucketSeats, "auto")
			v, verr := m.Slots.One("auto")
			return err == nil && verr == nil && rec.Pending == nil && v.State == cluster.Active
		})
		want := map[bool][]byte{false: old, true: code}[arrived]
		if v := state(t, m, "auto", cluster.Active); v.CodeRefused || !bytes.Equal(storedCode(t, m, "auto"), want) {
			t.Errorf("%s: %+v", name, v)
		}
		if err := m.Slots.TryCode(t.Context(), console, "auto"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSchedule lets time pass: the node tries codes and changes them by itself, not while there is work.
func TestSchedule(t *testing.T) {
	m := newCluster(t, 1)[0]
	newSlot(t, []*Member{m}, "auto", cluster.Generated)
	newSlot(t, []*Member{m}, "hand", cluster.Manual)
	if err := m.Slots.SetRotation(t.Context(), console, "auto", 30); err != nil {
		t.Fatal(err)
	}
	if err := m.Slots.SetRotation(t.Context(), console, "hand", 30); err != nil {
		t.Fatal(err)
	}
	code, begun := storedCode(t, m, "auto"), time.Now()
	look := func() SlotView { return state(t, m, "auto", cluster.Active) }
	m.Slots.tendOnce(t.Context(), begun.Add(time.Hour))
	if v := look(); v.Tried.After(begun.Add(time.Second)) || !bytes.Equal(code, storedCode(t, m, "auto")) {
		t.Errorf("after an hour: %+v", v)
	}
	m.Slots.tendOnce(t.Context(), begun.Add(25*time.Hour))
	if v := look(); v.Tried.Before(begun) || !bytes.Equal(code, storedCode(t, m, "auto")) {
		t.Errorf("after a day: %+v", v)
	}
	busy := m.Jobs.start("import", "slot/auto", console, func(ctx context.Context, _ *progress) error { <-ctx.Done(); return ctx.Err() })
	month := begun.Add(30 * 24 * time.Hour)
	m.Slots.tendOnce(t.Context(), month)
	if !bytes.Equal(code, storedCode(t, m, "auto")) {
		t.Error("the code was changed while a job ran")
	}
	m.Jobs.stop()
	if _, err := m.Jobs.Wait(t.Context(), busy); err == nil {
		t.Error("the job did not end")
	}
	m.Slots.tendOnce(t.Context(), month.Add(time.Minute))
	if !bytes.Equal(code, storedCode(t, m, "auto")) {
		t.Error("what did not work was tried again at once")
	}
	m.Slots.tendOnce(t.Context(), month.Add(restAfter))
	if bytes.Equal(code, storedCode(t, m, "auto")) {
		t.Error("the code was not changed")
	}
	entry := m.State().Audit[len(m.State().Audit)-1]
	if entry.Act != "slot.rotate" || entry.Actor != m.self() {
		t.Errorf("the last audit entry is %+v", entry)
	}
}

func TestRotationDue(t *testing.T) {
	const day = 24 * time.Hour
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	due := map[time.Time]bool{}
	for _, c := range []struct {
		days     int
		earliest time.Duration
	}{{1, day - day/10}, {5, 5*day - day/2}, {90, 89 * day}, {3650, 3649 * day}} {
		for i := range 20 {
			seat := cluster.Seat{Node: fmt.Sprintf("node%d", i), Mode: cluster.Generated, CodeFacts: cluster.CodeFacts{CodeSince: since}}
			slot := cluster.Slot{Label: "slot", RotateEvery: c.days, RotateSince: since.Add(-time.Hour)}
			got := RotationDue(slot, seat)
			if got.Before(since.Add(c.earliest)) || got.After(since.Add(time.Duration(c.days)*day)) || got != RotationDue(slot, seat) {
				t.Errorf("every %d days, changed %v, due %v", c.days, since, got)
			}
			due[got] = true
			slot.RotateSince = since.AddDate(20, 0, 0)
			late := RotationDue(slot, seat).Sub(slot.RotateSince)
			if late < 0 || late > min(time.Duration(c.days)*day/10, day) {
				t.Errorf("every %d days, decided when the code was too old: due after %v", c.days, late)
			}
			due[slot.RotateSince.Add(late)] = true
		}
	}
	if len(due) < 100 {
		t.Errorf("80 nodes have only %d times between them, of 160", len(due))
	}
	for _, seat := range []cluster.Seat{{Mode: cluster.Manual}, {Mode: cluster.Generated}} {
		days := map[string]int{cluster.Manual: 30, cluster.Generated: 0}[seat.Mode]
		if got := RotationDue(cluster.Slot{RotateEvery: days}, seat); !got.IsZero() {
			t.Errorf("%s, every %d days: due %v", seat.Mode, days, got)
		}
	}
}

// TestTwoChangeOneCode has several people change the same code at once. One wins; nobody else's code is
// tried on the token.
func TestTwoChangeOneCode(t *testing.T) {
	m := newCluster(t, 1)[0]
	newSlot(t, []*Member{m}, "hand", cluster.Manual)
	var won, refused []string
	var mu sync.Mutex
	var all sync.WaitGroup
	// All of them wait for the same lock.
	seat, unlock, err := m.Slots.lock("hand")
	if err != nil || seat == nil {
		t.Fatal(err)
	}
	for i := range 4 {
		all.Go(func() {
			code := fmt.Sprintf("a new code %d", i)
			err := m.Slots.ChangeCode(t.Context(), console, "hand", []byte(manualCode), []byte(code))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, code)
			case IsRefusal(err) && !isRefused(err):
				refused = append(refused, err.Error())
			default:
				t.Errorf("%s: %v", code, err)
			}
		})
	}
	time.AfterFunc(100*time.Millisecond, unlock)
	all.Wait()
	if len(won) != 1 || len(refused) != 3 {
		t.Fatalf("won %q, refused %q", won, refused)
	}
	if tokenOf(t, m, "hand").CodeCountLow {
		t.Error("a wrong code was tried")
	}
	if err := m.Slots.Deactivate(t.Context(), console, "hand"); err != nil {
		t.Fatal(err)
	}
	if err := m.Slots.Activate(t.Context(), console, "hand", []byte(won[0])); err != nil {
		t.Errorf("the code of who won: %v", err)
	}
}
