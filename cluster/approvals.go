package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Approval is one exact act that waits for people who approve it, or that has ended.
type Approval struct {
	ID      string          `json:"id"`
	Hash    string          `json:"hash"` // of everything that the act is: see actHash
	Kind    string          `json:"kind"` // of the command
	Act     string          `json:"act"`  // what the policy is about
	Object  string          `json:"object"`
	Detail  string          `json:"detail,omitempty"`
	Slot    string          `json:"slot,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"` // the command, to be carried out; none for an act on an HSM, which its requester repeats
	Node    string          `json:"node"`           // where the requester works
	Asker   Actor           `json:"asker"`
	Since   time.Time       `json:"since,omitzero"` // when the account of the asker was made: another of that name is another person
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires"`
	Votes   []Vote          `json:"votes,omitempty"`
	State   ApprovalState   `json:"state"`
	Ended   time.Time       `json:"ended,omitzero"`
	Result  string          `json:"result,omitempty"` // how it ended, for people
}

// Vote is one person's approval.
type Vote struct {
	Account string    `json:"account"`
	Since   time.Time `json:"since"` // when the account was made
	Node    string    `json:"node"`  // where the person was logged in
	Time    time.Time `json:"time"`
}

// ApprovalState is how far an approval has come.
type ApprovalState string

// States of an approval. One that waits counts as expired after its time, without a command saying so.
const (
	ApprovalWaiting   ApprovalState = "waiting"
	ApprovalUsed      ApprovalState = "used"   // the act was done, or begun: it cannot be again
	ApprovalFailed    ApprovalState = "failed" // approved, and then not possible
	ApprovalRejected  ApprovalState = "rejected"
	ApprovalWithdrawn ApprovalState = "withdrawn"
	ApprovalExpired   ApprovalState = "expired"
)

// StateAt is the state at an instant.
func (a Approval) StateAt(now time.Time) ApprovalState {
	if a.State == ApprovalWaiting && !now.Before(a.Expires) {
		return ApprovalExpired
	}
	return a.State
}

// Repeats tells whether the requester has to do the act again once it is approved.
func (a Approval) Repeats() bool { return a.Kind == kindBeginAct }

const kindBeginAct = "act.begin"

// sameAsker tells whether m acts for whoever asked. At a console that is the node: names there are chosen
// by whoever is root.
func (s *State) sameAsker(a Approval, actor Actor, node string) bool {
	if a.Asker.Kind != actor.Kind {
		return false
	}
	if actor.Kind == ByConsole {
		return a.Node == node
	}
	return a.Asker.Name == actor.Name && s.Accounts[actor.Name].Created.Equal(a.Since)
}

// actHash is the SHA-256 of everything that an act is: the cluster, the command with all its fields, and
// who asks where. BeginAct counts without its ID, which is made anew each time.
func (s *State) actHash(cmd Command, actor Actor, node string) (hash string, data []byte, err error) {
	if act, ok := cmd.(*BeginAct); ok {
		plain := *act
		plain.ID = ""
		cmd = &plain
	}
	if data, err = json.Marshal(cmd); err != nil {
		return "", nil, errorf(Invalid, "%s cannot be encoded: %v", cmd.Kind(), err)
	}
	if actor.Kind == ByConsole {
		actor.Name = ""
	}
	all, err := json.Marshal([]any{"keyferry-approval-1", s.Cluster.ID, cmd.Kind(), node, actor, slotOf(cmd), json.RawMessage(data)})
	if err != nil {
		return "", nil, errorf(Invalid, "%s cannot be encoded: %v", cmd.Kind(), err)
	}
	sum := sha256.Sum256(all)
	return hex.EncodeToString(sum[:]), data, nil
}

// waiting finds the approval of exactly this act that is still good.
func (s *State) waiting(hash string, m Meta) (Approval, bool) {
	for _, id := range sorted(s.Approvals) {
		a := s.Approvals[id]
		if a.Hash == hash && a.StateAt(m.Time) == ApprovalWaiting && s.sameAsker(a, m.Actor, m.Node) {
			return a, true
		}
	}
	return Approval{}, false
}

// counts tells whether the vote of an account counts now for an approval, under a policy with this role:
// the person still has the account, may use it, has the role, and did not ask.
func (s *State) counts(v Vote, a Approval, role string) bool {
	account, ok := s.Accounts[v.Account]
	return ok && account.Created.Equal(v.Since) && s.eligible(account, a, role)
}

// eligible tells whether somebody may decide about an approval.
func (s *State) eligible(account Account, a Approval, role string) bool {
	if account.Disabled || account.MustChange || a.Asker == (Actor{ByAccount, account.Name}) {
		return false
	}
	return slices.ContainsFunc(account.Roles, func(r RoleGrant) bool {
		return r.Role == role && (len(r.Slots) == 0 || a.Slot != "" && slices.Contains(r.Slots, a.Slot))
	})
}

// needs is how many approvals a policy asks for. Whoever asks at a console may have an account as well, and
// approve with it, so that takes one more.
func (a Approval) needs(p Policy) int {
	n := max(p.Needs, 1)
	if a.Asker.Kind == ByConsole {
		n++
	}
	return n
}

// missing is how many votes an approval lacks under the policies as they are now. Where there is no policy,
// or one that asks for nobody, votes are not enough, however many.
func (s *State) missing(a Approval, rules []Policy) int {
	most := 0
	for _, p := range rules {
		voted := map[string]bool{}
		for _, v := range a.Votes {
			if s.counts(v, a, p.Role) {
				voted[v.Account] = true
			}
		}
		most = max(most, a.needs(p)-len(voted))
		if p.Needs < 1 {
			most = max(most, 1)
		}
	}
	if len(rules) == 0 {
		return 1
	}
	return most
}

// passPolicies lets a command go on that no policy is about, or that has been approved exactly as it is;
// then the approval is used up. What a node does by itself follows from what people decided under policies.
func (s *State) passPolicies(cmd Command, m Meta) error {
	rules := s.policiesOn(cmd, m.Actor)
	if len(rules) == 0 || m.Actor.Kind == ByNode {
		return nil
	}
	hash, _, err := s.actHash(cmd, m.Actor, m.Node)
	if err != nil {
		return err
	}
	a, asked := s.waiting(hash, m)
	if !asked {
		a = Approval{Asker: m.Actor, Node: m.Node, Slot: slotOf(cmd)}
	}
	if n := s.missing(a, rules); n > 0 {
		e := errorf(NeedsApproval, "this needs the approval of %s", approvers(n, rules))
		e.Approval = a.ID
		return e
	}
	s.endApproval(a, m, ApprovalUsed, "done by "+m.Actor.String())
	return nil
}

// approvers is who has to approve, in words.
func approvers(n int, rules []Policy) string {
	var roles []string
	for _, p := range rules {
		if !slices.Contains(roles, p.Role) {
			roles = append(roles, p.Role)
		}
	}
	return people(n) + " with the role " + strings.Join(roles, " and ")
}

func (s *State) endApproval(a Approval, m Meta, state ApprovalState, result string) {
	a.State, a.Ended, a.Result = state, m.Time, clipTo(result, maxText)
	s.Approvals = with(s.Approvals, a.ID, a)
}

// needs is what the actor of a command needs, where that depends on the command.
type needs interface{ needs() Permission }

// RequestApproval asks people to approve a command that a policy is about. It takes the same permission as
// the command.
type RequestApproval struct {
	ID      string          `json:"id"`   // NewID
	Command string          `json:"kind"` // of the command
	Data    json.RawMessage `json:"data"` // the command
}

func (c *RequestApproval) Kind() string { return "approval.request" }

// command decodes what is asked for. Its shape was checked before the request was proposed.
func (c *RequestApproval) command() (Command, error) {
	k, ok := kinds[c.Command]
	if !ok {
		return nil, errorf(Invalid, "there is no command %q", clip(c.Command))
	}
	cmd := k.make()
	if err := unmarshal(c.Data, cmd); err != nil {
		return nil, errorf(Invalid, "%s cannot be read: %v", c.Command, err)
	}
	return cmd, nil
}

func (c *RequestApproval) needs() Permission {
	cmd, err := c.command()
	if err != nil {
		return "" // a permission that nobody has
	}
	return permission(cmd)
}

func (c *RequestApproval) slot() string {
	cmd, err := c.command()
	if err != nil {
		return ""
	}
	return slotOf(cmd)
}

func (c *RequestApproval) describe() (string, string) {
	cmd, err := c.command()
	if err != nil {
		return "approval/" + c.ID, ""
	}
	object, detail := cmd.describe()
	return "approval/" + c.ID, clipTo(strings.TrimSuffix(actName(cmd)+" "+object+": "+detail, ": "), maxText)
}

func (c *RequestApproval) validate() error {
	if len(c.Data) > maxApprovalData {
		return errorf(Invalid, "an act of %d bytes is too large to wait for approval: at most %d are allowed", len(c.Data), maxApprovalData)
	}
	cmd, err := c.command()
	if err != nil {
		return err
	}
	return check(checkToken("approval id", c.ID), checkPolicyAct(policyAct(cmd)), cmd.validate())
}

func (c *RequestApproval) apply(s *State, m Meta) error {
	cmd, err := c.command()
	if err != nil {
		return err
	}
	if err := s.authorize(cmd, m); err != nil {
		return err
	}
	if len(s.policiesOn(cmd, m.Actor)) == 0 {
		return errorf(Conflict, "no policy asks for an approval of this: it can be done without")
	}
	hash, data, err := s.actHash(cmd, m.Actor, m.Node)
	if err != nil {
		return err
	}
	if a, asked := s.waiting(hash, m); asked {
		return errorf(Conflict, "this was requested already, as approval %s", a.ID)
	}
	if _, ok := s.Approvals[c.ID]; ok {
		return errorf(Conflict, "there is an approval %q already", c.ID)
	}
	s.replaceRequests(cmd, c.ID, m)
	if err := s.roomForApproval(m); err != nil {
		return err
	}
	object, detail := cmd.describe()
	a := Approval{ID: c.ID, Hash: hash, Kind: c.Command, Act: actName(cmd), Object: object, Detail: detail, Slot: slotOf(cmd), Node: m.Node, Asker: m.Actor,
		Created: m.Time, Expires: m.Time.Add(approvalLife), State: ApprovalWaiting}
	if m.Actor.Kind == ByAccount {
		a.Since = s.Accounts[m.Actor.Name].Created
	}
	if c.Command != kindBeginAct {
		a.Data = data
	}
	s.Approvals = with(s.Approvals, a.ID, a)
	return nil
}

// A renewed command has random bytes in it, like the hash of a password that was just made, so the same wish
// is another command each time. Its subject is what it is about, "" where each counts by itself.
type renewed interface{ subject() string }

// replaceRequests withdraws the asker's own requests for what cmd asks for anew. Else each try would leave one
// that others could still approve, while its author has only the newest password or code.
func (s *State) replaceRequests(cmd Command, by string, m Meta) {
	r, ok := cmd.(renewed)
	if !ok || r.subject() == "" {
		return
	}
	for _, id := range sorted(s.Approvals) {
		a := s.Approvals[id]
		if a.Kind != cmd.Kind() || a.StateAt(m.Time) != ApprovalWaiting || !s.sameAsker(a, m.Actor, m.Node) {
			continue
		}
		if old, err := decodeCommand(a.Kind, a.Data); err == nil && old.(renewed).subject() == r.subject() {
			s.endApproval(a, m, ApprovalWithdrawn, "withdrawn by "+m.Actor.String()+", who asked anew with "+by)
		}
	}
}

// actName is what the trail calls a command or act; policyAct what a policy calls it.
func actName(cmd Command) string {
	if act, ok := cmd.(*BeginAct); ok {
		return act.Act
	}
	return cmd.Kind()
}

func policyAct(cmd Command) string {
	if _, ok := cmd.(*RemovePolicy); ok {
		return policySet
	}
	return actName(cmd)
}

// roomForApproval forgets the oldest approval that has ended where there are too many, and refuses one
// more of somebody whose requests fill the list.
func (s *State) roomForApproval(m Meta) error {
	mine, oldest := 0, ""
	for _, id := range sorted(s.Approvals) {
		a := s.Approvals[id]
		switch {
		case a.StateAt(m.Time) != ApprovalWaiting:
			if oldest == "" || a.Created.Before(s.Approvals[oldest].Created) {
				oldest = id
			}
		case s.sameAsker(a, m.Actor, m.Node):
			mine++
		}
	}
	if mine >= maxAsked {
		return errorf(Full, "%d of your requests wait for approval, which is the most there can be: withdraw one", mine)
	}
	if len(s.Approvals) < maxApprovals {
		return nil
	}
	if oldest == "" {
		return errorf(Full, "%d requests wait for approval, which is the most there can be", len(s.Approvals))
	}
	s.Approvals = without(s.Approvals, oldest)
	return nil
}
