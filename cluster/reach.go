package cluster

import "slices"

// Which policies a command answers to, besides the one on its own kind, and who can satisfy them.

// policiesOn are the policies that cmd of an actor has to satisfy, all of them. A command that has the
// effect of another, or makes one person two, answers to those policies too.
func (s *State) policiesOn(cmd Command, actor Actor) []Policy {
	acts := []string{cmd.Kind()}
	switch c := cmd.(type) {
	case *BeginAct:
		acts = []string{c.Act}
	case *SetPolicy:
		acts = []string{policySet, c.Act}
	case *RemovePolicy:
		acts = []string{policySet, c.Act}
	case *PutSplit:
		if p, _ := s.Slots[c.Slot].Newest(); c.Split.Generation != p.Generation { // tokens will take a shared code
			acts = append(acts, slotSetMode)
		}
	case *PutApp:
		if c.App.Delivery.Manual && s.handsOut(c.App) { // the code leaves the people who hold it
			acts = append(acts, slotSetMode)
		}
	case *AddInvite:
		acts = append(acts, "trust.set") // a new node is trusted by all
	}
	for _, act := range sorted(s.Policies) {
		if s.makesApprover(cmd, actor, s.Policies[act].Role) {
			acts = append(acts, act)
		}
	}
	var rules []Policy
	for i, act := range acts {
		if p, ok := s.Policies[act]; ok && !slices.Contains(acts[:i], act) {
			rules = append(rules, p)
		}
	}
	return rules
}

// makesApprover tells whether cmd gives a role to an account, or lets its actor log in to one that has it.
// One person could then approve what they asked for, as somebody else.
func (s *State) makesApprover(cmd Command, actor Actor, role string) bool {
	switch c := cmd.(type) {
	case *PutAccount:
		old := s.Accounts[c.Name]
		return (Account{Roles: c.Roles}).Has(role) && (c.New || old.Disabled && !c.Disabled || widens(old, c.Roles, role))
	case *ResetPassword:
		return s.Accounts[c.Name].Has(role)
	case *AddCertificate:
		return actor != Actor{ByAccount, c.Name} && s.Accounts[c.Name].Has(role)
	}
	return false
}

// widens tells whether an account would have a role where it has not had it.
func widens(old Account, roles []RoleGrant, role string) bool {
	reach := func(list []RoleGrant) (all bool, slots []string) {
		for _, r := range list {
			if r.Role == role {
				return len(r.Slots) == 0, r.Slots
			}
		}
		return false, nil
	}
	hadAll, had := reach(old.Roles)
	all, slots := reach(roles)
	return !hadAll && (all || slices.ContainsFunc(slots, func(l string) bool { return !slices.Contains(had, l) }))
}

// holders are the accounts that could use a role now, in order. One that has it for some slots does not
// count: no policy can be changed with it.
func (s *State) holders(role string) []string {
	return slices.DeleteFunc(sorted(s.Accounts), func(name string) bool {
		a := s.Accounts[name]
		return a.Disabled || a.MustChange || !slices.ContainsFunc(a.Roles, func(r RoleGrant) bool { return r.Role == role && len(r.Slots) == 0 })
	})
}

// CouldApprove counts the people who are sure to be there as approvers under p, when somebody with its role asks:
// who asks does not count. With no more than p needs, one who is away stops everything.
func (s *State) CouldApprove(p Policy) int {
	approvers := s.holders(p.Role)
	for _, name := range approvers {
		if a := s.Accounts[name]; a.Has(SecurityOfficer) || a.Has(CryptoOfficer) { // asks for what policies are about
			return len(approvers) - 1
		}
	}
	return len(approvers)
}

// changeable tells whether enough people are left to change or remove p: a security officer asks, or a
// console, which needs one more, and those who approve are others.
func (s *State) changeable(p Policy) bool {
	approvers := s.holders(p.Role)
	if len(approvers) != p.Needs {
		return len(approvers) > p.Needs
	}
	return slices.ContainsFunc(s.holders(SecurityOfficer), func(name string) bool { return !slices.Contains(approvers, name) })
}

// keepsApprovers refuses a change of an account, which s has already, after which a policy could never be
// satisfied again: not even to change the policy. before is the state before it.
func (s *State) keepsApprovers(before *State, account string) error {
	for _, act := range sorted(s.Policies) {
		if p := s.Policies[act]; before.changeable(p) && !s.changeable(p) {
			return errorf(Conflict, "the policy on %q needs %s by %s, besides a security officer who asks: without the account %q too few could approve, even a change of the policy; change it first, or give the role to another account", act, plural(p.Needs, "approval"), p.Role, account)
		}
	}
	return nil
}
