package webconf

import (
	"cmp"
	"encoding/hex"
	"regexp"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// A meansView is how an account logs in and where it is logged in: on its owner's page, and on that for
// whoever manages accounts.
type meansView struct {
	Name           string
	Own            bool   // it is the account in use
	Base           string // path below which its forms go
	Node           string
	TOTP           cluster.TOTP
	Passkeys       []factorRow
	Certificates   []factorRow
	PasskeyProblem string // why there can be none here
	Locks          []lockRow
	Sessions       []sessionRow
	Silent         []string // nodes that did not say their sessions
}

// HasTOTP tells whether one-time passwords are needed.
func (v meansView) HasTOTP() bool { return len(v.TOTP.Sealed) > 0 }

// CanEndAll tells whether there may be a session to end, besides the one in use.
func (v meansView) CanEndAll() bool {
	others := len(v.Sessions)
	if v.Own {
		others--
	}
	return others > 0 || len(v.Silent) > 0
}

// A factorRow is a passkey or a certificate.
type factorRow struct {
	Name, Detail, Remove string
	Created, Ends        time.Time
	Over                 bool
}

type lockRow struct {
	cluster.Lock
	Over bool
}

type sessionRow struct {
	node.Session
	Here bool // the one in which the page is looked at
}

func newMeansView(account cluster.Account, now time.Time) meansView {
	v := meansView{Name: account.Name, TOTP: account.TOTP}
	for _, p := range account.Passkeys {
		row := factorRow{Name: p.Name, Detail: "on one device", Created: p.Created, Remove: factorPath(cluster.FactorPasskey, hex.EncodeToString(p.ID))}
		if p.Synced {
			row.Detail = "its owner’s devices may share it"
		}
		v.Passkeys = append(v.Passkeys, row)
	}
	for _, k := range account.Certificates {
		v.Certificates = append(v.Certificates, factorRow{k.Name, k.Subject, factorPath(cluster.FactorCertificate, k.Fingerprint), k.Created, k.NotAfter, !now.Before(k.NotAfter)})
	}
	for _, l := range account.Locks {
		if now.Before(l.Until) {
			v.Locks = append(v.Locks, lockRow{Lock: l})
		}
	}
	return v
}

// factorPath names a factor in the address of the page that removes it. One-time passwords need no id.
func factorPath(factor, id string) string {
	return "/remove/" + factor + "/" + cmp.Or(id, "-")
}

// means gathers the view of an account, with the sessions that all nodes say it has.
func (c *call) means(account cluster.Account, base string) meansView {
	v := newMeansView(account, time.Now())
	v.Own, v.Base, v.Node = account.Name == c.actor.Name, base, c.m.Name()
	if err := c.m.Passkeys.Offered(); err != nil {
		v.PasskeyProblem = sentence(err.Error())
	}
	list, silent := c.m.Accounts.Sessions(c.Request().Context(), account.Name)
	v.Silent = silent
	for _, s := range list {
		v.Sessions = append(v.Sessions, sessionRow{s, s.Node == c.m.Name() && c.session != nil && shownID(c.session.ID) == s.ID})
	}
	return v
}

// A removeView is a factor that is about to go.
type removeView struct {
	Name, Factor, Base, Action string
	Own                        bool
	Pattern                    string
}

// A doomed factor is one that a request is about.
type doomed struct {
	account          cluster.Account
	factor, id, what string
	base             string // path of the page where the account's factors are
}

// doomedFactor finds the factor in the path.
func (c *call) doomedFactor(account cluster.Account, base string) (doomed, error) {
	d := doomed{account: account, factor: c.Param("factor"), id: c.Param("id"), base: base}
	switch d.factor {
	case cluster.FactorTOTP:
		d.id = ""
		if len(account.TOTP.Sealed) > 0 {
			d.what = "one-time passwords"
		}
	case cluster.FactorPasskey:
		for _, p := range account.Passkeys {
			if hex.EncodeToString(p.ID) == d.id {
				d.what = "passkey " + p.Name
			}
		}
	case cluster.FactorCertificate:
		for _, k := range account.Certificates {
			if k.Fingerprint == d.id {
				d.what = "certificate " + k.Name
			}
		}
	}
	if d.what == "" {
		return d, &cluster.Error{Code: cluster.NotFound, Message: "the account has no such way to log in any more"}
	}
	return d, nil
}

// showRemove asks once more before a factor goes.
func showRemove(c *call, d doomed, f *form) error {
	own := d.account.Name == c.actor.Name
	p := page{Name: "factor", Title: "Remove the " + d.what, Nav: "/account", Crumbs: []crumb{{"Your account", d.base}}, Form: f, Data: removeView{
		Name: d.account.Name, Factor: d.factor, Base: d.base, Action: d.base + factorPath(d.factor, d.id), Own: own, Pattern: regexp.QuoteMeta(d.account.Name)}}
	if !own {
		p.Nav, p.Crumbs = "/people", []crumb{{"People", "/people"}, {d.account.Name, d.base}}
	}
	return c.show(p)
}

func (c *call) ownDoomed() (doomed, error) {
	return c.doomedFactor(c.m.State().Accounts[c.actor.Name], "/account")
}

func removeOwnPage(c *call) error {
	d, err := c.ownDoomed()
	if err != nil {
		return err
	}
	return showRemove(c, d, newForm("remove", nil))
}

func removeOwnFactor(c *call) error {
	f, err := c.readForm("remove", "password")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	d, err := c.ownDoomed()
	if err != nil {
		return err
	}
	if err := c.m.Accounts.Confirm(c.Request().Context(), c.actor, f.secret("password")); err != nil {
		if err := f.blame("password", err); err != nil {
			return err
		}
		return showRemove(c, d, f)
	}
	if err := c.m.Accounts.RemoveFactor(c.Request().Context(), c.actor, c.actor.Name, d.factor, d.id); err != nil {
		return err
	}
	if err := c.renewSession(); err != nil { // all others have ended, those of a lost device among them
		return err
	}
	return c.done("/account", "The "+d.what+" can no longer log you in.")
}

// endOwnSession ends one session of the account in use, on any node.
func endOwnSession(c *call) error {
	f, err := c.readForm("session")
	if err != nil {
		return err
	}
	if err := c.m.Accounts.EndSession(c.Request().Context(), c.actor, c.actor.Name, f.text("node"), f.text("id")); err != nil {
		return err
	}
	return c.done("/account#sessions", "The session has ended.")
}

// endOtherSessions ends all sessions of the account in use but this one, which goes on under a new token.
func endOtherSessions(c *call) error {
	if _, err := c.readForm("sessions"); err != nil {
		return err
	}
	if err := c.m.Accounts.EndAllSessions(c.Request().Context(), c.actor, c.actor.Name); err != nil {
		return err
	}
	if err := c.renewSession(); err != nil {
		return err
	}
	return c.done("/account#sessions", "All your other sessions have ended. On nodes that are away they end when they are back.")
}
