package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// station is a node as a daemon would run it: a Cluster over a Link over TCP, in real time.
type station struct {
	*Cluster
	name string
	link *Link
	node Node
}

// newStation starts a node of f on loopback.
func newStation(t *testing.T, f *fabric, dir, name string, bootstrap bool) *station {
	t.Helper()
	// No follower misses a heartbeat within the time of a test: only the watch can replace a leader.
	c, err := Open(Config{Dir: filepath.Join(dir, name), Heartbeat: time.Minute, LeaderWait: 20 * time.Second, noSync: true})
	if err != nil {
		t.Fatal(err)
	}
	identity := f.identity(name)
	leaf := identity.newLeaf(t, name, nil)
	link, err := NewLink(LinkConfig{
		Cluster: "c1", Node: name, Owners: f.owners,
		Certificate: func() (*tls.Certificate, error) { return leaf, nil },
		Address: func(node string) (string, error) {
			n, err := c.State().node(node)
			return n.PeerAddress, err
		},
		Admit: func(node string, identity *x509.Certificate) error {
			s := c.State()
			if s.Nodes[name].Status != Connected { // the state is not there yet: the members it was told of count
				return f.admit(node, identity)
			}
			return s.Admits(node, identity)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &station{Cluster: c, name: name, link: link, node: Node{Name: name, Serial: "admin-" + name, PeerAddress: ln.Addr().String(),
		Version: "1.0", Protocol: Protocol, Identity: identity.cert.Raw, Key: KeyHash(identity.cert)}}
	var served sync.WaitGroup
	served.Go(func() {
		if err := link.Serve(ln, c.Handler(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		link.Close()
		served.Wait()
	})
	if err := c.Start(Network{name, link.Transport(), link}, bootstrap); err != nil {
		t.Fatal(err)
	}
	return s
}

// until waits for a State that satisfies ok.
func (s *station) until(t *testing.T, ok func(*State) bool) *State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		state, changed := s.Watch()
		if ok(state) {
			return state
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s waited in vain at index %d: %+v", s.name, state.Index, s.Status())
		}
	}
}

// watched counts the nodes that watch this one.
func (s *station) watched() int {
	n := 0
	for _, c := range s.link.open() {
		if tc, ok := c.Conn.(*tls.Conn); ok && tc.ConnectionState().NegotiatedProtocol == protoWatch {
			n++
		}
	}
	return n
}

// waitUntil asks every few milliseconds, for a minute at most: there is nothing to wait on.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (s *station) must(t *testing.T, cmd Command, actor Actor) uint64 {
	t.Helper()
	index, err := s.Apply(t.Context(), cmd, actor)
	if err != nil {
		t.Fatalf("%s on %s: %v", cmd.Kind(), s.name, err)
	}
	return index
}

// Three nodes over TCP and TLS: found, join, write through each, lose the leader, go on.
func TestThreeNodesOverTLS(t *testing.T) {
	f := newFabric(t)
	dir := t.TempDir()
	node1 := newStation(t, f, dir, "node1", true)
	node1.must(t, &CreateCluster{ID: "c1", Name: "Test", Owner: f.owner.cert.Raw, Node: node1.node}, console)
	node1.must(t, &PutAccount{Name: "anna", Hash: testHash, Roles: everyRole, New: true}, console)
	stations := []*station{node1}
	for i := 2; i <= 3; i++ {
		name := fmt.Sprintf("node%d", i)
		s := newStation(t, f, dir, name, false)
		_, hash := NewJoinCode()
		node1.must(t, &AddInvite{Hash: hash, Seconds: 3600}, anna)
		node1.must(t, &AdmitNode{Invite: hash, Node: s.node}, daemon1)
		s.until(t, func(state *State) bool { _, ok := state.Nodes[name]; return ok })
		s.must(t, &ConnectNode{Status: Connected}, Actor{ByNode, name})
		stations = append(stations, s)
	}
	var last uint64
	for _, s := range stations {
		last = s.must(t, putApp("from-"+s.name), anna)
	}
	for _, s := range stations {
		state := s.until(t, func(state *State) bool { return state.Index >= last })
		if len(state.Apps) != 3 || state.Hash() != node1.State().Hash() {
			t.Errorf("%s has the applications %v", s.name, sorted(state.Apps))
		}
	}

	// The leader goes, link and all. Somebody else takes over.
	for _, s := range stations {
		waitUntil(t, s.name+" knows of three voters", func() bool { return slices.Equal(s.Status().Voters, []string{"node1", "node2", "node3"}) })
	}
	leader := slices.IndexFunc(stations, func(s *station) bool { return s.Status().Role == "leader" })
	if leader < 0 {
		t.Fatal("nobody leads")
	}
	waitUntil(t, "both others watch the leader", func() bool { return stations[leader].watched() == 2 })
	stations[leader].link.Close()
	rest := slices.Delete(slices.Clone(stations), leader, leader+1)
	last, err := rest[0].Apply(t.Context(), putApp("after"), anna)
	if errors.Is(err, Uncertain) { // caught in the middle: this command can be repeated
		last = rest[0].must(t, putApp("after"), anna)
	} else if err != nil {
		t.Fatal(err)
	}
	state := rest[1].until(t, func(state *State) bool { return state.Index >= last })
	if state.Hash() != rest[0].State().Hash() {
		t.Error("the states differ")
	}
}
