package webconf

import (
	"net/http"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

func apiPeople(c *call) error { return c.JSON(http.StatusOK, whole(c.m.Accounts.People())) }

// A passworded answer carries a temporary password, once.
type passworded struct {
	node.Person
	Password string `json:"temporary_password"`
	Waits    string `json:"waits,omitempty"` // for whose approval; until then it is good for nothing
}

// passwordWaits answers with a password that others have to approve first.
func passwordWaits(c *call, name, password string, err error) error {
	return c.JSON(http.StatusAccepted, passworded{node.Person{Name: name, Roles: []cluster.RoleGrant{}}, password, judge(err).message})
}

func apiAddPerson(c *call) error {
	var n node.NewPerson
	if err := c.decode(&n); err != nil {
		return err
	}
	password, err := c.m.Accounts.Add(c.Request().Context(), c.actor, n)
	if approvalOf(err) != "" {
		return passwordWaits(c, n.Name, password, err)
	}
	if err != nil {
		return err
	}
	p, err := c.m.Accounts.Person(n.Name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, passworded{p, password, ""})
}

// apiChangePerson changes what the body names, and leaves the rest.
func apiChangePerson(c *call) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	change := node.PersonChange{FullName: p.FullName, Roles: p.Roles, Disabled: p.Disabled, Replaces: &p.Version}
	var body struct {
		FullName *string              `json:"full_name"`
		Roles    *[]cluster.RoleGrant `json:"roles"`
		Disabled *bool                `json:"disabled"`
	}
	if err := c.decode(&body); err != nil {
		return err
	}
	if body.FullName != nil {
		change.FullName = *body.FullName
	}
	if body.Roles != nil {
		change.Roles = *body.Roles
	}
	if body.Disabled != nil {
		change.Disabled = *body.Disabled
	}
	if err := c.m.Accounts.Change(c.Request().Context(), c.actor, p.Name, change); err != nil {
		return err
	}
	if p, err = c.person(); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, p)
}

func apiResetPerson(c *call) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	password, err := c.m.Accounts.ResetPassword(c.Request().Context(), c.actor, p.Name)
	if approvalOf(err) != "" {
		return passwordWaits(c, p.Name, password, err)
	}
	if err != nil {
		return err
	}
	if p, err = c.person(); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, passworded{p, password, ""})
}

func apiRemovePerson(c *call) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	if err := c.m.Accounts.Remove(c.Request().Context(), c.actor, p.Name); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
