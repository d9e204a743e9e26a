package webconf

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"golang.org/x/crypto/argon2"
)

// colleague makes a person with the password of the tests, at a hash that costs nothing, and logs them in.
func (a *appliance) colleague(t testing.TB, name string, roles ...cluster.RoleGrant) *browser {
	t.Helper()
	salt, b64 := []byte("salt of a person"), base64.RawStdEncoding
	hash := fmt.Sprintf("$argon2id$v=19$m=8,t=1,p=1$%s$%s", b64.EncodeToString(salt), b64.EncodeToString(argon2.IDKey([]byte(testPassword), salt, 1, 8, 1, 32)))
	if _, err := a.Cluster.Apply(t.Context(), &cluster.PutAccount{Name: name, Roles: roles, Hash: hash, New: true}, root); err != nil {
		t.Fatal(err)
	}
	b := a.browser(t)
	if r := b.post("/login", "name", name, "password", testPassword); r.status != http.StatusSeeOther {
		t.Fatalf("login of %s: %d\n%s", name, r.status, r.text())
	}
	return b
}

var hashField = regexp.MustCompile(`name="hash" value="([0-9a-f]{64})"`)

// approves clicks on approve, on the page of a request.
func (b *browser) approves(path string) reply {
	b.t.Helper()
	r := b.get(path)
	m := hashField.FindStringSubmatch(r.body)
	if m == nil {
		b.t.Fatalf("nothing to approve on %s: %s", path, r.text())
	}
	return b.post(path+"/approve", "hash", m[1])
}

// TestApprovals: a policy, a request made by trying, who may approve, and what comes of it.
func TestApprovals(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	alice, officer := a.loggedIn(t), cluster.RoleGrant{Role: cluster.SecurityOfficer}
	bob, dora := a.colleague(t, "bob", officer), a.colleague(t, "dora", cluster.RoleGrant{Role: cluster.Auditor})
	for _, name := range []string{"ejbca", "nginx"} {
		if err := a.Apps.Put(t.Context(), root, cluster.App{Name: name, Slots: []string{}, Nodes: []string{}, Restart: cluster.Restart{Kind: cluster.RestartNone}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	alice.get("/approvals").wants(t, http.StatusOK, "Nothing needs approval")
	for _, bad := range [][]string{{"act", "app.remove", "needs", "0"}, {"act", "app.remove", "needs", "x"}, {"act", "app.remove", "needs", "-1"}, {"act", "fly", "needs", "1"},
		{"act", "app.remove", "needs", "5"}, {"act", "app.remove", "needs", "1", "role", "king"}} {
		if len(bad) == 4 {
			bad = append(bad, "role", cluster.SecurityOfficer)
		}
		if r := alice.post("/policies", bad...); r.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d", bad, r.status)
		}
	}
	dora.post("/policies", "act", "app.remove", "needs", "1", "role", cluster.Auditor).wants(t, http.StatusForbidden)
	alice.follow(alice.post("/policies", "act", "app.remove", "needs", "1", "role", cluster.SecurityOfficer)).wants(t, http.StatusOK, "From now on this needs approval: Remove an application.")

	r := alice.post("/applications/ejbca/remove", "name", "ejbca")
	request := r.location()
	alice.follow(r).wants(t, http.StatusOK, "This needs the approval of 1 person with the role security-officer", "It waits for others.")
	if again := alice.post("/applications/ejbca/remove", "name", "ejbca"); again.location() != request || !strings.HasPrefix(request, "/approvals/") {
		t.Errorf("the same again leads to %s, not to %s", again.location(), request)
	}
	bob.get("/").wants(t, http.StatusOK, "1 request")
	alice.post(request+"/approve", "hash", strings.Repeat("0", 64)).wants(t, http.StatusUnprocessableEntity, "another act")
	hash := a.State().Approvals[strings.TrimPrefix(request, "/approvals/")].Hash
	alice.post(request+"/approve", "hash", hash).wants(t, http.StatusForbidden, "cannot approve it")
	other := a.loggedIn(t)
	other.post(request+"/approve", "hash", hash).wants(t, http.StatusForbidden)
	dora.post(request+"/approve", "hash", hash).wants(t, http.StatusForbidden, "It takes the role")
	bob.get("/approvals").wants(t, http.StatusOK, "Remove an application", "ejbca app")
	bob.follow(bob.approves(request)).wants(t, http.StatusOK, "Your approval is recorded.", "Done with the last approval")
	if _, ok := a.State().Apps["ejbca"]; ok {
		t.Error("the application is there after the approval")
	}
	bob.post(request+"/approve", "hash", hash).wants(t, http.StatusUnprocessableEntity, "was used already")

	rejected := alice.post("/applications/nginx/remove", "name", "nginx").location()
	bob.follow(bob.post(rejected+"/reject", "reason", "it is <in> use")).wants(t, http.StatusOK, "it is &lt;in&gt; use")
	withdrawn := alice.post("/applications/nginx/remove", "name", "nginx").location()
	bob.post(withdrawn+"/withdraw").wants(t, http.StatusForbidden)
	alice.follow(alice.post(withdrawn+"/withdraw")).wants(t, http.StatusOK, "The request is withdrawn.")
	for _, path := range []string{"/approvals/none", "/approvals/none/approve", "/approvals/%00"} {
		if r := bob.get(path); r.status != http.StatusNotFound && r.status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", path, r.status)
		}
	}
	if _, ok := a.State().Apps["nginx"]; !ok {
		t.Error("an application is removed without approval")
	}
	apiApprovalsTest(t, a, newSocket(t, a.web), bob, alice)
	passwordsThatWait(t, a, alice, bob)
	invitationThatWaits(t, a, newSocket(t, a.web), alice, bob)
}

// apiApprovalsTest asks for approval at the console, which can never approve, and needs one more than people.
func apiApprovalsTest(t *testing.T, a *appliance, s *socket, bob, alice *browser) {
	t.Helper()
	m := s.refused(s.send(remove, "/applications/nginx", "", nil), http.StatusConflict, "needs_approval")
	if !strings.Contains(m, "2 people") {
		t.Errorf("it says %q", m)
	}
	var list []node.ApprovalView
	s.ask(get, "/approvals", nil, http.StatusOK, &list)
	one := list[0]
	if one.State != cluster.ApprovalWaiting || !one.Mine || one.MayDecide || one.Needs != 2 || one.Asker.Kind != cluster.ByConsole || !strings.Contains(one.Exactly, `"nginx"`) {
		t.Errorf("the request is %+v", one)
	}
	var v node.ApprovalView
	s.ask(post, "/approvals/"+one.ID+"/withdraw", struct{}{}, http.StatusOK, &v)
	if v.State != cluster.ApprovalWithdrawn {
		t.Errorf("withdrawn: %+v", v)
	}
	s.refused(s.send(remove, "/applications/nginx", "", nil), http.StatusConflict, "needs_approval")
	s.ask(get, "/approvals", nil, http.StatusOK, &list)
	bob.follow(bob.approves("/approvals/"+list[0].ID)).wants(t, http.StatusOK, "Waits: 1 of 2", "asked for at a console")
	alice.follow(alice.approves("/approvals/"+list[0].ID)).wants(t, http.StatusOK, "Done")
	if _, ok := a.State().Apps["nginx"]; ok {
		t.Error("what a console asked for was not done with the approval")
	}
	for _, bad := range []string{`{"needs":0,"role":"auditor"}`, `{"needs":1,"role":"x"}`, `{"needs":99,"role":"auditor"}`, `{"needs":"1"}`} {
		if r := s.send(put, "/policies/node.remove", "application/json", strings.NewReader(bad)); r.status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, r.status)
		}
	}
	var policies []cluster.Policy
	s.ask(put, "/policies/account.reset", map[string]any{"needs": 1, "role": cluster.SecurityOfficer}, http.StatusOK, &policies)
	if len(policies) != 2 {
		t.Errorf("policies: %+v", policies)
	}
	s.refused(s.send(remove, "/policies/account.reset", "", nil), http.StatusConflict, "needs_approval")
}

// passwordsThatWait: a temporary password is shown once, and is good once others have approved it.
func passwordsThatWait(t *testing.T, a *appliance, alice, bob *browser) {
	t.Helper()
	r := alice.post("/people/dora/password")
	r.wants(t, http.StatusOK, "good for nothing")
	password := temporary(t, r)
	request := ""
	for id, v := range a.State().Approvals {
		if v.Kind == "account.reset" && v.State == cluster.ApprovalWaiting {
			request = "/approvals/" + id
		}
	}
	page := bob.get(request)
	if strings.Contains(page.body, "argon2") || strings.Contains(page.body, password) {
		t.Error("the page of the request tells a password or its hash")
	}
	a.browser(t).post("/login", "name", "dora", "password", password).wants(t, http.StatusUnauthorized)
	bob.follow(bob.approves(request)).wants(t, http.StatusOK, "Done")
	if r := a.browser(t).post("/login", "name", "dora", "password", password); r.status != http.StatusSeeOther {
		t.Errorf("the approved password: %d %s", r.status, r.text())
	}
}

// invitationThatWaits: the code is in the one answer that there is, and its life begins with the approval.
func invitationThatWaits(t *testing.T, a *appliance, s *socket, alice, bob *browser) {
	t.Helper()
	if err := a.Approvals.SetPolicy(t.Context(), root, "invite.add", 1, cluster.SecurityOfficer, nil); err != nil {
		t.Fatal(err)
	}
	alice.post("/cluster/invitations", "node", "node8", "hours", "2").wants(t, http.StatusOK, "good for 2 h once it is approved", "Until then the code is good for nothing.")
	var first, i invited
	s.ask(post, "/cluster/invitations", map[string]any{"node": "node9", "hours": 3}, http.StatusAccepted, &first)
	s.ask(post, "/cluster/invitations", map[string]any{"node": "node9", "hours": 3}, http.StatusAccepted, &i)
	if i.Code == "" || i.Fingerprint == "" || !i.Expires.IsZero() || i.Seconds != 3*3600 || !strings.Contains(i.Waits, "2 people") {
		t.Errorf("the invitation is %+v", i)
	}
	hash, err := cluster.HashCode(i.Code)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := a.State().Invites[hash]; ok {
		t.Fatal("the invitation is good before it is approved")
	}
	var waiting []string
	for _, v := range a.Approvals.List(root) {
		if v.Act == "invite.add" && v.Detail == "node9" && v.State == cluster.ApprovalWaiting {
			waiting = append(waiting, v.ID)
		}
	}
	if len(waiting) != 1 {
		t.Fatalf("%d requests wait for one invitation", len(waiting))
	}
	bob.follow(bob.approves("/approvals/"+waiting[0])).wants(t, http.StatusOK, "Waits: 1 of 2")
	alice.follow(alice.approves("/approvals/"+waiting[0])).wants(t, http.StatusOK, "Done")
	if made := a.State().Invites[hash]; made.Expires.Sub(made.Created) != 3*time.Hour {
		t.Errorf("approved, the invitation is %+v", made)
	}
}
