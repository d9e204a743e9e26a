package cluster

import (
	"strings"
	"testing"
	"time"
)

// settingsHistory lets root take over from anna and set everything there is.
func settingsHistory() []step {
	return []step{
		{"node1", anna, &TakeLease{ID: "lease-1"}},
		{"node2", console, &TakeOverLease{ID: "lease-2", From: "lease-1", Holder: anna}},
		{"node2", console, &ExtendLease{ID: "lease-2"}},
		{"node2", console, &SetSettings{Lease: "lease-2", ClockLimit: 60, SessionIdle: 30, PackageLife: 48, Notice: "For staff only."}},
	}
}

// TestLease has two people change the settings, by turns and against each other.
func TestLease(t *testing.T) {
	base := play(t, new(State), append(founding(), append(admission("node2", 2), person("berta", RoleGrant{Role: SecurityOfficer}))...)...)
	berta := as("berta")
	takes := func(who Actor, id string) step { return step{"node1", who, &TakeLease{ID: id}} }
	saves := func(who Actor, lease string, saw uint64) step {
		return step{"node1", who, &SetSettings{Lease: lease, Replaces: saw, SessionIdle: 20}}
	}
	over := func(who Actor, id, from string, holder Actor) step {
		return step{"node1", who, &TakeOverLease{ID: id, From: from, Holder: holder}}
	}
	extends := func(who Actor, id string) step { return step{"node1", who, &ExtendLease{ID: id}} }
	releases := func(who Actor, id string) step { return step{"node1", who, &ReleaseLease{ID: id}} }
	const life = uint64(LeaseTime / time.Second) // an entry comes each second
	for name, c := range map[string]struct {
		before []step
		wait   uint64 // seconds between the steps before and the last
		last   step
		code   Code // 0: it works
		says   string
	}{
		"free":                         {nil, 0, takes(anna, "a"), 0, ""},
		"held":                         {[]step{takes(anna, "a")}, 0, takes(berta, "b"), Conflict, "anna on node1 changes the settings now, until"},
		"held by oneself":              {[]step{takes(anna, "a")}, 0, takes(anna, "b"), 0, ""},
		"just before its end":          {[]step{takes(anna, "a")}, life - 2, takes(berta, "b"), Conflict, "anna"},
		"at its end":                   {[]step{takes(anna, "a")}, life - 1, takes(berta, "b"), 0, ""},
		"extended":                     {[]step{takes(anna, "a"), extends(anna, "a")}, life - 2, takes(berta, "b"), Conflict, "anna"},
		"extended too late":            {[]step{takes(anna, "a")}, life, extends(anna, "a"), Expired, "your time to change the settings ended"},
		"released":                     {[]step{takes(anna, "a"), releases(anna, "a")}, 0, takes(berta, "b"), 0, ""},
		"released by another":          {[]step{takes(anna, "a")}, 0, releases(berta, "a"), Conflict, "anna"},
		"extended by another":          {[]step{takes(anna, "a")}, 0, extends(berta, "a"), Conflict, "anna"},
		"extended by another's id":     {[]step{takes(anna, "a")}, 0, extends(anna, "x"), Conflict, "begun anew elsewhere"},
		"saved":                        {[]step{takes(anna, "a")}, 0, saves(anna, "a", 0), 0, ""},
		"saved without":                {nil, 0, saves(anna, "a", 0), Expired, "nobody does"},
		"saved by another":             {[]step{takes(anna, "a")}, 0, saves(berta, "a", 0), Conflict, "anna on node1"},
		"saved too late":               {[]step{takes(anna, "a")}, life, saves(anna, "a", 0), Expired, "nobody changes them now"},
		"saved too late, another has":  {[]step{takes(anna, "a"), releases(anna, "a"), takes(berta, "b")}, 0, saves(anna, "a", 0), Conflict, "berta on node1 changes the settings now"},
		"saved twice":                  {[]step{takes(anna, "a"), saves(anna, "a", 0)}, 0, saves(anna, "a", 0), Expired, "begin again"},
		"saved of another version":     {[]step{takes(anna, "a")}, 0, saves(anna, "a", 7), Changed, "meanwhile"},
		"lost, and of another version": {[]step{takes(anna, "a"), over(berta, "b", "a", anna)}, 0, saves(anna, "a", 7), Conflict, "berta on node1 has taken over from you"},
		"taken over":                   {[]step{takes(anna, "a"), over(berta, "b", "a", anna)}, 0, saves(berta, "b", 0), 0, ""},
		"taken over and done":          {[]step{takes(anna, "a"), over(berta, "b", "a", anna), saves(berta, "b", 0)}, 0, saves(anna, "a", 0), Expired, "berta on node1 has taken over from you"},
		"taken over by its holder":     {[]step{takes(anna, "a")}, 0, over(anna, "b", "a", anna), Conflict, "already"},
		"taken over from nobody":       {nil, 0, over(berta, "b", "a", anna), Expired, "nobody"},
		"taken over when it is ended":  {[]step{takes(anna, "a")}, life, over(berta, "b", "a", anna), Expired, "nobody"},
		"taken over from another":      {[]step{takes(anna, "a")}, 0, over(berta, "b", "a", as("carl")), Conflict, "not whom you saw"},
		"taken over of another id":     {[]step{takes(anna, "a")}, 0, over(berta, "b", "x", anna), Conflict, "not whom you saw"},
		"taken over back":              {[]step{takes(anna, "a"), over(berta, "b", "a", anna), over(anna, "c", "b", berta)}, 0, saves(anna, "c", 0), 0, ""},
		"root on another node":         {[]step{{"node1", console, &TakeLease{ID: "a"}}}, 0, step{"node2", console, &TakeLease{ID: "b"}}, Conflict, "root on node1"},
		"one account on two nodes":     {[]step{takes(anna, "a")}, 0, step{"node2", anna, &SetSettings{Lease: "a", SessionIdle: 5}}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, base, c.before...)
			s.Index += c.wait
			next, err := try(t, s, c.last)
			if c.code == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantCode(t, err, c.code)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q does not say %q", err, c.says)
			}
			if next.Lease != s.Lease || next.Settings != s.Settings {
				t.Error("a refused command changed something")
			}
		})
	}
}

// TestLeaseIsKept: who holds it and begins again goes on with the same lease, so that nothing entered is lost.
func TestLeaseIsKept(t *testing.T) {
	s := play(t, new(State), append(founding(), step{"node1", anna, &TakeLease{ID: "a"}})...)
	first := s.Lease
	s = play(t, s, step{"node1", anna, &TakeLease{ID: "b"}})
	if l := s.Lease; l.ID != "a" || !l.Since.Equal(first.Since) || !l.Until.After(first.Until) || l.Until.Sub(first.Until) != time.Second {
		t.Errorf("the lease is %+v after %+v", l, first)
	}
}

// TestTakeOverIsTold: in the state, for both, and in the trail.
func TestTakeOverIsTold(t *testing.T) {
	s := play(t, new(State), history()...)
	var act *Entry
	for i := range s.Audit {
		if s.Audit[i].Act == "lease.take-over" {
			act = &s.Audit[i]
		}
	}
	if act == nil || act.Actor != console || act.Detail != "from account/anna" || act.Result != Done {
		t.Errorf("the trail says %+v", act)
	}
	if l := s.Lease; l.TakenFrom != "lease-1" || l.Before == nil || *l.Before != anna || l.Held(l.Until) || !l.Held(l.Until.Add(-1)) {
		t.Errorf("the lease is %+v", l)
	}
	last := s.Audit[len(s.Audit)-1]
	if want := "clocks may be 60 s apart, idle sessions end after 30 min, packages are good for 48 h, notice: For staff only."; last.Act != "settings.set" || last.Detail != want {
		t.Errorf("the trail says %+v", last)
	}
	if s.Settings.By != "console/root" || s.Settings.Version == 0 || s.Settings.Set.IsZero() {
		t.Errorf("the settings are %+v", s.Settings)
	}
	if got := (Settings{}).Words(); got != "nothing is set" {
		t.Error(got)
	}
}

// TestCheckSettings tells good values from bad ones.
func TestCheckSettings(t *testing.T) {
	for _, s := range []Settings{{}, {ClockLimit: 1, SessionIdle: 1, PackageLife: 1, Notice: "x"},
		{ClockLimit: 300, SessionIdle: 480, PackageLife: 2160, Notice: strings.Repeat("ü", 250)}} {
		if err := CheckSettings(s); err != nil {
			t.Error(err)
		}
	}
	for name, s := range map[string]Settings{
		"clock limit, negative": {ClockLimit: -1}, "clock limit, large": {ClockLimit: 301}, "idle, negative": {SessionIdle: -1}, "idle, large": {SessionIdle: 481},
		"life, negative": {PackageLife: -1}, "life, large": {PackageLife: 2161}, "life, huge": {PackageLife: 1 << 62}, "notice, long": {Notice: strings.Repeat("ü", 250) + "x"},
		"notice, NUL": {Notice: "a\x00b"}, "notice, two lines": {Notice: "a\nb"}, "notice, no UTF-8": {Notice: "a\xff"}, "notice, space": {Notice: " a"}, "notice, huge": {Notice: strings.Repeat("x", 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			wantCode(t, CheckSettings(s), Invalid)
			wantCode(t, (&SetSettings{Lease: "a", ClockLimit: s.ClockLimit, SessionIdle: s.SessionIdle, PackageLife: s.PackageLife, Notice: s.Notice}).validate(), Invalid)
		})
	}
	for _, bad := range []Command{&TakeLease{}, &TakeLease{ID: "a b"}, &ExtendLease{}, &ReleaseLease{ID: strings.Repeat("x", 200)}, &SetSettings{},
		&TakeOverLease{ID: "a", From: "", Holder: anna}, &TakeOverLease{ID: "a", From: "b"}} {
		wantCode(t, bad.validate(), Invalid)
	}
}
