package cluster

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestNextChange(t *testing.T) {
	servers := func(voters, standbys string) (list []raft.Server) {
		for _, r := range voters {
			list = append(list, raft.Server{ID: raft.ServerID(r), Address: raft.ServerAddress(r), Suffrage: raft.Voter})
		}
		for _, r := range standbys {
			list = append(list, raft.Server{ID: raft.ServerID(r), Address: raft.ServerAddress(r), Suffrage: raft.Nonvoter})
		}
		return list
	}
	for _, c := range []struct {
		connected, connecting string // nodes of the State, one letter each
		voters, standbys      string // servers of Raft
		want                  change
		node                  string
	}{
		{"a", "", "a", "", changeNone, ""},
		{"a", "b", "a", "", changeAdd, "b"},
		{"a", "b", "a", "b", changeNone, ""}, // a dead joiner must not count for the quorum
		{"ab", "", "a", "b", changePromote, "b"},
		{"ab", "c", "ab", "c", changeNone, ""},
		{"abc", "", "ab", "c", changePromote, "c"},
		{"abcd", "", "abc", "d", changeNone, ""}, // a fourth vote is worth nothing
		{"abcde", "", "abc", "de", changePromote, "d"},
		{"abcde", "", "abcd", "e", changePromote, "e"},
		{"abcdef", "", "abcde", "f", changeNone, ""},
		{"abcdef", "g", "abcde", "f", changeAdd, "g"},
		{"abcd", "", "abcx", "d", changeRemove, "x"},
		{"abcd", "", "abc", "dx", changeRemove, "x"},
		{"abd", "", "ab", "d", changePromote, "d"}, // a standby takes the vote of one who left
		{"bcd", "", "abc", "d", changeHandOver, "a"},
		{"bcd", "", "a", "bcd", changePromote, "b"}, // nobody to hand over to yet
		{"ac", "b", "ab", "c", changeNone, ""},      // a vote is not taken from a member that is away
	} {
		t.Run(fmt.Sprintf("%s+%s on %s+%s", c.connected, c.connecting, c.voters, c.standbys), func(t *testing.T) {
			s := &State{Cluster: Info{ID: "c1"}, Nodes: make(map[string]Node)}
			for _, r := range c.connected {
				s.Nodes[string(r)] = Node{Name: string(r), Status: Connected}
			}
			for _, r := range c.connecting {
				s.Nodes[string(r)] = Node{Name: string(r), Status: Connecting}
			}
			got, node := nextChange(s, "a", servers(c.voters, c.standbys))
			if got != c.want || node != c.node {
				t.Errorf("got %q %q, want %q %q", got, node, c.want, c.node)
			}
			s.Cluster.ID = ""
			if got, _ := nextChange(s, "a", servers(c.voters, c.standbys)); got != changeNone {
				t.Errorf("without a cluster: %q", got)
			}
		})
	}
}

// A node that was let in and dies at once cannot take the quorum with it.
func TestJoinerDies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(1)
		w.admit("node2")
		w.start("node2", false)
		w.wait("node2 replicates", func() bool { return len(w.nodes["node1"].Status().Standbys) == 1 })
		w.kill("node2")
		time.Sleep(30 * time.Second)
		w.apply("node1", putApp("x"), anna)
		w.join("node2")
		w.wait("node2 has a vote", func() bool { return len(w.nodes["node1"].Status().Voters) == 2 })
		w.check()
	})
}

func TestFiveVotersAndStandby(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(6)
		status := w.leader().Status()
		if len(status.Voters) != maxVoters || !slices.Equal(status.Standbys, []string{"node6"}) {
			t.Errorf("voters %v, standbys %v", status.Voters, status.Standbys)
		}
		w.apply("node6", putApp("through-a-standby"), anna)
		w.kill("node2")
		w.kill("node3")
		w.apply("node6", putApp("three-of-five"), anna)
		w.apply("node6", &RemoveNode{Node: "node2"}, anna)
		w.wait("the standby has a vote", func() bool {
			voters := w.nodes["node6"].Status().Voters
			return slices.Contains(voters, "node6") && !slices.Contains(voters, "node2")
		})
		w.start("node3", false)
		w.check()
	})
}

// A leader that is removed hands over, and its successor takes it out.
func TestRemoveLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		old := w.leader()
		w.apply(w.follower().name, &RemoveNode{Node: old.name}, anna)
		w.wait("another node leads without it", func() bool {
			for _, m := range w.nodes {
				if s := m.Status(); m != old && s.Role == "leader" && len(s.Voters) == 2 && !slices.Contains(s.Voters, old.name) {
					return true
				}
			}
			return false
		})
		_, err := old.Apply(t.Context(), putApp("x"), anna)
		if e := asError(err); e.Code != Denied && e.Code != NoLeader {
			t.Errorf("the node that was removed can still write: %v", err)
		}
		w.stop(old.name)
		w.check()
	})
}

// A leader that was lost between admitting a node and adding it to Raft is made good for by the next.
func TestMembershipHeals(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(3)
		old := w.leader()
		w.admit("node4")
		w.kill(old.name)
		w.start(old.name, false)
		w.join("node4")
		w.wait("node4 is a standby", func() bool { return slices.Equal(w.leader().Status().Standbys, []string{"node4"}) })
		w.check()
	})
}

// A new leader does not go by a State that is older than its log.
func TestNewLeaderCatchesUpFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(1)
		m := w.nodes["node1"]
		old := m.State() // without node2
		w.admit("node2")
		w.join("node2")
		w.wait("node2 has a vote", func() bool { return len(m.Status().Voters) == 2 })
		var ready uint64
		if again, err := m.stepMembers(m.part.Load(), old, &ready); err != nil || !again {
			t.Errorf("%v, %v", again, err)
		}
		if got := m.Status().Voters; len(got) != 2 {
			t.Errorf("voters are %v", got)
		}
		w.check()
	})
}
