package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// CodeFile is the code of a slot as an application finds it on this node.
type CodeFile struct {
	Slot    string `json:"slot"`
	Path    string `json:"path"`
	URI     string `json:"uri"` // RFC 7512
	There   bool   `json:"there"`
	Problem string `json:"problem,omitempty"` // why it is not there
}

// delivery is what came of delivering codes last time.
type delivery struct {
	turn sync.Mutex // one at a time

	mu       sync.Mutex
	problems map[string]string // by path of the file; of the directory, why files cannot be removed
}

// Files lists the files by which an application of this node gets the codes of its slots. They are there
// while their slot is open.
func (a *Apps) Files(app cluster.App) []CodeFile {
	if app.Delivery.Kind != cluster.DeliverFile || !app.On(a.m.Name()) {
		return nil
	}
	a.delivery.mu.Lock()
	problems := maps.Clone(a.delivery.problems)
	a.delivery.mu.Unlock()
	var list []CodeFile
	for _, label := range app.Slots {
		f := CodeFile{Slot: label, Path: a.codes.path(app.Name, label), URI: a.codes.uri(app.Name, label)}
		if f.There = a.codes.there(app.Name, label); !f.There {
			f.Problem = problems[f.Path]
			switch {
			case a.codes.dir == "":
				f.Problem = errNoCodesDir.Error()
			case f.Problem == "":
				f.Problem = cmp.Or(a.m.Slots.withheld(app, label), "it is written in a moment")
			}
		}
		list = append(list, f)
	}
	return list
}

// withheld says why an application does not get the code of a slot now; empty: it does.
func (s *Slots) withheld(app cluster.App, label string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seats[label]
	switch {
	case t == nil:
		return "this node has no token in the slot"
	case t.rec.Mode != cluster.Generated && !app.Delivery.Manual:
		return "people hold the code of this slot, and the application does not ask for codes that people hold"
	case !t.open:
		return "the slot is not open"
	}
	return ""
}

// comes tells whether the code of a slot will be there in a moment without anybody's doing, as after a
// start of this program: a file from before then stays, so that applications need not know of it.
func (s *Slots) comes(label string) bool {
	if !s.m.Removed().IsZero() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.seats[label]
	return t != nil && t.rec.Mode == cluster.Generated && !t.open && !t.rec.Refused && !t.rec.Leaving
}

var errSlotClosed = errors.New("the slot is not open")

// code takes the code of an open slot from where the module holds it. The caller clears it.
func (s *Slots) code(label string) ([]byte, error) {
	s.mu.Lock()
	t := s.seats[label]
	s.mu.Unlock()
	if t == nil {
		return nil, s.absent(label)
	}
	t.changing.Lock() // a change of the code or the mode goes on to its end first
	defer t.changing.Unlock()
	rec := s.recordOf(t)
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return nil, err
	}
	code, held := mod.Token(rec.Serial).Code()
	if !held {
		return nil, errSlotClosed
	}
	return code, nil
}

// deliver makes the files with codes as they are to be: those of open slots are there, all others are not.
func (a *Apps) deliver(ctx context.Context) {
	a.delivery.turn.Lock()
	defer a.delivery.turn.Unlock()
	a.delivery.mu.Lock()
	before := a.delivery.problems
	a.delivery.mu.Unlock()
	keep := map[string]bool{}
	problems := map[string]string{}
	apps := a.here()
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		app := apps[name]
		if app.Delivery.Kind != cluster.DeliverFile {
			continue
		}
		for _, label := range app.Slots {
			path := a.codes.path(name, label)
			if a.m.Slots.comes(label) {
				keep[path] = true
			}
			if a.m.Slots.withheld(app, label) != "" {
				continue
			}
			err := a.deliverFile(ctx, app, label)
			if errors.Is(err, errSlotClosed) {
				continue // it was closed just now
			}
			if err != nil {
				problems[path] = line(err.Error())
				if before[path] != problems[path] { // say it once
					a.m.log.Error("a code cannot be delivered", "application", name, "slot", label, "error", err)
				}
				continue // an old file goes: the code in it may be another, or for another user
			}
			keep[path] = true
		}
	}
	removed, err := a.codes.sweep(func(app, file string) bool { return keep[a.codes.dir+"/"+app+"/"+file] })
	for _, path := range removed {
		a.m.log.Info("the file with a code was removed", "path", path)
	}
	if err != nil {
		problems[a.codes.dir] = err.Error()
		if before[a.codes.dir] != problems[a.codes.dir] {
			a.m.log.Error("files with codes cannot be removed", "directory", a.codes.dir, "error", err)
		}
	}
	a.delivery.mu.Lock()
	a.delivery.problems = problems
	a.delivery.mu.Unlock()
}

// deliverFile writes the code of a slot to a file. That is an act; looking whether it is there is none.
func (a *Apps) deliverFile(ctx context.Context, app cluster.App, label string) error {
	code, err := a.m.Slots.code(label)
	if err != nil {
		return err
	}
	defer clear(code)
	return a.codes.put(app.Name, label, code, app.Delivery, func(write func() error) error {
		detail := "the code of slot " + label + " to " + a.codes.path(app.Name, label) + ", node " + a.m.Name()
		return a.m.acts.doLocally(ctx, act{a.m.self(), cluster.MayRestartApps, "app.deliver", "app/" + app.Name, detail}, write)
	})
}

// fileProblem says which code of an application could not be delivered.
func (a *Apps) fileProblem(app cluster.App) error {
	a.delivery.mu.Lock()
	defer a.delivery.mu.Unlock()
	for _, label := range app.Slots {
		if p := a.delivery.problems[a.codes.path(app.Name, label)]; p != "" {
			return fmt.Errorf("the code of slot %s was not delivered: %s", label, p)
		}
	}
	return nil
}

// lines are the codes of an application's open slots as its restart command reads them on standard input:
// label, tab, code, line end. The caller clears them.
func (a *Apps) lines(app cluster.App) ([]byte, error) {
	const most = 32 + 1 + hsm.MaxCode + 1
	b := make([]byte, 0, most*len(app.Slots)) // never moved, so that no copy is left behind
	for _, label := range app.Slots {
		if a.m.Slots.withheld(app, label) != "" {
			continue
		}
		code, err := a.m.Slots.code(label)
		if errors.Is(err, errSlotClosed) {
			continue
		}
		if err == nil && bytes.ContainsAny(code, "\n\r\x00") {
			err = errors.New("the code of slot " + label + " contains a line end and cannot be delivered in lines: use a file")
		}
		if err != nil {
			clear(code)
			clear(b)
			return nil, err
		}
		b = append(append(append(append(b, label...), '\t'), code...), '\n')
		clear(code)
	}
	return b, nil
}
