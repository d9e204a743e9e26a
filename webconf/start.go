package webconf

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/unrolled/secure"
)

// started is for whoever has entered the one-time code of a node that belongs to no cluster.
const started cluster.Permission = "started"

// startRoutes is all that the console of a node is while it belongs to no cluster.
func startRoutes() []route {
	return []route{
		{get, "/static/:hash/:file", public, staticFile, none},
		{post, "/theme", public, setTheme, small},
		{get, "/", public, startPage, none},
		{post, "/start", public, enterStart, small},
		{post, "/request", started, startRequest, small},
		{get, "/found", started, foundPage, none},
		{post, "/found", started, found, small},
		{get, "/join", started, joinPage, none},
		{post, "/join/look", started, lookAtMember, small},
		{post, "/join", started, join, small},
		{get, "/leave", public, leaveStart, none},
	}
}

type newKey struct{}

// ConsoleContext, as the ConnContext of the console's http.Server, remembers whether the node was new when a
// browser connected. Such a connection has shown the certificate of the first start, so it goes on with those
// pages until the browser has been told of the other certificate and leaves.
func (s *Server) ConsoleContext(ctx context.Context, _ net.Conn) context.Context {
	_, err := s.node.Member()
	return context.WithValue(ctx, newKey{}, errors.Is(err, node.ErrNotMember))
}

// forNew tells whether a request gets the pages of a new node.
func (s *Server) forNew(r *http.Request) bool {
	if was, ok := r.Context().Value(newKey{}).(bool); ok {
		return was
	}
	_, err := s.node.Member()
	return errors.Is(err, node.ErrNotMember)
}

// startHandler serves a new node. It does not tell browsers to insist on TLS (RFC 6797): one that did would
// let nobody past the certificate of a node that starts anew.
func (s *Server) startHandler() http.Handler {
	h := headers()
	h.STSSeconds = 0
	return secure.New(h).Handler(s.router(startRoutes(), (*call).fromStart, startError))
}

// TLS is how the console is served: with the certificate that the node has in its cluster, or with one of its
// own while it belongs to none.
func (s *Server) TLS() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"}, // as net/http would add, but also for who is asked
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			m, err := s.node.Member()
			if err != nil {
				return nil, err
			}
			return m.Identity.Certificate()
		},
	}
	c.GetConfigForClient = s.configForClient(c)
	return c
}

// startTLS is for the connections of a new node. Sessions are not resumed: a browser that did would go on
// believing in this certificate and not look at the next one.
func (s *Server) startTLS(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.GetConfigForClient, c.SessionTicketsDisabled = nil, true
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.node.Entrance().Certificate() }
	return c
}

// What a session of the first start holds.
const (
	startEntered     = "entered"     // the code was right
	startAddress     = "address"     // of the member to join through
	startFingerprint = "fingerprint" // that it showed
	startRequested   = "requested"   // SHA-256 of the key for which a certificate was requested
	startLeft        = "left"        // the browser has been told of the other certificate
)

// errNoCode says that the one-time code was not entered in this browser, or too long ago.
var errNoCode = errors.New("enter the one-time code first")

// fromStart finds the session of a request to a new node.
func (c *call) fromStart() error {
	session, err := c.srv.starts.Get(c.Request(), c.srv.starts.cookie)
	if err != nil {
		return err
	}
	c.session = session
	c.started, _ = session.Values[startEntered].(bool)
	return nil
}

func (c *call) kept(key string) string {
	s, _ := c.session.Values[key].(string)
	return s
}

// startError answers errors of a new node.
func startError(c *call, err error) {
	if errors.Is(err, errNoCode) && !c.Response().Committed {
		err = c.redirect("/")
		if err == nil {
			return
		}
	}
	errorPage(c, err)
}

type startView struct {
	Node, Version, Peer, Web, Module string
	Fingerprint                      string // of the certificate that the browser shows now
	Entered                          bool
	Entry                            node.Entry
	Failed                           string // why the last attempt ended
	Life                             string
	Requested                        string // SHA-256 of the key in the request, once that was made
}

type doneView struct {
	Node, Cluster, Account, Fingerprint string
	Founding, Running                   bool
	Warning                             string // what was not done
}

// startPage is where the first start stands: the code, the choice, the progress, or the end.
func startPage(c *call) error { return showStart(c, newForm("start", nil)) }

func showStart(c *call, f *form) error {
	e := c.srv.node.Entrance()
	now := e.Now()
	left, _ := c.session.Values[startLeft].(bool)
	switch {
	case c.m != nil && left:
		return showLeaving(c)
	case c.started && now.Running:
		return showEntering(c, now)
	case c.m != nil:
		return showDone(c, now)
	case c.alone != nil && !errors.Is(c.alone, node.ErrNotMember):
		return c.alone
	}
	v := startView{Node: c.srv.node.Name(), Version: c.srv.node.Version(), Peer: c.srv.node.PeerAddress(), Web: c.srv.node.WebURL(), Module: c.srv.node.AdminModule(),
		Entered: c.started, Entry: now, Life: span(sessionIdle)}
	if c.started {
		v.Requested = c.kept(startRequested)
	}
	if c.started && now.Err != nil {
		v.Failed = sentence(said(now.Err).Error())
	}
	var err error
	if v.Fingerprint, err = e.Fingerprint(); err != nil {
		return err
	}
	return c.show(page{Name: "start", Title: "This node belongs to no cluster yet", Form: f, Data: v})
}

type enteringView struct {
	node.Entry
	Fingerprint string // of the certificate that new connections get; empty while it is the first start's
}

func showEntering(c *call, e node.Entry) error {
	v, title := enteringView{Entry: e}, "Joining the cluster"
	if e.Founding {
		title = "Making the cluster"
	}
	if c.m != nil {
		v.Fingerprint, _ = c.m.Fingerprint() // the page is good without
	}
	return c.show(page{Name: "entering", Title: title, Refresh: 2, Data: v})
}

func showDone(c *call, now node.Entry) error {
	v := doneView{Node: c.srv.node.Name(), Cluster: c.m.Identity.ClusterName(), Running: now.Running}
	if c.started { // what only the one who began it is told
		v.Founding, v.Account = now.Founding, now.Account
		if now.Err != nil {
			v.Warning = sentence(said(now.Err).Error())
		}
	}
	var err error
	if v.Fingerprint, err = c.m.Fingerprint(); err != nil {
		return err
	}
	return c.show(page{Name: "entered", Title: "This node is now in cluster " + v.Cluster, Data: v})
}

// enterStart takes the one-time code, once.
func enterStart(c *call) error {
	f, err := c.readForm("start", "code")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	if c.m != nil || c.started {
		return c.redirect("/")
	}
	if err := c.srv.node.Entrance().CheckCode(f.secret("code")); err != nil {
		c.srv.log.Warn("the one-time code of the first start was refused", "from", c.RealIP())
		if err := f.blame("code", err); err != nil {
			return err
		}
		return showStart(c, f)
	}
	c.session.Values[startEntered] = true
	if err := c.save(); err != nil {
		return err
	}
	return c.redirect("/")
}

type foundView struct{ Node string }

func foundPage(c *call) error { return showFound(c, newForm("found", nil)) }

func showFound(c *call, f *form) error {
	if c.m != nil {
		return c.redirect("/")
	}
	return c.show(page{Name: "found", Title: "Make a new cluster", Crumbs: startCrumbs(), Form: f, Data: foundView{c.srv.node.Name()}})
}

func startCrumbs() []crumb { return []crumb{{"First start", "/"}} }

// found begins to make a cluster with its first administrator. The code was entered before, so there is no
// second one.
func found(c *call) error {
	f, under, err := c.readCertified("found", "password", "again")
	if err != nil {
		return err
	}
	name, account := f.text("cluster"), f.text("name")
	if err := cluster.CheckClusterName(name); err != nil {
		f.fail("cluster", "%s", sentence(err.Error()))
	}
	if err := cluster.CheckAccountName(account); err != nil {
		f.fail("name", "%s", sentence(err.Error()))
	}
	if err := node.CheckPassword(f.secret("password")); err != nil {
		f.fail("password", "%s", sentence(err.Error()))
	}
	if f.twice("password", "again", "password"); !f.ok() {
		return showFound(c, f)
	}
	if under != nil {
		err = c.srv.node.Entrance().FoundUnder(name, account, f.secret("password"), *under)
	} else {
		err = c.srv.node.Entrance().Found(name, account, f.secret("password"))
	}
	if err != nil {
		return err
	}
	return c.redirect("/")
}

type joinView struct {
	Node    string
	Address string // that was looked at; empty before
	Seen    string // the fingerprint that it showed, without its end
	End     int    // how many digits are kept back
}

// endDigits are how many digits of a fingerprint a person fetches from the other console. They are not shown
// here, so they cannot be entered without going there.
const endDigits = 8

func joinPage(c *call) error {
	return showJoin(c, newForm("look", map[string]string{"address": c.kept(startAddress)}), false)
}

// showJoin shows the first step, or with compare the second.
func showJoin(c *call, f *form, compare bool) error {
	if c.m != nil {
		return c.redirect("/")
	}
	v := joinView{Node: c.srv.node.Name(), End: endDigits}
	title := "Join a cluster"
	if compare {
		v.Address, v.Seen, title = c.kept(startAddress), withoutEnd(c.kept(startFingerprint)), "Is this your cluster?"
	}
	return c.show(page{Name: "join", Title: title, Crumbs: startCrumbs(), Form: f, Data: v})
}

// withoutEnd is a fingerprint whose last digits are kept back.
func withoutEnd(fingerprint string) string {
	return fingerprint[:max(0, len(fingerprint)-endDigits*3/2+1)]
}

// sameEnd compares what a person typed with a fingerprint: its last digits, or all of it.
func sameEnd(typed, fingerprint string) bool {
	plain := strings.NewReplacer(":", "", "-", "", " ", "").Replace
	typed, fingerprint = strings.ToUpper(plain(typed)), plain(fingerprint)
	return len(typed) == endDigits && strings.HasSuffix(fingerprint, typed) || typed == fingerprint
}

// lookAtMember fetches the fingerprint of the node at an address. Nothing is sent to it.
func lookAtMember(c *call) error {
	f, err := c.readForm("look")
	if err != nil {
		return err
	}
	address := f.text("address")
	fingerprint, err := c.srv.node.Entrance().Look(c.Request().Context(), address)
	if err != nil {
		if err := f.blame("address", err); err != nil {
			return err
		}
		return showJoin(c, f, false)
	}
	c.session.Values[startAddress], c.session.Values[startFingerprint] = address, fingerprint
	if err := c.save(); err != nil {
		return err
	}
	return showJoin(c, newForm("join", nil), true)
}

// join begins to join, once somebody has compared the fingerprint.
func join(c *call) error {
	f, under, err := c.readCertified("join", "code")
	if err != nil {
		return err
	}
	address, fingerprint := c.kept(startAddress), c.kept(startFingerprint)
	if fingerprint == "" {
		return c.redirect("/join")
	}
	if !sameEnd(f.text("end"), fingerprint) {
		f.fail("end", "That is not how the fingerprint of %s ends. Look again at the invitation. If it still differs, this is not the node that you think: stop here, and find out who answers at that address.", address)
		return showJoin(c, f, true)
	}
	if !f.ok() {
		return showJoin(c, f, true)
	}
	if err := c.srv.node.Entrance().Join(address, fingerprint, f.secret("code"), under); err != nil {
		if err := f.blame("code", err); err != nil {
			return err
		}
		return showJoin(c, f, true)
	}
	return c.redirect("/")
}

// leaveStart ends the connection, so that the browser makes a new one and meets the other certificate. The
// pages before it must not: their style would not load any more. A redirect would be quicker than the end of
// the connection and come by it again, so a page goes on in a moment; and if the browser has more such
// connections, each ends like this one.
func leaveStart(c *call) error {
	if c.m == nil {
		return c.redirect("/")
	}
	if c.started { // a stranger's session is not kept
		c.session.Values[startLeft] = true
		if err := c.save(); err != nil {
			return err
		}
	}
	return showLeaving(c)
}

func showLeaving(c *call) error {
	c.Response().Header().Set("Connection", "close")
	return c.show(page{Name: "leaving", Title: "One moment"})
}
