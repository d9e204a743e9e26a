package webconf

import (
	"fmt"
	"net/url"

	"github.com/keyferry/keyferry/node"
)

type hsmView struct {
	Node    string
	Modules []node.ModuleView
	Sealed  string // by what, in words
}

func hsmPage(c *call) error {
	v := hsmView{c.m.Name(), c.m.Overview(c.Request().Context()), c.m.Node().Sealing().Where}
	return c.show(page{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: v})
}

// reloadModule has a module show the tokens that other programs have made.
func reloadModule(c *call) error {
	f, err := c.readForm("reload")
	if err != nil {
		return err
	}
	module := f.text("module")
	if err := c.m.Reload(c.Request().Context(), c.actor, module); err != nil {
		return err
	}
	if err := c.flash(fmt.Sprintf("Module %s was started anew. All tokens that it has now are below.", module)); err != nil {
		return err
	}
	return c.redirect("/hsm")
}

// TakePath is the form that takes a token into a slot.
func (hsmView) TakePath(module string, t node.TokenView) string {
	return "/new-slot?" + url.Values{"module": {module}, "serial": {t.Serial}, "label": {t.Label}}.Encode()
}
