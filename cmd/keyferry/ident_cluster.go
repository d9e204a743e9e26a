package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

// Without --module the devices are the nodes of the cluster, asked through the daemon of this one.

func certified(c node.Certificate) identity.Certified {
	return identity.Certified{State: c.State, Subject: c.Subject, Issuer: c.Issuer, Fingerprint: c.Fingerprint, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

// clusterViews are the nodes as devices, numbered by name.
func (a *app) clusterViews(ctx context.Context) ([]identity.View, error) {
	ids, err := get[node.Identities](ctx, a.client(), "/identity")
	if err != nil {
		return nil, err
	}
	return viewsOf(ids), nil
}

func viewsOf(ids node.Identities) []identity.View {
	var views []identity.View
	for i, n := range ids.Nodes {
		views = append(views, identity.View{Number: i + 1, Serial: n.Serial, Name: n.Node, POK: n.HoldsOwner, POC: certified(ids.Owner),
			PIK: true, PIC: certified(n.Certificate), Renewing: n.Changing, Trusts: n.Trusts, Problem: n.Certificate.Problem})
	}
	return views
}

func (a *app) clusterList(ctx context.Context, which string) (identListing, error) {
	ids, err := get[node.Identities](ctx, a.client(), "/identity")
	if err != nil {
		return identListing{}, err
	}
	l := identListing{Awaited: ids.Awaited}
	if ids.Next != nil {
		next := certified(*ids.Next)
		l.Next = &next
	}
	l.Devices, err = chooseViews(which, viewsOf(ids))
	return l, err
}

func chooseViews(list string, views []identity.View) ([]identity.View, error) {
	var among []identity.Choice
	for _, v := range views {
		among = append(among, identity.Choice{Number: v.Number, Serial: v.Serial, Name: v.Name})
	}
	indexes, err := identity.Choose(list, among)
	var chosen []identity.View
	for _, i := range indexes {
		chosen = append(chosen, views[i])
	}
	return chosen, err
}

// An edge is the trust of one node in another, and what became of it.
type edge struct {
	Trusting string `json:"trusting"`
	Trusted  string `json:"trusted"`
	Done     string `json:"done,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

func (a *app) identTrust() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "trust TRUSTED TRUSTING",
		Short: "Let nodes take key packages from nodes",
		Long: `Let the nodes TRUSTING take key packages from the nodes TRUSTED: numbers, names, sn:SERIAL, several with commas between,
or "all". Trust goes one way. "keyferry ident trust all all" makes all trust each other.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			edges, err := a.edges(c.Context(), args[1], args[0])
			if err != nil {
				return err
			}
			return a.setEdges(c.Context(), edges, true)
		},
	})
}

func (a *app) identRemove(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "remove TRUSTING REMOVED",
		Short: "Let nodes take no key packages any more from nodes",
		Long: `Let the nodes TRUSTING take no key packages any more from the nodes REMOVED: numbers, names, sn:SERIAL, several with
commas between, or "all". Packages on the way are refused then, and imports that run end. Keys that are there stay.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			edges, err := a.edges(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			if len(edges) > 1 { // of a list, what is there
				if edges, err = a.held(c.Context(), edges); err != nil {
					return err
				}
			}
			question := "This stops for good what is on its way:"
			for _, e := range edges {
				s, err := get[node.Severed](c.Context(), a.client(), trustPath(e))
				if err != nil {
					return err
				}
				question += fmt.Sprintf(" %s takes nothing from %s any more (%s on the way, %s that only this way leads to).", e.Trusting, e.Trusted,
					count(len(s.Packages), "package"), count(s.Only, "key"))
			}
			if err := a.confirm(f.yes, question); err != nil {
				return err
			}
			return a.setEdges(c.Context(), edges, false)
		},
	})
}

func trustPath(e edge) string {
	return "/identity/trust/" + segment(e.Trusting) + "/" + segment(e.Trusted)
}

// edges are the pairs of two lists. A node and itself are no pair; a list that holds nothing else is a mistake.
func (a *app) edges(ctx context.Context, trusting, trusted string) ([]edge, error) {
	views, err := a.clusterViews(ctx)
	if err != nil {
		return nil, err
	}
	from, err := chooseViews(trusting, views)
	if err != nil {
		return nil, err
	}
	to, err := chooseViews(trusted, views)
	if err != nil {
		return nil, err
	}
	return pairs(from, to)
}

func pairs(trusting, trusted []identity.View) ([]edge, error) {
	var all []edge
	for _, x := range trusting {
		for _, y := range trusted {
			if x.Name != y.Name {
				all = append(all, edge{Trusting: x.Name, Trusted: y.Name})
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("a node takes no packages from itself: name two different nodes")
	}
	return all, nil
}

// held are those edges that there are.
func (a *app) held(ctx context.Context, edges []edge) ([]edge, error) {
	views, err := a.clusterViews(ctx)
	if err != nil {
		return nil, err
	}
	there := func(e edge) bool {
		return slices.ContainsFunc(views, func(v identity.View) bool { return v.Name == e.Trusting && slices.Contains(v.Trusts, e.Trusted) })
	}
	edges = slices.DeleteFunc(edges, func(e edge) bool { return !there(e) })
	if len(edges) == 0 {
		return nil, errors.New("none of these nodes trusts any of the others: nothing to remove")
	}
	return edges, nil
}

// setEdges makes or removes edges one by one. One that fails stops no other, and each is reported.
func (a *app) setEdges(ctx context.Context, edges []edge, trust bool) error {
	method, done := http.MethodDelete, "trusts no more"
	var body any
	if trust {
		method, done, body = http.MethodPut, "trusts", struct{}{}
	}
	failed := 0
	for i := range edges {
		e := &edges[i]
		if err := a.client().do(ctx, method, trustPath(*e), body, nil); err != nil {
			failed++
			e.Problem = err.Error()
			continue
		}
		e.Done = done
	}
	err := a.print(edges, func(row func(...any)) {
		row("TRUSTING", "", "TRUSTED")
		for _, e := range edges {
			if e.Problem != "" {
				row(e.Trusting, "FAILED", e.Trusted, e.Problem)
				continue
			}
			row(e.Trusting, e.Done, e.Trusted)
		}
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d failed; see above", failed, len(edges))
	}
	return err
}

// fetchFromCluster writes the certificates of nodes into the certificate store.
func (a *app) fetchFromCluster(ctx context.Context, t *identTool, list string) error {
	views, err := a.clusterViews(ctx)
	if err != nil {
		return err
	}
	if views, err = chooseViews(list, views); err != nil {
		return err
	}
	var serials []string
	names := map[string]string{}
	for _, v := range views {
		serials = append(serials, v.Serial)
		names[v.Serial] = v.Name
	}
	return a.eachSerial(serials, func(serial string) (outcome, error) {
		pic, poc, err := a.chain(ctx, names[serial])
		if err != nil {
			return outcome{}, err
		}
		return t.keep(serial, pic, poc)
	})
}

// chain is the identity certificate of a node and its owner's, as the daemon gives them.
func (a *app) chain(ctx context.Context, name string) (pic, poc *x509.Certificate, err error) {
	err = a.client().send(ctx, http.MethodGet, "/identity/nodes/"+segment(name)+"/chain.pem", "", nil, func(r io.Reader) error {
		b, err := io.ReadAll(io.LimitReader(r, 64<<10))
		if err != nil {
			return err
		}
		all, err := identity.DecodeChain(b)
		if err != nil {
			return err
		}
		if len(all) != 2 {
			return fmt.Errorf("the daemon sends a chain of %d certificates; it has two", len(all))
		}
		pic, poc = all[0], all[1]
		return nil
	})
	return pic, poc, err
}
