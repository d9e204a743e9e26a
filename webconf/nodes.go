package webconf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type clusterView struct {
	Node        string
	Name        string
	Created     time.Time
	Nodes       []nodeRow
	Quorum      bool
	Voters      int
	Needed      int // voters for a majority
	Fingerprint string
	Ends        time.Time // of this node's TLS certificate
	Invites     []inviteRow
	Invitation  *node.Invitation // just made, and shown once
	Waits       string           // for whose approval it waits
	OwnerEnds   time.Time
	Entering    []string // nodes that were let in a moment ago
	Watching    bool     // the page loads itself again, and has no forms that this would empty
}

// Tolerates is how many voters may fail before nothing can be changed.
func (v clusterView) Tolerates() int { return max(0, v.Voters-v.Needed) }

// Others tells whether there is a node to remove.
func (v clusterView) Others() bool { return len(v.Nodes) > 1 }

// Removable are the other nodes.
func (v clusterView) Removable() []string {
	var names []string
	for _, n := range v.Nodes {
		if !n.Here {
			names = append(names, n.Name)
		}
	}
	return names
}

// Life is how long the invitation is good once it is approved.
func (v clusterView) Life() string { return span(time.Duration(v.Invitation.Seconds) * time.Second) }

// A nodeRow is one node of the cluster.
type nodeRow struct {
	cluster.Node
	Here     bool
	Mark     mark
	Role     string // leader, voter, standby
	Seen     node.Seen
	Clock    string    // how far it is ahead of this node's, as far as is known
	ClockOff bool      // further than is allowed
	Ends     time.Time // of the identity certificate
	Active   int
	Slots    int
	HasOwner bool   // the owner key is on its admin token
	Entry    string // how far it is, where it is no full member yet
}

// An inviteRow is a one-time code that has not been used.
type inviteRow struct {
	Hash string
	cluster.Invite
}

func clusterPage(c *call) error {
	return showCluster(c, newForm("invite", map[string]string{"hours": "1"}), nil)
}

// entryTime is how long a new node may take until something is wrong: its HSM makes keys first, and a slow
// one takes a minute.
const entryTime = 10 * time.Minute

func showCluster(c *call, f *form, made *node.Invitation, waits ...string) error {
	v := newClusterView(c.look())
	v.Fingerprint, _ = c.m.Fingerprint() // without one there is no console
	v.Waits = strings.Join(waits, " ")
	v.Invitation, v.OwnerEnds = made, c.look().OwnerEnds
	p := page{Name: "cluster", Title: "Cluster " + v.Name, Nav: "/cluster", Form: f}
	if v.Watching = len(v.Entering) > 0 && c.Request().Method == get && c.QueryParam("still") == ""; v.Watching {
		p.Refresh = 3
	}
	p.Data = v
	return c.show(p)
}

func newClusterView(s *situation) clusterView {
	v := clusterView{Node: s.Node, Name: s.State.Cluster.Name, Created: s.State.Cluster.Created, Quorum: s.Status.Quorum,
		Voters: len(s.Status.Voters), Needed: len(s.Status.Voters)/2 + 1, Ends: s.CertificateEnds}
	for _, name := range s.names() {
		r := newNodeRow(s, s.State.Nodes[name])
		v.Nodes = append(v.Nodes, r)
		if r.Status != cluster.Connected && s.Now.Sub(r.Joined) < entryTime {
			v.Entering = append(v.Entering, name)
		}
	}
	for _, hash := range slices.Sorted(maps.Keys(s.State.Invites)) {
		if i := s.State.Invites[hash]; i.Used == "" && s.Now.Before(i.Expires) {
			v.Invites = append(v.Invites, inviteRow{hash, i})
		}
	}
	slices.SortStableFunc(v.Invites, func(a, b inviteRow) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.Hash, b.Hash))
	})
	return v
}

// entryWords says what a node that is no full member yet waits for, and what to do when it waits too long.
func entryWords(n cluster.Node, now time.Time) string {
	long := now.Sub(n.Joined) >= entryTime
	switch {
	case n.Status == cluster.Connected:
		return ""
	case n.Status == cluster.Connecting && !long:
		return "It fetches what the cluster knows."
	case !long:
		return "It was let in, and is to report within some seconds."
	}
	return fmt.Sprintf("Let in %s, and never complete since. See whether its daemon runs and reaches the addresses for nodes here. If it was interrupted, join there once more with the same code, while that is good. "+
		"Otherwise remove it here, clear its data directory, and invite it anew.", relative(n.Joined, now))
}

func newNodeRow(s *situation, n cluster.Node) nodeRow {
	seen := s.Seen[n.Name]
	r := nodeRow{Node: n, Here: n.Name == s.Node, Mark: memberMark(n, seen), Seen: seen, HasOwner: seen.Health.HoldsOwner, Entry: entryWords(n, s.Now), Ends: s.IdentityEnds[n.Name]}
	switch {
	case s.Status.Leader == n.Name:
		r.Role = "Leader"
	case slices.Contains(s.Status.Voters, n.Name):
		r.Role = "Voter"
	case slices.Contains(s.Status.Standbys, n.Name):
		r.Role = "Without a vote"
	}
	if seen.Clock.Known && !r.Here {
		r.Clock, r.ClockOff = "clock "+seen.Clock.String(), seen.Clock.Past(s.ClockLimit)
		if seen.Clock.Agrees() {
			r.Clock = "clock agrees"
		}
	}
	r.Active, r.Slots = s.seats(n.Name)
	return r
}

// inviteNode makes a one-time code and shows it in the answer itself: it is in no address and no
// session, and nobody can see it again.
func inviteNode(c *call) error {
	f, err := c.readForm("invite")
	if err != nil {
		return err
	}
	hours, err := strconv.Atoi(f.text("hours"))
	if err != nil || hours < 1 || hours > maxInviteHours {
		f.fail("hours", "Enter for how many hours the code is good: a number from 1 to %d.", maxInviteHours)
		return showCluster(c, f, nil)
	}
	made, err := c.m.Invite(c.Request().Context(), c.actor, f.text("node"), time.Duration(hours)*time.Hour)
	if approvalOf(err) != "" {
		return showCluster(c, newForm("invite", map[string]string{"hours": "1"}), &made, sentence(judge(err).message))
	}
	if err != nil {
		if err := f.blame("node", err); err != nil {
			return err
		}
		return showCluster(c, f, nil)
	}
	return showCluster(c, newForm("invite", map[string]string{"hours": "1"}), &made)
}

func withdrawInvitation(c *call) error {
	f, err := c.readForm("withdraw")
	if err != nil {
		return err
	}
	if err := c.m.Withdraw(c.Request().Context(), c.actor, f.Value("hash")); err != nil {
		return err
	}
	if err := c.flash(fmt.Sprintf("The invitation %s is withdrawn.", f.Value("hash")[:8])); err != nil {
		return err
	}
	return c.redirect("/cluster")
}

// removeNode wants the name typed, which also says which node it is.
func removeNode(c *call) error {
	f, err := c.readForm("remove")
	if err != nil {
		return err
	}
	name := f.text("name")
	if _, ok := c.m.State().Nodes[name]; !ok {
		f.fail("name", "Type the name of the node to remove, as it stands in the table.")
		return showCluster(c, f, nil)
	}
	if err := c.m.Remove(c.Request().Context(), c.actor, name, f.text("giveup") != ""); err != nil {
		if err := f.blame("name", err); err != nil {
			return err
		}
		return showCluster(c, f, nil)
	}
	return c.done("/cluster", fmt.Sprintf("Node %s is removed. Its HSM and its keys were not touched.", name))
}

type removedView struct {
	Node, Cluster, Module string
	Since                 time.Time
}

// removedPage is all that is left of the console of a node that was removed.
func removedPage(c *call) error {
	since := c.m.Removed()
	if since.IsZero() {
		return c.redirect("/")
	}
	return c.show(page{Name: "removed", Title: c.m.Name() + " was removed from its cluster", Nav: "/removed", Data: removedView{c.m.Name(), c.m.State().Cluster.Name, c.srv.node.AdminModule(), since}})
}
