package cluster

import (
	"strings"
	"testing"
)

// TestChangedMeanwhile lets somebody replace what anna has changed since they looked: they are told who did it,
// and nothing is undone.
func TestChangedMeanwhile(t *testing.T) {
	app := func(name string) App { return App{Name: name, Restart: Restart{Kind: RestartNone}} }
	before := ruled(t)
	auditor := []RoleGrant{{Role: Auditor}}
	for name, c := range map[string]struct {
		meanwhile Command
		mine      func(saw *uint64) Command
		saw       uint64 // before the change
		says      string
	}{
		"account": {&PutAccount{Name: "zoe", FullName: "Zoe"}, func(saw *uint64) Command {
			return &PutAccount{Name: "zoe", Roles: auditor[:0], Disabled: true, Replaces: saw}
		},
			before.Accounts["zoe"].Version, `account "zoe" was changed meanwhile by anna`},
		"removed account": {&RemoveAccount{Name: "zoe"}, func(saw *uint64) Command { return &PutAccount{Name: "zoe", Replaces: saw} },
			before.Accounts["zoe"].Version, `account "zoe" was removed meanwhile by anna`},
		"application": {&PutApp{App: app("ejbca")}, func(saw *uint64) Command {
			return &PutApp{App: App{Name: "ejbca", Nodes: []string{"node1"}, Restart: Restart{Kind: RestartNone}}, Replaces: saw}
		}, before.Apps["ejbca"].Version, `application "ejbca" was changed meanwhile by anna`},
		"new application": {&PutApp{App: app("nginx")}, func(saw *uint64) Command { return &PutApp{App: app("nginx"), Replaces: saw} },
			0, `application "nginx" was made meanwhile by anna`},
		"policy": {&SetPolicy{Act: "node.remove", Needs: 1, Role: Auditor}, func(saw *uint64) Command {
			return &SetPolicy{Act: "node.remove", Needs: 2, Role: Auditor, Replaces: saw}
		},
			0, `policy "node.remove" was made meanwhile by anna`},
		"policy to remove": {&SetPolicy{Act: "node.remove", Needs: 1, Role: Auditor}, func(saw *uint64) Command { return &RemovePolicy{Act: "node.remove", Replaces: saw} },
			7, `policy "node.remove" was changed meanwhile by anna`},
	} {
		s := play(t, before, step{"node1", anna, c.meanwhile})
		after, err := try(t, s, step{"node1", console, c.mine(&c.saw)})
		wantCode(t, err, Changed)
		if !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if last := after.Audit[len(after.Audit)-1]; last.Result != Refused || last.Alert != "" {
			t.Errorf("%s: the trail has %+v", name, last)
		}
	}
}

// TestReplacesWhatItSaw does so where nothing else has changed, and where its author did not look.
func TestReplacesWhatItSaw(t *testing.T) {
	s := ruled(t)
	version := func() *uint64 { v := s.Accounts["zoe"].Version; return &v }
	s = play(t, s, step{"node1", sofie, &PutAccount{Name: "zoe", FullName: "Zoe", Replaces: version()}})
	s = play(t, s, step{"node1", anna, &EndSessions{Name: "zoe"}}) // no change of what the form shows
	s = play(t, s, step{"node1", sofie, &PutAccount{Name: "zoe", FullName: "Zoë", Replaces: version()}}, step{"node1", anna, &PutAccount{Name: "zoe", FullName: "Z."}})
	if a := s.Accounts["zoe"]; a.FullName != "Z." || a.Version != s.Index {
		t.Errorf("the account is %+v at %d", a, s.Index)
	}
	s = play(t, s, step{"node1", anna, &PutApp{App: App{Name: "ejbca", Version: 3, Restart: Restart{Kind: RestartNone}}}})
	if v := s.Apps["ejbca"].Version; v != s.Index {
		t.Errorf("an application's version is %d, at %d", v, s.Index)
	}
	wantCode(t, (&PutAccount{Name: "zoe", New: true, Hash: testHash, Replaces: new(uint64)}).validate(), Invalid)
}

// TestApprovedTooLate: what was approved is not done where somebody else has changed the account since it was
// asked for, and what is out of date already is not even asked for.
func TestApprovedTooLate(t *testing.T) {
	s := ruled(t, step{"node1", console, &SetPolicy{Act: "app.put", Needs: 1, Role: Auditor}})
	old := s.Apps["ejbca"].Version
	change := &PutApp{App: App{Name: "ejbca", Restart: Restart{Kind: RestartNone}}, Replaces: &old}
	other := &PutApp{App: App{Name: "ejbca", After: []string{"database"}, Restart: Restart{Kind: RestartNone}}, Replaces: &old}
	s = play(t, s, asks("1", "node1", anna, change), asks("2", "node1", anna, other))
	s = play(t, s, approves("vera", "2", "node1", anna, other))
	s = play(t, s, approves("vera", "1", "node1", anna, change))
	if a := s.Approvals["1"]; a.State != ApprovalFailed || !strings.Contains(a.Result, "changed meanwhile by anna") {
		t.Errorf("the request: %+v", a)
	}
	if len(s.Apps["ejbca"].After) != 1 {
		t.Errorf("the application: %+v", s.Apps["ejbca"])
	}
	_, err := try(t, s, asks("3", "node1", anna, change))
	wantCode(t, err, Changed)
}
