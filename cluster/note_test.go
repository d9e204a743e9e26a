package cluster

import (
	"strings"
	"testing"
)

// A note names the person, not the node that tells of them.
func TestRecordNote(t *testing.T) {
	s := play(t, new(State), history()...)
	for _, actor := range []Actor{anna, {ByAccount, "removed"}, console, daemon2} {
		next := play(t, s, step{"node2", daemon2, &RecordNote{Actor: actor, Act: NoteLoginRefused, Object: "account/anna", Result: Refused, Detail: "wrong password"}})
		e := next.Audit[len(next.Audit)-1]
		if len(next.Audit) != len(s.Audit)+1 || e.Actor != actor || e.Node != "node2" || e.Act != NoteLoginRefused || e.Result != Refused || e.Detail != "wrong password" {
			t.Errorf("note about %s: %+v", actor, e)
		}
	}
}

func TestNotesAreBounded(t *testing.T) {
	good := RecordNote{Actor: anna, Act: NoteLogin, Object: "account/anna", Result: Done}
	for name, change := range map[string]func(*RecordNote){
		"an act of another kind": func(n *RecordNote) { n.Act = "seat.put" },
		"no act":                 func(n *RecordNote) { n.Act = "" },
		"no actor":               func(n *RecordNote) { n.Actor = Actor{} },
		"no object":              func(n *RecordNote) { n.Object = "" },
		"a beginning":            func(n *RecordNote) { n.Result = Started },
		"a long object":          func(n *RecordNote) { n.Object = strings.Repeat("x", maxText+1) },
		"a long detail":          func(n *RecordNote) { n.Detail = strings.Repeat("x", maxText+1) },
		"a line break":           func(n *RecordNote) { n.Detail = "a\nb" },
		"not UTF-8":              func(n *RecordNote) { n.Detail = "a\xff" },
	} {
		t.Run(name, func(t *testing.T) {
			if err := good.validate(); err != nil {
				t.Fatal(err)
			}
			bad := good
			change(&bad)
			wantCode(t, bad.validate(), Invalid)
		})
	}
}
