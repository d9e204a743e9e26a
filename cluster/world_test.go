package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// world is a group of nodes in one process, in a synctest bubble: time passes only when everybody waits.
type world struct {
	t     *testing.T
	dir   string
	log   *slog.Logger
	mu    sync.Mutex
	nodes map[string]*member // running
	known map[string]*member // running, or the last that was
	cuts  map[[2]string]bool
	// watch makes nodes notice at once when another's process ends.
	watch bool
	// lose, when set, decides whether the answer to a forwarded request is lost on its way back.
	lose func(from, to string) bool
}

// member is a running node.
type member struct {
	*Cluster
	name      string
	transport *raft.InmemTransport
	ended     chan struct{} // closed when the node stops
}

// inWorld runs f in a bubble, then closes the nodes.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: dir, nodes: make(map[string]*member), known: make(map[string]*member), cuts: make(map[[2]string]bool)}
		w.log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
		defer func() {
			for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
				w.stop(name)
			}
		}()
		f(t, w)
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// start runs a node on the directory of its name.
func (w *world) start(name string, bootstrap bool) *member {
	w.t.Helper()
	c, err := Open(Config{Dir: filepath.Join(w.dir, name), Log: w.log.With("on", name), noSync: true})
	if err != nil {
		w.t.Fatal(err)
	}
	_, transport := raft.NewInmemTransportWithTimeout(raft.ServerAddress(name), 200*time.Millisecond)
	transport.Connect(raft.ServerAddress(name), transport) // as a Link does
	m := &member{c, name, transport, make(chan struct{})}
	w.mu.Lock()
	w.nodes[name], w.known[name] = m, m
	for other := range w.nodes {
		w.connect(name, other)
	}
	w.mu.Unlock()
	forward := Forwarder(forwarder{w, name})
	if w.watch {
		forward = watcher{forwarder{w, name}}
	}
	if err := c.Start(Network{name, transport, forward}, bootstrap); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// connect joins the transports of two running nodes, unless there is a cut between them.
func (w *world) connect(a, b string) {
	if x, y := w.nodes[a], w.nodes[b]; a != b && x != nil && y != nil && !w.cuts[[2]string{a, b}] {
		x.transport.Connect(raft.ServerAddress(b), y.transport)
		y.transport.Connect(raft.ServerAddress(a), x.transport)
	}
}

// isolate cuts a node off from all others, or heals that.
func (w *world) isolate(name string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other := range w.nodes {
		if other == name {
			continue
		}
		w.cuts[[2]string{name, other}], w.cuts[[2]string{other, name}] = cut, cut
		if cut {
			w.nodes[name].transport.Disconnect(raft.ServerAddress(other))
			w.nodes[other].transport.Disconnect(raft.ServerAddress(name))
		} else {
			w.connect(name, other)
		}
	}
}

// stop closes a node in good order.
func (w *world) stop(name string) {
	w.t.Helper()
	m := w.gone(name)
	if err := m.Close(); err != nil {
		w.t.Errorf("closing %s: %v", name, err)
	}
}

// kill takes a node away in the middle of what it does.
func (w *world) kill(name string) {
	w.t.Helper()
	w.isolate(name, true)
	m := w.gone(name)
	if err := m.part.Load().raft.Shutdown().Error(); err != nil {
		w.t.Errorf("killing %s: %v", name, err)
	}
	m.Close()
	w.mu.Lock()
	maps.DeleteFunc(w.cuts, func(pair [2]string, _ bool) bool { return pair[0] == name || pair[1] == name })
	w.mu.Unlock()
}

func (w *world) gone(name string) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.nodes[name]
	delete(w.nodes, name)
	close(m.ended)
	for _, other := range w.nodes {
		other.transport.Disconnect(raft.ServerAddress(name))
	}
	return m
}

// forwarder takes requests to other nodes of the world.
type forwarder struct {
	w    *world
	from string
}

func (f forwarder) Forward(ctx context.Context, to string, r Request) (Answer, error) {
	f.w.mu.Lock()
	target, cut, lose := f.w.nodes[to], f.w.cuts[[2]string{f.from, to}], f.w.lose
	f.w.mu.Unlock()
	if cut {
		select { // packets vanish
		case <-ctx.Done():
		case <-time.After(handshakeTimeout):
		}
	}
	if cut || target == nil {
		return Answer{}, errorf(NoLeader, "node %q cannot be reached", to)
	}
	answer := target.answer(ctx, f.from, r)
	if lose != nil && lose(f.from, to) {
		return Answer{}, errorf(Uncertain, "the answer of node %q was lost", to)
	}
	return answer, nil
}

// watcher is a forwarder that knows when a node stops.
type watcher struct{ forwarder }

func (f watcher) Gone(ctx context.Context, node string) error {
	f.w.mu.Lock()
	target := f.w.nodes[node]
	f.w.mu.Unlock()
	if target == nil { // not reached
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-target.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// grow makes a cluster of n nodes called node1, node2, ... All of them are connected in the end.
func (w *world) grow(n int) {
	w.t.Helper()
	w.start("node1", true)
	for _, st := range founding() {
		w.apply("node1", st.cmd, st.actor)
	}
	for i := 2; i <= n; i++ {
		w.admit(fmt.Sprintf("node%d", i))
		w.join(fmt.Sprintf("node%d", i))
	}
	// On all nodes: Raft elects nobody while the leader that alone knows of a new vote is away.
	for _, m := range w.nodes {
		w.wait("everybody has a vote", func() bool { return len(m.Status().Voters) == wantVoters(n) })
	}
}

// admit lets a node in by a code, through node1.
func (w *world) admit(name string) {
	w.t.Helper()
	_, hash := NewJoinCode()
	w.apply("node1", &AddInvite{Hash: hash, Seconds: 3600}, anna)
	w.apply("node1", &AdmitNode{Invite: hash, Node: testNode(name)}, daemon1)
}

// join starts an admitted node, waits until it has caught up and says so.
func (w *world) join(name string) *member {
	w.t.Helper()
	m := w.start(name, false)
	w.wait(name+" sees itself", func() bool { _, ok := m.State().Nodes[name]; return ok })
	w.apply(name, &ConnectNode{Status: Connected}, Actor{ByNode, name})
	return m
}

// apply carries out a command on a node, and wants to see the result there at once.
func (w *world) apply(node string, cmd Command, actor Actor) uint64 {
	w.t.Helper()
	m := w.nodes[node]
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	index, err := m.Apply(ctx, cmd, actor)
	if err != nil {
		w.t.Fatalf("%s on %s: %v", cmd.Kind(), node, err)
	}
	if s := m.State(); s.Index < index {
		w.t.Fatalf("%s on %s: applied at %d, but the node sees %d", cmd.Kind(), node, index, s.Index)
	}
	return index
}

// leader waits for the one leader that a majority follows.
func (w *world) leader() *member {
	w.t.Helper()
	var leader *member
	w.wait("a leader", func() bool {
		followers := make(map[string]int)
		for _, m := range w.nodes {
			followers[m.Status().Leader]++
		}
		for name, n := range followers {
			if m := w.nodes[name]; m != nil && m.Status().Role == "leader" && n > len(w.nodes)/2 {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

// leads tells whether a node other than this one believes that it leads.
func (w *world) leads(other string) bool {
	for name, m := range w.nodes {
		if name != other && m.Status().Role == "leader" {
			return true
		}
	}
	return false
}

// node is the last known incarnation of a node, running or not.
func (w *world) node(name string) *member {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[name]
}

// follower is some node that does not lead.
func (w *world) follower() *member {
	w.t.Helper()
	leader := w.leader()
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		if name != leader.name {
			return w.nodes[name]
		}
	}
	w.t.Fatal("the leader is alone")
	return nil
}

// wait lets time pass until ok, for two minutes at most.
func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			for name, m := range w.nodes {
				w.t.Logf("%s: %+v", name, m.Status())
			}
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// check is the closing check of every scenario: all nodes come to the same index and the same state.
func (w *world) check() *State {
	w.t.Helper()
	index := w.apply(w.leader().name, &BeginAct{ID: NewID(), Act: "check", Object: "world", Permission: MayView}, console)
	var first *State
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		m := w.nodes[name]
		w.wait(name+" has caught up", func() bool { return m.State().Index >= index })
		s := m.State()
		if first == nil {
			first = s
		}
		if s.Index != first.Index || s.Hash() != first.Hash() {
			w.t.Errorf("%s is at index %d with hash %s, others at %d with %s", name, s.Index, s.Hash(), first.Index, first.Hash())
		}
	}
	return first
}
