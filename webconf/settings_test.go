package webconf

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// state names what a page shows, for its picture.
func (v settingsView) state() string {
	name := map[bool]string{true: "-editing"}[v.Editing]
	if v.Lease != nil {
		name += map[bool]string{true: "-mine", false: "-theirs"}[v.Lease.Yours]
	}
	if v.Lost {
		name += "-lost"
	}
	if name == "" && v.Version > 0 {
		name = "-full"
	}
	return name
}

// settingsPages are the settings while nobody changes them, the reader does, or somebody else; and after that.
func settingsPages(v *situation, text string) (list []page) {
	actor := cluster.Actor{Kind: cluster.ByAccount, Name: "alice"}
	plain := node.SettingsView{Settings: []node.SettingValue{
		{Key: "clock_limit", Value: "30", Time: 30 * time.Second, Unit: "seconds", Source: "configuration"}, {Key: "session_idle", Set: true, Value: "20", Time: 20 * time.Minute, Unit: "minutes", Source: "cluster"},
		{Key: "package_life", Value: "168", Time: 168 * time.Hour, Unit: "hours", Source: "default"}, {Key: "notice", Source: "default"}}}
	full := plain
	full.Settings = append([]node.SettingValue{}, plain.Settings...)
	full.Settings[3] = node.SettingValue{Key: "notice", Set: true, Value: text + " " + strings.Repeat("staffonly", 50), Source: "cluster"}
	full.Version, full.Changed, full.By = 7, v.Now.Add(-time.Hour), "account/"+text
	lease := node.LeaseView{ID: text, Holder: cluster.Actor{Kind: cluster.ByAccount, Name: text}, Node: "node2", Since: v.Now, Until: v.Now.Add(cluster.LeaseTime)}
	mine, lost := lease, lease
	mine.Yours, lost.TakenFrom = true, actor.String()
	for _, s := range []node.SettingsView{plain, full} {
		for _, l := range []*node.LeaseView{nil, &lease, &mine, &lost} {
			s.Lease = l
			for _, wrong := range []bool{false, true} {
				f, d := newForm("settings", presentSettings(s)), newSettingsView(v.Node, s, actor)
				if wrong {
					d.Editing, d.Said = true, text
					f = failed("settings", text)
					f.Values.Set("notice", text)
					for _, key := range append(node.SettingKeys(), "") {
						f.fail(key, "%s", text)
					}
				}
				list = append(list, page{Name: "settings", Title: "Settings of the cluster", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Form: f, Data: d})
			}
		}
	}
	return list
}

// TestIdleTimeIsASetting: it holds for sessions that are open when it changes.
func TestIdleTimeIsASetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, idle := newSessionStore("node1"), time.Hour
		s.idle = func() time.Duration { return idle }
		c := open(t, s, "alice")
		time.Sleep(59 * time.Minute)
		if whose(t, s, c) != "alice" {
			t.Fatal("the session ended too early")
		}
		time.Sleep(5 * time.Minute)
		idle = 5 * time.Minute
		if whose(t, s, c) != "" {
			t.Fatal("the session is older than the new setting allows")
		}
	})
}

var leaseField = regexp.MustCompile(`name="(?:lease|from)" value="([^"]+)"`)

// leaseIn is the lease that a page's form is about.
func leaseIn(t *testing.T, r reply) string {
	t.Helper()
	m := leaseField.FindStringSubmatch(r.body)
	if m == nil {
		t.Fatalf("the page has no lease:\n%s", r.text())
	}
	return m[1]
}

// keeps fails unless the fields of a page have these values.
func keeps(t *testing.T, r reply, values ...string) reply {
	t.Helper()
	for _, v := range values {
		if !strings.Contains(r.body, v) {
			t.Errorf("what was entered is lost: no %s in %.1500s", v, r.text())
		}
	}
	return r
}

func lacks(t *testing.T, r reply, texts ...string) {
	t.Helper()
	if r.status != http.StatusOK {
		t.Errorf("status %d", r.status)
	}
	for _, text := range texts {
		if strings.Contains(r.body, text) {
			t.Errorf("there is %q in: %.1500s", text, r.text())
		}
	}
}

// asks sends JSON whatever comes of it.
func (s *socket) asks(method, path string, v any) reply {
	s.t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.send(method, path, "application/json", bytes.NewReader(b))
}

// TestSettings changes the settings by form, two officers against each other on two nodes.
func TestSettings(t *testing.T) {
	nodes := newCluster(t, 2)
	a, b := nodes[0], nodes[1]
	a.administrator(t)
	alice := a.loggedIn(t)
	officer := cluster.RoleGrant{Role: cluster.SecurityOfficer}
	berta := a.colleague(t, "berta", officer)
	carl := a.colleague(t, "carl", cluster.RoleGrant{Role: cluster.CryptoOfficer})

	lacks(t, carl.get("/cluster/settings"), "Change the settings", "Take over")
	alice.get("/cluster").wants(t, http.StatusOK, "Settings of the cluster")
	alice.get("/cluster/settings").wants(t, http.StatusOK, "Change the settings", "30 s", "15 min", "7 days", "configuration of node1")
	keeps(t, alice.post("/cluster/settings", "session_idle", "20"), `value="20"`).wants(t, http.StatusConflict, "Say which lease")
	mine := alice.follow(alice.post("/cluster/settings/begin"))
	mine.wants(t, http.StatusOK, "The settings are yours to change", "yours until", "Extend to 5 minutes")
	lease := leaseIn(t, mine)

	for _, c := range [][3]string{{"clock_limit", "0", "is no value"}, {"clock_limit", "-5", "is no value"}, {"clock_limit", "301", "between 0 and 300"}, {"session_idle", "soon", "whole number of minutes"}, {"package_life", "99999999999999999999", "is no value"},
		{"package_life", "2161", "between"}, {"notice", "a\x00b", "cannot be printed"}, {"notice", "a\xffb", "not valid UTF-8"}, {"notice", strings.Repeat("y", 5000), "too long"}} {
		alice.post("/cluster/settings", "lease", lease, "version", "0", c[0], c[1]).wants(t, http.StatusUnprocessableEntity, c[2], "There is a problem")
	}
	alice.post("/cluster/settings", "lease", lease, "version", "x", "notice", "n").wants(t, http.StatusBadRequest)
	alice.post("/cluster/settings", "lease", strings.Repeat("x", 5000), "version", "0", "notice", "n").wants(t, http.StatusUnprocessableEntity, "Lease id")
	alice.post("/cluster/settings", "lease", lease, "version", "0", "notice", strings.Repeat("y", maxForm+1)).wants(t, http.StatusRequestEntityTooLarge)
	keeps(t, alice.post("/cluster/settings", "lease", lease, "version", "99", "notice", "of old"), `value="of old"`).wants(t, http.StatusConflict, "The settings were changed meanwhile")
	keeps(t, alice.post("/cluster/settings/extend", "lease", lease, "notice", "half-way"), `value="half-way"`).wants(t, http.StatusOK, "You have the full time again")

	theirs := berta.get("/cluster/settings")
	theirs.wants(t, http.StatusOK, "alice on node1 changes the settings now", "Take over from alice")
	lacks(t, theirs, "Save")
	berta.post("/cluster/settings/begin").wants(t, http.StatusConflict, "alice on node1 changes the settings now")
	keeps(t, berta.post("/cluster/settings", "lease", lease, "version", "0", "notice", "mine"), `value="mine"`).wants(t, http.StatusConflict, "alice on node1", "Take over, and go on with this")
	berta.post("/cluster/settings/release", "lease", lease).wants(t, http.StatusConflict, "alice on node1")
	berta.post("/cluster/settings/take-over", "from", "nobody").wants(t, http.StatusConflict, "does not change the settings any more")
	over := berta.post("/cluster/settings/take-over", "from", leaseIn(t, theirs), "notice", evil)
	over.wants(t, http.StatusOK, "You have taken over", "yours until")
	alice.get("/cluster/settings").wants(t, http.StatusOK, "berta on node1 has taken over from you")
	keeps(t, alice.post("/cluster/settings", "lease", lease, "version", "0", "notice", "mine", "session_idle", "25"), `value="mine"`, `value="25"`).wants(t, http.StatusConflict, "berta on node1 has taken over from you")
	done := berta.follow(berta.post("/cluster/settings", "lease", leaseIn(t, over), "version", "0", "clock_limit", "45", "session_idle", "20", "package_life", "3h", "notice", evil))
	done.wants(t, http.StatusOK, "The settings are changed, on every node", "45 s", "20 min", "3 h", "set here, for all nodes")

	again := alice.post("/cluster/settings/begin", "notice", "mine", "session_idle", "25")
	keeps(t, again, `value="mine"`, `value="25"`).wants(t, http.StatusOK, "yours until")
	alice.follow(alice.post("/cluster/settings/release", "lease", leaseIn(t, again))).wants(t, http.StatusOK, "Nothing was changed")
	alice.get("/audit").wants(t, http.StatusOK, "Settings of the cluster taken over", "from account/alice", "Settings of the cluster changed")

	for _, n := range nodes {
		eventually(t, "the settings hold on both nodes", func() bool { return n.Settings.Notice() == evil })
		stranger := n.browser(t)
		r := stranger.get("/login")
		r.wants(t, http.StatusOK, "20 min without a click", "alert(1)")
		lacks(t, r, "<script")
		if got := n.web.sessions.idleTime(); got != 20*time.Minute {
			t.Errorf("%s: sessions end after %v", n.Name(), got)
		}
		if got := n.web.look(n.Member).ClockLimit; got != 45*time.Second {
			t.Errorf("%s: clocks may be %v apart", n.Name(), got)
		}
	}
	t.Run("API", func(t *testing.T) { settingsByAPI(t, a, b) })
}

// settingsByAPI does the same as a program would, at the consoles of two nodes.
func settingsByAPI(t *testing.T, a, b *appliance) {
	one, two := newSocket(t, a.web), newSocket(t, b.web)
	var v node.SettingsView
	one.ask(put, "/cluster/settings", map[string]any{"values": map[string]string{"notice": "By program.", "session_idle": ""}}, http.StatusOK, &v)
	if v.Settings[3].Value != "By program." || v.Settings[1].Set || v.Settings[0].Value != "45" || v.Lease != nil {
		t.Errorf("the settings are %+v", v)
	}
	one.ask(post, "/cluster/settings/lease", struct{}{}, http.StatusOK, &v)
	if v.Lease == nil || !v.Lease.Yours {
		t.Fatalf("the lease is %+v", v.Lease)
	}
	first, version := v.Lease.ID, v.Version
	eventually(t, "node2 sees the lease", func() bool {
		two.ask(get, "/cluster/settings", nil, http.StatusOK, &v)
		return v.Lease != nil && !v.Lease.Yours && v.Lease.ID == first
	})
	values := func(s string) map[string]any { return map[string]any{"values": map[string]string{"notice": s}} }
	two.refused(two.asks(put, "/cluster/settings", values("x")), http.StatusConflict, "conflict")
	two.refused(two.asks(post, "/cluster/settings/lease", map[string]string{"take_over": "x"}), http.StatusConflict, "refused")
	two.ask(post, "/cluster/settings/lease", map[string]string{"take_over": first}, http.StatusOK, &v)
	second := v.Lease.ID
	one.refused(one.asks(post, "/cluster/settings/lease/extend", map[string]string{"lease": first}), http.StatusConflict, "conflict")
	one.refused(one.asks(put, "/cluster/settings", map[string]any{"lease": first, "version": version, "values": map[string]string{"notice": "x"}}), http.StatusConflict, "conflict")
	two.ask(post, "/cluster/settings/lease/extend", map[string]string{"lease": second}, http.StatusOK, &v)
	two.refused(two.asks(put, "/cluster/settings", map[string]any{"lease": second, "version": version + 1, "values": map[string]string{"notice": "x"}}), http.StatusConflict, "changed")
	two.refused(two.asks(put, "/cluster/settings", map[string]any{"lease": second, "values": map[string]string{"notice": "x"}}), http.StatusBadRequest, "invalid")
	two.refused(two.asks(put, "/cluster/settings", map[string]any{"lease": second, "version": version, "values": map[string]string{"clock_limit": "x"}}), http.StatusConflict, "refused")
	v = node.SettingsView{}
	two.ask(put, "/cluster/settings", map[string]any{"lease": second, "version": version, "values": map[string]string{"notice": "Saved."}}, http.StatusOK, &v)
	if v.Settings[3].Value != "Saved." || v.Lease != nil {
		t.Errorf("the settings are %+v", v)
	}
	two.refused(two.asks(post, "/cluster/settings/lease/release", map[string]string{"lease": second}), http.StatusConflict, "expired")
	two.refused(two.asks(post, "/cluster/settings/lease/release", map[string]string{}), http.StatusConflict, "refused")
	for _, bad := range []any{map[string]any{}, values("a\x00b"), map[string]any{"values": map[string]string{"name": "x"}}} {
		if r := one.asks(put, "/cluster/settings", bad); r.status != http.StatusConflict && r.status != http.StatusBadRequest {
			t.Errorf("%v: %d %s", bad, r.status, r.body)
		}
	}
	one.refused(one.asks(put, "/cluster/settings", map[string]any{"values": 3}), http.StatusBadRequest, "invalid")
}
