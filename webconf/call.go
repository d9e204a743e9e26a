package webconf

import (
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/sessions"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/labstack/echo/v4"
)

// A call is one request as handlers see it: who asks, and the member of the cluster that answers.
type call struct {
	echo.Context
	srv     *Server
	m       *node.Member      // nil before the node is a member; then only public routes of the API are reached
	alone   error             // why it is none: it is new, or sealed
	actor   cluster.Actor     // empty when nobody is logged in
	session *sessions.Session // of the console
	started bool              // the one-time code of a new node was entered in this browser
	now     *situation        // see look
}

const callKey = "keyferry call"

// authorize tells whether the actor may use a route. What counts is decided again where a command is
// applied; this answers sooner and in better words. slot is as for cluster.Authorize.
func (c *call) authorize(p cluster.Permission, slot string) error {
	switch {
	case p == public, p == started && c.started:
		return nil
	case p == started:
		return errNoCode
	case c.m == nil:
		return c.alone
	case c.actor.Kind == "":
		return errNoSession
	case p == loggedIn:
		return nil
	}
	if c.actor.Kind == cluster.ByAccount && c.m.State().Accounts[c.actor.Name].MustChange {
		return errMustChange
	}
	return cluster.Authorize(c.m.State(), c.actor, c.m.Name(), p, slot)
}

// afterRemoval tells whether a route is none that a node still has when it was removed from its cluster.
func (c *call) afterRemoval(r route) bool {
	return c.m != nil && c.m.StillMember() != nil && r.permission != public && r.path != "/removed" && r.path != "/logout"
}

// may tells whether the actor has a permission, so that a page offers nothing that would be refused.
func (c *call) may(p cluster.Permission, slot string) bool { return c.authorize(p, slot) == nil }

// slotOf is the slot that a route is about: the one in its path, or one that its handler finds out.
func (c *call) slotOf() (string, error) {
	if c.Param("label") == "" {
		return cluster.AnySlot, nil
	}
	return c.segment("label")
}

// segment is a part of the path as it was meant. Echo routes by the escaped path where that differs from
// the plain one, and then leaves parts escaped: a label may contain slashes.
func (c *call) segment(name string) (string, error) {
	s := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return s, nil
	}
	plain, err := url.PathUnescape(s)
	if err != nil {
		return "", echo.NewHTTPError(http.StatusBadRequest, "the address is not well-formed")
	}
	return plain, nil
}

// redirect sends the browser to a page of this console by GET.
func (c *call) redirect(path string) error { return c.Redirect(http.StatusSeeOther, path) }

// patience lets this request take longer than the server's timeouts allow others.
func (c *call) patience(d time.Duration) {
	rc := http.NewResponseController(c.Response())
	until := time.Now().Add(d)
	// Neither is an error: what cannot be extended has no limit or a limit of its own.
	_ = rc.SetReadDeadline(until)
	_ = rc.SetWriteDeadline(until)
}

// look is the situation of the node, the same for everything in one answer.
func (c *call) look() *situation {
	if c.now == nil {
		c.now = c.srv.look(c.m)
	}
	return c.now
}

// slotPath is the page of a slot.
func slotPath(label string) string { return "/slots/" + url.PathEscape(label) }

func packagePath(digest string) string { return "/sync/packages/" + url.PathEscape(digest) }

func jobPath(id string) string { return "/jobs/" + url.PathEscape(id) }

func applicationPath(name string) string { return "/applications/" + url.PathEscape(name) }

func keyPath(label, fingerprint string) string {
	return "/coverage/" + url.PathEscape(label) + "/" + url.PathEscape(fingerprint)
}
