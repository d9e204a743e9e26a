package cluster

import (
	"slices"
	"strings"
	"testing"
)

// TestStolen: one command takes a stolen node's membership, trust, keys and packages, and remembers what it held.
func TestStolen(t *testing.T) {
	steps := theft()
	last := slices.IndexFunc(steps, func(st step) bool { _, ok := st.cmd.(*RemoveNode); return ok })
	before := play(t, new(State), append(history(), steps[:last]...)...)
	before = play(t, before, step{"node4", daemonOf("node4"), &RecordNote{Actor: anna, Act: NoteLogin, Object: "account/anna", Result: Done}})
	s := play(t, before, steps[last])
	key := testNode("node4").Key
	r, ok := s.Stolen[key]
	if !ok || r.Node != "node4" || r.By != "account/anna" || r.Open() != 2 || !slices.Contains(r.Barred, key) || !slices.Contains(r.Serials, "400") {
		t.Fatalf("remembered is %+v", r)
	}
	if _, member := s.Nodes["node4"]; member || len(s.TrustedBy("node4")) > 0 || s.Trusts("node1", "node4") {
		t.Error("membership or trust is left")
	}
	if _, seated := s.Slots["payments"].Seats["node4"]; seated {
		t.Error("its receiver keys are left")
	}
	if p := s.Packages["pkg-4"]; !slices.Equal(p.Receivers, []string{"node2"}) {
		t.Errorf("the package is for %v", p.Receivers)
	}
	for hash, i := range s.Invites {
		if i.Used == "" {
			t.Errorf("the invitation %s is left", hash)
		}
	}
	if !slices.ContainsFunc(s.Audit, func(e Entry) bool { return e.Act == actStolen && strings.Contains(e.Detail, "2 keys") }) {
		t.Error("the trail has no word of it")
	}
	wantCode(t, s.Admits("node4", identityOf("node4")), NotFound)
}

// TestStolenStaysOut: no new invitation lets the key or the token in again, in whatever name; another machine with
// the same name is let in and inherits nothing.
func TestStolenStaysOut(t *testing.T) {
	s := play(t, new(State), append(history(), theft()...)...)
	s = play(t, s, step{"node1", anna, &AddInvite{Hash: testInvite(6), Seconds: 3600}})
	other := func(name string) Node {
		n := testNode(name)
		return n
	}
	same := other("node4")
	renamed := same
	renamed.Name = "node6"
	token := other("node6")
	token.Serial = "400"
	for name, n := range map[string]Node{"same": same, "renamed": renamed, "its token": token} {
		_, err := try(t, s, step{"node1", daemon1, &AdmitNode{Invite: testInvite(6), Node: n}})
		wantCode(t, err, Denied)
		if !strings.Contains(err.Error(), "stolen") {
			t.Errorf("%s: %v", name, err)
		}
	}
	fresh := other("node6")
	fresh.Name = "node4"
	s = play(t, s, step{"node1", daemon1, &AdmitNode{Invite: testInvite(6), Node: fresh}})
	if len(s.Keys["payments"]["node4"].Keys) > 0 || s.Stolen[same.Key].Open() != 1 {
		t.Errorf("the new node4 has %v", s.Keys["payments"]["node4"])
	}
	e, _ := s.Edge("node1", "node4")
	if !e.Since.After(s.Stolen[same.Key].Time) {
		t.Error("the new node4 inherits trust")
	}
	_, err := try(t, s, step{"node4", anna, &RemoveNode{Node: "node4", Stolen: true}})
	wantCode(t, err, Conflict)
}

// TestSettleStolen marks keys as dealt with, one or all, and says by whom.
func TestSettleStolen(t *testing.T) {
	s := play(t, new(State), append(history(), theft()...)...)
	record := testNode("node4").Key
	if k := s.Stolen[record].Keys["key-4 payments"]; k.By != "account/anna" || k.Dealt.IsZero() {
		t.Errorf("dealt with: %+v", k)
	}
	for _, bad := range []*SettleStolen{{Record: record, Key: "key-9 payments"}, {Record: testInvite(1)}} {
		_, err := try(t, s, step{"node1", anna, bad})
		wantCode(t, err, NotFound)
	}
	wantCode(t, (&SettleStolen{Record: "x"}).validate(), Invalid)
	s = play(t, s, step{"node1", console, &SettleStolen{Record: record}})
	if r := s.Stolen[record]; r.Open() != 0 || r.Keys["key-4 payments"].By != "account/anna" || r.Keys["key-1 payments"].By != console.String() {
		t.Errorf("dealt with: %+v", r)
	}
}

func daemonOf(node string) Actor { return Actor{ByNode, node} }
