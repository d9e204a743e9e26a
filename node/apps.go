package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Apps are the programs that use slots: how they are restarted when their keys change, and how they get
// the codes of their slots.
type Apps struct {
	m        *Member
	runner   *runner
	codes    *codeFiles
	delivery delivery
	wake     chan struct{} // a slot was opened or closed

	mu         sync.Mutex
	seen       map[string]bool // application -> it waited for something when it was last looked at
	unreported map[string]*cluster.ReportRun
}

// RestartResult is what came of restarting one application on this node.
type RestartResult struct {
	App    string    `json:"application"`
	OK     bool      `json:"ok"`
	Detail string    `json:"detail,omitempty"`
	Again  time.Time `json:"again,omitzero"` // when it is tried again by itself
}

func newApps(m *Member) *Apps {
	a := &Apps{m: m, runner: newRunner(), codes: newCodeFiles(m.node.cfg.CodesDir, m.Name()), wake: make(chan struct{}, 1),
		seen: map[string]bool{}, unreported: map[string]*cluster.ReportRun{}}
	r := a.runner
	r.apps, r.waits, r.run, r.tell, r.self = a.here, a.waits, a.restart, a.report, m.self()
	return a
}

// Put makes an application, or changes one. replaces is the version that its author saw, 0 where it is to be
// a new one, nil for whatever there is; the error is cluster.Changed where that is another one now.
func (a *Apps) Put(ctx context.Context, actor cluster.Actor, app cluster.App, replaces *uint64) error {
	app.Version, app.Runs = 0, nil // not the author's to say, and no part of what others approve
	_, err := a.m.Cluster.Apply(ctx, &cluster.PutApp{App: app, Replaces: replaces}, actor)
	return err
}

// Remove forgets an application. The program itself is not touched.
func (a *Apps) Remove(ctx context.Context, actor cluster.Actor, name string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.RemoveApp{Name: name}, actor)
	return err
}

// List returns the applications, by name.
func (a *Apps) List() []cluster.App {
	apps := a.m.State().Apps
	list := make([]cluster.App, 0, len(apps))
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		list = append(list, apps[name])
	}
	return list
}

// using names the applications of this node that use a slot and can be restarted.
func (a *Apps) using(slot string) []string {
	names := []string{}
	for name, app := range a.here() {
		if slices.Contains(app.Slots, slot) && app.Restart.Kind != cluster.RestartNone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Restart restarts one application on this node because somebody asked for it. It does so also where the
// application waits for something: whoever asks may know better. A restart that fails is tried again.
func (a *Apps) Restart(ctx context.Context, actor cluster.Actor, name string) (RestartResult, error) {
	if err := a.restartable(name); err != nil {
		return RestartResult{}, err
	}
	r, err := a.runner.force(ctx, actor, name, "asked for by "+actor.String())
	r.Again = a.runner.next(name)
	if r.Detail != "" {
		err = fmt.Errorf("application %q was not restarted: %w", name, err)
	}
	return r, err
}

// RestartJob is Restart as a job, for what takes minutes.
func (a *Apps) RestartJob(actor cluster.Actor, name string) (*Job, error) {
	if err := a.restartable(name); err != nil {
		return nil, err
	}
	return a.m.Jobs.start("restart", "app/"+name, actor, func(ctx context.Context, pr *progress) error {
		pr.say("%s, on node %s", restartWord(a.m.State().Apps[name].Restart), a.m.Name())
		r, err := a.Restart(ctx, actor, name)
		if err == nil {
			pr.say("application %s is up", name)
		} else if !r.Again.IsZero() {
			pr.say("it is tried again by itself at %s", r.Again.UTC().Format(time.RFC3339))
		}
		return err
	}), nil
}

// restartable refuses what cannot be restarted here.
func (a *Apps) restartable(name string) error {
	app, ok := a.m.State().Apps[name]
	switch {
	case !ok:
		return refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no application %q", name)}}
	case app.Restart.Kind == cluster.RestartNone:
		return refuse("application %q has no way to be restarted: set one first", name)
	case !app.On(a.m.Name()):
		return refuse("application %q does not run on node %s", name, a.m.Name())
	}
	return nil
}

// Again is when an application whose restart failed on this node is tried again by itself; zero: it is not.
func (a *Apps) Again(name string) time.Time { return a.runner.next(name) }

// restartUsers restarts the applications of this node that use a slot, after keys came into it.
func (a *Apps) restartUsers(ctx context.Context, slot string, pr *progress) []RestartResult {
	results := a.runner.now(ctx, "keys came into slot "+slot, a.using(slot))
	for i, r := range results {
		results[i].Again = a.runner.next(r.App)
		if r.OK {
			pr.say("application %s was restarted", r.App)
		} else {
			pr.say("application %s was not restarted: %s", r.App, r.Detail)
		}
	}
	return results
}

// codeChanged is called after the code of a slot was changed: where codes are delivered, the application
// gets the new one and is restarted.
func (a *Apps) codeChanged(_ context.Context, slot string) {
	a.nudge()
	var names []string
	apps := a.here()
	for _, name := range a.using(slot) {
		if apps[name].Delivery.Delivers() && a.m.Slots.withheld(apps[name], slot) == "" {
			names = append(names, name)
		}
	}
	a.runner.ask("the code of slot "+slot+" was changed", names...)
}

// nudge is called when a slot was opened or closed.
func (a *Apps) nudge() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// follow delivers codes, and restarts applications whose slots have been opened.
func (a *Apps) follow(ctx context.Context) {
	for {
		s, changed := a.m.Cluster.Watch()
		if s.Cluster.ID != "" { // before, there are no applications yet
			a.deliver(ctx)
			a.opened()
			a.reportAll(ctx)
		}
		select {
		case <-changed:
		case <-a.wake:
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// opened asks for the restart of applications that have waited for a slot until now. Applications that
// this node knows from before its start have waited since then; new ones have not.
func (a *Apps) opened() {
	apps := a.here()
	var names, again []string
	for name, app := range apps {
		waiting := a.waits(name) != ""
		waited, seen := a.seen[name]
		known := seen
		if !seen {
			_, err := get[appRecord](a.m.node.store, bucketApps, name)
			known = err == nil
			waited = known && len(app.Slots) > 0
		}
		if !known {
			if err := a.m.node.store.put(bucketApps, name, appRecord{}); err != nil {
				a.m.log.Error("an application cannot be stored", "application", name, "error", err)
			}
		}
		a.seen[name] = waiting
		if run := app.Runs[a.m.Name()]; !waiting && waited {
			names = append(names, name)
		} else if !waiting && known && !seen && !run.OK && run.Try > 0 && run.Try < run.Tries {
			again = append(again, name)
		}
	}
	a.forget(apps)
	if len(names) > 0 {
		a.runner.ask("its slots are open", names...)
	}
	if len(again) > 0 {
		a.runner.ask("its last restart failed before this node was stopped", again...)
	}
}

// An appRecord marks an application that this node knows. It has nothing to say besides.
type appRecord struct{}

// forget drops what is remembered of applications that are gone.
func (a *Apps) forget(apps map[string]cluster.App) {
	for name := range a.seen {
		if _, ok := apps[name]; ok {
			continue
		}
		delete(a.seen, name)
		if err := a.m.node.store.drop(bucketApps, name); err != nil {
			a.m.log.Error("an application cannot be forgotten", "application", name, "error", err)
		}
	}
}

// restart restarts an application, between the two records of an act, and tells the cluster what came of it.
func (a *Apps) restart(ctx context.Context, app cluster.App, actor cluster.Actor, run cluster.Run) (tried bool, err error) {
	detail := fmt.Sprintf("node %s: %s; try %d of %d", a.m.Name(), run.Reason, run.Try, run.Tries)
	err = a.m.acts.doLocally(ctx, act{actor, cluster.MayRestartApps, "app.restart", "app/" + app.Name, detail}, func() error {
		tried = true
		began := time.Now()
		run.Did = restartWord(app.Restart)
		err := a.restartBy(ctx, app, run.Reason)
		run.Took = int(min(time.Since(began), 24*time.Hour).Milliseconds())
		if run.OK = err == nil; !run.OK {
			run.Detail = line(err.Error())
		}
		return err
	})
	if !tried {
		run.Detail = line(err.Error())
		a.m.log.Error("an application was not restarted", "application", app.Name, "error", err)
	}
	if tried || actor == a.m.self() {
		a.report(ctx, app.Name, run)
	}
	return tried, err
}

// report tells the cluster how a restart went, now or once there is a quorum.
func (a *Apps) report(ctx context.Context, app string, run cluster.Run) {
	a.mu.Lock()
	a.unreported[app] = &cluster.ReportRun{App: app, Run: run}
	a.mu.Unlock()
	a.reportAll(ctx)
}

func (a *Apps) reportAll(ctx context.Context) {
	if !a.m.Cluster.Status().Quorum {
		return
	}
	a.mu.Lock()
	left := maps.Clone(a.unreported)
	a.mu.Unlock()
	for name, c := range left {
		_, err := a.m.Cluster.Apply(ctx, c, a.m.self())
		if err != nil && !errors.Is(err, cluster.NotFound) {
			a.m.log.Warn("the cluster does not know of a restart yet", "application", name, "error", err)
			continue
		}
		a.mu.Lock()
		if a.unreported[name] == c {
			delete(a.unreported, name)
		}
		a.mu.Unlock()
	}
}
