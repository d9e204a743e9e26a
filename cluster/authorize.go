package cluster

// Actor is who acts: a person with an account, a person at the node's own console, or the node itself.
// The web layer of the node where the person is logged in vouches for the name.
type Actor struct {
	Kind string `json:"kind"` // ByAccount, ByConsole or ByNode
	Name string `json:"name"` // account name, user name on the node, or node name
}

// Kinds of actors.
const (
	ByAccount = "account" // logged in with an account of the cluster
	ByConsole = "console" // on the Unix socket of a node, where file permissions decide
	ByNode    = "node"    // the daemon by itself
)

// String is how the actor shows up beside what it made.
func (a Actor) String() string { return a.Kind + "/" + a.Name }

func (a Actor) validate() error {
	switch a.Kind {
	case ByAccount:
		return checkAccountName(a.Name)
	case ByNode:
		return checkName("node name", a.Name)
	}
	return check(checkOneOf("kind of actor", a.Kind, ByAccount, ByConsole, ByNode), checkLine("actor name", a.Name, 64))
}

// Administrator is the one role there is so far. It has every operator permission.
const Administrator = "administrator"

// Permission names a group of acts. The names are in the log (BeginAct): they are never reused.
type Permission string

// Permissions.
const (
	MayCreateCluster  Permission = "cluster.create"
	MayManageNodes    Permission = "nodes.manage"    // invite, remove, replace an identity
	MayManageTrust    Permission = "trust.manage"    // who takes packages from whom
	MayManageSlots    Permission = "slots.manage"    // initialize tokens, change modes and codes
	MayActivate       Permission = "slots.activate"  // open slots, and close them
	MayManageKeys     Permission = "keys.manage"     // make and destroy keys
	MaySynchronize    Permission = "keys.sync"       // make and import packages; nodes do so by themselves
	MayManageAccounts Permission = "accounts.manage" // make, change and remove accounts
	MayManageApps     Permission = "apps.manage"     // say which applications there are
	MayRestartApps    Permission = "apps.restart"    // restart one
	MayView           Permission = "view"            // look at everything
	MayAdmit          Permission = "node.admit"      // let in a node that knows a one-time code
	MayReport         Permission = "node.report"     // a node tells about itself
	MayEndAct         Permission = "act.end"         // say how an act ended
)

// grant says who has a permission.
type grant struct {
	since    int  // first Protocol that knows the permission
	operator bool // administrators, and the console
	node     bool // a node's daemon by itself
}

var grants = map[Permission]grant{
	MayCreateCluster:  {1, true, true},
	MayManageNodes:    {1, true, false},
	MayManageTrust:    {1, true, false},
	MayManageSlots:    {1, true, false},
	MayActivate:       {1, true, false},
	MayManageKeys:     {1, true, false},
	MaySynchronize:    {1, true, true},
	MayManageAccounts: {1, true, false},
	MayManageApps:     {1, true, false},
	MayRestartApps:    {1, true, false},
	MayView:           {1, true, false},
	MayAdmit:          {1, false, true},
	MayReport:         {1, false, true},
	MayEndAct:         {1, true, true},
}

// Authorize tells whether actor a, working at node, has permission p in state s. A nil error means yes.
// The decision that counts is made when a command is applied, on every replica alike; the web layer asks
// the same function first, to hide what would be refused.
func Authorize(s *State, a Actor, node string, p Permission) error {
	g, known := grants[p]
	if !known {
		return errorf(Denied, "there is no permission %q", clip(string(p)))
	}
	if s.Cluster.ID == "" {
		if p == MayCreateCluster && (a.Kind == ByConsole || a.Kind == ByNode && a.Name == node) {
			return nil
		}
		return errorf(Denied, "there is no cluster yet: set up the first node")
	}
	if _, ok := s.Nodes[node]; !ok {
		return errorf(Denied, "node %q is not a member of this cluster", node)
	}
	switch a.Kind {
	case ByConsole:
		if g.operator {
			return nil
		}
	case ByNode:
		if a.Name != node {
			return errorf(Denied, "node %q cannot speak for node %q", node, a.Name)
		}
		if g.node {
			return nil
		}
	case ByAccount:
		account, ok := s.Accounts[a.Name]
		if !ok {
			return errorf(Denied, "there is no account %q", a.Name)
		}
		if g.operator && account.Role == Administrator {
			return nil
		}
	}
	return errorf(Denied, "%s has no permission %s", a, p)
}
