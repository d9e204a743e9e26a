package webconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// A chromium is a real browser with one tab.
type chromium struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	messages []string // of the console: errors and warnings
}

func newChromium(t *testing.T) *chromium {
	t.Helper()
	if testing.Short() {
		t.Skip("a real browser is not for -short")
	}
	path := hsmtest.Tool(t, "chromium")
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.IgnoreCertErrors, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("chromium does not start: %v", err)
	}
	c := &chromium{t: t, ctx: ctx}
	console := chromedp.Console(ctx)
	go func() {
		for m, err := range console {
			if err != nil {
				return
			}
			c.mu.Lock()
			if m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning || m.IsException() {
				c.messages = append(c.messages, m.String())
			}
			c.mu.Unlock()
		}
	}()
	return c
}

// do runs actions, and fails the test after a while.
func (c *chromium) do(actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		after, cancel := context.WithTimeout(c.ctx, 10*time.Second)
		defer cancel()
		text, unread := chromedp.Run(after, chromedp.Evaluate[string](`location.pathname + "\n" + document.body.innerText`))
		c.screenshot("failed")
		c.t.Fatalf("%v\nThe page says (%v): %s", err, unread, text)
	}
}

func evaluate[T any](c *chromium, script string) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		c.t.Fatalf("%.80s: %v", script, err)
	}
	return v
}

// theme lets the browser prefer light or dark, as the system would.
func (c *chromium) theme(name string) {
	c.t.Helper()
	params := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}
	if _, err := chromedp.Call(c.ctx, emulation.SetEmulatedMedia, params); err != nil {
		c.t.Fatal(err)
	}
}

// quiet fails when the page has written errors or warnings, among them violations of the CSP.
func (c *chromium) quiet(where string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.messages {
		// An error page, asked for; and a number field that was sent back with something else in it.
		if !strings.Contains(m, "the server responded with a status of 4") && !strings.Contains(m, "cannot be parsed, or is out of range") {
			c.t.Errorf("%s: the browser says: %s", where, m)
		}
	}
	c.messages = nil
}

// accessible runs axe on the page. The policy of the page allows no script, so it is given to the browser
// itself.
func (c *chromium) accessible(where string) {
	c.t.Helper()
	axe, err := os.ReadFile("../testdata/axe/axe.min.js")
	if err != nil {
		c.t.Fatal(err)
	}
	evaluate[chromedp.Void](c, string(axe)+"; undefined")
	found := evaluate[string](c, `axe.run(document, {preload: false}).then(r => JSON.stringify(r.violations.map(v => ({id: v.id, help: v.help, nodes: v.nodes.map(n => n.html.slice(0, 200) + " | " + n.failureSummary)}))))`)
	var violations []struct {
		ID, Help string
		Nodes    []string
	}
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		c.t.Fatal(err)
	}
	for _, v := range violations {
		c.t.Errorf("%s: axe %s: %s\n  %s", where, v.ID, v.Help, strings.Join(v.Nodes[:min(3, len(v.Nodes))], "\n  "))
	}
}

// screenshot writes a picture of the whole page, where the environment names a folder for it.
func (c *chromium) screenshot(name string) {
	c.t.Helper()
	dir := os.Getenv("KEYFERRY_SCREENSHOTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, 30*time.Second)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// TestPagesInABrowser looks at every page of a small cluster in both themes, and as narrow as a telephone: no
// violation of the content security policy, none of accessibility rules, nothing wider than the window.
func TestPagesInABrowser(t *testing.T) {
	c := newChromium(t)
	pages := story(t, c)
	for _, look := range []struct {
		theme string
		width int64
	}{{"light", 1440}, {"dark", 1440}, {"light", 390}} {
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
			if look.width > 390 { // colors and names are the same there
				c.accessible(where)
			}
			c.quiet(where)
		}
	}
}

// A seen page has something done on it before it is looked at.
type seen struct {
	name, url string
	act       func(*chromium)
}

// story makes a cluster in which something is wrong, and lists its pages.
func story(t *testing.T, c *chromium) []seen {
	t.Helper()
	nodes := newCluster(t, 3)
	firstSteps(t, c, nodes[0])
	made, waiting, imported := trouble(t, nodes)
	return append(pagesToSee(t, nodes[0], made), pagesToUse(nodes, waiting, imported)...)
}

// firstSteps makes the first administrator in the browser, and looks at pages that have nothing to show.
func firstSteps(t *testing.T, c *chromium, first *appliance) {
	t.Helper()
	for _, theme := range []string{"dark", "light"} {
		c.theme(theme)
		c.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate(first.site.URL+"/"), chromedp.WaitVisible(chromedp.ID("setup-code")))
		c.screenshot("setup-" + theme + "-1440")
		c.accessible("setup, " + theme)
	}
	code, err := first.Accounts.NewFirstCode()
	if err != nil {
		t.Fatal(err)
	}
	c.do(chromedp.SendKeys(chromedp.ID("setup-code"), code), chromedp.SendKeys(chromedp.ID("setup-name"), testAccount),
		chromedp.SendKeys(chromedp.ID("setup-password"), testPassword), chromedp.SendKeys(chromedp.ID("setup-again"), testPassword),
		chromedp.Submit(chromedp.ID("setup-code")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
	c.screenshot("status-empty-light-1440")
	c.accessible("status, empty")
	for _, p := range []string{"slots", "coverage", "sync", "applications", "jobs"} {
		c.do(chromedp.Navigate(first.site.URL+"/"+p), chromedp.WaitReady(chromedp.CSS("main")))
		c.screenshot(p + "-empty-light-1440")
		c.accessible(p + ", empty")
	}
}

// trouble fills the cluster with slots, applications and keys, of which some are not where they should
// be. It returns the digests of a package that one node has imported and of one that waits on another,
// and the job of the import.
func trouble(t *testing.T, nodes []*appliance) (made, waiting, imported string) {
	t.Helper()
	first := nodes[0]
	for _, a := range nodes {
		a.slot(t, "ManagementCA", cluster.Manual)
		a.slot(t, "IssuingCA-G2", cluster.Generated)
		if a != nodes[2] {
			a.slot(t, "Timestamping", cluster.Manual)
		}
	}
	for _, app := range []cluster.App{
		{Name: "ejbca", Slots: []string{"ManagementCA", "IssuingCA-G2"}, Nodes: []string{}, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: "restart-ok"}},
		{Name: "signserver", Slots: []string{"Timestamping"}, Nodes: []string{"node1", "node2"}, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: "restart-broken"}},
	} {
		if app.Name == "ejbca" {
			app.Delivery = cluster.Delivery{Kind: cluster.DeliverFile, Group: "daemon", Mode: cluster.ModeGroup, Manual: true}
		} else {
			app.After = []string{"ejbca"}
		}
		if err := first.Apps.Put(t.Context(), root, app, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Apps.Restart(t.Context(), root, app.Name); err == nil != (app.Name == "ejbca") {
			t.Fatalf("%s: %v", app.Name, err)
		}
	}
	otto := node.NewPerson{Name: "otto", FullName: "Otto Normal", Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser, Slots: []string{"ManagementCA", "Timestamping"}}, {Role: cluster.Auditor}}}
	if _, err := first.Accounts.Add(t.Context(), root, otto); err != nil {
		t.Fatal(err)
	}
	wantsApproval(t, first)
	mgmt := first.application(t, "ManagementCA")
	generate(t, mgmt, ecKey("mgmtca-g1-sign"), hsm.KeySpec{Type: "RSA", Bits: 2048, ID: []byte("mg2"), Label: "mgmtca-g2-sign", Usage: hsm.UseSign, Extractable: true})
	first.sees(t, 2)
	made, imported = exchange(t, first, nodes[1], "ManagementCA", "node2", "node3")
	generate(t, mgmt, hsm.KeySpec{Type: "EC", Curve: "P-384", ID: []byte("mg3"), Label: "mgmtca-g3-sign", Usage: hsm.UseSign, Extractable: true},
		hsm.KeySpec{Type: "AES", Bits: 256, ID: []byte("keyenc"), Label: "ca-key-encryption", Usage: hsm.UseEncrypt | hsm.UseDecrypt, Extractable: true},
		hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte("pinned"), Label: "legacy-2019", Usage: hsm.UseSign})
	generate(t, nodes[1].application(t, "ManagementCA"), hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte("mg3"), Label: "mgmtca-g3-sign", Usage: hsm.UseSign, Extractable: true})
	generate(t, first.application(t, "Timestamping"), ecKey("tsa-2026"))
	first.sees(t, 7)
	waiting, _ = exchange(t, first, nil, "ManagementCA", "node3")
	bring(t, first, nodes[2], waiting)
	if err := first.Slots.Deactivate(t.Context(), root, "Timestamping"); err != nil {
		t.Fatal(err)
	}
	if err := first.Trust.Set(t.Context(), root, "node2", "node3", false); err != nil {
		t.Fatal(err)
	}
	return made, waiting, imported
}

// wantsApproval makes a policy, and a request that waits for somebody.
func wantsApproval(t *testing.T, first *appliance) {
	t.Helper()
	first.colleague(t, "olga", cluster.RoleGrant{Role: cluster.SecurityOfficer}) // one officer alone cannot be under a policy
	if err := first.Approvals.SetPolicy(t.Context(), root, "node.remove", 1, cluster.SecurityOfficer, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Cluster.Apply(t.Context(), &cluster.RemoveNode{Node: "node3"}, root); !errors.Is(err, cluster.NeedsApproval) {
		t.Fatalf("removing a node: %v", err)
	}
}

func firstApproval(a *appliance) string {
	for id := range a.State().Approvals {
		return id
	}
	return ""
}

func at(a *appliance, name, path string) seen { return seen{name, a.site.URL + path, nil} }

// pagesToSee are pages of the first node as they are.
func pagesToSee(t *testing.T, first *appliance, made string) []seen {
	t.Helper()
	return []seen{
		at(first, "status", "/"), at(first, "hsm", "/hsm"), at(first, "protection", "/protection"), at(first, "restart", "/restart"), at(first, "custody", "/custody"), at(first, "activate", "/activate"), at(first, "custodians", "/slots/ManagementCA/custody"), at(first, "slots", "/slots"), at(first, "slot-manual", "/slots/ManagementCA"),
		at(first, "slot-generated", "/slots/IssuingCA-G2"), at(first, "slot-closed", "/slots/Timestamping"), at(first, "newslot", "/new-slot"),
		at(first, "coverage", "/coverage"), at(first, "sync", "/sync?slot=ManagementCA"), at(first, "package", packagePath(made)),
		at(first, "receipt", receiptPath(packageID(t, first, made), "node2")), at(first, "applications", "/applications"), at(first, "application", "/applications/signserver"), at(first, "application-codes", "/applications/ejbca"),
		at(first, "newapplication", "/new-application"), at(first, "approvals", "/approvals"), at(first, "approval", "/approvals/"+firstApproval(first)), at(first, "policies", "/policies"), at(first, "people", "/people"), at(first, "person", "/people/otto"), at(first, "newperson", "/new-person"), at(first, "roles", "/roles"), at(first, "cluster", "/cluster"), at(first, "settings", "/cluster/settings"), at(first, "replace", "/cluster/replace/node2"), at(first, "identity", "/identity"), at(first, "identitykeys", "/identity/keys"), at(first, "trust", "/identity/trust/node3/node1"), at(first, "audit", "/audit"), at(first, "audit-alerts", "/audit?alerts=1&since=2026-01-01"), at(first, "auditentry", "/audit/5"), at(first, "jobs", "/jobs"),
		at(first, "job-build", jobPath(lastJob(t, first))), at(first, "account", "/account"), at(first, "notfound", "/nowhere"),
		at(first, "key", keyPath("ManagementCA", fingerprintOf(t, first, "mgmtca-g3-sign"))),
	}
}

// pagesToUse are pages on which something is done first.
func pagesToUse(nodes []*appliance, waiting, imported string) []seen {
	login := func(a *appliance, name, path string) seen {
		return seen{name, a.site.URL + path, func(c *chromium) {
			if !evaluate[bool](c, `document.getElementById("login-name") != null`) {
				return
			}
			c.do(chromedp.SendKeys(chromedp.ID("login-name"), testAccount), chromedp.SendKeys(chromedp.ID("login-password"), testPassword),
				chromedp.Submit(chromedp.ID("login-name")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
		}}
	}
	list := []seen{login(nodes[2], "preview", packagePath(waiting)), login(nodes[1], "job-import", jobPath(imported)), at(nodes[2], "slot-absent", "/slots/Timestamping")}
	list = append(list, seen{"identity-open", nodes[0].site.URL + "/identity", func(c *chromium) {
		c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("steps").open = document.getElementById("renew").open = true`), chromedp.WaitVisible(chromedp.ID("renew-certificate")))
	}})
	list = append(list, seen{"slot-rotation", nodes[0].site.URL + "/slots/IssuingCA-G2", func(c *chromium) {
		c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("rotation").open = document.getElementById("mode").open = true`), chromedp.WaitVisible(chromedp.ID("rotation-days")))
	}})
	return append(list, seen{"code-wrong", nodes[0].site.URL + "/slots/ManagementCA", func(c *chromium) {
		c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("change-code").open = true`),
			chromedp.SendKeys(chromedp.ID("code-old"), "not the code"), chromedp.SendKeys(chromedp.ID("code-new"), "another code"), chromedp.SendKeys(chromedp.ID("code-again"), "another one"),
			chromedp.Submit(chromedp.ID("code-old")), chromedp.WaitVisible(chromedp.CSS(".errors")))
	}}, seen{"invitation", nodes[0].site.URL + "/cluster", func(c *chromium) {
		c.do(chromedp.SendKeys(chromedp.ID("invite-node"), "node4"), chromedp.Submit(chromedp.ID("invite-node")), chromedp.WaitVisible(chromedp.CSS("code.code")))
	}}, seen{"login", nodes[1].site.URL + "/login", func(c *chromium) {
		if evaluate[bool](c, `document.getElementById("login-name") == null`) {
			c.do(chromedp.Submit(chromedp.CSS(`form[action="/logout"]`)), chromedp.WaitVisible(chromedp.ID("login-name")))
		}
	}})
}

// TestPeopleInABrowser does what only a real browser can tell: it comes from another site with a session,
// chooses a theme, moves by keyboard, and sends a file.
func TestPeopleInABrowser(t *testing.T) {
	c := newChromium(t)
	a := newCluster(t, 1)[0]
	a.administrator(t)
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!doctype html><title>elsewhere</title><link rel="icon" href="data:,"><a id="link" href="%s/slots?x=1">there</a>`, a.site.URL)
	}))
	t.Cleanup(elsewhere.Close)
	c.do(chromedp.EmulateViewport(1280, 900), chromedp.Navigate(a.site.URL+"/"), chromedp.WaitVisible(chromedp.ID("login-name")),
		chromedp.SendKeys(chromedp.ID("login-name"), testAccount), chromedp.SendKeys(chromedp.ID("login-password"), testPassword),
		chromedp.Submit(chromedp.ID("login-name")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
	c.quiet("login")

	// 127.0.0.1 and localhost are different sites, so the first request comes without the cookie.
	c.do(chromedp.Navigate(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)), chromedp.Click(chromedp.ID("link")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
	if where := evaluate[string](c, "location.href"); where != a.site.URL+"/slots?x=1" {
		t.Errorf("the link from another site leads to %s", where)
	}
	c.quiet("link from another site")

	dark := `getComputedStyle(document.documentElement).colorScheme`
	c.theme("light")
	c.do(chromedp.Click(chromedp.CSS(".theme summary")), chromedp.Click(chromedp.CSS(`.theme button[value="dark"]`)), chromedp.WaitVisible(chromedp.CSS(`html[data-theme="dark"]`)))
	if scheme, where := evaluate[string](c, dark), evaluate[string](c, "location.pathname + location.search"); scheme != "dark" || where != "/slots?x=1" {
		t.Errorf("the color scheme is %s, at %s", scheme, where)
	}
	c.quiet("theme")

	c.do(chromedp.Navigate(a.site.URL+"/sync"), chromedp.WaitVisible(chromedp.ID("upload-package")))
	c.do(chromedp.KeyEvent("\t"), chromedp.KeyEvent("\r"), chromedp.KeyEvent("\t"))
	if focus := evaluate[string](c, `document.activeElement.closest("main") ? document.activeElement.id || document.activeElement.tagName : "outside"`); focus == "outside" {
		t.Error("the link that skips the navigation does not lead into the content")
	}
	file := filepath.Join(t.TempDir(), "x.keyferry")
	if err := os.WriteFile(file, bytes.Repeat([]byte("no package "), 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do(chromedp.SetUploadFiles(chromedp.ID("upload-package"), []string{file}), chromedp.Submit(chromedp.ID("upload-package")), chromedp.WaitVisible(chromedp.CSS(".errors a")))
	if text := evaluate[string](c, `document.querySelector(".errors").textContent`); !strings.Contains(text, "The package is refused") {
		t.Errorf("after a wrong file the page says %q", text)
	}
	c.do(chromedp.Click(chromedp.CSS(".errors a")))
	if focus := evaluate[string](c, "document.activeElement.id"); focus != "upload-package" {
		t.Errorf("the summary of errors leads to %q", focus)
	}
}
