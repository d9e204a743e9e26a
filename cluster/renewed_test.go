package cluster

import (
	"strings"
	"testing"
	"time"
)

// What has random bytes in it replaces the request that its author made before, and no other.
func TestRequestsReplaced(t *testing.T) {
	s := underPolicy(t)
	for _, act := range []string{"account.put", "account.reset", "invite.add"} {
		s.Policies = with(s.Policies, act, Policy{Act: act, Needs: 1, Role: Auditor})
	}
	made := func(name string, new bool, hash string) Command {
		return &PutAccount{Name: name, Hash: hash, New: new, Temporary: new}
	}
	other := testHash[:len(testHash)-4] + "AAAA"
	for name, c := range map[string]struct {
		before, after step
		want          ApprovalState
	}{
		"new account":             {asks("b", "node1", anna, made("zoe", true, testHash)), asks("c", "node1", anna, made("zoe", true, other)), ApprovalWithdrawn},
		"another new account":     {asks("b", "node1", anna, made("zoe", true, testHash)), asks("c", "node1", anna, made("yan", true, other)), ApprovalWaiting},
		"by another":              {asks("b", "node1", anna, made("zoe", true, testHash)), asks("c", "node1", as("sofie"), made("zoe", true, other)), ApprovalWaiting},
		"at another node":         {asks("b", "node1", console, made("zoe", true, testHash)), asks("c", "node2", console, made("zoe", true, other)), ApprovalWaiting},
		"changed account":         {asks("b", "node1", anna, made("vera", false, "")), asks("c", "node1", anna, &PutAccount{Name: "vera", Disabled: true}), ApprovalWaiting},
		"temporary password":      {asks("b", "node1", anna, &ResetPassword{Name: "vera", Hash: testHash}), asks("c", "node1", anna, &ResetPassword{Name: "vera", Hash: other}), ApprovalWithdrawn},
		"invitation":              {asks("b", "node1", anna, &AddInvite{Hash: testInvite(7), Node: "node7", Seconds: 60}), asks("c", "node1", anna, &AddInvite{Hash: testInvite(8), Node: "node7", Seconds: 60}), ApprovalWithdrawn},
		"invitation of any":       {asks("b", "node1", anna, &AddInvite{Hash: testInvite(7), Seconds: 60}), asks("c", "node1", anna, &AddInvite{Hash: testInvite(8), Seconds: 60}), ApprovalWaiting},
		"invitation to another":   {asks("b", "node1", anna, &AddInvite{Hash: testInvite(7), Node: "node7", Seconds: 60}), asks("c", "node1", anna, &AddInvite{Hash: testInvite(8), Node: "node8", Seconds: 60}), ApprovalWaiting},
		"password and invitation": {asks("b", "node1", anna, &ResetPassword{Name: "vera", Hash: testHash}), asks("c", "node1", anna, &AddInvite{Hash: testInvite(8), Node: "vera", Seconds: 60}), ApprovalWaiting},
	} {
		t.Run(name, func(t *testing.T) {
			next := play(t, s, c.before, c.after)
			if a := next.Approvals["b"]; a.State != c.want || (c.want == ApprovalWithdrawn) != strings.Contains(a.Result, "anew with c") {
				t.Errorf("the request before: %s, %q", a.State, a.Result)
			}
			if a := next.Approvals["c"]; a.State != ApprovalWaiting {
				t.Errorf("the request: %s", a.State)
			}
		})
	}
}

// An invitation that waited for days is good for as long as was asked for, from the last approval on.
func TestInvitationApprovedLate(t *testing.T) {
	s := underPolicy(t)
	s.Policies = with(s.Policies, "invite.add", Policy{Act: "invite.add", Needs: 1, Role: Auditor})
	invite := &AddInvite{Hash: testInvite(7), Node: "node7", Seconds: 3600}
	s = play(t, s, asks("b", "node1", anna, invite))
	s.Index += uint64(approvalLife/time.Second) - 10
	s = play(t, s, approves("vera", "b", "node1", anna, invite))
	i, ok := s.Invites[testInvite(7)]
	if !ok || !i.Expires.Equal(i.Created.Add(time.Hour)) || i.Created.Before(s.Approvals["b"].Expires.Add(-time.Minute)) {
		t.Errorf("approved late: %v, made %s, ends %s; %q", ok, i.Created, i.Expires, s.Approvals["b"].Result)
	}
}
