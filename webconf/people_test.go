package webconf

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

const ottosPassword = "otto's own password"

var shownPassword = regexp.MustCompile(`<code class="code">([a-z2-9]{20})</code>`)

// temporary is the password that a page shows once.
func temporary(t testing.TB, r reply) string {
	t.Helper()
	m := shownPassword.FindStringSubmatch(r.body)
	if m == nil {
		t.Fatalf("%d, without a temporary password: %s", r.status, r.text())
	}
	return m[1]
}

// TestPeople goes through the life of an account: made, first log in, roles, disabled, removed.
func TestPeople(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	a.slot(t, "payments", cluster.Manual)
	a.slot(t, "tls", cluster.Manual)
	alice := a.loggedIn(t)
	for _, bad := range [][]string{{"name", "Otto"}, {"name", ""}, {"name", testAccount}, {"name", "otto", "role", "king"},
		{"name", "otto", "full_name", "a\x00b"}, {"name", "otto", "full_name", "\xff"}, {"name", "otto", "full_name", strings.Repeat("x", 101)},
		{"name", "otto", "role", cluster.CryptoUser, "slots-crypto-user", "none"}, {"name", "otto", "role", cluster.Auditor, "slots-auditor", "tls"}} {
		if r := alice.post("/new-person", bad...); r.status != http.StatusUnprocessableEntity || shownPassword.MatchString(r.body) {
			t.Errorf("%q: %d %s", bad, r.status, r.text())
		}
	}
	made := alice.post("/new-person", "name", "otto", "full_name", "Otto Normal", "role", cluster.CryptoUser, "slots-crypto-user", "payments")
	first := temporary(t, made)
	if strings.Contains(alice.get("/people/otto").body, first) {
		t.Error("the temporary password is shown again")
	}
	alice.get("/people").wants(t, http.StatusOK, "Otto Normal", "Crypto User of payments", "Temporary password")

	otto := a.browser(t)
	otto.post("/login", "name", "otto", "password", first).wants(t, http.StatusSeeOther)
	if r := otto.get("/slots"); r.location() != "/account" {
		t.Errorf("with a temporary password /slots leads to %q (%d)", r.location(), r.status)
	}
	otto.get("/account").wants(t, http.StatusOK, "Your password is temporary.")
	if page := otto.get("/account"); strings.Contains(page.body, `href="/coverage"`) || strings.Contains(page.body, `class="nodes"`) {
		t.Error("with a temporary password the page tells of the cluster")
	}
	otto.post("/account/password", "old", first, "new", first, "again", first).wants(t, http.StatusUnprocessableEntity, "the same")
	otto.post("/account/password", "old", first, "new", ottosPassword, "again", ottosPassword).wants(t, http.StatusSeeOther)
	otto.get("/slots").wants(t, http.StatusOK, "payments")

	otto.follow(otto.post("/slots/payments/deactivate")).wants(t, http.StatusOK, "is closed")
	otto.post("/slots/tls/deactivate").wants(t, http.StatusForbidden, "not for slot")
	otto.post("/slots/payments/mode", "mode", "generated", "old", testCode).wants(t, http.StatusForbidden)
	otto.get("/new-person").wants(t, http.StatusForbidden)
	otto.post("/people/otto", "role", cluster.SecurityOfficer).wants(t, http.StatusForbidden)
	if strings.Contains(otto.get("/people").body, "/new-person") {
		t.Error("a page offers what would be refused")
	}

	alice.follow(alice.post("/people/otto", "full_name", "Otto", "role", cluster.Auditor)).wants(t, http.StatusOK, "is saved", "Auditor")
	otto.post("/slots/payments/activate", "code", testCode).wants(t, http.StatusForbidden)
	alice.post("/people/"+testAccount, "role", cluster.SecurityOfficer).wants(t, http.StatusUnprocessableEntity, "nobody changes their own roles")
	alice.post("/people/"+testAccount+"/disable").wants(t, http.StatusUnprocessableEntity, "nobody changes their own roles")
	alice.post("/people/"+testAccount+"/remove", "name", testAccount).wants(t, http.StatusUnprocessableEntity, "is the one in use")

	alice.follow(alice.post("/people/otto/disable")).wants(t, http.StatusOK, "is disabled")
	otto.get("/").wants(t, http.StatusSeeOther)
	otto.post("/login", "name", "otto", "password", ottosPassword).wants(t, http.StatusUnauthorized)
	alice.follow(alice.post("/people/otto/enable")).wants(t, http.StatusOK, "is enabled again")
	otto.post("/login", "name", "otto", "password", ottosPassword).wants(t, http.StatusSeeOther)
	second := temporary(t, alice.post("/people/otto/password"))
	otto.get("/").wants(t, http.StatusSeeOther)
	otto.get("/login")
	otto.post("/login", "name", "otto", "password", ottosPassword).wants(t, http.StatusUnauthorized)
	alice.post("/people/otto/remove", "name", "ott").wants(t, http.StatusUnprocessableEntity, "Type the name otto")
	alice.follow(alice.post("/people/otto/remove", "name", "otto")).wants(t, http.StatusOK, "is removed")
	alice.get("/people/otto").wants(t, http.StatusNotFound)
	for _, secret := range []string{first, second, ottosPassword} {
		if strings.Contains(a.log.String(), secret) {
			t.Error("a password is in the log")
		}
	}
	apiPeopleTest(t, newSocket(t, a.web))
}

func apiPeopleTest(t *testing.T, s *socket) {
	t.Helper()
	var made passworded
	s.ask(post, "/people", node.NewPerson{Name: "dora", Roles: []cluster.RoleGrant{{Role: cluster.CryptoOfficer, Slots: []string{"tls"}}}}, http.StatusOK, &made)
	if len(made.Password) != 20 || !made.MustChange || made.Name != "dora" {
		t.Errorf("made %+v", made.Person)
	}
	var p node.Person
	s.ask(put, "/people/dora", map[string]any{"disabled": true}, http.StatusOK, &p)
	if !p.Disabled || len(p.Roles) != 1 {
		t.Errorf("disabled: %+v", p)
	}
	s.ask(put, "/people/dora", map[string]any{"roles": []cluster.RoleGrant{}, "full_name": "Dora"}, http.StatusOK, &p)
	if !p.Disabled || len(p.Roles) != 0 || p.FullName != "Dora" {
		t.Errorf("without roles: %+v", p)
	}
	for path, body := range map[string]string{"/people": `{"name":"Dora"}`, "/people/dora": `{"roles":[{"role":"king"}]}`} {
		method := map[bool]string{true: post, false: put}[path == "/people"]
		if r := s.send(method, path, "application/json", strings.NewReader(body)); r.status < 400 || r.status >= 500 {
			t.Errorf("%s %s: %d", path, body, r.status)
		}
	}
	s.refused(s.send(put, "/people/"+testAccount, "application/json", strings.NewReader(`{"roles":[]}`)), http.StatusConflict, "conflict")
	s.refused(s.send(remove, "/people/"+testAccount, "", nil), http.StatusConflict, "conflict")
	var again passworded
	s.ask(post, "/people/dora/password", struct{}{}, http.StatusOK, &again)
	if again.Password == made.Password || again.Password == "" {
		t.Error("the temporary password is not a new one")
	}
	s.ask(remove, "/people/dora", nil, http.StatusNoContent, nil)
	var list []node.Person
	s.ask(get, "/people", nil, http.StatusOK, &list)
	if len(list) != 1 || list[0].Name != testAccount {
		t.Errorf("people: %+v", list)
	}
	if r := s.send(get, "/people", "", nil); strings.Contains(r.body, "argon2") {
		t.Error("the API tells the hashes of passwords")
	}
}
