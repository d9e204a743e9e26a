package cluster

import (
	"slices"
	"time"
)

// Policy says how many people have to approve an act of one kind before it is done.
type Policy struct {
	Act   string    `json:"act"`   // one of PolicyActs
	Needs int       `json:"needs"` // people other than who asks; at least 1
	Role  string    `json:"role"`  // that each of them must have
	Set   time.Time `json:"set"`
	By    string    `json:"by"`

	Version uint64 `json:"version"` // see replacing
}

// PolicyAct is a kind of act that a policy can be about. For a command the name is its kind, for an act on
// an HSM the one that BeginAct gives.
type PolicyAct struct {
	Act, Words string
	later      bool // nothing in the product does it yet, so people are not offered it
}

// policyActs is the table of them, in the order in which people read it. What is not here is done without
// approval, so that opening a slot, and the way out of a disorder, never wait for somebody.
var policyActs = []PolicyAct{
	{"sync.build", "Make a package with keys", false},
	{"key.destroy", "Destroy a key", true},
	{slotSetMode, "Switch who holds the code of a slot", false},
	{"slot.change-code", "Change the code of a slot", false},
	{"slot.rotate", "Replace the generated code of a slot by hand", false},
	{"slot.rotation", "Change how often a slot's code is replaced", false},
	{"node.protect", "Change what protects the codes that a node keeps", false},
	{"seat.remove", "Forget a node's token in a slot", true},
	{"custody.put", "Say which people hold the parts of a slot's code", false},
	{"custody.request", "Ask custodians to let others take their place, or to leave shared mode", false},
	{"custody.remove", "Forget the parts of a slot's code", false},
	{"trust.set", "Change which node takes packages from which", true},
	{"invite.add", "Invite a node", false},
	{"node.remove", "Remove a node", false},
	{"node.identity", "Replace the identity of a node", true},
	{"owner.replace", "Replace the owner of the cluster", true},
	{"account.put", "Make an account, change its roles, disable it", false},
	{"account.reset", "Set a temporary password", false},
	{"account.remove", "Remove an account", false},
	{"factor.certificate", "Let a certificate log in to an account", false},
	{"app.put", "Add or change an application", false},
	{"app.remove", "Remove an application", false},
	{policySet, "Change or remove a policy", false},
}

const (
	policySet   = "policy.set" // also for removing one
	slotSetMode = "slot.set-mode"
)

// PolicyActs lists the kinds of acts that people can make a policy about.
func PolicyActs() []PolicyAct {
	return slices.DeleteFunc(slices.Clone(policyActs), func(p PolicyAct) bool { return p.later })
}

// maxNeeds bounds the people that an act waits for: more than that never come together in time.
const maxNeeds = 10

func checkPolicyAct(act string) error {
	if !slices.ContainsFunc(policyActs, func(p PolicyAct) bool { return p.Act == act }) {
		return errorf(Invalid, "there is no act %q that a policy can be about", clip(act))
	}
	return nil
}

// SetPolicy makes a policy, or changes one. To change one takes what it asks for itself, besides what
// the policy on policies asks for.
type SetPolicy struct {
	Act      string  `json:"act"`
	Needs    int     `json:"needs"`
	Role     string  `json:"role"`
	Replaces *uint64 `json:"replaces,omitempty"` // the version that its author saw
}

func (c *SetPolicy) Kind() string { return policySet }
func (c *SetPolicy) describe() (string, string) {
	return "policy/" + c.Act, "needs " + plural(c.Needs, "approval") + " by " + c.Role
}

func (c *SetPolicy) validate() error {
	return check(checkPolicyAct(c.Act), checkRange("the number of approvals", c.Needs, 1, maxNeeds), checkOneOf("role", c.Role, Roles()...))
}

func (c *SetPolicy) apply(s *State, m Meta) error {
	others := s.holders(c.Role)
	if m.Actor.Kind == ByAccount {
		others = slices.DeleteFunc(others, func(name string) bool { return name == m.Actor.Name })
	}
	if len(others) < c.Needs {
		return errorf(Conflict, "%s with the role %s could approve, besides who asks: a policy that needs %d would let nothing pass", plural(len(others), "account"), c.Role, c.Needs)
	}
	p := Policy{Act: c.Act, Needs: c.Needs, Role: c.Role, Set: m.Time, By: m.Actor.String(), Version: s.Index}
	if !s.changeable(p) {
		return errorf(Conflict, "nobody could ever change or remove this policy again: it needs %s by %s, besides a security officer who asks; give the role to more people first", plural(c.Needs, "approval"), c.Role)
	}
	s.Policies = with(s.Policies, c.Act, p)
	return nil
}

// RemovePolicy ends a policy: its acts need no approval any more.
type RemovePolicy struct {
	Act      string  `json:"act"`
	Replaces *uint64 `json:"replaces,omitempty"` // the version that its author saw
}

func (c *RemovePolicy) Kind() string               { return "policy.remove" }
func (c *RemovePolicy) describe() (string, string) { return "policy/" + c.Act, "" }
func (c *RemovePolicy) validate() error            { return checkPolicyAct(c.Act) }

func (c *RemovePolicy) apply(s *State, _ Meta) error {
	if _, ok := s.Policies[c.Act]; !ok {
		return errorf(NotFound, "there is no policy on %q", c.Act)
	}
	s.Policies = without(s.Policies, c.Act)
	return nil
}

// CoveredAct tells whether a policy is about an act on an HSM. Without a quorum nobody can approve, so such
// an act is not done then.
func (s *State) CoveredAct(act string) bool {
	_, ok := s.Policies[act]
	return ok
}
