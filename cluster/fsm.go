package cluster

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// fsm is a Cluster as Raft sees it. Raft calls Apply, Snapshot and Restore from one goroutine.
type fsm Cluster

// Apply makes the next State. It returns the *Error of a refused command, or nil.
func (f *fsm) Apply(l *raft.Log) any {
	c := (*Cluster)(f)
	before := c.State()
	refused, broken := c.apply(l)
	if broken != nil {
		// Going on without the entry would make this replica differ from the others for good.
		panic(fmt.Sprintf("cluster: log entry %d: %v", l.Index, broken))
	}
	// What is worth a line of the audit trail is worth a flush.
	flush := lastSeq(c.State()) != lastSeq(before) && !c.cfg.noSync
	if err := c.mark.write(l.Index, l.Term, flush); err != nil {
		c.log.Warn("after a restart this node may know less than now, until it finds a leader", "error", err)
	}
	if refused != nil {
		return refused
	}
	return nil
}

func lastSeq(s *State) uint64 {
	if n := len(s.Audit); n > 0 {
		return s.Audit[n-1].Seq
	}
	return 0
}

// Snapshot captures a pointer: a State does not change.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return snapshot{(*Cluster)(f).State()}, nil
}

// Restore replaces the State with that of a snapshot from the leader.
func (f *fsm) Restore(from io.ReadCloser) error {
	defer from.Close()
	s, err := decodeState(from)
	if err != nil {
		return err
	}
	(*Cluster)(f).publish(s)
	return nil
}

// snapshot is a State that is to be written.
type snapshot struct{ state *State }

// Persist writes the state and closes or cancels the sink.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.encode(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}
