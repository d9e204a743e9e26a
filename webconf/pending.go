package webconf

import (
	"crypto/rand"
	"net/http"
	"sync"
	"time"

	"github.com/keyferry/keyferry/node"
)

// A pending keeps what browsers have begun and not ended, such as a login that needs a one-time password
// yet, for a few minutes. There is one of it per browser; a new one takes the place of the old. When it is
// full, the oldest goes: strangers who fill it can make others begin again, and no more.
type pending[T any] struct {
	most int

	mu    sync.Mutex
	begun map[string]begun[T]
}

type begun[T any] struct {
	value T
	at    time.Time
}

func newPending[T any](most int) *pending[T] {
	return &pending[T]{most: most, begun: map[string]begun[T]{}}
}

// put keeps v for the browser that key is of.
func (p *pending[T]) put(key string, v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, oldest := time.Now(), ""
	if _, replaces := p.begun[key]; !replaces && len(p.begun) >= p.most {
		for k, b := range p.begun {
			if now.Sub(b.at) >= pendingTime {
				delete(p.begun, k)
			} else if oldest == "" || b.at.Before(p.begun[oldest].at) {
				oldest = k
			}
		}
		if len(p.begun) >= p.most {
			delete(p.begun, oldest)
		}
	}
	p.begun[key] = begun[T]{v, now}
}

// look finds what is kept; take forgets it too, for what is good for one try.
func (p *pending[T]) look(key string) (v T, ok bool) { return p.get(key, false) }
func (p *pending[T]) take(key string) (v T, ok bool) { return p.get(key, true) }

func (p *pending[T]) get(key string, forget bool) (v T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.begun[key]
	if ok && (forget || time.Since(b.at) >= pendingTime) {
		delete(p.begun, key)
	}
	if !ok || key == "" || time.Since(b.at) >= pendingTime {
		return v, false
	}
	return b.value, true
}

// begunHere are the logins and changes that browsers are in the middle of.
type begunHere struct {
	logins     *pending[*node.Login]     // wait for a one-time password
	ceremonies *pending[*node.Ceremony]  // wait for an authenticator
	enrolments *pending[*node.Enrolment] // wait for a first one-time password
}

func newBegun() begunHere {
	return begunHere{newPending[*node.Login](maxSessions), newPending[*node.Ceremony](maxCeremonies), newPending[*node.Enrolment](maxSessions)}
}

// begin gives a browser that has no session a cookie, and returns the key of what it begins.
func (c *call) begin() string {
	token := rand.Text() + rand.Text()
	c.SetCookie(&http.Cookie{Name: c.beginCookie(), Value: token, Path: "/", MaxAge: int(pendingTime.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	return tokenID(token)
}

// hasBegun is the key of what this browser has begun without a session; "" when it has begun nothing.
func (c *call) hasBegun() string {
	cookie, err := c.Cookie(c.beginCookie())
	if err != nil || cookie.Value == "" {
		return ""
	}
	return tokenID(cookie.Value)
}

func (c *call) beginCookie() string { return c.srv.sessions.cookie + "-login" }
