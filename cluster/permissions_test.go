package cluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// roleActors are who tries each command, in the order of the columns of testdata/permissions.txt. The
// commands that are about a slot are about "payments" or a slot that is made by them.
var roleActors = []struct {
	column string
	roles  []RoleGrant
}{
	{"none", nil},
	{"au", []RoleGrant{{Role: Auditor}}},
	{"cu", []RoleGrant{{Role: CryptoUser}}},
	{"cu+", []RoleGrant{{Role: CryptoUser, Slots: []string{"payments"}}}},
	{"cu-", []RoleGrant{{Role: CryptoUser, Slots: []string{"other"}}}},
	{"co", []RoleGrant{{Role: CryptoOfficer}}},
	{"co+", []RoleGrant{{Role: CryptoOfficer, Slots: []string{"payments"}}}},
	{"co-", []RoleGrant{{Role: CryptoOfficer, Slots: []string{"other"}}}},
	{"so", []RoleGrant{{Role: SecurityOfficer}}},
}

// wantPermissions tries every command, and every act by its permission, role by role, and compares who may
// with the table that people can read. A command without a line fails.
func wantPermissions(t *testing.T, base *State, commands map[string]Command) {
	t.Helper()
	base = play(t, base, step{"node1", anna, &PutSeat{Slot: "other", Seat: testSeat("900")}})
	for i, r := range roleActors {
		base = unruled(t, base, person(fmt.Sprintf("role-%d", i), r.roles...))
	}
	for p, g := range grants {
		if len(g.roles) == 0 || p == MayEndAct {
			continue
		}
		act := &BeginAct{ID: "act-77", Act: "test", Object: "object", Permission: p}
		if g.slots {
			act.Slot = "payments"
		}
		commands["act by "+string(p)] = act
	}
	want := readTable(t, filepath.Join("testdata", "permissions.txt"))
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		var got []string
		for i := range roleActors {
			got = append(got, may(t, base, step{"node1", as(fmt.Sprintf("role-%d", i)), commands[name]}))
		}
		got = append(got, may(t, base, step{"node1", console, commands[name]}), may(t, base, step{"node1", daemon1, commands[name]}))
		line := fmt.Sprintf("%-28s %s", name, strings.Join(got, " "))
		if want[name] != strings.Join(got, " ") {
			t.Errorf("who may differs from testdata/permissions.txt; it is\n%s\nand there stands\n%-28s %s", line, name, want[name])
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("testdata/permissions.txt tells of %q, which there is not", name)
	}
}

// may tells whether a step is allowed: whatever else may be wrong with it, it is not denied.
func may(t *testing.T, s *State, st step) string {
	t.Helper()
	if _, err := try(t, s, st); isCode(err, Denied) {
		return "-"
	}
	return "y"
}

// readTable reads lines of a name, two spaces or more, and the rest, with single spaces in it.
func readTable(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\n"); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, "  ")
		if _, twice := table[name]; twice {
			t.Errorf("%s: %q is there twice", path, name)
		}
		table[name] = strings.Join(strings.Fields(rest), " ")
	}
	return table
}
