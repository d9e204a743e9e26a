package webconf

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// TestFirstStart: the page for the first administrator is there until there is one.
func TestFirstStart(t *testing.T) {
	a := newCluster(t, 1)[0]
	b := a.browser(t)
	for _, path := range []string{"/", "/login", "/slots"} {
		if r := b.get(path); r.status != http.StatusSeeOther || r.location() != "/setup" {
			t.Errorf("%s: %d to %q", path, r.status, r.location())
		}
	}
	code, err := a.Accounts.NewFirstCode()
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, err := a.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	b.get("/setup").wants(t, http.StatusOK, "Make the first administrator", fingerprint)
	for _, c := range []struct {
		code, name, password, again, want string
	}{
		{code, "alice", testPassword, testPassword + "x", "The two entries of the password differ."},
		{code, "alice", "short", "short", "The password has 5 characters; it needs at least 12."},
		{code, "Alice Liddell", testPassword, testPassword, `Account name "Alice Liddell" is not valid`},
		{"0000-0000-0000-0000-0000", "alice", testPassword, testPassword, "That is not the one-time code"},
		{"not a code", "alice", testPassword, testPassword, "That is not the one-time code"},
	} {
		r := b.post("/setup", "code", c.code, "name", c.name, "password", c.password, "again", c.again)
		if r.status != http.StatusUnprocessableEntity || !strings.Contains(r.text(), "There is a problem") || !strings.Contains(r.body, "Error: ") {
			t.Errorf("%+v: %d", c, r.status)
		}
		if n := strings.Count(unescape(r.text()), c.want); n != 2 { // in the summary, and at the field
			t.Errorf("%+v: %d times %q in %s", c, n, c.want, r.text())
		}
		if strings.Contains(r.body, c.password) || strings.Contains(r.body, c.code) || !strings.Contains(unescape(r.body), `value="`+c.name+`"`) {
			t.Errorf("%+v: secrets are shown again, or the name is not", c)
		}
	}
	b.follow(b.post("/setup", "code", strings.ToLower(code), "name", "alice", "password", testPassword, "again", testPassword)).wants(t, http.StatusOK, "Status of node1", "alice")
	if r := b.get("/setup"); r.status != http.StatusSeeOther || r.location() != "/login" {
		t.Errorf("setup is still there: %d", r.status)
	}
	a.browser(t).post("/setup", "code", code, "name", "mallory", "password", testPassword, "again", testPassword).wants(t, http.StatusNotFound)
	if strings.Contains(a.log.String(), testPassword) || strings.Contains(a.log.String(), code) {
		t.Error("a secret is in the log")
	}
}

func unescape(s string) string {
	return strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&amp;", "&", "&lt;", "<", "&gt;", ">").Replace(s)
}

// TestSlotForms: a slot from its making on, with what people mistype.
func TestSlotForms(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	for _, c := range []struct {
		want   string
		fields []string
	}{
		{"The authentication code has 5 characters; it needs at least 8.", []string{"label", "CA", "mode", "manual", "code", "short", "again", "short"}},
		{"The two entries of the authentication code differ.", []string{"label", "CA", "mode", "manual", "code", testCode, "again", testCode + "x"}},
		{"Slot label is missing.", []string{"label", " ", "mode", "generated"}},
		{"A slot's mode is", []string{"label", "CA", "mode", "none"}},
		{"there is already: its code is needed to take it", []string{"label", "CA", "mode", "manual", "serial", "0000"}},
		{`There is no PKCS#11 module "luna"`, []string{"label", "CA", "mode", "generated", "module", "luna"}},
	} {
		r := b.post("/new-slot", c.fields...)
		if c.fields[len(c.fields)-1] == "0000" {
			c.want = "shows no token with the serial number 0000"
		}
		if r.status != http.StatusUnprocessableEntity || !strings.Contains(unescape(r.text()), c.want) {
			t.Errorf("%v: %d %s", c.fields, r.status, r.text())
		}
		if strings.Contains(r.body, testCode) {
			t.Errorf("%v: the code is shown again", c.fields)
		}
	}
	b.follow(b.post("/new-slot", "label", "CA", "mode", "manual", "code", testCode, "again", testCode)).wants(t, http.StatusOK, "Slot CA is ready on node1", "Change the code")
	b.post("/new-slot", "label", "CA", "mode", "generated").wants(t, http.StatusUnprocessableEntity, `has a slot`)
	const slot = "/slots/CA"
	b.post(slot+"/code", "old", "wrong code", "new", "another code", "again", "another code").wants(t, http.StatusUnprocessableEntity, "is wrong; it was tried once")
	b.post(slot+"/code", "old", testCode, "new", "another code", "again", "").wants(t, http.StatusUnprocessableEntity, "The two entries of the new code differ.")
	b.follow(b.post(slot+"/code", "old", testCode, "new", "another code", "again", "another code")).wants(t, http.StatusOK, "The code of slot CA is changed on node1.")
	b.follow(b.post(slot+"/deactivate")).wants(t, http.StatusOK, "Activate this slot", "Waits for its code")
	b.get("/").wants(t, http.StatusOK, "Needs attention now", "Slot CA is closed on node1")
	b.get("/hsm").wants(t, http.StatusOK, "Slot CA is closed on node1: it waits for its authentication code.")
	b.post(slot+"/activate", "code", testCode).wants(t, http.StatusUnprocessableEntity, "is wrong; it was tried once")
	b.post(slot+"/activate", "code", "").wants(t, http.StatusUnprocessableEntity, "Enter the authentication code of slot")
	b.follow(b.post(slot+"/activate", "code", "another code")).wants(t, http.StatusOK, "Slot CA is active on node1.")
	b.post(slot+"/activate", "code", "another code").wants(t, http.StatusUnprocessableEntity, "is activated already")
	b.post(slot+"/mode", "mode", "generated", "old", "wrong code").wants(t, http.StatusUnprocessableEntity, "is wrong; it was tried once")
	b.follow(b.post(slot+"/mode", "mode", "generated", "old", "another code")).wants(t, http.StatusOK, "node1 now keeps the code of slot CA itself", "Let people keep the code")
	b.post(slot+"/deactivate").wants(t, http.StatusUnprocessableEntity, "switch it to manual mode first")
	b.follow(b.post(slot+"/try")).wants(t, http.StatusOK, "takes the stored code")
	b.follow(b.post(slot+"/rotate")).wants(t, http.StatusOK, "has a new code on node1")
	b.follow(b.post(slot+"/rotation", "days", "30")).wants(t, http.StatusOK, "at least every 30 days", "the node replaces it")
	b.post(slot+"/rotation", "days", "often").wants(t, http.StatusUnprocessableEntity, "Enter a number of days")
	b.post(slot+"/rotation", "days", "4000").wants(t, http.StatusUnprocessableEntity, "between 0 and 3650")
	b.get("/custody").wants(t, http.StatusOK, "the node alone", "every 30 days")
	b.get("/restart").wants(t, http.StatusOK, "its slot opens by itself")
	b.get("/protection").wants(t, http.StatusOK, "A file on the node", "node.key")
	b.post("/protection", "by", "passphrase", "passphrase", "short", "again", "short").wants(t, http.StatusUnprocessableEntity, "it needs at least 12")
	b.post("/protection", "by", "passphrase", "passphrase", "a passphrase of some length", "again", "").wants(t, http.StatusUnprocessableEntity, "The two entries of the passphrase differ.")
	b.post("/protection", "by", "file").wants(t, http.StatusUnprocessableEntity, "is protected so already")
	b.post("/protection", "by", "tpm").wants(t, http.StatusUnprocessableEntity, "names no TPM")
	b.post("/protection", "by", "prayer").wants(t, http.StatusUnprocessableEntity, "not &#34;prayer&#34;")
	b.follow(b.post("/protection", "by", "passphrase", "passphrase", "a passphrase of some length", "again", "a passphrase of some length")).wants(t, http.StatusOK, "which somebody enters after each start")
	b.post(slot+"/mode", "mode", "manual", "new", "short", "again", "short").wants(t, http.StatusUnprocessableEntity, "needs at least 8")
	b.follow(b.post(slot+"/mode", "mode", "manual", "new", testCode, "again", testCode)).wants(t, http.StatusOK, "the node has forgotten the old code")
	b.post(slot+"/rotate").wants(t, http.StatusUnprocessableEntity, "is kept by people")
	b.post(slot+"/try").wants(t, http.StatusUnprocessableEntity, "no stored code to try")
	b.post("/slots/none/activate", "code", testCode).wants(t, http.StatusNotFound, "Not found")
	b.get("/audit?text=activate").wants(t, http.StatusOK, "Slot activated", "Refused", "alice")
	for _, secret := range []string{testCode, "another code", "wrong code", testPassword, "a passphrase of some length"} {
		if strings.Contains(a.log.String(), secret) {
			t.Errorf("the log contains a secret (%d characters)", len(secret))
		}
	}
}

// TestTakeToken: a token that another program has made becomes a slot.
func TestTakeToken(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	cfg := a.soft
	cfg.Name, cfg.Lock = "application", filepath.Join(t.TempDir(), "lock")
	made, err := hsmtest.Start(t, cfg).InitToken(t.Context(), "legacy", []byte("officer-0123"), []byte(testCode))
	if err != nil {
		t.Fatal(err)
	}
	b := a.loggedIn(t)
	b.post("/hsm/reload", "module", "luna").wants(t, http.StatusNotFound)
	page := b.follow(b.post("/hsm/reload", "module", "softhsm"))
	page.wants(t, http.StatusOK, "Module softhsm was started anew.", "Another program made it")
	link := unescape(regexp.MustCompile(`/new-slot\?[^"]*serial=` + made.Serial + `[^"]*`).FindString(page.body))
	b.get(link).wants(t, http.StatusOK, "Take a token into a slot", "Present code of the token")
	fields := []string{"label", "legacy", "serial", made.Serial, "module", "softhsm", "mode", "manual", "present"}
	b.post("/new-slot", append(fields, "wrong code")...).wants(t, http.StatusUnprocessableEntity, "is wrong; it was tried once")
	b.follow(b.post("/new-slot", append(fields, testCode)...)).wants(t, http.StatusOK, "Slot legacy is ready on node1", made.Serial)
}

// TestExchangeByPages makes a package, carries it and imports it, all by forms.
func TestExchangeByPages(t *testing.T) {
	nodes := newCluster(t, 2)
	first, second := nodes[0], nodes[1]
	first.administrator(t)
	first.slot(t, "CA", cluster.Manual)
	generate(t, first.application(t, "CA"), ecKey("root-ca"), ecKey("sub-ca"))
	first.sees(t, 2)
	one := first.loggedIn(t)
	one.get("/sync?slot=CA").wants(t, http.StatusOK, "lacks 2 keys", "make it there first", "Nothing can be sent now")
	one.post("/sync/packages", "slot", "CA", "to", "node2").wants(t, http.StatusUnprocessableEntity, "no package can be made for node2"[3:])
	one.post("/sync/packages", "slot", "CA").wants(t, http.StatusUnprocessableEntity, "Choose at least one node")
	eventually(t, "node2 knows the account", func() bool { return second.Accounts.Any() })
	two := second.loggedIn(t)
	two.get("/slots").wants(t, http.StatusOK, "Not on this node", "It is on node1 only")
	two.get("/slots/CA").wants(t, http.StatusOK, "node2 has no token in this slot", "Make it here")
	second.slot(t, "CA", cluster.Manual)
	eventually(t, "node2 can receive", func() bool { return first.State().Slots["CA"].Seats["node2"].Receiver != "" })
	one.get("/sync?slot=CA").wants(t, http.StatusOK, "node2 lacks 2 keys", "Make package")
	started := one.post("/sync/packages", "slot", "CA", "to", "node2")
	if !strings.HasPrefix(started.location(), "/jobs/") {
		t.Fatalf("no job: %d %s", started.status, started.text())
	}
	eventually(t, "the package is made", func() bool { return strings.Contains(one.get(started.location()).text(), "The package is made.") })
	page := one.get(started.location())
	path := regexp.MustCompile(`/sync/packages/[0-9a-f]{64}`).FindString(page.body)
	one.get(path).wants(t, http.StatusOK, "Signed by the identity key of node1, complete and unchanged.", "0 of 1 imported", "On its way", path[len(path)-64:])
	file := one.get(path + "/file")
	if h := one.do(http.MethodHead, path+"/file", nil); h.status != http.StatusOK || h.header.Get("Content-Length") != fmt.Sprint(len(file.body)) {
		t.Errorf("HEAD: %d %v", h.status, h.header)
	}
	two.get(path).wants(t, http.StatusOK, "node2 does not keep the file.")
	wrongUploads(t, two, file.body)
	arrived := two.upload("/sync/uploads", "package", "x.keyferry", file.body)
	if arrived.location() != path {
		t.Fatalf("upload: %d %s", arrived.status, arrived.text())
	}
	two.follow(arrived).wants(t, http.StatusOK, "The package is here.", "2 keys to import", "root-ca", "Import 2 keys", "No application on node2 is restarted")
	two.get("/sync").wants(t, http.StatusOK, "A package of slot CA from node1 waits here to be imported")
	importByPages(t, second, two, path)
	eventually(t, "node1 has the receipt", func() bool { return strings.Contains(one.get(path).text(), "1 of 1 imported") })
	one.get(path).wants(t, http.StatusOK, "each key proved by its HSM", "signature verified")
	two.get(path).wants(t, http.StatusOK, "nothing to import, 2 already there", "It was imported here")
	eventually(t, "nothing is left to do", func() bool { return strings.Contains(one.get("/").text(), "Nothing needs to be done.") })
	one.get("/coverage").wants(t, http.StatusOK, "All 2 keys are on every node.", "Any node can fail without a key being lost.")
	csv := one.get("/coverage.csv?slot=CA")
	if !strings.HasPrefix(csv.body, "slot,label,id,type,fingerprint,first_seen,certificates,node1,node2\nCA,root-ca,") || !strings.Contains(csv.body, ",present,present\n") {
		t.Errorf("CSV: %s", csv.body)
	}
	one.get("/sync?slot=CA").wants(t, http.StatusOK, "There is nothing to send")
	checkReceipt(t, one, packageID(t, first, path[len(path)-64:]))
}

// importByPages imports a package that has arrived, after finding the slot closed.
func importByPages(t *testing.T, second *appliance, two *browser, path string) {
	t.Helper()
	if err := second.Slots.Deactivate(t.Context(), root, "CA"); err != nil {
		t.Fatal(err)
	}
	closed := two.get(path)
	closed.wants(t, http.StatusOK, "Activate the slot")
	if strings.Contains(closed.text(), "Import 2 keys") {
		t.Error("an import into a closed slot is offered")
	}
	two.post(path+"/import").wants(t, http.StatusUnprocessableEntity, "is not activated on node node2"[:16])
	if err := second.Slots.Activate(t.Context(), root, "CA", []byte(testCode)); err != nil {
		t.Fatal(err)
	}
	job := two.post(path + "/import").location()
	eventually(t, "the package is imported", func() bool { return strings.Contains(two.get(job).text(), "Signed, and known to the cluster") })
	two.get(job).wants(t, http.StatusOK, "2 Imported"[2:], "root-ca", "sub-ca")
}

// wrongUploads are what people may drop on the page instead of a package.
func wrongUploads(t *testing.T, b *browser, file string) {
	t.Helper()
	for _, c := range []struct{ field, name, content, want string }{
		{"package", "x.keyferry", file[:len(file)/2], "The package is refused"},
		{"package", "x.keyferry", file[:len(file)-1] + "x", "The package is refused"},
		{"package", "x.iso", strings.Repeat("not a package\n", 100_000), "The package is refused"},
		{"package", "x.keyferry", "", "The package is refused"},
		{"other", "x.keyferry", file, "Choose the package file to upload."},
		{"package", "", "", "Choose the package file to upload."},
	} {
		r := b.upload("/sync/uploads", c.field, c.name, c.content)
		if r.status != http.StatusUnprocessableEntity || !strings.Contains(r.text(), c.want) {
			t.Errorf("%s %s: %d %s", c.field, c.name, r.status, r.text())
		}
	}
	b.post("/sync/uploads", "package", "x").wants(t, http.StatusUnprocessableEntity, "The form has no file in it.")
}

// upload sends a file as a form does.
func (b *browser) upload(path, field, name, content string) reply {
	b.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	part, err := w.CreateFormFile(field, name)
	if err != nil {
		b.t.Fatal(err)
	}
	part.Write([]byte(content))
	w.Close()
	return b.do(http.MethodPost, path, &body, "Content-Type", w.FormDataContentType())
}

// checkReceipt verifies a receipt by the line that the page shows.
func checkReceipt(t *testing.T, b *browser, id string) {
	t.Helper()
	path := receiptPath(id, "node2")
	page := b.get(path)
	page.wants(t, http.StatusOK, "Signature verified", "2 of 2 with a proof by the HSM of node2", "Signed a random challenge")
	jose := hsmtest.Tool(t, "jose")
	dir := t.TempDir()
	jws := b.get(path + "/jws")
	name := strings.TrimPrefix(jws.header.Get("Content-Disposition"), "attachment; filename=")
	for file, content := range map[string]string{name: jws.body, "node2.jwk": b.get("/cluster/nodes/node2/identity.jwk").body} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line := regexp.MustCompile(`jose jws ver [^<]*`).FindString(page.body)
	args := strings.Fields(line)
	cmd := exec.CommandContext(t.Context(), jose, args[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v %s", line, err, out)
	}
	if receipt, err := os.ReadFile(filepath.Join(dir, "receipt.json")); err != nil || !strings.Contains(string(receipt), id) {
		t.Errorf("the verified receipt: %v %s", err, receipt)
	}
}

// TestApplicationForms: an application from its making to its removal.
func TestApplicationForms(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	a.slot(t, "CA", cluster.Generated)
	b := a.loggedIn(t)
	b.post("/new-application", "name", "Bad Name", "kind", "none").wants(t, http.StatusUnprocessableEntity, "is not valid: use 1 to 63 letters")
	b.post("/new-application", "name", "ejbca", "kind", "command", "target", "../evil").wants(t, http.StatusUnprocessableEntity, "use the name of a file in the restart directory")
	b.post("/new-application", "name", "ejbca", "kind", "none", "slots", "none").wants(t, http.StatusUnprocessableEntity, "There is no slot")
	b.follow(b.post("/new-application", "name", "new", "kind", "command", "target", "restart-ok", "slots", "CA")).wants(t, http.StatusOK, "Application new is saved.")
	b.post("/new-application", "name", "new", "kind", "none").wants(t, http.StatusUnprocessableEntity, "There is an application")
	b.follow(b.post("/applications/new/restart")).wants(t, http.StatusOK, "Application new was restarted on node1.", "Restarted")
	b.follow(b.post("/applications/new", "kind", "command", "target", "restart-broken", "slots", "CA", "nodes", "node1")).wants(t, http.StatusOK, "is saved")
	b.post("/applications/new/restart").wants(t, http.StatusUnprocessableEntity, "was not restarted: exit status 3: the program is not installed", "CA", "It is tried again by itself in", "try 1 of 4")
	b.get("/").wants(t, http.StatusOK, "Application new was not restarted on node1")
	for _, c := range []struct{ says, kind, delivery, owner, mode, after string }{
		{"must be one of 0400, 0440", "none", "file", "", "0444", "new"},
		{"use a user or group name", "none", "file", "no one", "0400", "new"},
		{"go to the standard input of a restart command only", "none", "stdin", "", "", "new"},
		{"There is no application", "none", "none", "", "", "old"},
		{"Delivery &#34;post&#34; is not known", "none", "post", "", "", "new"},
	} {
		b.post("/new-application", "name", "other", "kind", c.kind, "delivery", c.delivery, "owner", c.owner, "filemode", c.mode, "after", c.after).wants(t, http.StatusUnprocessableEntity, c.says)
	}
	b.follow(b.post("/new-application", "name", "other", "kind", "webhook", "target", "deployer", "slots", "CA", "after", "new", "delivery", "file", "owner", "nobody", "group", "33", "filemode", "0440", "manual", "yes")).
		wants(t, http.StatusOK, "pkcs11:token=CA?pin-source=file:", "URI is that of RFC 7512")
	b.follow(b.post("/applications/other", "kind", "kubernetes", "target", "prod:pki/deployment/ejbca", "slots", "CA", "after", "new", "delivery", "none")).wants(t, http.StatusOK, "is saved")
	b.follow(b.post("/applications/other/restart")).wants(t, http.StatusOK, "Restart an application", "See other")
	b.post("/applications/new/remove", "name", "new").wants(t, http.StatusUnprocessableEntity, "starts after")
	b.follow(b.post("/applications/other/remove", "name", "other")).wants(t, http.StatusOK, "is removed")
	b.get("/slots").wants(t, http.StatusOK, "CA new")
	b.follow(b.post("/applications/new", "kind", "none", "target", "ignored", "slots", "CA")).wants(t, http.StatusOK)
	b.post("/applications/new/restart").wants(t, http.StatusUnprocessableEntity, "has no way to be restarted")
	b.post("/applications/new/remove", "name", "nwe").wants(t, http.StatusUnprocessableEntity, "Type the name new to remove the application.")
	b.follow(b.post("/applications/new/remove", "name", "new")).wants(t, http.StatusOK, "Application new is removed.", "No applications yet")
	b.post("/applications/new/remove", "name", "new").wants(t, http.StatusNotFound)
}

// TestInvitation: the code is on one page and nowhere else.
func TestInvitation(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	b.post("/cluster/invitations", "node", "Bad Name", "hours", "1").wants(t, http.StatusUnprocessableEntity, "is not valid")
	for _, hours := range []string{"0", "25", "x", "-1", "NaN"} {
		b.post("/cluster/invitations", "node", "node2", "hours", hours).wants(t, http.StatusUnprocessableEntity, "Enter for how many hours the code is good")
	}
	r := b.post("/cluster/invitations", "node", "node2", "hours", "2")
	fingerprint, _ := a.Fingerprint()
	r.wants(t, http.StatusOK, "Invitation for node2", "keyferry join --address", "--fingerprint "+fingerprint, "The code is shown only now.")
	code := regexp.MustCompile(`[0-9A-Z]{4}(-[0-9A-Z]{4}){4}`).FindString(r.text())
	if code == "" || r.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the code is %q, Cache-Control %q", code, r.header.Get("Cache-Control"))
	}
	later := b.get("/cluster")
	if strings.Contains(later.body, code) || strings.Contains(a.log.String(), code) {
		t.Error("the code is seen again")
	}
	hash := regexp.MustCompile(`name="hash" value="([0-9a-f]{64})"`).FindStringSubmatch(later.body)
	if hash == nil {
		t.Fatal("the invitation is not listed")
	}
	b.follow(b.post("/cluster/invitations/withdraw", "hash", hash[1])).wants(t, http.StatusOK, "is withdrawn", "None. An invitation lets one node in, once.")
	b.post("/cluster/invitations/withdraw", "hash", "x").wants(t, http.StatusBadRequest)
	b.post("/cluster/invitations/withdraw", "hash", hash[1]).wants(t, http.StatusNotFound)
}

// TestTheme is kept in the browser, whether or not somebody is logged in.
func TestTheme(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.browser(t)
	if r := b.post("/theme", "theme", "dark", "back", "/login?next=%2Fslots"); r.status != http.StatusSeeOther || r.location() != "/login?next=%2Fslots" {
		t.Errorf("%d to %s", r.status, r.location())
	}
	if !strings.Contains(b.get("/login").body, `data-theme="dark"`) {
		t.Error("the page is not dark")
	}
	b.post("/theme", "theme", "system", "back", "https://evil.example")
	if strings.Contains(b.get("/login").body, "data-theme") {
		t.Error("the page is not as the system")
	}
	b.post("/theme", "theme", "pink").wants(t, http.StatusBadRequest)
}

// TestSizeOfUpload: however large a file is, the process does not grow with it.
func TestSizeOfUpload(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	pr, pw := newPipe(t, 300<<20)
	before, high := watchMemory(t)
	r := b.do(http.MethodPost, "/sync/uploads", pr, "Content-Type", pw)
	if grown := high() - before; grown > 64<<20 {
		t.Errorf("the process grew by %d MiB while a file of 300 MiB came in", grown>>20)
	}
	if r.status != http.StatusUnprocessableEntity && r.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d: %s", r.status, r.text())
	}
}
