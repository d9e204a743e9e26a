package cluster

import (
	"regexp"
	"slices"
	"time"
)

// App is a program that uses slots.
type App struct {
	Name     string         `json:"name"`
	Slots    []string       `json:"slots"`             // labels
	Nodes    []string       `json:"nodes"`             // where it runs; empty: everywhere
	After    []string       `json:"after,omitempty"`   // applications that must be up before it
	Restart  Restart        `json:"restart"`           // how it is restarted when its keys change
	Delivery Delivery       `json:"delivery,omitzero"` // how it gets the codes of its slots
	Version  uint64         `json:"version,omitempty"` // of all above: see replacing
	Runs     map[string]Run `json:"runs,omitempty"`    // last restart, by node
}

// On tells whether the application runs on a node.
func (a App) On(node string) bool { return len(a.Nodes) == 0 || slices.Contains(a.Nodes, node) }

// Restart is how a node restarts an application. Target names something that root put on the node: the
// file name of a command in the node's restart directory, a systemd unit, or an address that the node's
// configuration knows by a name. It is never a path, a command line or a URL.
type Restart struct {
	Kind   string `json:"kind"` // one of the ways below
	Target string `json:"target,omitempty"`
}

// Ways to restart an application.
const (
	RestartNone       = "none"
	RestartCommand    = "command"
	RestartSystemd    = "systemd"
	RestartKubernetes = "kubernetes" // target: "cluster:namespace/kind/name"
	RestartWebhook    = "webhook"
)

var (
	commandPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)
	unitPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,127}$`)
	// A namespace is a DNS label, the name of a workload a DNS subdomain (Kubernetes, "Object Names and IDs").
	kubernetesPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/(deployment|statefulset|daemonset)/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

func (r Restart) validate() error {
	switch r.Kind {
	case RestartCommand:
		return checkMatch("restart command", r.Target, commandPattern,
			"use the name of a file in the restart directory: letters, digits, underscores, dots and hyphens, not starting with a dot or hyphen")
	case RestartSystemd:
		return checkMatch("systemd unit", r.Target, unitPattern,
			"use letters, digits and _.:@-, not starting with a dot or hyphen")
	case RestartKubernetes:
		return checkMatch("Kubernetes workload", r.Target, kubernetesPattern,
			"use CLUSTER:NAMESPACE/KIND/NAME, where CLUSTER is a name in the node's configuration and KIND is deployment, statefulset or daemonset")
	case RestartWebhook:
		return checkMatch("webhook", r.Target, namePattern, "use the name of a [[webhook]] in the node's configuration: letters a-z, digits and hyphens")
	}
	if r.Target != "" {
		return errorf(Invalid, "a restart of the kind %q takes no target", clip(r.Kind))
	}
	return checkOneOf("kind of restart", r.Kind, RestartNone, RestartCommand, RestartSystemd, RestartKubernetes, RestartWebhook)
}

// Run is what came of restarting an application on one node.
type Run struct {
	Time   time.Time `json:"time"`
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"` // why not
	Reason string    `json:"reason,omitempty"` // why it was restarted
	Did    string    `json:"did,omitempty"`    // what was tried: "systemd unit ejbca.service"
	Took   int       `json:"took,omitempty"`   // milliseconds
	Try    int       `json:"try,omitempty"`    // which try it was, from 1; 0: it was not tried
	Tries  int       `json:"tries,omitempty"`  // how many there are at most
}

// PutApp makes an application, or changes one.
type PutApp struct {
	App      App     `json:"app"`                // Version is set, and Runs is kept as it is
	Replaces *uint64 `json:"replaces,omitempty"` // the version that its author saw
}

func (c *PutApp) Kind() string               { return "app.put" }
func (c *PutApp) describe() (string, string) { return "app/" + c.App.Name, c.App.Delivery.describe() }

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
	return check(checkName("application name", a.Name), checkNames("the application", a.Nodes, maxNodes), a.Restart.validate(),
		a.Delivery.validate(a.Restart), a.validateAfter())
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
	if err := s.checkAfter(a); err != nil {
		return err
	}
	a.Delivery = a.Delivery.filled()
	a.Runs, a.Version = old.Runs, s.Index
	s.Apps = with(s.Apps, a.Name, a)
	return nil
}

// allowed wants more of who decides who gets codes.
func (c *PutApp) allowed(s *State, m Meta) error {
	if !s.handsOut(c.App) {
		return nil
	}
	if err := Authorize(s, m.Actor, m.Node, MayManageCodes, ""); err != nil {
		return errorf(Denied, "application %q would be given codes anew, and who gets a code is decided by a security officer: %s", c.App.Name, asError(err).Message)
	}
	return nil
}

// handsOut tells whether making or changing an application as a decides anew who gets codes.
func (s *State) handsOut(a App) bool {
	old, exists := s.Apps[a.Name]
	same := exists && slices.Equal(a.Slots, old.Slots) && slices.Equal(a.Nodes, old.Nodes) && a.Restart == old.Restart && a.Delivery.filled() == old.Delivery.filled()
	return a.Delivery.Delivers() && !same
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
	for _, name := range sorted(s.Apps) {
		if slices.Contains(s.Apps[name].After, c.Name) {
			return errorf(Conflict, "application %q starts after %q: change that one first", name, c.Name)
		}
	}
	s.Apps = without(s.Apps, c.Name)
	return nil
}

// ReportRun is a node's word on how a restart of an application went. The audit trail has it already, as
// the end of the act.
type ReportRun struct {
	App string `json:"app"`
	Run        // Time is set when it is applied
}

func (c *ReportRun) Kind() string               { return "app.run" }
func (c *ReportRun) describe() (string, string) { return "app/" + c.App, c.Run.Detail }

func (c *ReportRun) validate() error {
	r := &c.Run
	return check(checkName("application name", c.App), checkText("detail", r.Detail, maxText), checkText("reason", r.Reason, maxText),
		checkText("what was tried", r.Did, maxText), checkRange("the duration", r.Took, 0, maxRunTook),
		checkRange("the number of tries", r.Tries, 0, maxRunTries), checkRange("the try", r.Try, 0, r.Tries))
}

func (c *ReportRun) apply(s *State, m Meta) error {
	a, ok := s.Apps[c.App]
	if !ok {
		return errorf(NotFound, "there is no application %q", c.App)
	}
	r := c.Run
	r.Time = m.Time
	a.Runs = with(a.Runs, m.Node, r)
	s.Apps = with(s.Apps, c.App, a)
	return nil
}
