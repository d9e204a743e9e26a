package webconf

import (
	"crypto/x509"
	"net/http"

	"github.com/keyferry/keyferry/identity"
)

func apiIdentity(c *call) error { return c.JSON(http.StatusOK, c.m.Identities()) }

// apiSevered says what stops when one node does not trust another any more.
func apiSevered(c *call) error {
	s, err := c.severedOf()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, s)
}

func apiMakeTrust(c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	return c.apiSetTrust(true)
}

func apiRemoveTrust(c *call) error { return c.apiSetTrust(false) }

func (c *call) apiSetTrust(trust bool) error {
	trusting, err := c.segment("trusting")
	if err != nil {
		return err
	}
	trusted, err := c.segment("trusted")
	if err != nil {
		return err
	}
	if err := c.m.Trust.Set(c.Request().Context(), c.actor, trusting, trusted, trust); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// apiRenewIdentity has the identity of this node certified anew, for the same key or for a new one: by the owner key
// in the cluster, or with a certificate that is brought, in PEM.
func apiRenewIdentity(c *call) error {
	var q struct {
		Identity string `json:"identity,omitempty"`
		NewKey   bool   `json:"new_key,omitempty"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	pic, err := broughtCertificate(q.Identity)
	if err != nil {
		return invalid("%v", err)
	}
	renew := c.m.RenewIdentity
	if q.NewKey {
		renew = c.m.ReplaceIdentityKey
	}
	if err := renew(c.Request().Context(), c.actor, pic); err != nil {
		return err
	}
	return apiIdentity(c)
}

// apiReplaceOwner begins to put the cluster under another owner: a key that is made here, or one whose certificate is
// brought, in PEM.
func apiReplaceOwner(c *call) error {
	var q struct {
		Owner string `json:"owner,omitempty"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	poc, err := broughtCertificate(q.Owner)
	if err != nil {
		return invalid("%v", err)
	}
	if err := c.m.ReplaceOwner(c.Request().Context(), c.actor, poc); err != nil {
		return err
	}
	return apiIdentity(c)
}

// broughtCertificate is the first one in a text; none where there is no text.
func broughtCertificate(text string) (*x509.Certificate, error) {
	if text == "" {
		return nil, nil
	}
	chain, err := identity.DecodeChain([]byte(text))
	if err != nil {
		return nil, err
	}
	return chain[0], nil
}
