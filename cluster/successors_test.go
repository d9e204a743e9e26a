package cluster

import (
	"slices"
	"strings"
	"testing"
)

// A new identity key is admitted beside the last one until the node has changed over. No key comes back.
func TestReplaceIdentityKey(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	first, second, third := identityOf("node2"), identityOf("second"), identityOf("third")
	replace := func(name string) step {
		return step{"node2", anna, &ReplaceIdentity{Identity: identityOf(name).Raw, Key: KeyHash(identityOf(name))}}
	}
	retire := func(name string) step {
		return step{"node2", daemon2, &RetireIdentity{Key: KeyHash(identityOf(name))}}
	}
	s = play(t, s, replace("second"))
	for _, pic := range []string{"node2", "second"} {
		if err := s.Admits("node2", identityOf(pic)); err != nil {
			t.Errorf("while node2 changes over: %v", err)
		}
	}
	n := testNode("node2")
	n.Key, n.Identity, n.Changing, n.Version = KeyHash(second), second.Raw, false, "9"
	s = play(t, s, step{"node2", daemon2, &SetNode{Node: n}}) // what a node says of itself ends nothing
	for says, st := range map[string]step{
		"just changing over":    replace("third"),
		"another identity key":  retire("node2"),
		"has the same identity": {"node1", anna, &ReplaceIdentity{Identity: first.Raw, Key: KeyHash(first)}},
	} {
		if _, err := try(t, s, st); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
	s = play(t, s, retire("second"), retire("second"))
	wantCode(t, s.Admits("node2", first), Denied)
	if _, err := try(t, s, replace("node2")); err == nil || !strings.Contains(err.Error(), "does not come back") {
		t.Errorf("got %v", err)
	}
	if err := s.Admits("node2", second); err != nil {
		t.Error(err)
	}
	s = play(t, s, replace("third"), retire("third"))
	past := s.Nodes["node2"].Past
	if len(past) != 2 || past[0].Key != KeyHash(first) || past[1].Key != KeyHash(second) || !slices.Equal(past[1].Identity, second.Raw) || past[0].Until.IsZero() || s.Admits("node2", third) != nil {
		t.Errorf("past %+v", past)
	}
	if e := s.Audit[len(s.Audit)-1]; e.Act != "node.retire" || e.Object != "node/node2" {
		t.Errorf("audit entry %+v", e)
	}
}

// What waits for approval and rests on the owner before is withdrawn when the owner changes.
func TestReplaceOwnerWithdraws(t *testing.T) {
	s := underPolicy(t)
	for _, act := range []string{"owner.replace", "node.identity", "invite.add"} {
		s.Policies = with(s.Policies, act, Policy{Act: act, Needs: 1, Role: Auditor})
	}
	owner, other := &ReplaceOwner{Owner: identityOf("owner-2").Raw}, &ReplaceOwner{Owner: identityOf("owner-3").Raw}
	s = play(t, s, asks("o1", "node1", anna, owner), asks("o2", "node2", anna, other), asks("i", "node1", anna, &AddInvite{Hash: testInvite(8), Seconds: 60}),
		asks("n", "node2", anna, &ReplaceIdentity{Identity: identityOf("new").Raw, Key: KeyHash(identityOf("new"))}), approves("vera", "o1", "node1", anna, owner))
	for _, name := range []string{"node1", "node2", "node3"} {
		s = play(t, s, step{name, Actor{ByNode, name}, &CertifyUnder{Owner: CertificateHash(owner.Owner), Identity: identityOf(name).Raw, Key: KeyHash(identityOf(name))}})
	}
	for id, want := range map[string]ApprovalState{"o1": ApprovalUsed, "o2": ApprovalWithdrawn, "n": ApprovalWithdrawn, "i": ApprovalWaiting} {
		if got := s.Approvals[id].State; got != want {
			t.Errorf("%s is %s, want %s: %s", id, got, want, s.Approvals[id].Result)
		}
	}
}

// An owner is replaced when the last node that is left has a certificate of the next one; until then nobody comes in.
func TestReplaceOwner(t *testing.T) {
	s := play(t, new(State), history()...)
	old, next := s.Cluster.Owner, identityOf("owner-2").Raw
	s = play(t, s, step{"node2", anna, &ReplaceOwner{Owner: next}})
	under := func(node, owner, name string) step {
		return step{node, Actor{ByNode, node}, &CertifyUnder{Owner: CertificateHash(identityOf(owner).Raw), Identity: identityOf(name).Raw, Key: KeyHash(identityOf(name))}}
	}
	for says, st := range map[string]step{
		"by this one already: node1, node2, node3": {"node1", anna, &ReplaceOwner{Owner: next}},
		"no node is let in":                        {"node1", daemon1, &AdmitNode{Invite: testInvite(4), Node: testNode("node4")}},
		"identities are replaced":                  {"node1", anna, &ReplaceIdentity{Identity: identityOf("new").Raw, Key: KeyHash(identityOf("new"))}},
		"not for the identity key":                 under("node1", "owner-2", "node2"),
		"is not being put under that":              under("node1", "owner-3", "node1"),
	} {
		if _, err := try(t, s, st); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
	s = play(t, s, under("node1", "owner-2", "node1"), under("node2", "owner-2", "node2"))
	if !slices.Equal(s.Cluster.Owner, old) || !slices.Equal(s.Awaited(), []string{"node3"}) {
		t.Fatalf("awaited %v", s.Awaited())
	}
	again := play(t, s, step{"node1", anna, &ReplaceOwner{Owner: identityOf("owner-3").Raw}}) // the key of the next one is lost
	if !slices.Equal(again.Cluster.Owner, old) || len(again.Awaited()) != 3 {
		t.Errorf("begun again: awaited %v", again.Awaited())
	}
	if _, err := try(t, again, under("node3", "owner-2", "node3")); err == nil {
		t.Error("an owner that was given up certifies")
	}
	for name, last := range map[string]step{"certified": under("node3", "owner-2", "node3"), "removed": {"node1", anna, &RemoveNode{Node: "node3", GiveUp: true}}} {
		end := play(t, s, last)
		if !slices.Equal(end.Cluster.Owner, next) || end.Cluster.Next != nil || len(end.Cluster.Former) != 1 || !slices.Equal(end.Cluster.Former[0], old) || end.Nodes["node1"].Renewed != nil || !slices.Equal(end.Nodes["node1"].Identity, identityOf("node1").Raw) {
			t.Errorf("%s: %+v", name, end.Cluster)
		}
		if !slices.ContainsFunc(end.Audit, func(e Entry) bool { return e.Act == ownerReplaced }) {
			t.Errorf("%s: the trail does not tell", name)
		}
		for says, owner := range map[string][]byte{"that the cluster has": next, "does not come back": old} {
			if _, err := try(t, end, step{"node1", anna, &ReplaceOwner{Owner: owner}}); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %q: %v", name, says, err)
			}
		}
	}
}
