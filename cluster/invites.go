package cluster

import "time"

// Invite lets one node in: whoever knows the one-time code. The code itself is never replicated; having
// 100 random bits it needs no slow hash.
type Invite struct {
	Hash    string    `json:"hash"`           // HashCode of the code
	Node    string    `json:"node,omitempty"` // the only name it is good for, or "" for any
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	By      string    `json:"by"`
	Used    string    `json:"used,omitempty"` // KeyHash of the node that used it
}

// CheckInvite tells whether the code with this hash would let in a node with this name and identity key
// at the time now. Ask before proposing AdmitNode: the guesses of a stranger do not belong into the log.
func (s *State) CheckInvite(hash, node, key string, now time.Time) error {
	i, ok := s.Invites[hash]
	switch {
	case !ok:
		return errorf(Denied, "the one-time code is not known: check it, or make a new one")
	case i.Used != "" && i.Used != key:
		return errorf(Denied, "the one-time code was used already, by another node: make a new one")
	case !now.Before(i.Expires):
		return errorf(Expired, "the one-time code expired at %s: make a new one", i.Expires.UTC().Format(time.RFC3339))
	case i.Node != "" && i.Node != node:
		return errorf(Denied, "the one-time code is for a node named %q, not %q", i.Node, node)
	}
	return nil
}

// AddInvite makes a one-time code valid, and clears away those that have expired. Its life begins when the
// command is applied: with the last approval, where others have to approve it.
type AddInvite struct {
	Hash    string `json:"hash"`
	Node    string `json:"node,omitempty"`
	Seconds int    `json:"seconds"` // how long the code is good
}

func (c *AddInvite) Kind() string               { return "invite.add" }
func (c *AddInvite) describe() (string, string) { return inviteName(c.Hash), c.Node }

// subject is none where the code is good for any name: two such codes are for two nodes.
func (c *AddInvite) subject() string { return c.Node }

func (c *AddInvite) validate() error {
	if c.Node != "" {
		if err := checkName("node name", c.Node); err != nil {
			return err
		}
	}
	return check(checkHash("hash of the one-time code", c.Hash), checkRange("the life of the one-time code in seconds", c.Seconds, 1, int(maxInviteLife/time.Second)))
}

func (c *AddInvite) apply(s *State, m Meta) error {
	left := make(map[string]Invite, len(s.Invites)+1)
	for hash, i := range s.Invites {
		if m.Time.Before(i.Expires) {
			left[hash] = i
		}
	}
	_, member := s.Nodes[c.Node]
	_, exists := left[c.Hash]
	switch {
	case exists:
		return errorf(Conflict, "this one-time code exists already")
	case member:
		return errorf(Conflict, "node %q is a member already", c.Node)
	case len(left) >= maxInvites:
		return errorf(Full, "%d one-time codes are waiting: remove some", len(left))
	}
	left[c.Hash] = Invite{Hash: c.Hash, Node: c.Node, Created: m.Time, Expires: m.Time.Add(time.Duration(c.Seconds) * time.Second), By: m.Actor.String()}
	s.Invites = left
	return nil
}

// RemoveInvite makes a one-time code worthless.
type RemoveInvite struct {
	Hash string `json:"hash"`
}

func (c *RemoveInvite) Kind() string               { return "invite.remove" }
func (c *RemoveInvite) describe() (string, string) { return inviteName(c.Hash), "" }
func (c *RemoveInvite) validate() error            { return checkHash("hash of the one-time code", c.Hash) }

func (c *RemoveInvite) apply(s *State, m Meta) error {
	if _, ok := s.Invites[c.Hash]; !ok {
		return errorf(NotFound, "there is no such one-time code")
	}
	s.Invites = without(s.Invites, c.Hash)
	return nil
}

// AdmitNode lets a node in that proved to a member that it knows a one-time code. Within the life of the
// code it can be repeated with the same identity key, so that a joiner that crashed can start over.
type AdmitNode struct {
	Invite string `json:"invite"` // HashCode of the code
	Node   Node   `json:"node"`   // what keeping names is set by apply
}

func (c *AdmitNode) Kind() string               { return "node.admit" }
func (c *AdmitNode) describe() (string, string) { return "node/" + c.Node.Name, c.Node.PeerAddress }

func (c *AdmitNode) validate() error {
	return check(checkHash("hash of the one-time code", c.Invite), c.Node.validate())
}

func (c *AdmitNode) apply(s *State, m Meta) error {
	n := c.Node
	if err := s.CheckInvite(c.Invite, n.Name, n.Key, m.Time); err != nil {
		return err
	}
	if s.Cluster.Next != nil {
		return errorf(Conflict, "the owner of the cluster is being replaced, and until that is done no node is let in: try again when it is")
	}
	if old, ok := s.Nodes[n.Name]; ok {
		if old.Key != n.Key {
			return errorf(Conflict, "a node %q is a member already: choose another name, or remove that node first", n.Name)
		}
		n = n.keeping(old)
	} else if n = n.keeping(Node{Status: Initializing, Joined: m.Time}); len(s.Nodes) >= maxNodes {
		return errorf(Full, "the cluster has %d nodes, which is the most it can have", len(s.Nodes))
	}
	if err := s.checkNode(n); err != nil {
		return err
	}
	if _, again := s.Nodes[n.Name]; !again {
		s.trustAll(n.Name, m)
	}
	s.Nodes = with(s.Nodes, n.Name, n)
	invite := s.Invites[c.Invite]
	invite.Used = n.Key
	s.Invites = with(s.Invites, c.Invite, invite)
	return nil
}

// inviteName shows enough of a hash to tell invites apart.
func inviteName(hash string) string { return "invite/" + hash[:min(8, len(hash))] }
