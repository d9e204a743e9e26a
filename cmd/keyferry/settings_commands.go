package main

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) clusterSettings() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "settings",
		Short: "Show the settings that all nodes have in common, and who changes them now",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.showSettings(get[node.SettingsView](c.Context(), a.client(), "/cluster/settings"))
		},
	})
}

func (a *app) showSettings(v node.SettingsView, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(row func(...any)) {
		row("SETTING", "VALUE", "COMES FROM")
		for _, s := range v.Settings {
			row(s.Key, orDash(strings.TrimSpace(s.Value+" "+s.Unit)), s.Source)
		}
		if v.By != "" {
			row("Changed", v.Changed.UTC().Format(time.RFC3339), "by "+v.By)
		}
		if l := v.Lease; l != nil {
			row("Being changed", "until "+l.Until.UTC().Format(time.RFC3339), fmt.Sprintf("by %s on %s", l.Holder, l.Node))
		}
	})
}

func (a *app) clusterSet() *cobra.Command {
	var over bool
	c := &cobra.Command{
		Use:   "set KEY VALUE [KEY VALUE]...",
		Short: "Change settings that all nodes have in common",
		Long: `Change settings that all nodes have in common; those that are not named stay. An empty VALUE ("") takes a setting back.

  clock_limit   how far clocks may be apart before nothing is certified: 1s to 5m, or a number of seconds
  session_idle  after which time without a click a session of WebConf ends: 1m to 8h, or a number of minutes
  package_life  for how long a package can be imported: 1h to 2160h, or a number of hours
  notice        a line that everybody reads before they log in

One person changes settings at a time. While somebody else does, in WebConf or at the console of another node, nothing is
changed, and the message says who it is. With --take-over their turn ends, and what they have not saved cannot be saved
any more; they are told so, and the audit log has it.`,
		Example: "  keyferry cluster set clock_limit 10s session_idle 20m\n  keyferry cluster set notice \"For the staff of Example Ltd. only.\"",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args)%2 != 0 {
				return fmt.Errorf("give a KEY and its VALUE, or several pairs of them; keys are %s", strings.Join(node.SettingKeys(), ", "))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			values := map[string]string{}
			for i := 0; i < len(args); i += 2 {
				if _, twice := values[args[i]]; twice {
					return fmt.Errorf("%s is there twice: give each setting once", args[i])
				}
				values[args[i]] = args[i+1]
			}
			var v node.SettingsView
			err := a.client().do(c.Context(), http.MethodPut, "/cluster/settings", map[string]any{"values": values, "take_over": over}, &v)
			return a.showSettings(v, err)
		},
	}
	c.Flags().BoolVar(&over, "take-over", false, "end the turn of whoever changes the settings now")
	return a.dataFlag(c)
}
