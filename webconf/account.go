package webconf

import (
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type accountView struct {
	Account cluster.Account
	Roles   []string
	Idle    string
	Life    string
	meansView
	custodianView
}

func accountPage(c *call) error { return showAccount(c, newForm("password", nil)) }

func showAccount(c *call, f *form) error {
	account := c.m.State().Accounts[c.actor.Name]
	v := accountView{account, rolesWords(account.Roles), span(c.m.Settings.SessionIdle()), span(sessionLife), c.means(account, "/account"), newCustodianView(c.m.State(), c.actor.Name)}
	return c.show(page{Name: "account", Title: "Your account", Nav: "/account", Form: f, Data: v})
}

// changePassword ends all sessions of the account, on every node, and begins a new one here.
func changePassword(c *call) error {
	f, err := c.readForm("password", "old", "new", "again")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	if err := node.CheckPassword(f.secret("new")); err != nil {
		f.fail("new", "%s", sentence(err.Error()))
	}
	if f.twice("new", "again", "new password"); !f.ok() {
		return showAccount(c, f)
	}
	if err := c.m.Accounts.ChangePassword(c.Request().Context(), c.actor, f.secret("old"), f.secret("new")); err != nil {
		if err := f.blame("old", err); err != nil {
			return err
		}
		return showAccount(c, f)
	}
	if err := c.renewSession(); err != nil {
		return err
	}
	if err := c.flash("Your password is changed. All other sessions of your account have ended."); err != nil {
		return err
	}
	return c.redirect("/account")
}
