package webconf

import (
	"net/http"
	"testing"

	"github.com/keyferry/keyferry/cluster"
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
	s := newSocket(t, a.web)
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
	if r := alice.get("/cluster"); r.status != http.StatusOK {
		t.Errorf("the page of a cluster of one: %d", r.status)
	}
}
