package cluster

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// putApp is a small command whose effect is easy to look for.
func putApp(name string) *PutApp {
	return &PutApp{App: App{Name: name, Restart: Restart{Kind: RestartNone}}}
}

func TestThreeNodes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		follower := w.follower()
		w.apply(follower.name, putApp("through-a-follower"), anna)
		s := w.check()
		if _, ok := s.Apps["through-a-follower"]; !ok {
			t.Error("the command is not in the state")
		}
		e := s.Audit[len(s.Audit)-2]
		if e.Node != follower.name || e.Actor != anna {
			t.Errorf("the audit trail says %+v", e)
		}
		for _, m := range w.nodes {
			got := m.Status()
			if !got.Quorum || got.Leader != w.leader().name || !slices.Equal(got.Voters, []string{"node1", "node2", "node3"}) || len(got.Standbys) != 0 {
				t.Errorf("status of %s is %+v", m.name, got)
			}
		}
	})
}

// A refusal reaches the caller with its code from wherever the leader is.
func TestRefusalThroughFollower(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		follower := w.follower()
		index, err := follower.Apply(t.Context(), &RemoveApp{Name: "none"}, anna)
		wantCode(t, err, NotFound)
		if s := follower.State(); s.Index < index || s.Audit[len(s.Audit)-1].Result != Refused {
			t.Error("the refusal is not in the audit trail of the node that asked")
		}
		_, err = follower.Apply(t.Context(), &RemoveApp{Name: "NOT A NAME"}, anna)
		wantCode(t, err, Invalid)
		_, err = follower.Apply(t.Context(), putApp("x"), Actor{ByAccount, "nobody"})
		wantCode(t, err, Denied)
		w.check()
	})
}

// A node cannot speak for another one, whatever it writes into a request.
func TestForwardedIdentity(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		leader, follower := w.leader(), w.follower()
		r := Request{Kind: "node.connect", Actor: Actor{ByNode, leader.name}, Data: []byte(`{"status":"connected"}`)}
		answer := leader.answer(t.Context(), follower.name, r)
		wantCode(t, answer.Error, Denied)
		for _, r := range []Request{
			{Kind: "node.connect", Actor: daemon1, Data: []byte(`{"status":"gone"}`)},
			{Kind: "node.connect", Actor: daemon1, Data: []byte(`{"state":"connected"}`)},
			{Kind: "node.connect", Actor: Actor{"root", "x"}, Data: []byte(`{"status":"connected"}`)},
		} {
			wantCode(t, leader.answer(t.Context(), follower.name, r).Error, Invalid)
		}
		wantCode(t, leader.answer(t.Context(), follower.name, Request{Kind: "node.fly"}).Error, Upgrade)
		w.check()
	})
}

// Watch never loses a wake-up: whoever follows it sees the last state.
func TestWatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(1)
		m := w.nodes["node1"]
		seen := make(chan int)
		go func() {
			for {
				s, changed := m.Watch()
				if len(s.Apps) == 50 {
					seen <- len(s.Apps)
					return
				}
				<-changed
			}
		}()
		for i := range 50 {
			w.apply("node1", putApp(fmt.Sprintf("app-%d", i)), anna)
		}
		<-seen
	})
}

// Before Start and after Close there is a State, and no writing.
func TestNotStarted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c, err := Open(Config{Dir: filepath.Join(w.dir, "alone")})
		if err != nil {
			t.Fatal(err)
		}
		if s := c.State(); s.Cluster.ID != "" || s.Index != 0 {
			t.Errorf("state %+v", s)
		}
		_, err = c.Apply(t.Context(), putApp("x"), anna)
		wantCode(t, err, NoLeader)
		wantCode(t, c.answer(t.Context(), "node1", Request{}).Error, NoLeader)
		if got := c.Status(); got.Node != "" || got.Quorum {
			t.Errorf("status %+v", got)
		}
		if _, err := Open(Config{Dir: filepath.Join(w.dir, "alone")}); err == nil {
			t.Error("a directory can be opened twice")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}

		w.grow(1)
		m := w.nodes["node1"]
		if err := m.Start(Network{}, false); err == nil {
			t.Error("a node can be started twice")
		}
		w.stop("node1")
		_, err = m.Apply(t.Context(), putApp("x"), anna)
		wantCode(t, err, NoLeader)
	})
}

// Several entries at once make the same State as one after the other, each has its own answer, and the mark
// is at the last, whatever that is.
func TestBatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c, err := Open(Config{Dir: w.dir})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		steps := append(founding(), step{"node1", anna, &RemoveAccount{Name: "nobody"}}, step{"node1", anna, putApp("shop")})
		var batch []*raft.Log
		for i, st := range steps {
			b, err := encodeEntry(st.cmd, Meta{Time: epoch, Node: st.node, Actor: st.actor})
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, &raft.Log{Index: uint64(i + 1), Term: 3, Data: b})
		}
		batch = append(batch, &raft.Log{Index: 5, Term: 3, Type: raft.LogConfiguration, Data: []byte("not a command")})
		answers := (*fsm)(c).ApplyBatch(batch)
		for i, a := range answers {
			if refused, ok := a.(error); ok != (i == 2) || ok && !errors.Is(refused, NotFound) {
				t.Errorf("entry %d is answered by %v", i+1, a)
			}
		}
		s := c.State()
		if _, ok := s.Apps["shop"]; len(answers) != len(batch) || s.Index != 4 || len(s.Accounts) != 1 || !ok {
			t.Errorf("%d answers, and the state %+v", len(answers), s)
		}
		if index, term, err := c.mark.read(); index != 5 || term != 3 || err != nil {
			t.Errorf("the mark is at %d of term %d, %v", index, term, err)
		}
	})
}

// An entry that this program does not know stops it: going on would be another state than the others'.
func TestUnknownEntry(t *testing.T) {
	for name, data := range map[string]string{
		"unknown kind":  `{"kind":"app.dance","meta":{},"data":{}}`,
		"unknown field": `{"kind":"app.remove","meta":{},"data":{"name":"x","softly":true}}`,
		"no JSON":       "\x00",
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c, err := Open(Config{Dir: w.dir})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				defer func() {
					if recover() == nil {
						t.Error("the entry was skipped")
					}
				}()
				(*fsm)(c).Apply(&raft.Log{Index: 1, Term: 1, Data: []byte(data)})
			})
		})
	}
}

// A cluster that moved on cannot be opened by an older program.
func TestOpenOldProgram(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start("node1", true)
		steps := founding()
		create := *steps[0].cmd.(*CreateCluster)
		create.Node.Protocol = Protocol + 1
		w.apply("node1", &create, console)
		w.stop("node1")
		_, err := Open(Config{Dir: filepath.Join(w.dir, "node1")})
		wantCode(t, err, Upgrade)
	})
}
