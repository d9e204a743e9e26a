package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cluster"
)

// inOrder sorts names of applications so that each comes after those that must be up before it, and by
// name where that leaves a choice. The cluster takes no order with circles.
func inOrder(apps map[string]cluster.App, names []string) []string {
	var all []string
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		for _, before := range slices.Sorted(slices.Values(apps[name].After)) {
			visit(before)
		}
		all = append(all, name)
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		visit(name)
	}
	return slices.DeleteFunc(all, func(name string) bool { return !slices.Contains(names, name) })
}

// waits says what an application waits for on a node before it can be started there; empty: nothing. slot
// tells whether the node has a token in a slot, and whether that is open.
func waits(apps map[string]cluster.App, name, node string, slot func(label string) (there, open bool)) string {
	app := apps[name]
	here := 0
	for _, label := range app.Slots {
		there, open := slot(label)
		if there {
			here++
		}
		if there && !open {
			return fmt.Sprintf("slot %s, which is not open", label)
		}
	}
	if here == 0 && len(app.Slots) > 0 {
		return fmt.Sprintf("one of its slots: node %s has none of them", node)
	}
	for _, before := range app.After {
		b, ok := apps[before]
		if !ok || !b.On(node) {
			continue
		}
		if why := waits(apps, before, node, slot); why != "" {
			return fmt.Sprintf("application %s, which waits for %s", before, why)
		}
	}
	return ""
}

// AppWaits says what an application waits for on a node, as far as the cluster knows; empty: nothing.
func AppWaits(s *cluster.State, name, node string) string {
	return waits(s.Apps, name, node, func(label string) (there, open bool) {
		seat, there := s.Slots[label].Seats[node]
		return there, seat.State == cluster.Active
	})
}

// Waits says what an application waits for on a node; empty: nothing. Of this node it knows at once.
func (a *Apps) Waits(name, node string) string {
	if node == a.m.Name() {
		return a.waits(name)
	}
	return AppWaits(a.m.State(), name, node)
}

// here are the applications of this node.
func (a *Apps) here() map[string]cluster.App {
	apps := maps.Clone(a.m.State().Apps)
	maps.DeleteFunc(apps, func(_ string, app cluster.App) bool { return !app.On(a.m.Name()) })
	return apps
}

// waits is the same for this node by what it knows itself, which needs no quorum. A slot whose module is
// just being restarted counts as open: it needs nobody, and applications have sessions of their own.
func (a *Apps) waits(name string) string {
	return waits(a.m.State().Apps, name, a.m.Name(), a.m.Slots.opened)
}

// opened tells whether this node has a token in a slot, and whether somebody has opened it.
func (s *Slots) opened(label string) (there, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, there := s.seats[label]
	return there, there && t.open
}
