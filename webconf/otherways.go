package webconf

import (
	"crypto/x509"
	"net/url"

	"github.com/keyferry/keyferry/node"
)

// Ways to log in besides the password alone.

type codeView struct{ Next string }

// codePage asks for the one-time password of a login that has begun in this browser.
func codePage(c *call) error {
	next := localPath(c.QueryParam("next"))
	if l, ok := c.srv.begun.logins.look(c.hasBegun()); !ok || !l.NeedsCode() {
		return c.redirect("/login?next=" + url.QueryEscape(next))
	}
	return showCode(c, newForm("code", map[string]string{"next": next}))
}

func showCode(c *call, f *form) error {
	return c.show(page{Name: "code", Title: "Enter the one-time password", Form: f, Data: codeView{localPath(f.Value("next"))}})
}

// loginCode completes a login. Somebody who took too long begins again, with that said.
func loginCode(c *call) error {
	f, err := c.readForm("code", "code")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	l, ok := c.srv.begun.logins.look(c.hasBegun())
	if !ok {
		return loginAgain(c, f.Value("next"), node.ErrTooLate)
	}
	if err := c.m.Accounts.Code(c.Request().Context(), l, f.secret("code")); err != nil {
		c.srv.log.Warn("one-time password refused", "from", c.RealIP())
		c.retryAfter(judge(err))
		if err == node.ErrTooLate {
			return loginAgain(c, f.Value("next"), err)
		}
		if err := f.blame("code", err); err != nil {
			return err
		}
		return showCode(c, f)
	}
	c.srv.begun.logins.take(c.hasBegun())
	if err := c.startSession(l); err != nil {
		return err
	}
	return c.redirect(localPath(f.Values.Get("next")))
}

// loginAgain shows the login page with what went wrong.
func loginAgain(c *call, next string, cause error) error {
	f := newForm("login", map[string]string{"next": localPath(next)})
	if err := f.blame("", cause); err != nil {
		return err
	}
	f.status = judge(cause).status
	return showLogin(c, f, false)
}

// A passkeyView is what the script of a page needs to talk to the browser's authenticator.
type passkeyView struct {
	Act     string // "get" or "create"
	Options string // JSON
	Action  string // where the answer goes
	Next    string
	Name    string // of the passkey that is made
	Button  string
	Other   string // another way
	Account string
}

// passkeyLoginPage has a challenge in it that is good for one answer from this browser. It is a page of
// its own so that no script is where people type passwords.
func passkeyLoginPage(c *call) error {
	return showPasskeyLogin(c, newForm("passkey", map[string]string{"next": localPath(c.QueryParam("next"))}))
}

func showPasskeyLogin(c *call, f *form) error {
	ceremony, err := c.m.Passkeys.BeginLogin()
	if err != nil {
		return err
	}
	c.srv.begun.ceremonies.put(c.begin(), ceremony)
	next := localPath(f.Value("next"))
	return c.show(page{Name: "passkey", Title: "Log in with a passkey", Form: f, Script: passkeyScript, Data: passkeyView{
		Act: "get", Options: ceremony.Options, Action: "/login/passkey", Next: next, Button: "Log in with a passkey", Other: "/login?next=" + url.QueryEscape(next)}})
}

const passkeyScript = "passkey.js"

func passkeyLogin(c *call) error {
	f, err := c.readForm("passkey", "answer")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	ceremony, _ := c.srv.begun.ceremonies.take(c.hasBegun())
	l, err := c.m.Passkeys.FinishLogin(c.Request().Context(), ceremony, []byte(f.secret("answer")), c.origin())
	if err != nil {
		if err := f.blame("", err); err != nil {
			return err
		}
		return showPasskeyLogin(c, f)
	}
	if err := c.startSession(l); err != nil {
		return err
	}
	return c.redirect(localPath(f.Values.Get("next")))
}

// A certificateView is a client certificate that the browser has shown on this connection.
type certificateView struct{ Account, Subject string }

// clientCertificate is what the browser has shown on this connection; nil when it is nothing.
func (c *call) clientCertificate() *x509.Certificate {
	if t := c.Request().TLS; t != nil && len(t.PeerCertificates) > 0 {
		return t.PeerCertificates[0]
	}
	return nil
}

// shownCertificate is for the login page. It tells of a certificate only to who has its key.
func (c *call) shownCertificate() *certificateView {
	cert := c.clientCertificate()
	if cert == nil {
		return nil
	}
	account := c.m.Accounts.CertificateAccount(cert)
	if account == "" {
		return nil
	}
	return &certificateView{account, cert.Subject.String()}
}

// certificateLogin needs a click: a certificate that the browser shows by itself logs nobody in.
func certificateLogin(c *call) error {
	f, err := c.readForm("certificate")
	if err != nil {
		return err
	}
	if !c.srv.tries.allow(c.RealIP()) {
		return errTooFast
	}
	cert := c.clientCertificate()
	if cert == nil {
		return loginAgain(c, f.Value("next"), invalid("the browser has shown no certificate on this connection; if it has one, close it and open it again"))
	}
	l, err := c.m.Accounts.LoginByCertificate(c.Request().Context(), cert, c.origin())
	if err != nil {
		return loginAgain(c, f.Value("next"), err)
	}
	if err := c.startSession(l); err != nil {
		return err
	}
	return c.redirect(localPath(f.Values.Get("next")))
}
