package webconf

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// open begins a session and returns its cookie.
func open(t *testing.T, s *sessionStore, account string) *http.Cookie {
	t.Helper()
	r, w := httptest.NewRequest(get, "/", nil), httptest.NewRecorder()
	session, err := s.Get(r, s.cookie)
	if err != nil {
		t.Fatal(err)
	}
	session.Values[sessionAccount] = account
	if err := session.Save(r, w); err != nil {
		t.Fatal(err)
	}
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies", len(cookies))
	}
	return cookies[0]
}

// whose tells to whom a cookie's session belongs; "" when it opens none.
func whose(t *testing.T, s *sessionStore, c *http.Cookie) string {
	t.Helper()
	r := httptest.NewRequest(get, "/", nil)
	r.AddCookie(c)
	session, err := s.Get(r, s.cookie)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := session.Values[sessionAccount].(string)
	return name
}

// TestSessionEnds: after a while without a click, and after a working day in any case.
func TestSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessionStore("node1")
		c := open(t, s, "alice")
		time.Sleep(sessionIdle - time.Second)
		if whose(t, s, c) != "alice" {
			t.Fatal("the session ended too early")
		}
		time.Sleep(sessionIdle)
		if whose(t, s, c) != "" || len(s.live) != 0 {
			t.Fatal("an idle session is still there")
		}
		c = open(t, s, "alice")
		for began := time.Now(); time.Since(began) < sessionLife-time.Minute; time.Sleep(time.Minute) {
			if whose(t, s, c) != "alice" {
				t.Fatalf("the session ended after %v", time.Since(began))
			}
		}
		time.Sleep(time.Minute)
		if whose(t, s, c) != "" {
			t.Fatal("a session is older than a working day")
		}
	})
}

// TestSessionCookie looks at what the browser is given, and at what it is not.
func TestSessionCookie(t *testing.T) {
	s := newSessionStore("node1")
	c := open(t, s, "alice")
	if c.Name != "__Host-keyferry-node1" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge != 0 {
		t.Errorf("the cookie is %+v", c)
	}
	if len(c.Value) < 52 { // 256 bits at 5 bits a character
		t.Errorf("the token is short: %d", len(c.Value))
	}
	for id := range s.live {
		if strings.Contains(id, c.Value) || id == c.Value {
			t.Error("the store holds the token itself")
		}
	}
	for _, wrong := range []string{"", "x", c.Value + "x", tokenID(c.Value)} {
		if who := whose(t, s, &http.Cookie{Name: c.Name, Value: wrong}); who != "" {
			t.Errorf("the token %q opens the session of %s", wrong, who)
		}
	}
}

// TestSessionsAreBounded: the one idle for longest makes room.
func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessionStore("node1")
		first := open(t, s, "first")
		second := open(t, s, "second")
		time.Sleep(time.Second)
		whose(t, s, first) // is used again
		for i := range maxSessions {
			time.Sleep(time.Millisecond)
			open(t, s, fmt.Sprint(i))
		}
		if len(s.live) != maxSessions {
			t.Errorf("%d sessions", len(s.live))
		}
		if whose(t, s, second) != "" {
			t.Error("the session idle for longest is still there")
		}
	})
}

// TestSavingAnEndedSession does not bring it back.
func TestSavingAnEndedSession(t *testing.T) {
	s := newSessionStore("node1")
	c := open(t, s, "alice")
	r, w := httptest.NewRequest(get, "/", nil), httptest.NewRecorder()
	r.AddCookie(c)
	session, err := s.Get(r, s.cookie)
	if err != nil {
		t.Fatal(err)
	}
	s.forget(session.ID)
	if err := session.Save(r, w); err != nil {
		t.Fatal(err)
	}
	if len(s.live) != 0 || len(w.Result().Cookies()) != 0 {
		t.Error("an ended session is there again")
	}
}

// TestLogin: right and wrong passwords, a new token at each login, logout, and what ends sessions from
// outside.
func TestLogin(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.browser(t)
	b.get("/login").wants(t, http.StatusOK, "Log in", "Account name")
	b.post("/login", "name", testAccount, "password", "wrong password").wants(t, http.StatusUnauthorized, "There is a problem", "The account name or the password is wrong.")
	b.post("/login", "name", "nobody", "password", "wrong password").wants(t, http.StatusUnauthorized, "The account name or the password is wrong.")
	b.get("/slots").wants(t, http.StatusSeeOther)
	r := b.post("/login", "name", testAccount, "password", testPassword, "next", "/slots?x=1")
	if r.status != http.StatusSeeOther || r.location() != "/slots?x=1" {
		t.Fatalf("login: %d to %q", r.status, r.location())
	}
	token := r.header.Get("Set-Cookie")
	b.follow(r).wants(t, http.StatusOK, "PKCS#11 slots", testAccount)
	if again := b.post("/login", "name", testAccount, "password", testPassword); again.header.Get("Set-Cookie") == token || again.header.Get("Set-Cookie") == "" {
		t.Error("a second login has no new token")
	}
	if len(a.web.sessions.live) != 1 {
		t.Errorf("%d sessions after a second login in the same browser", len(a.web.sessions.live))
	}
	b.post("/logout").wants(t, http.StatusSeeOther)
	b.get("/").wants(t, http.StatusSeeOther)
	if len(a.web.sessions.live) != 0 {
		t.Error("the session outlives the logout")
	}
	for _, next := range []string{"https://evil.example/", "//evil.example", `/\evil.example`, "javascript:alert(1)", "x"} {
		if r := b.post("/login", "name", testAccount, "password", testPassword, "next", next); r.location() != "/" {
			t.Errorf("next=%s leads to %s", next, r.location())
		}
	}
}

// TestSessionsEndWithTheAccount: with a new password, and when it is removed.
func TestSessionsEndWithTheAccount(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	mine, other := a.loggedIn(t), a.loggedIn(t)
	const better = "a long way to Tipperary, again"
	mine.post("/account/password", "old", "wrong", "new", better, "again", better).wants(t, http.StatusUnprocessableEntity, "The present password is wrong.")
	mine.post("/account/password", "old", testPassword, "new", "short", "again", "short").wants(t, http.StatusUnprocessableEntity, "needs at least 12")
	mine.post("/account/password", "old", testPassword, "new", better, "again", "another").wants(t, http.StatusUnprocessableEntity, "The two entries of the new password differ.")
	mine.follow(mine.post("/account/password", "old", testPassword, "new", better, "again", better)).wants(t, http.StatusOK, "Your password is changed.")
	other.get("/").wants(t, http.StatusSeeOther)
	other.get("/login").wants(t, http.StatusOK)
	other.post("/login", "name", testAccount, "password", testPassword).wants(t, http.StatusUnauthorized)

	bob := cluster.PutAccount{Name: "bob", Hash: a.State().Accounts[testAccount].Hash, Roles: []cluster.RoleGrant{{Role: cluster.SecurityOfficer}}, New: true}
	if _, err := a.Cluster.Apply(t.Context(), &bob, root); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Cluster.Apply(t.Context(), &cluster.RemoveAccount{Name: testAccount}, root); err != nil {
		t.Fatal(err)
	}
	mine.get("/").wants(t, http.StatusSeeOther)
	mine.post("/new-slot", "label", "x", "mode", "generated").wants(t, http.StatusSeeOther)
	if len(a.Slots.Here()) != 0 {
		t.Error("a session without an account made a slot")
	}
}

// TestEndedSessionSaysSo, once.
func TestEndedSessionSaysSo(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	for id := range a.web.sessions.live {
		a.web.sessions.forget(id)
	}
	b.follow(b.get("/slots")).wants(t, http.StatusOK, "Your session has ended.")
	if text := b.get("/login").text(); strings.Contains(text, "Your session has ended.") {
		t.Error("it is said twice")
	}
}

// TestFromAnotherNode: after a link from a page of another site, the browser keeps the cookie back once.
func TestFromAnotherNode(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	stranger := a.browser(t)
	r := stranger.get("/slots", "Sec-Fetch-Site", "cross-site")
	r.wants(t, http.StatusOK, "One moment")
	if !strings.Contains(r.body, `content="0; url=/login?next=%2Fslots"`) {
		t.Errorf("it does not go on by itself: %s", r.body)
	}
	b := a.loggedIn(t)
	if r := b.get("/login?next=%2Fslots"); r.status != http.StatusSeeOther || r.location() != "/slots" {
		t.Errorf("whoever is logged in gets %d to %s", r.status, r.location())
	}
}

// TestThrottle bounds tries by address, whatever the account.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		count := func(address string) (n int) {
			for range 100 {
				if th.allow(address) {
					n++
				}
			}
			return n
		}
		if n := count("192.0.2.1"); n != tryBurst {
			t.Errorf("%d tries", n)
		}
		if n := count("192.0.2.2"); n != tryBurst {
			t.Errorf("another address has %d tries", n)
		}
		if n := count("2001:db8::1") + count("2001:db8::2"); n != tryBurst {
			t.Errorf("one network has %d tries", n)
		}
		time.Sleep(tryEvery)
		if n := count("192.0.2.1"); n != 1 {
			t.Errorf("%d tries after %v", n, tryEvery)
		}
		for i := range 2 * maxAddresses {
			th.allow(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
		}
		if len(th.limiters) > maxAddresses {
			t.Errorf("%d addresses are remembered", len(th.limiters))
		}
		if n := count("198.51.100.1"); n > tryBurst {
			t.Errorf("an address without a place has %d tries", n)
		}
		time.Sleep(time.Hour)
		if n := count("198.51.100.2"); n != tryBurst || len(th.limiters) != 1 {
			t.Errorf("later: %d tries, %d addresses", n, len(th.limiters))
		}
	})
}

// TestManyTries are refused with a time to wait.
func TestManyTries(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.browser(t)
	b.post("/login", "name", "nobody", "password", "x").wants(t, http.StatusUnauthorized, "Error: Log in", "is wrong")
	for a.web.tries.allow("127.0.0.1") { // as many more tries, without the time that their hashes take
	}
	last := b.post("/login", "name", "nobody", "password", "x")
	last.wants(t, http.StatusTooManyRequests, "Too many tries", "Too many tries from your address; wait a moment.")
	if last.header.Get("Retry-After") == "" {
		t.Error("nothing says when to try again")
	}
}
