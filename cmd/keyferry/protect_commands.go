package main

import (
	"errors"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) protectCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "protect file|passphrase|tpm",
		Short: "Choose what protects the codes that this node keeps",
		Long: `Choose what protects the node key, which seals the codes of generated slots, of the admin token, and the key for TLS.

file        the key lies in a file (the default). Nobody is needed after a restart; whoever has the disk has the codes.
passphrase  the key opens with a passphrase, which this command asks for. After each start the node waits, closed as a whole, for
            "keyferry unseal", or reads the file that [seal] passphrase_file names.
tpm         the TPM 2.0 that [seal] tpm names seals the key. Nobody is needed after a restart, and a disk alone gives nothing away. If
            the TPM is cleared or replaced, the stored codes are lost.

The key itself stays, so nothing else changes, and the switch is safe against a crash at any moment. Older copies of the data
directory keep what they had. "passphrase" again gives another passphrase.`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{cluster.ByFile, cluster.ByPassphrase, cluster.ByTPM},
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{"by": args[0]}
			if args[0] == cluster.ByPassphrase {
				passphrase, err := a.newSecret("New passphrase of the node key")
				if err != nil {
					return err
				}
				body["passphrase"] = passphrase
			}
			return a.showSealing(post[node.Sealing](c.Context(), a.client(), "/protection", body))
		},
	})
}

func (a *app) unsealCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "unseal",
		Short: "Open the node key of this node after a start",
		Long: `Open the node key of this node after a start, with its passphrase, from the terminal or standard input. Then the node takes up its part in
the cluster and opens its generated slots. Where a TPM protects the key it is asked again, and no passphrase is needed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := get[status](c.Context(), a.client(), "/status")
			if err != nil {
				return err
			}
			if s.Sealing.Sealed == "" {
				return errors.New("this node is not sealed")
			}
			body := map[string][]byte{}
			if s.Sealing.Protector != cluster.ByTPM {
				secret, err := a.secrets("Passphrase of the node key")
				if err != nil {
					return err
				}
				body["passphrase"] = secret[0]
			}
			return a.showSealing(post[node.Sealing](c.Context(), a.client(), "/unseal", body))
		},
	})
}

// showSealing prints what protects the node key.
func (a *app) showSealing(s node.Sealing, err error) error {
	if err != nil {
		return err
	}
	return a.print(s, func(row func(...any)) {
		row("Stored codes", "sealed by "+s.Where)
		row("", s.Risk)
	})
}
