package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

// slotList is what the daemon knows of slots.
type slotList struct {
	Here  []node.SlotView `json:"here"`
	Slots []struct {
		Label string                  `json:"label"`
		Seats map[string]cluster.Seat `json:"seats"`
	} `json:"slots"`
}

func (a *app) slotsCommand() *cobra.Command {
	c := a.dataFlag(&cobra.Command{
		Use:   "slots",
		Short: "List slots; make, activate and change them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[slotList](c.Context(), a.client(), "/slots")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("SLOT", "NODE", "MODE", "STATE", "SINCE", "")
				for _, s := range list.Slots {
					for _, name := range slices.Sorted(maps.Keys(s.Seats)) {
						seat := s.Seats[name]
						row(s.Label, name, seat.Mode, seat.State, ago(seat.Since), seat.Reason)
					}
				}
			})
		},
	})
	c.AddCommand(a.slotCreate(), a.slotActivate(), a.slotDeactivate(), a.slotContribute(), a.slotCustody(), a.slotPrepare(), a.slotChangeCode(), a.slotMode(), a.slotRotate(), a.slotTry(), a.slotRotation())
	return c
}

// showSlot prints what became of a slot.
func (a *app) showSlot(v node.SlotView, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(row func(...any)) {
		row("Slot", v.Label)
		row("Node", v.Node)
		row("Token", v.Serial+" in module "+v.Module)
		row("Mode", v.Mode)
		row("State", string(v.State)+" "+v.Reason)
	})
}

func (a *app) slotCreate() *cobra.Command {
	var n node.NewSlot
	c := &cobra.Command{
		Use:   "create LABEL",
		Short: "Give this node a token in a slot",
		Long: `Give this node a token in a slot: a new one or, with --serial, one that is there already.

Mode generated (the default): the node makes the code, keeps it sealed, and opens the slot by itself after a restart. Nobody
can give the code away, but whoever steals the machine may get at the keys.
Mode manual: people choose the code, and it is stored nowhere. After a restart the slot stays closed until somebody enters it.

In manual mode, and with --serial, the code is asked for.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			n.Label = args[0]
			if n.Mode == cluster.Manual && n.Serial == "" {
				code, err := a.newSecret("Authentication code")
				if err != nil {
					return err
				}
				n.Code = code
			}
			if n.Serial != "" {
				code, err := a.secrets("Present code of the token")
				if err != nil {
					return err
				}
				n.Code = code[0]
			}
			return a.showSlot(post[node.SlotView](c.Context(), a.client(), "/slots", n))
		},
	}
	c.Flags().StringVar(&n.Mode, "mode", cluster.Generated, "who keeps the code: `generated or manual`")
	c.Flags().StringVar(&n.Module, "module", "", "`name` of the PKCS#11 module; the first one when empty")
	c.Flags().StringVar(&n.Serial, "serial", "", "take the token with this `number`, which is there already")
	return a.dataFlag(c)
}

func (a *app) slotActivate() *cobra.Command {
	var nodes string
	c := a.dataFlag(&cobra.Command{
		Use:   "activate LABEL",
		Short: "Open a manual slot with its code",
		Long: `Open a manual slot with its code: on this node or, with --node, on others, wherever it is closed. The code goes to
them sealed, and is tried once on each token. A slot that custodians share is opened by "keyferry slots contribute".`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			code, err := a.secrets("Authentication code")
			if err != nil {
				return err
			}
			if nodes != "" {
				return a.activate(c.Context(), activation{Codes: []codeFor{{args[0], code[0]}}, Nodes: nodeList(nodes)})
			}
			return a.showSlot(post[node.SlotView](c.Context(), a.client(), "/slots/"+segment(args[0])+"/activate", map[string][]byte{"code": code[0]}))
		},
	})
	c.Flags().StringVar(&nodes, "node", "", "`nodes` where to open it: all, or names with commas; this one when empty")
	return c
}

func (a *app) slotDeactivate() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "deactivate LABEL",
		Short: "Close a manual slot until somebody enters its code again",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.showSlot(post[node.SlotView](c.Context(), a.client(), "/slots/"+segment(args[0])+"/deactivate", struct{}{}))
		},
	})
}

func (a *app) slotChangeCode() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "change-code LABEL",
		Short: "Change the code of a manual slot (asks for the old one, then the new one)",
		Long: `Change the code of a manual slot. Open sessions of applications may break: plan a restart of those that use the slot.
The old code is tried once.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			old, err := a.secrets("Present code")
			if err != nil {
				return err
			}
			code, err := a.newSecret("New code")
			if err != nil {
				return err
			}
			return a.showSlot(post[node.SlotView](c.Context(), a.client(), "/slots/"+segment(args[0])+"/code", map[string][]byte{"old": old[0], "new": code}))
		},
	})
}

func (a *app) slotMode() *cobra.Command {
	var present bool
	c := a.dataFlag(&cobra.Command{
		Use:   "mode LABEL generated|manual",
		Short: "Switch who keeps the code of a slot",
		Long: `Switch who keeps the code of a slot. To generated mode it asks for the present code, to manual mode for the new one.

generated  the node makes the code and keeps it sealed. The slot opens by itself after a restart; "keyferry status" says what protects the code.
manual     people keep the code, and it is stored nowhere. After a restart the slot stays closed until somebody enters it.

Open sessions of applications may break, and programs that log in with the present code cannot do so any more: plan their restart.

Where another program has changed the code of a generated slot, "generated" gives the node the present code, and it makes a new one at
once; "manual" asks for the present code too.

The custodians of a shared slot are asked to agree. Where another program has changed the code of its token, they cannot open it any more:
--present-code asks for that code, and no custodian is needed.`,
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{cluster.Generated, cluster.Manual},
		RunE: func(c *cobra.Command, args []string) error {
			switch args[1] { // before anybody types a code
			case cluster.Generated, cluster.Manual:
			case cluster.Shared:
				return fmt.Errorf("a slot gets into shared mode by its custodians: \"keyferry slots custody %s --holders …\"", args[0])
			default:
				return fmt.Errorf("the mode is generated or manual, not %q", args[1])
			}
			if here, err := a.isShared(c.Context(), args[0]); err != nil {
				return err
			} else if here && !present {
				return a.leaveShared(c.Context(), args[0], args[1])
			}
			body := map[string]any{"mode": args[1]}
			if args[1] == cluster.Generated {
				old, err := a.secrets("Present code")
				if err != nil {
					return err
				}
				body["old"] = old[0]
			} else {
				refused, err := a.isRefused(c.Context(), args[0])
				if err != nil {
					return err
				}
				if refused || present { // what the node has stored is not the present code
					old, err := a.secrets("Present code")
					if err != nil {
						return err
					}
					body["old"] = old[0]
				}
				code, err := a.newSecret("New code")
				if err != nil {
					return err
				}
				body["new"] = code
			}
			return a.showSlot(post[node.SlotView](c.Context(), a.client(), "/slots/"+segment(args[0])+"/mode", body))
		},
	})
	c.Flags().BoolVar(&present, "present-code", false, "ask for the code that the token has now; needed for a shared slot whose code another program has changed")
	return c
}

func (a *app) coverageCommand() *cobra.Command {
	var gaps bool
	c := &cobra.Command{
		Use:   "coverage",
		Short: "Show which node holds which key",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]node.KeyCoverage](c.Context(), a.client(), "/coverage")
			if err != nil {
				return err
			}
			if gaps {
				list = slices.DeleteFunc(list, node.KeyCoverage.Complete)
			}
			return a.print(list, func(row func(...any)) { coverageTable(list, row) })
		},
	}
	c.Flags().BoolVar(&gaps, "gaps", false, "only keys that are not on every node")
	return a.dataFlag(c)
}

func coverageTable(list []node.KeyCoverage, row func(...any)) {
	var nodes []string
	for _, k := range list {
		for n := range k.Nodes {
			if !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
	}
	slices.Sort(nodes)
	head := []any{"SLOT", "KEY", "TYPE", "FINGERPRINT"}
	for _, n := range nodes {
		head = append(head, n)
	}
	row(head...)
	for _, k := range list {
		cells := []any{k.Slot, cmp.Or(k.Key.Label, k.Key.ID), k.Key.Type, fmt.Sprintf("%.16s", k.Key.Fingerprint)}
		for _, n := range nodes {
			cells = append(cells, k.Nodes[n])
		}
		row(cells...)
	}
}
