package cluster

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"
	"time"
)

// A joiner that crashed can repeat itself: same code, same identity key.
func TestAdmitNodeAgain(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	s = play(t, s, step{"node1", anna, &SetTrust{Trusting: "node1", Trusted: "node2"}})
	again := testNode("node2")
	again.PeerAddress = "moved.example:8441"
	s = play(t, s, step{"node1", daemon1, &AdmitNode{Invite: testInvite(2), Node: again}})
	n := s.Nodes["node2"]
	if n.PeerAddress != again.PeerAddress || n.Status != Connected || !n.Joined.Equal(epoch.Add(4*time.Second)) {
		t.Errorf("node2 is %+v", n)
	}
	if s.Trusts("node1", "node2") {
		t.Error("a repeated admission brought back an edge of trust that was removed")
	}
	late := step{"node1", daemon1, &AdmitNode{Invite: testInvite(2), Node: again}}
	s.Index += 3600
	_, err := try(t, s, late)
	wantCode(t, err, Expired)
}

func TestAdmissionTrustsBothWays(t *testing.T) {
	s := play(t, new(State), history()...)
	for trusting, want := range map[string][]string{"node1": {"node2", "node3"}, "node2": {"node1", "node3"}, "node3": {"node1"}} { // history removes one
		if got := s.TrustedBy(trusting); !slices.Equal(got, want) {
			t.Errorf("%s trusts %v, want %v", trusting, got, want)
		}
	}
}

func TestSetTrust(t *testing.T) {
	s := play(t, new(State), history()...)
	for _, trust := range []bool{false, true, true} { // the last changes nothing
		s = play(t, s, step{"node1", anna, &SetTrust{Trusting: "node1", Trusted: "node2", Trust: trust}})
		want := []string{"node2", "node3"}
		if !trust {
			want = want[1:]
		}
		if got := s.TrustedBy("node1"); !slices.Equal(got, want) || s.Trusts("node1", "node2") != trust || !s.Trusts("node1", "node3") {
			t.Errorf("node1 trusts %v, want %v", got, want)
		}
	}
}

// An edge that is made again begins anew; one that is removed says when and by whom.
func TestEdge(t *testing.T) {
	s := play(t, new(State), history()...)
	first, ok := s.Edge("node1", "node2")
	if !ok || !first.Holds() || first.Since.IsZero() || first.By != daemon1.String() {
		t.Errorf("the edge of the admission is %+v", first)
	}
	set := func(trust bool, actor Actor) Edge {
		s = play(t, s, step{"node1", actor, &SetTrust{Trusting: "node1", Trusted: "node2", Trust: trust}})
		e, _ := s.Edge("node1", "node2")
		return e
	}
	if again := set(true, anna); again != first {
		t.Errorf("an edge that holds was made again as %+v", again)
	}
	removed := set(false, anna)
	if removed.Holds() || !removed.Since.Equal(first.Since) || !removed.Removed.After(first.Since) || removed.By != anna.String() {
		t.Errorf("the removed edge is %+v", removed)
	}
	if again := set(true, console); !again.Holds() || !again.Since.After(removed.Removed) || again.By != console.String() {
		t.Errorf("the edge that was made again is %+v", again)
	}
	if _, ok := s.Edge("node3", "node3"); ok {
		t.Error("there is an edge from a node to itself")
	}
}

func TestInviteForOneName(t *testing.T) {
	s := play(t, new(State), append(founding(), step{"node1", anna, &AddInvite{Hash: testInvite(1), Node: "node2", Seconds: 3600}})...)
	key := testNode("node2").Key
	now := epoch.Add(time.Minute)
	if err := s.CheckInvite(testInvite(1), "node2", key, now); err != nil {
		t.Error(err)
	}
	wantCode(t, s.CheckInvite(testInvite(1), "node3", key, now), Denied)
	wantCode(t, s.CheckInvite(testInvite(2), "node2", key, now), Denied)
	wantCode(t, s.CheckInvite(testInvite(1), "node2", key, epoch.Add(2*time.Hour)), Expired)
}

// Expired codes are cleared away by the next one.
func TestInvitesExpire(t *testing.T) {
	s := play(t, new(State), append(founding(), step{"node1", anna, &AddInvite{Hash: testInvite(1), Seconds: 60}})...)
	s.Index += 60
	s = play(t, s, step{"node1", anna, &AddInvite{Hash: testInvite(2), Seconds: 3600}})
	if got := sorted(s.Invites); !slices.Equal(got, []string{testInvite(2)}) {
		t.Errorf("invites are %v", got)
	}
}

func TestSetNode(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	before := len(s.Audit)
	s = play(t, s, step{"node2", daemon2, &SetNode{Node: testNode("node2")}})
	if len(s.Audit) != before {
		t.Error("saying the same again is in the audit trail")
	}
	n := testNode("node2")
	n.PeerAddress, n.Version, n.Status = "10.0.0.2:8441", "1.1", Initializing
	present, err := x509.ParseCertificate(n.Identity)
	if err != nil {
		t.Fatal(err)
	}
	signer := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	later := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: present.Subject, NotAfter: epoch.AddDate(20, 0, 0)}
	if n.Identity, err = x509.CreateCertificate(rand.Reader, later, &x509.Certificate{Subject: present.Subject}, present.PublicKey, signer); err != nil {
		t.Fatal(err)
	}
	s = play(t, s, step{"node2", daemon2, &SetNode{Node: n}})
	got := s.Nodes["node2"]
	if got.PeerAddress != n.PeerAddress || got.Version != "1.1" || got.Status != Connected || got.Joined.IsZero() || !slices.Equal(got.Identity, testNode("node2").Identity) {
		t.Errorf("node2 is %+v", got)
	}
	if e := s.Audit[len(s.Audit)-1]; e.Detail != "changed: peer address, version" {
		t.Errorf("audit entry %+v", e)
	}
	wantCode(t, s.Admits("node2", identityOf("other")), Denied)
	s = play(t, s, step{"node2", anna, &ReplaceIdentity{Identity: identityOf("other").Raw, Key: KeyHash(identityOf("other"))}})
	if err := s.Admits("node2", identityOf("other")); err != nil {
		t.Error(err)
	}
	wantCode(t, s.Admits("node9", identityOf("node2")), NotFound)
}

// A node does not fall back from Connected, and a new one passes through Connecting.
func TestConnectNode(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)[:2]...)...)
	for _, c := range []struct{ say, want NodeStatus }{{"", Initializing}, {Connecting, Connecting}, {Connected, Connected}, {Connecting, Connected}} {
		if c.say != "" {
			s = play(t, s, step{"node2", daemon2, &ConnectNode{Status: c.say}})
		}
		if got := s.Nodes["node2"].Status; got != c.want {
			t.Errorf("after %q, node2 is %q, want %q", c.say, got, c.want)
		}
	}
}

func TestRemoveNode(t *testing.T) {
	s := play(t, new(State), history()...)
	s = play(t, s,
		step{"node2", anna, &BeginAct{ID: "act-3", Act: "slot.activate", Object: "slot/payments", Permission: MayActivate}},
		step{"node2", daemon2, &ReportRun{App: "ejbca", Run: Run{OK: true}}},
		step{"node1", anna, &RemoveNode{Node: "node2", GiveUp: true}})
	if got := sorted(s.Nodes); !slices.Equal(got, []string{"node1", "node3"}) {
		t.Errorf("nodes are %v", got)
	}
	if _, ok := s.Slots["payments"].Seats["node2"]; ok {
		t.Error("the seat of the node is left")
	}
	if _, ok := s.Keys["payments"]["node2"]; ok {
		t.Error("the inventory of the node is left")
	}
	if _, ok := s.Apps["ejbca"].Runs["node2"]; ok {
		t.Error("a run on the node is left")
	}
	if s.Trusts("node1", "node2") || len(s.Trust["node2"]) > 0 {
		t.Errorf("trust is %v", s.Trust)
	}
	if _, ok := s.Acts["act-3"]; ok || len(s.Acts) != 1 {
		t.Errorf("acts are %v", s.Acts)
	}
	if e := s.Audit[len(s.Audit)-2]; e.ActID != "act-3" || e.Result != Failed {
		t.Errorf("the act on the node ended as %+v", e)
	}
	s = play(t, s, step{"node1", anna, &RemoveNode{Node: "node3"}})
	_, err := try(t, s, step{"node1", anna, &RemoveNode{Node: "node1"}})
	wantCode(t, err, Conflict)
}

func TestSeats(t *testing.T) {
	s := play(t, new(State), history()...)
	put := s.Slots["payments"].Seats["node1"]
	if put.Node != "node1" || put.By != "account/anna" || put.Since.IsZero() {
		t.Errorf("seat %+v", put)
	}
	entries := len(s.Audit)
	s = play(t, s, step{"node1", daemon1, &ReportSeat{Slot: "payments", State: Active, CodeFacts: put.CodeFacts}})
	if got := s.Slots["payments"].Seats["node1"]; got != put || len(s.Audit) != entries {
		t.Errorf("the same report again made %+v, with %d entries", got, len(s.Audit)-entries)
	}
	s = play(t, s, step{"node1", daemon1, &ReportSeat{Slot: "payments", State: Down, Receiver: "eyJ.new.one"}})
	got := s.Slots["payments"].Seats["node1"]
	if got.State != Down || got.Receiver != "eyJ.new.one" || !got.Since.After(put.Since) || len(s.Audit) != entries+1 {
		t.Errorf("seat %+v", got)
	}
	mode := testSeat("100")
	mode.Mode, mode.State = Manual, Down
	s = play(t, s, step{"node1", console, &PutSeat{Slot: "payments", Seat: mode}})
	if again := s.Slots["payments"].Seats["node1"]; again.Mode != Manual || again.By != "console/root" || !again.Since.Equal(got.Since) {
		t.Errorf("seat %+v", again)
	}
	s = play(t, s, step{"node3", anna, &RemoveSeat{Slot: "payments", Node: "node1", GiveUp: true}}, step{"node3", anna, &RemoveSeat{Slot: "payments", Node: "node2", GiveUp: true}})
	if len(s.Slots) != 0 || len(s.Keys) != 0 {
		t.Errorf("slots %v, keys %v", s.Slots, s.Keys)
	}
}

// A stored code that a token refuses is said once in the audit trail; the slot's rotation does not touch its seats.
func TestCodeFacts(t *testing.T) {
	s := play(t, new(State), history()...)
	refused := 0
	for _, facts := range []CodeFacts{{}, {CodeRefused: true}, {CodeRefused: true, Opened: epoch}, {Opened: epoch}} {
		s = play(t, s, step{"node1", daemon1, &ReportSeat{Slot: "payments", State: Active, CodeFacts: facts}})
		if got := s.Slots["payments"].Seats["node1"].CodeFacts; got != facts {
			t.Errorf("the facts are %+v, want %+v", got, facts)
		}
	}
	for _, e := range s.Audit {
		if e.Act == NoteCodeDiffers && e.Node == "node1" && e.Result == Failed {
			refused++
		}
	}
	if refused != 1 {
		t.Errorf("the refusal is in the audit trail %d times", refused)
	}
	before := s.Slots["payments"]
	s = play(t, s, step{"node2", anna, &SetRotation{Slot: "payments"}})
	if after := s.Slots["payments"]; after.RotateEvery != 0 || !maps.Equal(after.Seats, before.Seats) || before.RotateEvery != 90 {
		t.Errorf("rotation %d after %d", after.RotateEvery, before.RotateEvery)
	}
	_, err := try(t, s, step{"node1", anna, &SetRotation{Slot: "tls", Days: 1}})
	wantCode(t, err, NotFound)
}

// A report in parts is taken for the whole only with its last part.
func TestReportKeys(t *testing.T) {
	s := play(t, new(State), history()...)
	report := func(c ReportKeys) { s = play(t, s, step{"node2", daemon2, &c}) }
	if held := s.Keys["payments"]["node2"]; !held.Reported.IsZero() || len(held.Keys) != 1 {
		t.Errorf("after half a report: %+v", held)
	}
	first := s.Keys["payments"]["node2"].Keys["key-1"].Since
	changed := testHeld("key-1")
	changed.Label = "renamed"
	report(ReportKeys{Slot: "payments", Put: []Held{changed, testHeld("key-3")}, Complete: true, Loose: 2})
	held := s.Keys["payments"]["node2"]
	if held.Reported.IsZero() || held.Loose != 2 || len(held.Keys) != 2 {
		t.Errorf("after the report: %+v", held)
	}
	if k := held.Keys["key-1"]; k.Label != "renamed" || !k.Since.Equal(first) {
		t.Errorf("a changed key is %+v, first seen %v", k, first)
	}
	report(ReportKeys{Slot: "payments", Remove: []string{"key-1", "key-9"}})
	if got := sorted(s.Keys["payments"]["node2"].Keys); !slices.Equal(got, []string{"key-3"}) {
		t.Errorf("keys are %v", got)
	}
	if got := s.Keys["payments"]["node2"].Reported; !got.Equal(held.Reported) {
		t.Error("a part of a report counts as the whole")
	}
}

func TestAccounts(t *testing.T) {
	s := play(t, new(State), founding()...)
	other := testHash[:len(testHash)-1] + "B"
	s = play(t, s, step{"node1", anna, &SetPassword{Hash: other}})
	if a := s.Accounts["anna"]; a.Hash != other || a.MustChange || !a.Has(CryptoOfficer) || a.By != "console/root" || a.Created.IsZero() {
		t.Errorf("account %+v", a)
	}
}

// An application keeps the last runs when it is changed, and may keep a slot that is gone by now.
func TestPutApp(t *testing.T) {
	s := play(t, new(State), history()...)
	s = play(t, s, step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node1", GiveUp: true}}, step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node2", GiveUp: true}})
	app := s.Apps["ejbca"]
	app.Runs, app.Restart = nil, Restart{RestartCommand, "restart-ejbca"}
	s = play(t, s, step{"node1", anna, &PutApp{App: app}})
	if got := s.Apps["ejbca"]; !got.Runs["node1"].OK || got.Restart != app.Restart {
		t.Errorf("app %+v", got)
	}
}

// Applications start one after the other; an order that cannot be kept is refused.
func TestAppOrder(t *testing.T) {
	app := func(name string, after ...string) step {
		return step{"node1", anna, &PutApp{App: App{Name: name, After: after, Restart: Restart{Kind: RestartNone}}}}
	}
	s := play(t, new(State), append(founding(), app("a"), app("b", "a"), app("c", "a", "b"))...)
	_, err := try(t, s, app("d", "e"))
	wantCode(t, err, NotFound)
	for _, circle := range []step{app("a", "b"), app("a", "c"), app("b", "a", "c")} {
		_, err := try(t, s, circle)
		wantCode(t, err, Conflict)
	}
	_, err = try(t, s, step{"node1", anna, &RemoveApp{Name: "b"}})
	wantCode(t, err, Conflict)
	play(t, s, app("c", "a"), step{"node1", anna, &RemoveApp{Name: "b"}})
}

// What a delivery leaves out is filled in where it is applied, the same on every node.
func TestDeliveryDefaults(t *testing.T) {
	for _, c := range []struct{ give, want Delivery }{
		{Delivery{}, Delivery{Kind: DeliverNone}},
		{Delivery{Kind: DeliverFile}, Delivery{Kind: DeliverFile, Mode: ModeOwner}},
		{Delivery{Kind: DeliverFile, Mode: ModeGroup, Group: "33"}, Delivery{Kind: DeliverFile, Mode: ModeGroup, Group: "33"}},
	} {
		s := play(t, new(State), append(founding(), step{"node1", anna, &PutApp{App: App{Name: "a", Restart: Restart{Kind: RestartNone}, Delivery: c.give}}})...)
		if got := s.Apps["a"].Delivery; got != c.want {
			t.Errorf("%+v became %+v, want %+v", c.give, got, c.want)
		}
	}
}

// The node of an act may end it too: after a crash there is nobody else.
func TestNodeEndsAct(t *testing.T) {
	s := play(t, new(State), history()...)
	s = play(t, s, step{"node1", daemon1, &EndAct{ID: "act-2", Result: Failed, Detail: "the daemon was restarted"}})
	if e := s.Audit[len(s.Audit)-1]; e.Act != "key.generate" || e.Actor != daemon1 || e.Result != Failed || e.ActID != "act-2" {
		t.Errorf("audit entry %+v", e)
	}
}

// Each limit on a count refuses one more, or forgets the oldest.
func TestFull(t *testing.T) {
	base := play(t, new(State), history()...)
	fill := func(t *testing.T, change func(s *State), st step) error {
		s := *base
		change(&s)
		_, err := try(t, &s, st)
		return err
	}
	for name, err := range map[string]error{
		"nodes": fill(t, func(s *State) {
			s.Nodes = filled(s.Nodes, maxNodes, func(name string) Node {
				return Node{Name: name, Key: name, PeerAddress: name, Protocol: Protocol}
			})
		},
			step{"node1", daemon1, &AdmitNode{Invite: testInvite(4), Node: testNode("node4")}}),
		"invites": fill(t, func(s *State) {
			s.Invites = filled(s.Invites, maxInvites, func(h string) Invite { return Invite{Hash: h, Expires: epoch.Add(time.Hour)} })
		},
			step{"node1", anna, &AddInvite{Hash: testInvite(9), Seconds: 3600}}),
		"slots": fill(t, func(s *State) { s.Slots = filled(s.Slots, maxSlots, func(l string) Slot { return Slot{Label: l} }) },
			step{"node1", anna, &PutSeat{Slot: "tls", Seat: testSeat("101")}}),
		"keys": fill(t, func(s *State) {
			keys := filled(nil, maxKeys, func(fp string) Held { return Held{Fingerprint: fp} })
			s.Keys = with(s.Keys, "payments", with(s.Keys["payments"], "node1", Inventory{Keys: keys}))
		},
			step{"node1", daemon1, &ReportKeys{Slot: "payments", Put: []Held{testHeld("key-1")}}}),
		"accounts": fill(t, func(s *State) {
			s.Accounts = filled(s.Accounts, maxAccounts, func(string) Account { return Account{} })
		},
			step{"node1", anna, &PutAccount{Name: "berta", Hash: testHash, Roles: everyRole, New: true}}),
		"apps": fill(t, func(s *State) { s.Apps = filled(s.Apps, maxApps, func(string) App { return App{} }) },
			step{"node1", anna, &PutApp{App: App{Name: "nginx", Restart: Restart{Kind: RestartNone}}}}),
		"acts": fill(t, func(s *State) { s.Acts = filled(s.Acts, maxActs, func(string) Act { return Act{} }) },
			step{"node1", anna, &BeginAct{ID: "act-3", Act: "x", Object: "y", Permission: MayView}}),
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, err, Full) })
	}

	s := *base
	s.Packages = filled(s.Packages, maxPackages, func(id string) Package { return Package{ID: id, Created: epoch.Add(time.Hour)} })
	next := play(t, &s, step{"node1", anna, &RecordPackage{Package: testPackage("pkg-2", "node2")}})
	if _, ok := next.Packages["pkg-1"]; ok || len(next.Packages) != maxPackages {
		t.Errorf("%d packages, the oldest among them: %v", len(next.Packages), ok)
	}
	if _, ok := next.Packages["pkg-2"]; !ok {
		t.Error("the new package is not recorded")
	}
}

// filled returns a copy of m with made up entries, n in all.
func filled[V any](m map[string]V, n int, make func(string) V) map[string]V {
	c := maps.Clone(m)
	if c == nil {
		c = map[string]V{}
	}
	for i := 0; len(c) < n; i++ {
		k := fmt.Sprintf("filler-%d", i)
		c[k] = make(k)
	}
	return c
}
