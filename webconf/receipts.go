package webconf

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"

	"github.com/go-jose/go-jose/v4"
	"github.com/keyferry/keyferry/syncpkg"
)

type receiptView struct {
	Receipt  syncpkg.Receipt
	Proved   int
	JWS      string
	Path     string // of this page
	Package  string // path of the package's page
	FileName string
	Serial   string // of the admin token that signed
	KeyPath  string // of the key that signed
}

// signedBy is the thumbprint of the key that a JWS names, empty where it names none.
func signedBy(jws string) string {
	signed, err := jose.ParseSigned(jws, []jose.SignatureAlgorithm{jose.ES512})
	if err != nil || len(signed.Signatures) != 1 {
		return ""
	}
	return signed.Signatures[0].Protected.KeyID
}

// identityKeyPath is where the identity key of a node with a thumbprint is, which the node may have replaced since.
func identityKeyPath(node, kid string) string {
	return "/cluster/nodes/" + url.PathEscape(node) + "/identity.jwk?kid=" + url.QueryEscape(kid)
}

func receiptPath(id, nodeName string) string {
	return "/sync/receipts/" + url.PathEscape(id) + "/" + url.PathEscape(nodeName)
}

// receipt fetches and verifies the receipt that the address names.
func (c *call) receipt() (syncpkg.Receipt, string, error) {
	id, err := c.segment("package")
	if err != nil {
		return syncpkg.Receipt{}, "", err
	}
	name, err := c.segment("node")
	if err != nil {
		return syncpkg.Receipt{}, "", err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), peerTime)
	defer cancel()
	r, jws, err := c.m.Sync.Receipt(ctx, id, name)
	if err != nil && judge(err).code == "internal" {
		err = &spoken{http.StatusServiceUnavailable, "unavailable", fmt.Errorf("the receipt of %s cannot be shown now: %w", name, err)}
	}
	return r, jws, err
}

func receiptPage(c *call) error {
	r, jws, err := c.receipt()
	if err != nil {
		return err
	}
	v := newReceiptView(r, jws)
	v.Serial = c.m.State().Nodes[r.Node].Serial
	return c.show(page{Name: "receipt", Title: "Receipt of " + r.Node, Nav: "/sync",
		Crumbs: []crumb{{"Key synchronization", "/sync"}, {"Package " + r.Package[:8], packagePath(r.Package)}}, Data: v})
}

func newReceiptView(r syncpkg.Receipt, jws string) receiptView {
	v := receiptView{Receipt: r, JWS: jws, Path: receiptPath(r.Package, r.Node), Package: packagePath(r.Package), FileName: receiptName(r), KeyPath: identityKeyPath(r.Node, signedBy(jws))}
	for _, k := range r.Keys {
		if k.Proof != nil {
			v.Proved++
		}
	}
	return v
}

func receiptName(r syncpkg.Receipt) string {
	return fmt.Sprintf("receipt_%s_%s.jws", r.Package[:8], r.Node)
}

// receiptFile is the signed receipt, for public tools.
func receiptFile(c *call) error {
	r, jws, err := c.receipt()
	if err != nil {
		return err
	}
	c.attach(receiptName(r))
	return c.Blob(http.StatusOK, "application/jose", []byte(jws))
}

// identityKey is a node's public identity key as a JWK (RFC 7517), with which its receipts and packages verify: the
// present one, or the one whose thumbprint (RFC 7638) stands in a signature as kid.
func identityKey(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	key, err := c.m.IdentityKey(name, c.QueryParam("kid"))
	if err != nil {
		return err
	}
	jwk, err := (&jose.JSONWebKey{Key: key, Use: "sig", Algorithm: string(jose.ES512)}).MarshalJSON()
	if err != nil {
		return err
	}
	c.attach(name + ".jwk")
	return c.Blob(http.StatusOK, "application/jwk+json", jwk)
}

// attach has the browser save the answer under a name.
func (c *call) attach(name string) {
	c.Response().Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
}
