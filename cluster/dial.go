package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
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
	tc := tls.Client(raw, l.clientConfig(node, proto, &p))
	if err := tc.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &DialError{node, address, err}
	}
	return l.track(tc, p, nil), nil
}

// clientConfig makes the configuration of one connection. The handshake fills in p.
func (l *Link) clientConfig(node, proto string, p *peer) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{proto},
		InsecureSkipVerify:   true, // VerifyConnection verifies: names here are not DNS names
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return l.cfg.Certificate() },
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

// newClient makes a client for requests to other nodes, by connections for proto.
func (l *Link) newClient(proto string) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
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
		},
	}
}
