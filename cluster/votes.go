package cluster

import (
	"strconv"
	"strings"
)

// open finds an approval that still waits.
func (s *State) open(id string, m Meta) (Approval, error) {
	a, ok := s.Approvals[id]
	if !ok {
		return a, errorf(NotFound, "there is no approval %q", clip(id))
	}
	switch state := a.StateAt(m.Time); state {
	case ApprovalWaiting:
		return a, nil
	case ApprovalExpired:
		return a, errorf(Expired, "the request %s has expired: it has to be made again", id)
	default:
		return a, errorf(Conflict, "the request %s was %s already", id, state)
	}
}

// rules are the policies on what an approval is about, as they are now.
func (s *State) rules(a Approval) []Policy {
	if a.Repeats() {
		return s.policiesOn(&BeginAct{Act: a.Act}, a.Asker)
	}
	cmd, err := decodeCommand(a.Kind, a.Data)
	if err != nil {
		return nil
	}
	return s.policiesOn(cmd, a.Asker)
}

// mayDecide tells whether an actor may approve or reject, now and under the policies as they are.
func (s *State) mayDecide(a Approval, actor Actor) error {
	account, ok := s.Accounts[actor.Name]
	if actor.Kind != ByAccount || !ok {
		return errorf(Denied, "only people with accounts can approve")
	}
	if a.Asker == actor {
		return errorf(Denied, "%s asked for this, and so cannot approve it", actor).alerting(AlertSelfApproval)
	}
	rules := s.rules(a)
	if len(rules) == 0 {
		return errorf(Conflict, "no policy asks for an approval of this any more: %s can do it without", a.Asker)
	}
	var roles []string
	for _, p := range rules {
		if s.eligible(account, a, p.Role) {
			return nil
		}
		roles = append(roles, p.Role)
	}
	return errorf(Denied, "it takes the role %s to approve this, and %s does not have it", strings.Join(roles, " or "), actor)
}

// Votes counts the approvals that count now, and tells how many are needed.
func (s *State) Votes(a Approval) (has, needs int) {
	rules := s.rules(a)
	for _, p := range rules {
		needs = max(needs, a.needs(p))
	}
	return max(0, needs-s.missing(a, rules)), needs
}

// MayDecide tells whether an actor could approve or reject a request now: nil means yes.
func (s *State) MayDecide(a Approval, actor Actor) error { return s.mayDecide(a, actor) }

// AskedBy tells whether the actor at node is who asked for an approval.
func (s *State) AskedBy(a Approval, actor Actor, node string) bool {
	return s.sameAsker(a, actor, node)
}

// Approve is one person's word that exactly this act may be done. With the last that is needed, a command
// is carried out in the name and with the rights of who asked; an act on an HSM can then be repeated.
type Approve struct {
	ID   string `json:"id"`
	Hash string `json:"hash"` // of the act that the person saw
}

func (c *Approve) Kind() string               { return "approval.approve" }
func (c *Approve) describe() (string, string) { return "approval/" + c.ID, "hash " + c.Hash }
func (c *Approve) validate() error {
	return check(checkToken("approval id", c.ID), checkHash("hash of the act", c.Hash))
}

func (c *Approve) apply(s *State, m Meta) error {
	a, err := s.open(c.ID, m)
	if err != nil {
		return err
	}
	if a.Hash != c.Hash {
		return errorf(Conflict, "the request %s is about another act than the one that was approved: look at it again", c.ID).alerting(AlertMisuse)
	}
	if err := s.mayDecide(a, m.Actor); err != nil {
		return err
	}
	since := s.Accounts[m.Actor.Name].Created
	votes := make([]Vote, 0, len(a.Votes)+1)
	for _, v := range a.Votes {
		if v.Account == m.Actor.Name && v.Since.Equal(since) {
			return errorf(Conflict, "%s has approved this already", m.Actor)
		}
		if v.Account != m.Actor.Name { // an earlier account of this name is gone
			votes = append(votes, v)
		}
	}
	if len(votes) >= maxVotes {
		return errorf(Full, "%d people have approved this, which is the most there can be", len(votes))
	}
	a.Votes = append(votes, Vote{Account: m.Actor.Name, Since: since, Node: m.Node, Time: m.Time})
	s.Approvals = with(s.Approvals, a.ID, a)
	return nil
}

// after carries out what the last vote allows. It cannot fail: what is not possible any more ends the
// approval and nothing else.
func (c *Approve) after(s *State, m Meta) {
	a := s.Approvals[c.ID]
	if a.Repeats() || s.missing(a, s.rules(a)) > 0 {
		return
	}
	cmd, err := decodeCommand(a.Kind, a.Data)
	if err != nil {
		s.endApproval(a, m, ApprovalFailed, err.Error())
		return
	}
	m = Meta{Time: m.Time, Node: a.Node, Actor: a.Asker}
	object, detail := cmd.describe()
	trial := *s
	if err := s.carryOut(&trial, a, cmd, m); err != nil {
		s.endApproval(a, m, ApprovalFailed, err.Error())
		s.record(m, Entry{Act: cmd.Kind(), Object: object, Result: Refused, Detail: clipTo("approved as "+a.ID+", and not done: "+err.Error(), maxText)})
		return
	}
	*s = trial
	s.endApproval(a, m, ApprovalUsed, "done with the last approval")
	s.record(m, Entry{Act: cmd.Kind(), Object: object, Result: Done, Detail: clipTo(strings.TrimPrefix(detail+", approved as "+a.ID, ", "), maxText)})
}

// carryOut applies an approved command with the rights that its requester has now.
func (s *State) carryOut(trial *State, a Approval, cmd Command, m Meta) error {
	if !s.sameAsker(a, m.Actor, m.Node) {
		return errorf(Denied, "the account of %s is not the one that asked", m.Actor)
	}
	if err := s.authorize(cmd, m); err != nil {
		return err
	}
	return cmd.apply(trial, m)
}

// Reject ends a request. It takes one person who could have approved it.
type Reject struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"`
}

func (c *Reject) Kind() string               { return "approval.reject" }
func (c *Reject) describe() (string, string) { return "approval/" + c.ID, c.Reason }
func (c *Reject) validate() error {
	return check(checkToken("approval id", c.ID), checkText("reason", c.Reason, maxReason))
}

func (c *Reject) apply(s *State, m Meta) error {
	a, err := s.open(c.ID, m)
	if err != nil {
		return err
	}
	if err := s.mayDecide(a, m.Actor); err != nil {
		return err
	}
	why := "rejected by " + m.Actor.String()
	if c.Reason != "" {
		why += ": " + c.Reason
	}
	s.endApproval(a, m, ApprovalRejected, why)
	return nil
}

// Withdraw ends a request of one's own.
type Withdraw struct {
	ID string `json:"id"`
}

func (c *Withdraw) Kind() string               { return "approval.withdraw" }
func (c *Withdraw) describe() (string, string) { return "approval/" + c.ID, "" }
func (c *Withdraw) validate() error            { return checkToken("approval id", c.ID) }

func (c *Withdraw) apply(s *State, m Meta) error {
	a, err := s.open(c.ID, m)
	if err != nil {
		return err
	}
	if !s.sameAsker(a, m.Actor, m.Node) {
		return errorf(Denied, "only %s can withdraw this request", a.Asker)
	}
	s.endApproval(a, m, ApprovalWithdrawn, "withdrawn by "+m.Actor.String()+" after "+plural(len(a.Votes), "approval"))
	return nil
}

// people is a number of them in words.
func people(n int) string {
	if n == 1 {
		return "1 person"
	}
	return strconv.Itoa(n) + " people"
}
