package webconf

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

const testPassphrase = "a passphrase to share"

// TestCustodianForms enters what people enter wrong on the pages about shares and activation.
func TestCustodianForms(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	a.slot(t, "CA", cluster.Manual)
	refused := func(path, want string, fields ...string) {
		t.Helper()
		r := b.post(path, fields...)
		if r.status != http.StatusUnprocessableEntity || !strings.Contains(unescape(r.text()), want) {
			t.Errorf("%s %v: %d %s", path, fields, r.status, r.text())
		}
		for _, secret := range []string{testPassphrase, testCode} {
			if strings.Contains(r.body, secret) {
				t.Errorf("%s %v: a secret is shown again", path, fields)
			}
		}
	}
	const account, custody = "/account/custodian", "/slots/CA/custody"
	refused(account, "at least 12", "new", "short", "again", "short")
	refused(account, "not valid UTF-8", "new", testPassphrase+"\xff", "again", testPassphrase+"\xff")
	refused(account, "at most", "new", strings.Repeat("x", 2000), "again", strings.Repeat("x", 2000))
	refused(account, "The two entries of the new passphrase differ.", "new", testPassphrase, "again", testPassphrase+"x")
	b.follow(b.post(account, "new", testPassphrase, "again", testPassphrase)).wants(t, http.StatusOK, "You are a custodian")
	refused(account, "passphrase is wrong", "old", "not the old one", "new", testPassphrase, "again", testPassphrase)
	refused(account, "to confirm", "what", "replace", "name", "bob", "new", testPassphrase, "again", testPassphrase)
	refused(account, "password", "what", "replace", "name", testAccount, "new", testPassphrase, "again", testPassphrase)
	refused(account, "password is wrong", "what", "replace", "name", testAccount, "password", "not the password", "new", testPassphrase, "again", testPassphrase)
	b.follow(b.post(account, "old", testPassphrase, "new", "another passphrase", "again", "another passphrase")).wants(t, http.StatusOK, "Your custodian passphrase is changed.")
	b.follow(b.post(account, "what", "replace", "name", testAccount, "password", testPassword, "new", testPassphrase, "again", testPassphrase)).wants(t, http.StatusOK, "You have a new custodian key.")
	b.follow(b.post(account, "old", testPassphrase, "new", "another passphrase", "again", "another passphrase")).wants(t, http.StatusOK, "Your custodian passphrase is changed.")

	refused(custody, "at least two custodians", "threshold", "2", "holder", testAccount)
	refused(custody, "at least two custodians", "threshold", "2")
	refused(custody, "named twice", "threshold", "2", "holder", testAccount, "holder", testAccount)
	refused(custody, "here is no account", "threshold", "2", "holder", testAccount, "holder", evil)
	refused(custody, "how many", "threshold", "some", "holder", testAccount)
	refused(custody, "has no custodians yet", "what", "replace", "threshold", "2", "holder", testAccount)
	refused(custody+"/withdraw", "has no custodians")
	refused(custody+"/leave", "is not shared", "mode", "generated")
	refused("/slots/CA/prepare", "has no custodians", "code", testCode)
	b.get("/slots/nowhere/custody").wants(t, http.StatusNotFound, "no slot")

	b.get("/activate").wants(t, http.StatusOK, "Nothing waits for anybody")
	refused("/activate", "Enter a code, or your custodian passphrase")
	refused("/activate", "is not closed on any", codeField("CA", ""), testCode)
	refused("/activate", "here is no slot", codeField(evil, ""), testCode)
	refused("/activate", "passphrase is wrong", "passphrase", testPassphrase)
	refused("/activate", "Enter a code", "code.!!!.node1", testCode) // no field of this page
	if err := a.Slots.Deactivate(t.Context(), root, "CA"); err != nil {
		t.Fatal(err)
	}
	b.get("/activate").wants(t, http.StatusOK, "Code of CA")
	job := b.post("/activate", codeField("CA", ""), "not the code").location()
	eventually(t, "the wrong code is refused", func() bool { return strings.Contains(b.get(job).text(), "it was tried once") })
	job = b.post("/activate", codeField("CA", ""), testCode).location()
	eventually(t, "the slot is open", func() bool { return strings.Contains(b.get(job).text(), "CA node1 Open") })
}
