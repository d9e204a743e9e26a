package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) initCommand() *cobra.Command {
	var name string
	var under certifiedFlags
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this node the first of a new cluster",
		Long: `Make this node the first of a new cluster: its HSM gets the owner key of the cluster and the identity key of the
node. With --owner and --identity the owner key is elsewhere, and these are the certificates that it made for the
request of "keyferry ident gen-csr"; each node that joins brings its own. Prints the one-time code with which the first administrator makes an account in WebConf, and the
fingerprint that the browser should show. It can be repeated after an interruption.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := map[string]string{"name": name}
			if err := under.read(q); err != nil {
				return err
			}
			f, err := post[node.Founded](c.Context(), a.client(), "/cluster/init", q)
			if err != nil {
				return err
			}
			return a.print(f, func(row func(...any)) {
				row("Cluster", f.Cluster)
				row("WebConf", f.WebURL)
				row("TLS fingerprint", f.Fingerprint)
				row("One-time code", f.Code)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "keyferry", "`name` of the cluster, for people")
	under.add(c)
	return a.dataFlag(c)
}

func (a *app) firstCodeCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "first-code",
		Short: "Print a new one-time code for the first start",
		Long: `Print a one-time code and the fingerprint of the certificate that a browser shows for this node's WebConf. On a
node that belongs to no cluster, the code lets a browser make a new cluster or join one. On a node whose cluster
has no account yet, the first administrator is made with it. It is good for 24 hours and replaces the one before.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			type firstCode struct {
				Code        string `json:"code"`
				Fingerprint string `json:"fingerprint"`
				WebConf     string `json:"webconf"`
				For         string `json:"for"`
			}
			f, err := post[firstCode](c.Context(), a.client(), "/first-code", struct{}{})
			if err != nil {
				return err
			}
			return a.print(f, func(row func(...any)) {
				row("WebConf", f.WebConf)
				row("TLS fingerprint", f.Fingerprint)
				row("One-time code", f.Code)
				if f.For == "node" {
					row("Good for", "making this node a member of a cluster, in a browser")
				} else {
					row("Good for", "making the first administrator, in a browser")
				}
			})
		},
	})
}

// A membership is what a node says after it has joined.
type membership struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	WebConf string `json:"webconf"`
}

// certifiedFlags name the certificates of a node whose owner key is elsewhere.
type certifiedFlags struct{ owner, identity string }

func (f *certifiedFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.owner, "owner", "", "`file` with the certificate of an owner whose key is elsewhere (PEM)")
	c.Flags().StringVar(&f.identity, "identity", "", "`file` with the certificate that this owner made for the node (PEM)")
	c.MarkFlagsRequiredTogether("owner", "identity")
}

// read puts the certificates, where there are any, into what the daemon is sent.
func (f *certifiedFlags) read(q map[string]string) error {
	for field, file := range map[string]string{"owner": f.owner, "identity": f.identity} {
		if file == "" {
			continue
		}
		b, err := readSmall(file)
		if err != nil {
			return err
		}
		q[field] = string(b)
	}
	return nil
}

func (a *app) joinCommand() *cobra.Command {
	var address, fingerprint string
	var under certifiedFlags
	c := &cobra.Command{
		Use:   "join --address HOST:PORT --fingerprint SHA256",
		Short: "Make this new node a member of a cluster",
		Long: `Make this new node a member of a cluster. On a node of the cluster, "keyferry cluster invite" prints the address, the
fingerprint to compare, and the one-time code, which this command asks for. Where the owner key of the cluster is not on
one of its nodes, --owner and --identity are the certificates that it made for the request of "keyferry ident gen-csr".`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := map[string]string{"address": address, "fingerprint": fingerprint}
			if err := under.read(q); err != nil {
				return err
			}
			code, err := a.secrets("One-time code")
			if err != nil {
				return err
			}
			q["code"] = string(code[0])
			m, err := post[membership](c.Context(), a.client(), "/cluster/join", q)
			if err != nil {
				return err
			}
			return a.print(m, func(row func(...any)) {
				row("Cluster", m.Cluster)
				row("Node", m.Node)
				row("WebConf", m.WebConf)
			})
		},
	}
	c.Flags().StringVar(&address, "address", "", "`host:port` of a node of the cluster, as its invitation says")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "`SHA-256` of that node's TLS certificate, compared with what its administrator sees")
	c.MarkFlagRequired("address")
	c.MarkFlagRequired("fingerprint")
	under.add(c)
	return a.dataFlag(c)
}

func (a *app) hsmCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "hsm",
		Short: "Show this node's PKCS#11 modules and tokens",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			modules, err := get[[]node.ModuleView](c.Context(), a.client(), "/hsm")
			if err != nil {
				return err
			}
			return a.print(modules, func(row func(...any)) {
				for _, m := range modules {
					row("MODULE", m.Name, m.Info.Description+" "+m.Info.Version, cmp.Or(m.Problem, "runs"))
					for _, t := range m.Tokens {
						row("  token", orDash(t.Serial), orDash(t.Label), strings.TrimSpace(t.Use+" "+t.Problem))
					}
					for _, b := range m.Abilities {
						row("  can", b.Name, map[bool]string{true: "yes", false: "no: " + b.Note}[b.OK], "")
					}
				}
			})
		},
	})
}

func (a *app) clusterCommand() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "Invite nodes into the cluster, weigh and remove them; change what all nodes have in common"}
	var hours int
	invite := &cobra.Command{
		Use:   "invite [NODE]",
		Short: "Make a one-time code that lets one new node in",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			q := map[string]any{"hours": hours, "node": ""}
			if len(args) == 1 {
				q["node"] = args[0]
			}
			i, err := post[struct {
				node.Invitation
				Waits string `json:"waits,omitempty"`
			}](c.Context(), a.client(), "/cluster/invitations", q)
			if err != nil {
				return err
			}
			err = a.print(i, func(row func(...any)) {
				row("On the new node run", i.Command())
				if i.Certified {
					row("Before that", "keyferry ident gen-csr on it, and the owner's signature: no node with the owner key answers")
				}
				row("One-time code", i.Code)
				until := "until " + i.Expires.UTC().Format(time.RFC3339)
				if i.Waits != "" {
					until = fmt.Sprintf("for %s once it is approved", time.Duration(i.Seconds)*time.Second)
				}
				row("Good for", cmp.Or(i.Node, "any name")+", "+until)
			})
			if err == nil && i.Waits != "" { // not done yet, so no success
				return errors.New(i.Waits)
			}
			return err
		},
	}
	invite.Flags().IntVar(&hours, "hours", 1, "how many `hours` the code is good")
	c.AddCommand(a.dataFlag(invite), a.clusterLosses(), a.clusterRemove(), a.clusterStolen(), a.clusterSettings(), a.clusterSet())
	return c
}

func (a *app) clusterLosses() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "losses NODE",
		Short: "Say what goes with a node that is removed or lost",
		Long: `Say what goes with a node that is removed, or whose HSM is lost: the keys that no other node has, the tokens whose code custodians
share, the applications that run only there. It is what the node has reported last. To replace a node that is broken for good, remove it, invite a new one
under the same name, make its slots, and synchronize the keys.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			l, err := get[node.Losses](c.Context(), a.client(), "/cluster/nodes/"+segment(args[0])+"/losses")
			if err != nil {
				return err
			}
			if !l.Member {
				return fmt.Errorf("there is no node %q in this cluster", l.Node)
			}
			return a.print(l, func(row func(...any)) {
				row("SLOT", "KEYS", "ONLY THERE", "OTHER NODES", "CODE")
				for _, s := range l.Slots {
					code := "of its own"
					if s.Shared {
						code = "shared by custodians, given up with the node"
					}
					row(s.Slot, s.Keys, s.Alone, cmp.Or(strings.Join(s.Others, ", "), "none"), code)
				}
				if l.Owner {
					row("No other node that answers has the owner key: without it no node can be let in.")
				}
				if len(l.Apps) > 0 {
					row("Applications only there: " + strings.Join(l.Apps, ", "))
				}
			})
		},
	})
}

func (a *app) clusterRemove() *cobra.Command {
	var giveUp, stolen, yes bool
	c := &cobra.Command{
		Use:   "remove NODE",
		Short: "Take another node out of the cluster",
		Long: `Take another node out of the cluster. It gets no packages and no news any more, the people on it can change nothing, and its
vote, its tokens in slots and the trust in it are gone from the cluster. Its HSM is not touched: keys that are on it alone are on it
alone from then on. To have it back, stop its daemon, clear its data directory, delete its
admin token, and let it join like a new node. Without the node that holds the owner key no node can be let in any more.

A node with tokens whose code custodians share is not removed: let them leave shared mode there first. With --give-up it is removed all the
same. Nobody can open those tokens ever again then, and the keys in them are lost.

With --stolen it is in strange hands: its identity keys and tokens are never let in again, packages from it and for it and all open invitations are
withdrawn, and "keyferry cluster stolen" lists the keys that it held until they are dealt with. This cannot be taken back.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/cluster/nodes/" + segment(args[0])
			switch {
			case stolen:
				if err := a.confirm(yes, fmt.Sprintf("%s is declared stolen, and never let in again.", args[0])); err != nil {
					return err
				}
				path += "?stolen=true"
			case giveUp:
				path += "?give_up=true"
			}
			return a.client().do(c.Context(), http.MethodDelete, path, nil, nil)
		},
	}
	c.Flags().BoolVar(&giveUp, "give-up", false, "also where custodians share codes of its tokens: the keys in them are lost")
	c.Flags().BoolVar(&stolen, "stolen", false, "it is in strange hands")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask before it is declared stolen")
	return c
}

func (a *app) clusterStolen() *cobra.Command {
	var settle, key string
	c := a.dataFlag(&cobra.Command{
		Use:   "stolen",
		Short: "List the keys that stolen nodes hold, and say which are dealt with",
		Long: `List the keys that stolen nodes hold, until they are dealt with: replaced, revoked, or of no use any more. A node is declared stolen by
"keyferry cluster remove NODE --stolen". --settle RECORD says that all its keys are dealt with, with --key NAME only that one; both are in the list.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case settle == "" && key != "":
				return errors.New("--key names one key of a stolen node: say which node with --settle RECORD")
			case settle != "":
				return a.client().do(c.Context(), http.MethodPost, "/cluster/stolen", map[string]string{"record": settle, "key": key}, nil)
			}
			list, err := get[[]node.Theft](c.Context(), a.client(), "/cluster/stolen")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("NODE", "STOLEN", "SLOT", "KEY", "TYPE", "ALSO ON", "DEALT WITH", "NAME", "RECORD")
				for _, t := range list {
					for _, k := range t.Held {
						dealt := "no"
						if !k.Dealt.IsZero() {
							dealt = ago(k.Dealt)
						}
						row(t.Node, ago(t.Since), k.Slot, cmp.Or(k.Key.Label, k.Key.ID), k.Key.Type, cmp.Or(strings.Join(k.Others, ","), "nowhere"), dealt, k.Name, t.Record)
					}
				}
			})
		},
	})
	c.Flags().StringVar(&settle, "settle", "", "`record` of the stolen node whose keys are dealt with")
	c.Flags().StringVar(&key, "key", "", "`name` of the one key that is")
	return c
}

func (a *app) jobsCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "jobs",
		Short: "List packages being made and imported, and those that were",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			jobs, err := get[[]node.Job](c.Context(), a.client(), "/jobs")
			if err != nil {
				return err
			}
			return a.print(jobs, func(row func(...any)) {
				row("JOB", "KIND", "OBJECT", "STATE", "KEYS", "BEGAN", "")
				for _, j := range jobs {
					row(j.ID, j.Kind, j.Object, j.State, fmt.Sprintf("%d/%d", j.Done, j.Total), ago(j.Began), j.Error)
				}
			})
		},
	})
}
