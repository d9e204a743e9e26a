package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) forecastCommand() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "forecast",
		Short: "Tell what happens if a node restarts now",
		Long: `Tell what happens if a node restarts now: which slots stay closed and who must come, and which applications stop. Every node can tell
it of every other, by what they report.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]node.Forecast](c.Context(), a.client(), "/forecast?node="+url.QueryEscape(name))
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				for _, f := range list {
					row(f.Node, f.Sentence)
					for _, more := range []string{f.Waits, f.Quorum, f.Doubt} {
						if more != "" {
							row("", more)
						}
					}
					for _, s := range f.Slots {
						row("  slot "+s.Slot, map[bool]string{true: "opens by itself", false: "stays closed: " + s.Why}[s.Opens])
					}
					for _, s := range f.Apps {
						row("  application "+s.App, map[bool]string{true: "stops: " + s.Why, false: "comes back"}[s.Stops])
					}
				}
			})
		},
	}
	c.Flags().StringVar(&name, "node", "", "only this `node`")
	return a.dataFlag(c)
}

func (a *app) custodyCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "custody",
		Short: "Show who holds which code, how old it is, and when it last opened its slot",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]node.HeldCode](c.Context(), a.client(), "/custody")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("SLOT", "NODE", "MODE", "HELD BY", "CODE SET", "REPLACED", "LAST ACTIVATED", "")
				for _, s := range list {
					row(s.Slot, s.Node, s.Mode, heldBy(s), ago(s.CodeSince), rotates(s), ago(s.Opened)+" "+s.OpenedBy, map[bool]string{true: "the token refuses the stored code"}[s.CodeRefused])
				}
			})
		},
	})
}

func heldBy(s node.HeldCode) string {
	switch {
	case s.Mode == cluster.Generated:
		return "the node, protected by " + orDash(s.Protector)
	case s.Threshold > 0:
		return fmt.Sprintf("%d of %s", s.Threshold, strings.Join(s.Holders, ","))
	}
	return "people"
}

func rotates(s node.HeldCode) string {
	switch {
	case !s.Due.IsZero():
	case s.Mode == cluster.Generated:
		return "on demand"
	default:
		return "by people"
	}
	return fmt.Sprintf("every %d days, next %s", s.Rotate, s.Due.UTC().Format("2006-01-02"))
}
