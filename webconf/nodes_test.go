package webconf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// TestRemoveNode takes a node out of a real cluster, with the name typed, and after others have approved it.
func TestRemoveNode(t *testing.T) {
	nodes := newCluster(t, 2)
	a, gone := nodes[0], nodes[1]
	a.administrator(t)
	alice, bob := a.loggedIn(t), a.colleague(t, "bob", cluster.RoleGrant{Role: cluster.SecurityOfficer})
	alice.get("/cluster").wants(t, http.StatusOK, "Remove a node", "Its HSM is not touched")
	for _, wrong := range []string{"", "node3", "NODE2"} {
		alice.post("/cluster/remove", "name", wrong).wants(t, http.StatusUnprocessableEntity, "as it stands in the table")
	}
	alice.post("/cluster/remove", "name", "node1").wants(t, http.StatusUnprocessableEntity, "cannot remove itself")
	a.colleague(t, "carl", cluster.RoleGrant{Role: cluster.CryptoOfficer}).post("/cluster/remove", "name", "node2").wants(t, http.StatusForbidden)
	alice.get("/cluster/replace/node2").wants(t, http.StatusOK, "What node2 holds", "no token in a slot", "It answers now")
	alice.get("/cluster/replace/Node%20X").wants(t, http.StatusBadRequest)
	s := newSocket(t, a.web)
	var l node.Losses
	if s.ask(get, "/cluster/nodes/node2/losses", nil, http.StatusOK, &l); !l.Member || !l.Answers || l.Owner || l.Slots == nil {
		t.Errorf("losses: %+v", l)
	}
	if s.ask(get, "/cluster/nodes/node1/losses", nil, http.StatusOK, &l); !l.Owner {
		t.Errorf("the node with the owner key: %+v", l)
	}
	s.refused(s.send(remove, "/cluster/nodes/node3", "", nil), http.StatusNotFound, "not_found")
	if err := a.Approvals.SetPolicy(t.Context(), root, "node.remove", 1, cluster.SecurityOfficer, nil); err != nil {
		t.Fatal(err)
	}
	s.refused(s.send(remove, "/cluster/nodes/node2", "", nil), http.StatusConflict, "needs_approval")
	request := alice.post("/cluster/remove", "name", "node2").location()
	if _, ok := a.State().Nodes["node2"]; !ok {
		t.Fatal("the node is removed before it is approved")
	}
	bob.follow(bob.approves(request)).wants(t, http.StatusOK, "Done")
	if _, ok := a.State().Nodes["node2"]; ok {
		t.Fatal("the node is there after the approval")
	}
	if trusts := a.State().Trust; len(trusts) != 0 {
		t.Errorf("trust is left: %v", trusts)
	}
	eventually(t, "node1 works alone", func() bool { s := a.Cluster.Status(); return s.Quorum && len(s.Voters) == 1 })
	if err := gone.Approvals.RemovePolicy(t.Context(), root, "node.remove", nil); err == nil {
		t.Error("a node that was removed changes the cluster")
	}
	alice.get("/cluster/replace/node2").wants(t, http.StatusOK, "There is no member of that name", "Add a node")
	if _, err := a.Invite(t.Context(), root, "node2", time.Hour); err != nil {
		t.Fatal(err)
	}
	alice.get("/cluster/replace/node2").wants(t, http.StatusOK, "An invitation for this name is open.")
	if r := alice.get("/cluster"); r.status != http.StatusOK {
		t.Errorf("the page of a cluster of one: %d", r.status)
	}
	eventually(t, "node2 knows that it was removed", func() bool { return !gone.Removed().IsZero() })
	there := gone.browser(t)
	if r := there.post("/login", "name", testAccount, "password", testPassword); r.status != http.StatusSeeOther {
		t.Fatalf("logging in on a removed node: %d %s", r.status, r.text())
	}
	for _, path := range []string{"/", "/slots", "/cluster", "/account"} {
		if r := there.get(path); r.location() != "/removed" {
			t.Errorf("%s of a removed node: %d to %q", path, r.status, r.location())
		}
	}
	there.get("/removed").wants(t, http.StatusOK, "node2 was removed from its cluster", "Its slots are closed", "To use this machine again", "keyferry-admin")
	there.post("/new-slot", "label", "payments", "mode", cluster.Generated).wants(t, http.StatusConflict, "was removed from cluster")
	if r := there.post("/logout"); r.location() != "/login" {
		t.Errorf("leaving a removed node: %d to %q", r.status, r.location())
	}
	if r := alice.get("/removed"); r.location() != "/" {
		t.Errorf("a member says that it was removed: %d to %q", r.status, r.location())
	}
	s = newSocket(t, gone.web)
	s.refused(s.send(get, "/slots", "", nil), http.StatusConflict, "refused")
	var st statusAnswer
	if s.ask(get, "/status", nil, http.StatusOK, &st); st.Removed.IsZero() || len(st.Problems) != 1 {
		t.Errorf("status: %+v", st)
	}
}

// TestEnteringNodes: the Cluster page follows a node that is entering, and says what to do when it does not
// arrive.
func TestEnteringNodes(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		status   cluster.NodeStatus
		ago      time.Duration
		want     string
		entering bool
	}{
		{cluster.Initializing, time.Second, "is to report within some seconds", true},
		{cluster.Connecting, time.Minute, "fetches what the cluster knows", true},
		{cluster.Initializing, time.Hour, "join there once more with the same code", false},
		{cluster.Connecting, 11 * time.Minute, "Otherwise remove it here", false},
		{cluster.Connected, time.Second, "", false},
	} {
		v := plainSituation(2, 0, 0)
		n := v.State.Nodes["node2"]
		n.Status, n.Joined = c.status, now.Add(-c.ago)
		v.State.Nodes["node2"], v.Now = n, now
		view := newClusterView(v)
		if got := view.Nodes[1].Entry; (len(view.Entering) == 1) != c.entering || !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%s for %s: %q, entering %v", c.status, c.ago, got, view.Entering)
		}
	}
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	inv, err := a.Invite(t.Context(), root, "node2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := cluster.HashCode(inv.Code)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := identity.Start("node2", nil, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	self := a.State().Nodes["node1"]
	self.Name, self.Identity, self.Key, self.Serial, self.PeerAddress = "node2", der, cluster.KeyHash(pic), "other", "127.0.0.1:1"
	if _, err := a.Cluster.Apply(t.Context(), &cluster.AdmitNode{Invite: hash, Node: self}, cluster.Actor{Kind: cluster.ByNode, Name: "node1"}); err != nil {
		t.Fatal(err)
	}
	r := b.get("/cluster")
	r.wants(t, http.StatusOK, "node2 is just entering the cluster", "Initializing")
	if !strings.Contains(r.body, `http-equiv="refresh"`) || strings.Contains(r.body, `id="invite-node"`) {
		t.Error("the page does not look again, or would empty a field")
	}
	r = b.get("/cluster?still=1")
	r.wants(t, http.StatusOK, "Look again by itself", "Add a node")
	if strings.Contains(r.body, `http-equiv="refresh"`) {
		t.Error("the page looks again where somebody may be typing")
	}
	if r := b.post("/cluster/invitations", "node", "node3", "hours", "1"); strings.Contains(r.body, `http-equiv="refresh"`) {
		t.Error("the page that shows a code goes away by itself")
	}
}
