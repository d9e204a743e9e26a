package webconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/keyferry/keyferry/node"
)

// configForClient makes a TLS configuration ask for client certificates while some account has one, and
// only for those of the issuers in question: other people's browsers have nothing to offer then, and do not
// ask them. Any certificate passes here, since the handshake proves no more than that the browser has its
// key; which account it belongs to is decided when somebody logs in with it.
func (s *Server) configForClient(base *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m, err := s.node.Member()
		if errors.Is(err, node.ErrNotMember) {
			return s.startTLS(base), nil
		}
		if err != nil {
			return nil, err
		}
		issuers := m.Accounts.CertificateIssuers()
		if len(issuers) == 0 {
			return base, nil
		}
		asking := base.Clone()
		asking.GetConfigForClient = nil
		asking.ClientAuth = tls.RequestClientCert
		asking.ClientCAs = x509.NewCertPool()
		for _, name := range issuers {
			// Only the names go to the browser; nothing is verified with this pool.
			asking.ClientCAs.AddCert(&x509.Certificate{Raw: name, RawSubject: name})
		}
		return asking, nil
	}
}
