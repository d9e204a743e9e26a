package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A stage is a runner with applications that only seem to be restarted. It writes down what happens.
type stage struct {
	*runner
	began time.Time
	all   map[string]cluster.App
	wait  map[string]string
	fail  map[string]int // how many more times it fails
	log   []string
}

// playRunner runs f beside a runner, in a bubble.
func playRunner(t *testing.T, after map[string][]string, f func(t *testing.T, s *stage)) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{runner: newRunner(), began: time.Now(), all: map[string]cluster.App{}, wait: map[string]string{}, fail: map[string]int{}}
		for name, after := range after {
			s.all[name] = cluster.App{Name: name, After: after, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: "x"}}
		}
		s.apps = func() map[string]cluster.App { return s.all }
		s.waits = func(name string) string { return s.wait[name] }
		s.self = cluster.Actor{Kind: cluster.ByNode, Name: "node1"}
		s.run = func(_ context.Context, app cluster.App, actor cluster.Actor, run cluster.Run) (bool, error) {
			if actor.Name == "nobody" {
				return false, errors.New("denied")
			}
			word := "up"
			defer func() { s.note("%s %s (%s, %d/%d)", app.Name, word, run.Reason, run.Try, run.Tries) }()
			time.Sleep(time.Second)
			if s.fail[app.Name] > 0 {
				s.fail[app.Name]--
				word = "fails"
				return true, errors.New("it is broken")
			}
			return true, nil
		}
		s.tell = func(_ context.Context, app string, run cluster.Run) { s.note("%s: %s", app, run.Detail) }
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.loop(ctx); close(done) }()
		f(t, s)
		stop()
		<-done
	})
}

func (s *stage) note(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf("%4.0f ", time.Since(s.began).Seconds())+fmt.Sprintf(format, args...))
}

// wants checks what has happened, after an hour in which everything has come to rest.
func (s *stage) wants(t *testing.T, want ...string) {
	t.Helper()
	time.Sleep(time.Hour)
	synctest.Wait()
	if !slices.Equal(s.log, want) {
		t.Errorf("it went so:\n%s\nwant:\n%s", strings.Join(s.log, "\n"), strings.Join(want, "\n"))
	}
}

func TestRestartsInOrder(t *testing.T) {
	after := map[string][]string{"a": {"c"}, "b": nil, "c": {"d"}, "d": nil}
	playRunner(t, after, func(t *testing.T, s *stage) {
		s.ask("r", "a", "b", "c", "d")
		s.wants(t, "   1 d up (r, 1/4)", "   2 c up (r, 1/4)", "   3 a up (r, 1/4)", "   4 b up (r, 1/4)")
	})
	playRunner(t, after, func(t *testing.T, s *stage) {
		for _, r := range s.now(t.Context(), "r", []string{"a", "d"}) { // c, between them, has no reason to be restarted
			s.note("%s %t", r.App, r.OK)
		}
		s.wants(t, "   1 d up (r, 1/4)", "   2 a up (r, 1/4)", "   2 d true", "   2 a true")
	})
}

// What failed is tried again after 10 s, 1 min and 5 min; then it needs people.
func TestRestartIsTriedAgain(t *testing.T) {
	after := map[string][]string{"a": nil}
	playRunner(t, after, func(t *testing.T, s *stage) {
		s.fail["a"] = 99
		s.ask("r", "a")
		s.wants(t, "   1 a fails (r, 1/4)", "  12 a fails (r, 2/4)", "  73 a fails (r, 3/4)", " 374 a fails (r, 4/4)")
	})
	playRunner(t, after, func(t *testing.T, s *stage) {
		s.fail["a"] = 2
		s.ask("r", "a")
		s.wants(t, "   1 a fails (r, 1/4)", "  12 a fails (r, 2/4)", "  73 a up (r, 3/4)")
	})
}

// A newer reason takes the place of a plan, also while the restart that it is about runs.
func TestNewerRestartReplacesOlder(t *testing.T) {
	playRunner(t, map[string][]string{"a": nil}, func(t *testing.T, s *stage) {
		s.fail["a"] = 2
		s.ask("old", "a")
		time.Sleep(5 * time.Second)
		s.ask("new", "a")
		time.Sleep(500 * time.Millisecond)
		s.ask("newest", "a")
		s.wants(t, "   1 a fails (old, 1/4)", "   6 a fails (new, 1/4)", "   7 a up (newest, 1/4)")
	})
}

// What depends on an application that failed is left out, says so, and follows once that is up.
func TestDependentsWait(t *testing.T) {
	after := map[string][]string{"db": nil, "ca": {"db"}, "web": {"ca"}}
	playRunner(t, after, func(t *testing.T, s *stage) {
		s.fail["db"] = 1
		s.ask("r", "db", "ca", "web")
		s.wants(t, "   1 db fails (r, 1/4)",
			"   1 ca: application db, which must be up first, was not restarted", "   1 web: application ca, which must be up first, was not restarted",
			"  12 db up (r, 2/4)", "  13 ca up (r, 1/4)", "  14 web up (r, 1/4)")
	})
	playRunner(t, after, func(t *testing.T, s *stage) { // somebody mends it, hours later
		s.fail["db"] = 4
		s.ask("r", "db", "ca")
		s.wants(t, "   1 db fails (r, 1/4)", "   1 ca: application db, which must be up first, was not restarted",
			"  12 db fails (r, 2/4)", "  73 db fails (r, 3/4)", " 374 db fails (r, 4/4)")
		s.log = nil
		if _, err := s.force(t.Context(), console, "db", "by hand"); err != nil {
			t.Error(err)
		}
		s.wants(t, "3601 db up (by hand, 1/4)", "3602 ca up (r, 1/4)")
	})
}

// Nothing is started that waits for a slot; who asks for it by hand gets it all the same.
func TestRestartWaits(t *testing.T) {
	playRunner(t, map[string][]string{"a": nil}, func(t *testing.T, s *stage) {
		s.wait["a"] = "slot x"
		s.ask("r", "a")
		r := s.now(t.Context(), "keys", []string{"a"})
		if len(r) != 1 || r[0].OK || !strings.Contains(r[0].Detail, "waits for slot x") {
			t.Errorf("%+v", r)
		}
		s.wants(t)
		if _, err := s.force(t.Context(), console, "a", "by hand"); err != nil {
			t.Error(err)
		}
		s.wants(t, "3601 a up (by hand, 1/4)")
	})
}

// Who may not restart an application changes nothing about what is planned.
func TestRestartNotPermitted(t *testing.T) {
	playRunner(t, map[string][]string{"a": nil}, func(t *testing.T, s *stage) {
		s.fail["a"] = 1
		s.ask("r", "a")
		time.Sleep(5 * time.Second)
		if _, err := s.force(t.Context(), cluster.Actor{Kind: cluster.ByAccount, Name: "nobody"}, "a", "by hand"); err == nil {
			t.Error("it was permitted")
		}
		s.wants(t, "   1 a fails (r, 1/4)", "  12 a up (r, 2/4)")
	})
}

func TestAppWaits(t *testing.T) {
	s := &cluster.State{
		Slots: map[string]cluster.Slot{
			"open":   {Seats: map[string]cluster.Seat{"node1": {State: cluster.Active}, "node2": {State: cluster.Down}}},
			"closed": {Seats: map[string]cluster.Seat{"node1": {State: cluster.Down}}},
		},
		Apps: map[string]cluster.App{
			"ready": {Slots: []string{"open"}}, "shut": {Slots: []string{"open", "closed"}}, "plain": {},
			"later": {After: []string{"plain", "shut"}}, "away": {Nodes: []string{"node2"}, Slots: []string{"closed"}}, "free": {After: []string{"away"}},
		},
	}
	for _, c := range []struct{ app, node, want string }{
		{"ready", "node1", ""}, {"ready", "node2", "slot open, which is not open"}, {"shut", "node1", "slot closed, which is not open"},
		{"plain", "node1", ""}, {"later", "node1", "application shut, which waits for slot closed, which is not open"},
		{"free", "node1", ""}, {"away", "node2", "one of its slots: node node2 has none of them"},
	} {
		if got := AppWaits(s, c.app, c.node); got != c.want {
			t.Errorf("%s on %s waits for %q, want %q", c.app, c.node, got, c.want)
		}
	}
}
