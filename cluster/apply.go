package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

// Request is a command on its way to the leader.
type Request struct {
	Kind  string          `json:"kind"`
	Actor Actor           `json:"actor"`
	Data  json.RawMessage `json:"data"` // the command
}

// Answer is what the leader says to a Request. Index is that of the log entry, also when the command was
// refused in it; 0 when there is none.
type Answer struct {
	Index uint64 `json:"index,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// Forwarder takes a request to another node.
type Forwarder interface {
	// Forward has node answer r. It fails with NoLeader only when r surely did not arrive, and with
	// Uncertain when that is not known. The error in the Answer is not an error of Forward.
	Forward(ctx context.Context, node string, r Request) (Answer, error)
}

// proposeTimeout bounds how long the leader keeps a proposal waiting before it takes it, and how long a
// forwarded one may take in all. applyTimeout bounds Apply, for a caller without a deadline.
const (
	proposeTimeout = 10 * time.Second
	applyTimeout   = 20 * time.Second
)

// retryPause is how long Apply waits before it asks for the leader again, when nobody told it of a new one.
const retryPause = 100 * time.Millisecond

// Apply has the cluster carry out cmd in the name of actor, and returns the index of its log entry. It
// goes through the leader, wherever that is, and returns once this node's State includes the result.
//
// The error is an *Error. Denied, NotFound, Conflict, Expired, Full: refused, nothing changed. Invalid,
// Upgrade: not proposed. NeedsApproval: not done, and other people are asked to approve it. NoLeader: not done. Uncertain: may or may not be done; look before repeating it.
// Behind: done, not seen here yet.
func (c *Cluster) Apply(ctx context.Context, cmd Command, actor Actor) (uint64, error) {
	if err := check(actor.validate(), cmd.validate()); err != nil {
		return 0, asError(err)
	}
	data, err := json.Marshal(cmd)
	if err != nil {
		return 0, errorf(Invalid, "%s cannot be encoded: %v", cmd.Kind(), err)
	}
	p := c.part.Load()
	if p == nil {
		return 0, errorf(NoLeader, "this node is not part of a cluster yet")
	}
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	answer := c.ask(ctx, p, Request{Kind: cmd.Kind(), Actor: actor, Data: data})
	if answer.Index == 0 && answer.Error == nil {
		answer.Error = errorf(Internal, "the leader's answer is empty")
	}
	if err := c.waitIndex(ctx, answer.Index); err != nil && answer.Error == nil {
		return answer.Index, err
	}
	if answer.Error != nil && answer.Error.Code == NeedsApproval {
		return answer.Index, c.request(ctx, cmd, actor, answer.Error)
	}
	if answer.Error != nil {
		return answer.Index, answer.Error // not answer.Error alone: a nil *Error is not a nil error
	}
	return answer.Index, nil
}

// Ask tells whether cmd could go on now as far as policies say. Where it could not, people are asked to
// approve it, and the error is the one of Apply. It is for acts that begin later, in a job: what counts is
// decided again when they do.
func (c *Cluster) Ask(ctx context.Context, cmd Command, actor Actor) error {
	p := c.part.Load()
	if p == nil {
		return errorf(NoLeader, "this node is not part of a cluster yet")
	}
	s := *c.State()
	err := s.passPolicies(cmd, Meta{Time: time.Now(), Node: p.Node, Actor: actor})
	if err == nil {
		return nil
	}
	if e := asError(err); e.Code == NeedsApproval {
		return c.request(ctx, cmd, actor, e)
	}
	return err
}

// request asks people to approve what was refused for want of that, unless they are asked already. The
// error is what whoever wanted it is told.
func (c *Cluster) request(ctx context.Context, cmd Command, actor Actor, refused *Error) *Error {
	if refused.Approval == "" {
		data, err := json.Marshal(cmd)
		if err != nil {
			return errorf(Invalid, "%s cannot be encoded: %v", cmd.Kind(), err)
		}
		id := NewID()
		if _, err := c.Apply(ctx, &RequestApproval{ID: id, Command: cmd.Kind(), Data: data}, actor); err != nil {
			e := asError(err)
			return errorf(e.Code, "%s, and that could not be requested: %s", refused.Message, e.Message)
		}
		refused.Approval = id
	}
	a := c.State().Approvals[refused.Approval]
	refused.Message += "; it was requested as " + refused.Approval + ", which is good until " + a.Expires.UTC().Format("2006-01-02 15:04 UTC")
	if a.Repeats() {
		refused.Message += ". Once it is approved, do the same again"
	}
	return refused
}

// ask finds a leader and has it answer. Where the request surely was not taken, it tries again until
// LeaderWait is over.
func (c *Cluster) ask(ctx context.Context, p *part, r Request) Answer {
	patience, cancel := context.WithTimeout(ctx, c.cfg.LeaderWait)
	defer cancel()
	for {
		moved := c.moved.wait()
		answer := Answer{Error: errorf(NoLeader, "nobody leads")}
		switch leader := p.leader(); leader {
		case "":
		case p.Node:
			answer = c.propose(ctx, p, r, p.Node)
		default:
			var err error
			if answer, err = p.Forward.Forward(ctx, leader, r); err != nil {
				answer = Answer{Error: asError(err)}
			}
		}
		if answer.Error == nil || answer.Error.Code != NoLeader {
			return answer
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-moved:
		case <-pause.C:
		case <-c.closed:
			return Answer{Error: errorf(NoLeader, "this node is shutting down")}
		case <-patience.Done():
			c.log.Warn("no leader", "kind", r.Kind, "error", answer.Error)
			return Answer{Error: p.noLeader()}
		}
		pause.Stop()
	}
}

// answer proposes what the node called from forwarded. from comes from its TLS identity.
func (c *Cluster) answer(ctx context.Context, from string, r Request) Answer {
	p := c.part.Load()
	if p == nil {
		return Answer{Error: errorf(NoLeader, "the node that was asked is not part of a cluster yet")}
	}
	return c.propose(ctx, p, r, from)
}

// propose checks a request, gives it to Raft and waits for the result. Only the leader succeeds.
func (c *Cluster) propose(ctx context.Context, p *part, r Request, from string) Answer {
	cmd, err := decodeCommand(r.Kind, r.Data)
	if err != nil {
		return Answer{Error: asError(err)}
	}
	if err := check(r.Actor.validate(), cmd.validate(), c.State().follows(cmd)); err != nil {
		return Answer{Error: asError(err)}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	entry, err := encodeEntry(cmd, Meta{Time: now, Node: from, Actor: r.Actor})
	if err != nil {
		return Answer{Error: asError(err)}
	}
	done := make(chan Answer, 1)
	go func() { // a future cannot be canceled; losing the lead ends it
		future := p.raft.Apply(entry, proposeTimeout)
		done <- raftAnswer(future, future.Error())
	}()
	select {
	case answer := <-done:
		return answer
	case <-ctx.Done():
		return Answer{Error: errorf(Uncertain, "%s took too long: it may still be done; look before you repeat it", r.Kind)}
	}
}

// follows refuses a command that some member's program would not understand.
func (s *State) follows(cmd Command) error {
	need := protocol(cmd)
	for _, name := range sorted(s.Nodes) {
		if n := s.Nodes[name]; n.Protocol < need {
			return errorf(Upgrade, "%s needs protocol %d, and node %q speaks %d (version %s): upgrade it first", cmd.Kind(), need, name, n.Protocol, n.Version)
		}
	}
	return nil
}

// raftAnswer tells what became of a proposal: refused or done, surely not done, or nobody knows.
func raftAnswer(future raft.ApplyFuture, err error) Answer {
	switch {
	case err == nil:
		refused, _ := future.Response().(*Error)
		return Answer{Index: future.Index(), Error: refused}
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrRaftShutdown) && future.Index() == 0:
		return Answer{Error: errorf(NoLeader, "not taken: %v", err)}
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
		return Answer{Error: errorf(Uncertain, "the leader was lost in the middle of it: the change may or may not be done; look before you repeat it")}
	}
	return Answer{Error: errorf(Uncertain, "the leader could not write it: %v; the change may or may not be done", err)}
}
