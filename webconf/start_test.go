package webconf

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// withCode is a browser in which the one-time code of a new node was entered.
func withCode(t testing.TB, a *appliance, n *node.Node) *browser {
	t.Helper()
	code, err := n.Entrance().NewCode()
	if err != nil {
		t.Fatal(err)
	}
	b := a.browser(t)
	b.follow(b.post("/start", "code", code)).wants(t, http.StatusOK, "What is it to be?")
	return b
}

// arrives loads the first page until it is that of a member.
func (b *browser) arrives() reply {
	b.t.Helper()
	var r reply
	eventually(b.t, "the node is in a cluster", func() bool {
		r = b.get("/")
		return strings.Contains(r.body, "the certificate changes") || strings.Contains(r.body, "banner bad")
	})
	return r
}

// shown is the fingerprint of the certificate that a new connection gets.
func (a *appliance) shown(t testing.TB) string {
	t.Helper()
	c, err := tls.Dial("tcp", strings.TrimPrefix(a.site.URL, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return cluster.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
}

// TestStartByPages founds a cluster and joins it, by nothing but pages.
func TestStartByPages(t *testing.T) {
	a, n := newAppliance(t, "node1")
	own, err := n.Entrance().Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if shown := a.shown(t); shown != own {
		t.Errorf("a new node shows %s, not %s", shown, own)
	}
	stranger := a.browser(t)
	r := stranger.get("/")
	r.wants(t, http.StatusOK, "This node belongs to no cluster yet", own, "Enter the code")
	if r.header.Get("Strict-Transport-Security") != "" || !strings.HasPrefix(r.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%v", r.header)
	}
	for range firstTries {
		stranger.post("/start", "code", "0000-0000-0000-0000-0000").wants(t, http.StatusUnprocessableEntity, "That is not the one-time code")
	}
	b := withCode(t, a, n)
	for want, fields := range map[string][]string{
		"Cluster name is missing": {"cluster", " ", "name", testAccount, "password", testPassword, "again", testPassword},
		"at most 64":              {"cluster", strings.Repeat("x", 65), "name", testAccount, "password", testPassword, "again", testPassword},
		"ccount name":             {"cluster", "ca-prod", "name", "A B", "password", testPassword, "again", testPassword},
		"at least 12":             {"cluster", "ca-prod", "name", testAccount, "password", "short", "again", "short"},
		"two entries":             {"cluster", "ca-prod", "name", testAccount, "password", testPassword, "again", testPassword + "x"},
	} {
		r := b.post("/found", fields...)
		r.wants(t, http.StatusUnprocessableEntity, want)
		if strings.Contains(r.body, testPassword) {
			t.Errorf("%s: the password is shown again", want)
		}
	}
	if _, err := n.Member(); err == nil {
		t.Fatal("a mistake has made a cluster")
	}
	if r := b.post("/found", "cluster", "ca-prod", "name", testAccount, "password", testPassword, "again", testPassword); r.status != http.StatusSeeOther {
		t.Fatalf("%d %s", r.status, r.text())
	}
	last := b.arrives()
	if a.Member, err = n.Member(); err != nil {
		t.Fatal(err)
	}
	real, err := a.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	last.wants(t, http.StatusOK, "This node is now in cluster ca-prod", real, "Log in as "+testAccount)
	if shown := a.shown(t); shown != real || real == own {
		t.Errorf("a member shows %s, not %s", shown, real)
	}
	// The browser that stayed goes on with what it has until it leaves; then it has a new connection.
	b.get("/login").wants(t, http.StatusNotFound)
	r = stranger.get("/") // a connection from before, too, but not of whoever began it
	r.wants(t, http.StatusOK, "This node is now in cluster ca-prod", real)
	if strings.Contains(r.body, testAccount) {
		t.Error("a stranger is told who the first administrator is")
	}
	stranger.get("/leave").wants(t, http.StatusOK, "The console opens")
	b.get("/leave").wants(t, http.StatusOK, "The console opens")
	eventually(t, "the browser has a new connection", func() bool { return b.get("/").location() == "/login" })
	a.loggedIn(t).get("/cluster").wants(t, http.StatusOK, "node1")
	for _, secret := range []string{testPassword} {
		if strings.Contains(a.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	joinByPages(t, a)
}

// firstTries is how many wrong codes are tried here: fewer than lock the code.
const firstTries = 2

// joinByPages lets a second node join, after what people do wrong.
func joinByPages(t *testing.T, first *appliance) {
	a, n := newAppliance(t, "node2")
	inv, err := first.Invite(t.Context(), root, "node2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b := withCode(t, a, n)
	b.get("/join").wants(t, http.StatusOK, "Address of a node of the cluster")
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	defer elsewhere.Close()
	for address, want := range map[string]string{"": "ddress", "https://node1": "ddress", "127.0.0.1:1": "check that it runs", elsewhere.Listener.Addr().String(): "not that of its console"} {
		b.post("/join/look", "address", address).wants(t, http.StatusUnprocessableEntity, want)
	}
	if r := b.post("/join", "end", "00000000", "code", inv.Code); r.location() != "/join" {
		t.Errorf("joining before looking leads to %s", r.location())
	}
	look := b.post("/join/look", "address", inv.Address)
	look.wants(t, http.StatusOK, "Is this your cluster?", inv.Fingerprint[:len(inv.Fingerprint)-11])
	end := inv.Fingerprint[len(inv.Fingerprint)-11:]
	if strings.Contains(look.body, end) {
		t.Error("the page shows the digits that a person should fetch")
	}
	for _, c := range []struct{ end, code, want string }{
		{"00:00:00:00", inv.Code, "not how the fingerprint of"}, {"", inv.Code, "not how the fingerprint of"},
		{end[6:], inv.Code, "not how the fingerprint of"}, {end, "abc", "ne-time code"}, {end, "", "ne-time code"},
	} {
		r := b.post("/join", "end", c.end, "code", c.code)
		r.wants(t, http.StatusUnprocessableEntity, c.want, "Is this your cluster?")
		if strings.Contains(r.body, inv.Code) {
			t.Error("the code is shown again")
		}
	}
	unknown, _ := cluster.NewJoinCode()
	b.post("/join", "end", end, "code", unknown)
	b.arrives().wants(t, http.StatusOK, "This node has joined no cluster.", "is not known", "Join a cluster")
	if r := b.get("/join"); !strings.Contains(r.body, inv.Address) {
		t.Error("the address has to be entered again")
	}
	b.post("/join", "end", strings.ToLower(inv.Fingerprint), "code", strings.ToLower(inv.Code))
	last := b.arrives()
	if a.Member, err = n.Member(); err != nil {
		t.Fatal(err)
	}
	real, err := a.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	last.wants(t, http.StatusOK, "This node is now in cluster ca-prod", real, "Log in with your account of the cluster")
	if s := first.State().Nodes["node2"].Status; s != cluster.Connected {
		t.Errorf("node2 is %s", s)
	}
	if strings.Contains(a.log.String(), inv.Code) || strings.Contains(a.log.String(), unknown) {
		t.Error("a code is in the log")
	}
}

// TestStartPermissions asks each route of a new node with and without the code.
func TestStartPermissions(t *testing.T) {
	a, n := newAppliance(t, "node1")
	people := []*browser{a.browser(t), withCode(t, a, n)}
	e := a.web.router(stubbed(startRoutes()), (*call).fromStart, startError)
	a.site.Config.Handler = e
	got := map[string]string{}
	for _, r := range e.Routes() {
		var may []string
		for _, b := range people {
			answer := b.do(r.Method, fill(r.Path), nil)
			switch {
			case answer.status == http.StatusTeapot:
				may = append(may, "y")
			case answer.status == http.StatusSeeOther && answer.location() == "/":
				may = append(may, "-")
			default:
				t.Errorf("%s %s: %d", r.Method, r.Path, answer.status)
			}
		}
		got[r.Method+" "+r.Path] = strings.Join(may, " ")
	}
	want := readTable(t, "start-permissions.txt")
	for _, key := range slices.Compact(append(sortedKeys(got), sortedKeys(want)...)) {
		if got[key] != want[key] {
			t.Errorf("who may differs from testdata/start-permissions.txt: %s is %q, there %q", key, got[key], want[key])
		}
	}
	for _, r := range startRoutes() {
		if r.method == post {
			people[1].do(r.method, r.path, strings.NewReader("x=y"), "Sec-Fetch-Site", "cross-site", "Content-Type", "application/x-www-form-urlencoded").wants(t, http.StatusForbidden)
		}
	}
}

// startPages are those of a new node.
func startPages(text string) (list []page) {
	v := startView{Node: "node1", Version: text, Peer: text, Web: text, Module: text, Fingerprint: "AA:BB", Life: "15 min"}
	list = append(list, page{Name: "start", Title: "Start", Form: newForm("start", nil), Data: v}, page{Name: "start", Title: "Start", Form: failed("start", text), Data: v})
	for _, e := range []node.Entry{{}, {Founding: true}, {Stage: cluster.Initializing}} {
		v.Entered, v.Entry, v.Failed = true, e, ""
		if e != (node.Entry{}) {
			v.Failed = text
		}
		list = append(list, page{Name: "start", Title: "Start", Form: newForm("start", nil), Data: v})
	}
	v.Requested = strings.Repeat("0a", 32)
	list = append(list, page{Name: "start", Title: "Start", Form: newForm("start", nil), Data: v})
	for _, f := range []*form{newForm("found", nil), failed("found", text)} {
		list = append(list, page{Name: "found", Title: "Found", Crumbs: startCrumbs(), Form: f, Data: foundView{"node1"}})
	}
	list = append(list, page{Name: "join", Title: "Join", Form: failed("look", text), Data: joinView{Node: "node1"}}, page{Name: "join", Title: "Join", Form: failed("join", text), Data: joinView{"node1", text, "AA:BB:", endDigits}})
	list = append(list, page{Name: "leaving", Title: "One moment"})
	for _, founding := range []bool{false, true} {
		list = append(list, page{Name: "entering", Title: "Enter", Refresh: 2, Data: enteringView{Entry: node.Entry{Founding: founding, Stage: cluster.Initializing}}},
			page{Name: "entering", Title: "Enter", Refresh: 2, Data: enteringView{node.Entry{Founding: founding, Stage: cluster.Connecting}, "AA:BB"}},
			page{Name: "entered", Title: "Entered", Data: doneView{Node: "node1", Cluster: text, Account: text, Fingerprint: "AA:BB", Founding: founding}},
			page{Name: "entered", Title: "Entered", Data: doneView{Node: "node1", Cluster: text, Fingerprint: "AA:BB", Founding: founding, Warning: text}},
			page{Name: "entered", Title: "Entered", Data: doneView{Node: "node1", Cluster: text, Fingerprint: "AA:BB", Running: true}})
	}
	return list
}

func TestFingerprintEnds(t *testing.T) {
	whole := strings.Repeat("AB:", 28) + "12:34:56:7F"
	if seen := withoutEnd(whole); seen != strings.Repeat("AB:", 28) {
		t.Errorf("it shows %s", seen)
	}
	for typed, want := range map[string]bool{"12:34:56:7F": true, "1234567f": true, " 12 34 56 7f ": true, whole: true, strings.ReplaceAll(strings.ToLower(whole), ":", ""): true,
		"": false, "7F": false, "2345677F": false, "AB:12:34:56:7F": false, "1234567": false, whole + "00": false, whole[3:]: false} {
		if sameEnd(typed, whole) != want {
			t.Errorf("%q: not %t", typed, want)
		}
	}
}

// TestStartInABrowser does it all with two new nodes, and looks at each page.
func TestStartInABrowser(t *testing.T) {
	c := newChromium(t)
	look := func(name string) {
		t.Helper()
		for _, l := range []struct {
			theme string
			width int64
		}{{"light", 1280}, {"dark", 1280}, {"light", 420}} {
			c.theme(l.theme)
			c.do(chromedp.EmulateViewport(l.width, 900))
			where := fmt.Sprintf("%s-%s-%d", name, l.theme, l.width)
			c.do(chromedp.Evaluate[chromedp.Void](`document.querySelectorAll("main details").forEach(d => d.open = true)`))
			if over := evaluate[int](c, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
				t.Errorf("%s: %d pixels too wide", where, over)
			}
			c.screenshot(where)
			if l.width > 1000 { // the rules look at colors and meaning, which do not change with the width
				c.accessible(where)
			}
			c.quiet(where)
		}
	}
	enter := func(a *appliance, n *node.Node, name string) {
		code, err := n.Entrance().NewCode()
		if err != nil {
			t.Fatal(err)
		}
		c.do(chromedp.Navigate(a.site.URL+"/"), chromedp.WaitVisible(chromedp.ID("start-code")))
		if name != "" {
			look(name)
		}
		c.do(chromedp.SendKeys(chromedp.ID("start-code"), code), chromedp.Submit(chromedp.ID("start-code")), chromedp.WaitVisible(chromedp.CSS(".ways")))
	}
	first, n := newAppliance(t, "node1")
	enter(first, n, "start-code")
	look("start-choice")
	c.do(chromedp.Click(chromedp.CSS(`a[href="/found"]`)), chromedp.WaitVisible(chromedp.ID("found-name")))
	look("start-found")
	c.do(chromedp.SendKeys(chromedp.ID("found-cluster"), "PKI production"), chromedp.SendKeys(chromedp.ID("found-name"), testAccount), chromedp.SendKeys(chromedp.ID("found-password"), testPassword),
		chromedp.SendKeys(chromedp.ID("found-again"), testPassword), chromedp.Submit(chromedp.ID("found-name")), chromedp.WaitVisible(chromedp.CSS(`a[href="/leave"]`)))
	look("start-entered")
	c.do(chromedp.Click(chromedp.CSS(`a[href="/leave"]`)), chromedp.WaitVisible(chromedp.ID("login-name")))
	c.quiet("after leaving")
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	inv, err := m.Invite(t.Context(), root, "node2", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	second, n2 := newAppliance(t, "node2")
	enter(second, n2, "")
	c.do(chromedp.Click(chromedp.CSS(`a[href="/join"]`)), chromedp.WaitVisible(chromedp.ID("look-address")))
	look("start-join")
	c.do(chromedp.SendKeys(chromedp.ID("look-address"), inv.Address), chromedp.Submit(chromedp.ID("look-address")), chromedp.WaitVisible(chromedp.ID("join-end")))
	look("start-compare")
	c.do(chromedp.SendKeys(chromedp.ID("join-end"), "00000000"), chromedp.SendKeys(chromedp.ID("join-code"), inv.Code), chromedp.Submit(chromedp.ID("join-end")), chromedp.WaitVisible(chromedp.CSS(".errors")))
	look("start-compare-wrong")
	c.do(chromedp.Evaluate[chromedp.Void](`document.getElementById("join-end").value = ""`), chromedp.SendKeys(chromedp.ID("join-end"), inv.Fingerprint[len(inv.Fingerprint)-11:]), chromedp.SendKeys(chromedp.ID("join-code"), inv.Code), chromedp.Submit(chromedp.ID("join-end")),
		chromedp.WaitVisible(chromedp.CSS(`a[href="/leave"]`)))
	look("start-joined")
	c.do(chromedp.Click(chromedp.CSS(`a[href="/leave"]`)), chromedp.WaitVisible(chromedp.ID("login-name")),
		chromedp.SendKeys(chromedp.ID("login-name"), testAccount), chromedp.SendKeys(chromedp.ID("login-password"), testPassword), chromedp.Submit(chromedp.ID("login-name")), chromedp.WaitVisible(chromedp.CSS("nav.side")))
	c.quiet("at the end")
}
