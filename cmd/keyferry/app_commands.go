package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) appsCommand() *cobra.Command {
	c := a.dataFlag(&cobra.Command{
		Use:   "apps",
		Short: "List applications; add, show, remove and restart them",
		Long: `Applications are programs that use slots, such as EJBCA, SignServer or nginx. On a node they are restarted after keys
came into one of their slots, once all their slots are open again after a restart of the node, and when a code that
they get from Keyferry was changed. A restart that fails is tried three more times.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]cluster.App](c.Context(), a.client(), "/applications")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("APPLICATION", "SLOTS", "NODES", "CODES", "RESTART", "LAST RESTARTS")
				for _, app := range list {
					nodes := "all"
					if len(app.Nodes) > 0 {
						nodes = strings.Join(app.Nodes, ",")
					}
					row(app.Name, orDash(strings.Join(app.Slots, ",")), nodes, app.Delivery.Kind, strings.TrimSpace(app.Restart.Kind+" "+app.Restart.Target), lastRuns(app))
				}
			})
		},
	})
	c.AddCommand(a.appAdd(), a.appShow(), a.appRemove(), a.appRestart())
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

// shownApp is an application as the API shows it: how it stands on each node, and its codes on this one.
type shownApp struct {
	cluster.App
	States map[string]struct {
		Waits string    `json:"waits_for,omitempty"`
		Again time.Time `json:"again,omitzero"`
	} `json:"states"`
	Files []node.CodeFile `json:"files,omitempty"`
}

func (a *app) appShow() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "show NAME",
		Short: "Show an application: where it stands, what it waits for, and where its codes are",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := get[shownApp](c.Context(), a.client(), "/applications/"+segment(args[0]))
			if err != nil {
				return err
			}
			return a.print(s, func(row func(...any)) {
				row("Application", s.Name)
				row("Slots", orDash(strings.Join(s.Slots, ",")))
				row("Starts after", orDash(strings.Join(s.After, ",")))
				row("Restart", strings.TrimSpace(s.Restart.Kind+" "+s.Restart.Target))
				row("Codes", deliveryText(s.Delivery))
				for _, n := range slices.Sorted(maps.Keys(s.States)) {
					row("On "+n, stateText(s, n))
				}
				for _, f := range s.Files {
					row("Slot "+f.Slot, f.URI, map[bool]string{true: "there", false: "not there: " + f.Problem}[f.There])
				}
			})
		},
	})
}

func deliveryText(d cluster.Delivery) string {
	text := d.Kind
	if d.Kind == cluster.DeliverFile {
		text = fmt.Sprintf("file, owner %s, group %s, mode %s", orDash(d.Owner), orDash(d.Group), d.Mode)
	}
	if d.Manual {
		text += ", also those that people hold"
	}
	return text
}

func stateText(s shownApp, n string) string {
	var parts []string
	if w := s.States[n].Waits; w != "" {
		parts = append(parts, "waits for "+w)
	}
	if r, ok := s.Runs[n]; ok && r.OK {
		parts = append(parts, "restarted "+ago(r.Time)+": "+r.Reason)
	} else if ok {
		parts = append(parts, fmt.Sprintf("not restarted %s (try %d of %d): %s", ago(r.Time), r.Try, r.Tries, r.Detail))
	}
	if t := s.States[n].Again; !t.IsZero() {
		parts = append(parts, "tried again at "+t.Local().Format(time.TimeOnly))
	}
	return orDash(strings.Join(parts, "; "))
}

func (a *app) appAdd() *cobra.Command {
	var app cluster.App
	targets := map[string]*string{cluster.RestartCommand: new(string), cluster.RestartSystemd: new(string), cluster.RestartKubernetes: new(string), cluster.RestartWebhook: new(string)}
	c := &cobra.Command{
		Use:   "add NAME --slot LABEL [--command FILE | --unit UNIT | --kubernetes WORKLOAD | --webhook NAME]",
		Short: "Add an application, or change one",
		Long: `Add an application, or change one: what the command does not say is set back.

--command names a program in the restart directory of each node's configuration, where only root can put it. --unit
names a systemd unit. --kubernetes is CLUSTER:NAMESPACE/KIND/NAME, where KIND is deployment, statefulset or daemonset,
and CLUSTER a [[kubernetes]] of the configuration. --webhook is a [[webhook]] of the configuration.

With --codes file, each node writes the codes of the application's open slots to files in memory, for --owner and
--group; "keyferry apps show" prints the URIs (RFC 7512). With --codes stdin the restart command gets lines of label,
tab and code on its standard input. --manual-codes delivers codes that people hold, too, from the activation of the
slot until it is closed or Keyferry starts anew: the application then can use the slot without those people.`,
		Example: `  keyferry apps add nginx --slot web --command restart-nginx --codes file --owner www-data
  keyferry apps add ejbca --slot ManagementCA,IssuingCA --unit wildfly.service --after database`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			app.Name = args[0]
			app.Restart = cluster.Restart{Kind: cluster.RestartNone}
			for kind, target := range targets {
				if *target != "" {
					app.Restart = cluster.Restart{Kind: kind, Target: *target}
				}
			}
			return a.client().do(c.Context(), http.MethodPut, "/applications/"+segment(app.Name), app, nil)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&app.Slots, "slot", nil, "`labels` of the slots that it uses")
	f.StringSliceVar(&app.Nodes, "node", nil, "`nodes` where it runs; all when empty")
	f.StringSliceVar(&app.After, "after", nil, "`applications` that must be up before it")
	f.StringVar(targets[cluster.RestartCommand], "command", "", "`file` in the restart directory")
	f.StringVar(targets[cluster.RestartSystemd], "unit", "", "systemd `unit`")
	f.StringVar(targets[cluster.RestartKubernetes], "kubernetes", "", "`workload` in Kubernetes")
	f.StringVar(targets[cluster.RestartWebhook], "webhook", "", "`name` of a webhook")
	f.StringVar(&app.Delivery.Kind, "codes", cluster.DeliverNone, "`how` it gets the codes of its slots: none, file or stdin")
	f.StringVar(&app.Delivery.Owner, "owner", "", "`user` on the node that owns the files; the daemon's when empty")
	f.StringVar(&app.Delivery.Group, "group", "", "`group` of the files; the owner's when empty")
	f.StringVar(&app.Delivery.Mode, "mode", "", "`mode` of the files: 0400 (the default) or 0440")
	f.BoolVar(&app.Delivery.Manual, "manual-codes", false, "also deliver codes that people hold, while the slot is open")
	c.MarkFlagRequired("slot")
	c.MarkFlagsMutuallyExclusive("command", "unit", "kubernetes", "webhook")
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
			if !r.OK {
				again := ""
				if !r.Again.IsZero() {
					again = "; it is tried again at " + r.Again.Local().Format(time.TimeOnly)
				}
				return fmt.Errorf("application %q was not restarted: %s%s", r.App, r.Detail, again)
			}
			return a.print(r, func(row func(...any)) { row("Restarted", r.App) })
		},
	})
}
