package webconf

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/labstack/echo/v4"
)

// toLogin leads whoever has no session to where one can be had.
//
// After a link from another node's console the browser withholds the session's cookie, which is
// SameSite=Strict, if the nodes' addresses are different sites (as IP addresses are). So such a request
// gets a page that goes on by itself: the next request comes from this site, and has the cookie.
func (c *call) toLogin() error {
	r := c.Request()
	where := "/login"
	if r.Method == http.MethodGet && r.URL.Path != "/" {
		where += "?next=" + url.QueryEscape(r.URL.RequestURI())
	}
	if !c.m.Accounts.Any() {
		where = "/setup"
	}
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return c.render(http.StatusOK, page{Name: "onward", Title: "One moment", Data: where})
	}
	return c.redirect(where)
}

// localPath is a path of this console, or "/": what comes from a form or an address must not lead
// elsewhere.
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(s, "/") ||
		strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}

type loginView struct {
	Next        string
	Ended       bool   // a session was open in this browser, and has ended
	Notice      string // for everybody who comes here
	Idle        string
	Life        string
	Passkeys    bool
	Certificate *certificateView // what this connection has shown, if it can log in
}

func loginPage(c *call) error {
	if !c.m.Accounts.Any() {
		return c.redirect("/setup")
	}
	next := localPath(c.QueryParam("next"))
	if c.actor.Kind != "" {
		return c.redirect(next)
	}
	_, err := c.Cookie(c.srv.sessions.cookie)
	if err == nil && c.Request().Header.Get("Sec-Fetch-Site") != "cross-site" {
		if err := c.endSession(); err != nil { // so that it is said once
			return err
		}
	}
	return showLogin(c, newForm("login", map[string]string{"next": next}), err == nil)
}

func showLogin(c *call, f *form, ended bool) error {
	return c.show(page{Name: "login", Title: "Log in", Form: f, Data: loginView{Next: localPath(f.Value("next")), Ended: ended, Notice: c.m.Settings.Notice(), Idle: span(c.m.Settings.SessionIdle()),
		Life: span(sessionLife), Passkeys: c.m.Passkeys.Offered() == nil, Certificate: c.shownCertificate()}})
}

func login(c *call) error {
	f, err := c.readForm("login", "password")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	l, err := c.m.Accounts.Login(c.Request().Context(), f.text("name"), f.secret("password"), c.origin())
	if err != nil {
		c.srv.log.Warn("login refused", "from", c.RealIP())
		c.retryAfter(judge(err))
		if err := f.blame("password", err); err != nil {
			return err
		}
		return showLogin(c, f, false)
	}
	next := localPath(f.Values.Get("next"))
	if l.NeedsCode() {
		c.srv.begun.logins.put(c.begin(), l)
		return c.redirect("/login/code?next=" + url.QueryEscape(next))
	}
	if err := c.startSession(l); err != nil {
		return err
	}
	return c.redirect(next)
}

func logout(c *call) error {
	if err := c.m.Accounts.Left(c.Request().Context(), c.actor, c.origin()); err != nil {
		return err
	}
	if err := c.endSession(); err != nil {
		return err
	}
	return c.redirect("/login")
}

type setupView struct {
	Fingerprint string
	Cluster     string
}

// setupPage is there until there is an account; then it is gone for ever.
func setupPage(c *call) error {
	if c.m.Accounts.Any() {
		return c.redirect("/login")
	}
	return showSetup(c, newForm("setup", nil))
}

func showSetup(c *call, f *form) error {
	fingerprint, err := c.m.Fingerprint()
	if err != nil {
		return err
	}
	return c.show(page{Name: "setup", Title: "Make the first administrator", Form: f, Data: setupView{fingerprint, c.m.State().Cluster.Name}})
}

func setup(c *call) error {
	if c.m.Accounts.Any() {
		return echo.ErrNotFound
	}
	f, err := c.readForm("setup", "code", "password", "again")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	name := f.text("name")
	if err := cluster.CheckAccountName(name); err != nil {
		f.fail("name", "%s", sentence(err.Error()))
	}
	if err := node.CheckPassword(f.secret("password")); err != nil {
		f.fail("password", "%s", sentence(err.Error()))
	}
	if f.twice("password", "again", "password"); !f.ok() {
		return showSetup(c, f)
	}
	err = c.m.Accounts.CreateFirst(c.Request().Context(), f.secret("code"), name, f.secret("password"))
	if err != nil {
		if err := f.blame("code", err); err != nil {
			return err
		}
		return showSetup(c, f)
	}
	l, err := c.m.Accounts.Login(c.Request().Context(), name, f.secret("password"), c.origin())
	if err != nil {
		return err
	}
	if err := c.startSession(l); err != nil {
		return err
	}
	return c.redirect("/")
}
