package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
)

// A Forecast is what happens if a node restarts now: which slots stay closed, and which applications stop.
type Forecast struct {
	Node     string         `json:"node"`
	Sentence string         `json:"sentence"`         // the whole of it, for people
	Waits    string         `json:"waits,omitempty"`  // why the node itself waits for somebody
	Doubt    string         `json:"doubt,omitempty"`  // why this may not be right
	Quorum   string         `json:"quorum,omitempty"` // what the cluster cannot do meanwhile
	Slots    []SlotForecast `json:"slots"`
	Apps     []AppForecast  `json:"applications"`
}

// SlotForecast is what becomes of one slot of the node.
type SlotForecast struct {
	Slot  string   `json:"slot"`
	Mode  string   `json:"mode"`
	Opens bool     `json:"opens"`         // by itself
	Why   string   `json:"why,omitempty"` // why it does not, and who must come
	Apps  []string `json:"applications"`  // that use it on the node
}

// AppForecast is what becomes of one application on the node.
type AppForecast struct {
	App   string `json:"application"`
	Stops bool   `json:"stops"`
	Why   string `json:"why,omitempty"` // what it waits for
}

// Closed are the slots that do not open by themselves.
func (f Forecast) Closed() []string {
	var list []string
	for _, s := range f.Slots {
		if !s.Opens {
			list = append(list, s.Slot)
		}
	}
	return list
}

// Stopped are the applications that do not come back by themselves.
func (f Forecast) Stopped() []string {
	var list []string
	for _, a := range f.Apps {
		if a.Stops {
			list = append(list, a.App)
		}
	}
	return list
}

// Surroundings is what a forecast needs besides the replicated state.
type Surroundings struct {
	Seen   map[string]Seen // by node
	Voters []string
}

// NewForecast tells what happens if a node restarts now. It is made of the replicated state and of what the
// nodes say of themselves, so any node can tell it of any other.
func NewForecast(s *cluster.State, node string, around Surroundings) Forecast {
	f := Forecast{Node: node, Slots: []SlotForecast{}, Apps: []AppForecast{}}
	seen := around.Seen[node]
	if !seen.Answers {
		f.Doubt = fmt.Sprintf("%s does not answer, so this is by what it told last.", node)
	}
	if s.Nodes[node].Protector == cluster.ByPassphrase {
		f.Waits = "somebody has to enter the passphrase of its node key on it (keyferry unseal)"
	}
	f.Quorum = withoutVoter(node, around)
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seat, ok := s.Slots[label].Seats[node]
		if !ok {
			continue
		}
		slot := SlotForecast{Slot: label, Mode: seat.Mode, Why: staysClosed(s.Slots[label], seat, seen), Apps: []string{}}
		if slot.Why == "" && f.Waits != "" {
			slot.Why = "it opens by itself once the passphrase of the node key was entered"
		}
		slot.Opens = slot.Why == ""
		f.Slots = append(f.Slots, slot)
	}
	f.forecastApps(s)
	f.Sentence = f.sentence()
	return f
}

// staysClosed tells why a slot does not open after a restart; "" when it does.
func staysClosed(slot cluster.Slot, seat cluster.Seat, seen Seen) string {
	switch {
	case seat.Mode == cluster.Manual:
		return fmt.Sprintf("somebody who knows its code has to enter it on %s", seat.Node)
	case seat.Mode != cluster.Generated:
		return sharedCloses(slot, seat)
	case seat.CodeRefused:
		return "its token refuses the stored code: another program has changed it. Enter the code as it is now, before the restart"
	case seen.Answers && slices.Contains(seen.Health.Modules, seat.Module):
		return fmt.Sprintf("its module %s does not run now", seat.Module)
	case seat.State == cluster.Broken:
		return "it does not work now: " + seat.Reason
	}
	return ""
}

// sharedCloses tells who must come for a code that exists only in shares.
func sharedCloses(slot cluster.Slot, seat cluster.Seat) string {
	threshold, holders := custodians(slot, seat)
	if threshold == 0 {
		return "its custodians have to open it together"
	}
	return fmt.Sprintf("%d of its %d custodians have to open it together: %s", threshold, len(holders), strings.Join(holders, ", "))
}

// forecastApps tells what becomes of the applications that use slots of the node.
func (f *Forecast) forecastApps(s *cluster.State) {
	stops := map[string]string{} // application -> what it waits for
	for _, name := range slices.Sorted(maps.Keys(s.Apps)) {
		app := s.Apps[name]
		if !app.On(f.Node) {
			continue
		}
		var closed []string
		for i := range f.Slots {
			if slot := &f.Slots[i]; slices.Contains(app.Slots, slot.Slot) {
				slot.Apps = append(slot.Apps, name)
				if !slot.Opens {
					closed = append(closed, slot.Slot)
				}
			}
		}
		stops[name] = ""
		if len(closed) > 0 {
			stops[name] = map[bool]string{true: "it waits for slot ", false: "it waits for the slots "}[len(closed) == 1] + strings.Join(closed, ", ")
		}
	}
	for again := true; again; { // what stops takes others with it
		again = false
		for _, name := range slices.Sorted(maps.Keys(stops)) {
			why := stops[name]
			for _, before := range s.Apps[name].After {
				if why == "" && stops[before] != "" {
					stops[name], again = "it starts after "+before+", which stops", true
					break
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(stops)) {
		f.Apps = append(f.Apps, AppForecast{name, stops[name] != "", stops[name]})
	}
}

func (f *Forecast) sentence() string {
	closed, stopped := f.Closed(), f.Stopped()
	begin := fmt.Sprintf("If %s restarts now, ", f.Node)
	apps := ""
	if len(stopped) > 0 {
		apps = fmt.Sprintf(", and %s %s (%s)", countNoun(len(stopped), "application"), map[bool]string{true: "stops", false: "stop"}[len(stopped) == 1], strings.Join(stopped, ", "))
	}
	switch {
	case f.Waits != "":
		return begin + "it stays closed as a whole until somebody enters the passphrase of its node key" + apps + "."
	case len(f.Slots) == 0:
		return begin + "nobody is needed: it has no slot."
	case len(closed) == 0 && len(f.Slots) == 1:
		return begin + "its slot opens by itself: nobody is needed."
	case len(closed) == 0:
		return begin + fmt.Sprintf("all %d slots open by themselves: nobody is needed.", len(f.Slots))
	case len(closed) == 1:
		return begin + fmt.Sprintf("slot %s stays closed%s.", closed[0], apps)
	}
	return begin + fmt.Sprintf("%d of %d slots stay closed (%s)%s.", len(closed), len(f.Slots), strings.Join(closed, ", "), apps)
}

func countNoun(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// withoutVoter tells what the cluster cannot do while a node is away.
func withoutVoter(node string, around Surroundings) string {
	if len(around.Voters) < 2 || !slices.Contains(around.Voters, node) {
		return ""
	}
	left := 0
	for _, v := range around.Voters {
		if v != node && around.Seen[v].Answers {
			left++
		}
	}
	if need := len(around.Voters)/2 + 1; left < need {
		return fmt.Sprintf("While it is away, nothing can be changed in the cluster: only %d of the %d nodes that are needed would answer.", left, need)
	}
	return ""
}

// Forecasts tells of each node what happens if it restarts now.
func (m *Member) Forecasts() []Forecast {
	s := m.State()
	around := Surroundings{Seen: map[string]Seen{}, Voters: m.Cluster.Status().Voters}
	for name := range s.Nodes {
		around.Seen[name] = m.Peers.Seen(name)
	}
	list := make([]Forecast, 0, len(s.Nodes))
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		list = append(list, NewForecast(s, name, around))
	}
	return list
}
