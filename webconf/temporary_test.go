package webconf

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestTemporaryPassword: with it there is no form, and no route, that leaves a way back for whoever set it.
// The routes do not even look at the password.
func TestTemporaryPassword(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	alice := a.loggedIn(t)
	a.colleague(t, "bob", cluster.RoleGrant{Role: cluster.Auditor})
	cert := clientCertificate(t, "Bob", nil).Certificate[0]
	alice.uploadCertificate("/people/bob/login/certificates", cert, "password", testPassword).wants(t, http.StatusSeeOther)
	password := temporary(t, alice.post("/people/bob/password"))
	thief := a.browser(t)
	thief.post("/login", "name", "bob", "password", password).wants(t, http.StatusSeeOther)
	page := thief.get("/account")
	page.wants(t, http.StatusOK, "Your password is temporary.")
	forms := []string{`id="add-totp"`, `id="add-passkey"`, `id="add-certificate"`, `id="custodian"`, "/account/remove/"}
	for _, form := range forms {
		if strings.Contains(page.body, form) {
			t.Errorf("the page has the form %s", form)
		}
	}
	remove := "/account/remove/certificate/" + a.State().Accounts["bob"].Certificates[0].Fingerprint
	before := a.State().Accounts["bob"]
	for what, r := range map[string]reply{
		"totp": thief.post("/account/totp", "password", password), "totp code": thief.post("/account/totp/finish", "code", "123456"),
		"passkey": thief.post("/account/passkeys", "password", password, "name", "mine"), "passkey answer": thief.post("/account/passkeys/finish", "answer", "{}"),
		"certificate": thief.uploadCertificate("/account/certificates", clientCertificate(t, "Thief", nil).Certificate[0], "password", password),
		"custodian":   thief.post("/account/custodian", "new", "a long passphrase", "again", "a long passphrase"),
		"remove page": thief.get(remove), "remove": thief.post(remove, "password", password),
	} {
		if r.status != http.StatusSeeOther || r.location() != "/account" {
			t.Errorf("%s: %d to %q: %.200s", what, r.status, r.location(), r.text())
		}
	}
	after := a.State().Accounts["bob"]
	if len(after.TOTP.Sealed) > 0 || len(after.Passkeys) > 0 || len(after.Certificates) != len(before.Certificates) || len(a.State().Custodians) > 0 {
		t.Errorf("with a temporary password the account got %+v", after.Factors)
	}
	a.unhurried()
	thief.post("/account/password", "old", password, "new", ottosPassword, "again", ottosPassword).wants(t, http.StatusSeeOther)
	page = thief.get("/account")
	for _, form := range forms {
		if !strings.Contains(page.body, form) {
			t.Errorf("with a password of one's own there is no form %s", form)
		}
	}
	thief.get(remove).wants(t, http.StatusOK)
}

// TestOwnAccountAmongPeople: who manages accounts cannot go around the question for their own password by
// the pages about other people.
func TestOwnAccountAmongPeople(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	cert := clientCertificate(t, "Alice", nil).Certificate[0]
	b.uploadCertificate("/account/certificates", cert, "password", testPassword, "name", "card").wants(t, http.StatusSeeOther)
	base := "/people/" + testAccount + "/login"
	remove := base + "/remove/certificate/" + a.State().Accounts[testAccount].Certificates[0].Fingerprint
	const own = "how you log in is on the page"
	b.get(remove).wants(t, http.StatusConflict, own)
	b.post(remove, "name", testAccount).wants(t, http.StatusConflict, own)
	b.uploadCertificate(base+"/certificates", cert, "password", testPassword).wants(t, http.StatusConflict, own)
	for _, path := range []string{"/unlock", "/sessions/end", "/sessions/end-all"} {
		b.post(base+path, "node", "node1").wants(t, http.StatusConflict, own)
	}
	if n := len(a.State().Accounts[testAccount].Certificates); n != 1 {
		t.Errorf("%d certificates are left", n)
	}
	b.get("/account").wants(t, http.StatusOK, "Certificate card")
}
