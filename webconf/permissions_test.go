package webconf

import (
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// roleColumns are who asks for each route, in the order of the columns of testdata/permissions.txt. Routes
// of a slot are those of "payments".
var roleColumns = []struct {
	name  string
	roles []cluster.RoleGrant
}{
	{"none", nil},
	{"auditor", []cluster.RoleGrant{{Role: cluster.Auditor}}},
	{"cu-here", []cluster.RoleGrant{{Role: cluster.CryptoUser, Slots: []string{"payments"}}}},
	{"cu-other", []cluster.RoleGrant{{Role: cluster.CryptoUser, Slots: []string{"other"}}}},
	{"co", []cluster.RoleGrant{{Role: cluster.CryptoOfficer}}},
	{"co-here", []cluster.RoleGrant{{Role: cluster.CryptoOfficer, Slots: []string{"payments"}}}},
	{"co-other", []cluster.RoleGrant{{Role: cluster.CryptoOfficer, Slots: []string{"other"}}}},
	{"so", []cluster.RoleGrant{{Role: cluster.SecurityOfficer}}},
}

// stubbed are routes whose handlers do nothing: what is left is the way to them.
func stubbed(routes []route) []route {
	list := slices.Clone(routes)
	for i := range list {
		list[i].handle = func(c *call) error { return c.NoContent(http.StatusTeapot) }
	}
	return list
}

// routed is the path of a route with something in the place of its parameters.
func routed(path string) string {
	return fill(strings.ReplaceAll(path, ":label", "payments"))
}

// TestPermissions asks for every route of the console as people with each role, and for every route of the
// API at the console, and compares with a table that people can read. A route without a line fails.
func TestPermissions(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	a.slot(t, "payments", cluster.Generated)
	a.slot(t, "other", cluster.Generated)
	var people []*browser
	for _, c := range roleColumns {
		people = append(people, a.colleague(t, c.name, c.roles...))
	}
	e := a.web.router(stubbed(consoleRoutes()), (*call).fromBrowser, errorPage)
	a.site.Config.Handler = e
	got := map[string]string{}
	for _, r := range e.Routes() {
		var may []string
		for _, b := range people {
			may = append(may, answerOf(t, r.Method+" "+r.Path, b.do(r.Method, routed(r.Path), nil)))
		}
		got[r.Method+" "+r.Path] = strings.Join(may, " ")
	}
	s := newSocketFor(t, a.web.router(stubbed(apiRoutes()), (*call).fromSocket, apiError))
	for _, r := range apiRoutes() {
		got[r.method+" "+r.path] = answerOf(t, r.path, s.send(r.method, strings.TrimPrefix(routed(r.path), "/api/v1"), "", nil))
	}
	want := readTable(t, "permissions.txt")
	for _, key := range sortedKeys(got) {
		if got[key] != want[key] {
			t.Errorf("who may differs from testdata/permissions.txt; it is\n%-44s %s\nand there stands\n%-44s %s", key, got[key], key, want[key])
		}
		delete(want, key)
	}
	for key := range want {
		t.Errorf("testdata/permissions.txt tells of %q, which there is not", key)
	}
}

// answerOf is y where the handler was reached, and - where the answer was that it may not be.
func answerOf(t *testing.T, what string, r reply) string {
	t.Helper()
	switch r.status {
	case http.StatusTeapot:
		return "y"
	case http.StatusForbidden:
		return "-"
	}
	t.Errorf("%s: %d: %.200s", what, r.status, r.text())
	return "?"
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// readTable reads lines of method and path, and who may.
func readTable(t *testing.T, file string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		if len(f) < 3 {
			t.Fatalf("testdata/%s: %q", file, line)
		}
		key := f[0] + " " + f[1]
		if table[key] != "" {
			t.Errorf("testdata/%s has %s twice", file, key)
		}
		table[key] = strings.Join(f[2:], " ")
	}
	return table
}

// TestOtherSlots does with real handlers what a role for one slot must not do on another, where the slot is
// not in the address.
func TestOtherSlots(t *testing.T) {
	nodes := newCluster(t, 2)
	a := nodes[0]
	a.administrator(t)
	a.slot(t, "payments", cluster.Generated)
	a.slot(t, "other", cluster.Manual)
	nodes[1].slot(t, "other", cluster.Manual)
	generate(t, a.application(t, "other"), ecKey("one"))
	b := a.colleague(t, "carl", cluster.RoleGrant{Role: cluster.CryptoOfficer, Slots: []string{"payments"}})
	b.post("/new-slot", "label", "third", "mode", cluster.Generated).wants(t, http.StatusForbidden, "not for slot")
	if _, ok := a.State().Slots["third"]; ok {
		t.Error("a slot was made")
	}
	b.post("/new-application", "name", "x", "kind", cluster.RestartNone, "slots", "other").wants(t, http.StatusForbidden)
	before := fmt.Sprint(a.State().Apps, a.State().Packages)
	eventually(t, "a key can travel to node2", func() bool {
		p, err := a.Sync.Plan("other", []string{"node2"})
		return err == nil && len(p.Keys) == 1 && p.Receivers[0].Problem == "" && p.Receivers[0].Lacks == 1
	})
	job, err := a.Jobs.Await(t.Context(), path.Base(b.post("/sync/packages", "slot", "other", "to", "node2").location()))
	if err != nil || job.State != node.JobFailed || !strings.Contains(job.Error, "not for slot") {
		t.Errorf("a package of another slot: %+v, %v", job, err)
	}
	if trail := a.State().Audit; !slices.ContainsFunc(trail, func(e cluster.Entry) bool {
		return e.Act == "sync.build" && e.Result == cluster.Refused && e.Actor.Name == "carl"
	}) {
		t.Error("the refused package is not in the audit trail")
	}
	if after := fmt.Sprint(a.State().Apps, a.State().Packages); after != before {
		t.Error("something was made for another slot")
	}
}
