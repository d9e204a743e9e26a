package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// TestTrail has two nodes sign, exports on one of them and verifies that, then exchanges a node's own
// last signature, as if the trail were another one.
func TestTrail(t *testing.T) {
	members := newCluster(t, 2)
	ctx := t.Context()
	for _, m := range members {
		if err := m.Trail.sign(ctx, m.State()); err != nil {
			t.Fatalf("%s: %v", m.Name(), err)
		}
	}
	if err := members[0].Trail.sign(ctx, members[0].State()); !errors.Is(err, cluster.Conflict) {
		t.Errorf("signing the same again: %v", err)
	}
	m := members[0]
	s := m.State()
	for _, c := range s.Checkpoints {
		if err := m.Trail.Verify(s, c); err != nil {
			t.Errorf("the signature of %s: %v", c.Node, err)
		}
		forged := c
		forged.Node = map[string]string{"node1": "node2", "node2": "node1"}[c.Node]
		if m.Trail.Verify(s, forged); verifyCheckpoint(s, forged, m.Identity.Owners()) == nil {
			t.Error("a signature in the name of another node holds")
		}
	}
	if c, ok, err := m.Trail.Covering(s, 1); !ok || err != nil || c.Seq < 1 {
		t.Errorf("entry 1 is covered by %+v, %v, %v", c, ok, err)
	}
	if _, ok, _ := m.Trail.Covering(s, lastEntry(s).Seq+1); ok {
		t.Error("an entry that is not there is covered")
	}
	var file bytes.Buffer
	if err := m.Trail.Export(ctx, console, &file, time.Time{}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	v, err := VerifyAudit(&file, m.Identity.Owner())
	if err != nil || !v.Intact() || len(v.Signed) != 2 || v.Exporter != "node1" {
		t.Errorf("verdict %+v, %v", v, err)
	}
	if e := lastEntry(m.State()); e.Act != "audit.export" || e.Result != cluster.Done {
		t.Errorf("the export is recorded as %+v", e)
	}
	eventually(t, "the chain is checked to its end", func() bool {
		first, last := m.Trail.Checked()
		return first == 1 && last == lastEntry(m.State()).Seq
	})
	own, err := get[ownCheckpoint](m.node.store, bucketTrail, single)
	if err != nil {
		t.Fatal(err)
	}
	own.Hash = strings.Repeat("0", 64)
	if err := m.node.store.put(bucketTrail, single, own); err != nil {
		t.Fatal(err)
	}
	m.Trail.look(ctx, m.State())
	m.Trail.look(ctx, m.State()) // once is enough
	alarms := 0
	for _, e := range m.State().Audit {
		if e.Alert == cluster.AlertTrail {
			alarms++
		}
	}
	if alarms != 1 || !strings.Contains(m.Trail.Damage(), "not the one that this node signed") {
		t.Errorf("%d alarms; damage %q", alarms, m.Trail.Damage())
	}
	if err := m.Trail.sign(ctx, m.State()); err == nil {
		t.Error("a node signs a trail that is not the one it signed before")
	}
}

// A node that stops signs what is new.
func TestTrailIsSignedAtTheEnd(t *testing.T) {
	n := open(t, testConfig(t, t.TempDir(), "node1"))
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	s := m.State()
	if got := newest(s, "node1"); got.Seq != lastEntry(s).Seq || got.Seq == 0 {
		t.Errorf("signed up to %d of %d", got.Seq, lastEntry(s).Seq)
	}
	again := open(t, n.cfg)
	m, err = again.Member()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trail is checked again", func() bool { _, last := m.Trail.Checked(); return last >= s.Audit[len(s.Audit)-1].Seq })
	if damage := m.Trail.Damage(); damage != "" {
		t.Error(damage)
	}
}

func TestTrailCheck(t *testing.T) {
	w := newSignedTrail(t, 12)
	trail := newTrail(nil)
	if err := trail.check(w.state); err != nil {
		t.Fatal(err)
	}
	if first, last := trail.Checked(); first != 1 || last != 12 {
		t.Errorf("checked %d to %d", first, last)
	}
	more := newSignedTrail(t, 14)
	if err := trail.check(more.state); err != nil {
		t.Errorf("a trail that went on: %v", err)
	}
	more.state.Audit[12].Detail = "another"
	if err := newTrail(nil).check(more.state); err == nil || !strings.Contains(err.Error(), "entry 13") {
		t.Errorf("a changed entry: %v", err)
	}
	w.state.AuditBase, w.state.Audit = w.state.Audit[3].Hash, w.state.Audit[4:]
	if err := newTrail(nil).check(w.state); err != nil {
		t.Errorf("a shortened trail: %v", err)
	}
	w.state.AuditBase = cluster.ChainStart("c1")
	if err := newTrail(nil).check(w.state); err == nil {
		t.Error("a shortened trail with another base passes")
	}
}

// A node signs ten minutes after the first new entry, or when there are 500; a young trail sooner.
func TestTrailDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trail := newTrail(&Member{node: &Node{cfg: Config{Name: "node1"}}})
		s := &cluster.State{}
		if _, some := trail.due(s, time.Now()); some {
			t.Error("there is nothing to sign")
		}
		s.Audit = []cluster.Entry{{Seq: 1}}
		first := time.Now()
		for range 3 {
			if due, some := trail.due(s, time.Now()); !some || !due.Equal(first.Add(signEvery)) {
				t.Errorf("due %v, %v", due, some)
			}
			time.Sleep(time.Minute)
		}
		young, now := newTrail(trail.m), time.Now()
		for age, want := range map[time.Duration]time.Duration{0: signFirst, 7 * time.Second: 7 * time.Second, 4 * time.Minute: 4 * time.Minute, time.Hour: signEvery} {
			young.waiting = time.Time{}
			if due, some := young.due(&cluster.State{Audit: []cluster.Entry{{Seq: 1, Time: now.Add(-age)}}}, now); !some || due.Sub(now) != want {
				t.Errorf("a trail that is %v old is signed after %v, %v", age, due.Sub(now), some)
			}
		}
		s.Checkpoints = []cluster.Checkpoint{{Node: "node2", Seq: 1}}
		if _, some := trail.due(s, time.Now()); !some {
			t.Error("another node's signature counts as this one's")
		}
		s.Audit = []cluster.Entry{{Seq: signAfter}}
		if due, some := trail.due(s, time.Now()); !some || due.After(time.Now()) {
			t.Errorf("500 entries: due %v, %v", due, some)
		}
		s.Checkpoints = []cluster.Checkpoint{{Node: "node1", Seq: signAfter}}
		if _, some := trail.due(s, time.Now()); some {
			t.Error("all is signed")
		}
	})
}
