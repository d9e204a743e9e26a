package webconf

import (
	"fmt"
	"net/http"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type protectionView struct {
	Node    string
	Sealing node.Sealing
	TPM     string   // the configuration names it
	File    string   // with the passphrase; the configuration names it
	Slots   []string // generated slots, which the key is for
	Others  []protectedNode
	Min     int // characters of a passphrase
}

// A protectedNode is what another node says protects its key.
type protectedNode struct{ Name, URL, Word string }

func newProtectionView(v *situation, sealing node.Sealing, cfg node.SealConfig) protectionView {
	p := protectionView{Node: v.Node, Sealing: sealing, TPM: cfg.TPM, File: cfg.PassphraseFile, Min: node.MinPassphrase}
	for _, s := range v.Slots {
		if s.Mode == cluster.Generated {
			p.Slots = append(p.Slots, s.Label)
		}
	}
	for _, name := range v.names() {
		if name != v.Node {
			n := v.State.Nodes[name]
			p.Others = append(p.Others, protectedNode{name, n.WebURL + "/protection", protectorWord(n.Protector)})
		}
	}
	return p
}

// protectorWord is what protects a node key.
func protectorWord(protector string) string {
	switch protector {
	case cluster.ByFile:
		return "a file on the node"
	case cluster.ByPassphrase:
		return "a passphrase"
	case cluster.ByCredential:
		return "a passphrase from a file"
	case cluster.ByTPM:
		return "the TPM of the machine"
	}
	return "something that is not known"
}

func protectionPage(c *call) error { return showProtection(c, nil) }

func showProtection(c *call, f *form) error {
	n := c.m.Node()
	return c.show(page{Name: "protection", Title: "Protection of stored codes", Nav: "/hsm", Crumbs: []crumb{{"HSM overview", "/hsm"}}, Form: f,
		Data: newProtectionView(c.look(), n.Sealing(), n.SealConfig())})
}

func protect(c *call) error {
	f, err := c.readForm("protect", "passphrase", "again")
	if err != nil {
		return err
	}
	by := f.text("by")
	if by == cluster.ByPassphrase {
		if err := node.CheckPassphrase(f.code("passphrase")); err != nil {
			f.fail("passphrase", "%s", sentence(err.Error()))
		}
		f.twice("passphrase", "again", "passphrase")
	}
	if !f.ok() {
		return showProtection(c, f)
	}
	if err := c.m.Protect(c.Request().Context(), c.actor, by, f.code("passphrase")); err != nil {
		field := ""
		if by == cluster.ByPassphrase {
			field = "passphrase"
		}
		if err := f.blame(field, err); err != nil {
			return err
		}
		return showProtection(c, f)
	}
	if err := c.flash(fmt.Sprintf("The stored codes of %s are sealed by %s now.", c.m.Name(), c.m.Node().Sealing().Where)); err != nil {
		return err
	}
	return c.redirect("/protection")
}

func apiProtect(c *call) error {
	var q struct {
		By         string `json:"by"`
		Passphrase []byte `json:"passphrase,omitempty"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if err := c.m.Protect(c.Request().Context(), c.actor, q.By, q.Passphrase); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, c.m.Node().Sealing())
}

// apiUnseal takes the passphrase of the node key. There is no state to ask who may: whoever may use the
// socket may try, and the passphrase decides.
func apiUnseal(c *call) error {
	var q struct {
		Passphrase []byte `json:"passphrase"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if err := c.srv.node.Unseal(c.Request().Context(), q.Passphrase); err != nil {
		return said(err)
	}
	return c.JSON(http.StatusOK, c.srv.node.Sealing())
}
