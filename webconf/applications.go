package webconf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type applicationsView struct {
	Node string
	Apps []applicationRow
}

// An applicationRow is one application with its last restarts.
type applicationRow struct {
	cluster.App
	Here bool // it runs on this node
	Runs []runRow
}

// CanRestart tells whether this node can restart it.
func (a applicationRow) CanRestart() bool { return a.Here && a.Restart.Kind != cluster.RestartNone }

// Pattern matches the name and nothing else, for browsers. Names are letters, digits and hyphens.
func (a applicationRow) Pattern() string { return a.Name }

// A runRow is how an application stands on a node, with its last restart there.
type runRow struct {
	Node  string
	Waits string    // what it waits for before it is restarted
	Again time.Time // when it is tried again; of this node only
	cluster.Run
}

func newApplicationRow(v *situation, a cluster.App) applicationRow {
	r := applicationRow{App: a, Here: a.On(v.Node)}
	for _, name := range v.names() {
		run, ran := a.Runs[name]
		if !a.On(name) && !ran {
			continue
		}
		row := runRow{Node: name, Run: run}
		if a.On(name) && a.Restart.Kind != cluster.RestartNone {
			row.Waits = node.AppWaits(v.State, a.Name, name)
		}
		if name == v.Node { // known better here than by the cluster
			if row.Waits = v.AppWaits[a.Name]; row.Waits == "" {
				row.Again = v.AppAgain[a.Name]
			}
		}
		r.Runs = append(r.Runs, row)
	}
	return r
}

func applicationsPage(c *call) error {
	return c.show(page{Name: "applications", Title: "Applications", Nav: "/applications", Data: newApplicationsView(c.look())})
}

func newApplicationsView(s *situation) applicationsView {
	v := applicationsView{Node: s.Node}
	for _, name := range slices.Sorted(maps.Keys(s.State.Apps)) {
		v.Apps = append(v.Apps, newApplicationRow(s, s.State.Apps[name]))
	}
	return v
}

type applicationView struct {
	Node    string
	App     *applicationRow // nil: a new one
	Values  *form           // what the form for the application shows
	Slots   []string        // there are
	Nodes   []string
	Others  []string        // applications that it can start after
	Files   []node.CodeFile // codes on this node
	Targets node.RestartTargets
}

func newApplicationPage(c *call) error {
	f := newForm("app", map[string]string{"kind": cluster.RestartCommand, "delivery": cluster.DeliverNone, "filemode": cluster.ModeOwner})
	return showApplication(c, nil, f)
}

// formOf fills the form with what is known of an application.
func formOf(a cluster.App) *form {
	d := a.Delivery
	f := newForm("app", map[string]string{"name": a.Name, "version": versionText(a.Version), "kind": a.Restart.Kind, "target": a.Restart.Target,
		"delivery": cmp.Or(d.Kind, cluster.DeliverNone), "owner": d.Owner, "group": d.Group, "filemode": cmp.Or(d.Mode, cluster.ModeOwner)})
	f.Values["slots"], f.Values["nodes"], f.Values["after"] = a.Slots, a.Nodes, a.After
	if d.Manual {
		f.Values.Set("manual", "yes")
	}
	return f
}

func (c *call) application() (cluster.App, error) {
	name, err := c.segment("name")
	if err != nil {
		return cluster.App{}, err
	}
	a, ok := c.m.State().Apps[name]
	if !ok {
		return a, &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no application %q", name)}
	}
	return a, nil
}

func applicationPage(c *call) error {
	a, err := c.application()
	if err != nil {
		return err
	}
	return showApplication(c, &a, formOf(a))
}

func showApplication(c *call, a *cluster.App, f *form) error {
	v := newApplicationView(c.look(), a, f)
	v.Targets = c.m.Node().RestartTargets()
	if a != nil {
		v.Files = c.m.Apps.Files(*a)
	}
	title := "Add an application"
	if a != nil {
		title = "Application " + a.Name
	}
	return c.show(page{Name: "application", Title: title, Nav: "/applications", Crumbs: []crumb{{"Applications", "/applications"}}, Form: f, Data: v})
}

// newApplicationView shows an application, or an empty form when a is nil.
func newApplicationView(s *situation, a *cluster.App, f *form) applicationView {
	v := applicationView{Node: s.Node, Values: f, Slots: slices.Sorted(maps.Keys(s.State.Slots)), Nodes: s.names()}
	for _, name := range slices.Sorted(maps.Keys(s.State.Apps)) {
		if a == nil || name != a.Name {
			v.Others = append(v.Others, name)
		}
	}
	if a == nil {
		return v
	}
	if f.Name != "app" {
		v.Values = formOf(*a)
	}
	r := newApplicationRow(s, *a)
	v.App, v.Slots, v.Nodes = &r, union(v.Slots, a.Slots), union(v.Nodes, a.Nodes)
	return v
}

// union is both lists as one, in order: what an application names may be gone by now.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// appOf is the application that a form describes.
func appOf(f *form, name string) cluster.App {
	a := cluster.App{Name: name, Slots: f.Values["slots"], Nodes: f.Values["nodes"], After: f.Values["after"], Restart: cluster.Restart{Kind: f.text("kind")},
		Delivery: cluster.Delivery{Kind: f.text("delivery")}}
	if a.Delivery.Delivers() {
		a.Delivery.Manual = f.text("manual") == "yes"
	}
	if a.Delivery.Kind == cluster.DeliverFile { // the fields stay in the form when something else is chosen
		a.Delivery.Owner, a.Delivery.Group, a.Delivery.Mode = f.text("owner"), f.text("group"), f.text("filemode")
	}
	if a.Restart.Kind != cluster.RestartNone {
		a.Restart.Target = f.text("target")
	}
	if a.Slots == nil {
		a.Slots = []string{}
	}
	if a.Nodes == nil {
		a.Nodes = []string{}
	}
	return a
}

func newApplication(c *call) error {
	f, err := c.readForm("app")
	if err != nil {
		return err
	}
	a := appOf(f, f.text("name"))
	if _, taken := c.m.State().Apps[a.Name]; taken {
		f.fail("name", "There is an application %q already.", a.Name)
	}
	return putApplication(c, a, nil, f, new(uint64))
}

func changeApplication(c *call) error {
	old, err := c.application()
	if err != nil {
		return err
	}
	f, err := c.readForm("app")
	if err != nil {
		return err
	}
	version, err := f.version("version")
	if err != nil {
		return err
	}
	return putApplication(c, appOf(f, old.Name), &old, f, version)
}

func putApplication(c *call, a cluster.App, old *cluster.App, f *form, replaces *uint64) error {
	if f.ok() {
		err := c.m.Apps.Put(c.Request().Context(), c.actor, a, replaces)
		if err == nil {
			if err := c.flash(fmt.Sprintf("Application %s is saved.", a.Name)); err != nil {
				return err
			}
			return c.redirect(applicationPath(a.Name))
		}
		if f.outdated(err) && old != nil {
			now, err := c.application()
			if err != nil {
				return err
			}
			old, f.Values = &now, formOf(now).Values
		} else if f.ok() {
			if err := f.blame(appField(err), err); err != nil {
				return err
			}
		}
	}
	return showApplication(c, old, f)
}

// appField is the field that an error of Apps.Put is about. Where it is about a choice, its text says which.
func appField(err error) string {
	text := err.Error()
	for start, field := range map[string]string{"application name": "name", "restart command": "target", "systemd unit": "target", "Kubernetes workload": "target", "webhook": "target"} {
		if strings.HasPrefix(text, start) {
			return field
		}
	}
	return ""
}

// removeApplication wants the name typed, so that nobody removes the wrong one.
func removeApplication(c *call) error {
	a, err := c.application()
	if err != nil {
		return err
	}
	f, err := c.readForm("remove")
	if err != nil {
		return err
	}
	if f.text("name") != a.Name {
		f.fail("name", "Type the name %s to remove the application.", a.Name)
		return showApplication(c, &a, f)
	}
	if err := c.m.Apps.Remove(c.Request().Context(), c.actor, a.Name); err != nil {
		if err := f.blame("name", err); err != nil {
			return err
		}
		return showApplication(c, &a, f)
	}
	if err := c.flash(fmt.Sprintf("Application %s is removed. The program itself was not touched.", a.Name)); err != nil {
		return err
	}
	return c.redirect("/applications")
}

// restartTime is longer than package node lets a restart take: a rollout in Kubernetes takes minutes.
const restartTime = 6 * time.Minute

func restartApplication(c *call) error {
	a, err := c.application()
	if err != nil {
		return err
	}
	f, err := c.readForm("restart")
	if err != nil {
		return err
	}
	if a.Restart.Kind == cluster.RestartKubernetes { // takes minutes, and a page tells how far it is
		job, err := c.m.Apps.RestartJob(c.actor, a.Name)
		if err == nil {
			return c.redirect(jobPath(job.ID))
		}
		if err := f.blame("", err); err != nil {
			return err
		}
		return showApplication(c, &a, f)
	}
	c.patience(restartTime)
	r, err := c.m.Apps.Restart(c.Request().Context(), c.actor, a.Name)
	if now, ok := c.m.State().Apps[a.Name]; ok {
		a = now // with what came of it
	}
	switch {
	case err == nil:
		if err := c.flash(fmt.Sprintf("Application %s was restarted on %s.", a.Name, c.m.Name())); err != nil {
			return err
		}
		return c.redirect(applicationPath(a.Name))
	case r.Detail != "": // it was tried
		f.fail("", "%s", sentence(err.Error()))
		if !r.Again.IsZero() {
			f.fail("", "It is tried again by itself %s.", relative(r.Again, time.Now()))
		}
	default:
		if err := f.blame("", err); err != nil {
			return err
		}
	}
	return showApplication(c, &a, f)
}
