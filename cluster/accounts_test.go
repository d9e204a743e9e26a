package cluster

import (
	"slices"
	"testing"
)

// Nobody changes their own rights, and a security officer is always left.
func TestAccountRules(t *testing.T) {
	officer := []RoleGrant{{Role: SecurityOfficer}}
	one := play(t, new(State), append(history(), person("dora"))...)
	one.Policies = nil // they are another matter: see TestOnePersonIsNotTwo
	two := play(t, one, person("berta", officer...))
	asleep := play(t, two, step{"node1", anna, &PutAccount{Name: "berta", Roles: officer, Disabled: true}})
	for name, c := range map[string]struct {
		base *State
		step
		want Code // 0: it is done
	}{
		"own role more":                     {two, step{"node1", anna, &PutAccount{Name: "anna", Roles: append(slices.Clone(everyRole), RoleGrant{Role: Auditor})}}, Conflict},
		"own role less":                     {two, step{"node1", anna, &PutAccount{Name: "anna", Roles: everyRole[:1]}}, Conflict},
		"own slots":                         {two, step{"node1", anna, &PutAccount{Name: "anna", Roles: []RoleGrant{everyRole[0], {Role: CryptoOfficer, Slots: []string{"payments"}}}}}, Conflict},
		"own account disabled":              {two, step{"node1", anna, &PutAccount{Name: "anna", Roles: everyRole, Disabled: true}}, Conflict},
		"own account removed":               {two, step{"node1", anna, &RemoveAccount{Name: "anna"}}, Conflict},
		"own password reset":                {two, step{"node1", anna, &ResetPassword{Name: "anna", Hash: testHash}}, Conflict},
		"own full name":                     {two, step{"node1", anna, &PutAccount{Name: "anna", FullName: "A. Andersson", Roles: everyRole}}, 0},
		"another's role":                    {two, step{"node1", anna, &PutAccount{Name: "dora", Roles: paymentsOnly}}, 0},
		"another's password":                {two, step{"node1", anna, &ResetPassword{Name: "dora", Hash: testHash}}, 0},
		"one officer of two removed":        {two, step{"node1", anna, &RemoveAccount{Name: "berta"}}, 0},
		"last officer removed at a console": {one, step{"node1", console, &RemoveAccount{Name: "anna"}}, Conflict},
		"last officer disabled":             {one, step{"node1", console, &PutAccount{Name: "anna", Roles: everyRole, Disabled: true}}, Conflict},
		"last officer's role taken":         {one, step{"node1", console, &PutAccount{Name: "anna", Roles: everyRole[1:]}}, Conflict},
		"last enabled officer removed":      {asleep, step{"node1", console, &RemoveAccount{Name: "anna"}}, Conflict},
		"disabled officer removed":          {asleep, step{"node1", console, &RemoveAccount{Name: "berta"}}, 0},
		"role for a slot that is not there": {two, step{"node1", anna, &PutAccount{Name: "dora", Roles: []RoleGrant{{Role: CryptoUser, Slots: []string{"payments", "tls"}}}}}, NotFound},
		"password of nobody reset":          {two, step{"node1", anna, &ResetPassword{Name: "zoe", Hash: testHash}}, NotFound},
		"password by the console's own":     {two, step{"node1", console, &SetPassword{Hash: testHash}}, Denied},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(t, c.base, c.step)
			if c.want == 0 && err != nil {
				t.Error(err)
			}
			if c.want != 0 {
				wantCode(t, err, c.want)
			}
		})
	}
}

// What an account may do hangs on its state: disabled nothing, with a temporary password only to choose
// another, and with a role for one slot nothing on others.
func TestAuthorizeByState(t *testing.T) {
	s := play(t, new(State), append(history(),
		person("co", RoleGrant{Role: CryptoOfficer, Slots: []string{"payments"}}),
		person("nobody"),
		step{"node1", anna, &PutAccount{Name: "new", Hash: testHash, Roles: everyRole, New: true, Temporary: true}},
		person("gone", everyRole...),
		step{"node1", anna, &PutAccount{Name: "gone", Roles: everyRole, Disabled: true}})...)
	for _, c := range []struct {
		who  string
		p    Permission
		slot string
		want bool
	}{
		{"co", MayActivate, "payments", true},
		{"co", MayActivate, "tls", false},
		{"co", MayActivate, "", false},
		{"co", MayActivate, AnySlot, true},
		{"co", MayManageApps, "payments", false}, // an application is not about one slot
		{"co", MayManageApps, AnySlot, false},
		{"co", MayView, "", true},
		{"co", MayView, "tls", true},
		{"nobody", MayView, "", false},
		{"nobody", MayKeepAccount, "", true},
		{"new", MayView, "", false},
		{"new", MayActivate, "payments", false},
		{"new", MayKeepAccount, "", true},
		{"gone", MayView, "", false},
		{"gone", MayKeepAccount, "", false},
	} {
		if err := Authorize(s, as(c.who), "node1", c.p, c.slot); (err == nil) != c.want {
			t.Errorf("%s %s for slot %q: %v", c.who, c.p, c.slot, err)
		}
	}
	s = play(t, s, step{"node1", as("new"), &SetPassword{Hash: testHash}})
	if err := Authorize(s, as("new"), "node1", MayView, ""); err != nil {
		t.Errorf("with a password of their own: %v", err)
	}
	s = play(t, s, step{"node1", anna, &ResetPassword{Name: "new", Hash: testHash}})
	wantCode(t, Authorize(s, as("new"), "node1", MayView, ""), Denied)
}

// What people can have a permission for is told to them.
func TestRights(t *testing.T) {
	told := map[Permission]bool{}
	for _, r := range Rights() {
		told[r.Permission] = true
	}
	for p, g := range grants {
		if hidden := p == MayTellSeat || p == MayEndAct; told[p] == hidden && (len(g.roles) > 0 || g.everyone) {
			t.Errorf("the list of rights tells of %s: %v", p, told[p])
		}
	}
}

// The slot of a command is decided where it is applied.
func TestCommandsOfOneSlot(t *testing.T) {
	s := play(t, new(State), append(history(), person("co", RoleGrant{Role: CryptoOfficer, Slots: []string{"payments"}}))...)
	act := func(slot string) Command {
		return &BeginAct{ID: "act-9", Act: "slot.activate", Object: "slot/" + slot, Slot: slot, Permission: MayActivate}
	}
	for _, c := range []struct {
		cmd  Command
		want bool
	}{
		{act("payments"), true},
		{act("tls"), false},
		{&BeginAct{ID: "act-9", Act: "module.reload", Object: "module/x", Permission: MayManageSlots}, false},
		{&PutSeat{Slot: "payments", Seat: testSeat("100")}, true},
		{&PutSeat{Slot: "tls", Seat: testSeat("101")}, false},
		{&RemoveSeat{Slot: "payments", Node: "node1", GiveUp: true}, true},
		{&RecordPackage{Package: testPackage("pkg-2", "node2")}, true},
	} {
		if _, err := try(t, s, step{"node1", as("co"), c.cmd}); (err == nil) != c.want {
			t.Errorf("%s %+v: %v", c.cmd.Kind(), c.cmd, err)
		}
	}
}

// A role for a slot ends with the slot: it must not become one for every slot, nor for a later slot of
// the same label.
func TestRolesEndWithTheSlot(t *testing.T) {
	s := play(t, new(State), history()...)
	s = play(t, s, step{"node1", anna, &PutSeat{Slot: "tls", Seat: testSeat("101")}},
		person("both", RoleGrant{Role: CryptoUser, Slots: []string{"payments", "tls"}}),
		step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node1", GiveUp: true}}, step{"node1", anna, &RemoveNode{Node: "node2", GiveUp: true}})
	if _, ok := s.Slots["payments"]; ok {
		t.Fatal("the slot is left")
	}
	if got := s.Accounts["otto"].Roles; len(got) != 1 || got[0].Role != Auditor {
		t.Errorf("otto has %v", got)
	}
	if got := s.Accounts["both"].Roles; len(got) != 1 || !slices.Equal(got[0].Slots, []string{"tls"}) {
		t.Errorf("both has %v", got)
	}
}
