package webconf

import "net/http"

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
