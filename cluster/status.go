package cluster

import (
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is how this node's part in the cluster is doing. It is this node's own view.
type Status struct {
	Node        string    // "" before Start
	Role        string    // "leader", "follower", "candidate", "shutdown"; "" before Start
	Leader      string    // name of the leader, "" when none is known
	Quorum      bool      // whether commands can be carried out now, as far as this node knows
	Term        uint64    // Raft term
	Applied     uint64    // log index that State includes
	LastContact time.Time // when this follower last heard from the leader; zero: never
	Voters      []string  // nodes with a vote, in order
	Standbys    []string  // nodes that replicate without a vote, in order
}

// Status describes this node's part in the cluster. It does not block.
func (c *Cluster) Status() Status {
	status := Status{Applied: c.State().Index}
	p := c.part.Load()
	if p == nil {
		return status
	}
	status.Node = p.Node
	status.Role = strings.ToLower(p.raft.State().String())
	status.Leader = p.leader()
	status.Quorum = status.Leader != "" // a leader without quorum steps down, and followers then forget it
	status.Term = p.raft.CurrentTerm()
	status.LastContact = p.raft.LastContact()
	status.Voters = p.named(raft.Voter)
	status.Standbys = p.named(raft.Nonvoter)
	return status
}

// leader is the name of the leader, or "".
func (p *part) leader() string {
	_, id := p.raft.LeaderWithID()
	return string(id)
}

// noLeader says for people why nothing can be changed.
func (p *part) noLeader() *Error {
	voters := p.named(raft.Voter)
	if len(voters) == 0 {
		return errorf(NoLeader, "not done: this node has not been reached by the cluster yet; check that the other nodes are up and can reach it")
	}
	return errorf(NoLeader, "not done: no leader answers; %d of the nodes %s must be up and reach one another before anything can be changed (everything can still be read)",
		len(voters)/2+1, strings.Join(voters, ", "))
}
