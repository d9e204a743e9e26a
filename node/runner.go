package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A runner restarts applications one after the other, in their order, and tries again what failed. It
// knows nothing of how a restart is done.
type runner struct {
	apps  func() map[string]cluster.App // of this node
	waits func(name string) string      // what one waits for before it can be started
	// run restarts one application in the name of actor. tried is false where that was not permitted.
	run func(ctx context.Context, app cluster.App, actor cluster.Actor, run cluster.Run) (tried bool, err error)
	// tell makes known that an application was not restarted.
	tell func(ctx context.Context, app string, run cluster.Run)
	self cluster.Actor

	turn chan struct{} // holds one element while a restart runs
	wake chan struct{}

	mu      sync.Mutex
	plans   map[string]plan // by application
	failing map[string]bool // its last restart failed, or was left out
	asked   uint64
}

// A plan is a restart that is to come.
type plan struct {
	id      uint64 // a newer plan replaces an older one
	reason  string
	try     int // from 1
	due     time.Time
	blocked bool // until those that must be up first are
}

// pauses are how long a restart that failed waits for its next try. What fails for want of something that
// comes by itself works after one of them; what does not needs people.
var pauses = []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute}

// restartTries is how often a restart is tried in all.
var restartTries = 1 + len(pauses)

func newRunner() *runner {
	return &runner{turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), plans: map[string]plan{}, failing: map[string]bool{}}
}

// ask has applications restarted soon, in their order. It replaces what was planned for them.
func (r *runner) ask(reason string, names ...string) {
	r.mu.Lock()
	for _, name := range names {
		r.put(name, plan{reason: reason, try: 1, due: time.Now()})
	}
	r.mu.Unlock()
	r.nudge()
}

// put stores a plan under a new id. The caller holds mu.
func (r *runner) put(name string, p plan) plan {
	r.asked++
	p.id = r.asked
	r.plans[name] = p
	return p
}

func (r *runner) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// next is when an application is tried again; zero: not by itself.
func (r *runner) next(name string) (again time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.plans[name]; ok && !p.blocked {
		return p.due
	}
	return time.Time{}
}

// now restarts applications at once, in their order, and returns what came of each.
func (r *runner) now(ctx context.Context, reason string, names []string) []RestartResult {
	results := []RestartResult{}
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return results
	}
	for _, name := range inOrder(r.apps(), names) {
		if why := r.waits(name); why != "" {
			results = append(results, RestartResult{App: name, Detail: "it waits for " + why + ", and is restarted then"})
			continue
		}
		r.mu.Lock()
		p := r.put(name, plan{reason: reason, try: 1})
		r.mu.Unlock()
		results = append(results, r.one(ctx, name, p))
	}
	return results
}

// force restarts one application for somebody who wants just that, whatever it waits for.
func (r *runner) force(ctx context.Context, actor cluster.Actor, name, reason string) (RestartResult, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return RestartResult{}, ctx.Err()
	}
	r.mu.Lock()
	before, planned := r.plans[name]
	p := r.put(name, plan{reason: reason, try: 1})
	r.mu.Unlock()
	res, tried, err := r.attempt(ctx, name, actor, p)
	if !tried { // it is as if nobody had asked
		r.mu.Lock()
		if r.plans[name].id == p.id {
			delete(r.plans, name)
			if planned {
				r.plans[name] = before
			}
		}
		r.mu.Unlock()
		r.nudge()
	}
	return res, err
}

// loop carries out plans until ctx ends.
func (r *runner) loop(ctx context.Context) {
	for {
		next := r.carryOut(ctx)
		var alarm <-chan time.Time
		if !next.IsZero() {
			alarm = time.After(time.Until(next))
		}
		select {
		case <-r.wake:
		case <-alarm:
		case <-ctx.Done():
			return
		}
	}
}

// carryOut restarts what is due, and returns when more will be.
func (r *runner) carryOut(ctx context.Context) (next time.Time) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return time.Time{}
	}
	for _, name := range inOrder(r.apps(), r.due()) {
		r.mu.Lock()
		p, planned := r.plans[name]
		r.mu.Unlock()
		switch {
		case !planned || ctx.Err() != nil:
		case r.waits(name) != "":
			r.drop(name, p) // whoever opens its slots has it restarted
		default:
			r.one(ctx, name, p)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.plans {
		if !p.blocked && (next.IsZero() || p.due.Before(next)) {
			next = p.due
		}
	}
	return next
}

// due names the applications whose time has come, and forgets those that are gone.
func (r *runner) due() []string {
	apps := r.apps()
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.plans, func(name string, _ plan) bool {
		return apps[name].Restart.Kind == "" || apps[name].Restart.Kind == cluster.RestartNone
	})
	maps.DeleteFunc(r.failing, func(name string, _ bool) bool { _, ok := apps[name]; return !ok })
	var names []string
	for name, p := range r.plans {
		if p.blocked && r.failedBefore(apps[name]) == "" || !p.blocked && !p.due.After(time.Now()) {
			names = append(names, name)
		}
	}
	return names
}

// drop forgets a plan, unless a newer one has replaced it.
func (r *runner) drop(name string, p plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plans[name].id == p.id {
		delete(r.plans, name)
	}
}

// failedBefore names an application that must be up before app and is not. The caller holds mu.
func (r *runner) failedBefore(app cluster.App) string {
	i := slices.IndexFunc(app.After, func(name string) bool { return r.failing[name] })
	if i < 0 {
		return ""
	}
	return app.After[i]
}

// one restarts an application by a plan, unless one that must be up first failed.
func (r *runner) one(ctx context.Context, name string, p plan) RestartResult {
	app := r.apps()[name]
	r.mu.Lock()
	before := r.failedBefore(app)
	if before != "" {
		r.failing[name] = true
		p.blocked = true
		if r.plans[name].id == p.id {
			r.plans[name] = p
		}
	}
	r.mu.Unlock()
	if before == "" {
		res, _, _ := r.attempt(ctx, name, r.self, p)
		return res
	}
	res := RestartResult{App: name, Detail: fmt.Sprintf("application %s, which must be up first, was not restarted", before)}
	r.tell(ctx, name, cluster.Run{Detail: res.Detail, Reason: p.reason, Tries: restartTries})
	return res
}

// attempt restarts an application and plans the next try if that failed.
func (r *runner) attempt(ctx context.Context, name string, actor cluster.Actor, p plan) (res RestartResult, tried bool, err error) {
	app, ok := r.apps()[name]
	if !ok {
		r.drop(name, p)
		return res, false, refuse("application %q does not run on this node", name)
	}
	tried, err = r.run(ctx, app, actor, cluster.Run{Reason: p.reason, Try: p.try, Tries: restartTries})
	res = RestartResult{App: name, OK: err == nil}
	if err != nil {
		res.Detail = line(err.Error())
	}
	if !tried && actor != r.self {
		return RestartResult{}, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := r.plans[name].id == p.id
	switch {
	case err == nil:
		delete(r.failing, name)
		if newest {
			delete(r.plans, name)
		}
		r.nudge() // others may have waited for it
	case newest && p.try < restartTries && ctx.Err() == nil:
		r.failing[name] = true
		p.due, p.try, p.blocked = time.Now().Add(pauses[p.try-1]), p.try+1, false
		r.plans[name] = p
		r.nudge()
	default:
		r.failing[name] = true
		if newest {
			delete(r.plans, name)
		}
	}
	return res, tried, err
}
