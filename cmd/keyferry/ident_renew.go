package main

import (
	"os"

	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) identRenew(f *identFlags) *cobra.Command {
	var file string
	var newKey bool
	c := &cobra.Command{
		Use:   "renew",
		Short: "Have the identity of this cluster node certified anew, for the same key or a new one",
		Long: `Have the identity of this cluster node certified anew. The key stays, so packages, receipts and trust stay as they are.
With --new-key the node gets another identity key. What the old one has signed stays good; the old key is destroyed at the end.

The owner key makes the certificate, on whichever node it is. Where it is kept elsewhere: "keyferry ident gen-csr" on this node, with
--new-key if it is for a new key, have the request signed there, and name the certificate that comes back with --identity.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := map[string]any{}
			if newKey {
				if err := a.confirm(f.yes, "This node gets another identity key, and the present one is destroyed."); err != nil {
					return err
				}
				q["new_key"] = true
			}
			if file != "" {
				b, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				q["identity"] = string(b)
			}
			ids, err := post[node.Identities](c.Context(), a.client(), "/identity/renew", q)
			if err != nil {
				return err
			}
			return a.printIdentities(ids)
		},
	}
	c.Flags().StringVar(&file, "identity", "", "`file` with the certificate that an owner elsewhere has made of this node's request")
	c.Flags().BoolVar(&newKey, "new-key", false, "give the node another identity key")
	return a.dataFlag(c)
}

func (a *app) printIdentities(ids node.Identities) error {
	return a.print(ids, func(row func(...any)) {
		row("NODE", "CERTIFICATE", "UNTIL", "SHA-256")
		for _, n := range ids.Nodes {
			row(n.Node, n.Certificate.State, n.Certificate.NotAfter.UTC().Format("2006-01-02"), n.Certificate.Fingerprint)
		}
	})
}

func (a *app) identReplaceOwner(f *identFlags) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "replace-owner",
		Short: "Put the running cluster under another owner key",
		Long: `Put the running cluster under another owner key: one that is made on this node, or with --owner one that is elsewhere.

Each node gets a certificate of the next owner for the key that it has. Where the next owner key is on a node, that goes by itself. Where it is
elsewhere, do on each node: "keyferry ident gen-csr", have the request signed, "keyferry ident renew --identity FILE". Both owners are believed
until the last node is certified; until then no node is let in and no identity replaced. It cannot be called off, but begin again with another owner; a node that is gone for good
is removed from the cluster. The old owner key is destroyed where it is on a node. Hand out owner.pem anew.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := map[string]string{}
			if file != "" {
				b, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				q["owner"] = string(b)
			}
			if err := a.confirm(f.yes, "The cluster is put under another owner key, and all nodes are certified anew. This cannot be called off."); err != nil {
				return err
			}
			ids, err := post[node.Identities](c.Context(), a.client(), "/identity/owner", q)
			if err != nil {
				return err
			}
			return a.printIdentities(ids)
		},
	}
	c.Flags().StringVar(&file, "owner", "", "`file` with the certificate of an owner whose key is elsewhere")
	return a.dataFlag(c)
}
