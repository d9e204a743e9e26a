package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// forecastState has three nodes and a slot of each kind on node1.
func forecastState() (*cluster.State, Surroundings) {
	s := &cluster.State{Nodes: map[string]cluster.Node{}, Slots: map[string]cluster.Slot{}, Apps: map[string]cluster.App{}}
	around := Surroundings{Seen: map[string]Seen{}}
	for _, n := range []string{"node1", "node2", "node3"} {
		s.Nodes[n] = cluster.Node{Name: n, Protector: cluster.ByFile}
		around.Seen[n] = Seen{Answers: true}
		around.Voters = append(around.Voters, n)
	}
	for label, seat := range map[string]cluster.Seat{"auto": {Mode: cluster.Generated}, "hand": {Mode: cluster.Manual}} {
		seat.Node, seat.Module, seat.State = "node1", "softhsm", cluster.Active
		s.Slots[label] = cluster.Slot{Label: label, Seats: map[string]cluster.Seat{"node1": seat}}
	}
	s.Apps["ca"] = cluster.App{Name: "ca", Slots: []string{"hand", "auto"}}
	s.Apps["va"] = cluster.App{Name: "va", Slots: []string{"auto"}, After: []string{"ca"}}
	s.Apps["web"] = cluster.App{Name: "web", Slots: []string{"auto"}, Nodes: []string{"node1"}}
	s.Apps["elsewhere"] = cluster.App{Name: "elsewhere", Slots: []string{"auto"}, Nodes: []string{"node2"}}
	return s, around
}

func TestForecast(t *testing.T) {
	seat := func(s *cluster.State, label string, change func(*cluster.Seat)) {
		v := s.Slots[label].Seats["node1"]
		change(&v)
		s.Slots[label].Seats["node1"] = v
	}
	for _, c := range []struct {
		name            string
		change          func(*cluster.State, *Surroundings)
		closed, stopped string
		says            []string // in the sentence, or in a reason
	}{
		{"as it is", func(*cluster.State, *Surroundings) {}, "hand", "ca va", []string{"slot hand stays closed, and 2 applications stop (ca, va).", "has to enter it on node1", "after ca, which stops", "it waits for slot hand"}},
		{"all generated", func(s *cluster.State, _ *Surroundings) {
			seat(s, "hand", func(v *cluster.Seat) { v.Mode = cluster.Generated })
		}, "", "", []string{"all 2 slots open by themselves: nobody is needed."}},
		{"refused", func(s *cluster.State, _ *Surroundings) {
			seat(s, "auto", func(v *cluster.Seat) { v.CodeRefused = true })
		}, "auto hand", "ca va web", []string{"2 of 2 slots stay closed (auto, hand)", "another program"}},
		{"broken", func(s *cluster.State, _ *Surroundings) {
			seat(s, "auto", func(v *cluster.Seat) { v.State, v.Reason = cluster.Broken, "no device" })
		}, "auto hand", "ca va web", []string{"does not work now: no device"}},
		{"module down", func(_ *cluster.State, a *Surroundings) {
			a.Seen["node1"] = Seen{Answers: true, Health: Health{Modules: []string{"softhsm"}}}
		}, "auto hand", "ca va web", []string{"module softhsm does not run"}},
		{"in shares", func(s *cluster.State, _ *Surroundings) {
			seat(s, "auto", func(v *cluster.Seat) { v.Mode, v.Generation = cluster.Shared, 2 })
			slot := s.Slots["auto"]
			slot.Custody = []cluster.Split{{Generation: 2, Threshold: 2, Shares: []cluster.Share{{Account: "anna"}, {Account: "berta"}, {Account: "clara"}}}}
			s.Slots["auto"] = slot
		}, "auto hand", "ca va web", []string{"2 of its 3 custodians have to open it together: anna, berta, clara"}},
		{"passphrase", func(s *cluster.State, _ *Surroundings) {
			s.Nodes["node1"] = cluster.Node{Protector: cluster.ByPassphrase}
		}, "auto hand", "ca va web", []string{"stays closed as a whole", "once the passphrase", "unseal"}},
		{"passphrase from a file", func(s *cluster.State, _ *Surroundings) {
			s.Nodes["node1"] = cluster.Node{Protector: cluster.ByCredential}
		}, "hand", "ca va", []string{"slot hand stays closed"}},
		{"silent", func(_ *cluster.State, a *Surroundings) { a.Seen["node1"] = Seen{} }, "hand", "ca va", []string{"does not answer"}},
		{"another voter is away", func(_ *cluster.State, a *Surroundings) { a.Seen["node2"] = Seen{} }, "hand", "ca va", []string{"nothing can be changed in the cluster: only 1 of the 2"}},
		{"no slots", func(s *cluster.State, _ *Surroundings) { s.Slots, s.Apps = nil, nil }, "", "", []string{"it has no slot"}},
		{"one slot", func(s *cluster.State, _ *Surroundings) { delete(s.Slots, "hand"); s.Apps = nil }, "", "", []string{"its slot opens by itself"}},
		{"a circle", func(s *cluster.State, _ *Surroundings) {
			a := s.Apps["ca"]
			a.After = []string{"va"}
			s.Apps["ca"] = a
		}, "hand", "ca va", nil},
	} {
		s, around := forecastState()
		c.change(s, &around)
		f := NewForecast(s, "node1", around)
		if got := strings.Join(f.Closed(), " "); got != c.closed {
			t.Errorf("%s: closed are %q, want %q", c.name, got, c.closed)
		}
		if got := strings.Join(f.Stopped(), " "); got != c.stopped {
			t.Errorf("%s: stopped are %q, want %q", c.name, got, c.stopped)
		}
		text := []string{f.Sentence, f.Waits, f.Doubt, f.Quorum}
		for _, slot := range f.Slots {
			text = append(text, slot.Why)
		}
		for _, app := range f.Apps {
			text = append(text, app.Why)
		}
		for _, want := range c.says {
			if !strings.Contains(strings.Join(text, "\n"), want) {
				t.Errorf("%s: %q is not said in\n%s", c.name, want, strings.Join(text, "\n"))
			}
		}
		if slices.ContainsFunc(f.Apps, func(a AppForecast) bool { return a.App == "elsewhere" }) {
			t.Errorf("%s: an application of another node is forecast", c.name)
		}
	}
}

func TestCustodyMap(t *testing.T) {
	s, _ := forecastState()
	slot := s.Slots["auto"]
	slot.RotateEvery = 90
	s.Slots["auto"] = slot
	list := CustodyMap(s)
	if len(list) != 2 || list[0].Slot != "auto" || list[0].Protector != cluster.ByFile || list[0].Rotate != 90 || list[0].Due.IsZero() {
		t.Errorf("custody: %+v", list)
	}
	if hand := list[1]; hand.Mode != cluster.Manual || hand.Protector != "" || !hand.Due.IsZero() {
		t.Errorf("a manual slot: %+v", hand)
	}
}
