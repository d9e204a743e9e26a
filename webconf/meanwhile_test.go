package webconf

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

var hiddenField = regexp.MustCompile(`<input type="hidden" name="(version[^"]*)" value="(\d+)">`)

// versions are the hidden fields of a page that say what its forms show.
func versions(t *testing.T, r reply) (fields []string) {
	t.Helper()
	for _, m := range hiddenField.FindAllStringSubmatch(r.body, -1) {
		fields = append(fields, m[1], m[2])
	}
	return fields
}

// TestTwoEditAtOnce: the second of two officers who have the same form open is told who was first, sees what
// there is now, and undoes nothing.
func TestTwoEditAtOnce(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	a.slot(t, "payments", cluster.Manual)
	alice, bob := a.loggedIn(t), a.colleague(t, "bob", cluster.RoleGrant{Role: cluster.SecurityOfficer}, cluster.RoleGrant{Role: cluster.CryptoOfficer})
	a.colleague(t, "otto")
	app := []string{"name", "ejbca", "kind", "none", "delivery", "none"}
	alice.post("/new-application", app...).wants(t, http.StatusSeeOther)
	bob.post("/new-application", app...).wants(t, http.StatusUnprocessableEntity, "There is an application")
	set := []string{"act", "node.remove", "role", cluster.SecurityOfficer}
	for _, c := range []struct {
		page, path  string
		first, late []string
		says, shows string
	}{
		{"/people/otto", "/people/otto", []string{"full_name", "Otto", "role", cluster.Auditor}, []string{"full_name", "Otto N.", "role", cluster.CryptoUser}, "otto", `value="Otto"`},
		{"/applications/ejbca", "/applications/ejbca", []string{"slots", "payments", "kind", "none", "delivery", "none"}, []string{"kind", "command", "target", "restart-ok", "delivery", "none"}, "ejbca", `value="payments" checked`},
		{"/policies", "/policies", append(set, "needs", "1"), append(set, "needs", "2"), "node.remove", "1 approval by"},
	} {
		saw := versions(t, bob.get(c.page))
		if c.page != "/policies" && len(saw) != 2 {
			t.Fatalf("%s: the page has the versions %v", c.page, saw)
		}
		alice.post(c.path, append(c.first, saw...)...).wants(t, http.StatusSeeOther)
		r := bob.post(c.path, append(c.late, saw...)...)
		r.wants(t, http.StatusConflict, c.says, "meanwhile by alice", "nothing was done")
		if !strings.Contains(r.body, c.shows) {
			t.Errorf("%s does not show what there is now: %s", c.page, r.text())
		}
		if again := versions(t, r); len(again) == 0 || again[1] == "" || len(saw) > 0 && again[1] == saw[1] {
			t.Errorf("%s: the page that is shown then has the versions %v", c.page, again)
		}
	}
	if otto := a.State().Accounts["otto"]; otto.FullName != "Otto" || !otto.Has(cluster.Auditor) {
		t.Errorf("the account: %+v", otto)
	}
	// A crypto officer is not offered ways to hand out codes, and keeps the one that there is.
	cora := a.colleague(t, "cora", cluster.RoleGrant{Role: cluster.CryptoOfficer})
	cora.get("/new-application").wants(t, http.StatusOK, "How it gets the codes of its slots: not from Keyferry")
	codes := []string{"kind", "none", "delivery", "file", "owner", "root", "manual", "yes"}
	alice.post("/applications/ejbca", append(codes, versions(t, alice.get("/applications/ejbca"))...)...).wants(t, http.StatusSeeOther)
	page := cora.get("/applications/ejbca")
	page.wants(t, http.StatusOK, "How it gets the codes of its slots: in files")
	if strings.Contains(page.body, `type="radio" name="delivery"`) {
		t.Error("a crypto officer is offered ways to hand out codes")
	}
	var kept []string
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`).FindAllStringSubmatch(page.body, -1) {
		kept = append(kept, m[1], m[2])
	}
	cora.post("/applications/ejbca", append(kept, "kind", "none")...).wants(t, http.StatusSeeOther)
	if d := a.State().Apps["ejbca"].Delivery; d.Kind != cluster.DeliverFile || d.Owner != "root" || !d.Manual {
		t.Errorf("after a crypto officer saved it, the application is given codes so: %+v", d)
	}

	bob.post("/people/otto", "full_name", "Otto", "version", "x").wants(t, http.StatusUnprocessableEntity, "open its page again")
	bob.post("/people/otto", append([]string{"full_name", "Otto N."}, versions(t, bob.get("/people/otto"))...)...).wants(t, http.StatusSeeOther)
}
