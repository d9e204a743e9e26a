package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

// activation is the body of a request to open slots on many nodes.
type activation struct {
	Codes      []codeFor `json:"codes,omitempty"`
	Nodes      []string  `json:"nodes,omitempty"`
	Account    string    `json:"account,omitempty"`
	Passphrase []byte    `json:"passphrase,omitempty"`
	Requests   []string  `json:"requests,omitempty"`
}

type codeFor struct {
	Slot string `json:"slot"`
	Code []byte `json:"code"`
}

// activate has the daemon open slots, waits for the end, and shows what became of each.
func (a *app) activate(ctx context.Context, q activation) error {
	c := a.client()
	job, err := post[node.Job](ctx, c, "/activate", q)
	for err == nil && job.State == node.JobRunning {
		job, err = get[node.Job](ctx, c, "/jobs/"+segment(job.ID)+"?wait=30")
	}
	if err != nil {
		return err
	}
	err = a.print(job.Openings, func(row func(...any)) {
		row("SLOT", "NODE", "RESULT", "")
		for _, o := range job.Openings {
			row(o.Slot, o.Node, o.Result, o.Detail)
		}
	})
	if err == nil && job.State != node.JobDone {
		err = errors.New(job.Error)
	}
	return err
}

// nodeList reads the value of --node: names, or "all".
func nodeList(s string) []string {
	if s == "all" {
		return nil
	}
	return strings.Split(s, ",")
}

func (a *app) slotContribute() *cobra.Command {
	var as, nodes string
	var agree []string
	c := a.dataFlag(&cobra.Command{
		Use:   "contribute --as ACCOUNT",
		Short: "Give your shares of shared slots to the nodes that need them",
		Long: `Give the shares that ACCOUNT holds to every node that needs them: to open slots, and to give tokens a new
code. It asks for the custodian passphrase, which proves who you are. Once enough custodians have come within 15
minutes, at any nodes, the slots open.

Changes that somebody asked for are made only with --agree and their ids, which "keyferry custodians needs" shows.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if as == "" {
				return errors.New("say with --as which account you are: a custodian is one person")
			}
			s, err := a.secrets("Custodian passphrase")
			if err != nil {
				return err
			}
			return a.activate(c.Context(), activation{Account: as, Passphrase: s[0], Nodes: nodeList(nodes), Requests: agree})
		},
	})
	c.Flags().StringVar(&as, "as", "", "`account` of the custodian")
	c.Flags().StringVar(&nodes, "node", "all", "`nodes` to give them to: all, or names with commas")
	c.Flags().StringSliceVar(&agree, "agree", nil, "`ids` of changes to agree to")
	return c
}

// custodyAnswer is what the daemon says of a slot's custodians.
type custodyAnswer struct {
	Slot       string   `json:"slot"`
	Generation int      `json:"generation"`
	Threshold  int      `json:"threshold"`
	Holders    []string `json:"holders"`
	Live       int      `json:"live"`
	Due        []string `json:"due"`
	Request    string   `json:"request,omitempty"`
}

func (a *app) showCustody(v custodyAnswer, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(row func(...any)) {
		row("Slot", v.Slot)
		if v.Generation == 0 {
			row("Custodians", "none")
			return
		}
		row("Custodians", fmt.Sprintf("%d of %s", v.Threshold, strings.Join(v.Holders, ", ")))
		row("Can come", fmt.Sprintf("%d", v.Live))
		row("Generation", v.Generation)
		row("Not taken yet by", cmp.Or(strings.Join(v.Due, ", "), "nobody"))
		if v.Request != "" {
			row("Asked for", v.Request)
		}
	})
}

func (a *app) slotCustody() *cobra.Command {
	var threshold int
	var holders, nodes []string
	var replace, withdraw bool
	c := a.dataFlag(&cobra.Command{
		Use:   "custody LABEL",
		Short: "Show or set who holds shares of the code of a slot",
		Long: `Show who holds shares of the code of a slot or, with --holders, set them: any --threshold of them together open
the slot, and none alone. A new code is made and split. Each token takes it once enough custodians have run
"keyferry slots contribute" or have come to the activation page. For a slot in manual mode the present code is
needed once more on each node: "keyferry slots prepare LABEL".

With --replace the code stays, and the present custodians are asked to let these take their place.
With --withdraw a split is taken back that no token has taken its code from.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path := "/slots/" + segment(args[0]) + "/custody"
			switch {
			case withdraw:
				return a.showCustody(post[custodyAnswer](c.Context(), a.client(), path+"/withdraw", struct{}{}))
			case len(holders) == 0:
				return a.showCustody(get[custodyAnswer](c.Context(), a.client(), path))
			}
			body := map[string]any{"threshold": threshold, "holders": holders, "nodes": nodes, "replace": replace}
			return a.showCustody(post[custodyAnswer](c.Context(), a.client(), path, body))
		},
	})
	c.Flags().IntVar(&threshold, "threshold", 2, "how `many` of them are needed together")
	c.Flags().StringSliceVar(&holders, "holders", nil, "`accounts` that get a share, with commas")
	c.Flags().StringSliceVar(&nodes, "node", nil, "only these `nodes` take the new code; all that have the slot when empty")
	c.Flags().BoolVar(&replace, "replace", false, "keep the code, and ask the present custodians to hand on")
	c.Flags().BoolVar(&withdraw, "withdraw", false, "take back custodians whose code no token has yet")
	return c
}

func (a *app) slotPrepare() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "prepare LABEL",
		Short: "Keep the present code of a manual slot for an hour, for its custodians to replace it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.secrets("Present code")
			if err != nil {
				return err
			}
			return a.showCustody(post[custodyAnswer](c.Context(), a.client(), "/slots/"+segment(args[0])+"/prepare", map[string][]byte{"code": s[0]}))
		},
	})
}

// leaveShared asks the custodians of a slot to let it have a code of its own again.
func (a *app) leaveShared(ctx context.Context, label, mode string) error {
	body := map[string]any{"mode": mode}
	if mode == cluster.Manual {
		code, err := a.newSecret("New code")
		if err != nil {
			return err
		}
		body["new"] = code
	}
	return a.showCustody(post[custodyAnswer](ctx, a.client(), "/slots/"+segment(label)+"/custody/leave", body))
}

// custodiansCommand is the people who can hold shares.
func (a *app) custodiansCommand() *cobra.Command {
	type custodian struct {
		Account string   `json:"account"`
		Created string   `json:"created"`
		Changed string   `json:"changed"`
		Slots   []string `json:"slots"`
	}
	c := a.dataFlag(&cobra.Command{
		Use:   "custodians",
		Short: "List who can hold shares of codes; set a custodian passphrase",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]custodian](c.Context(), a.client(), "/custodians")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("ACCOUNT", "SINCE", "PASSPHRASE SET", "SLOTS")
				for _, k := range list {
					row(k.Account, k.Created, k.Changed, strings.Join(k.Slots, ", "))
				}
			})
		},
	})
	c.AddCommand(a.custodianSetup(), a.custodianChange(), a.custodianNeeds())
	return c
}

func (a *app) custodianSetup() *cobra.Command {
	var replace bool
	c := a.dataFlag(&cobra.Command{
		Use:   "setup ACCOUNT",
		Short: "Make an account a custodian (asks for its password and the new custodian passphrase)",
		Long: `Make an account a custodian, with a passphrase that opens its shares. The password of the account proves who you
are. Nobody can reset the passphrase: with --replace a new key is made, and all shares of the account are given up.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			password, err := a.secrets("Password of " + args[0])
			if err != nil {
				return err
			}
			code, err := a.newSecret("New custodian passphrase")
			if err != nil {
				return err
			}
			return a.setPassphrase(c.Context(), args[0], map[string]any{"password": password[0], "new": code, "replace": replace})
		},
	})
	c.Flags().BoolVar(&replace, "replace", false, "give up the present key, with all shares")
	return c
}

func (a *app) custodianChange() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "change ACCOUNT",
		Short: "Change a custodian passphrase (asks for the old one, then the new one)",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			old, err := a.secrets("Present custodian passphrase")
			if err != nil {
				return err
			}
			code, err := a.newSecret("New custodian passphrase")
			if err != nil {
				return err
			}
			return a.setPassphrase(c.Context(), args[0], map[string]any{"old": old[0], "new": code})
		},
	})
}

func (a *app) setPassphrase(ctx context.Context, account string, body map[string]any) error {
	var answer map[string]string
	if err := a.client().do(ctx, http.MethodPut, "/custodians/"+segment(account), body, &answer); err != nil {
		return err
	}
	return a.print(answer, func(row func(...any)) { row("Custodian", answer["account"]) })
}

func (a *app) custodianNeeds() *cobra.Command {
	type need struct {
		Node string `json:"node"`
		node.ShareNeed
	}
	return a.dataFlag(&cobra.Command{
		Use:   "needs",
		Short: "Show what nodes wait for from custodians, and how many have come",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]need](c.Context(), a.client(), "/custodians/needs")
			if err != nil {
				return err
			}
			slices.SortStableFunc(list, func(a, b need) int { return cmp.Compare(a.Slot, b.Slot) })
			return a.print(list, func(row func(...any)) {
				row("SLOT", "NODE", "FOR", "CAME", "ID", "")
				for _, n := range list {
					row(n.Slot, n.Node, n.Purpose, strconv.Itoa(n.Have)+" of "+strconv.Itoa(n.Threshold), n.Request, n.Detail)
				}
			})
		},
	})
}

// isShared tells whether custodians hold the code of this node's token in a slot.
func (a *app) isShared(ctx context.Context, label string) (bool, error) {
	list, err := get[slotList](ctx, a.client(), "/slots")
	return slices.ContainsFunc(list.Here, func(s node.SlotView) bool { return s.Label == label && s.Mode == cluster.Shared }), err
}
