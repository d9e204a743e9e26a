package webconf

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/sessions"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// A sessionStore keeps sessions in this process, as sessions.Store wants them. The browser holds a random
// token and nothing else; the store holds the token's SHA-256, so that its memory opens no session.
// Sessions end after a while, at logout, and when the node restarts.
type sessionStore struct {
	cookie string               // its name
	idle   func() time.Duration // after which time without a click a session ends; sessionIdle when nil

	mu   sync.Mutex
	live map[string]*liveSession // by hexadecimal SHA-256 of the token
}

// A liveSession is one browser that is logged in.
type liveSession struct {
	began, seen time.Time
	values      map[any]any
}

func (l *liveSession) ended(now time.Time, idle time.Duration) bool {
	return now.Sub(l.seen) >= idle || now.Sub(l.began) >= sessionLife
}

// idleTime is asked for before the store is locked: it asks other parts of the node.
func (s *sessionStore) idleTime() time.Duration {
	if s.idle == nil {
		return sessionIdle
	}
	return s.idle()
}

// sessionIdle is what holds in the cluster now.
func (s *Server) sessionIdle() time.Duration {
	if m, err := s.node.Member(); err == nil {
		return m.Settings.SessionIdle()
	}
	return sessionIdle
}

// newSessionStore names the cookie after the node, because the nodes of a demo share a host, and cookies
// do not tell ports apart.
func newSessionStore(nodeName string) *sessionStore {
	return &sessionStore{cookie: "__Host-keyferry-" + nodeName, live: map[string]*liveSession{}}
}

// Get returns the session of a request, the same one each time.
func (s *sessionStore) Get(r *http.Request, name string) (*sessions.Session, error) {
	return sessions.GetRegistry(r).Get(s, name)
}

// New finds the session that the request's cookie opens, or makes an empty one that is not kept.
func (s *sessionStore) New(r *http.Request, name string) (*sessions.Session, error) {
	session := sessions.NewSession(s, name)
	session.IsNew = true
	session.Options = &sessions.Options{Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	cookie, err := r.Cookie(name)
	if err != nil {
		return session, nil
	}
	id, now, idle := tokenID(cookie.Value), time.Now(), s.idleTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	live, ok := s.live[id]
	switch {
	case !ok:
	case live.ended(now, idle):
		delete(s.live, id)
	default:
		live.seen = now
		session.ID, session.IsNew, session.Values = id, false, maps.Clone(live.values)
	}
	return session, nil
}

// Save keeps a session. One without an ID gets a token, and the browser its cookie; one with a negative
// MaxAge ends.
func (s *sessionStore) Save(_ *http.Request, w http.ResponseWriter, session *sessions.Session) error {
	idle := s.idleTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if session.Options.MaxAge < 0 {
		delete(s.live, session.ID)
		http.SetCookie(w, sessions.NewCookie(session.Name(), "", session.Options))
		return nil
	}
	if live, ok := s.live[session.ID]; ok {
		live.values, live.seen = maps.Clone(session.Values), now
		return nil
	}
	if session.ID != "" {
		return nil // it ended meanwhile
	}
	s.makeRoom(now, idle)
	token := rand.Text() + rand.Text() // 256 random bits
	session.ID, session.IsNew = tokenID(token), false
	s.live[session.ID] = &liveSession{began: now, seen: now, values: maps.Clone(session.Values)}
	http.SetCookie(w, sessions.NewCookie(session.Name(), token, session.Options))
	return nil
}

// forget ends a session that the browser is about to get a new token for.
func (s *sessionStore) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, id)
}

// makeRoom forgets sessions that have ended and, where that is not enough, the one idle for longest.
func (s *sessionStore) makeRoom(now time.Time, idle time.Duration) {
	if len(s.live) < maxSessions {
		return
	}
	maps.DeleteFunc(s.live, func(_ string, l *liveSession) bool { return l.ended(now, idle) })
	oldest := ""
	for id, l := range s.live {
		if oldest == "" || l.seen.Before(s.live[oldest].seen) {
			oldest = id
		}
	}
	if len(s.live) >= maxSessions {
		delete(s.live, oldest)
	}
}

func tokenID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// What a session holds. The password's hash and the epoch are there so that a new password, and the wish
// to end all sessions, end all older ones of the account, on every node.
const (
	sessionAccount = "account"
	sessionHash    = "hash"
	sessionEpoch   = "epoch"
	sessionMethod  = "method"
	sessionAddress = "address"
	sessionBrowser = "browser"
)

// stillValid tells whether an account is as it was when a session of it began.
func stillValid(a cluster.Account, session map[any]any) bool {
	return a.Name != "" && !a.Disabled && a.Hash == session[sessionHash] && a.SessionEpoch == session[sessionEpoch]
}

// fromBrowser finds the session of a request to the console.
func (c *call) fromBrowser() error {
	if c.m == nil {
		return c.alone
	}
	session, err := c.srv.sessions.Get(c.Request(), c.srv.sessions.cookie)
	if err != nil {
		return err
	}
	c.session = session
	name, _ := session.Values[sessionAccount].(string)
	if name == "" {
		return nil
	}
	if !stillValid(c.m.State().Accounts[name], session.Values) {
		return c.endSession()
	}
	c.actor = cluster.Actor{Kind: cluster.ByAccount, Name: name}
	return nil
}

// startSession logs an account in, under a new token whatever the browser had before.
func (c *call) startSession(l *node.Login) error {
	return c.replaceSession(map[any]any{sessionAccount: l.Account, sessionHash: l.Hash, sessionEpoch: l.Epoch, sessionMethod: l.Method,
		sessionAddress: c.RealIP(), sessionBrowser: browserName(c.Request().UserAgent())})
}

// renewSession goes on under a new token, after a change that ended all sessions of the account.
func (c *call) renewSession() error {
	a, values := c.m.State().Accounts[c.actor.Name], maps.Clone(c.session.Values)
	values[sessionHash], values[sessionEpoch] = a.Hash, a.SessionEpoch
	return c.replaceSession(values)
}

func (c *call) replaceSession(values map[any]any) error {
	c.srv.sessions.forget(c.session.ID)
	c.session.ID, c.session.Options.MaxAge, c.session.Values = "", 0, values
	return c.save()
}

// endSession forgets the session, here and in the browser.
func (c *call) endSession() error {
	c.session.Options.MaxAge = -1
	c.session.Values = map[any]any{}
	return c.save()
}

func (c *call) save() error { return c.session.Save(c.Request(), c.Response()) }

// flash keeps a line for the next page that this browser sees.
func (c *call) flash(text string) error {
	c.session.AddFlash(text)
	return c.save()
}

// flashes are the lines kept for this page.
func (c *call) flashes() []string {
	var lines []string
	if c.session == nil || c.actor.Kind == "" {
		return nil
	}
	for _, f := range c.session.Flashes() {
		lines = append(lines, f.(string))
	}
	if len(lines) > 0 {
		_ = c.save() // only memory
	}
	return lines
}
