package node

import (
	"reflect"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

func TestLosses(t *testing.T) {
	keys := func(fingerprints ...string) cluster.Inventory {
		i := cluster.Inventory{Keys: map[string]cluster.Held{}}
		for _, fp := range fingerprints {
			i.Keys[fp] = cluster.Held{}
		}
		return i
	}
	s := &cluster.State{
		Nodes: map[string]cluster.Node{"node1": {Name: "node1"}, "node2": {Name: "node2"}, "node3": {Name: "node3"}},
		Slots: map[string]cluster.Slot{
			"payments": {Label: "payments", Seats: map[string]cluster.Seat{"node1": {}, "node2": {Mode: cluster.Shared}}},
			"ca":       {Label: "ca", Seats: map[string]cluster.Seat{"node2": {Next: 1}}},
			"tsa":      {Label: "tsa", Seats: map[string]cluster.Seat{"node1": {}}},
		},
		Keys: map[string]map[string]cluster.Inventory{
			"payments": {"node1": keys("a", "b"), "node2": keys("b", "c")},
			"ca":       {"node2": keys("d")},
		},
		Apps: map[string]cluster.App{"here": {Nodes: []string{"node2"}}, "both": {Nodes: []string{"node1", "node2"}}, "all": {}},
	}
	want := Losses{Node: "node2", Member: true, Keys: 3, Alone: 2, Apps: []string{"here"}, Slots: []LossesSlot{
		{Slot: "ca", Keys: 1, Alone: 1, Shared: true, Others: []string{}}, {Slot: "payments", Keys: 2, Alone: 1, Shared: true, Others: []string{"node1"}}}}
	if got := losses(s, "node2"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := losses(s, "node4"); got.Member || len(got.Slots)+len(got.Apps)+got.Keys != 0 {
		t.Errorf("of no member: %+v", got)
	}
}
