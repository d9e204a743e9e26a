package webconf

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/node"
)

type keysView struct {
	Node, Cluster string
	Owner         node.Certificate
	Next          *node.Certificate // while the owner is replaced
	Awaited       []string
	Done          []string // that have a certificate of the next owner
	Holders       []string // nodes with the owner key
	Changing      []string // nodes that change over to a new identity key
	Here          node.NodeIdentity
	Requested     string // SHA-256 of the next identity key of this node, just made
	Waits         bool   // this node is one of Awaited, and nobody certifies it by itself
	Again         bool   // the change of the owner can begin again here
}

// Steps is how many nodes there are to be certified by the next owner.
func (v keysView) Steps() int { return len(v.Awaited) + len(v.Done) }

// keysPage replaces identity and owner keys.
func keysPage(c *call) error { return showKeys(c, newForm("node", nil)) }

func showKeys(c *call, f *form) error {
	return showRequested(c, f, "")
}

func showRequested(c *call, f *form, key string) error {
	v := newKeysView(c.m.Name(), c.m.Identities())
	v.Requested = key
	p := page{Name: "keys-replace", Title: "Replace keys", Nav: "/identity", Crumbs: []crumb{{"Identity and trust", "/identity"}}, Form: f, Data: v}
	v.Again = v.Next != nil && (c.QueryParam("again") != "" || c.Request().Method == post)
	p.Data = v
	if v.Next != nil && !v.Waits && !v.Again { // nobody is filling in a form
		p.Refresh = 3
	}
	return c.show(p)
}

func newKeysView(here string, ids node.Identities) keysView {
	v := keysView{Node: here, Cluster: ids.Cluster, Owner: ids.Owner, Next: ids.Next, Awaited: ids.Awaited}
	awaited := map[string]bool{}
	for _, name := range ids.Awaited {
		awaited[name] = true
	}
	for _, n := range ids.Nodes {
		if n.Node == here {
			v.Here = n
		}
		if n.HoldsOwner {
			v.Holders = append(v.Holders, n.Node)
		}
		if n.Changing {
			v.Changing = append(v.Changing, n.Node)
		}
		if v.Next != nil && !awaited[n.Node] {
			v.Done = append(v.Done, n.Node)
		}
	}
	v.Waits = v.Next != nil && awaited[here] && len(v.Holders) == 0
	return v
}

// requestNewKey makes the next identity key of this node. The page then shows what people compare before it is
// certified, beside the button that gives the request.
func requestNewKey(c *call) error {
	f, err := c.readForm("node")
	if err != nil {
		return err
	}
	r, err := c.m.NewKeyRequest(c.Request().Context(), c.actor)
	if err != nil {
		return said(err)
	}
	if f.Value("take") == "file" {
		return c.request(r.Subject.SerialNumber+"-new-key", r)
	}
	return showRequested(c, f, keyPrint(r))
}

// brought is the certificate that a form brings: none where it is to be made in the cluster.
func brought(f *form) *x509.Certificate {
	if f.text("by") != "elsewhere" {
		return nil
	}
	cert, err := broughtCertificate(f.text("certificate"))
	if err == nil && cert == nil {
		err = errors.New("paste the certificate")
	}
	if err != nil {
		f.fail("certificate", "%s", sentence(err.Error()))
	}
	return cert
}

// replaceIdentityKey wants the name of the node typed: the present key is destroyed at the end.
func replaceIdentityKey(c *call) error {
	f, err := c.readForm("node")
	if err != nil {
		return err
	}
	pic := brought(f)
	if f.text("name") != c.m.Name() {
		f.fail("name", "Type the name %s to replace its identity key.", c.m.Name())
	}
	if f.ok() {
		if err := c.m.ReplaceIdentityKey(c.Request().Context(), c.actor, pic); err != nil {
			if err := f.blame("certificate", err); err != nil {
				return err
			}
		}
	}
	if !f.ok() {
		return showKeys(c, f)
	}
	return c.done("/identity/keys", fmt.Sprintf("%s has a new identity key. What the old one has signed stays good; the key itself is destroyed.", c.m.Name()))
}

// replaceOwner wants the name of the cluster typed: all nodes are certified anew.
func replaceOwner(c *call) error {
	f, err := c.readForm("owner")
	if err != nil {
		return err
	}
	poc := brought(f)
	if name := c.m.Identity.ClusterName(); f.text("name") != name {
		f.fail("name", "Type the name %s to replace the owner of the cluster.", name)
	}
	if f.ok() {
		if err := c.m.ReplaceOwner(c.Request().Context(), c.actor, poc); err != nil {
			if err := f.blame("certificate", err); err != nil {
				return err
			}
		}
	}
	if !f.ok() {
		return showKeys(c, f)
	}
	return c.done("/identity/keys", "The owner is being replaced. This page shows how far it is.")
}
