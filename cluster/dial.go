package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// DialError says that no connection to a node came about, so nothing was sent to it.
type DialError struct {
	Node    string // "" for a member that a joining node dials
	Address string // "" when it is not known
	Err     error
}

func (e *DialError) Error() string {
	switch {
	case e.Node == "":
		return fmt.Sprintf("the node at %s cannot be reached: %v", e.Address, e.Err)
	case e.Address == "":
		return fmt.Sprintf("node %q cannot be reached: %v", e.Node, e.Err)
	}
	return fmt.Sprintf("node %q cannot be reached at %s: %v", e.Node, e.Address, e.Err)
}

func (e *DialError) Unwrap() error { return e.Err }

// dial connects to a node and makes sure that it is that node.
func (l *Link) dial(ctx context.Context, node, proto string) (net.Conn, error) {
	address, err := l.cfg.Address(node)
	if err != nil {
		return nil, &DialError{node, "", err}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &DialError{node, address, err}
	}
	var p peer
	var own *tls.Certificate
	tc := tls.Client(raw, l.clientConfig(node, proto, &p, &own))
	if err := tc.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &DialError{node, address, err}
	}
	c := l.track(tc, p, nil)
	if proto == protoHTTP {
		return c, l.showed(c, own)
	}
	return c, nil
}

// showed remembers which identity key this node has shown on a connection.
func (l *Link) showed(c *conn, own *tls.Certificate) error {
	if own == nil || len(own.Certificate) < 2 {
		return nil // the other side will refuse it
	}
	pic, err := x509.ParseCertificate(own.Certificate[1])
	if err != nil {
		c.Close()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c.own = KeyHash(pic)
	return nil
}

// clientConfig makes the configuration of one connection. The handshake fills in p, and what this node shows.
func (l *Link) clientConfig(node, proto string, p *peer, own **tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{proto},
		InsecureSkipVerify: true, // VerifyConnection verifies: names here are not DNS names
		GetClientCertificate: func(*tls.CertificateRequestInfo) (c *tls.Certificate, err error) {
			c, err = l.cfg.Certificate()
			*own = c
			return c, err
		},
		VerifyConnection: func(cs tls.ConnectionState) (err error) {
			if cs.NegotiatedProtocol != proto {
				return errorf(Denied, "the other side does not speak %s", proto)
			}
			if *p, err = l.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			if p.node != node {
				return errorf(Denied, "the other side is node %q", p.node)
			}
			return nil
		},
	}
}

// newClient makes a client for requests to other nodes.
func newClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     t,
	}
}

// transport makes connections for proto.
func (l *Link) transport(proto string) *http.Transport {
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errorf(Invalid, "nodes are reached by https only")
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, &DialError{addr, "", err}
			}
			return l.dial(ctx, node, proto)
		},
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        clientIdle,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // packages are ciphertext
	}
}

// renewable is a transport that can be replaced by a new one. What the old one has under way ends there; it keeps no
// connection after that, since nobody asks it for another.
type renewable struct {
	make      func() *http.Transport
	now, last atomic.Pointer[http.Transport]
}

func newRenewable(make func() *http.Transport) *renewable {
	r := &renewable{make: make}
	r.now.Store(make())
	r.last.Store(r.now.Load())
	return r
}

// RoundTrip implements http.RoundTripper.
func (r *renewable) RoundTrip(q *http.Request) (*http.Response, error) {
	return r.now.Load().RoundTrip(q)
}

// CloseIdleConnections is what http.Client looks for.
func (r *renewable) CloseIdleConnections() { r.now.Load().CloseIdleConnections() }

func (r *renewable) renew() {
	old := r.now.Swap(r.make())
	r.last.Store(old)
	old.CloseIdleConnections()
}
