package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) appsCommand() *cobra.Command {
	c := a.dataFlag(&cobra.Command{
		Use:   "apps",
		Short: "List applications; add, remove and restart them",
		Long: `Applications are programs that use slots, such as EJBCA, SignServer or nginx. After keys came into a slot, the
applications that use it are restarted on that node.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]cluster.App](c.Context(), a.client(), "/applications")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("APPLICATION", "SLOTS", "NODES", "RESTART", "LAST RESTARTS")
				for _, app := range list {
					nodes := "all"
					if len(app.Nodes) > 0 {
						nodes = strings.Join(app.Nodes, ",")
					}
					row(app.Name, strings.Join(app.Slots, ","), nodes, strings.TrimSpace(app.Restart.Kind+" "+app.Restart.Target), lastRuns(app))
				}
			})
		},
	})
	c.AddCommand(a.appAdd(), a.appRemove(), a.appRestart())
	return c
}

func lastRuns(app cluster.App) string {
	var runs []string
	for _, n := range slices.Sorted(maps.Keys(app.Runs)) {
		r := app.Runs[n]
		runs = append(runs, fmt.Sprintf("%s %s %s", n, map[bool]string{true: "ok", false: "failed"}[r.OK], ago(r.Time)))
	}
	return orDash(strings.Join(runs, "; "))
}

func (a *app) appAdd() *cobra.Command {
	var app cluster.App
	var command, unit string
	c := &cobra.Command{
		Use:   "add NAME --slot LABEL [--command FILE | --unit UNIT]",
		Short: "Add an application, or change one",
		Long: `Add an application, or change one. --command names a program in the restart directory of each node's
configuration, where only root can put it; --unit names a systemd unit, which is restarted.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			app.Name = args[0]
			app.Restart = cluster.Restart{Kind: cluster.RestartNone}
			switch {
			case command != "":
				app.Restart = cluster.Restart{Kind: cluster.RestartCommand, Target: command}
			case unit != "":
				app.Restart = cluster.Restart{Kind: cluster.RestartSystemd, Target: unit}
			}
			return a.client().do(c.Context(), http.MethodPut, "/applications/"+segment(app.Name), app, nil)
		},
	}
	c.Flags().StringSliceVar(&app.Slots, "slot", nil, "`labels` of the slots that it uses")
	c.Flags().StringSliceVar(&app.Nodes, "node", nil, "`nodes` where it runs; all when empty")
	c.Flags().StringVar(&command, "command", "", "`file` in the restart directory")
	c.Flags().StringVar(&unit, "unit", "", "systemd `unit`")
	c.MarkFlagRequired("slot")
	c.MarkFlagsMutuallyExclusive("command", "unit")
	return c
}

func (a *app) appRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget an application; the program itself is not touched",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.client().do(c.Context(), http.MethodDelete, "/applications/"+segment(args[0]), nil, nil)
		},
	}
}

func (a *app) appRestart() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "restart NAME",
		Short: "Restart an application on this node",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := post[node.RestartResult](c.Context(), a.client(), "/applications/"+segment(args[0])+"/restart", struct{}{})
			if err != nil {
				return err
			}
			return a.print(r, func(row func(...any)) { row("Restarted", r.App) })
		},
	})
}
