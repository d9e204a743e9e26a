package webconf

import (
	"crypto/ecdsa"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
)

// keysPages are the page about replacing keys: nothing under way, mistakes, a change of the owner, and its end nowhere
// in sight.
func keysPages(v *situation, text string) (list []page) {
	ids := identitiesOf(v, text, func(int, int) (node.TrustEdge, bool) { return node.TrustEdge{}, false })
	show := func(f *form) {
		d := newKeysView(v.Node, ids)
		d.Again = d.Next != nil && len(d.Holders) == 0
		list = append(list, page{Name: "keys-replace", Title: "Replace keys", Nav: "/identity", Crumbs: []crumb{{"Identity and trust", "/identity"}}, Form: f, Data: d})
	}
	show(newForm("node", nil))
	made := newKeysView(v.Node, ids)
	made.Requested = strings.Repeat("0a", 32)
	list = append(list, page{Name: "keys-replace", Title: "Replace keys", Nav: "/identity", Form: newForm("node", map[string]string{"by": "elsewhere"}), Data: made})
	for _, name := range []string{"node", "owner"} {
		f := failed(name, text)
		f.fail("certificate", "%s", text)
		f.fail("name", "%s", text)
		show(f)
	}
	ids.Nodes[0].Changing = true
	show(newForm("node", nil))
	next := ids.Owner
	ids.Next, ids.Awaited = &next, v.names()[:1]
	show(newForm("node", nil))
	for i := range ids.Nodes {
		ids.Nodes[i].HoldsOwner = false
	}
	ids.Awaited = v.names()
	show(newForm("node", nil))
	list = append(list, page{Name: "identity", Title: "Identity and trust", Nav: "/identity", Data: newIdentityView(v.Node, ids)})
	return list
}

// keysByForm replaces the identity key of this node and the owner of the cluster, after what people do wrong.
func keysByForm(t *testing.T, a *appliance, alice, carl *browser) {
	t.Helper()
	name := a.Identity.ClusterName()
	before := a.State()
	carl.get("/identity/keys").wants(t, http.StatusForbidden)
	for _, path := range []string{"/identity/keys/node", "/identity/keys/owner", "/identity/keys/request"} {
		carl.post(path, "by", "cluster", "name", "node1").wants(t, http.StatusForbidden)
	}
	alice.get("/identity/keys").wants(t, http.StatusOK, "A new identity key for node1", before.Nodes["node1"].Key)
	chain := alice.get("/identity/nodes/node2/chain.pem").body
	for _, c := range []struct {
		path, want string
		fields     []string
	}{
		{"/identity/keys/node", "Type the name node1", []string{"by", "cluster", "name", "node2"}},
		{"/identity/keys/node", "Type the name node1", []string{"by", "cluster"}},
		{"/identity/keys/node", "Paste the certificate", []string{"by", "elsewhere", "name", "node1"}},
		{"/identity/keys/node", "There is a problem", []string{"by", "elsewhere", "name", "node1", "certificate", strings.Repeat("x", 5000)}},
		{"/identity/keys/node", "is for device", []string{"by", "elsewhere", "name", "node1", "certificate", chain}},
		{"/identity/keys/owner", "Type the name", []string{"by", "here", "name", name + "x"}},
		{"/identity/keys/owner", "Paste the certificate", []string{"by", "elsewhere", "name", name}},
		{"/identity/keys/owner", "no owner certificate", []string{"by", "elsewhere", "name", name, "certificate", chain}},
		{"/identity/keys/owner", "the owner that the cluster has", []string{"by", "elsewhere", "name", name, "certificate", alice.get("/identity/owner.pem").body}},
	} {
		alice.post(c.path, c.fields...).wants(t, http.StatusUnprocessableEntity, c.want)
	}
	if s := a.State(); s.Nodes["node1"].Key != before.Nodes["node1"].Key || s.Cluster.Next != nil {
		t.Fatal("a mistake has replaced something")
	}
	page := alice.post("/identity/keys/request", "by", "elsewhere")
	page.wants(t, http.StatusOK, "The new key is made", "Download its request")
	if r := alice.post("/identity/keys/request", "take", "file"); r.status != http.StatusOK || !strings.Contains(r.body, "BEGIN CERTIFICATE REQUEST") || !strings.Contains(r.header.Get("Content-Disposition"), "-new-key.csr") {
		t.Errorf("the request for a new key: %d %s", r.status, r.body)
	} else if csr, err := identity.DecodeRequest([]byte(r.body)); err != nil || !strings.Contains(page.body, keyPrint(csr)) {
		t.Errorf("the page does not show the SHA-256 of the key in the request: %v", err)
	}
	alice.follow(alice.post("/identity/keys/node", "by", "cluster", "name", "node1")).wants(t, http.StatusOK, "node1 has a new identity key")
	oldest, err := x509.ParseCertificate(a.State().Nodes["node1"].Past[0].Identity)
	if err != nil {
		t.Fatal(err)
	}
	kid, err := syncpkg.Thumbprint(oldest.PublicKey.(*ecdsa.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	now, past := alice.get("/cluster/nodes/node1/identity.jwk"), alice.get(identityKeyPath("node1", kid))
	if now.status != http.StatusOK || past.status != http.StatusOK || now.body == past.body {
		t.Errorf("the keys that signatures are verified with: %d %s, %d %s", now.status, now.body, past.status, past.body)
	}
	alice.get(identityKeyPath("node1", kid[1:])).wants(t, http.StatusNotFound, "has and had no identity key with that thumbprint")
	if s := a.State(); s.Nodes["node1"].Key == before.Nodes["node1"].Key || s.Nodes["node1"].Changing {
		t.Error("the key is the old one, or is still admitted")
	}
	alice.follow(alice.post("/identity/keys/owner", "by", "here", "name", name)).wants(t, http.StatusOK, "The owner is being replaced")
	eventually(t, "the owner is replaced", func() bool {
		s := a.State()
		return s.Cluster.Next == nil && string(s.Cluster.Owner) != string(before.Cluster.Owner)
	})
	alice.get("/identity/keys").wants(t, http.StatusOK, "A new owner for")
	if r := alice.get("/audit"); !strings.Contains(r.body, "Owner of the cluster replaced") || !strings.Contains(r.body, "New identity key for a node") {
		t.Error("the trail does not tell")
	}
	s := newSocket(t, a.web)
	s.refused(s.send(post, "/identity/owner", "application/json", strings.NewReader(`{"owner":"x"}`)), http.StatusBadRequest, "invalid")
	var ids node.Identities
	s.ask(post, "/identity/renew", map[string]bool{"new_key": true}, http.StatusOK, &ids)
	if len(ids.Nodes) == 0 || ids.Next != nil {
		t.Errorf("identities: %+v", ids)
	}
}
