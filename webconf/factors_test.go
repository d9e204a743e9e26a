package webconf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"mime/multipart"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/pquerna/otp/totp"
)

// secretOf reads the secret of one-time passwords from the page that shows it once.
func secretOf(t *testing.T, r reply) string {
	t.Helper()
	m := regexp.MustCompile(`<code class="code long">([A-Z2-7 ]+)</code>`).FindStringSubmatch(r.body)
	if m == nil {
		t.Fatalf("no secret on the page: %.500s", r.text())
	}
	return strings.ReplaceAll(m[1], " ", "")
}

// codeAt is what an authenticator shows at an instant.
func codeAt(t *testing.T, secret string, at time.Time) string {
	t.Helper()
	code, err := totp.GenerateCode(secret, at)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// unhurried keeps the throttle by address out of a test about something else.
func (a *appliance) unhurried() { a.web.tries = newThrottle() }

// TestOneTimePasswords: set up, needed at the next login, good for one login, kept by a new password,
// removed.
func TestOneTimePasswords(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	b.post("/account/totp", "password", "wrong").wants(t, http.StatusUnprocessableEntity, "The present password is wrong.")
	page := b.post("/account/totp", "password", testPassword)
	page.wants(t, http.StatusOK, "The secret is shown only now.", "otpauth://totp/")
	if !strings.Contains(page.body, `<svg class="qr"`) {
		t.Error("there is no QR code")
	}
	secret := secretOf(t, page)
	b.post("/account/totp/finish", "code", "000000x").wants(t, http.StatusUnprocessableEntity, "The one-time password is wrong")
	if len(a.State().Accounts[testAccount].TOTP.Sealed) > 0 {
		t.Fatal("a wrong code has put one-time passwords into use")
	}
	now := time.Now()
	b.follow(b.post("/account/totp/finish", "code", codeAt(t, secret, now))).wants(t, http.StatusOK, "One-time passwords are set up.", "Password with one-time password")
	b.post("/account/totp", "password", testPassword).wants(t, http.StatusUnprocessableEntity, "has one-time passwords already")

	a.unhurried()
	other := a.browser(t)
	asks := other.post("/login", "name", testAccount, "password", testPassword, "next", "/slots")
	if asks.status != http.StatusSeeOther || asks.location() != "/login/code?next=%2Fslots" {
		t.Fatalf("after the password: %d to %s", asks.status, asks.location())
	}
	other.get("/slots").wants(t, http.StatusSeeOther)
	other.follow(asks).wants(t, http.StatusOK, "One-time password", "six digits")
	other.post("/login/code", "code", codeAt(t, secret, now)).wants(t, http.StatusUnauthorized, "wrong, or was used already")
	for _, wrong := range []string{"", "\xff\xfe", strings.Repeat("1", 5000)} {
		other.post("/login/code", "code", wrong).wants(t, http.StatusUnauthorized, "wrong, or was used already")
	}
	next := codeAt(t, secret, time.Now().Add(30*time.Second)) // of a step after the first, however slow this machine is
	if r := other.post("/login/code", "code", next[:3]+" "+next[3:], "next", "/slots"); r.location() != "/slots" {
		t.Fatalf("after the right code: %d to %s: %s", r.status, r.location(), r.text())
	}
	other.get("/slots").wants(t, http.StatusOK)
	other.post("/login/code", "code", next).wants(t, http.StatusUnauthorized, "took too long or was begun in another window")
	a.browser(t).post("/login/code", "code", next).wants(t, http.StatusUnauthorized, "begin again")
	a.browser(t).get("/login/code?next=/slots").wants(t, http.StatusSeeOther)

	const better = "a long way to Tipperary, again"
	b.follow(b.post("/account/password", "old", testPassword, "new", better, "again", better)).wants(t, http.StatusOK, "Your password is changed.")
	third := a.browser(t)
	third.follow(third.post("/login", "name", testAccount, "password", better)).wants(t, http.StatusOK, "six digits")
	a.unhurried()
	remove := b.get("/account/remove/totp/-")
	remove.wants(t, http.StatusOK, "password alone logs in")
	b.post("/account/remove/totp/-", "password", testPassword).wants(t, http.StatusUnprocessableEntity, "The present password is wrong.")
	b.follow(b.post("/account/remove/totp/-", "password", better)).wants(t, http.StatusOK, "can no longer log you in")
	b.get("/account/remove/totp/-").wants(t, http.StatusNotFound)
	if r := third.post("/login", "name", testAccount, "password", better); r.location() != "/" {
		t.Errorf("without one-time passwords: %d to %s", r.status, r.location())
	}
	for _, never := range []string{secret, better, testPassword, next} {
		if strings.Contains(a.log.String(), never) {
			t.Error("a secret is in the log")
		}
	}
}

// clientCertificate makes a certificate and its key, as people have it on a card.
func clientCertificate(t *testing.T, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// uploadCertificate sends a form with a certificate's file.
func (b *browser) uploadCertificate(path string, file []byte, fields ...string) reply {
	b.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i+1 < len(fields); i += 2 {
		w.WriteField(fields[i], fields[i+1])
	}
	if file != nil {
		part, err := w.CreateFormFile("file", "x.pem")
		if err != nil {
			b.t.Fatal(err)
		}
		part.Write(file)
	}
	w.Close()
	return b.do(http.MethodPost, path, &body, "Content-Type", w.FormDataContentType())
}

// showing is a browser that shows a certificate where it is asked for one that fits, and counts that.
func (a *appliance) showing(t *testing.T, cert tls.Certificate, asked *int) *browser {
	b := a.browser(t)
	b.client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(q *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		*asked++
		if q.SupportsCertificate(&cert) != nil {
			return &tls.Certificate{}, nil
		}
		return &cert, nil
	}
	return b
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestClientCertificates: asked for only while one is registered, matched exactly, and never without a
// click.
func TestClientCertificates(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	mine, other := clientCertificate(t, "Alice <b>", nil), clientCertificate(t, "Alice <b>", nil) // the same names
	asked := 0
	a.showing(t, mine, &asked).get("/login").wants(t, http.StatusOK)
	if asked > 0 {
		t.Error("a certificate is asked for that nobody has registered")
	}
	b := a.loggedIn(t)
	key, err := x509.MarshalPKCS8PrivateKey(mine.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	der := mine.Certificate[0]
	for name, file := range map[string][]byte{
		"none": nil, "empty": {}, "text": []byte("no certificate"), "cut off": der[:len(der)-1], "too long": make([]byte, 20<<10),
		"a key too": append(asPEM("CERTIFICATE", der), asPEM("PRIVATE KEY", key)...), "two": append(asPEM("CERTIFICATE", der), asPEM("CERTIFICATE", der)...),
		"ended":      clientCertificate(t, "x", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }).Certificate[0],
		"not yet":    clientCertificate(t, "x", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }).Certificate[0],
		"for server": clientCertificate(t, "x", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }).Certificate[0],
		"authority":  clientCertificate(t, "x", func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }).Certificate[0],
	} {
		a.unhurried()
		if r := b.uploadCertificate("/account/certificates", file, "password", testPassword, "name", "card"); r.status != http.StatusUnprocessableEntity && r.status != http.StatusConflict {
			t.Errorf("%s: %d %.300s", name, r.status, r.text())
		}
	}
	a.unhurried()
	b.uploadCertificate("/account/certificates", der, "password", "wrong", "name", "card").wants(t, http.StatusUnprocessableEntity, "The present password is wrong.")
	b.uploadCertificate("/account/certificates", der, "password", testPassword, "name", "a\xffb").wants(t, http.StatusUnprocessableEntity, "not valid UTF-8")
	b.follow(b.uploadCertificate("/account/certificates", asPEM("CERTIFICATE", der), "password", testPassword, "name", evil)).wants(t, http.StatusOK, "The certificate is registered.")
	b.uploadCertificate("/account/certificates", der, "password", testPassword).wants(t, http.StatusUnprocessableEntity, "has this certificate already")

	c := a.showing(t, mine, &asked)
	c.get("/slots").wants(t, http.StatusSeeOther) // no ambient login
	c.get("/login").wants(t, http.StatusOK, "Log in as alice with the certificate", "until all its windows are closed")
	if asked == 0 {
		t.Error("no certificate is asked for")
	}
	c.do(http.MethodPost, "/login/certificate", strings.NewReader(""), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site").wants(t, http.StatusForbidden)
	if r := c.post("/login/certificate", "next", "/slots"); r.location() != "/slots" {
		t.Fatalf("log in: %d %s", r.status, r.text())
	}
	c.get("/account").wants(t, http.StatusOK, "by certificate", "this one")

	// Another certificate with the same names shows itself, and is nobody's.
	stranger := a.showing(t, other, &asked)
	if text := stranger.get("/login").text(); strings.Contains(text, "with the certificate") {
		t.Error("a strange certificate is offered")
	}
	stranger.post("/login/certificate").wants(t, http.StatusConflict, "not registered for an account")
	a.browser(t).post("/login/certificate").wants(t, http.StatusBadRequest, "has shown no certificate")

	path := "/account/remove/certificate/" + a.State().Accounts[testAccount].Certificates[0].Fingerprint
	a.unhurried()
	b.get(path).wants(t, http.StatusOK, "Remove the certificate", "You can no longer log in with it")
	b.follow(b.post(path, "password", testPassword)).wants(t, http.StatusOK, "can no longer log you in")
	if r := c.get("/account"); r.status != http.StatusSeeOther {
		t.Errorf("a session that the certificate began goes on: %d", r.status)
	}
	c.post("/login/certificate").wants(t, http.StatusConflict, "not registered for an account")
}

// TestSessionsOfTheCluster: they are listed and ended on every node, one and all.
func TestSessionsOfTheCluster(t *testing.T) {
	nodes := newCluster(t, 2)
	first, second := nodes[0], nodes[1]
	first.administrator(t)
	eventually(t, "node2 knows the account", func() bool { _, ok := second.State().Accounts[testAccount]; return ok })
	here, there, also := first.loggedIn(t), second.loggedIn(t), second.loggedIn(t)
	page := here.get("/account")
	page.wants(t, http.StatusOK, "3 browsers are logged in", "this one", "node2")
	ids := regexp.MustCompile(`name="node" value="node2"><input type="hidden" name="id" value="([0-9a-f]{16})"`).FindAllStringSubmatch(page.body, -1)
	if len(ids) != 2 {
		t.Fatalf("%d sessions of node2 can be ended", len(ids))
	}
	here.follow(here.post("/account/sessions/end", "node", "node2", "id", ids[0][1])).wants(t, http.StatusOK, "The session has ended.", "2 browsers are logged in")
	here.post("/account/sessions/end", "node", "node2", "id", ids[0][1]).wants(t, http.StatusConflict, "has ended already")
	here.post("/account/sessions/end", "node", "node9", "id", "x").wants(t, http.StatusConflict, "There is no node")
	here.post("/account/sessions/end", "node", "", "id", "").wants(t, http.StatusConflict)
	if a, b := there.get("/").status, also.get("/").status; a+b != http.StatusOK+http.StatusSeeOther {
		t.Errorf("the two sessions of node2 answer %d and %d", a, b)
	}
	here.follow(here.post("/account/sessions/end-all")).wants(t, http.StatusOK, "All your other sessions have ended.")
	eventually(t, "the sessions of node2 end", func() bool {
		return there.get("/").status == http.StatusSeeOther && also.get("/").status == http.StatusSeeOther
	})
	here.get("/").wants(t, http.StatusOK)
}

// TestOthersLogin: what a security officer can do about how somebody else logs in.
func TestOthersLogin(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	hash := a.State().Accounts[testAccount].Hash
	bob := cluster.PutAccount{Name: "bob", Hash: hash, Roles: []cluster.RoleGrant{{Role: cluster.Auditor}}, New: true}
	if _, err := a.Cluster.Apply(t.Context(), &bob, root); err != nil {
		t.Fatal(err)
	}
	officer, person := a.loggedIn(t), a.browser(t)
	person.post("/login", "name", "bob", "password", testPassword).wants(t, http.StatusSeeOther)
	person.get("/people/alice/login").wants(t, http.StatusForbidden)
	person.post("/people/alice/login/sessions/end-all").wants(t, http.StatusForbidden)
	officer.get("/people/alice/login").wants(t, http.StatusSeeOther)
	officer.get("/people/emil/login").wants(t, http.StatusNotFound)
	officer.get("/people/bob/login").wants(t, http.StatusOK, "How bob logs in", "1 browser is logged in")

	cert := clientCertificate(t, "Bob", nil)
	officer.uploadCertificate("/people/bob/login/certificates", cert.Certificate[0], "password", testPassword).wants(t, http.StatusSeeOther)
	path := "/people/bob/login/remove/certificate/" + a.State().Accounts["bob"].Certificates[0].Fingerprint
	officer.get(path).wants(t, http.StatusOK, "Type bob to remove it")
	officer.post(path, "name", "alice").wants(t, http.StatusUnprocessableEntity, "Type the name of the account")
	officer.follow(officer.post(path, "name", "bob")).wants(t, http.StatusOK, "can no longer log bob in")

	lock := &cluster.ReportLock{Name: "bob", Tries: 10, Until: time.Now().Add(time.Hour)}
	if _, err := a.Cluster.Apply(t.Context(), lock, cluster.Actor{Kind: cluster.ByNode, Name: a.Name()}); err != nil {
		t.Fatal(err)
	}
	a.browser(t).post("/login", "name", "bob", "password", testPassword).wants(t, http.StatusTooManyRequests, "takes none before")
	officer.get("/people/bob/login").wants(t, http.StatusOK, "node1 takes no password for bob before", "10 wrong ones in a row")
	officer.follow(officer.post("/people/bob/login/unlock")).wants(t, http.StatusOK, "bob can log in by password again")
	officer.post("/people/bob/login/unlock").wants(t, http.StatusNotFound, "is not locked")
	a.browser(t).post("/login", "name", "bob", "password", testPassword).wants(t, http.StatusSeeOther)

	officer.follow(officer.post("/people/bob/login/sessions/end-all")).wants(t, http.StatusOK, "All sessions of bob have ended.")
	person.get("/").wants(t, http.StatusSeeOther)

	// A role that is taken away, and an account that is disabled, count at the next click.
	person.post("/login", "name", "bob", "password", testPassword).wants(t, http.StatusSeeOther)
	person.get("/audit").wants(t, http.StatusOK)
	bob.New, bob.Hash, bob.Roles = false, "", nil
	if _, err := a.Cluster.Apply(t.Context(), &bob, root); err != nil {
		t.Fatal(err)
	}
	person.get("/audit").wants(t, http.StatusForbidden)
	bob.Disabled = true
	if _, err := a.Cluster.Apply(t.Context(), &bob, root); err != nil {
		t.Fatal(err)
	}
	person.get("/audit").wants(t, http.StatusSeeOther)
	a.unhurried()
	a.browser(t).post("/login", "name", "bob", "password", testPassword).wants(t, http.StatusUnauthorized, "The account name or the password is wrong.")
}
