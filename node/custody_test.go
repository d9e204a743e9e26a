package node

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

const custodianPassphrase = "a passphrase of "

func as(name string) cluster.Actor { return cluster.Actor{Kind: cluster.ByAccount, Name: name} }

// newCustodians makes accounts with a custodian passphrase each.
func newCustodians(t testing.TB, m *Member, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := m.Cluster.Apply(t.Context(), &cluster.PutAccount{Name: name, Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser}}, New: true,
			Hash: "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"}, console)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Custody.SetUp(t.Context(), as(name), []byte(custodianPassphrase+name), false); err != nil {
			t.Fatal(err)
		}
	}
}

// come has a custodian enter the passphrase at a node, and returns what came of it.
func come(t testing.TB, m *Member, name string, requests ...string) []Opening {
	t.Helper()
	eventually(t, "the custodian is known at "+m.Name(), func() bool { return m.State().Custodians[name].Key != "" })
	job, err := m.Custody.Activate(t.Context(), as(name), Activation{Passphrase: []byte(custodianPassphrase + name), Requests: requests})
	done, _ := finish(t, m, job, err)
	return done.Openings
}

func results(list []Opening) map[string]string {
	m := map[string]string{}
	for _, o := range list {
		m[o.Node] = o.Result
	}
	return m
}

// want checks what became of a slot on the nodes.
func wantResults(t testing.TB, list []Opening, want map[string]string) {
	t.Helper()
	got := results(list)
	for node, result := range want {
		if got[node] != result {
			t.Errorf("%s: %q, want %q in %+v", node, got[node], result, list)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%+v, want %v", list, want)
	}
}

func everywhere(result string, members ...*Member) map[string]string {
	m := map[string]string{}
	for _, o := range members {
		m[o.Name()] = result
	}
	return m
}

// together lets custodians come again for as long as it takes: on a slow machine a leader is lost in the
// middle now and then, which is told them, and their shares are spent.
func together(t testing.TB, done func() bool, again func()) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 10 {
		for range 50 { // what was done may not be known here yet
			if done() {
				return
			}
			<-tick.C
		}
		again()
	}
	if !done() {
		t.Error("not done, however often they came")
	}
}

// shared tells whether a node knows that the tokens of some have a generation.
func shared(m *Member, on []*Member, label string, generation int) bool {
	for _, o := range on {
		seat := m.State().Slots[label].Seats[o.Name()]
		if seat.Mode != cluster.Shared || seat.Generation != generation || seat.Next != 0 {
			return false
		}
	}
	return true
}

func openEverywhere(t testing.TB, members []*Member, label string) bool {
	for _, m := range members {
		if stateOf(t, m, label) != cluster.Active {
			return false
		}
	}
	return true
}

// sharedEverywhere waits until all nodes know that all tokens have a generation.
func sharedEverywhere(t testing.TB, members []*Member, label string, generation int) {
	t.Helper()
	for _, m := range members {
		eventually(t, m.Name()+" sees the shared code everywhere", func() bool { return shared(m, members, label, generation) })
	}
}

func stateOf(t testing.TB, m *Member, label string) cluster.SeatState {
	t.Helper()
	v, err := m.Slots.One(label)
	if err != nil {
		t.Fatal(err)
	}
	return v.State
}

// TestShared is a slot that two of three people open together, through its whole life: its code is shared,
// it is closed and opened, custodians are replaced, the code is changed while a node is away, and the node
// takes it when it is back.
func TestShared(t *testing.T) {
	members := newCluster(t, 3)
	a, b, c := members[0], members[1], members[2]
	newSlot(t, members, "vault", cluster.Generated)
	newCustodians(t, a, "anna", "berta", "clara", "dora")
	if err := a.Custody.Publish(t.Context(), console, NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"anna", "berta", "clara"}}); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		eventually(t, m.Name()+" knows the custodians", func() bool { return len(m.Custody.Needs()) == 1 })
	}

	// Nothing changes before the second comes, from another node; the first does not count twice.
	wantResults(t, come(t, a, "anna"), everywhere(Waits, members...))
	again := come(t, b, "anna")
	wantResults(t, again, everywhere(Waits, members...))
	if !strings.Contains(again[0].Detail, "1 of 2") || !strings.Contains(again[0].Detail, "already") {
		t.Errorf("the same person twice: %+v", again)
	}
	come(t, c, "clara")
	together(t, func() bool { return shared(a, members, "vault", 1) }, func() { come(t, a, "anna"); come(t, c, "clara") })
	sharedEverywhere(t, members, "vault", 1)

	closeAll(t, members, "vault")
	wantResults(t, come(t, b, "berta"), everywhere(Waits, members...))
	come(t, c, "clara")
	together(t, func() bool { return openEverywhere(t, members, "vault") }, func() { come(t, b, "berta"); come(t, c, "clara") })
	for _, m := range members {
		if stateOf(t, m, "vault") != cluster.Active {
			t.Errorf("the slot is not open on %s", m.Name())
		}
	}

	// Others take the place of custodians, and the code stays.
	request, err := b.Custody.Replace(t.Context(), console, NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"dora", "berta"}})
	if err != nil {
		t.Fatal(err)
	}
	if list := come(t, a, "anna"); len(list) != 0 { // who does not agree to it gives nothing for it
		t.Errorf("anna gave something: %+v", list)
	}
	wantResults(t, come(t, a, "anna", request), everywhere(Waits, b))
	come(t, a, "clara", request)
	eventually(t, "the custodians are others", func() bool {
		p, _ := a.State().Slots["vault"].Newest()
		return slices.Equal(p.Holders(), []string{"berta", "dora"}) && p.Generation == 1
	})
	closeAll(t, members, "vault")
	if list := come(t, a, "anna"); len(list) != 0 {
		t.Errorf("anna is no custodian any more: %+v", list)
	}
	wantResults(t, come(t, a, "berta"), everywhere(Waits, members...))
	come(t, a, "dora")
	together(t, func() bool { return openEverywhere(t, members, "vault") }, func() { come(t, a, "berta"); come(t, a, "dora") })

	// The code is changed while node3 is away. It comes back, and takes it.
	cfg := c.node.cfg
	c.node.Close()
	eventually(t, "node3 is away", func() bool { return !a.Peers.Seen("node3").Answers })
	if err := a.Custody.Publish(t.Context(), console, NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"anna", "berta", "dora"}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node2 needs shares", func() bool { return len(b.Custody.Needs()) == 1 })
	away := come(t, a, "berta")
	if got := results(away); got["node1"] != Waits || got["node2"] != Waits || got["node3"] != Unreachable {
		t.Errorf("%+v", away)
	}
	come(t, a, "dora")
	together(t, func() bool { return shared(a, members[:2], "vault", 2) }, func() { come(t, a, "berta"); come(t, a, "dora") })
	sharedEverywhere(t, members[:2], "vault", 2)
	if n := len(a.State().Slots["vault"].Custody); n != 2 {
		t.Errorf("%d generations, with node3 on the old one", n)
	}
	back := open(t, cfg)
	if c, err = back.Member(); err != nil {
		t.Fatal(err)
	}
	members[2] = c
	eventually(t, "node3 is back", func() bool {
		return a.Peers.Seen("node3").Answers && c.Identity.Open() && c.Cluster.Status().Quorum && len(c.Custody.Needs()) == 2
	})
	come(t, b, "berta")
	come(t, b, "dora")
	together(t, func() bool { return shared(b, members, "vault", 2) }, func() { come(t, b, "berta"); come(t, b, "dora") })
	sharedEverywhere(t, members, "vault", 2)
	if n := len(a.State().Slots["vault"].Custody); n != 1 {
		t.Errorf("%d generations, with nobody on the old one", n)
	}
	if stateOf(t, c, "vault") != cluster.Active {
		t.Error("the slot is not open on node3")
	}
	noShares(t, members)
	codesEverywhere(t, members)
	handedOver(t, members)
}

// closeAll closes a slot on every node.
func closeAll(t testing.TB, members []*Member, label string) {
	t.Helper()
	for _, m := range members {
		if err := m.Slots.Deactivate(t.Context(), console, label); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members {
		for _, o := range members {
			eventually(t, "closed", func() bool { return m.State().Slots[label].Seats[o.Name()].State == cluster.Down })
		}
	}
}

// noShares checks that no node keeps what it does not need.
func noShares(t testing.TB, members []*Member) {
	t.Helper()
	for _, m := range members {
		m.Custody.mu.Lock()
		if n := len(m.Custody.piles); n > 0 {
			t.Errorf("%s keeps %d piles of shares", m.Name(), n)
		}
		m.Custody.mu.Unlock()
	}
}

// TestSharedRefusals is what goes wrong with shares and the people who hold them.
func TestSharedRefusals(t *testing.T) {
	members := newCluster(t, 1)
	m := members[0]
	newSlot(t, members, "vault", cluster.Manual)
	newCustodians(t, m, "anna", "berta", "clara")
	ctx := t.Context()
	publish := func(threshold int, holders ...string) error {
		return m.Custody.Publish(ctx, console, NewCustody{Slot: "vault", Threshold: threshold, Holders: holders})
	}
	for name, err := range map[string]error{
		"1 of 2":       publish(1, "anna", "berta"),
		"0 of 2":       publish(0, "anna", "berta"),
		"3 of 2":       publish(3, "anna", "berta"),
		"one holder":   publish(2, "anna"),
		"nobody":       publish(2),
		"twice":        publish(2, "anna", "anna"),
		"no account":   publish(2, "anna", "zoe"),
		"no slot":      m.Custody.Publish(ctx, console, NewCustody{Slot: "nowhere", Threshold: 2, Holders: []string{"anna", "berta"}}),
		"no node":      m.Custody.Publish(ctx, console, NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"anna", "berta"}, Nodes: []string{"node9"}}),
		"not yet":      m.Slots.Prepare(ctx, console, "vault", []byte(manualCode)),
		"no right":     m.Custody.Publish(ctx, as("anna"), NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"anna", "berta"}}),
		"not a person": m.Custody.SetUp(ctx, console, []byte("a long passphrase"), false),
		"again":        m.Custody.SetUp(ctx, as("anna"), []byte("a long passphrase"), false),
		"short":        m.Custody.SetUp(ctx, as("berta"), []byte("short"), true),
		"not UTF-8":    m.Custody.SetUp(ctx, as("berta"), []byte("a long passphrase \xff"), true),
		"long":         m.Custody.SetUp(ctx, as("berta"), []byte(strings.Repeat("x", maxPassphrase+1)), true),
		"another's":    m.Custody.Change(ctx, as("berta"), "anna", []byte(custodianPassphrase+"anna"), []byte("a long passphrase")),
		"at a console": m.Custody.Change(ctx, console, "clara", []byte("another passphrase"), []byte("a long passphrase")),
		"wrong old":    m.Custody.Change(ctx, as("berta"), "", []byte("another passphrase"), []byte("a long passphrase")),
	} {
		if err == nil || !IsRefusal(err) && !errors.Is(err, cluster.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	notes := map[string]int{}
	for _, e := range m.State().Audit {
		if e.Act == cluster.NoteShareRefused {
			notes[e.Actor.String()+" "+e.Object+" "+e.Result]++
		}
	}
	if want := map[string]int{"account/berta account/berta refused": 1, "console/root account/clara refused": 1}; !maps.Equal(notes, want) {
		t.Errorf("wrong old passphrases are recorded as %v, want %v", notes, want)
	}
	if err := publish(2, "anna", "berta", "clara"); err != nil {
		t.Fatal(err)
	}
	// A manual code is needed once more, and a wrong one is not taken.
	if needs := m.Custody.Needs(); len(needs) != 0 {
		t.Errorf("without the present code: %+v", needs)
	}
	if err := m.Slots.Prepare(ctx, console, "vault", []byte("not the code")); !IsRefusal(err) {
		t.Errorf("a wrong present code: %v", err)
	}
	if stateOf(t, m, "vault") != cluster.Active {
		t.Error("a wrong present code closed the slot")
	}
	if err := m.Slots.Prepare(ctx, console, "vault", []byte(manualCode)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Custody.Activate(ctx, as("anna"), Activation{Passphrase: []byte("not her passphrase")}); !errors.Is(err, errCustodian) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := m.Custody.Activate(ctx, as("anna"), Activation{}); !IsRefusal(err) {
		t.Errorf("nothing at all: %v", err)
	}
	// A custodian who is removed in the middle does not count, and another can still come.
	wantResults(t, come(t, m, "anna"), everywhere(Waits, m))
	if _, err := m.Cluster.Apply(ctx, &cluster.RemoveAccount{Name: "anna"}, console); err != nil {
		t.Fatal(err)
	}
	if n := m.Custody.Needs(); len(n) != 1 || n[0].Have != 0 || n[0].Threshold != 2 {
		t.Errorf("after anna is gone: %+v", n)
	}
	wantResults(t, come(t, m, "berta"), everywhere(Waits, m))
	wantResults(t, come(t, m, "clara"), everywhere(Changed, m))
	closeAll(t, members, "vault")
	if err := m.Slots.Activate(ctx, console, "vault", []byte(manualCode)); !IsRefusal(err) {
		t.Errorf("the old code: %v", err)
	}
	sharesOfOthers(t, m)
	leaving(t, members)
}

// sharesOfOthers hands in shares that do not fit.
func sharesOfOthers(t *testing.T, m *Member) {
	t.Helper()
	p, _ := m.State().Slots["vault"].Newest()
	junk := make([]byte, shareSize)
	for name, c := range map[string]struct {
		actor cluster.Actor
		given givenShare
		says  string
	}{
		"junk":          {as("berta"), givenShare{"vault", ForOpening, "", p.ID, junk}, "another split"},
		"another split": {as("berta"), givenShare{"vault", ForOpening, "", "s9", junk}, "another split"},
		"no holder":     {as("zoe"), givenShare{"vault", ForOpening, "", p.ID, junk}, "no share"},
		"removed":       {as("anna"), givenShare{"vault", ForOpening, "", p.ID, junk}, "no custodian passphrase"},
		"console":       {console, givenShare{"vault", ForOpening, "", p.ID, junk}, "person"},
		"no need":       {as("berta"), givenShare{"vault", ForLeaving, "x", p.ID, junk}, "does not need"},
		"no slot":       {as("berta"), givenShare{"nowhere", ForOpening, "", p.ID, junk}, "does not need"},
	} {
		list := m.Custody.accept(t.Context(), c.actor, []givenShare{c.given})
		if len(list) != 1 || list[0].Result != NotOpened || !strings.Contains(list[0].Detail, c.says) {
			t.Errorf("%s: %+v", name, list)
		}
	}
	if n := m.Custody.Needs(); len(n) != 1 || n[0].Have != 0 {
		t.Errorf("they count: %+v", n)
	}
}

// leaving gives the token a code of its own again, with two of them.
func leaving(t *testing.T, members []*Member) {
	t.Helper()
	m := members[0]
	if err := m.Slots.SetMode(t.Context(), console, "vault", cluster.Generated, nil, nil); !IsRefusal(err) {
		t.Errorf("by one person: %v", err)
	}
	if _, err := m.Custody.Leave(t.Context(), console, "vault", cluster.Manual, []byte("short")); !IsRefusal(err) {
		t.Errorf("a short code: %v", err)
	}
	id, err := m.Custody.Leave(t.Context(), console, "vault", cluster.Manual, []byte("battery staple"))
	if err != nil {
		t.Fatal(err)
	}
	come(t, m, "berta", id)
	come(t, m, "clara", id)
	v, err := m.Slots.One("vault")
	if err != nil || v.Mode != cluster.Manual {
		t.Errorf("the slot: %+v, %v", v, err)
	}
	closeAll(t, members, "vault")
	if err := m.Slots.Activate(t.Context(), console, "vault", []byte("battery staple")); err != nil {
		t.Error(err)
	}
	if n := len(m.State().Slots["vault"].Custody); n != 0 {
		t.Errorf("%d splits are kept for nobody", n)
	}
	noShares(t, members)
}

// TestSharedAndChangedByAnother brings a shared token back whose code another program has set: with that
// code, tried once, and without custodians.
func TestSharedAndChangedByAnother(t *testing.T) {
	members := newCluster(t, 1)
	m := members[0]
	newSlot(t, members, "vault", cluster.Manual)
	newCustodians(t, m, "anna", "berta")
	present := []byte(manualCode)
	for _, mode := range []string{cluster.Manual, cluster.Generated} {
		if err := m.Custody.Publish(t.Context(), console, NewCustody{Slot: "vault", Threshold: 2, Holders: []string{"anna", "berta"}}); err != nil {
			t.Fatal(err)
		}
		seat := m.Slots.seats["vault"]
		if err := m.Slots.update(seat, func() { seat.rec.share(1) }); err != nil { // and the token has another code
			t.Fatal(err)
		}
		if err := m.Slots.tell(t.Context(), seat); err != nil {
			t.Fatal(err)
		}
		closeAll(t, members, "vault")
		set := func(old string) error {
			return m.Slots.SetMode(t.Context(), console, "vault", mode, []byte(old), []byte("battery staple"))
		}
		for _, old := range []string{"", "not the code"} {
			if err := set(old); !IsRefusal(err) {
				t.Errorf("to %s with the code %q: %v", mode, old, err)
			}
			if got := m.State().Slots["vault"].Seats["node1"]; got.Mode != cluster.Shared || got.Generation != 1 {
				t.Errorf("to %s with the code %q: %+v", mode, old, got)
			}
		}
		if err := set(string(present)); err != nil {
			t.Fatal(err)
		}
		present = []byte("battery staple")
		slot := m.State().Slots["vault"]
		if got := slot.Seats["node1"]; got.Mode != mode || got.Generation != 0 || len(slot.Custody) != 0 {
			t.Errorf("to %s: %+v, custody %+v", mode, got, slot.Custody)
		}
	}
	if stateOf(t, m, "vault") != cluster.Active {
		t.Error("the node made a code, and the slot is closed")
	}
}

// TestSharedCutOff stops the node between every two steps of taking a shared code, from every mode.
// Whatever the tokens have then, their slots open again.
func TestSharedCutOff(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "node1")
	stopAt := ""
	cfg.Fault = func(step string) {
		if step == stopAt {
			stopAt = ""
			runtime.Goexit() // as if the process ended here: nothing after this happens
		}
	}
	n := open(t, cfg)
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	m, _ := n.Member()
	newCustodians(t, m, "anna", "berta")
	// The node carries out what is due in the order of labels: the later a slot is made, the earlier it comes.
	type cut struct{ label, from, step string }
	var cuts []cut
	for _, from := range []string{cluster.Generated, cluster.Manual, cluster.Shared} {
		for _, step := range []string{"shared: next stored", "shared: set on the token"} {
			c := cut{fmt.Sprintf("%c %s", 'z'-len(cuts), from), from, step}
			cuts = append(cuts, c)
			cutOff(t, m, c.label, c.from, func() { stopAt = c.step })
			if stopAt != "" {
				t.Fatalf("%s was not reached", c.step)
			}
		}
	}
	n.Close()
	cfg.Fault = nil
	n = open(t, cfg)
	m, _ = n.Member()
	eventually(t, "a quorum", func() bool { return m.Cluster.Status().Quorum && m.Identity.Open() })
	if err := m.Slots.Activate(t.Context(), console, cuts[2].label, []byte(manualCode)); err != nil { // had not been asked yet
		t.Error(err)
	}
	eventually(t, "each slot is open or waits for its custodians", func() bool {
		needs := m.Custody.Needs()
		for _, c := range cuts {
			waits := slices.ContainsFunc(needs, func(n ShareNeed) bool { return n.Slot == c.label && n.Purpose == ForOpening })
			if !waits && stateOf(t, m, c.label) != cluster.Active {
				return false
			}
		}
		return true
	})
	come(t, m, "anna")
	come(t, m, "berta")
	for _, c := range cuts {
		eventually(t, c.label+" is open", func() bool { return stateOf(t, m, c.label) == cluster.Active })
		if rec, err := m.Slots.record(c.label); err != nil || rec.Next != 0 || rec.Mode != cluster.Shared {
			t.Errorf("%s, cut off at %s: %+v, %v", c.label, c.step, rec, err)
		}
	}
}

// cutOff makes a slot whose token is just getting a shared code when the node stops.
func cutOff(t *testing.T, m *Member, label, from string, arm func()) {
	t.Helper()
	mode := from
	if from == cluster.Shared {
		mode = cluster.Generated
	}
	newSlot(t, []*Member{m}, label, mode)
	publish := func() {
		t.Helper()
		if err := m.Custody.Publish(t.Context(), console, NewCustody{Slot: label, Threshold: 2, Holders: []string{"anna", "berta"}}); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	switch from {
	case cluster.Manual:
		if err := m.Slots.Prepare(t.Context(), console, label, []byte(manualCode)); err != nil {
			t.Fatal(err)
		}
	case cluster.Shared:
		come(t, m, "anna")
		come(t, m, "berta")
		publish()
	}
	come(t, m, "anna")
	arm()
	come(t, m, "berta")
}
