package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// Approvers of these tests, besides anna, who asks.
var (
	vera  = as("vera")  // auditor
	heidi = as("heidi") // auditor
	ida   = as("ida")   // auditor
	sofie = as("sofie") // security officer
)

// underPolicy is a cluster where removing node2 needs two auditors, and destroying a key too.
func underPolicy(t testing.TB, more ...step) *State {
	t.Helper()
	auditor, officer := RoleGrant{Role: Auditor}, RoleGrant{Role: SecurityOfficer}
	steps := append(historyWith(person("heidi", auditor), person("ida", auditor), person("sofie", officer)),
		step{"node1", anna, &SetPolicy{Act: "node.remove", Needs: 2, Role: Auditor}})
	return play(t, new(State), append(steps, more...)...)
}

// historyWith is history with people who are there before the first policy.
func historyWith(people ...step) []step {
	return slices.Insert(history(), len(founding()), people...)
}

// unruled plays steps that policies would have others approve.
func unruled(t testing.TB, s *State, steps ...step) *State {
	t.Helper()
	free := *s
	free.Policies = nil
	next := *play(t, &free, steps...)
	next.Policies = s.Policies
	return &next
}

var removal = &RemoveNode{Node: "node2", GiveUp: true}

// asked is underPolicy with a request for removal as approval "a".
func asked(t testing.TB) *State { return underPolicy(t, asks("a", "node1", anna, removal)) }

// vote approves the removal as somebody.
func vote(name string) step { return approves(name, "a", "node1", anna, removal) }

func TestApprovalOfACommand(t *testing.T) {
	s := underPolicy(t)
	_, err := try(t, s, step{"node1", anna, removal})
	wantCode(t, err, NeedsApproval)
	if !strings.Contains(err.Error(), "2 people with the role auditor") {
		t.Errorf("%v", err)
	}
	s = play(t, s, asks("a", "node1", anna, removal))
	_, err = try(t, s, step{"node1", anna, removal})
	wantCode(t, err, NeedsApproval)
	if asError(err).Approval != "a" {
		t.Errorf("the request is not named: %+v", err)
	}
	_, err = try(t, s, asks("b", "node1", anna, removal))
	wantCode(t, err, Conflict)
	s = play(t, s, vote("vera"))
	if has, needs := s.Votes(s.Approvals["a"]); has != 1 || needs != 2 {
		t.Errorf("%d of %d", has, needs)
	}
	if _, ok := s.Nodes["node2"]; !ok {
		t.Fatal("the node is removed with one vote")
	}
	s = play(t, s, vote("heidi"))
	if _, ok := s.Nodes["node2"]; ok {
		t.Error("the node is there after the last vote")
	}
	if a := s.Approvals["a"]; a.State != ApprovalUsed || a.Ended.IsZero() || a.Result == "" {
		t.Errorf("approval %+v", a)
	}
	if e := s.Audit[len(s.Audit)-1]; e.Act != "node.remove" || e.Actor != anna || e.Node != "node1" || e.Result != Done || !strings.Contains(e.Detail, "approved as a") {
		t.Errorf("entry %+v", e)
	}
	_, err = try(t, s, vote("ida"))
	wantCode(t, err, Conflict)
}

// An act on an HSM is begun by who asked, again and exactly alike, once.
func TestApprovalOfAnAct(t *testing.T) {
	act := destroyKey("act-7", "ca-2026") // history has asked for it, with another id
	s := play(t, new(State), history()...)
	_, err := try(t, s, step{"node1", anna, act})
	wantCode(t, err, NeedsApproval)
	s = play(t, s, approves("vera", "approval-3", "node1", anna, act))
	if a := s.Approvals["approval-3"]; a.State != ApprovalWaiting || len(a.Data) > 0 {
		t.Errorf("approval %+v", a)
	}
	for name, other := range map[string]step{
		"another key":    {"node1", anna, destroyKey("act-8", "ca-2027")},
		"another node":   {"node2", anna, act},
		"another actor":  {"node1", console, act},
		"another slot":   {"node1", anna, &BeginAct{ID: "act-8", Act: act.Act, Object: act.Object, Detail: act.Detail, Permission: act.Permission}},
		"another object": {"node1", anna, &BeginAct{ID: "act-8", Act: act.Act, Object: "slot/tls", Detail: act.Detail, Slot: act.Slot, Permission: act.Permission}},
		"another right":  {"node1", anna, &BeginAct{ID: "act-8", Act: act.Act, Object: act.Object, Detail: act.Detail, Slot: act.Slot, Permission: MayManageSlots}},
	} {
		if _, err := try(t, s, other); !isCode(err, NeedsApproval) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s = play(t, s, step{"node1", anna, act})
	if s.Approvals["approval-3"].State != ApprovalUsed {
		t.Errorf("approval %+v", s.Approvals["approval-3"])
	}
	again := destroyKey("act-8", "ca-2026")
	_, err = try(t, s, step{"node1", anna, again})
	wantCode(t, err, NeedsApproval)
}

func isCode(err error, c Code) bool { return err != nil && asError(err).Code == c }

// Votes that must not count, and requests that must not pass. Each case says what it does to the request
// "a" and who votes then; the node must still be there.
func TestVotesThatDoNotCount(t *testing.T) {
	auditor := []RoleGrant{{Role: Auditor}}
	put := func(name string, roles []RoleGrant, disabled bool) step {
		return step{"node1", console, &PutAccount{Name: name, Roles: roles, Disabled: disabled}}
	}
	gone := func(name string) step { return step{"node1", console, &RemoveAccount{Name: name}} }
	for name, steps := range map[string][]step{
		"voter disabled":          {vote("vera"), put("vera", auditor, true), vote("heidi")},
		"voter lost the role":     {vote("vera"), put("vera", nil, false), vote("heidi")},
		"voter removed":           {vote("vera"), gone("vera"), vote("heidi")},
		"voter's name reused":     {vote("vera"), gone("vera"), person("vera", auditor...), vote("heidi")},
		"voter to change":         {vote("vera"), {"node1", console, &ResetPassword{Name: "vera", Hash: testHash}}, vote("heidi")},
		"policy raised":           {vote("vera"), approvedPolicy(3, Auditor), vote("heidi")},
		"policy of another role":  {vote("vera"), approvedPolicy(1, SecurityOfficer)},
		"requester lost the role": {vote("vera"), put("sofie", everyRole, false), put("anna", everyRole[1:], false), vote("heidi")},
		"requester disabled":      {vote("vera"), put("anna", everyRole, true), vote("heidi")},
		"requester's name reused": {vote("vera"), gone("anna"), person("anna", everyRole...), vote("heidi")},
		"not possible any more":   {vote("vera"), put("sofie", everyRole, false), {"node1", console, &PutAccount{Name: "ida", Roles: auditor}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := asked(t)
			for _, st := range steps {
				if st.cmd == nil { // a policy changed by hand: the way there is not what is tested
					p := st.node
					s = withPolicy(s, p)
					continue
				}
				if st.actor == console {
					s = unruled(t, s, st)
				} else {
					s = play(t, s, st)
				}
			}
			if _, ok := s.Nodes["node2"]; !ok {
				t.Error("the node is removed")
			}
		})
	}
}

// approvedPolicy stands for a policy on removal that others have approved.
func approvedPolicy(needs int, role string) step {
	return step{node: strings.Repeat("x", needs) + role}
}

func withPolicy(s *State, text string) *State {
	role := strings.TrimLeft(text, "x")
	next := *s
	next.Policies = with(s.Policies, "node.remove", Policy{Act: "node.remove", Needs: len(text) - len(role), Role: role})
	return &next
}

func TestWhoMayVote(t *testing.T) {
	s := asked(t)
	for name, c := range map[string]struct {
		step
		want Code
	}{
		"the requester":              {vote("anna"), Denied},
		"the requester elsewhere":    {step{"node3", anna, vote("anna").cmd}, Denied},
		"a console":                  {step{"node1", console, vote("vera").cmd}, Denied},
		"a node":                     {step{"node1", daemon1, vote("vera").cmd}, Denied},
		"another role":               {vote("sofie"), Denied},
		"nobody":                     {vote("zoe"), Denied},
		"another hash":               {step{"node1", vera, &Approve{ID: "a", Hash: strings.Repeat("0", 64)}}, Conflict},
		"another request's hash":     {step{"node1", vera, &Approve{ID: "approval-3", Hash: s.Approvals["a"].Hash}}, Conflict},
		"no request":                 {step{"node1", vera, &Approve{ID: "z", Hash: s.Approvals["a"].Hash}}, NotFound},
		"an ended one":               {step{"node1", vera, &Approve{ID: "approval-1", Hash: s.Approvals["approval-1"].Hash}}, Conflict},
		"rejected by the requester":  {step{"node1", anna, &Reject{ID: "a"}}, Denied},
		"rejected by another role":   {step{"node1", sofie, &Reject{ID: "a"}}, Denied},
		"withdrawn by another":       {step{"node1", vera, &Withdraw{ID: "a"}}, Denied},
		"withdrawn at a console":     {step{"node1", console, &Withdraw{ID: "a"}}, Denied},
		"asked without the right":    {asks("b", "node1", vera, removal), Denied},
		"asked for what needs none":  {asks("b", "node1", anna, &SetTrust{Trusting: "node3", Trusted: "node2", Trust: true}), Conflict},
		"asked for by another again": {asks("a", "node1", console, removal), Conflict}, // the id is taken
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(t, s, c.step)
			wantCode(t, err, c.want)
		})
	}
	voted := play(t, s, vote("vera"))
	_, err := try(t, voted, vote("vera"))
	wantCode(t, err, Conflict)
	for name, end := range map[string]step{"rejected": {"node2", heidi, &Reject{ID: "a", Reason: "not before Monday"}}, "withdrawn": {"node1", anna, &Withdraw{ID: "a"}}} {
		ended := play(t, voted, end)
		if _, err := try(t, ended, vote("ida")); !isCode(err, Conflict) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := try(t, ended, step{"node1", anna, removal}); asError(err).Approval != "" {
			t.Errorf("%s: the ended request counts: %v", name, err)
		}
	}
}

func TestApprovalExpires(t *testing.T) {
	s := play(t, asked(t), vote("vera"))
	s.Index += uint64(approvalLife / time.Second)
	_, err := try(t, s, vote("heidi"))
	wantCode(t, err, Expired)
	act := destroyKey("act-7", "ca-2026")
	s = play(t, new(State), append(history(), approves("vera", "approval-3", "node1", anna, act))...)
	s.Index += uint64(approvalLife / time.Second)
	_, err = try(t, s, step{"node1", anna, act})
	wantCode(t, err, NeedsApproval)
}

// A console asks as its node, whatever names its users have, and is under policies like people.
func TestConsoleAsks(t *testing.T) {
	s := underPolicy(t, asks("a", "node1", console, removal))
	other := Actor{ByConsole, "somebody else"}
	_, err := try(t, s, step{"node1", other, removal})
	wantCode(t, err, NeedsApproval)
	if asError(err).Approval != "a" {
		t.Errorf("another name at the same console is another requester: %+v", err)
	}
	_, err = try(t, s, step{"node3", console, removal})
	if !isCode(err, NeedsApproval) || asError(err).Approval != "" {
		t.Errorf("at another node: %+v", err)
	}
	s = play(t, s, approves("vera", "a", "node1", console, removal), approves("heidi", "a", "node1", console, removal))
	if _, ok := s.Nodes["node2"]; !ok {
		t.Error("whoever is root and also an approver needs one other only")
	}
	if has, needs := s.Votes(s.Approvals["a"]); has != 2 || needs != 3 {
		t.Errorf("%d of %d", has, needs)
	}
	s = play(t, s, approves("ida", "a", "node1", console, removal))
	if _, ok := s.Nodes["node2"]; ok {
		t.Error("the node is there after the last vote")
	}
}

// A policy that asks for nobody, made by hand, lets nothing pass.
func TestZeroApproversApproveNothing(t *testing.T) {
	for _, needs := range []int{0, -1} {
		s := withPolicy(asked(t), Auditor)
		p := s.Policies["node.remove"]
		p.Needs = needs
		s.Policies = with(s.Policies, "node.remove", p)
		_, err := try(t, s, step{"node1", anna, removal})
		wantCode(t, err, NeedsApproval)
		s = play(t, s, vote("vera"), vote("heidi"), vote("ida"))
		if _, ok := s.Nodes["node2"]; !ok {
			t.Errorf("a policy that needs %d lets the act pass", needs)
		}
		wantCode(t, (&SetPolicy{Act: "node.remove", Needs: needs, Role: Auditor}).validate(), Invalid)
	}
}

// What is approved and then not possible ends the request, says why, and leaves nothing half done.
func TestApprovedAndNotPossible(t *testing.T) {
	s := play(t, asked(t), vote("vera"))
	s = withPolicy(s, "xxx"+Auditor)
	s = play(t, s, vote("heidi")) // enough once the policy is lower
	next := *s
	next.Policies = without(s.Policies, "node.remove")
	s = play(t, &next, step{"node1", anna, removal}) // somebody did it meanwhile
	s = withPolicy(s, "xxx"+Auditor)
	trust := len(s.Trust)
	s = play(t, s, vote("ida"))
	if a := s.Approvals["a"]; a.State != ApprovalFailed || !strings.Contains(a.Result, "node2") {
		t.Errorf("approval %+v", a)
	}
	if e := s.Audit[len(s.Audit)-1]; e.Act != "node.remove" || e.Result != Refused || !strings.Contains(e.Detail, "not done") {
		t.Errorf("entry %+v", e)
	}
	if len(s.Trust) != trust {
		t.Error("something changed")
	}
}

// To lower a policy takes what the policy asks for; nobody makes one that nobody can satisfy.
func TestPoliciesGuardThemselves(t *testing.T) {
	s := underPolicy(t)
	for name, cmd := range map[string]Command{
		"lowered":      &SetPolicy{Act: "node.remove", Needs: 1, Role: Auditor},
		"another role": &SetPolicy{Act: "node.remove", Needs: 1, Role: SecurityOfficer},
		"removed":      &RemovePolicy{Act: "node.remove"},
	} {
		for who, actor := range map[string]Actor{"anna": anna, "the console": console} {
			if _, err := try(t, s, step{"node1", actor, cmd}); !isCode(err, NeedsApproval) {
				t.Errorf("%s by %s: %v", name, who, err)
			}
		}
	}
	_, err := try(t, s, step{"node1", anna, &SetPolicy{Act: "trust.set", Needs: 4, Role: Auditor}})
	wantCode(t, err, Conflict)
	_, err = try(t, s, step{"node1", anna, &SetPolicy{Act: "trust.set", Needs: 2, Role: SecurityOfficer}}) // anna is one of two
	wantCode(t, err, Conflict)
	lower := &SetPolicy{Act: "node.remove", Needs: 1, Role: Auditor}
	s = play(t, s, step{"node1", anna, &SetPolicy{Act: policySet, Needs: 1, Role: SecurityOfficer}}, asks("p", "node1", anna, lower),
		approves("vera", "p", "node1", anna, lower), approves("heidi", "p", "node1", anna, lower))
	if s.Policies["node.remove"].Needs != 2 {
		t.Fatal("the policy on policies was not asked for")
	}
	if s = play(t, s, approves("sofie", "p", "node1", anna, lower)); s.Policies["node.remove"].Needs != 1 {
		t.Error("the policy is not lower")
	}
	s = underPolicy(t, step{"node1", console, &RemoveAccount{Name: "ida"}})
	_, err = try(t, s, step{"node1", console, &RemoveAccount{Name: "vera"}})
	wantCode(t, err, Conflict)
	_, err = try(t, s, step{"node1", console, &PutAccount{Name: "vera"}})
	wantCode(t, err, Conflict)
}

// A role for one slot approves acts on that slot only.
func TestApproversOfASlot(t *testing.T) {
	scoped := RoleGrant{Role: CryptoOfficer, Slots: []string{"payments"}}
	s := play(t, new(State), append(history(), person("pia", scoped))...)
	s.Policies = with(s.Policies, "sync.build", Policy{Act: "sync.build", Needs: 1, Role: CryptoOfficer})
	s = play(t, s, step{"node1", anna, &PutSeat{Slot: "tls", Seat: testSeat("101")}})
	for slot, want := range map[string]bool{"payments": true, "tls": false} {
		act := &BeginAct{ID: "act-9", Act: "sync.build", Object: "slot/" + slot, Slot: slot, Permission: MaySynchronize}
		next := play(t, s, asks("b", "node1", anna, act))
		if _, err := try(t, next, approves("pia", "b", "node1", anna, act)); (err == nil) != want {
			t.Errorf("slot %s: %v", slot, err)
		}
	}
}

// Requests are bounded, in all and for each person; ended ones make room.
func TestApprovalsAreBounded(t *testing.T) {
	s := underPolicy(t)
	full := *s
	full.Approvals = filled(s.Approvals, maxApprovals, func(id string) Approval {
		return Approval{ID: id, State: ApprovalWaiting, Created: epoch, Expires: epoch.AddDate(1, 0, 0), Asker: as("other")}
	})
	for id, a := range full.Approvals {
		a.State = ApprovalWaiting
		full.Approvals[id] = a
	}
	_, err := try(t, &full, asks("b", "node1", anna, removal))
	wantCode(t, err, Full)
	old := full.Approvals["filler-7"]
	old.State = ApprovalRejected
	full.Approvals["filler-7"] = old
	next := play(t, &full, asks("b", "node1", anna, removal))
	if _, ok := next.Approvals["filler-7"]; ok || len(next.Approvals) != maxApprovals {
		t.Errorf("%d approvals, the ended one among them: %v", len(next.Approvals), ok)
	}
	mine := *s
	mine.Approvals = filled(s.Approvals, maxAsked+len(s.Approvals), func(id string) Approval {
		return Approval{ID: id, State: ApprovalWaiting, Created: epoch, Expires: epoch.AddDate(1, 0, 0), Asker: anna, Since: s.Accounts["anna"].Created}
	})
	_, err = try(t, &mine, asks("b", "node1", anna, removal))
	wantCode(t, err, Full)
}

// Every act that a policy can be about is there once, in words.
func TestPolicyActs(t *testing.T) {
	var seen []string
	for _, p := range PolicyActs() {
		if p.Words == "" || slices.Contains(seen, p.Act) {
			t.Errorf("%+v", p)
		}
		seen = append(seen, p.Act)
	}
	for _, later := range []string{"key.destroy", "seat.remove", "trust.set", "node.identity"} {
		if slices.Contains(seen, later) || checkPolicyAct(later) != nil {
			t.Errorf("%s is offered, or not known", later)
		}
	}
	for _, bad := range []string{"", "slot.activate", "approval.approve", "node.admit", "act.begin"} {
		wantCode(t, (&SetPolicy{Act: bad, Needs: 1, Role: Auditor}).validate(), Invalid)
	}
	for name, c := range map[string]*RequestApproval{
		"no command":       {ID: "x", Command: "fly", Data: []byte(`{}`)},
		"none with policy": {ID: "x", Command: "node.admit", Data: []byte(`{}`)},
		"a request":        {ID: "x", Command: "approval.request", Data: []byte(`{"id":"y","kind":"node.remove","data":{"node":"node2"}}`)},
		"bad data":         {ID: "x", Command: "node.remove", Data: []byte(`{"nodes":1}`)},
		"no node":          {ID: "x", Command: "node.remove", Data: []byte(`{}`)},
		"too much":         {ID: "x", Command: "node.remove", Data: []byte(strings.Repeat(" ", maxApprovalData) + `{"node":"node2"}`)},
	} {
		if err := c.validate(); !isCode(err, Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
