package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Approvals are the acts that wait for people other than who wants them, and the policies that say so.
type Approvals struct{ m *Member }

// An ApprovalView is a request for approval as one person sees it.
type ApprovalView struct {
	ID      string                `json:"id"`
	Hash    string                `json:"hash"` // of the exact act
	Act     string                `json:"act"`
	Object  string                `json:"object"`
	Detail  string                `json:"detail,omitempty"`
	Exactly string                `json:"exactly,omitempty"` // the command as indented JSON, without password hashes
	Node    string                `json:"node"`
	Asker   cluster.Actor         `json:"asker"`
	Created time.Time             `json:"created"`
	Expires time.Time             `json:"expires"`
	State   cluster.ApprovalState `json:"state"`
	Has     int                   `json:"has"`   // approvals that count now
	Needs   int                   `json:"needs"` // 0: no policy asks for one any more
	Votes   []cluster.Vote        `json:"votes"`
	Ended   time.Time             `json:"ended,omitzero"`
	Result  string                `json:"result,omitempty"`

	Repeats   bool `json:"repeats"`    // the asker does it again once it is approved
	Mine      bool `json:"mine"`       // asked for by who looks
	Voted     bool `json:"voted"`      // approved by who looks
	MayDecide bool `json:"may_decide"` // who looks can approve or reject it now
}

// Ready tells whether an act on an HSM waits only for its asker to do it again.
func (v ApprovalView) Ready() bool {
	return v.State == cluster.ApprovalWaiting && v.Repeats && v.Needs > 0 && v.Has >= v.Needs
}

// List returns all requests that are remembered, the newest first.
func (a *Approvals) List(actor cluster.Actor) []ApprovalView {
	s, now := a.m.State(), time.Now()
	list := []ApprovalView{}
	for _, id := range slices.Sorted(maps.Keys(s.Approvals)) {
		list = append(list, viewApproval(s, s.Approvals[id], actor, a.m.Name(), now))
	}
	slices.SortStableFunc(list, func(x, y ApprovalView) int { return cmp.Or(y.Created.Compare(x.Created), strings.Compare(x.ID, y.ID)) })
	return list
}

// Get returns one request.
func (a *Approvals) Get(actor cluster.Actor, id string) (ApprovalView, error) {
	s := a.m.State()
	approval, ok := s.Approvals[id]
	if !ok {
		return ApprovalView{}, &cluster.Error{Code: cluster.NotFound, Message: "there is no request for approval \"" + line(id) + "\""}
	}
	return viewApproval(s, approval, actor, a.m.Name(), time.Now()), nil
}

func viewApproval(s *cluster.State, a cluster.Approval, actor cluster.Actor, node string, now time.Time) ApprovalView {
	v := ApprovalView{ID: a.ID, Hash: a.Hash, Act: a.Act, Object: a.Object, Detail: a.Detail, Exactly: exactly(a.Data), Node: a.Node, Asker: a.Asker,
		Created: a.Created, Expires: a.Expires, State: a.StateAt(now), Votes: a.Votes, Ended: a.Ended, Result: a.Result, Repeats: a.Repeats(),
		Mine: s.AskedBy(a, actor, node)}
	if v.Votes == nil {
		v.Votes = []cluster.Vote{}
	}
	v.Voted = actor.Kind == cluster.ByAccount && slices.ContainsFunc(a.Votes, func(vote cluster.Vote) bool { return vote.Account == actor.Name })
	v.Has, v.Needs = s.Votes(a)
	v.MayDecide = v.State == cluster.ApprovalWaiting && s.MayDecide(a, actor) == nil
	return v
}

// WaitFor counts the requests that wait for somebody's word.
func WaitFor(s *cluster.State, actor cluster.Actor, now time.Time) int {
	n := 0
	for _, a := range s.Approvals {
		if v := viewApproval(s, a, actor, "", now); v.MayDecide && !v.Voted && !v.Ready() {
			n++
		}
	}
	return n
}

// exactly shows a command to who has to approve it: all of it but the hashes of passwords.
func exactly(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return ""
	}
	if hash := fields["hash"]; bytes.HasPrefix(hash, []byte(`"$argon2`)) {
		fields["hash"] = json.RawMessage(`"of a password, not shown"`)
	}
	b, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		return ""
	}
	return string(b)
}

// Approve approves exactly the act with the hash that the person saw.
func (a *Approvals) Approve(ctx context.Context, actor cluster.Actor, id, hash string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.Approve{ID: id, Hash: hash}, actor)
	return err
}

// Reject ends a request.
func (a *Approvals) Reject(ctx context.Context, actor cluster.Actor, id, reason string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.Reject{ID: id, Reason: strings.TrimSpace(reason)}, actor)
	return err
}

// Withdraw ends a request of the actor's own.
func (a *Approvals) Withdraw(ctx context.Context, actor cluster.Actor, id string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.Withdraw{ID: id}, actor)
	return err
}

// A PolicyView is a policy, with who is there for it.
type PolicyView struct {
	cluster.Policy
	Could int `json:"could_approve"` // people, when one of those who could also asks
}

// Spare is how many of those who could approve may be away.
func (v PolicyView) Spare() int { return v.Could - v.Needs }

// Policies lists the policies by act.
func (a *Approvals) Policies() []PolicyView {
	s := a.m.State()
	list := []PolicyView{}
	for _, act := range slices.Sorted(maps.Keys(s.Policies)) {
		list = append(list, PolicyView{s.Policies[act], s.CouldApprove(s.Policies[act])})
	}
	return list
}

// SetPolicy makes a policy or changes one. replaces is the version that the actor saw, 0 where there was none,
// nil for whatever there is; the error is cluster.Changed where that is another one now.
func (a *Approvals) SetPolicy(ctx context.Context, actor cluster.Actor, act string, needs int, role string, replaces *uint64) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.SetPolicy{Act: act, Needs: needs, Role: role, Replaces: replaces}, actor)
	return err
}

// RemovePolicy ends a policy, of the version that the actor saw.
func (a *Approvals) RemovePolicy(ctx context.Context, actor cluster.Actor, act string, replaces *uint64) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.RemovePolicy{Act: act, Replaces: replaces}, actor)
	return err
}
