package webconf

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// startRequest makes the node's identity key. The page then shows the SHA-256 of it, which people compare before
// the owner signs, beside the button that gives the request.
func startRequest(c *call) error {
	f, err := c.readForm("request")
	if err != nil {
		return err
	}
	r, err := c.srv.node.Request(c.Request().Context())
	if err != nil {
		return said(err)
	}
	if f.Value("take") == "file" {
		return c.request(c.srv.node.Name(), r)
	}
	c.session.Values[startRequested] = keyPrint(r)
	if err := c.save(); err != nil {
		return err
	}
	return c.redirect("/#request")
}

// keyPrint is the SHA-256 of the key in a request, as people compare it.
func keyPrint(r *x509.CertificateRequest) string {
	return fmt.Sprintf("%x", sha256.Sum256(r.RawSubjectPublicKeyInfo))
}

// readCertified reads a form in which a node may bring the certificates of an owner elsewhere: both files or none.
func (c *call) readCertified(name string, secret ...string) (*form, *node.Certified, error) {
	r := c.Request()
	if err := r.ParseMultipartForm(maxForm); err != nil && !errors.Is(err, http.ErrNotMultipart) {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, nil, err
		}
		return nil, nil, invalid("the form cannot be read")
	}
	f, err := c.readForm(name, secret...)
	if err != nil {
		return nil, nil, err
	}
	owner, pic := c.uploaded("owner"), c.uploaded("identity")
	if len(owner)+len(pic) == 0 {
		return f, nil, nil
	}
	var under node.Certified
	if chain, err := identity.DecodeChain(owner); err != nil {
		f.fail("owner", "That is not the owner's certificate: %v.", err)
	} else {
		under.Owner = chain[0]
	}
	if chain, err := identity.DecodeChain(pic); err != nil {
		f.fail("identity", "That is not the certificate of this node: %v.", err)
	} else {
		under.Identity = chain[0]
	}
	return f, &under, nil
}

// uploaded is a small file of a form, empty where none was chosen.
func (c *call) uploaded(field string) []byte {
	if c.Request().MultipartForm == nil {
		return nil
	}
	file, _, err := c.Request().FormFile(field)
	if err != nil {
		return nil
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxForm))
	if err != nil {
		return nil
	}
	return b
}
