package cluster

import (
	"slices"
	"strings"
	"testing"
)

// ruled has a policy that needs one auditor, vera, besides heidi; sofie and anna are security officers.
func ruled(t *testing.T, more ...step) *State {
	t.Helper()
	steps := historyWith(person("heidi", RoleGrant{Role: Auditor}), person("sofie", RoleGrant{Role: SecurityOfficer}), person("zoe"),
		step{"node1", console, &PutAccount{Name: "away", Roles: []RoleGrant{{Role: Auditor}}, Hash: testHash, New: true, Disabled: true}})
	return play(t, new(State), append(steps, more...)...)
}

// A security officer who may make people, or log in as them, could approve what they asked for themselves.
func TestOnePersonIsNotTwo(t *testing.T) {
	s := ruled(t)
	auditor := []RoleGrant{{Role: Auditor}}
	put := func(name string, fresh, disabled bool, roles []RoleGrant) Command {
		c := &PutAccount{Name: name, Roles: roles, New: fresh, Disabled: disabled}
		if fresh {
			c.Hash = testHash
		}
		return c
	}
	for name, c := range map[string]struct {
		who   Actor
		cmd   Command
		needs bool
	}{
		"a second account":            {sofie, put("sofie2", true, false, auditor), true},
		"a second account, disabled":  {sofie, put("sofie2", true, true, auditor), true},
		"the role for zoe":            {sofie, put("zoe", false, false, auditor), true},
		"an account enabled":          {sofie, put("away", false, false, auditor), true},
		"an approver's password":      {sofie, &ResetPassword{Name: "vera", Hash: testHash}, true},
		"a disabled one's password":   {sofie, &ResetPassword{Name: "away", Hash: testHash}, true},
		"a certificate for vera":      {sofie, &AddCertificate{Name: "vera", Certificate: testCertificate(7)}, true},
		"that at a console":           {console, &AddCertificate{Name: "vera", Certificate: testCertificate(7)}, true},
		"a password at a console":     {console, &ResetPassword{Name: "vera", Hash: testHash}, true},
		"an account without the role": {sofie, put("tom", true, false, []RoleGrant{{Role: CryptoUser}}), false},
		"a full name":                 {sofie, &PutAccount{Name: "vera", FullName: "Vera", Roles: auditor}, false},
		"vera's own certificate":      {vera, &AddCertificate{Name: "vera", Certificate: testCertificate(7)}, false},
		"another's password":          {sofie, &ResetPassword{Name: "zoe", Hash: testHash}, false},
		"another's certificate":       {sofie, &AddCertificate{Name: "zoe", Certificate: testCertificate(7)}, false},
	} {
		_, err := try(t, s, step{"node1", c.who, c.cmd})
		if c.needs != isCode(err, NeedsApproval) || !c.needs && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	second := put("sofie2", true, false, auditor)
	s = play(t, s, asks("two", "node1", sofie, second))
	if _, err := try(t, s, approves("anna", "two", "node1", sofie, second)); !isCode(err, Denied) {
		t.Errorf("without the role: %v", err)
	}
	if s = play(t, s, approves("vera", "two", "node1", sofie, second)); !s.Accounts["sofie2"].Has(Auditor) {
		t.Error("the approved account is not there")
	}
}

// A role for some slots is an approver's for those; making it one for more is making an approver.
func TestWidenedRoles(t *testing.T) {
	scoped := func(labels ...string) []RoleGrant { return []RoleGrant{{Role: CryptoOfficer, Slots: labels}} }
	all := []RoleGrant{{Role: CryptoOfficer}}
	for name, c := range map[string]struct {
		old, new []RoleGrant
		want     bool
	}{
		"none to one":    {nil, scoped("a"), true},
		"one to another": {scoped("a"), scoped("b"), true},
		"one to two":     {scoped("a"), scoped("b", "a"), true},
		"one to all":     {scoped("a"), all, true},
		"all to one":     {all, scoped("a"), false},
		"two to one":     {scoped("a", "b"), scoped("b"), false},
		"the same":       {all, all, false},
		"taken":          {all, nil, false},
	} {
		if got := widens(Account{Roles: c.old}, c.new, CryptoOfficer); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A policy that nobody could change any more is not made, and no change of an account makes it so.
func TestPoliciesStayChangeable(t *testing.T) {
	scoped := RoleGrant{Role: CryptoOfficer, Slots: []string{"payments"}}
	s := unruled(t, ruled(t), person("pia", scoped), person("paul", scoped))
	for name, c := range map[string]struct {
		who Actor
		cmd *SetPolicy
	}{
		"approvers of one slot only":    {sofie, &SetPolicy{Act: "sync.build", Needs: 2, Role: CryptoOfficer}},
		"no officer left to ask":        {console, &SetPolicy{Act: "sync.build", Needs: 2, Role: SecurityOfficer}},
		"more auditors than there are":  {console, &SetPolicy{Act: "sync.build", Needs: 3, Role: Auditor}},
		"those who are there, and away": {sofie, &SetPolicy{Act: "sync.build", Needs: 3, Role: Auditor}},
	} {
		if _, err := try(t, s, step{"node1", c.who, c.cmd}); !isCode(err, Conflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s = play(t, s, step{"node1", sofie, &SetPolicy{Act: "sync.build", Needs: 1, Role: CryptoOfficer}})
	narrowed := []RoleGrant{{Role: SecurityOfficer}, scoped}
	for name, cmd := range map[string]Command{
		"narrowed": &PutAccount{Name: "anna", Roles: narrowed},
		"taken":    &PutAccount{Name: "anna", Roles: narrowed[:1]},
		"disabled": &PutAccount{Name: "anna", Roles: everyRole, Disabled: true},
		"removed":  &RemoveAccount{Name: "anna"},
	} {
		_, err := try(t, s, step{"node1", sofie, cmd})
		wantCode(t, err, Conflict)
		if !strings.Contains(err.Error(), "sync.build") {
			t.Errorf("%s: %v", name, err)
		}
	}
	free := *s
	free.Policies = with(s.Policies, "sync.build", Policy{Act: "sync.build", Needs: 1, Role: CryptoOfficer})
	before := free
	vacant := free
	a := free.Accounts["anna"]
	a.MustChange = true
	vacant.Accounts = with(free.Accounts, "anna", a)
	wantCode(t, vacant.keepsApprovers(&before, "anna"), Conflict) // as after a reset
}

// Acts that have the effect of another answer to its policy.
func TestPoliciesOnEffects(t *testing.T) {
	s := ruled(t)
	s.Policies = map[string]Policy{slotSetMode: {Act: slotSetMode, Needs: 1, Role: Auditor}, "trust.set": {Act: "trust.set", Needs: 1, Role: Auditor}}
	slot := s.Slots["payments"]
	newest, ok := slot.Newest()
	if !ok {
		t.Fatal("the history has no split")
	}
	app := func(change func(*App)) Command {
		a := App{Name: "ejbca", Slots: []string{"payments"}, Nodes: []string{"node1"}, After: []string{"database"}, Restart: Restart{RestartSystemd, "ejbca.service"},
			Delivery: Delivery{Kind: DeliverFile, Owner: "ejbca", Group: "hsm", Mode: ModeGroup, Manual: true}}
		change(&a)
		return &PutApp{App: a}
	}
	fresh, same := testSplit(newest.Generation+1, 2, "frida", "greta"), newest
	same.ID = "split-other"
	for name, c := range map[string]struct {
		cmd  Command
		want []string
	}{
		"another shared code":       {&PutSplit{Slot: "payments", Base: newest.ID, Split: fresh}, []string{slotSetMode}},
		"other custodians":          {&PutSplit{Slot: "payments", Base: newest.ID, Split: same}, nil},
		"an invitation":             {&AddInvite{Hash: testInvite(11)}, []string{"trust.set"}},
		"an application unchanged":  {app(func(*App) {}), nil},
		"only its order":            {app(func(a *App) { a.After = nil }), nil},
		"a new application":         {app(func(a *App) { a.Name = "spy" }), []string{slotSetMode}},
		"codes for another user":    {app(func(a *App) { a.Delivery.Owner = "mallory" }), []string{slotSetMode}},
		"codes on all nodes":        {app(func(a *App) { a.Nodes = nil }), []string{slotSetMode}},
		"codes for another program": {app(func(a *App) { a.Restart.Target = "spy.service" }), []string{slotSetMode}},
		"people's codes no more":    {app(func(a *App) { a.Delivery.Manual = false }), nil},
	} {
		var got []string
		for _, p := range s.policiesOn(c.cmd, anna) {
			got = append(got, p.Act)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Who gets a code is decided by a security officer; a crypto officer has the rest of an application.
func TestWhoHandsOutCodes(t *testing.T) {
	s := ruled(t, step{"node1", console, &PutAccount{Name: "cora", Hash: testHash, Roles: []RoleGrant{{Role: CryptoOfficer}}, New: true}})
	s.Policies = nil
	cora := as("cora")
	give := func(name string, d Delivery) Command {
		return &PutApp{App: App{Name: name, Slots: []string{"payments"}, Restart: Restart{RestartCommand, "it"}, Delivery: d}}
	}
	wantCode(t, errOf(try(t, s, step{"node1", cora, give("spy", Delivery{Kind: DeliverFile, Owner: "1000", Manual: true})})), Denied)
	wantCode(t, errOf(try(t, s, step{"node1", cora, give("spy", Delivery{Kind: DeliverFile})})), Denied)
	wantCode(t, errOf(try(t, s, step{"node1", cora, give("spy", Delivery{Kind: DeliverStdin})})), Denied)
	s = play(t, s, step{"node1", cora, give("web", Delivery{})})
	wantCode(t, errOf(try(t, s, step{"node1", cora, give("web", Delivery{Kind: DeliverFile})})), Denied)
	s = play(t, s, step{"node1", anna, give("web", Delivery{Kind: DeliverFile})}, step{"node1", cora, give("web", Delivery{Kind: DeliverFile})})
	play(t, s, step{"node1", cora, give("web", Delivery{})})
	kept := s.Apps["ejbca"] // the order is a crypto officer's
	kept.After, kept.Runs = nil, nil
	play(t, s, step{"node1", cora, &PutApp{App: kept}})
}

func errOf(_ *State, err error) error { return err }

// An approval is of all of an act, also of what the audit trail has no room for.
func TestApprovalOfALongAct(t *testing.T) {
	act := func(id, digit string) *BeginAct {
		a := destroyKey(id, "ca-2026")
		a.Digest = strings.Repeat(digit, 64)
		return a
	}
	s := play(t, new(State), append(history(), asks("b", "node1", anna, act("act-7", "a")), approves("vera", "b", "node1", anna, act("act-7", "a")))...)
	_, err := try(t, s, step{"node1", anna, act("act-8", "b")})
	wantCode(t, err, NeedsApproval)
	play(t, s, step{"node1", anna, act("act-8", "a")})
	bad := act("act-9", "a")
	bad.Digest = "short"
	wantCode(t, bad.validate(), Invalid)
}

// What somebody may not do, they cannot have approved either.
func TestRequestsTakeTheRight(t *testing.T) {
	s := ruled(t)
	s.Policies = with(s.Policies, "app.put", Policy{Act: "app.put", Needs: 1, Role: Auditor})
	s = unruled(t, s, person("cora", RoleGrant{Role: CryptoOfficer}))
	for name, st := range map[string]step{
		"another's certificate": asks("b", "node1", as("zoe"), &AddCertificate{Name: "vera", Certificate: testCertificate(7)}),
		"codes":                 asks("b", "node1", as("cora"), &PutApp{App: App{Name: "spy", Restart: Restart{Kind: RestartNone}, Delivery: Delivery{Kind: DeliverFile}}}),
	} {
		if _, err := try(t, s, st); !isCode(err, Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever asks does not approve, so who could ask counts as one less.
func TestCouldApprove(t *testing.T) {
	s := ruled(t) // vera and heidi are auditors and away is a disabled one; anna and sofie are security officers
	for role, want := range map[string]int{Auditor: 2, SecurityOfficer: 1} {
		if n := s.CouldApprove(Policy{Needs: 1, Role: role}); n != want {
			t.Errorf("%s: %d could approve, want %d", role, n, want)
		}
	}
	s = play(t, s, step{"node1", console, &PutAccount{Name: "heidi", Roles: []RoleGrant{{Role: Auditor}, {Role: CryptoOfficer}}}})
	if n := s.CouldApprove(Policy{Needs: 1, Role: Auditor}); n != 1 {
		t.Errorf("where one of two auditors also asks, %d could approve", n)
	}
}
