package webconf

import (
	"net/http"

	"github.com/keyferry/keyferry/cluster"
)

func apiApplications(c *call) error { return c.JSON(http.StatusOK, c.m.Apps.List()) }

func apiPutApplication(c *call) error {
	name, err := c.segment("name")
	if err != nil {
		return err
	}
	a := cluster.App{Name: name}
	if err := c.decode(&a); err != nil {
		return err
	}
	if a.Name != name {
		return invalid("the body is about application %q, the address about %q", a.Name, name)
	}
	if err := c.m.Apps.Put(c.Request().Context(), c.actor, a); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, c.m.State().Apps[name])
}

func apiRemoveApplication(c *call) error {
	name, err := c.segment("name")
	if err != nil {
		return err
	}
	if err := c.m.Apps.Remove(c.Request().Context(), c.actor, name); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func apiRestart(c *call) error {
	name, err := c.segment("name")
	if err != nil {
		return err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	c.patience(restartTime)
	r, err := c.m.Apps.Restart(c.Request().Context(), c.actor, name)
	if err != nil && r.Detail == "" { // it was not even tried
		return err
	}
	return c.JSON(http.StatusOK, r)
}
