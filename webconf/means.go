package webconf

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"regexp"
	"strings"
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

type enrolView struct {
	QR          template.HTML
	Secret, URI string
}

// beginTOTP shows a new secret, once: it is on this page and nowhere else.
func beginTOTP(c *call) error {
	f, err := c.readForm("totp", "password")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	e, err := c.m.Accounts.BeginTOTP(c.Request().Context(), c.actor, f.secret("password"))
	if err != nil {
		if err := f.blame("password", err); err != nil {
			return err
		}
		return showAccount(c, f)
	}
	c.srv.begun.enrolments.put(c.session.ID, e)
	return showEnrol(c, newForm("first", nil), e)
}

func showEnrol(c *call, f *form, e *node.Enrolment) error {
	return c.show(page{Name: "totp", Title: "Set up one-time passwords", Nav: "/account", Crumbs: []crumb{{"Your account", "/account"}}, Form: f,
		Data: enrolView{drawQR(e.Matrix), e.Secret, e.URI}})
}

// finishTOTP puts one-time passwords into use. The secret stands on the page again after a wrong code,
// since it is not in use yet and its owner may not have it.
func finishTOTP(c *call) error {
	f, err := c.readForm("first", "code")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	e, ok := c.srv.begun.enrolments.look(c.session.ID)
	err = c.m.Accounts.FinishTOTP(c.Request().Context(), c.actor, e, f.secret("code"))
	if err != nil {
		if err := f.blame("code", err); err != nil {
			return err
		}
		if !ok {
			f.Name = "totp"
			f.Errors = []fieldError{{"", f.Errors[0].Text}}
			return showAccount(c, f)
		}
		return showEnrol(c, f, e)
	}
	c.srv.begun.enrolments.take(c.session.ID)
	return c.done("/account", "One-time passwords are set up. From now on each login by password needs one.")
}

// done says what was done on the next page.
func (c *call) done(path, note string) error {
	if err := c.flash(note); err != nil {
		return err
	}
	return c.redirect(path)
}

// drawQR draws a QR code as SVG, with the quiet zone that scanners need (ISO/IEC 18004: four modules). It
// is dark on light in both themes.
func drawQR(matrix [][]bool) template.HTML {
	const quiet = 4
	size := len(matrix) + 2*quiet
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="qr" viewBox="0 0 %d %d" role="img" aria-label="QR code with the secret" shape-rendering="crispEdges"><rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, size, size, size, size)
	for y, row := range matrix {
		for x, dark := range row {
			if dark {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+quiet, y+quiet)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String())
}

// beginPasskey asks the browser's authenticator for a new passkey, on a page of its own.
func beginPasskey(c *call) error {
	f, err := c.readForm("passkeys", "password")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	if err := cluster.CheckFactorName(f.text("name")); err != nil {
		f.fail("name", "%s", sentence(err.Error()))
		return showAccount(c, f)
	}
	ceremony, err := c.m.Passkeys.BeginRegister(c.Request().Context(), c.actor, f.secret("password"), f.text("name"))
	if err != nil {
		if err := f.blame("password", err); err != nil {
			return err
		}
		return showAccount(c, f)
	}
	c.srv.begun.ceremonies.put(c.session.ID, ceremony)
	return c.show(page{Name: "passkey", Title: "Add a passkey", Nav: "/account", Crumbs: []crumb{{"Your account", "/account"}}, Script: passkeyScript, Data: passkeyView{
		Act: "create", Options: ceremony.Options, Action: "/account/passkeys/finish", Name: f.text("name"), Button: "Make the passkey", Other: "/account"}})
}

func finishPasskey(c *call) error {
	f, err := c.readForm("passkeys", "answer")
	if err != nil {
		return err
	}
	ceremony, _ := c.srv.begun.ceremonies.take(c.session.ID)
	if err := c.m.Passkeys.FinishRegister(c.Request().Context(), c.actor, ceremony, []byte(f.secret("answer"))); err != nil {
		if err := f.blame("", err); err != nil {
			return err
		}
		return showAccount(c, f)
	}
	return c.done("/account", "The passkey is added. It logs you in without your password.")
}

// readCertificate reads a form with a certificate's file in it, all of it small.
func (c *call) readCertificate(name string) (*form, []byte, error) {
	r := c.Request()
	if err := r.ParseMultipartForm(maxForm); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, nil, err
		}
		return nil, nil, invalid("the form cannot be read")
	}
	f, err := c.readForm(name, "password")
	if err != nil {
		return nil, nil, err
	}
	file, _, err := r.FormFile("file")
	if err != nil {
		return f, nil, nil
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, node.MaxCertificate+1))
	return f, b, err
}

// addCertificate registers a certificate for the account in use, or by whoever manages accounts for
// another. Both enter their own password.
func addCertificate(c *call, account string, again func(*form) error) error {
	f, file, err := c.readCertificate("certificates")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	name := f.text("name")
	if name != "" {
		if err := cluster.CheckFactorName(name); err != nil {
			f.fail("name", "%s", sentence(err.Error()))
		}
	}
	cert, err := node.ReadCertificate(file)
	if err != nil {
		f.fail("file", "%s", sentence(err.Error()))
	}
	if !f.ok() {
		return again(f)
	}
	if err := c.m.Accounts.Confirm(c.Request().Context(), c.actor, f.secret("password")); err != nil {
		if err := f.blame("password", err); err != nil {
			return err
		}
		return again(f)
	}
	if err := c.m.Accounts.AddCertificate(c.Request().Context(), c.actor, account, name, cert); err != nil {
		if err := f.blame("file", err); err != nil {
			return err
		}
		return again(f)
	}
	return nil
}

func addOwnCertificate(c *call) error {
	failed := false
	err := addCertificate(c, c.actor.Name, func(f *form) error { failed = true; return showAccount(c, f) })
	if err != nil || failed {
		return err
	}
	return c.done("/account", "The certificate is registered. Close the browser and open it again, so that it shows the certificate.")
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
