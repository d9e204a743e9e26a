package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// asJSON runs a command and reads what it prints.
func asJSON[T any](t *testing.T, d *testDemo, i int, args ...string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(d.must(t, i, "", append(args, "-o", "json")...)), &v); err != nil {
		t.Fatalf("keyferry %v: %v", args, err)
	}
	return v
}

// says wants a command to fail, with these words.
func (d *testDemo) says(t *testing.T, i int, words string, in string, args ...string) {
	t.Helper()
	if out, err := d.keyferry(i, in, args...); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("keyferry %v: %v, not %q\n%s", args, err, words, out)
	}
}

// peopleByCommand goes through people, policies and approvals as somebody at a console does. anna, bert and cleo
// have passwords of their own from the power cut.
func peopleByCommand(t *testing.T, d *testDemo) {
	zoe := asJSON[withPassword](t, d, 0, "people", "add", "zoe", "--full-name", "Zoë", "--role", "crypto-user=demo-ca,demo-auto")
	if zoe.FullName != "Zoë" || len(zoe.Password) != 20 || len(zoe.Roles) != 1 || len(zoe.Roles[0].Slots) != 2 {
		t.Errorf("added: %+v", zoe.Person)
	}
	d.says(t, 1, "already", "", "people", "add", "zoe")
	d.says(t, 1, "must be one of", "", "people", "roles", "zoe", "--role", "king")
	d.must(t, 1, "", "people", "roles", "zoe", "--role", "auditor")
	d.must(t, 1, "", "people", "disable", "zoe")
	if again := asJSON[withPassword](t, d, 1, "people", "password", "zoe"); again.Password == zoe.Password || !again.Disabled || rolesText(again.Roles) != "auditor" {
		t.Errorf("changed: %+v", again.Person)
	}
	d.settle(t, "node1 knows that zoe is disabled", func() bool { return strings.Contains(d.must(t, 0, "", "people"), "disabled") })
	d.must(t, 0, "", "people", "enable", "zoe")
	d.must(t, 0, "", "people", "remove", "zoe")
	d.says(t, 0, "no account", "", "people", "remove", "zoe")

	d.says(t, 0, "would let nothing pass", "", "policies", "set", "app.remove", "--needs", "1", "--role", "auditor")
	d.must(t, 0, "", "people", "roles", "bert", "--role", "crypto-user", "--role", "auditor")
	d.must(t, 0, "", "people", "roles", "cleo", "--role", "crypto-user", "--role", "auditor")
	d.must(t, 0, "", "policies", "set", "app.remove", "--needs", "1", "--role", "auditor")
	d.settle(t, "node3 knows the policy", func() bool {
		list := asJSON[[]node.PolicyView](t, d, 2, "policies")
		return len(list) == 1 && list[0].Act == "app.remove" && list[0].Could == 2
	})
	d.must(t, 0, "", "apps", "add", "nginx", "--slot", "demo-auto")
	d.says(t, 0, "approval of 2 people with the role auditor", "", "apps", "remove", "nginx") // at a console one more
	d.says(t, 0, "approval of 2 people", "", "apps", "remove", "nginx")
	waiting := asJSON[[]node.ApprovalView](t, d, 0, "approvals", "list")
	if len(waiting) != 1 || waiting[0].Act != "app.remove" || waiting[0].Object != "app/nginx" || waiting[0].Needs != 2 {
		t.Fatalf("approvals: %+v", waiting)
	}
	if out := d.must(t, 0, "", "approvals", "show", waiting[0].ID); !strings.Contains(out, "0 of 2") || !strings.Contains(out, waiting[0].Hash) {
		t.Errorf("the request:\n%s", out)
	}
	d.settle(t, "node2 knows the request", func() bool { return len(asJSON[[]node.ApprovalView](t, d, 1, "approvals", "list")) == 1 })
	d.says(t, 1, "only", "", "approvals", "withdraw", waiting[0].ID) // asked for on node1
	if v := asJSON[node.ApprovalView](t, d, 0, "approvals", "withdraw", waiting[0].ID); v.State != cluster.ApprovalWithdrawn {
		t.Errorf("withdrawn: %+v", v)
	}
	d.says(t, 0, "approval of 2 people", "", "policies", "remove", "app.remove")
	d.says(t, 0, "no request", "", "approvals", "show", "nothing")
}

// settingsByCommand changes what all nodes have in common, at the consoles of two of them.
func settingsByCommand(t *testing.T, d *testDemo) {
	v := asJSON[node.SettingsView](t, d, 0, "cluster", "set", "session_idle", "20m", "notice", "For staff only.")
	if len(v.Settings) != 4 || v.Settings[1].Value != "20" || v.Settings[3].Value != "For staff only." || v.Lease != nil {
		t.Errorf("set: %+v", v)
	}
	d.settle(t, "node2 has the settings", func() bool {
		out := d.must(t, 1, "", "cluster", "settings")
		return strings.Contains(out, "20 minutes") && strings.Contains(out, "For staff only.") && strings.Contains(out, "by console/")
	})
	d.says(t, 0, "KEY and its VALUE", "", "cluster", "set", "notice")
	d.says(t, 0, "KEY and its VALUE", "", "cluster", "set")
	d.says(t, 0, "twice", "", "cluster", "set", "notice", "a", "notice", "b")
	d.says(t, 0, "no setting", "", "cluster", "set", "name", "x")
	d.says(t, 0, "whole number of seconds", "", "cluster", "set", "clock_limit", "soon")
	d.says(t, 0, "between 0 and 300", "", "cluster", "set", "clock_limit", "6m")
	d.says(t, 0, "cannot be printed", "", "cluster", "set", "notice", "two\nlines")
	d.says(t, 0, "too long", "", "cluster", "set", "notice", strings.Repeat("x", 5000))

	if _, err := post[node.SettingsView](t.Context(), newClient(d.Nodes[0].Socket), "/cluster/settings/lease", struct{}{}); err != nil {
		t.Fatal(err)
	}
	d.settle(t, "node2 sees who changes the settings", func() bool { return strings.Contains(d.must(t, 1, "", "cluster", "settings"), "on node1") })
	d.says(t, 1, "on node1 changes the settings now", "", "cluster", "set", "notice", "")
	d.must(t, 1, "", "cluster", "set", "--take-over", "notice", "", "session_idle", "")
	d.settle(t, "node1 has the settings", func() bool {
		v := asJSON[node.SettingsView](t, d, 0, "cluster", "settings")
		return !v.Settings[1].Set && !v.Settings[3].Set && v.Lease == nil
	})
}

// nodesByCommand invites a node, and takes one out whose token custodians share.
func nodesByCommand(t *testing.T, d *testDemo) {
	inv := asJSON[node.Invitation](t, d, 0, "cluster", "invite", "node4")
	if inv.Node != "node4" || inv.Code == "" || inv.Fingerprint == "" {
		t.Errorf("the invitation: node %q, address %q", inv.Node, inv.Address)
	}
	d.says(t, 0, "not valid", "", "cluster", "invite", "Node 4")
	d.says(t, 0, "nowhere", "some code\n", "slots", "mode", "nowhere", "generated", "--present-code")
	d.says(t, 0, "--holders", "", "slots", "mode", "demo-auto", "shared")
	d.says(t, 2, "cannot remove itself", "", "cluster", "remove", "node3")
	d.says(t, 0, "vault", "", "cluster", "remove", "node3")
	d.says(t, 0, "--yes", "", "cluster", "remove", "node3", "--stolen")
	if list := asJSON[[]node.Theft](t, d, 0, "cluster", "stolen"); len(list) != 0 {
		t.Errorf("stolen before: %+v", list)
	}
	d.must(t, 0, "", "cluster", "remove", "node3", "--stolen", "--yes") // gives the shared slot up, too
	d.settle(t, "node2 has forgotten node3", func() bool { return len(asJSON[[]node.Theft](t, d, 1, "cluster", "stolen")) == 1 })
	list := asJSON[[]node.Theft](t, d, 1, "cluster", "stolen")
	if list[0].Node != "node3" || list[0].Open == 0 || list[0].Open != len(list[0].Held) {
		t.Errorf("stolen: %+v", list)
	}
	d.says(t, 1, "--settle RECORD", "", "cluster", "stolen", "--key", list[0].Held[0].Name)
	d.says(t, 1, "no stolen node is remembered", "", "cluster", "stolen", "--settle", strings.Repeat("0", 64))
	d.must(t, 1, "", "cluster", "stolen", "--settle", list[0].Record)
	d.settle(t, "all keys are dealt with", func() bool { return asJSON[[]node.Theft](t, d, 0, "cluster", "stolen")[0].Open == 0 })
}

func TestParseRoles(t *testing.T) {
	for text, want := range map[string]cluster.RoleGrant{
		"auditor":                  {Role: "auditor"},
		"crypto-user=payments":     {Role: "crypto-user", Slots: []string{"payments"}},
		"crypto-officer=a b,tls=1": {Role: "crypto-officer", Slots: []string{"a b", "tls=1"}},
	} {
		got, err := parseRoles([]string{text})
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"crypto-user=", "crypto-user=a,,b", "crypto-user=,"} {
		if got, err := parseRoles([]string{bad}); err == nil {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}
