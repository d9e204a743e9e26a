package webconf

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestTheTableIsAll: there is no route that is not in the table, and none in it twice.
func TestTheTableIsAll(t *testing.T) {
	s := &Server{}
	for name, routes := range map[string][]route{"console": consoleRoutes(), "api": apiRoutes(), "start": startRoutes()} {
		want := map[string]bool{}
		for _, r := range routes {
			key := r.method + " " + r.path
			if want[key] {
				t.Errorf("%s: %s is there twice", name, key)
			}
			want[key] = true
			if r.permission == "" || r.handle == nil {
				t.Errorf("%s: %s has no permission or no handler", name, key)
			}
			if reads := r.method == get || r.method == head || r.method == remove; reads != (r.body == none) {
				t.Errorf("%s: %s takes a body of %d bytes", name, key, r.body)
			}
		}
		e := s.router(routes, (*call).fromBrowser, errorPage)
		for _, r := range e.Routes() {
			if !want[r.Method+" "+r.Path] {
				t.Errorf("%s: %s %s is not in the table", name, r.Method, r.Path)
			}
		}
		if len(e.Routes()) != len(want) {
			t.Errorf("%s: %d routes, %d in the table", name, len(e.Routes()), len(want))
		}
	}
}

// fill puts something in the place of a path's parameters.
func fill(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if strings.HasPrefix(p, ":") {
			parts[i] = "x"
		}
	}
	return strings.Join(parts, "/")
}

// openRoutes are what anybody may ask for. Whoever adds one has to add it here too.
var openRoutes = []string{"GET /static/:hash/:file", "POST /theme", "GET /setup", "POST /setup", "GET /login", "POST /login",
	"GET /login/code", "POST /login/code", "GET /login/passkey", "POST /login/passkey", "POST /login/certificate"}

// TestWithoutSession asks every route without a session: nothing is done, and nothing is told.
func TestWithoutSession(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	a.slot(t, "TopSecretSlot", cluster.Manual)
	before := len(a.State().Audit)
	b := a.browser(t)
	for _, r := range consoleRoutes() {
		key := r.method + " " + r.path
		if slices.Contains(openRoutes, key) != (r.permission == public) {
			t.Errorf("%s has the permission %q", key, r.permission)
		}
		got := b.do(r.method, fill(r.path), strings.NewReader("label=y"), "Content-Type", "application/x-www-form-urlencoded")
		if strings.Contains(got.body, "TopSecretSlot") {
			t.Errorf("%s tells of slots", key)
		}
		if r.permission != public && (got.status != http.StatusSeeOther || !strings.HasPrefix(got.location(), "/login")) {
			t.Errorf("%s: %d to %q", key, got.status, got.location())
		}
	}
	if n := len(a.State().Audit); n != before {
		t.Errorf("%d entries in the audit trail, %d before", n, before)
	}
}

// TestCrossSite asks every route that changes something as a page of another site would, with the
// session of somebody who is logged in.
func TestCrossSite(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	before := len(a.State().Audit)
	for _, r := range consoleRoutes() {
		if r.method == get || r.method == head {
			continue
		}
		for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "", "Origin", "https://evil.example"}} {
			got := b.do(r.method, fill(r.path), strings.NewReader("label=y&mode=generated"), append(header, "Content-Type", "application/x-www-form-urlencoded")...)
			got.wants(t, http.StatusForbidden, "This came from a page of another site")
			if !strings.HasPrefix(got.header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%s: the refusal has no policy", r.path)
			}
		}
	}
	if n := len(a.State().Audit); n != before {
		t.Errorf("%d entries in the audit trail, %d before", n, before)
	}
	b.get("/").wants(t, http.StatusOK)
}

// TestLoggedInPages: what can be looked at can be looked at, and says what it may and what it is.
func TestLoggedInPages(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	for _, r := range consoleRoutes() {
		if r.method != get || strings.Contains(r.path, ":") || r.permission == public || r.path == "/removed" { // which a member leads away from
			continue
		}
		got := b.get(r.path)
		got.wants(t, http.StatusOK)
		h := got.header
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" ||
			h.Get("Referrer-Policy") != "same-origin" || !strings.HasPrefix(h.Get("Strict-Transport-Security"), "max-age=31536000") {
			t.Errorf("%s: %v", r.path, h)
		}
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", r.path, csp)
		}
	}
	for path, want := range map[string]int{"/nowhere": 404, "/slots/none": 404, "/jobs/none": 404, "/applications/none": 404, "/sync/packages/none": 404,
		"/sync/receipts/x/y": 404, "/coverage/a/b": 404, "/cluster/nodes/none/identity.jwk": 404, "/audit?before=x": 400, "/coverage?page=-1": 400, "/static/x/none.css": 404} {
		b.get(path).wants(t, want)
	}
	b.do(http.MethodDelete, "/slots", nil).wants(t, http.StatusMethodNotAllowed)
	b.do(http.MethodPost, "/new-slot", strings.NewReader("label="+strings.Repeat("x", maxForm)), "Content-Type", "application/x-www-form-urlencoded").wants(t, http.StatusRequestEntityTooLarge)
	b.do(http.MethodPost, "/new-slot", strings.NewReader("label=%zz"), "Content-Type", "application/x-www-form-urlencoded").wants(t, http.StatusBadRequest)
}

// TestLabels: a label may contain what means something in an address.
func TestLabels(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	for _, label := range []string{"new", "a b", "a/b", "50% of 100%", "a%2Fb", "a+b&c=d", "ä?#;", `"quoted" <b>`} {
		r := b.post("/new-slot", "label", label, "mode", cluster.Manual, "code", testCode, "again", testCode)
		if r.status != http.StatusSeeOther || r.location() != "/slots/"+url.PathEscape(label) {
			t.Errorf("%s: %d to %s: %s", label, r.status, r.location(), r.text())
			continue
		}
		page := b.get(r.location())
		page.wants(t, http.StatusOK, "is ready on node1")
		b.follow(b.post(slotPath(label)+"/deactivate")).wants(t, http.StatusOK, "is closed on node1")
		b.follow(b.post(slotPath(label)+"/activate", "code", testCode)).wants(t, http.StatusOK, "is active on node1")
		if !strings.Contains(html.UnescapeString(b.get("/slots").body), `href="`+slotPath(label)) {
			t.Errorf("the list of slots does not lead to %s (%s)", label, slotPath(label))
		}
	}
}

// TestPanic: a handler that panics is an internal error with a reference, and nothing of the request is
// in the log.
func TestPanic(t *testing.T) {
	a := newCluster(t, 1)[0]
	e := a.web.router([]route{{post, "/panic", public, func(c *call) error { panic("at the disco") }, small},
		{get, "/fails", public, func(*call) error { return fmt.Errorf("a cause that is nobody's business") }, none}}, (*call).fromBrowser, errorPage)
	b := a.browser(t)
	a.site.Config.Handler = e
	r := b.post("/panic?secret=hunter2", "code", "hunter2")
	r.wants(t, http.StatusInternalServerError, "Something went wrong here", "An internal error")
	b.get("/fails").wants(t, http.StatusInternalServerError)
	log := a.log.String()
	if strings.Contains(log, "hunter2") || !strings.Contains(log, "at the disco") {
		t.Error("the log does not tell of the panic, or tells too much")
	}
	if strings.Contains(r.body, "disco") || strings.Contains(b.get("/fails").body, "nobody's business") {
		t.Error("the page shows the cause")
	}
}
