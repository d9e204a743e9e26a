package cluster

import (
	"slices"
	"time"
)

// App is a program that uses slots.
type App struct {
	Name    string         `json:"name"`
	Slots   []string       `json:"slots"`          // labels
	Nodes   []string       `json:"nodes"`          // where it runs; empty: everywhere
	Restart Restart        `json:"restart"`        // how it is restarted when its keys change
	Runs    map[string]Run `json:"runs,omitempty"` // last restart, by node
}

// Restart is how a node restarts an application. Target names something that root put on the node: the
// file name of a command in the node's restart directory, or a systemd unit. It is never a path or a
// command line.
type Restart struct {
	Kind   string `json:"kind"` // RestartNone, RestartCommand or RestartSystemd
	Target string `json:"target,omitempty"`
}

// Ways to restart an application.
const (
	RestartNone    = "none"
	RestartCommand = "command"
	RestartSystemd = "systemd"
)

func (r Restart) validate() error {
	switch r.Kind {
	case RestartCommand:
		return checkMatch("restart command", r.Target, commandPattern,
			"use the name of a file in the restart directory: letters, digits, underscores, dots and hyphens, not starting with a dot or hyphen")
	case RestartSystemd:
		return checkMatch("systemd unit", r.Target, unitPattern,
			"use letters, digits and _.:@-, not starting with a dot or hyphen")
	}
	if r.Target != "" {
		return errorf(Invalid, "a restart of the kind %q takes no target", clip(r.Kind))
	}
	return checkOneOf("kind of restart", r.Kind, RestartNone, RestartCommand, RestartSystemd)
}

// Run is what came of restarting an application on one node.
type Run struct {
	Time   time.Time `json:"time"`
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"`
}

// PutApp makes an application, or changes one.
type PutApp struct {
	App App `json:"app"` // Runs is kept as it is
}

func (c *PutApp) Kind() string               { return "app.put" }
func (c *PutApp) describe() (string, string) { return "app/" + c.App.Name, "" }

func (c *PutApp) validate() error {
	a := &c.App
	if len(a.Slots) > maxSlots {
		return errorf(Invalid, "application %q names %d slots; at most %d are allowed", a.Name, len(a.Slots), maxSlots)
	}
	for i, label := range a.Slots {
		if err := checkLabel(label); err != nil {
			return err
		}
		if slices.Contains(a.Slots[:i], label) {
			return errorf(Invalid, "application %q names slot %q twice", a.Name, label)
		}
	}
	return check(checkName("application name", a.Name), checkNames("the application", a.Nodes, maxNodes), a.Restart.validate())
}

func (c *PutApp) apply(s *State, m Meta) error {
	a := c.App
	old, exists := s.Apps[a.Name]
	if !exists && len(s.Apps) >= maxApps {
		return errorf(Full, "there are %d applications, which is the most there can be", len(s.Apps))
	}
	for _, label := range a.Slots {
		if _, err := s.slot(label); err != nil && !slices.Contains(old.Slots, label) {
			return err
		}
	}
	for _, name := range a.Nodes {
		if _, err := s.node(name); err != nil && !slices.Contains(old.Nodes, name) {
			return err
		}
	}
	a.Runs = old.Runs
	s.Apps = with(s.Apps, a.Name, a)
	return nil
}

// RemoveApp forgets an application.
type RemoveApp struct {
	Name string `json:"name"`
}

func (c *RemoveApp) Kind() string               { return "app.remove" }
func (c *RemoveApp) describe() (string, string) { return "app/" + c.Name, "" }
func (c *RemoveApp) validate() error            { return checkName("application name", c.Name) }

func (c *RemoveApp) apply(s *State, m Meta) error {
	if _, ok := s.Apps[c.Name]; !ok {
		return errorf(NotFound, "there is no application %q", c.Name)
	}
	s.Apps = without(s.Apps, c.Name)
	return nil
}

// ReportRun is a node's word on how a restart of an application went.
type ReportRun struct {
	App    string `json:"app"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

func (c *ReportRun) Kind() string               { return "app.run" }
func (c *ReportRun) describe() (string, string) { return "app/" + c.App, c.Detail }

func (c *ReportRun) validate() error {
	return check(checkName("application name", c.App), checkText("detail", c.Detail, maxText))
}

func (c *ReportRun) apply(s *State, m Meta) error {
	a, ok := s.Apps[c.App]
	if !ok {
		return errorf(NotFound, "there is no application %q", c.App)
	}
	a.Runs = with(a.Runs, m.Node, Run{Time: m.Time, OK: c.OK, Detail: c.Detail})
	s.Apps = with(s.Apps, c.App, a)
	result := Done
	if !c.OK {
		result = Failed
	}
	s.record(m, Entry{Act: c.Kind(), Object: "app/" + c.App, Result: result, Detail: c.Detail})
	return nil
}
