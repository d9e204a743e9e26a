package webconf

import (
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

func apiApplications(c *call) error { return c.JSON(http.StatusOK, c.m.Apps.List()) }

// applicationState is an application, with how it stands on each node and its codes on this one.
type applicationState struct {
	cluster.App
	States map[string]appNodeState `json:"states"` // by node
	Files  []node.CodeFile         `json:"files,omitempty"`
}

type appNodeState struct {
	Waits string    `json:"waits_for,omitempty"`
	Again time.Time `json:"again,omitzero"` // when a restart that failed is tried again; of this node only
}

func apiApplication(c *call) error {
	a, err := c.application()
	if err != nil {
		return err
	}
	s := applicationState{App: a, States: map[string]appNodeState{}, Files: c.m.Apps.Files(a)}
	for _, r := range newApplicationRow(c.look(), a).Runs {
		s.States[r.Node] = appNodeState{r.Waits, r.Again}
	}
	return c.JSON(http.StatusOK, s)
}

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
	var replaces *uint64
	if a.Version != 0 { // it was read before, and may be another one by now
		replaces = &a.Version
	}
	if err := c.m.Apps.Put(c.Request().Context(), c.actor, a, replaces); err != nil {
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
