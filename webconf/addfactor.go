package webconf

import (
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

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
