package cluster

import "slices"

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

// Roles of accounts.
const (
	SecurityOfficer = "security-officer" // people, roles, trust, nodes, who holds which code
	CryptoOfficer   = "crypto-officer"   // slots, keys, packages, applications
	CryptoUser      = "crypto-user"      // opens slots, restarts applications
	Auditor         = "auditor"          // looks at everything
)

// Roles lists the roles in the order in which people read them.
func Roles() []string { return []string{SecurityOfficer, CryptoOfficer, CryptoUser, Auditor} }

// Permission names a group of acts. The names are in the log (BeginAct): they are never reused.
type Permission string

// Permissions.
const (
	MayCreateCluster  Permission = "cluster.create"
	MayManageNodes    Permission = "nodes.manage"    // invite, remove, replace an identity
	MayManageTrust    Permission = "trust.manage"    // who takes packages from whom
	MayManageAccounts Permission = "accounts.manage" // make, change and remove accounts; who has which role
	MayManageCodes    Permission = "codes.manage"    // decide who holds the code of a slot: modes, custodians, rotation
	MayManageSlots    Permission = "slots.manage"    // initialize tokens, change codes
	MayActivate       Permission = "slots.activate"  // open slots, and close them
	MayTendCodes      Permission = "codes.tend"      // try stored codes, replace generated ones; nodes do so by themselves
	MayManageKeys     Permission = "keys.manage"     // make and destroy keys
	MaySynchronize    Permission = "keys.sync"       // make and import packages; nodes do so by themselves
	MayManageApps     Permission = "apps.manage"     // say which applications there are
	MayRestartApps    Permission = "apps.restart"    // restart one, with the codes it gets; nodes do so by themselves
	MayView           Permission = "view"            // look at everything
	MayExportAudit    Permission = "audit.export"    // take the audit trail away
	MayKeepAccount    Permission = "account.own"     // change how one logs in, and end one's own sessions
	MayTellSeat       Permission = "seats.tell"      // say what a node has in a slot, after an act that made it so
	MayAdmit          Permission = "node.admit"      // let in a node that knows a one-time code
	MayReport         Permission = "node.report"     // a node tells about itself
	MayEndAct         Permission = "act.end"         // say how an act ended

	MayManagePolicies Permission = "policies.manage"    // say which acts need the approval of others
	MayApprove        Permission = "approvals.decide"   // approve or reject; which requests, the policies say
	MayWithdraw       Permission = "approvals.withdraw" // take one's own request back
)

// grant says who has a permission.
type grant struct {
	since    int      // first Protocol that knows the permission
	roles    []string // accounts with one of these roles
	some     bool     // it is about no slot, and a role for some slots is enough
	slots    bool     // it is about one slot at a time, so a role for some slots gives it for those
	everyone bool     // every account, whatever its roles
	console  bool     // people at a node's console
	node     bool     // a node's daemon by itself
}

var (
	officers = []string{SecurityOfficer, CryptoOfficer}
	users    = []string{CryptoOfficer, CryptoUser}
)

// grants is the table of all permissions. The console has each that a person can have: whoever is root on
// a node can replace this program, so a refusal there would keep nobody out, and it is the way back when
// the last security officer is locked out. What is done there is audited under the name of the node.
var grants = map[Permission]grant{
	MayCreateCluster:  {since: 1, console: true, node: true},
	MayManageNodes:    {since: 1, roles: []string{SecurityOfficer}, console: true},
	MayManageTrust:    {since: 1, roles: []string{SecurityOfficer}, console: true},
	MayManageAccounts: {since: 1, roles: []string{SecurityOfficer}, console: true},
	MayManageCodes:    {since: 1, roles: []string{SecurityOfficer}, console: true},
	MayManageSlots:    {since: 1, roles: []string{CryptoOfficer}, slots: true, console: true},
	MayActivate:       {since: 1, roles: users, slots: true, console: true},
	MayTendCodes:      {since: 1, roles: officers, slots: true, console: true, node: true},
	MayManageKeys:     {since: 1, roles: []string{CryptoOfficer}, slots: true, console: true},
	MaySynchronize:    {since: 1, roles: []string{CryptoOfficer}, slots: true, console: true, node: true},
	MayManageApps:     {since: 1, roles: []string{CryptoOfficer}, console: true},
	MayRestartApps:    {since: 1, roles: users, console: true, node: true},
	MayView:           {since: 1, roles: Roles(), some: true, console: true},
	MayExportAudit:    {since: 1, roles: []string{SecurityOfficer, Auditor}, console: true},
	MayKeepAccount:    {since: 1, everyone: true, console: true}, // for its own account; for others', see State.own
	MayTellSeat:       {since: 1, roles: officers, slots: true, console: true, node: true},
	MayAdmit:          {since: 1, node: true},
	MayReport:         {since: 1, node: true},
	MayEndAct:         {since: 1, everyone: true, console: true, node: true},

	MayManagePolicies: {since: 1, roles: []string{SecurityOfficer}, console: true},
	MayApprove:        {since: 1, roles: Roles(), some: true},
	MayWithdraw:       {since: 1, roles: Roles(), some: true, console: true},
}

// AnySlot asks Authorize whether there is a slot for which the actor has the permission. It is no label.
const AnySlot = "\x00"

// Authorize tells whether actor a, working at node, has permission p in state s. A nil error means yes.
// slot is the label of the slot that the act is about, "" for an act that is not about one slot, or AnySlot.
// The decision that counts is made when a command is applied, on every replica alike; the web layer asks
// the same function first, to hide what would be refused.
func Authorize(s *State, a Actor, node string, p Permission, slot string) error {
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
		if g.console {
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
		return s.authorizeAccount(a.Name, p, g, slot)
	}
	return errorf(Denied, "%s has no permission %s", a, p)
}

// authorizeAccount is Authorize for people.
func (s *State) authorizeAccount(name string, p Permission, g grant, slot string) error {
	account, ok := s.Accounts[name]
	switch {
	case !ok:
		return errorf(Denied, "there is no account %q", name)
	case account.Disabled:
		return errorf(Denied, "the account %q is disabled", name)
	case g.everyone:
		return nil
	}
	if err := account.settled(); err != nil {
		return err
	}
	elsewhere := false
	for _, has := range account.Roles {
		if !slices.Contains(g.roles, has.Role) {
			continue
		}
		if g.some || has.covers(g, slot) {
			return nil
		}
		elsewhere = true
	}
	if elsewhere && slot != "" {
		return errorf(Denied, "account/%s has the permission %s for other slots, and not for slot %q", name, p, slot)
	}
	if elsewhere {
		return errorf(Denied, "account/%s has the permission %s for some slots only, and this is not about one of them", name, p)
	}
	if len(g.roles) == 0 {
		return errorf(Denied, "account/%s has no permission %s: no person has it", name, p)
	}
	return errorf(Denied, "account/%s has no permission %s; it takes one of the roles: %s", name, p, roleList(g.roles))
}

// covers tells whether a role that an account has reaches an act with the permission g about slot.
func (r RoleGrant) covers(g grant, slot string) bool {
	if len(r.Slots) == 0 {
		return true
	}
	return g.slots && (slot == AnySlot || slices.Contains(r.Slots, slot))
}

// A Right is one line of what people may do: a permission and who has it.
type Right struct {
	Permission Permission
	Roles      []string
	PerSlot    bool // a role for some slots gives it for those
	Everyone   bool // with an account, whatever its roles
	Console    bool // also people at a node's console
}

// Rights lists the permissions that people can have, in the order of the constants.
func Rights() []Right {
	var list []Right
	for _, p := range []Permission{MayView, MayManageAccounts, MayManagePolicies, MayApprove, MayManageNodes, MayManageTrust, MayManageCodes, MayManageSlots, MayTendCodes, MayActivate,
		MayManageKeys, MaySynchronize, MayManageApps, MayRestartApps, MayExportAudit, MayWithdraw, MayKeepAccount} {
		g := grants[p]
		list = append(list, Right{p, slices.Clone(g.roles), g.slots, g.everyone, g.console})
	}
	return list
}

// CheckPermission tells whether p is a permission.
func CheckPermission(p Permission) error {
	if _, ok := grants[p]; !ok {
		return errorf(Invalid, "there is no permission %q", clip(string(p)))
	}
	return nil
}
