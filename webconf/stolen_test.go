package webconf

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/node"
)

// stolenPages are what a stolen node holds, before it is declared stolen and after.
func stolenPages(v *situation, text string) (list []page) {
	keys := []node.TheftKey{
		{Slot: text, Mode: cluster.Generated, Key: cluster.Held{Label: text, Type: "EC P-256", Certificates: 1}, Others: []string{"node1", text}, Apps: []string{text}, Name: "a"},
		{Slot: "b", Mode: cluster.Shared, Key: cluster.Held{ID: "0102", Type: "RSA 2048"}, Name: "b", Dealt: v.Now, By: "account/" + text},
	}
	full := node.Theft{Losses: node.Losses{Node: "node2", Member: true, Owner: true, Keys: 2}, Protector: cluster.ByTPM, Held: keys, Packages: 2, Invites: 1, Open: 1}
	for _, t := range []node.Theft{full, {Losses: node.Losses{Node: "node2", Member: true}, Protector: cluster.ByPassphrase}} {
		for _, f := range []*form{newForm("stolen", nil), failed("stolen", text)} {
			list = append(list, page{Name: "stolen", Title: "Stolen", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Form: f, Data: stolenView{t, stolenPath("node2"), false}})
		}
	}
	list = append(list, page{Name: "stolen", Title: "Stolen", Nav: "/cluster", Form: newForm("stolen", nil), Data: stolenView{full, stolenPath("node1"), true}})
	full.Since, full.By, full.Record = v.Now, "account/"+text, "r"
	for _, thefts := range [][]node.Theft{{full, {Losses: node.Losses{Node: "node3"}, Since: v.Now, By: "console/" + text}}, {}} {
		list = append(list, page{Name: "thefts", Title: "Stolen nodes", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Data: thefts})
	}
	return list
}

// TestStolenNode declares a node of a real cluster stolen, by form, and deals with its keys by form and by the API.
func TestStolenNode(t *testing.T) {
	nodes := newCluster(t, 3)
	a, thief := nodes[0], nodes[2]
	a.administrator(t)
	alice, carl := a.loggedIn(t), a.colleague(t, "carl", cluster.RoleGrant{Role: cluster.CryptoOfficer})
	for _, n := range nodes {
		n.slot(t, "payments", cluster.Manual)
	}
	generate(t, thief.application(t, "payments"), ecKey("ca-1"), hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte("two"), Label: "ca-2", Usage: hsm.UseSign, Extractable: true})
	eventually(t, "node1 knows the keys of node3", func() bool { return len(a.State().Keys["payments"]["node3"].Keys) == 2 })
	if _, err := a.Invite(t.Context(), root, "node4", time.Hour); err != nil {
		t.Fatal(err)
	}
	alice.get("/cluster").wants(t, http.StatusOK, "in strange hands")
	alice.get("/cluster/stolen").wants(t, http.StatusOK, "No node was declared stolen")
	alice.get("/cluster/stolen/node3").wants(t, http.StatusOK, "ca-1", "ca-2", "nowhere", "1 open invitation is withdrawn", "Declare node3 stolen")
	alice.get("/cluster/stolen/node9").wants(t, http.StatusNotFound)
	alice.get("/cluster/stolen/node1").wants(t, http.StatusOK, "Do it on another node")
	carl.post("/cluster/stolen/node3", "name", "node3").wants(t, http.StatusForbidden)
	carl.post("/cluster/stolen", "record", "x").wants(t, http.StatusForbidden)
	for _, wrong := range []string{"", "node2", "NODE3"} {
		alice.post("/cluster/stolen/node3", "name", wrong).wants(t, http.StatusUnprocessableEntity, "Type the name node3")
	}
	alice.post("/cluster/stolen/node1", "name", "node1").wants(t, http.StatusUnprocessableEntity, "cannot declare itself stolen")
	key := a.State().Nodes["node3"].Key
	began := time.Now()
	alice.follow(alice.post("/cluster/stolen/node3", "name", "node3")).wants(t, http.StatusOK, "never let in again", "ca-1", "2 keys not dealt with")
	for _, n := range nodes[:2] {
		eventually(t, n.Name()+" refuses node3", func() bool {
			s := n.State()
			_, member := s.Nodes["node3"]
			open := slices.ContainsFunc(slices.Collect(maps.Values(s.Invites)), func(i cluster.Invite) bool { return i.Used == "" })
			return !member && !s.Trusts(n.Name(), "node3") && !open
		})
	}
	t.Logf("both other nodes refuse it after %v", time.Since(began).Round(time.Millisecond))
	eventually(t, "node3 finds out", func() bool { return !thief.Removed().IsZero() })
	if r, ok := a.State().Stolen[key]; !ok || r.Held != 2 {
		t.Fatalf("remembered: %+v", a.State().Stolen)
	}
	alice.get("/").wants(t, http.StatusOK, "2 keys of node3, which was stolen, are in strange hands")
	if csv := alice.get("/cluster/stolen.csv"); csv.status != http.StatusOK || strings.Count(csv.body, "node3,") != 2 || !strings.Contains(csv.body, "ca-2") {
		t.Errorf("csv: %d %s", csv.status, csv.body)
	}
	name := a.Thefts()[0].Held[0].Name
	alice.post("/cluster/stolen", "record", key, "key", "none").wants(t, http.StatusNotFound)
	alice.post("/cluster/stolen", "record", strings.Repeat("x", 5000)).wants(t, http.StatusBadRequest)
	alice.follow(alice.post("/cluster/stolen", "record", key, "key", name)).wants(t, http.StatusOK, "1 key not dealt with")
	s := newSocket(t, a.web)
	var list []node.Theft
	if s.ask(get, "/cluster/stolen", nil, http.StatusOK, &list); len(list) != 1 || list[0].Open != 1 || list[0].Held[0].Dealt.IsZero() {
		t.Errorf("the list: %+v", list)
	}
	s.refused(s.send(remove, "/cluster/nodes/node3?stolen=true", "", nil), http.StatusNotFound, "not_found")
	b, _ := json.Marshal(map[string]string{"record": key})
	if r := s.send(post, "/cluster/stolen", "application/json", strings.NewReader(string(b))); r.status != http.StatusNoContent {
		t.Errorf("settled: %d", r.status)
	}
	if r := a.State().Stolen[key]; r.Open() != 0 {
		t.Errorf("%d keys are open", r.Open())
	}
	if strings.Contains(alice.get("/").text(), "in strange hands") {
		t.Error("the problem stays")
	}
}
