package webconf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// variety gives two people every way to log in, and makes a node take no password of one of them.
func variety(t *testing.T, a *appliance) {
	t.Helper()
	bob := cluster.PutAccount{Name: "bob", FullName: "Bob Builder", Hash: a.State().Accounts[testAccount].Hash, Roles: []cluster.RoleGrant{{Role: cluster.Auditor}}, New: true}
	if _, err := a.Cluster.Apply(t.Context(), &bob, root); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{testAccount, "bob"} {
		person := cluster.Actor{Kind: cluster.ByAccount, Name: name}
		cert := clientCertificate(t, "Person "+name, nil)
		for _, cmd := range []cluster.Command{
			&cluster.AddPasskey{Name: name, Passkey: cluster.Passkey{ID: []byte{byte(i)}, Key: []byte("key"), Name: "blue security key"}},
			&cluster.AddPasskey{Name: name, Passkey: cluster.Passkey{ID: []byte{byte(i), 1}, Key: []byte("key"), Name: "telephone", Synced: true}},
		} {
			if _, err := a.Cluster.Apply(t.Context(), cmd, person); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Accounts.AddCertificate(t.Context(), person, name, "smart card", cert.Leaf); err != nil {
			t.Fatal(err)
		}
	}
	lock := &cluster.ReportLock{Name: "bob", Tries: 10, Until: time.Now().Add(time.Hour)}
	if _, err := a.Cluster.Apply(t.Context(), lock, cluster.Actor{Kind: cluster.ByNode, Name: a.Name()}); err != nil {
		t.Fatal(err)
	}
}

// TestLoginPagesInABrowser looks at the pages about logging in, as TestPagesInABrowser does at the others.
func TestLoginPagesInABrowser(t *testing.T) {
	c := newChromium(t)
	a := newCluster(t, 1, func(cfg *node.Config) {
		cfg.WebURL, cfg.PasskeyDomain = strings.Replace(cfg.WebURL, "127.0.0.1", "localhost", 1), "localhost"
	})[0]
	a.administrator(t)
	site := strings.Replace(a.site.URL, "127.0.0.1", "localhost", 1)
	enter := func(c *chromium) {
		a.unhurried()
		c.do(chromedp.SendKeys(chromedp.ID("login-name"), testAccount), chromedp.SendKeys(chromedp.ID("login-password"), testPassword), chromedp.Submit(chromedp.ID("login-name")))
	}
	enrol := func(c *chromium) {
		a.unhurried()
		c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("add-totp").open = true`), chromedp.SendKeys(chromedp.ID("totp-password"), testPassword),
			chromedp.Submit(chromedp.ID("totp-password")), chromedp.WaitVisible(chromedp.CSS("svg.qr")))
	}
	secret := ""
	c.look(t, []seen{{"login", site + "/login", nil}, {"login-passkey", site + "/login/passkey", nil}})
	c.do(chromedp.Navigate(site+"/login"), chromedp.WaitVisible(chromedp.ID("login-name")))
	enter(c)
	c.do(chromedp.WaitVisible(chromedp.CSS("nav.side")))
	c.look(t, []seen{{"account-bare", site + "/account", nil}, {"totp", site + "/account", enrol}})
	variety(t, a)
	enrol2 := func() {
		c.do(chromedp.Navigate(site+"/account"), chromedp.WaitVisible(chromedp.ID("factors")))
		enrol(c)
		secret = strings.ReplaceAll(evaluate[string](c, `document.querySelector("code.code").textContent`), " ", "")
		c.do(chromedp.SendKeys(chromedp.ID("first-code"), codeAt(t, secret, time.Now())), chromedp.Submit(chromedp.ID("first-code")), chromedp.WaitVisible(chromedp.CSS(".banner.ok")))
	}
	enrol2()
	c.look(t, []seen{{"account-full", site + "/account", nil}, {"means", site + "/people/bob/login", nil}, {"people", site + "/people", nil}, {"person", site + "/people/bob", nil},
		{"factor-own", site + "/account/remove/totp/-", nil}, {"factor-theirs", site + "/people/bob/login/remove/passkey/01", nil}})
	c.do(chromedp.Submit(chromedp.CSS(`form[action="/logout"]`)), chromedp.WaitVisible(chromedp.ID("login-name")))
	enter(c)
	c.do(chromedp.WaitVisible(chromedp.ID("code-code")))
	c.look(t, []seen{{"code", site + "/login/code", nil}})
	// The code that set it up is used; the next one is good already, and the browser goes on to where it was going.
	c.do(chromedp.SendKeys(chromedp.ID("code-code"), codeAt(t, secret, time.Now().Add(30*time.Second))), chromedp.Submit(chromedp.ID("code-code")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
	c.quiet("log in with a one-time password")
}

// look looks at pages in both themes and at two widths.
func (c *chromium) look(t *testing.T, pages []seen) {
	t.Helper()
	for _, look := range []struct {
		theme string
		width int64
	}{{"light", 1280}, {"dark", 390}} {
		c.theme(look.theme)
		c.do(chromedp.EmulateViewport(look.width, 900))
		for _, p := range pages {
			where := fmt.Sprintf("%s-%s-%d", p.name, look.theme, look.width)
			c.do(chromedp.Navigate(p.url), chromedp.WaitReady(chromedp.CSS("main")))
			if p.act != nil {
				p.act(c)
			}
			c.quiet(where)
			c.narrow(where)
			c.screenshot(where)
			c.accessible(where)
			c.quiet(where)
		}
	}
}
