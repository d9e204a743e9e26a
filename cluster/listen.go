package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Serve accepts connections from ln until Close, and closes ln. Requests of other nodes go to peers, which
// asks PeerOf who it is; requests of nodes that join, which have no identity yet, go to joins (nil: nobody
// can join through this node).
func (l *Link) Serve(ln net.Listener, peers, joins http.Handler) error {
	defer ln.Close()
	if !l.begin() {
		return nil
	}
	defer l.tasks.Done()
	stop := context.AfterFunc(l.ctx, func() { ln.Close() })
	defer stop()
	if joins == nil {
		joins = http.NotFoundHandler()
	}
	// Both return when Close closes their queues; Close closes the connections.
	l.tasks.Go(func() { l.server(l.onlyAdmitted(peers)).Serve(l.http) })
	l.tasks.Go(func() { l.joinServer(joins).Serve(l.join) })
	l.tasks.Go(l.serveWatch)
	l.tasks.Go(l.recheckNowAndThen)
	for {
		raw, err := ln.Accept()
		switch {
		case l.ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return errorf(Internal, "the listener for other nodes was closed")
		case err != nil: // out of file descriptors, say
			l.log.Error("connections of other nodes cannot be accepted", "error", err)
			select {
			case <-time.After(time.Second):
			case <-l.ctx.Done():
			}
			continue
		}
		l.tasks.Go(func() { l.accept(raw) })
	}
}

// begin makes Close wait for Serve. It says no after Close.
func (l *Link) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.tasks.Add(1)
	}
	return !l.closed
}

// accept shakes hands and passes the connection on to what it is for.
func (l *Link) accept(raw net.Conn) {
	host := hostOf(raw)
	if !l.handshakes.enter(host) {
		l.log.Warn("too many connections at once", "from", host)
		raw.Close()
		return
	}
	defer l.handshakes.leave(host)
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	var p peer
	tc := tls.Server(raw, l.serverConfig(&p))
	if err := tc.HandshakeContext(ctx); err != nil {
		l.log.Info("a connection was refused", "from", host, "error", err)
		raw.Close()
		return
	}
	switch tc.ConnectionState().NegotiatedProtocol {
	case protoRaft:
		l.raft.deliver(ctx, l.track(tc, p, nil))
	case protoHTTP:
		l.http.deliver(ctx, l.track(tc, p, nil))
	case protoWatch:
		l.watch.deliver(ctx, l.track(tc, p, nil))
	case protoJoin:
		if !l.joins.enter(host) {
			l.log.Warn("too many joining nodes at once", "from", host)
			tc.Close()
			return
		}
		l.join.deliver(ctx, l.track(tc, p, func() { l.joins.leave(host) }))
	default:
		l.log.Info("a connection was refused: it does not say what it is for", "from", host)
		tc.Close()
	}
}

// serverConfig makes the configuration of one connection. The handshake of a node fills in p.
func (l *Link) serverConfig(p *peer) *tls.Config {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.cfg.Certificate() }
	joining := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoJoin},
		GetCertificate: certificate, SessionTicketsDisabled: true,
	}
	members := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{protoRaft, protoHTTP, protoWatch},
		GetCertificate: certificate, SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(cs tls.ConnectionState) (err error) {
			*p, err = l.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Contains(hello.SupportedProtos, protoJoin) {
				return joining, nil
			}
			return members, nil
		},
	}
}

// server makes the server for requests of other nodes. What they send may be long, and take long.
func (l *Link) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       serverIdle,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return l.ctx },
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, nc.(*conn).peer)
		},
	}
}

// joinServer makes the server for requests of strangers. There are few places: each request is short, and
// gives its place back.
func (l *Link) joinServer(handler http.Handler) *http.Server {
	s := l.server(http.MaxBytesHandler(handler, maxJoinBody))
	s.ReadTimeout, s.WriteTimeout = headerTimeout, joinTimeout
	s.SetKeepAlivesEnabled(false)
	return s
}

type peerKey struct{}

// PeerOf is the name of the node that a request came from, proved by its certificates. It is "" for a
// request that did not come over a Link, or from a node that joins.
func PeerOf(r *http.Request) string {
	p, _ := r.Context().Value(peerKey{}).(peer)
	return p.node
}

// onlyAdmitted asks again for each request: a node may have been removed since it connected.
func (l *Link) onlyAdmitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || l.stillGood(p) != nil {
			http.Error(w, "this node is not admitted", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (l *Link) recheckNowAndThen() {
	tick := time.NewTicker(recheckInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.Recheck()
		case <-l.ctx.Done():
			return
		}
	}
}

// gate bounds how many are inside, in all and from one host, so that one host cannot lock out the others.
type gate struct {
	limit int
	mu    sync.Mutex
	total int
	hosts map[string]int
}

func newGate(limit int) *gate { return &gate{limit: limit, hosts: make(map[string]int)} }

func (g *gate) enter(host string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.limit || g.hosts[host] >= (g.limit+1)/2 {
		return false
	}
	g.total++
	g.hosts[host]++
	return true
}

func (g *gate) leave(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total--
	if g.hosts[host]--; g.hosts[host] == 0 {
		delete(g.hosts, host)
	}
}

func hostOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}
