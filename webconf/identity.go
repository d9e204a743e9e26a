package webconf

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

type identityView struct {
	Node    string
	Owner   node.Certificate
	Holders []string // nodes with the owner key
	Nodes   []node.NodeIdentity
	Names   []string
	Graph   *trustGraph
	Matrix  []trustRow // empty when there are too many nodes for it
	Missing int        // pairs without trust

	Next    *node.Certificate // of the owner that replaces the present one
	Awaited []string          // nodes that it has not certified yet
}

// Pairs is how many trusts there can be.
func (v identityView) Pairs() int { return len(v.Names) * (len(v.Names) - 1) }

// Others is how many other nodes each node has.
func (v identityView) Others() int { return len(v.Names) - 1 }

// A trustRow is whom one node trusts, with a cell for each node.
type trustRow struct {
	Trusting string
	Cells    []trustCell
}

// A trustCell is the trust of one node in another.
type trustCell struct {
	Trusting, Trusted string
	Self              bool
	Mark              mark
	Edge              node.TrustEdge // the zero value where there never was one
}

// Holds tells whether the one takes packages from the other.
func (c trustCell) Holds() bool { return !c.Edge.Since.IsZero() && c.Edge.Removed.IsZero() }

// Path is the page about this trust.
func (c trustCell) Path() string { return trustPath(c.Trusting, c.Trusted) }

// mostMatrix is how many nodes the table of all pairs is drawn for: a page of 400 cells.
const mostMatrix = 20

func trustPath(trusting, trusted string) string {
	return "/identity/trust/" + url.PathEscape(trusting) + "/" + url.PathEscape(trusted)
}

func chainPath(name string) string { return "/identity/nodes/" + url.PathEscape(name) + "/chain.pem" }

func identityPage(c *call) error { return showIdentity(c, newForm("trust", nil)) }

func showIdentity(c *call, f *form) error {
	return c.show(page{Name: "identity", Title: "Identity and trust", Nav: "/identity", Form: f, Data: newIdentityView(c.m.Name(), c.m.Identities())})
}

func newIdentityView(here string, ids node.Identities) identityView {
	v := identityView{Node: here, Owner: ids.Owner, Nodes: ids.Nodes, Graph: newTrustGraph(ids, here), Next: ids.Next, Awaited: ids.Awaited}
	edges := map[[2]string]node.TrustEdge{}
	for _, e := range ids.Edges {
		edges[[2]string{e.Trusting, e.Trusted}] = e
	}
	for _, n := range ids.Nodes {
		v.Names = append(v.Names, n.Node)
		v.Missing += len(ids.Nodes) - 1 - len(n.Trusts)
		if n.HoldsOwner {
			v.Holders = append(v.Holders, n.Node)
		}
	}
	if len(v.Names) > mostMatrix || len(v.Names) < 2 {
		return v
	}
	for _, trusting := range v.Names {
		row := trustRow{Trusting: trusting}
		for _, trusted := range v.Names {
			cell := trustCell{Trusting: trusting, Trusted: trusted, Self: trusting == trusted, Edge: edges[[2]string{trusting, trusted}]}
			cell.Mark = trustMark(cell)
			row.Cells = append(row.Cells, cell)
		}
		v.Matrix = append(v.Matrix, row)
	}
	return v
}

// makeTrust makes one edge.
func makeTrust(c *call) error {
	f, err := c.readForm("trust")
	if err != nil {
		return err
	}
	trusting, trusted := f.text("trusting"), f.text("trusted")
	nodes := c.m.State().Nodes
	for field, name := range map[string]string{"trusting": trusting, "trusted": trusted} {
		if _, ok := nodes[name]; !ok {
			f.fail(field, "Choose a node of this cluster.")
		}
	}
	if f.ok() && trusting == trusted {
		f.fail("trusted", "A node takes nothing from itself: choose two nodes.")
	}
	if f.ok() && c.m.State().Trusts(trusting, trusted) {
		f.fail("trusted", "%s trusts %s already.", trusting, trusted)
	}
	if f.ok() {
		if err := c.m.Trust.Set(c.Request().Context(), c.actor, trusting, trusted, true); err != nil {
			if err := f.blame("trusted", err); err != nil {
				return err
			}
		}
	}
	if !f.ok() {
		return showIdentity(c, f)
	}
	return c.done("/identity", fmt.Sprintf("%s takes packages from %s from now on. Packages that were made before are not taken.", trusting, trusted))
}

type severedView struct {
	node.Severed
	Path string // of the form
}

// severedOf is what would stop without the trust that the address names.
func (c *call) severedOf() (node.Severed, error) {
	trusting, err := c.segment("trusting")
	if err != nil {
		return node.Severed{}, err
	}
	trusted, err := c.segment("trusted")
	if err != nil {
		return node.Severed{}, err
	}
	return c.m.Trust.Severed(trusting, trusted)
}

// trustPage says what stops when one edge is removed.
func trustPage(c *call) error {
	s, err := c.severedOf()
	if err != nil {
		return err
	}
	return c.show(page{Name: "trust", Title: fmt.Sprintf("Trust of %s in %s", s.Trusting, s.Trusted), Nav: "/identity",
		Crumbs: []crumb{{"Identity and trust", "/identity"}}, Data: newSeveredView(s)})
}

func newSeveredView(s node.Severed) severedView {
	return severedView{s, trustPath(s.Trusting, s.Trusted) + "/remove"}
}

func removeTrust(c *call) error {
	if _, err := c.readForm("remove"); err != nil {
		return err
	}
	s, err := c.severedOf()
	if err != nil {
		return err
	}
	if err := c.m.Trust.Set(c.Request().Context(), c.actor, s.Trusting, s.Trusted, false); err != nil {
		return err
	}
	return c.done("/identity", fmt.Sprintf("%s takes nothing from %s any more. The keys that it has stay.", s.Trusting, s.Trusted))
}

// renewIdentity has this node certified anew, with what was pasted or by the owner key in the cluster.
func renewIdentity(c *call) error {
	f, err := c.readForm("renew")
	if err != nil {
		return err
	}
	pic, err := broughtCertificate(f.text("certificate"))
	if err == nil && pic == nil && f.text("by") == "elsewhere" {
		err = errors.New("paste the certificate that came back")
	}
	if err != nil {
		f.fail("certificate", "%s", sentence(err.Error()))
		return showIdentity(c, f)
	}
	if err := c.m.RenewIdentity(c.Request().Context(), c.actor, pic); err != nil {
		if err := f.blame("certificate", err); err != nil {
			return err
		}
		return showIdentity(c, f)
	}
	return c.done("/identity", fmt.Sprintf("The identity of %s is certified anew. Its key is the same, so nothing else has to change.", c.m.Name()))
}

func requestFile(c *call) error {
	r, err := c.m.IdentityRequest()
	if err != nil {
		return said(err)
	}
	return c.request(r.Subject.SerialNumber, r)
}

// request sends a certificate request as a file.
func (c *call) request(name string, r *x509.CertificateRequest) error {
	c.attach(name + ".csr")
	return c.Blob(http.StatusOK, "application/x-pem-file", identity.EncodeRequest(r))
}

func ownerFile(c *call) error {
	c.attach("owner.pem")
	return c.Blob(http.StatusOK, pemType, c.m.OwnerPEM())
}

func chainFile(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	chain, err := c.m.Chain(name)
	if err != nil {
		return err
	}
	c.attach(name + "-chain.pem")
	return c.Blob(http.StatusOK, pemType, chain)
}

// pemType is what RFC 8555, section 9.1, registers for chains of certificates.
const pemType = "application/pem-certificate-chain"

// identityProblems are certificates that people have to replace, while there is time for it or after.
func (v *situation) identityProblems() []problem {
	var list []problem
	say := func(what, whose string, ends time.Time, remedy string) {
		switch left := ends.Sub(v.Now); {
		case ends.IsZero() || left >= node.CertificateWarning:
		case left <= 0:
			list = append(list, problem{bad, fmt.Sprintf("%s%s has ended %s.", what, whose, relative(ends, v.Now)), remedy, "/identity", "See the identities"})
		default:
			list = append(list, problem{warn, fmt.Sprintf("%s%s ends %s.", what, whose, relative(ends, v.Now)), remedy, "/identity", "See the identities"})
		}
	}
	say("The owner certificate of the cluster", "", v.OwnerEnds, "All identities end with it: packages are refused then, and nodes refuse each other. Plan a new owner before that day.")
	for _, name := range v.names() {
		say("The identity certificate of ", name, v.IdentityEnds[name], "From then on the others refuse its packages and its connections. Have its identity certified anew before that day, on that node.")
	}
	return list
}
