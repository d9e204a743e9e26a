package main

import (
	"os"

	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) identRenew() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "renew",
		Short: "Have the identity of this cluster node certified anew, for the same key",
		Long: `Have the identity of this cluster node certified anew. The key stays, so packages, receipts and trust stay as they are.

The owner key makes the certificate, on whichever node it is. Where it is kept elsewhere: "keyferry ident gen-csr" on this node, have the
request signed there, and name the certificate that comes back with --identity.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := map[string]string{}
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
			return a.print(ids, func(row func(...any)) {
				row("NODE", "CERTIFICATE", "UNTIL", "SHA-256")
				for _, n := range ids.Nodes {
					row(n.Node, n.Certificate.State, n.Certificate.NotAfter.UTC().Format("2006-01-02"), n.Certificate.Fingerprint)
				}
			})
		},
	}
	c.Flags().StringVar(&file, "identity", "", "`file` with the certificate that an owner elsewhere has made of this node's request")
	return a.dataFlag(c)
}
