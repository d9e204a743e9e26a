package cluster

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

const testSealed = "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$c2VhbGVk"

// custodians makes accounts that can hold shares.
func custodians(names ...string) []step {
	var steps []step
	for _, name := range names {
		a := Actor{ByAccount, name}
		if name != "anna" {
			steps = append(steps, step{"node1", anna, &PutAccount{Name: name, Hash: testHash, Roles: []RoleGrant{{Role: CryptoUser}}, New: true}})
		}
		steps = append(steps, step{"node1", a, &PutCustodian{Account: name, Key: "key-" + name, Public: []byte{4, 1}, Sealed: testSealed}})
	}
	return steps
}

// testSplit is a split of a generation that m of some people hold, with an id for each of those.
func testSplit(generation, threshold int, holders ...string) Split {
	p := Split{ID: "split-" + strconv.Itoa(generation) + "-" + strings.Join(holders, "-"), Generation: generation, Threshold: threshold,
		Check: strings.Repeat("c", 63) + strconv.Itoa(generation%10), Nodes: []string{"node1", "node2"}}
	for i, name := range holders {
		p.Shares = append(p.Shares, Share{Account: name, Index: i + 1, Key: "key-" + name, Sealed: []byte{1, 2}, Check: strings.Repeat("ab", 32)})
	}
	return p
}

// sharedHistory is history with a slot that 2 of 2 open, whose node1 has the code and node2 may have.
func sharedHistory() []step {
	shared := testSeat("100")
	shared.Mode, shared.Generation = Shared, 1
	return append(custodians("frida", "greta"),
		step{"node1", anna, &PutSplit{Slot: "payments", Split: testSplit(1, 2, "frida", "greta")}},
		step{"node1", anna, &PutSeat{Slot: "payments", Seat: shared}},
		step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Broken, Reason: "the module does not answer", Next: 1,
			CodeFacts: CodeFacts{CodeSince: epoch, CodeRefused: true, Opened: epoch, OpenedBy: "account/anna"}}})
}

// paidUp has a slot on two nodes and four custodians.
func paidUp(t *testing.T) *State {
	t.Helper()
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	s = play(t, s, step{"node1", anna, &PutSeat{Slot: "payments", Seat: testSeat("100")}}, step{"node2", anna, &PutSeat{Slot: "payments", Seat: testSeat("200")}})
	return play(t, s, custodians("anna", "berta", "clara", "dora")...)
}

func sharedSeat(serial string, generation int) Seat {
	seat := testSeat(serial)
	seat.Mode, seat.Generation = Shared, generation
	return seat
}

func TestSplitRefused(t *testing.T) {
	s := paidUp(t)
	first := testSplit(1, 2, "anna", "berta", "clara")
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Split: first}})
	edit := func(generation int, f func(*Split), holders ...string) Split {
		p := testSplit(generation, 2, holders...)
		f(&p)
		return p
	}
	none := func(*Split) {}
	for name, c := range map[string]struct {
		base  string
		split Split
		code  Code
	}{
		"no base":               {"", edit(2, none, "anna", "berta"), Conflict},
		"another's base":        {"split-9", edit(2, none, "anna", "berta"), Conflict},
		"same id":               {first.ID, edit(1, func(p *Split) { p.ID = first.ID }, "anna", "berta"), Conflict},
		"other code":            {first.ID, edit(1, func(p *Split) { p.Check = strings.Repeat("0", 64) }, "anna", "berta"), Conflict},
		"other nodes":           {first.ID, edit(1, func(p *Split) { p.Nodes = []string{"node1"} }, "anna", "berta"), Conflict},
		"a generation left out": {first.ID, edit(3, none, "anna", "berta"), Conflict},
		"no such node":          {first.ID, edit(2, func(p *Split) { p.Nodes = []string{"node9"} }, "anna", "berta"), NotFound},
		"no custodian":          {first.ID, edit(2, none, "anna", "zoe"), Conflict},
		"another key":           {first.ID, edit(2, func(p *Split) { p.Shares[0].Key = "key-old" }, "anna", "berta"), Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Base: c.base, Split: c.split}})
			wantCode(t, err, c.code)
		})
	}
	_, err := try(t, s, step{"node1", anna, &PutSplit{Slot: "nowhere", Split: first}})
	wantCode(t, err, NotFound)
	// An auditor may not open the slot, so cannot hold a share.
	s = play(t, s, step{"node1", anna, &PutAccount{Name: "dora", Roles: []RoleGrant{{Role: Auditor}}}})
	_, err = try(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Base: first.ID, Split: testSplit(2, 2, "anna", "dora")}})
	wantCode(t, err, Denied)
}

// A generation stays for as long as some token has its code or may have it.
func TestGenerationsForgotten(t *testing.T) {
	s := paidUp(t)
	first, second, third := testSplit(1, 2, "anna", "berta"), testSplit(2, 2, "anna", "clara"), testSplit(3, 2, "berta", "clara")
	generations := func() (list []int) {
		for _, p := range s.Slots["payments"].Custody {
			list = append(list, p.Generation)
		}
		return list
	}
	want := func(when string, want ...int) {
		t.Helper()
		if got := generations(); !slices.Equal(got, want) {
			t.Errorf("%s: generations %v, want %v", when, got, want)
		}
	}
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Split: first}},
		step{"node1", anna, &PutSeat{Slot: "payments", Seat: sharedSeat("100", 1)}},
		step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Active, Next: 1}},
		step{"node1", anna, &PutSplit{Slot: "payments", Base: first.ID, Split: second}})
	want("node2 may have 1", 1, 2)
	if slot := s.Slots["payments"]; !slot.Due("node1") || !slot.Due("node2") || slot.Due("node3") {
		t.Error("who is due")
	}
	s = play(t, s, step{"node1", anna, &PutSeat{Slot: "payments", Seat: sharedSeat("100", 2)}},
		step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Active, Next: 2}})
	want("nobody has 1", 2)
	if s.Slots["payments"].Due("node1") {
		t.Error("node1 is due and has the newest code")
	}
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Base: second.ID, Split: third}})
	_, err := try(t, s, step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Active, Next: 1}})
	wantCode(t, err, Conflict)
	s = play(t, s, step{"node1", anna, &RemoveSplit{Slot: "payments", Split: third.ID}})
	want("3 is taken back", 2)
	_, err = try(t, s, step{"node1", anna, &RemoveSplit{Slot: "payments", Split: second.ID}})
	wantCode(t, err, Conflict)
	_, err = try(t, s, step{"node1", anna, &RemoveSplit{Slot: "payments", Split: first.ID}})
	wantCode(t, err, Conflict)
	manual := testSeat("100")
	manual.Mode = Manual
	s = play(t, s, step{"node1", anna, &PutSeat{Slot: "payments", Seat: manual}}, step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Active}})
	want("node2 is still to take 2", 2)
	if slot := s.Slots["payments"]; slot.Due("node1") {
		t.Error("a node that left is due again")
	}
	s = play(t, s, step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node2"}})
	want("nobody is to take 2")
}

func TestReplaceHolders(t *testing.T) {
	s := paidUp(t)
	first := testSplit(1, 2, "anna", "berta")
	again := testSplit(1, 2, "clara", "dora")
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Split: first}},
		step{"node1", anna, &PutSplit{Slot: "payments", Base: first.ID, Split: again}})
	got := s.Slots["payments"].Custody
	if len(got) != 1 || got[0].ID != again.ID || got[0].By != "account/anna" || got[0].Created.IsZero() {
		t.Errorf("custody is %+v", got)
	}
	if err := s.Holds("payments", "anna", got[0]); asError(err).Code != Denied {
		t.Errorf("anna still counts: %v", err)
	}
}

// Nobody is locked out by taking people away.
func TestCustodiansAreKept(t *testing.T) {
	s := paidUp(t)
	p := testSplit(1, 2, "berta", "clara", "dora")
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Split: p}}, step{"node1", anna, &RemoveAccount{Name: "dora"}})
	if n := s.Live("payments", s.Slots["payments"].Custody[0]); n != 2 {
		t.Errorf("%d custodians are left", n)
	}
	if _, ok := s.Custodians["dora"]; ok {
		t.Error("the custodian key of a removed account is left")
	}
	for name, cmd := range map[string]Command{
		"removed":         &RemoveAccount{Name: "clara"},
		"disabled":        &PutAccount{Name: "clara", Roles: []RoleGrant{{Role: CryptoUser}}, Disabled: true},
		"without a right": &PutAccount{Name: "clara"},
		"of other slots":  &PutAccount{Name: "clara", Roles: []RoleGrant{{Role: CryptoUser, Slots: []string{"payments"}}}},
	} {
		next, err := try(t, s, step{"node1", anna, cmd})
		if name == "of other slots" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		wantCode(t, err, Conflict)
		if next.Live("payments", p) != 2 {
			t.Errorf("%s, and refused: the custodian is gone", name)
		}
	}
	clara := Actor{ByAccount, "clara"}
	next, err := try(t, s, step{"node1", clara, &PutCustodian{Account: "clara", Key: "key-new", Public: []byte{4, 2}, Sealed: testSealed}})
	wantCode(t, err, Conflict)
	if next.Custodians["clara"].Key != "key-clara" {
		t.Error("a custodian has given up the last share that could be spared")
	}
	s = play(t, s, step{"node1", clara, &PutCustodian{Account: "clara", Key: "key-clara", Sealed: testSealed + "AA"}}) // another passphrase takes nothing away
	// A new account with an old name does not get the old share.
	s = play(t, s, custodians("dora")...)
	s = play(t, s, step{"node1", Actor{ByAccount, "dora"}, &PutCustodian{Account: "dora", Key: "key-new", Public: []byte{4, 2}, Sealed: testSealed}})
	wantCode(t, s.Holds("payments", "dora", p), Conflict)
}

// A token whose code only custodians can rebuild is not forgotten by the way.
func TestSharedTokensAreKept(t *testing.T) {
	s := paidUp(t)
	s = play(t, s, step{"node1", anna, &PutSplit{Slot: "payments", Split: testSplit(1, 2, "berta", "clara")}})
	due := play(t, s, step{"node1", anna, &RemoveNode{Node: "node2"}}) // its token still has a code of its own
	if _, ok := due.Slots["payments"].Seats["node2"]; ok {
		t.Error("the seat of a removed node is left")
	}
	getting := play(t, s, step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Active, Next: 1}})
	shared := play(t, s, step{"node2", anna, &PutSeat{Slot: "payments", Seat: sharedSeat("200", 1)}})
	for name, s := range map[string]*State{"shared": shared, "may be shared": getting} {
		for _, cmd := range []Command{&RemoveNode{Node: "node2"}, &RemoveSeat{Slot: "payments", Node: "node2"}} {
			next, err := try(t, s, step{"node1", anna, cmd})
			wantCode(t, err, Conflict)
			if _, ok := next.Slots["payments"].Generation(1); !ok {
				t.Errorf("%s, %s refused: the split is gone", name, cmd.Kind())
			}
		}
		for _, cmd := range []Command{&RemoveNode{Node: "node2", GiveUp: true}, &RemoveSeat{Slot: "payments", Node: "node2", GiveUp: true}} {
			next := play(t, s, step{"node1", anna, cmd})
			if last := next.Audit[len(next.Audit)-1]; !strings.Contains(last.Detail, "given up") {
				t.Errorf("%s, %s: the trail says %+v", name, cmd.Kind(), last)
			}
		}
		play(t, s, step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node1"}}) // has a code of its own
	}
}

func TestPutCustodian(t *testing.T) {
	s := paidUp(t)
	berta := Actor{ByAccount, "berta"}
	old := s.Custodians["berta"]
	s = play(t, s, step{"node2", berta, &PutCustodian{Account: "berta", Key: old.Key, Sealed: testSealed + "AA"}})
	if c := s.Custodians["berta"]; c.Key != old.Key || !slices.Equal(c.Public, old.Public) || !c.Changed.After(old.Changed) || !c.Created.Equal(old.Created) {
		t.Errorf("after another passphrase: %+v", c)
	}
	for name, c := range map[string]struct {
		actor Actor
		cmd   *PutCustodian
		code  Code
	}{
		"for another":  {anna, &PutCustodian{Account: "berta", Key: old.Key, Sealed: testSealed}, Denied},
		"by console":   {console, &PutCustodian{Account: "berta", Key: old.Key, Sealed: testSealed}, Denied},
		"by a node":    {daemon1, &PutCustodian{Account: "berta", Key: old.Key, Sealed: testSealed}, Denied},
		"other key":    {berta, &PutCustodian{Account: "berta", Key: "key-x", Sealed: testSealed}, Conflict},
		"same key new": {berta, &PutCustodian{Account: "berta", Key: old.Key, Public: []byte{9}, Sealed: testSealed}, Conflict},
	} {
		_, err := try(t, s, step{"node1", c.actor, c.cmd})
		if asError(err).Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMalformedSplits(t *testing.T) {
	edit := func(f func(*PutSplit)) *PutSplit {
		c := &PutSplit{Slot: "payments", Split: testSplit(1, 2, "anna", "berta", "clara")}
		f(c)
		return c
	}
	if err := edit(func(*PutSplit) {}).validate(); err != nil {
		t.Fatal(err)
	}
	for name, cmd := range map[string]Command{
		"one holder":         edit(func(c *PutSplit) { c.Split.Shares = c.Split.Shares[:1] }),
		"no holder":          edit(func(c *PutSplit) { c.Split.Shares = nil }),
		"too many":           edit(func(c *PutSplit) { c.Split.Shares = make([]Share, maxHolders+1) }),
		"one is enough":      edit(func(c *PutSplit) { c.Split.Threshold = 1 }),
		"none is enough":     edit(func(c *PutSplit) { c.Split.Threshold = 0 }),
		"less than none":     edit(func(c *PutSplit) { c.Split.Threshold = -1 }),
		"more than there":    edit(func(c *PutSplit) { c.Split.Threshold = 4 }),
		"twice":              edit(func(c *PutSplit) { c.Split.Shares[1].Account = "anna" }),
		"out of order":       edit(func(c *PutSplit) { c.Split.Shares[0].Account = "zoe" }),
		"same index":         edit(func(c *PutSplit) { c.Split.Shares[1].Index = 1 }),
		"index of nobody":    edit(func(c *PutSplit) { c.Split.Shares[1].Index = 0 }),
		"large index":        edit(func(c *PutSplit) { c.Split.Shares[1].Index = 255 }),
		"no share":           edit(func(c *PutSplit) { c.Split.Shares[1].Sealed = nil }),
		"a long share":       edit(func(c *PutSplit) { c.Split.Shares[1].Sealed = make([]byte, maxSealedShare+1) }),
		"share check":        edit(func(c *PutSplit) { c.Split.Shares[1].Check = "x" }),
		"share key":          edit(func(c *PutSplit) { c.Split.Shares[1].Key = "" }),
		"check":              edit(func(c *PutSplit) { c.Split.Check = "" }),
		"id":                 edit(func(c *PutSplit) { c.Split.ID = "\x00" }),
		"generation":         edit(func(c *PutSplit) { c.Split.Generation = 0 }),
		"no nodes":           edit(func(c *PutSplit) { c.Split.Nodes = nil }),
		"nodes out of order": edit(func(c *PutSplit) { c.Split.Nodes = []string{"node2", "node1"} }),
		"slot":               edit(func(c *PutSplit) { c.Slot = strings.Repeat("x", 33) }),
		"base":               edit(func(c *PutSplit) { c.Base = " " }),
		"withdrawn":          &RemoveSplit{Slot: "payments"},
		"sealed key":         &PutCustodian{Account: "anna", Key: "k", Sealed: "secret"},
		"long sealed key":    &PutCustodian{Account: "anna", Key: "k", Sealed: testSealed + strings.Repeat("A", maxSealedKey)},
		"long public key":    &PutCustodian{Account: "anna", Key: "k", Sealed: testSealed, Public: make([]byte, maxCustodianKey+1)},
		"key id":             &PutCustodian{Account: "anna", Sealed: testSealed},
		"seat generation":    &PutSeat{Slot: "payments", Seat: Seat{Module: "m", Serial: "1", Mode: Shared, State: Active, MaxCode: 9, Generation: -1}},
		"next generation":    &ReportSeat{Slot: "payments", State: Active, Next: -1},
	} {
		t.Run(name, func(t *testing.T) {
			err := cmd.validate()
			wantCode(t, err, Invalid)
			if strings.Contains(err.Error(), "secret") && name == "sealed key" {
				t.Error("the message shows what may be a secret")
			}
		})
	}
}
