package cluster

import "slices"

// SetTrust makes or removes one edge: whether node Trusting takes key packages from node Trusted.
type SetTrust struct {
	Trusting string `json:"trusting"`
	Trusted  string `json:"trusted"`
	Trust    bool   `json:"trust"`
}

func (c *SetTrust) Kind() string { return "trust.set" }

func (c *SetTrust) describe() (string, string) {
	verb := "does not trust"
	if c.Trust {
		verb = "trusts"
	}
	return "node/" + c.Trusting, verb + " node/" + c.Trusted
}

func (c *SetTrust) validate() error {
	if c.Trusting == c.Trusted {
		return errorf(Invalid, "node %q and the node it trusts are the same", c.Trusted)
	}
	return check(checkName("node name", c.Trusting), checkName("node name", c.Trusted))
}

func (c *SetTrust) apply(s *State, m Meta) error {
	for _, name := range []string{c.Trusting, c.Trusted} {
		if _, err := s.node(name); err != nil {
			return err
		}
	}
	if c.Trust {
		s.addTrust(c.Trusting, c.Trusted)
		return nil
	}
	if !s.Trusts(c.Trusting, c.Trusted) {
		return errorf(NotFound, "node %q does not trust node %q", c.Trusting, c.Trusted)
	}
	s.dropTrust(c.Trusting, c.Trusted)
	return nil
}

func (s *State) addTrust(trusting, trusted string) {
	if s.Trusts(trusting, trusted) {
		return
	}
	names := append(slices.Clone(s.Trust[trusting]), trusted)
	slices.Sort(names)
	s.Trust = with(s.Trust, trusting, names)
}

// trustAll makes edges both ways between node and every other member.
func (s *State) trustAll(node string) {
	for _, other := range s.members(node) {
		s.addTrust(node, other)
		s.addTrust(other, node)
	}
}

func (s *State) dropTrust(trusting, trusted string) {
	names := slices.DeleteFunc(slices.Clone(s.Trust[trusting]), func(name string) bool { return name == trusted })
	if len(names) == 0 {
		s.Trust = without(s.Trust, trusting)
		return
	}
	s.Trust = with(s.Trust, trusting, names)
}

// removeTrust drops every edge from and to node.
func (s *State) removeTrust(node string) {
	s.Trust = without(s.Trust, node)
	for _, trusting := range sorted(s.Trust) {
		s.dropTrust(trusting, node)
	}
}
