package node

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// newPerson makes an account that can act at once.
func newPerson(t testing.TB, m *Member, name string, roles ...string) cluster.Actor {
	t.Helper()
	cmd := &cluster.PutAccount{Name: name, Hash: leastCost.unknown(), New: true}
	for _, role := range roles {
		cmd.Roles = append(cmd.Roles, cluster.RoleGrant{Role: role})
	}
	if _, err := m.Cluster.Apply(t.Context(), cmd, console); err != nil {
		t.Fatal(err)
	}
	return cluster.Actor{Kind: cluster.ByAccount, Name: name}
}

// TestApprovedPackage: a package under a policy is made once others have approved exactly its keys for
// exactly its receivers, once, and again only with another approval.
func TestApprovedPackage(t *testing.T) {
	members := newCluster(t, 2)
	first := members[0]
	newSlot(t, members, "demo", cluster.Generated)
	newKey(t, first, "demo", ecKey("one"))
	waitFor(t, first, "one", "node2", Missing)
	anna := newPerson(t, first, "anna", cluster.CryptoOfficer)
	vera, otto := newPerson(t, first, "vera", cluster.SecurityOfficer), newPerson(t, first, "otto", cluster.SecurityOfficer)
	newPerson(t, first, "sofie", cluster.SecurityOfficer) // who could ask for a change of the policy
	if err := first.Approvals.SetPolicy(t.Context(), console, buildAct, 2, cluster.SecurityOfficer, nil); err != nil {
		t.Fatal(err)
	}
	ask := func() string {
		t.Helper()
		job, err := first.Sync.Build(t.Context(), anna, "demo", nil)
		e, ok := errors.AsType[*cluster.Error](err)
		if job != nil || !ok || e.Code != cluster.NeedsApproval || e.Approval == "" {
			t.Fatalf("a job %v, error %v", job, err)
		}
		return e.Approval
	}
	approve := func(id string, people ...cluster.Actor) {
		t.Helper()
		for _, p := range people {
			if err := first.Approvals.Approve(t.Context(), p, id, first.State().Approvals[id].Hash); err != nil {
				t.Fatal(err)
			}
		}
	}
	id := ask()
	if again := ask(); again != id {
		t.Errorf("the same again asks for %s, not %s", again, id)
	}
	approve(id, vera)
	if again := ask(); again != id {
		t.Errorf("after one approval it asks for %s", again)
	}
	if err := first.Approvals.Approve(t.Context(), anna, id, first.State().Approvals[id].Hash); !errors.Is(err, cluster.Denied) {
		t.Errorf("the requester approves: %v", err)
	}
	approve(id, otto)
	if v, err := first.Approvals.Get(anna, id); err != nil || !v.Ready() || !v.Mine || v.MayDecide {
		t.Errorf("approved: %+v, %v", v, err)
	}
	newKey(t, first, "demo", ecKey("two")) // what would travel now is not what was approved
	waitFor(t, first, "two", "node2", Missing)
	other := ask()
	if other == id {
		t.Fatal("an approval of one key is used for two")
	}
	approve(other, vera, otto)
	job, err := first.Sync.Build(t.Context(), anna, "demo", nil)
	if done, err := finish(t, first, job, err); err != nil || done.Result == "" {
		t.Fatalf("the approved package: %+v, %v", done, err)
	}
	if n := atOnce(t, first, anna, func(id string) { approve(id, vera, otto) }); n != 1 {
		t.Errorf("one approval let %d acts begin", n)
	}
	if third := ask(); third == other || third == id {
		t.Error("an approval was used twice")
	}
	byHand(t, first, anna)
}

// atOnce begins the same approved act several times at the same moment, and counts those that ran.
func atOnce(t *testing.T, m *Member, actor cluster.Actor, approve func(string)) int {
	t.Helper()
	one := act{actor, cluster.MaySynchronize, buildAct, "slot/demo", "at once"}
	e, ok := errors.AsType[*cluster.Error](m.acts.do(t.Context(), one, func() error { return nil }))
	if !ok || e.Approval == "" {
		t.Fatalf("it needs no approval: %v", e)
	}
	approve(e.Approval)
	var ran atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			err := m.acts.do(t.Context(), one, func() error { ran.Add(1); return nil })
			if err != nil && !errors.Is(err, cluster.NeedsApproval) && !errors.Is(err, cluster.Conflict) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	return int(ran.Load())
}

// byHand: the act itself is refused, whoever asks the member for it, and nobody can ask without the right.
func byHand(t *testing.T, m *Member, actor cluster.Actor) {
	t.Helper()
	if err := m.acts.do(t.Context(), act{actor, cluster.MaySynchronize, buildAct, "slot/demo", "by hand"}, func() error {
		t.Error("it was done")
		return nil
	}); !errors.Is(err, cluster.NeedsApproval) {
		t.Errorf("%v", err)
	}
	if _, err := m.Sync.Build(t.Context(), newPerson(t, m, "dora", cluster.Auditor), "demo", nil); !errors.Is(err, cluster.Denied) {
		t.Errorf("an auditor asks for a package: %v", err)
	}
}

// The record of an act has room for the beginning of a long text only; an approval is of all of it.
func TestLongActsDiffer(t *testing.T) {
	long := strings.Repeat("k", 600)
	hash := func(detail string) string { return act{detail: detail}.begin("act-1").Digest }
	if hash("short") != "" {
		t.Error("a short text has a digest, which says nothing")
	}
	if a, b := hash(long+"a"), hash(long+"b"); a == b || len(a) != 64 {
		t.Errorf("the end of a long text makes no difference: %s, %s", a, b)
	}
	if hash("2 of anna\x00") == hash("2 of anna\x01") {
		t.Error("what cannot be printed makes no difference")
	}
}
