package webconf

import (
	"net/url"

	"github.com/keyferry/keyferry/node"
)

type hsmView struct {
	Node    string
	Modules []node.ModuleView
}

func hsmPage(c *call) error {
	v := hsmView{c.m.Name(), c.m.Overview(c.Request().Context())}
	return c.show(page{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: v})
}

// TakePath is the form that takes a token into a slot.
func (hsmView) TakePath(module string, t node.TokenView) string {
	return "/new-slot?" + url.Values{"module": {module}, "serial": {t.Serial}, "label": {t.Label}}.Encode()
}
