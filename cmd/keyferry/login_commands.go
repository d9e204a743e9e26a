package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

// What the daemon says of how somebody logs in; see webconf/apilogin.go.
type (
	sessionsOf struct {
		Sessions []node.Session `json:"sessions"`
		Silent   []string       `json:"silent"`
	}
	factorsOf struct {
		Account string `json:"account"`
		Factors []struct {
			Factor  string    `json:"factor"`
			ID      string    `json:"id"`
			Name    string    `json:"name"`
			Subject string    `json:"subject"`
			Created time.Time `json:"created"`
			Ends    time.Time `json:"ends"`
		} `json:"factors"`
		Locks []cluster.Lock `json:"locks"`
	}
)

func (a *app) personSessions() *cobra.Command {
	var id, on string
	var all bool
	c := a.dataFlag(&cobra.Command{
		Use:   "sessions NAME [--end ID --node NODE | --end-all]",
		Short: "List where a person is logged in; end one session, or all",
		Long: `List where a person is logged in, on all nodes that answer. --end-all ends all sessions of the person on every
node; on one that is away, as soon as it is back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/people/" + segment(args[0]) + "/sessions"
			switch {
			case all && id != "":
				return errors.New("--end and --end-all exclude each other")
			case (id == "") != (on == ""):
				return errors.New("--end and --node go together: they name one session as the list does")
			case all || id != "":
				return a.client().do(c.Context(), http.MethodPost, path+"/end", map[string]string{"id": id, "node": on}, nil)
			}
			r, err := get[sessionsOf](c.Context(), a.client(), path)
			if err != nil {
				return err
			}
			for _, node := range r.Silent {
				fmt.Fprintf(a.err, "%s does not answer: its sessions are not in the list\n", node)
			}
			return a.print(r, func(row func(...any)) {
				row("NODE", "ID", "BROWSER", "ADDRESS", "BY", "LOGGED IN", "LAST SEEN")
				for _, s := range r.Sessions {
					row(s.Node, s.ID, s.Browser, s.Address, s.Method, ago(s.Began), ago(s.Seen))
				}
			})
		},
	})
	c.Flags().StringVar(&id, "end", "", "end the session with this `id`")
	c.Flags().StringVar(&on, "node", "", "the `node` of the session to end")
	c.Flags().BoolVar(&all, "end-all", false, "end all sessions of the person, on every node")
	return c
}

func (a *app) personUnlock() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock NAME",
		Short: "Let a person try passwords again after too many wrong ones",
		Long: `Let a person try passwords again. After ten wrong ones in a row a node takes none for an hour; this lifts it on every
node. Ask the person first: if the tries were not theirs, somebody is guessing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.client().do(c.Context(), http.MethodPost, "/people/"+segment(args[0])+"/unlock", nil, nil)
		},
	}
}

func (a *app) personCertificate() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "certificate NAME FILE [--name TEXT]",
		Short: "Let a person log in with a TLS client certificate",
		Long: `Let a person log in with exactly this TLS client certificate, whoever issued it. FILE is PEM or DER, without the
private key.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[1])
			if err != nil {
				return err
			}
			defer f.Close()
			b, err := io.ReadAll(io.LimitReader(f, node.MaxCertificate+1))
			if err != nil {
				return err
			}
			if _, err := node.ReadCertificate(b); err != nil { // a private key by mistake goes nowhere
				return err
			}
			return a.client().do(c.Context(), http.MethodPost, "/people/"+segment(args[0])+"/factors/certificate", map[string]any{"name": name, "certificate": b}, nil)
		},
	}
	c.Flags().StringVar(&name, "name", "", "what the certificate is called in lists; its subject when empty")
	return c
}

func (a *app) personFactors() *cobra.Command {
	var factor, id string
	c := a.dataFlag(&cobra.Command{
		Use:   "factors NAME [--remove totp|passkey|certificate [--id ID]]",
		Short: "List how a person logs in; remove a way for a person who has lost it",
		Long: `List how a person logs in besides the password. --remove takes a way away, for a person who has lost the device;
without one-time passwords, the password alone logs in.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/people/" + segment(args[0]) + "/factors"
			if id != "" && factor == "" {
				return errors.New("--id goes with --remove")
			}
			if factor != "" {
				return a.client().do(c.Context(), http.MethodPost, path+"/remove", map[string]string{"factor": factor, "id": id}, nil)
			}
			r, err := get[factorsOf](c.Context(), a.client(), path)
			if err != nil {
				return err
			}
			for _, l := range r.Locks {
				fmt.Fprintf(a.err, "%s takes no password of %s before %s, after %d wrong ones\n", l.Node, r.Account, l.Until.UTC().Format("15:04:05 UTC"), l.Tries)
			}
			return a.print(r, func(row func(...any)) {
				row("FACTOR", "NAME", "SINCE", "ENDS", "ID")
				for _, f := range r.Factors {
					ends := "-"
					if !f.Ends.IsZero() {
						ends = f.Ends.UTC().Format(time.DateOnly)
					}
					row(f.Factor, orDash(f.Name), ago(f.Created), ends, orDash(f.ID))
				}
			})
		},
	})
	c.Flags().StringVar(&factor, "remove", "", "take away a `factor`: totp, passkey or certificate")
	c.Flags().StringVar(&id, "id", "", "which one, where there are several")
	return c
}
