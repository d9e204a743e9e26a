package webconf

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/user"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// TestAPIBeforeMembership: a new node has a status, can found and can join, and nothing else.
func TestAPIBeforeMembership(t *testing.T) {
	a, n := newAppliance(t, "node1")
	s := newSocket(t, a.web)
	var st statusAnswer
	s.ask(get, "/status", nil, http.StatusOK, &st)
	if st.Node != "node1" || st.Member || st.Version != "1.0-test" || st.Nodes == nil || st.Problems == nil {
		t.Errorf("status: %+v", st)
	}
	for _, r := range apiRoutes() {
		path := strings.TrimPrefix(fill(r.path), "/api/v1")
		if r.permission == public {
			continue
		}
		got := s.send(r.method, path, "application/json", strings.NewReader("{}"))
		if r.method == head {
			if got.status != http.StatusConflict {
				t.Errorf("HEAD %s: %d", path, got.status)
			}
			continue
		}
		if m := s.refused(got, http.StatusConflict, "not_member"); m != node.ErrNotMember.Error() {
			t.Errorf("%s %s: %s", r.method, path, m)
		}
	}
	var code firstCodeAnswer
	s.ask(post, "/first-code", struct{}{}, http.StatusOK, &code)
	if own, err := n.Entrance().Fingerprint(); err != nil || code.Fingerprint != own || code.For != "node" || code.WebConf != a.site.URL || n.Entrance().CheckCode(code.Code) != nil {
		t.Errorf("the code of a new node: %+v, %v", code, err)
	}
	a.browser(t).get("/").wants(t, http.StatusOK, "This node belongs to no cluster yet")
	a.browser(t).get("/slots").wants(t, http.StatusNotFound)
	s.refused(s.send(post, "/cluster/init", "application/json", strings.NewReader(`{"name":" "}`)), http.StatusBadRequest, "invalid")
	s.refused(s.send(post, "/cluster/join", "application/json", strings.NewReader(`{"address":"127.0.0.1:1","fingerprint":"x","code":"y"}`)), http.StatusBadRequest, "invalid")
	for path, more := range map[string]string{"/cluster/init": `"name":"x"`, "/cluster/join": `"code":"x"`} {
		if m := s.refused(s.send(post, path, "application/json", strings.NewReader(`{"owner":"no","identity":"no",`+more+`}`)), http.StatusBadRequest, "invalid"); !strings.Contains(m, "the owner's certificate") {
			t.Errorf("%s with no certificates: %s", path, m)
		}
	}
	good := fmt.Sprintf(`{"address":"127.0.0.1:1","fingerprint":%q,"code":"0000-0000-0000-0000-0000"}`, strings.Repeat("AA:", 31)+"AA")
	if m := s.refused(s.send(post, "/cluster/join", "application/json", strings.NewReader(good)), http.StatusConflict, "refused"); !strings.Contains(m, "no connection to 127.0.0.1:1") {
		t.Errorf("join: %s", m)
	}
}

// TestAPI goes through everything that the command line asks for, on two nodes.
func TestAPI(t *testing.T) {
	first, _ := newAppliance(t, "node1")
	one := newSocket(t, first.web)
	var founded node.Founded
	one.ask(post, "/cluster/init", map[string]string{"name": "ca-prod"}, http.StatusOK, &founded)
	if founded.Code == "" || founded.Fingerprint == "" || founded.WebURL != first.site.URL {
		t.Errorf("founded: %+v", founded)
	}
	one.refused(one.send(post, "/cluster/init", "application/json", strings.NewReader(`{"name":"again"}`)), http.StatusConflict, "refused")
	var code map[string]string
	one.ask(post, "/first-code", struct{}{}, http.StatusOK, &code)
	if code["code"] == founded.Code || code["fingerprint"] != founded.Fingerprint || code["webconf"] != founded.WebURL {
		t.Errorf("first code: %v", code)
	}
	second, _ := newAppliance(t, "node2")
	two := newSocket(t, second.web)
	var invitation node.Invitation
	one.ask(post, "/cluster/invitations", map[string]any{"node": "node2", "hours": 1}, http.StatusOK, &invitation)
	for _, hours := range []string{"0", "25", "-1"} {
		one.refused(one.send(post, "/cluster/invitations", "application/json", strings.NewReader(`{"hours":`+hours+`}`)), http.StatusBadRequest, "invalid")
	}
	var joined map[string]string
	two.ask(post, "/cluster/join", map[string]string{"address": invitation.Address, "fingerprint": invitation.Fingerprint, "code": invitation.Code}, http.StatusOK, &joined)
	if joined["cluster"] != "ca-prod" || joined["node"] != "node2" || joined["webconf"] != second.site.URL || joined["fingerprint"] == "" {
		t.Errorf("joined: %v", joined)
	}
	first.Member, _ = first.web.node.Member()
	second.Member, _ = second.web.node.Member()
	first.administrator(t)
	one.refused(one.send(post, "/first-code", "application/json", strings.NewReader("{}")), http.StatusConflict, "refused")
	eventually(t, "the status of both nodes is good", func() bool {
		var st statusAnswer
		one.ask(get, "/status", nil, http.StatusOK, &st)
		return st.Member && st.Quorum && len(st.Nodes) == 2 && st.Nodes[1].Answers && st.Nodes[1].Status == "connected" && len(st.Problems) == 0 && st.Cluster.Name == "ca-prod"
	})
	apiSlotsTest(t, one, two)
	apiSyncTest(t, first, second, one, two)
	apiAppsTest(t, one)
	var entries []cluster.Entry
	one.ask(get, "/audit?limit=1000", nil, http.StatusOK, &entries)
	if len(entries) < 20 || entries[0].Seq <= entries[1].Seq || entries[len(entries)-1].Seq != 1 {
		t.Errorf("%d entries", len(entries))
	}
	me, _ := user.Current()
	if a := entries[len(entries)-1].Actor; a != (cluster.Actor{Kind: cluster.ByConsole, Name: me.Username}) {
		t.Errorf("the cluster was founded by %v", a)
	}
	var older []cluster.Entry
	one.ask(get, fmt.Sprintf("/audit?limit=2&before=%d", entries[3].Seq), nil, http.StatusOK, &older)
	if len(older) != 2 || older[0].Seq != entries[4].Seq {
		t.Errorf("older: %v", older)
	}
	for _, secret := range []string{testCode, testPassword, founded.Code, invitation.Code, code["code"]} {
		if strings.Contains(first.log.String()+second.log.String(), secret) {
			t.Errorf("the log contains a secret (%d characters)", len(secret))
		}
	}
	apiWrongInputs(t, one)
}

func apiSlotsTest(t *testing.T, one, two *socket) {
	t.Helper()
	var v node.SlotView
	for _, s := range []*socket{one, two} {
		s.ask(post, "/slots", node.NewSlot{Label: "a/b c", Mode: cluster.Manual, Code: []byte(testCode)}, http.StatusOK, &v)
		if v.Label != "a/b c" || v.State != cluster.Active || v.Mode != cluster.Manual {
			t.Errorf("slot: %+v", v)
		}
	}
	const slot = "/slots/a%2Fb%20c"
	one.ask(post, slot+"/deactivate", struct{}{}, http.StatusOK, &v)
	if v.State != cluster.Down {
		t.Errorf("deactivated: %+v", v)
	}
	if m := one.refused(one.send(post, slot+"/activate", "application/json", strings.NewReader(`{"code":"d3Jvbmc="}`)), http.StatusConflict, "refused"); !strings.Contains(m, "is wrong") {
		t.Errorf("a wrong code: %s", m)
	}
	one.ask(post, slot+"/activate", map[string][]byte{"code": []byte(testCode)}, http.StatusOK, &v)
	one.ask(post, slot+"/code", map[string][]byte{"old": []byte(testCode), "new": []byte("another code")}, http.StatusOK, &v)
	one.ask(post, slot+"/mode", map[string]any{"mode": cluster.Generated, "old": []byte("another code")}, http.StatusOK, &v)
	if v.Mode != cluster.Generated || v.State != cluster.Active {
		t.Errorf("generated: %+v", v)
	}
	since := v.CodeSince
	one.ask(post, slot+"/try", struct{}{}, http.StatusOK, &v)
	if one.ask(post, slot+"/rotate", struct{}{}, http.StatusOK, &v); !v.CodeSince.After(since) || v.State != cluster.Active {
		t.Errorf("after a new code: %+v", v)
	}
	var custody []node.HeldCode
	one.ask(get, "/custody", nil, http.StatusOK, &custody)
	var forecasts []node.Forecast
	one.ask(get, "/forecast?node=node2", nil, http.StatusOK, &forecasts)
	if len(custody) != 2 || len(forecasts) != 1 || forecasts[0].Node != "node2" || len(forecasts[0].Closed()) != 1 {
		t.Errorf("custody %+v, forecast %+v", custody, forecasts)
	}
	one.refused(one.send(get, "/forecast?node=node9", "", nil), http.StatusNotFound, "not_found")
	var rotation map[string]any
	one.ask(post, slot+"/rotation", map[string]int{"days": 90}, http.StatusOK, &rotation)
	one.ask(post, slot+"/mode", map[string]any{"mode": cluster.Manual, "new": []byte(testCode)}, http.StatusOK, &v)
	var all slotsAnswer
	one.ask(get, "/slots", nil, http.StatusOK, &all)
	if len(all.Here) != 1 || len(all.Slots) != 1 || len(all.Slots[0].Seats) != 2 || all.Slots[0].Seats["node2"].Mode != cluster.Manual {
		t.Errorf("slots: %+v", all)
	}
	var modules []node.ModuleView
	one.ask(get, "/hsm", nil, http.StatusOK, &modules)
	if len(modules) != 1 || !modules[0].Up || len(modules[0].Tokens) < 3 {
		t.Errorf("hsm: %+v", modules)
	}
}

func apiSyncTest(t *testing.T, first, second *appliance, one, two *socket) {
	t.Helper()
	generate(t, first.application(t, "a/b c"), ecKey("ca"), ecKey("tsa"))
	var coverage []node.KeyCoverage
	one.ask(get, "/coverage", nil, http.StatusOK, &coverage)
	if len(coverage) != 2 || coverage[0].Nodes["node1"] != node.Present {
		t.Fatalf("keys made a moment ago: %+v", coverage)
	}
	eventually(t, "node2 says what it lacks", func() bool {
		coverage = nil
		one.ask(get, "/coverage", nil, http.StatusOK, &coverage)
		return coverage[0].Nodes["node2"] == node.Missing
	})
	eventually(t, "node2 can receive", func() bool { return first.State().Slots["a/b c"].Seats["node2"].Receiver != "" })
	var plan node.Plan
	one.ask(get, "/sync/plan?slot=a%2Fb+c&to=node2", nil, http.StatusOK, &plan)
	if len(plan.Keys) != 2 || len(plan.Receivers) != 1 || plan.Receivers[0].Lacks != 2 {
		t.Errorf("plan: %+v", plan)
	}
	var job node.Job
	one.ask(post, "/sync/packages", map[string]any{"slot": "a/b c", "to": nil}, http.StatusAccepted, &job)
	one.ask(get, "/jobs/"+job.ID+"?wait=30", nil, http.StatusOK, &job)
	if job.State != node.JobDone || job.Result == "" {
		t.Fatalf("job: %+v", job)
	}
	digest := job.Result
	var list []node.Staged
	one.ask(get, "/sync/packages", nil, http.StatusOK, &list)
	if len(list) != 1 || list[0].SHA256 != digest || !list[0].Mine {
		t.Errorf("packages: %+v", list)
	}
	file := one.send(get, "/sync/packages/"+digest+"/file", "", nil)
	h := one.send(head, "/sync/packages/"+digest+"/file", "", nil)
	if file.status != 200 || h.status != 200 || h.header.Get("Content-Length") != fmt.Sprint(len(file.body)) || h.header.Get("Content-Type") != "application/octet-stream" ||
		h.header.Get("Content-Disposition") != "attachment; filename="+list[0].Name() || !strings.HasPrefix(h.header.Get("Repr-Digest"), "sha-256=:") {
		t.Errorf("file: %d, HEAD %d %v", file.status, h.status, h.header)
	}
	apiImportTest(t, one, two, digest, file.body)
}

// apiImportTest brings a package to the other node and imports it there.
func apiImportTest(t *testing.T, one, two *socket, digest, file string) {
	t.Helper()
	var inspection node.Inspection
	r := two.send(post, "/sync/inspect", "application/octet-stream", strings.NewReader(file))
	if err := json.Unmarshal([]byte(r.body), &inspection); err != nil || !inspection.Verified || !inspection.ForMe {
		t.Errorf("inspect: %s", r.body)
	}
	var list []node.Staged
	two.ask(get, "/sync/packages", nil, http.StatusOK, &list)
	if len(list) != 0 {
		t.Error("a package that was only looked at is kept")
	}
	var staged node.Staged
	if r := two.send(post, "/sync/uploads", "application/octet-stream", strings.NewReader(file)); json.Unmarshal([]byte(r.body), &staged) != nil || staged.SHA256 != digest {
		t.Fatalf("upload: %d %s", r.status, r.body)
	}
	damaged := file[:len(file)-1] + "x"
	two.refused(two.send(post, "/sync/uploads", "application/octet-stream", strings.NewReader(damaged)), http.StatusUnprocessableEntity, "package")
	two.refused(two.send(post, "/sync/uploads", "application/json", strings.NewReader(file)), http.StatusUnsupportedMediaType, "invalid")
	var preview node.Preview
	two.ask(get, "/sync/packages/"+digest+"/preview", nil, http.StatusOK, &preview)
	if preview.New != 2 || preview.Problem != "" {
		t.Errorf("preview: %+v", preview)
	}
	one.refused(one.send(post, "/sync/packages/"+digest+"/import", "application/json", strings.NewReader("{}")), http.StatusUnprocessableEntity, "package")
	var job node.Job
	two.ask(post, "/sync/packages/"+digest+"/import", struct{}{}, http.StatusAccepted, &job)
	two.ask(get, "/jobs/"+job.ID+"?wait=30", nil, http.StatusOK, &job)
	if job.State != node.JobDone || job.Report == nil || job.Report.Imported != 2 {
		t.Errorf("import: %+v", job)
	}
	var jobs []node.Job
	two.ask(get, "/jobs", nil, http.StatusOK, &jobs)
	if len(jobs) != 1 {
		t.Errorf("%d jobs", len(jobs))
	}
}

func apiAppsTest(t *testing.T, s *socket) {
	t.Helper()
	app := cluster.App{Name: "ejbca", Slots: []string{"a/b c"}, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: "restart-ok"}}
	var got cluster.App
	s.ask(put, "/applications/ejbca", app, http.StatusOK, &got)
	if got.Name != "ejbca" || got.Restart.Target != "restart-ok" {
		t.Errorf("application: %+v", got)
	}
	s.refused(s.send(put, "/applications/other", "application/json", strings.NewReader(`{"name":"ejbca"}`)), http.StatusBadRequest, "invalid")
	var run node.RestartResult
	s.ask(post, "/applications/ejbca/restart", struct{}{}, http.StatusOK, &run)
	if !run.OK {
		t.Errorf("restart: %+v", run)
	}
	app.Delivery = cluster.Delivery{Kind: cluster.DeliverFile, Owner: "nobody"}
	s.ask(put, "/applications/ejbca", app, http.StatusOK, &got)
	var state applicationState
	s.ask(get, "/applications/ejbca", nil, http.StatusOK, &state)
	if state.Delivery.Mode != cluster.ModeOwner || len(state.Files) != 1 || state.Files[0].Problem == "" || !state.Runs["node1"].OK {
		t.Errorf("state of the application: %+v", state)
	}
	s.refused(s.send(get, "/applications/other", "", nil), http.StatusNotFound, "not_found")
	app.Delivery, app.Restart.Target = cluster.Delivery{}, "restart-broken"
	s.ask(put, "/applications/ejbca", app, http.StatusOK, nil)
	s.ask(post, "/applications/ejbca/restart", struct{}{}, http.StatusOK, &run)
	if run.OK || !strings.Contains(run.Detail, "not installed") {
		t.Errorf("a restart that fails: %+v", run)
	}
	var list []cluster.App
	s.ask(get, "/applications", nil, http.StatusOK, &list)
	if len(list) != 1 || len(list[0].Runs) != 1 {
		t.Errorf("applications: %+v", list)
	}
	s.ask(remove, "/applications/ejbca", nil, http.StatusNoContent, nil)
	s.refused(s.send(remove, "/applications/ejbca", "", nil), http.StatusNotFound, "not_found")
	s.refused(s.send(post, "/applications/ejbca/restart", "application/json", strings.NewReader("{}")), http.StatusNotFound, "not_found")
}

func apiWrongInputs(t *testing.T, s *socket) {
	t.Helper()
	for _, c := range []struct {
		method, path, kind, body string
		status                   int
		code                     string
	}{
		{post, "/slots", "application/json", `{"label":"x","mode":"manual","colour":"red"}`, 400, "invalid"},
		{post, "/slots", "application/json", `{"label":"x"`, 400, "invalid"},
		{post, "/slots", "application/json", `{"label":"x"} {}`, 400, "invalid"},
		{post, "/slots", "application/json", `{"label":7}`, 400, "invalid"},
		{post, "/slots", "application/json", `{"code":"!!!"}`, 400, "invalid"},
		{post, "/slots", "text/plain", `{"label":"x","mode":"manual"}`, 415, "invalid"},
		{post, "/slots", "application/json", `{"label":"` + strings.Repeat("x", maxForm) + `"}`, 413, "invalid"},
		{post, "/slots", "application/json", `{"label":"x","mode":"secret"}`, 409, "refused"},
		{post, "/slots", "application/json", `{"label":"a/b c","mode":"generated"}`, 409, "conflict"},
		{post, "/slots", "application/json", `{"label":"` + strings.Repeat("x", 33) + `","mode":"generated"}`, 400, "invalid"},
		{post, "/slots", "", "", 409, "refused"},
		{post, "/slots/none/activate", "application/json", `{"code":"eA=="}`, 404, "not_found"},
		{get, "/sync/plan", "", "", 400, "invalid"},
		{get, "/sync/plan?slot=none", "", "", 404, "not_found"},
		{get, "/sync/plan?slot=a%2Fb+c&to=node9", "", "", 409, "refused"},
		{get, "/sync/packages/none", "", "", 404, "not_found"},
		{post, "/sync/packages", "application/json", `{"slot":"a/b c","to":["node2"]}`, 409, "refused"},
		{post, "/sync/inspect", "application/octet-stream", "no package", 422, "package"},
		{get, "/jobs/none", "", "", 404, "not_found"},
		{get, "/jobs/none?wait=x", "", "", 400, "invalid"},
		{get, "/audit?limit=0", "", "", 400, "invalid"},
		{get, "/audit?before=-1", "", "", 400, "invalid"},
		{get, "/audit?since=x", "", "", 400, "invalid"},
		{post, "/audit/export", "application/json", `{"since":"x"}`, 400, "invalid"},
		{put, "/applications/Bad_Name", "application/json", `{}`, 400, "invalid"},
		{get, "/nowhere", "", "", 404, "not_found"},
		{put, "/slots", "", "", 405, "invalid"},
	} {
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		r := s.send(c.method, c.path, c.kind, body)
		if m := s.refused(r, c.status, c.code); strings.Contains(m, "!!!") || strings.Contains(m, "eA==") {
			t.Errorf("%s %s: the message repeats what was sent: %s", c.method, c.path, m)
		}
	}
}

// TestAPINeedsToKnowWhoAsks: over TCP nobody is known, so nothing is done.
func TestAPINeedsToKnowWhoAsks(t *testing.T) {
	a := newCluster(t, 1)[0]
	for _, path := range []string{"/api/v1/status", "/api/v1/slots"} {
		w := httptest.NewRecorder()
		a.web.API().ServeHTTP(w, httptest.NewRequest(get, path, nil))
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"denied"`) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestUserName: who has no name in the system has a number.
func TestUserName(t *testing.T) {
	if name := userName(4_000_000_000); name != "uid 4000000000" {
		t.Errorf("a user without a name is %q", name)
	}
}
