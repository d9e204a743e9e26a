package cluster

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// A State in which everything is set survives both its JSON and its snapshot form.
func TestStateRoundTrip(t *testing.T) {
	s := play(t, new(State), append(history(), succession()...)...)
	wantAllSet(t, "State", reflect.ValueOf(*s))

	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var viaJSON State
	if err := unmarshal(b, &viaJSON); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, &viaJSON) {
		t.Errorf("JSON changes the state:\n%+v\n%+v", s, viaJSON)
	}

	var buf bytes.Buffer
	if err := s.encode(&buf); err != nil {
		t.Fatal(err)
	}
	viaSnapshot, err := decodeState(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, viaSnapshot) {
		t.Errorf("a snapshot changes the state:\n%+v\n%+v", s, viaSnapshot)
	}
	if s.Hash() != viaSnapshot.Hash() {
		t.Error("a snapshot changes the hash")
	}
}

// wantAllSet checks that every field of every type is set in at least one value, so that a new field
// cannot be forgotten in history.
func wantAllSet(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	set := make(map[string]bool)
	walk(path, v, set)
	for field, ok := range set {
		if !ok {
			t.Errorf("%s is set nowhere in history() and succession()", field)
		}
	}
}

func walk(path string, v reflect.Value, set map[string]bool) {
	set[path] = set[path] || !v.IsZero()
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().PkgPath() == "time" {
			return
		}
		for i := range v.NumField() {
			walk(v.Type().String()+"."+v.Type().Field(i).Name, v.Field(i), set)
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			walk(path+"[]", v.MapIndex(k), set)
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				walk(path+"[]", v.Index(i), set)
			}
		}
	}
}

// The same log gives the same state, whatever the order of maps was in between.
func TestDeterminism(t *testing.T) {
	want := play(t, new(State), append(history(), succession()...)...).Hash()
	for range 20 {
		if got := play(t, new(State), append(history(), succession()...)...).Hash(); got != want {
			t.Fatalf("the same log gave the hash %s, then %s", want, got)
		}
	}
}

// A state that a reader holds does not change while others are made from it.
func TestStatesAreImmutable(t *testing.T) {
	s := new(State)
	var states []*State
	var hashes []string
	for _, st := range append(history(), succession()...) {
		s = play(t, s, st)
		states, hashes = append(states, s), append(hashes, s.Hash())
	}
	s = play(t, s,
		step{"node1", anna, &RemoveNode{Node: "node2", GiveUp: true}},
		step{"node1", anna, &RemoveNode{Node: "node3"}},
		step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node1", GiveUp: true}},
		step{"node1", anna, &RemoveApp{Name: "ejbca"}},
		step{"node1", anna, &RemoveApp{Name: "database"}},
	)
	if len(s.Slots) != 0 || len(s.Keys) != 0 || len(s.Trust) != 0 || len(s.Apps) != 0 {
		t.Errorf("removal left something behind: %+v", s)
	}
	for i, old := range states {
		if old.Hash() != hashes[i] {
			t.Errorf("the state after entry %d changed later", i+1)
		}
	}
}

func TestRestoreIsStrict(t *testing.T) {
	var buf bytes.Buffer
	if err := play(t, new(State), append(history(), succession()...)...).encode(&buf); err != nil {
		t.Fatal(err)
	}
	good := buf.String()
	lines := strings.SplitAfter(strings.TrimSuffix(good, "\n"), "\n")
	firstSeat := strings.Index(good, `{"t":"seat"`)
	for name, bad := range map[string]string{
		"empty":                "",
		"no format":            strings.Join(lines[1:], ""),
		"other format":         strings.Replace(good, "keyferry-state-1", "keyferry-state-2", 1),
		"cut off":              strings.Join(lines[:len(lines)-1], ""),
		"cut off in a line":    good[:len(good)/2],
		"a line is missing":    strings.Join(append(lines[:5:5], lines[6:]...), ""),
		"a line comes twice":   strings.Join(append(lines[:6:6], lines[5:]...), ""),
		"goes on after end":    good + lines[3],
		"unknown field":        strings.Replace(good, `"serial":`, `"cereal":`, 1),
		"unknown type":         strings.Replace(good, `{"t":"trust"`, `{"t":"thrust"`, 1),
		"a child alone":        lines[0] + good[firstSeat:],
		"a line that is long":  lines[0] + strings.Repeat("x", maxRecord+1),
		"rest of another line": strings.Replace(good, "}\n", "} {}\n", 1),
		"no key":               strings.Replace(good, `{"t":"node","k":"node1"`, `{"t":"node"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if bad == good {
				t.Fatal("the case changes nothing")
			}
			_, err := decodeState(strings.NewReader(bad))
			wantCode(t, err, Internal)
		})
	}
}

// The audit trail stays bounded, counts on, and is not rewritten under a reader.
func TestAuditIsBounded(t *testing.T) {
	s := &State{Cluster: Info{ID: "c1"}}
	m := Meta{Time: epoch, Node: "node1", Actor: console}
	for range maxAudit {
		s.record(m, Entry{Act: "x"})
	}
	full := *s
	s.record(m, Entry{Act: "y"})
	if n := len(s.Audit); n != maxAudit-maxAudit/10+1 {
		t.Errorf("%d entries are left", n)
	}
	if first, last := s.Audit[0].Seq, s.Audit[len(s.Audit)-1].Seq; first != maxAudit/10+1 || last != maxAudit+1 {
		t.Errorf("entries %d to %d are left", first, last)
	}
	checkChain(t, s)
	checkChain(t, &full)
	if len(full.Audit) != maxAudit || full.Audit[0].Seq != 1 || full.Audit[maxAudit-1].Seq != maxAudit {
		t.Error("a state that was read before changed")
	}
}
