package webconf

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/node"
)

// authenticator gives the browser a device that opens a passkey for a finger, or does not.
func (c *chromium) authenticator() webauthn.AuthenticatorID {
	c.t.Helper()
	if _, err := chromedp.Call(c.ctx, webauthn.Enable, webauthn.EnableParams{}); err != nil {
		c.t.Fatal(err)
	}
	device, err := chromedp.Call(c.ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: "ctap2", Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true}})
	if err != nil {
		c.t.Fatal(err)
	}
	return device.AuthenticatorID
}

// TestPasskeyInABrowser adds a passkey and logs in with it, in a real browser with a device that it takes
// for one; then with a finger that the device does not know, and after the passkey was removed.
func TestPasskeyInABrowser(t *testing.T) {
	c := newChromium(t)
	a := newCluster(t, 1, func(cfg *node.Config) {
		cfg.WebURL, cfg.PasskeyDomain = strings.Replace(cfg.WebURL, "127.0.0.1", "localhost", 1), "localhost"
	})[0]
	a.administrator(t)
	device := c.authenticator()
	site := strings.Replace(a.site.URL, "127.0.0.1", "localhost", 1)

	c.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(site+"/account"), chromedp.WaitVisible(chromedp.ID("login-name")),
		chromedp.SendKeys(chromedp.ID("login-name"), testAccount), chromedp.SendKeys(chromedp.ID("login-password"), testPassword),
		chromedp.Submit(chromedp.ID("login-name")), chromedp.WaitVisible(chromedp.ID("factors")))
	c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("add-passkey").open = true`),
		chromedp.SendKeys(chromedp.ID("passkeys-name"), "blue key"), chromedp.SendKeys(chromedp.ID("passkeys-password"), testPassword),
		chromedp.Submit(chromedp.ID("passkeys-name")), chromedp.WaitVisible(chromedp.CSS("form[data-ceremony] button:enabled")))
	c.accessible("add a passkey")
	c.screenshot("passkey-add")
	c.do(chromedp.Click(chromedp.CSS("form[data-ceremony] button")), chromedp.WaitVisible(chromedp.CSS(".banner.ok")))
	c.quiet("adding a passkey")
	keys := a.State().Accounts[testAccount].Passkeys
	if len(keys) != 1 || keys[0].Name != "blue key" {
		t.Fatalf("passkeys: %+v", keys)
	}

	logout := func() {
		c.do(chromedp.Submit(chromedp.CSS(`form[action="/logout"]`)), chromedp.WaitVisible(chromedp.ID("login-name")))
	}
	usePasskey := func() {
		c.do(chromedp.Navigate(site+"/login?next=/slots"), chromedp.WaitVisible(chromedp.CSS(`a[href^="/login/passkey"]`)),
			chromedp.Click(chromedp.CSS(`a[href^="/login/passkey"]`)), chromedp.WaitVisible(chromedp.CSS("form[data-ceremony] button:enabled")),
			chromedp.Click(chromedp.CSS("form[data-ceremony] button")))
	}
	logout()
	usePasskey()
	c.do(chromedp.WaitVisible(chromedp.CSS("nav.side")))
	if where := evaluate[string](c, "location.pathname"); where != "/slots" {
		t.Errorf("the passkey leads to %s", where)
	}
	c.quiet("logging in with a passkey")
	if after := a.State().Accounts[testAccount].Passkeys[0].Count; after <= keys[0].Count {
		t.Errorf("the counter was %d and is %d", keys[0].Count, after)
	}

	logout()
	if _, err := chromedp.Call(c.ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: device, IsUserVerified: false}); err != nil {
		t.Fatal(err)
	}
	usePasskey()
	c.do(chromedp.WaitVisible(chromedp.CSS("form[data-ceremony] button:enabled")), chromedp.WaitVisible(chromedp.CSS(`[role="status"]:not(:empty)`)))
	if text := evaluate[string](c, `document.querySelector("[role=status]").textContent`); !strings.Contains(text, "Try again") {
		t.Errorf("without the right finger the page says %q", text)
	}
	c.accessible("a passkey that is refused")
	c.screenshot("passkey-refused")
}

// TestScripts: the one script is allowed on the pages that need it, and nowhere a password is entered.
func TestScripts(t *testing.T) {
	a := newCluster(t, 1, func(cfg *node.Config) {
		cfg.WebURL, cfg.PasskeyDomain = strings.Replace(cfg.WebURL, "127.0.0.1", "localhost", 1), "localhost"
	})[0]
	a.administrator(t)
	b := a.loggedIn(t)
	add := b.post("/account/passkeys", "password", testPassword, "name", "x")
	for where, r := range map[string]reply{"log in": a.browser(t).get("/login/passkey"), "add": add} {
		r.wants(t, http.StatusOK, "Passkeys need JavaScript")
		if r.header.Get("Content-Security-Policy") != scriptPolicy || strings.Count(r.body, "<script") != 1 || strings.Contains(r.body, `type="password"`) {
			t.Errorf("%s: policy %q", where, r.header.Get("Content-Security-Policy"))
		}
	}
	for _, path := range []string{"/account", "/"} {
		if r := b.get(path); r.header.Get("Content-Security-Policy") != policy || strings.Contains(r.body, "<script") {
			t.Errorf("%s: policy %q", path, r.header.Get("Content-Security-Policy"))
		}
	}
	for _, c := range []struct{ name, want string }{{"", "The name is missing"}, {"a\xffb", "not valid UTF-8"}, {strings.Repeat("x", 65), "too long"}, {"a\nb", "cannot be printed"}} {
		a.unhurried()
		b.post("/account/passkeys", "password", testPassword, "name", c.name).wants(t, http.StatusUnprocessableEntity, c.want)
	}
	b.post("/account/passkeys", "password", "wrong", "name", "x").wants(t, http.StatusUnprocessableEntity, "The present password is wrong.")
	b.post("/account/passkeys/finish", "answer", "{}").wants(t, http.StatusUnprocessableEntity, "answer cannot be read: try again")
	b.post("/account/passkeys/finish", "answer", "{}").wants(t, http.StatusUnprocessableEntity, "begin again") // a challenge is good for one answer
	a.browser(t).post("/login/passkey", "answer", "{}").wants(t, http.StatusUnauthorized, "begin again")
	without := newCluster(t, 1)[0]
	without.administrator(t)
	without.browser(t).get("/login/passkey").wants(t, http.StatusConflict, "reached by an IP address")
	without.loggedIn(t).get("/account").wants(t, http.StatusOK, "browsers have passkeys for names only")
}
