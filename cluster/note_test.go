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

// What was done is recorded, whatever became of its actor meanwhile.
func TestRecordAct(t *testing.T) {
	base := play(t, new(State), history()...)
	otto := Actor{ByAccount, "otto"} // disabled
	begin := BeginAct{ID: "act-7", Act: "slot.activate", Object: "slot/payments", Slot: "payments", Permission: MayActivate}
	covered := play(t, base)
	covered.Policies = with(covered.Policies, "slot.activate", Policy{Act: "slot.activate", Needs: 1, Role: Auditor})
	for name, c := range map[string]struct {
		s     *State
		actor Actor
		alert string
	}{
		"as ever":          {base, anna, ""},
		"disabled":         {base, otto, AlertDenied},
		"gone":             {base, Actor{ByAccount, "removed"}, AlertDenied},
		"under a policy":   {covered, anna, ""},
		"at a console":     {base, console, ""},
		"by a daemon, bad": {base, daemon2, AlertDenied}, // nodes do not open slots with MayActivate
	} {
		s := play(t, c.s, step{"node2", daemon2, &RecordAct{Actor: c.actor, Begin: &begin}})
		e := s.Audit[len(s.Audit)-1]
		if e.Actor != c.actor || e.Node != "node2" || e.Act != begin.Act || e.Result != Started || e.ActID != begin.ID || e.Alert != c.alert {
			t.Errorf("%s: %+v", name, e)
		}
		_, err := try(t, s, step{"node2", daemon2, &RecordAct{Actor: c.actor, Begin: &begin}}) // sent again
		wantCode(t, err, Conflict)
		_, err = try(t, s, step{"node1", daemon1, &RecordAct{Actor: c.actor, End: &EndAct{ID: begin.ID, Result: Done}}})
		wantCode(t, err, Denied)
		s = play(t, s, step{"node2", daemon2, &RecordAct{Actor: c.actor, End: &EndAct{ID: begin.ID, Result: Done}}})
		if e := s.Audit[len(s.Audit)-1]; e.Actor != c.actor || e.Result != Done || e.ActID != begin.ID || e.Alert != "" || len(s.Approvals) != len(c.s.Approvals) {
			t.Errorf("%s, ended: %+v", name, e)
		}
		_, err = try(t, s, step{"node2", daemon2, &RecordAct{Actor: c.actor, End: &EndAct{ID: begin.ID, Result: Done}}})
		wantCode(t, err, NotFound)
	}
	_, err := try(t, base, step{"node2", daemon2, &RecordAct{Actor: daemon1, Begin: &begin}})
	wantCode(t, err, Denied)
	for name, bad := range map[string]*RecordAct{
		"nothing": {Actor: anna}, "no actor": {Begin: &begin}, "both": {Actor: anna, Begin: &begin, End: &EndAct{ID: "a", Result: Done}},
		"bad begin": {Actor: anna, Begin: &BeginAct{}}, "bad end": {Actor: anna, End: &EndAct{ID: "a", Result: Started}},
	} {
		if err := bad.validate(); asError(err).Code != Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
