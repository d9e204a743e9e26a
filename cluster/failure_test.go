package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A leader that is cut off is replaced, and comes back as a follower.
func TestLeaderCutOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		old := w.leader()
		w.isolate(old.name, true)
		start := time.Now()
		w.wait("the old leader gives up", func() bool { return !old.Status().Quorum })
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the old leader believed in itself for %v", took)
		}
		_, err := old.Apply(t.Context(), putApp("lost"), anna)
		wantCode(t, err, NoLeader)
		if s := old.State(); len(s.Nodes) != 3 {
			t.Error("the node that is cut off cannot be read")
		}
		other := w.leader()
		if other.name == old.name {
			t.Fatal("the old leader leads")
		}
		w.apply(other.name, putApp("meanwhile"), anna)
		time.Sleep(time.Until(start.Add(30 * time.Second)))
		w.isolate(old.name, false)
		s := w.check()
		if _, ok := s.Apps["meanwhile"]; !ok {
			t.Error("what was done meanwhile is lost")
		}
		if _, ok := s.Apps["lost"]; ok {
			t.Error("what was reported as not done is done")
		}
	})
}

// Without a quorum everything can be read and nothing written, and that is said in time.
func TestQuorumLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		w.apply("node1", putApp("before"), anna)
		w.kill("node2")
		w.kill("node3")
		m := w.nodes["node1"]
		start := time.Now()
		for _, patience := range []time.Duration{time.Second, time.Minute} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err := m.Apply(ctx, putApp("after"), anna)
			if e := asError(err); e.Code != NoLeader && e.Code != Uncertain { // the first may be caught in the middle
				t.Errorf("error %v", err)
			}
			cancel()
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v to say so", took)
		}
		_, err := m.Apply(t.Context(), putApp("after"), anna)
		wantCode(t, err, NoLeader)
		if status := m.Status(); status.Quorum || status.Leader != "" {
			t.Errorf("status %+v", status)
		}
		if _, ok := m.State().Apps["before"]; !ok {
			t.Error("the state cannot be read")
		}
		w.start("node2", false)
		w.check()
	})
}

// A node that starts alone after a power cut knows what it knew, although nobody tells it.
func TestRestartWithoutQuorum(t *testing.T) {
	for _, snapshot := range []bool{false, true} {
		t.Run(fmt.Sprintf("snapshot %v", snapshot), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.grow(3)
				w.apply("node1", putApp("in-the-snapshot"), anna)
				m := w.nodes["node3"]
				if snapshot {
					w.wait("node3 has it", func() bool { return len(m.State().Apps) == 1 })
					if err := m.part.Load().raft.Snapshot().Error(); err != nil {
						t.Fatal(err)
					}
				}
				w.apply("node3", putApp("in-the-log"), anna)
				want := m.State()
				for _, name := range []string{"node1", "node2", "node3"} {
					w.kill(name)
				}
				m = w.start("node3", false)
				if got := m.State(); got.Index != want.Index || got.Hash() != want.Hash() {
					t.Errorf("alone, node3 knows index %d, before it was %d", got.Index, want.Index)
				}
				w.start("node1", true) // bootstrap is ignored: there is something already
				w.start("node2", false)
				s := w.check()
				if len(s.Apps) != 2 || len(s.Nodes) != 3 {
					t.Errorf("apps %v, nodes %v", sorted(s.Apps), sorted(s.Nodes))
				}
			})
		})
	}
}

// A mark that is stale, torn or of another log only makes the node know less until it has a leader.
func TestMark(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing":        os.Remove,
		"empty":          func(path string) error { return os.Truncate(path, 0) },
		"torn":           func(path string) error { return os.Truncate(path, 7) },
		"zeros":          func(path string) error { return os.WriteFile(path, make([]byte, markSize), 0o600) },
		"of another log": func(path string) error { return rewriteMark(path, 3, 99) },
		"ahead":          func(path string) error { return rewriteMark(path, 1<<40, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.grow(1)
				w.apply("node1", putApp("x"), anna)
				w.stop("node1")
				if err := spoil(filepath.Join(w.dir, "node1", "committed")); err != nil {
					t.Fatal(err)
				}
				c, err := Open(Config{Dir: filepath.Join(w.dir, "node1")})
				if err != nil {
					t.Fatal(err)
				}
				if n := len(c.State().Apps); n != 0 {
					t.Errorf("%d applications are known without a mark", n)
				}
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				w.start("node1", false)
				if s := w.check(); len(s.Apps) != 1 {
					t.Errorf("apps are %v", s.Apps)
				}
			})
		})
	}
}

func rewriteMark(path string, index, term uint64) error {
	m, err := openMark(path)
	if err != nil {
		return err
	}
	if err := m.write(index, term, true); err != nil {
		return err
	}
	return m.close()
}

// A node that was away long enough for the log to be compacted gets a snapshot.
func TestCatchUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		w.stop("node3")
		const writes = 300
		for i := range writes {
			w.apply("node1", putApp(fmt.Sprintf("app-%d", i)), anna)
		}
		for _, name := range []string{"node1", "node2"} {
			r := w.nodes[name].part.Load().raft
			conf := r.ReloadableConfig()
			conf.TrailingLogs = 10
			if err := r.ReloadConfig(conf); err != nil {
				t.Fatal(err)
			}
			if err := r.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
		}
		m := w.start("node3", false)
		if s := w.check(); len(s.Apps) != writes {
			t.Errorf("%d applications", len(s.Apps))
		}
		snapshots, err := m.snaps.List()
		if err != nil || len(snapshots) == 0 {
			t.Errorf("node3 caught up without a snapshot: %v, %v", snapshots, err)
		}
		w.apply("node3", putApp("from-node3"), anna)
		w.check()
	})
}

// Whatever happens to leaders, what was acknowledged is there in the end, and what was not done is not.
func TestLeaderKilledUnderLoad(t *testing.T) {
	for _, watch := range []bool{false, true} {
		t.Run(fmt.Sprintf("watch %v", watch), func(t *testing.T) { leaderKilledUnderLoad(t, watch) })
	}
}

func leaderKilledUnderLoad(t *testing.T, watch bool) {
	inWorld(t, func(t *testing.T, w *world) {
		w.watch = watch
		w.grow(3)
		var (
			mu      sync.Mutex
			outcome = make(map[string]error)
			clients sync.WaitGroup
			stop    = make(chan struct{})
		)
		client := func(node string) {
			for i := 0; ; i++ {
				id := fmt.Sprintf("act-%s-%d", node, i)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				_, err := w.node(node).Apply(ctx, &BeginAct{ID: id, Act: "load", Object: "world", Permission: MayView}, anna)
				cancel()
				mu.Lock()
				outcome[id] = err
				mu.Unlock()
				select {
				case <-stop:
					return
				case <-time.After(120 * time.Millisecond):
				}
			}
		}
		for _, name := range []string{"node1", "node2", "node3"} {
			clients.Go(func() { client(name) })
		}
		for range 3 {
			time.Sleep(time.Second)
			leader := w.leader().name
			w.kill(leader)
			time.Sleep(10 * time.Second)
			w.start(leader, false)
		}
		time.Sleep(time.Second)
		close(stop)
		clients.Wait()
		s := w.check()
		done, failed := 0, 0
		for name, err := range outcome {
			_, there := s.Acts[name]
			switch {
			case err == nil && !there:
				t.Errorf("%s was acknowledged and is lost", name)
			case err != nil && asError(err).Code == NoLeader && there:
				t.Errorf("%s was reported as not done and is there: %v", name, err)
			case err == nil:
				done++
			default:
				failed++
			}
		}
		t.Logf("%d done, %d failed", done, failed)
		if done < 300 || failed == 0 {
			t.Errorf("only %d of %d commands were done", done, len(outcome))
		}
	})
}

// An answer that is lost after the command was done is told apart from a command that was not done.
func TestAnswerLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		follower := w.follower()
		w.lose = func(from, to string) bool { return true }
		_, err := follower.Apply(t.Context(), putApp("done"), anna)
		wantCode(t, err, Uncertain)
		w.lose = nil
		if s := w.check(); s.Apps["done"].Name != "done" {
			t.Error("the command is not done")
		}
	})
}

// A leader whose process ends is replaced long before its heartbeats are missed; one that is only cut off
// is not.
func TestLeaderProcessEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.watch = true
		w.grow(5)
		for range 3 {
			time.Sleep(5 * time.Second)
			old := w.leader().name
			start := time.Now()
			w.kill(old)
			w.wait("another leader", func() bool { return w.leads(old) })
			if took := time.Since(start); took > watchStagger {
				t.Errorf("it took %v", took)
			}
			w.start(old, false)
			w.check()
		}
		old := w.leader()
		start := time.Now()
		w.isolate(old.name, true)
		w.wait("another leader", func() bool { return w.leads(old.name) })
		if took := time.Since(start); took < 500*time.Millisecond {
			t.Errorf("a leader that was cut off was replaced after %v", took)
		}
		w.isolate(old.name, false)
		w.check()
	})
}

// A planned stop hands the lead over: the next command does not wait for an election.
func TestHandOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		old := w.leader().name
		start := time.Now()
		w.stop(old)
		w.apply(w.leader().name, putApp("x"), anna)
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		w.start(old, false)
		w.check()
	})
}
