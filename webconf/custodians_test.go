package webconf

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
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
	a.slot(t, "tls", cluster.Generated)
	auditor, other := a.colleague(t, "dora", cluster.RoleGrant{Role: cluster.Auditor}), a.colleague(t, "otto", cluster.RoleGrant{Role: cluster.CryptoUser, Slots: []string{"tls"}})
	auditor.get("/activate").wants(t, http.StatusOK, "A crypto officer or a crypto user opens them")
	auditor.get(custody).wants(t, http.StatusOK, "A security officer says who the custodians are")
	other.get("/activate").wants(t, http.StatusOK, "Your role is for other slots")
	for path, r := range map[string]reply{"/activate": auditor.get("/activate"), custody: auditor.get(custody)} {
		if strings.Contains(r.body, `action="`+path) {
			t.Errorf("%s offers an auditor a form", path)
		}
	}
	job := b.post("/activate", codeField("CA", ""), "not the code").location()
	eventually(t, "the wrong code is refused", func() bool { return strings.Contains(b.get(job).text(), "it was tried once") })
	job = b.post("/activate", codeField("CA", ""), testCode).location()
	eventually(t, "the slot is open", func() bool { return strings.Contains(b.get(job).text(), "CA node1 Open") })
}

// TestCustodianAtTheConsole: on the socket everybody is the console, until a password or a passphrase has
// proved who it is. The audit trail must not name people who were not there.
func TestCustodianAtTheConsole(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	s := newSocket(t, a.web)
	set := func(password string) reply {
		b, err := json.Marshal(map[string]any{"password": []byte(password), "new": []byte(testPassphrase)})
		if err != nil {
			t.Fatal(err)
		}
		return s.send(put, "/custodians/"+testAccount, "application/json", bytes.NewReader(b))
	}
	if r := set("not the password"); r.status != http.StatusUnauthorized {
		t.Errorf("a wrong password: %d %s", r.status, r.body)
	}
	if r := set(testPassword); r.status != http.StatusOK {
		t.Fatalf("the password: %d %s", r.status, r.body)
	}
	give := func(passphrase string, status int) {
		t.Helper()
		s.ask(post, "/activate", map[string]any{"account": testAccount, "passphrase": []byte(passphrase)}, status, nil)
	}
	give("not the passphrase", http.StatusConflict)
	give(testPassphrase, http.StatusAccepted)
	change := func(old, passphrase string, status int) {
		t.Helper()
		s.ask(put, "/custodians/"+testAccount, map[string]any{"old": []byte(old), "new": []byte(passphrase)}, status, nil)
	}
	change("not the passphrase", "a new passphrase", http.StatusConflict)
	change(testPassphrase, "a new passphrase", http.StatusOK)
	change("a new passphrase", testPassphrase, http.StatusOK)
	refused := 0
	who := map[string]string{}
	for _, e := range a.State().Audit {
		who[e.Act] = e.Actor.String() + " " + e.Object + " " + e.Result
		if e.Act == cluster.NoteShareRefused {
			refused++
		}
	}
	if refused != 2 {
		t.Errorf("%d wrong passphrases are recorded, want 2", refused)
	}
	if e, ok := who[cluster.NoteLogin]; ok {
		t.Errorf("a login is recorded, though nobody logged in: %s", e)
	}
	me := cluster.Actor{Kind: cluster.ByConsole, Name: userName(uint32(os.Getuid()))}
	for act, want := range map[string]string{
		"custodian.put":          "account/" + testAccount + " account/" + testAccount + " done",
		cluster.NoteShareRefused: me.String() + " account/" + testAccount + " refused",
	} {
		if who[act] != want {
			t.Errorf("%s is recorded as %q, want %q", act, who[act], want)
		}
	}
	if _, err := a.Custody.Activate(t.Context(), cluster.Actor{Kind: cluster.ByAccount, Name: "bob"}, node.Activation{As: testAccount, Passphrase: []byte(testPassphrase)}); !node.IsRefusal(err) {
		t.Errorf("somebody who is logged in gives another's share: %v", err)
	}

	// With one-time passwords the password alone proves nothing.
	b := a.loggedIn(t)
	secret := secretOf(t, b.post("/account/totp", "password", testPassword))
	b.post("/account/totp/finish", "code", codeAt(t, secret, time.Now())).wants(t, http.StatusSeeOther)
	if r := set(testPassword); r.status != http.StatusConflict || !strings.Contains(r.body, "one-time passwords") {
		t.Errorf("with one-time passwords: %d %s", r.status, r.body)
	}
}
