package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The Raft configuration follows the State: an admitted node becomes a server without a vote, a connected
// one gets a vote (up to maxVoters), a removed one goes. So nobody calls AddVoter by hand, a crash between
// the two steps heals itself, and a joiner that dies early cannot take the quorum with it.

// memberRetry is how long the leader waits after a membership change that failed.
const memberRetry = time.Second

// keepMembers runs on every node and works on the leader.
func (c *Cluster) keepMembers(p *part) {
	var ready uint64 // term in which this leader has applied all that came before
	for {
		moved := c.moved.wait()
		s, changed := c.Watch()
		var retry <-chan time.Time
		if p.raft.State() == raft.Leader {
			again, err := c.stepMembers(p, s, &ready)
			if err != nil {
				c.log.Warn("the membership cannot be changed now", "error", err)
				retry = time.After(memberRetry)
			} else if again {
				continue
			}
		}
		select {
		case <-moved:
		case <-changed:
		case <-retry:
		case <-c.closed:
			return
		}
	}
}

// stepMembers makes one change, if one is due, and tells whether it did. A new leader first lets its State
// catch up with its log: an older State would have it remove servers that were added since.
func (c *Cluster) stepMembers(p *part, s *State, ready *uint64) (bool, error) {
	if term := p.raft.CurrentTerm(); *ready != term {
		if err := p.raft.Barrier(proposeTimeout).Error(); err != nil {
			return false, err
		}
		*ready = term
		return true, nil
	}
	servers, err := p.servers()
	if err != nil {
		return false, err
	}
	due, node := nextChange(s, p.Node, servers)
	if due == changeNone {
		return false, nil
	}
	c.log.Info("membership", "change", due, "member", node)
	id := raft.ServerID(node)
	var future raft.Future
	switch due {
	case changeAdd:
		future = p.raft.AddNonvoter(id, raft.ServerAddress(node), 0, proposeTimeout)
	case changePromote:
		future = p.raft.AddVoter(id, raft.ServerAddress(node), 0, proposeTimeout)
	case changeRemove:
		future = p.raft.RemoveServer(id, 0, proposeTimeout)
	case changeHandOver:
		future = p.raft.LeadershipTransfer()
	}
	return true, future.Error()
}

// change is one step from the servers that Raft has to those that the State wants.
type change string

const (
	changeNone     change = ""
	changeAdd      change = "add"
	changePromote  change = "give a vote"
	changeRemove   change = "remove"
	changeHandOver change = "hand over the lead"
)

// nextChange says what is due, for the leader called self. Votes are only given, never taken from a member:
// a full even number of voters is no worse than one less.
func nextChange(s *State, self string, servers []raft.Server) (change, string) {
	if s.Cluster.ID == "" {
		return changeNone, "" // CreateCluster has not come yet
	}
	voters := 0
	known := make(map[string]raft.ServerSuffrage)
	for _, server := range servers {
		name := string(server.ID)
		known[name] = server.Suffrage
		if server.Suffrage == raft.Voter {
			voters++
		}
		if _, member := s.Nodes[name]; !member && name != self {
			return changeRemove, name
		}
	}
	if _, member := s.Nodes[self]; !member && voters > 1 {
		return changeHandOver, self
	}
	connected := 0
	for _, name := range sorted(s.Nodes) {
		if _, ok := known[name]; !ok {
			return changeAdd, name
		}
		if s.Nodes[name].Status == Connected {
			connected++
		}
	}
	if voters >= wantVoters(connected) {
		return changeNone, ""
	}
	for _, name := range sorted(s.Nodes) {
		if known[name] != raft.Voter && s.Nodes[name].Status == Connected {
			return changePromote, name
		}
	}
	return changeNone, ""
}

// wantVoters is how many of the connected nodes vote: 1, 2, 3 or 5. A fourth vote would make the quorum
// larger and nothing safer; a second one at least keeps a second copy of everything.
func wantVoters(connected int) int {
	switch {
	case connected >= maxVoters:
		return maxVoters
	case connected >= 3:
		return 3
	}
	return connected
}

// watchLeader turns Raft's news of a leader into the signal that others wait for.
func (c *Cluster) watchLeader(p *part) {
	news := make(chan raft.Observation, 1) // full is fine: one wake-up makes everybody look again
	observer := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	})
	p.raft.RegisterObserver(observer)
	defer p.raft.DeregisterObserver(observer)
	for {
		c.moved.fire()
		select {
		case <-news:
		case <-c.closed:
			return
		}
	}
}

// servers returns Raft's latest configuration.
func (p *part) servers() ([]raft.Server, error) {
	future := p.raft.GetConfiguration()
	if err := future.Error(); err != nil {
		return nil, err
	}
	return future.Configuration().Servers, nil
}

// named returns the names of the servers with this suffrage, in order.
func (p *part) named(suffrage raft.ServerSuffrage) []string {
	servers, err := p.servers()
	if err != nil {
		return nil // Raft 1.7.3 does not fail here
	}
	var names []string
	for _, server := range servers {
		if server.Suffrage == suffrage {
			names = append(names, string(server.ID))
		}
	}
	slices.Sort(names)
	return names
}
