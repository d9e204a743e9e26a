package cluster

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// fsm is a Cluster as Raft sees it. Raft calls ApplyBatch, Snapshot and Restore from one goroutine.
type fsm Cluster

var _ raft.BatchingFSM = (*fsm)(nil)

// Apply implements raft.FSM; Raft calls ApplyBatch instead.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch makes the State after several entries. Its answers are the *Error of a refused command, or
// nil. The mark is moved once for all of them: after the log itself, flushing it is what an entry costs most.
func (f *fsm) ApplyBatch(batch []*raft.Log) []any {
	c := (*Cluster)(f)
	before := c.State()
	answers := make([]any, len(batch))
	for i, l := range batch {
		if l.Type != raft.LogCommand {
			continue
		}
		refused, broken := c.apply(l)
		if broken != nil {
			// Going on without the entry would make this replica differ from the others for good.
			panic(fmt.Sprintf("cluster: log entry %d: %v", l.Index, broken))
		}
		if refused != nil {
			answers[i] = refused
		}
	}
	last := batch[len(batch)-1]
	// What is worth a line of the audit trail is worth a flush.
	flush := lastSeq(c.State()) != lastSeq(before) && !c.cfg.noSync
	if err := c.mark.write(last.Index, last.Term, flush); err != nil {
		c.log.Warn("after a restart this node may know less than now, until it finds a leader", "error", err)
	}
	return answers
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
