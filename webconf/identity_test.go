package webconf

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// identitiesOf are identities of a situation's nodes in every state that there is. All trust each other, but
// for what gap says.
func identitiesOf(v *situation, text string, gap func(i, j int) (node.TrustEdge, bool)) node.Identities {
	states := []node.CertState{node.CertValid, node.CertExpiring, node.CertExpired, node.CertNotYet, node.CertForeign, node.CertNone}
	ids := node.Identities{Cluster: text, Owner: node.Certificate{Subject: "CN=Keyferry owner,O=" + text, Issuer: text, State: node.CertExpiring, Problem: text, NotBefore: v.Now, NotAfter: v.Now.Add(time.Hour), Fingerprint: strings.Repeat("AB:", 31) + "AB"}}
	names := v.names()
	for i, name := range names {
		n := node.NodeIdentity{Node: name, Serial: text, Key: "k", HoldsOwner: i == 0, Asked: true,
			Certificate: node.Certificate{Subject: text, Issuer: "CN=Keyferry owner,O=" + text, State: states[i%len(states)], Problem: text, NotBefore: v.Now, NotAfter: v.Now.Add(time.Hour), Fingerprint: strings.Repeat("AB:", 31) + "AB"}}
		for j, other := range names {
			if i == j {
				continue
			}
			if e, there := gap(i, j); there {
				if e.Removed.IsZero() {
					continue
				}
				e.Trusting, e.Trusted = name, other
				ids.Edges = append(ids.Edges, e)
				continue
			}
			n.Trusts = append(n.Trusts, other)
			ids.Edges = append(ids.Edges, node.TrustEdge{Trusting: name, Trusted: other, Since: v.Now, By: "account/" + text})
		}
		ids.Nodes = append(ids.Nodes, n)
	}
	for i := range ids.Nodes {
		for _, n := range ids.Nodes {
			if slices.Contains(n.Trusts, ids.Nodes[i].Node) {
				ids.Nodes[i].TrustedBy = append(ids.Nodes[i].TrustedBy, n.Node)
			}
		}
	}
	return ids
}

func identityPages(v *situation, text string) []page {
	full := func(int, int) (node.TrustEdge, bool) { return node.TrustEdge{}, false }
	some := func(i, j int) (node.TrustEdge, bool) {
		return node.TrustEdge{Since: v.Now, Removed: v.Now, By: "account/" + text}, i == 1 && j == 0
	}
	none := func(int, int) (node.TrustEdge, bool) { return node.TrustEdge{}, true }
	var list []page
	for _, gap := range []func(int, int) (node.TrustEdge, bool){full, some, none} {
		data := newIdentityView(v.Node, identitiesOf(v, text, gap))
		for _, f := range []*form{newForm("trust", nil), failed("trust", text), failed("renew", text)} {
			f.fail(map[string]string{"trust": "trusting", "renew": "certificate"}[f.Name], "%s", text)
			list = append(list, page{Name: "identity", Title: "Identity and trust", Nav: "/identity", Form: f, Data: data})
		}
	}
	many := plainSituation(mostMatrix+1, 0, 0)
	list = append(list, page{Name: "identity", Title: "Identity and trust", Nav: "/identity", Data: newIdentityView(v.Node, identitiesOf(many, text, some))})
	s := node.Severed{Trusting: "node2", Trusted: "node1", Edge: node.TrustEdge{Since: v.Now, By: "account/" + text}, Mutual: true, Lacks: 3, Only: 1, Got: 7,
		Slots:    []node.SeveredSlot{{Slot: text, Lacks: 3, Only: 1, Got: 7, Ways: []string{"node3"}}, {Slot: "other"}},
		Packages: []node.SeveredPackage{{ID: fmt.Sprintf("%032x", 1), SHA256: fmt.Sprintf("%064x", 1), Slot: text, Keys: 3, Created: v.Now, Expires: v.Now.Add(time.Hour)}}}
	for _, one := range []node.Severed{s, {Trusting: "node2", Trusted: "node1"}, {Trusting: "node2", Trusted: "node1", Lacks: 2, Slots: s.Slots[:1]}} {
		list = append(list, page{Name: "trust", Title: "Trust", Nav: "/identity", Crumbs: []crumb{{"Identity and trust", "/identity"}}, Data: newSeveredView(one)})
	}
	return list
}

// TestTrustGraph: boxes lie in the drawing and apart, lines end at them, and one-way trust points at who is trusted.
func TestTrustGraph(t *testing.T) {
	oneWay := func(i, j int) (node.TrustEdge, bool) { return node.TrustEdge{}, i == 1 && j == 0 }
	for n := 1; n <= mostDrawn+1; n++ {
		ids := identitiesOf(plainSituation(n, 0, 0), "text", oneWay)
		g := newTrustGraph(ids, "node1")
		if (g == nil) != (n == 1 || n > mostDrawn) {
			t.Fatalf("%d nodes: %+v", n, g)
		}
		if g == nil {
			continue
		}
		for i, a := range g.Nodes {
			if a.Left() < 0 || a.Top() < 0 || a.Left()+boxWidth > g.Width || a.Top()+boxHeight > g.Height {
				t.Errorf("%d nodes: %s is outside", n, a.Name)
			}
			for _, b := range g.Nodes[i+1:] {
				if max(a.X-b.X, b.X-a.X) < boxWidth && max(a.Y-b.Y, b.Y-a.Y) < boxHeight {
					t.Errorf("%d nodes: %s and %s overlap", n, a.Name, b.Name)
				}
			}
		}
		if one := len(g.Lines) - g.Mutual; one != 1 || g.Mutual != n*(n-1)/2-1 {
			t.Errorf("%d nodes: %d lines one way, %d both", n, one, g.Mutual)
		}
		for _, l := range g.Lines {
			if !l.Mutual && (l.From != "node1" || l.To != "node2") {
				t.Errorf("%d nodes: the trust of %s in %s", n, l.From, l.To)
			}
			for _, b := range g.Nodes { // no line runs through a box that it does not belong to
				if b.Name != l.From && b.Name != l.To && through(l, b) {
					t.Errorf("%d nodes: the line from %s to %s runs through %s", n, l.From, l.To, b.Name)
				}
			}
		}
		if text := g.Text(); !strings.Contains(text, "One way only: node1 from node2.") {
			t.Errorf("%d nodes: %s", n, text)
		}
	}
}

// through tells whether a line passes through a box.
func through(l graphLine, b graphNode) bool {
	for i := range 200 {
		x, y := l.X1+(l.X2-l.X1)*i/200, l.Y1+(l.Y2-l.Y1)*i/200
		if x > b.Left() && x < b.Left()+boxWidth && y > b.Top() && y < b.Top()+boxHeight {
			return true
		}
	}
	return false
}

// TestIdentityProblems: people hear of certificates that they have to replace, in time and after.
func TestIdentityProblems(t *testing.T) {
	v := plainSituation(3, 1, 1)
	day := 24 * time.Hour
	v.OwnerEnds = v.Now.Add(91 * day)
	v.IdentityEnds = map[string]time.Time{"node1": v.Now.Add(91 * day), "node2": v.Now.Add(89 * day), "node3": v.Now.Add(-day)}
	list := v.problems()
	if len(list) != 2 || list[0].Severity != bad || !strings.Contains(list[0].Text, "node3 has ended") || list[1].Severity != warn || !strings.Contains(list[1].Text, "node2 ends in 89 days") {
		t.Errorf("%+v", list)
	}
	v.IdentityEnds, v.OwnerEnds = nil, v.Now.Add(30*day)
	if list := v.problems(); len(list) != 1 || !strings.Contains(list[0].Text, "owner certificate of the cluster ends in 30 days") {
		t.Errorf("%+v", list)
	}
}

// TestIdentityPages makes and removes trust in a real cluster, by forms and by the API, alone and with approvals.
func TestIdentityPages(t *testing.T) {
	nodes := newCluster(t, 2)
	a := nodes[0]
	a.administrator(t)
	a.slot(t, "payments", cluster.Generated)
	nodes[1].slot(t, "payments", cluster.Generated)
	alice, bob := a.loggedIn(t), a.colleague(t, "bob", cluster.RoleGrant{Role: cluster.SecurityOfficer})
	carl := a.colleague(t, "carl", cluster.RoleGrant{Role: cluster.CryptoOfficer})
	alice.get("/identity").wants(t, http.StatusOK, "Every node takes packages from every other", "holds the owner key itself", "Valid")
	const edge = "/identity/trust/node2/node1"
	alice.get(edge).wants(t, http.StatusOK, "What stops without it", "payments", "nobody", "node1 goes on taking packages from node2", "Remove the trust of node2 in node1")
	if strings.Contains(carl.get(edge).text(), "Remove the trust of") {
		t.Error("a crypto officer is offered to remove trust")
	}
	for _, gone := range []string{"/identity/trust/node2/node9", "/identity/trust/node9/node1", "/identity/trust/node1/node1", "/identity/nodes/node9/chain.pem"} {
		alice.get(gone).wants(t, http.StatusNotFound)
	}
	carl.post(edge+"/remove").wants(t, http.StatusForbidden)
	alice.follow(alice.post(edge+"/remove")).wants(t, http.StatusOK, "node2 takes nothing from node1 any more", "Removed", "by alice", "1 trust of 2 is missing")
	alice.get(edge).wants(t, http.StatusNotFound, "does not trust")
	for _, wrong := range [][]string{{"trusting", "node2"}, {"trusting", "node2", "trusted", "node9"}, {"trusting", "node2", "trusted", "node2"}, {"trusting", "node1", "trusted", "node2"}} {
		alice.post("/identity/trust", wrong...).wants(t, http.StatusUnprocessableEntity, "There is a problem")
	}
	carl.post("/identity/trust", "trusting", "node2", "trusted", "node1").wants(t, http.StatusForbidden)
	alice.follow(alice.post("/identity/trust", "trusting", "node2", "trusted", "node1")).wants(t, http.StatusOK, "node2 takes packages from node1 from now on")
	identityFiles(t, alice)
	renewByForm(t, a, alice, carl)
	keysByForm(t, a, alice, carl)
	identityAPI(t, a)
	if err := a.Approvals.SetPolicy(t.Context(), root, "trust.set", 1, cluster.SecurityOfficer, nil); err != nil {
		t.Fatal(err)
	}
	request := alice.post(edge + "/remove").location()
	if !a.State().Trusts("node2", "node1") {
		t.Fatal("the trust is removed before it is approved")
	}
	bob.follow(bob.approves(request)).wants(t, http.StatusOK, "Done")
	if a.State().Trusts("node2", "node1") {
		t.Error("the trust is there after the approval")
	}
}

// renewByForm certifies the node anew, and tries it with what is no certificate of its own.
func renewByForm(t *testing.T, a *appliance, alice, carl *browser) {
	t.Helper()
	before := a.State().Nodes["node1"].Identity
	carl.post("/identity/renew", "by", "cluster").wants(t, http.StatusForbidden)
	carl.get("/identity/request.csr").wants(t, http.StatusForbidden)
	if r := alice.get("/identity/request.csr"); r.status != http.StatusOK || !strings.Contains(r.body, "BEGIN CERTIFICATE REQUEST") {
		t.Errorf("the request: %d %s", r.status, r.body)
	} else if csr, err := identity.DecodeRequest([]byte(r.body)); err != nil {
		t.Error(err)
	} else { // what people compare is beside it
		alice.get("/identity").wants(t, http.StatusOK, fmt.Sprintf("%x", sha256.Sum256(csr.RawSubjectPublicKeyInfo)))
	}
	alice.post("/identity/renew", "by", "elsewhere").wants(t, http.StatusUnprocessableEntity, "Paste the certificate that came back")
	alice.post("/identity/renew", "by", "elsewhere", "certificate", "no certificate").wants(t, http.StatusUnprocessableEntity, "There is a problem")
	alice.post("/identity/renew", "by", "elsewhere", "certificate", alice.get("/identity/nodes/node2/chain.pem").body).wants(t, http.StatusUnprocessableEntity, "is for device")
	if string(a.State().Nodes["node1"].Identity) != string(before) {
		t.Fatal("something was replaced")
	}
	alice.follow(alice.post("/identity/renew", "by", "cluster")).wants(t, http.StatusOK, "The identity of node1 is certified anew", "Valid")
	s := newSocket(t, a.web)
	s.refused(s.send(post, "/identity/renew", "application/json", strings.NewReader(`{"identity":"x"}`)), http.StatusBadRequest, "invalid")
	var request map[string]string
	if s.ask(post, "/identity/request", struct{}{}, http.StatusOK, &request); !strings.Contains(request["request"], "BEGIN CERTIFICATE REQUEST") {
		t.Errorf("the request: %v", request)
	}
	if string(a.State().Nodes["node1"].Identity) == string(before) {
		t.Error("the certificate is the old one")
	}
}

func identityFiles(t *testing.T, b *browser) {
	t.Helper()
	owner, chain := b.get("/identity/owner.pem"), b.get("/identity/nodes/node2/chain.pem")
	if owner.status != http.StatusOK || strings.Count(owner.body, "BEGIN CERTIFICATE") != 1 || owner.header.Get("Content-Type") != pemType {
		t.Errorf("owner.pem: %d %v", owner.status, owner.header)
	}
	if strings.Count(chain.body, "BEGIN CERTIFICATE") != 2 || !strings.HasSuffix(chain.body, owner.body) || !strings.Contains(chain.header.Get("Content-Disposition"), "node2-chain.pem") {
		t.Errorf("chain.pem: %d %v %s", chain.status, chain.header, chain.body)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"owner.pem": owner.body, "chain.pem": chain.body} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(hsmtest.Tool(t, "openssl"), "verify", "-x509_strict", "-CAfile", "owner.pem", "chain.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

func identityAPI(t *testing.T, a *appliance) {
	t.Helper()
	s := newSocket(t, a.web)
	var ids node.Identities
	s.ask(get, "/identity", nil, http.StatusOK, &ids)
	if len(ids.Nodes) != 2 || len(ids.Edges) != 2 || ids.Owner.State != node.CertValid || ids.Nodes[1].Certificate.State != node.CertValid || !slices.Equal(ids.Nodes[1].Trusts, []string{"node1"}) ||
		!slices.Equal(ids.Nodes[1].TrustedBy, []string{"node1"}) || !ids.Nodes[0].HoldsOwner || ids.Nodes[1].HoldsOwner {
		t.Errorf("identities: %+v", ids)
	}
	const edge = "/identity/trust/node2/node1"
	var severed node.Severed
	s.ask(get, edge, nil, http.StatusOK, &severed)
	if !severed.Mutual || len(severed.Slots) != 1 || severed.Slots[0].Slot != "payments" {
		t.Errorf("severed: %+v", severed)
	}
	if r := s.send(remove, edge, "", nil); r.status != http.StatusNoContent || a.State().Trusts("node2", "node1") {
		t.Errorf("removed: %d %s", r.status, r.body)
	}
	s.refused(s.send(remove, edge, "", nil), http.StatusNotFound, "not_found")
	s.refused(s.send(get, edge, "", nil), http.StatusNotFound, "not_found")
	s.refused(s.send(put, "/identity/trust/node1/node1", "application/json", strings.NewReader("{}")), http.StatusBadRequest, "invalid")
	s.refused(s.send(put, "/identity/trust/node1/node9", "application/json", strings.NewReader("{}")), http.StatusNotFound, "not_found")
	if r := s.send(put, edge, "application/json", strings.NewReader("{}")); r.status != http.StatusNoContent || !a.State().Trusts("node2", "node1") {
		t.Errorf("made: %d %s", r.status, r.body)
	}
}
