package cluster

import (
	"crypto/x509"
	"net/url"
	"path"
	"time"
)

// A node proves who it is with a chain of three certificates: a short-lived leaf, which names cluster and
// node in a URI; the node's identity certificate (PIC), whose key is in its HSM; and the owner
// certificate (POC), which every member holds as the root. A change of the owner makes more than one root.

// NodeURI is the name of a node in its leaf certificate (subjectAltName, RFC 5280, section 4.2.1.6). It has no
// authority: that would have to be a host name, which the id of a cluster is not.
func NodeURI(cluster, node string) *url.URL {
	return &url.URL{Scheme: "keyferry", Opaque: cluster + "/" + node}
}

// peer is a node at the other end of a connection, as its certificates prove it.
type peer struct {
	node     string
	identity *x509.Certificate
	expires  time.Time // of the leaf
}

// verify proves a chain of certificates as it came from the other side, and asks whether its node is
// admitted.
func (l *Link) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (peer, error) {
	if len(chain) < 2 || len(chain) > maxChain {
		return peer{}, errorf(Denied, "the other side sent %d certificates: a leaf and an identity certificate are needed", len(chain))
	}
	leaf := chain[0]
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, owner := range l.cfg.Owners() {
		options.Roots.AddCert(owner)
	}
	options.Intermediates.AddCert(chain[1])
	chains, err := leaf.Verify(options)
	if err != nil {
		return peer{}, errorf(Denied, "the certificate of the other side does not hold: %v", err)
	}
	if len(chains[0]) != 3 {
		return peer{}, errorf(Denied, "the certificate of the other side was not made by an identity key")
	}
	node, err := l.nodeName(leaf)
	if err != nil {
		return peer{}, err
	}
	identity := chains[0][1]
	if err := l.cfg.Admit(node, identity); err != nil {
		return peer{}, errorf(Denied, "node %q is not admitted: %v", node, err)
	}
	return peer{node, identity, leaf.NotAfter}, nil
}

// nodeName reads the node's name from the only URI of a leaf.
func (l *Link) nodeName(leaf *x509.Certificate) (string, error) {
	if len(leaf.URIs) != 1 {
		return "", errorf(Denied, "the certificate of the other side does not name one node")
	}
	uri := leaf.URIs[0]
	name := path.Base(uri.Opaque)
	if checkName("node name", name) != nil || uri.String() != NodeURI(l.cfg.Cluster, name).String() {
		return "", errorf(Denied, "the certificate of the other side names %q, which is no node of this cluster", clip(uri.String()))
	}
	return name, nil
}
