package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) slotRotate() *cobra.Command {
	return a.forGenerated("rotate", "Replace the generated code of a slot on this node by another one",
		`Replace the generated code of a slot on this node by another one. Nobody sees either of them. Applications that get the code from
Keyferry get the new one; open sessions of others may break with some modules. "slots rotation" does it on a schedule.`)
}

func (a *app) slotTry() *cobra.Command {
	return a.forGenerated("try", "Check that a token takes the code that this node has stored for it",
		`Check that a token takes the code that this node has stored for it: one log in, as after a restart. When another program has changed
the code, that is found out now and not by the next restart. The node does this by itself once a day. A code that was refused is not tried
again; "slots mode LABEL generated" then gives the node the present code, to be replaced by a new one.`)
}

// isRefused tells whether the token of a slot of this node refuses the stored code.
func (a *app) isRefused(ctx context.Context, label string) (bool, error) {
	list, err := get[slotList](ctx, a.client(), "/slots")
	return slices.ContainsFunc(list.Here, func(v node.SlotView) bool { return v.Label == label && v.CodeRefused }), err
}

// forGenerated is a command about one generated slot of this node, or all of them.
func (a *app) forGenerated(verb, short, long string) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   verb + " [LABEL]",
		Short: short,
		Long:  long,
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return errors.New("name one slot, or say --all for every generated slot of this node")
			}
			one := func(label string) (node.SlotView, error) {
				return post[node.SlotView](c.Context(), a.client(), "/slots/"+segment(label)+"/"+verb, struct{}{})
			}
			if !all {
				return a.showSlot(one(args[0]))
			}
			list, err := get[slotList](c.Context(), a.client(), "/slots")
			if err != nil {
				return err
			}
			done := []node.SlotView{}
			var failed []error
			for _, v := range list.Here {
				if v.Mode != cluster.Generated {
					continue
				}
				if v, err = one(v.Label); err != nil {
					failed = append(failed, err)
					continue
				}
				done = append(done, v)
			}
			failed = append(failed, a.print(done, func(row func(...any)) {
				row("SLOT", "STATE", "CODE SET")
				for _, v := range done {
					row(v.Label, v.State, ago(v.CodeSince))
				}
			}))
			return errors.Join(failed...)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every generated slot of this node")
	return a.dataFlag(c)
}

func (a *app) slotRotation() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use:   "rotation LABEL --days N",
		Short: "Have every node replace its generated codes of a slot by itself",
		Long: `Have every node replace its generated codes of a slot by itself, at least every N days; 0 is never. The nodes do not do it
all at once, and not while a package is made or imported.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			type rotation struct {
				Slot        string `json:"slot"`
				RotateEvery int    `json:"rotate_every"`
			}
			r, err := post[rotation](c.Context(), a.client(), "/slots/"+segment(args[0])+"/rotation", map[string]int{"days": days})
			if err != nil {
				return err
			}
			return a.print(r, func(row func(...any)) {
				row("Slot", r.Slot)
				row("New codes", map[bool]string{true: "never by schedule", false: fmt.Sprintf("every %d days", r.RotateEvery)}[r.RotateEvery == 0])
			})
		},
	}
	c.Flags().IntVar(&days, "days", 0, "the longest life of a code, in `days`; 0: no limit")
	c.MarkFlagRequired("days")
	return a.dataFlag(c)
}
