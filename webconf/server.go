package webconf

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/labstack/echo/v4"
	"github.com/unrolled/secure"
)

// Config is what a Server needs.
type Config struct {
	Node *node.Node
	Log  *slog.Logger // nil: no log
}

// Server serves the console and the API of one node. The caller makes listeners, TLS and timeouts.
type Server struct {
	node     *node.Node
	log      *slog.Logger
	views    *views
	static   *static
	sessions *sessionStore
	starts   *sessionStore // of browsers that make this node a member
	tries    *throttle
	begun    begunHere
	coverage coverageCache
}

// New prepares the console. It fails only where the program was built from broken templates.
func New(cfg Config) (*Server, error) {
	if cfg.Node == nil {
		return nil, errors.New("webconf needs a node")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	files, err := newStatic()
	if err != nil {
		return nil, fmt.Errorf("static files: %w", err)
	}
	v, err := newViews(files)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	s := &Server{
		node: cfg.Node, log: cfg.Log.With("part", "webconf"), views: v, static: files,
		sessions: newSessionStore(cfg.Node.Name()), starts: newSessionStore("start-" + cfg.Node.Name()), tries: newThrottle(), begun: newBegun(),
	}
	s.sessions.idle = s.sessionIdle
	cfg.Node.KeepSessions(sessionKeeper{s})
	return s, nil
}

// Handler is the console, to be served with the settings of TLS. A node that belongs to no cluster has only
// the pages that change this.
func (s *Server) Handler() http.Handler {
	console, start := secure.New(headers()).Handler(s.router(consoleRoutes(), (*call).fromBrowser, errorPage)), s.startHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.forNew(r) {
			start.ServeHTTP(w, r)
			return
		}
		console.ServeHTTP(w, r)
	})
}

// API is the JSON API, to be served on a Unix socket whose file permissions say who may use it. The
// http.Server needs ConnContext, so that the audit trail can name who asked.
func (s *Server) API() http.Handler {
	return s.router(apiRoutes(), (*call).fromSocket, apiError)
}

// What a page may load. policy allows no script at all; scriptPolicy is for the pages that talk to an
// authenticator, on which nobody enters a password.
const (
	policy       = "default-src 'none'; style-src 'self'; img-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	scriptPolicy = policy + "; script-src 'self'"
)

// headers are what browsers are told of every answer.
func headers() secure.Options {
	return secure.Options{
		ContentSecurityPolicy:     policy,
		STSSeconds:                365 * 24 * 3600,
		FrameDeny:                 true,
		ContentTypeNosniff:        true,
		ReferrerPolicy:            "same-origin",
		CrossOriginOpenerPolicy:   "same-origin",
		CrossOriginResourcePolicy: "same-origin",
		PermissionsPolicy:         "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
	}
}

// router builds an Echo from a table of routes. who finds out who asks; fail answers what went wrong.
func (s *Server) router(routes []route, who func(*call) error, fail func(*call, error)) *echo.Echo {
	e := echo.New()
	e.IPExtractor = echo.ExtractIPDirect() // never from a header that anybody can write
	e.HTTPErrorHandler = func(err error, ec echo.Context) {
		c, ok := ec.Get(callKey).(*call)
		if !ok {
			c = &call{Context: ec, srv: s}
		}
		fail(c, err)
	}
	e.Use(s.answered, s.recovered, s.sameOrigin, s.identified(who))
	for _, r := range routes {
		e.Add(r.method, r.path, s.guard(r))
	}
	return e
}

// answered has errors answered here, so that the log knows the status that was sent. Queries are not
// logged: people type names into filters.
func (s *Server) answered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(ec echo.Context) error {
		began := time.Now()
		ec.Response().Header().Set("Cache-Control", "no-store")
		if err := next(ec); err != nil {
			ec.Error(err)
		}
		level := slog.LevelDebug
		if m := ec.Request().Method; m != get && m != head {
			level = slog.LevelInfo
		}
		actor := ""
		if c, ok := ec.Get(callKey).(*call); ok && c.actor.Kind != "" {
			actor = c.actor.String()
		}
		s.log.Log(ec.Request().Context(), level, "request", "method", ec.Request().Method, "path", ec.Request().URL.Path,
			"status", ec.Response().Status, "from", ec.RealIP(), "actor", actor, "took", time.Since(began).Round(time.Millisecond))
		return nil
	}
}

// recovered turns a panic into an error. What was in the request stays out of the log.
func (s *Server) recovered(next echo.HandlerFunc) echo.HandlerFunc {
	return func(ec echo.Context) (err error) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		return next(ec)
	}
}

// sameOrigin refuses what other sites make a browser send. The nodes of a cluster are other sites to
// each other.
func (s *Server) sameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(ec echo.Context) error {
		if err := protection.Check(ec.Request()); err != nil {
			return fmt.Errorf("%w: %w", errCrossOrigin, err)
		}
		return next(ec)
	}
}

// identified finds out who asks, before anything else is decided.
func (s *Server) identified(who func(*call) error) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(ec echo.Context) error {
			c := &call{Context: ec, srv: s}
			ec.Set(callKey, c)
			m, err := s.node.Member()
			if err != nil && !errors.Is(err, node.ErrNotMember) && !errors.Is(err, node.ErrSealed) {
				return err
			}
			c.m, c.alone = m, err
			if err := who(c); err != nil {
				return err
			}
			return next(ec)
		}
	}
}

// guard holds a route to its limits before its handler runs.
func (s *Server) guard(r route) echo.HandlerFunc {
	return func(ec echo.Context) error {
		c := ec.Get(callKey).(*call)
		req := c.Request()
		req.Body = http.MaxBytesReader(c.Response().Writer, req.Body, r.body)
		slot, err := c.slotOf()
		if err != nil {
			return err
		}
		err = c.authorize(r.permission, slot)
		if c.afterRemoval(r) && !errors.Is(err, errNoSession) {
			return c.m.StillMember()
		}
		if err != nil {
			return err
		}
		return r.handle(c)
	}
}
