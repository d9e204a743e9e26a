package webconf

import (
	"github.com/keyferry/keyferry/cluster"
)

// How other people log in: for whoever manages accounts.

func meansPath(name string) string { return personPath(name) + "/login" }

// otherAccount is the account in the path, which is not the one in use: on the page of their own account
// people enter their password before a way to log in goes, and here they do not.
func (c *call) otherAccount() (cluster.Account, error) {
	a, err := c.namedAccount()
	if err == nil && a.Name == c.actor.Name {
		err = &cluster.Error{Code: cluster.Conflict, Message: "this is the account in use: how you log in is on the page \"Your account\""}
	}
	return a, err
}

func (c *call) namedAccount() (cluster.Account, error) {
	name, err := c.segment("name")
	if err != nil {
		return cluster.Account{}, err
	}
	a, ok := c.m.State().Accounts[name]
	if !ok {
		return a, &cluster.Error{Code: cluster.NotFound, Message: "there is no such account"}
	}
	return a, nil
}

// meansPage shows how somebody logs in. One's own is on one's own page.
func meansPage(c *call) error {
	a, err := c.namedAccount()
	if err != nil {
		return err
	}
	if a.Name == c.actor.Name {
		return c.redirect("/account")
	}
	return showMeans(c, a, nil)
}

func showMeans(c *call, a cluster.Account, f *form) error {
	return c.show(page{Name: "means", Title: "How " + a.Name + " logs in", Nav: "/people", Crumbs: []crumb{{"People", "/people"}, {a.Name, personPath(a.Name)}}, Form: f, Data: c.means(a, meansPath(a.Name))})
}

// unlockPerson lets somebody try passwords again.
func unlockPerson(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	if err := c.m.Accounts.Unlock(c.Request().Context(), c.actor, a.Name); err != nil {
		return err
	}
	return c.done(meansPath(a.Name), a.Name+" can log in by password again, on every node.")
}

func (c *call) theirDoomed() (doomed, error) {
	a, err := c.otherAccount()
	if err != nil {
		return doomed{}, err
	}
	return c.doomedFactor(a, meansPath(a.Name))
}

func removeTheirPage(c *call) error {
	d, err := c.theirDoomed()
	if err != nil {
		return err
	}
	return showRemove(c, d, newForm("remove", nil))
}

// removeTheirFactor is how somebody who has lost a device gets in again.
func removeTheirFactor(c *call) error {
	d, err := c.theirDoomed()
	if err != nil {
		return err
	}
	f, err := c.readForm("remove")
	if err != nil {
		return err
	}
	if f.text("name") != d.account.Name {
		f.fail("name", "Type the name of the account, %s, to remove it.", d.account.Name)
		return showRemove(c, d, f)
	}
	if err := c.m.Accounts.RemoveFactor(c.Request().Context(), c.actor, d.account.Name, d.factor, d.id); err != nil {
		return err
	}
	return c.done(d.base, "The "+d.what+" can no longer log "+d.account.Name+" in.")
}

func addTheirCertificate(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	failed := false
	if err := addCertificate(c, a.Name, func(f *form) error { failed = true; return showMeans(c, a, f) }); err != nil || failed {
		return err
	}
	return c.done(meansPath(a.Name), "The certificate is registered for "+a.Name+".")
}

func endTheirSession(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	f, err := c.readForm("session")
	if err != nil {
		return err
	}
	if err := c.m.Accounts.EndSession(c.Request().Context(), c.actor, a.Name, f.text("node"), f.text("id")); err != nil {
		return err
	}
	return c.done(meansPath(a.Name)+"#sessions", "The session has ended.")
}

func endTheirSessions(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	if err := c.m.Accounts.EndAllSessions(c.Request().Context(), c.actor, a.Name); err != nil {
		return err
	}
	return c.done(meansPath(a.Name)+"#sessions", "All sessions of "+a.Name+" have ended. On nodes that are away they end when they are back.")
}
