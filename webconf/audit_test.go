package webconf

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// TestExportAudit: what a browser gets verifies offline; who may not export gets nothing, and that is an
// alert.
func TestExportAudit(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	r := b.post("/audit/export")
	if r.status != http.StatusOK || !strings.HasPrefix(r.header.Get("Content-Disposition"), "attachment; filename=audit_node1_") || r.header.Get("Content-Type") != "application/jsonl" {
		t.Fatalf("%d %v", r.status, r.header)
	}
	v, err := node.VerifyAudit(strings.NewReader(r.body), a.Identity.Owner())
	if err != nil || !v.Intact() || !v.Anchored || v.Exporter != "node1" || v.Entries == 0 {
		t.Errorf("%+v, %v", v, err)
	}
	tomorrow := time.Now().UTC().AddDate(0, 0, 1).Format(time.DateOnly)
	r = b.post("/audit/export", "since", tomorrow)
	if v, err := node.VerifyAudit(strings.NewReader(r.body), nil); err != nil || !v.Intact() || v.Entries != 0 {
		t.Errorf("an export of nothing: %+v, %v", v, err)
	}
	b.post("/audit/export", "since", "yesterday").wants(t, http.StatusBadRequest)
	root := cluster.Actor{Kind: cluster.ByConsole, Name: "root"}
	officer, user := []cluster.RoleGrant{{Role: cluster.SecurityOfficer}}, []cluster.RoleGrant{{Role: cluster.CryptoUser}}
	if _, err := a.Accounts.Add(t.Context(), root, node.NewPerson{Name: "sonja", Roles: officer}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Cluster.Apply(t.Context(), &cluster.PutAccount{Name: testAccount, Roles: user}, root); err != nil {
		t.Fatal(err)
	}
	b.post("/audit/export").wants(t, http.StatusForbidden)
}

func TestAuditFilter(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	row := auditRow{Entry: cluster.Entry{Seq: 7, Time: noon, Node: "node1", Actor: cluster.Actor{Kind: cluster.ByAccount, Name: "anna"}, Act: "slot.activate",
		Object: "slot/payments", Result: cluster.Refused, Detail: "wrong code", Alert: cluster.AlertDenied}}
	for query, want := range map[string]bool{
		"": true, "who=anna": true, "who=ann": false, "node=node1": true, "node=node2": false, "act=slot.activate": true, "act=slot": false,
		"result=refused": true, "result=done": false, "alerts=1": true, "text=PAYMENTS": true, "text=x": false, "since=2026-03-01": true, "since=2026-03-02": false,
		"until=2026-03-01": true, "until=2026-02-28": false, "since=2026-03-01T12:00:00Z&until=2026-03-01T12:00:00Z": true, "until=2026-03-01T11:59:59Z": false, "text=+wrong+code+": true,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		f, err := readAuditFilter(q)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.wants(row); got != want {
			t.Errorf("%s: %v", query, got)
		}
		again, err := readAuditFilter(f.query())
		if err != nil || again != f {
			t.Errorf("%s comes back as %s", query, f.query().Encode())
		}
	}
	row.Alert = ""
	if (auditFilter{Alerts: true}).wants(row) {
		t.Error("an entry without an alert is shown among alerts")
	}
	for _, bad := range []string{"since=x", "until=2026-13-01", "since=01.03.2026"} {
		q, _ := url.ParseQuery(bad)
		if _, err := readAuditFilter(q); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// TestAuditEntry: each entry has a page with what proves it.
func TestAuditEntry(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	first, _ := a.State().EntryAt(1)
	b.get("/audit/1").wants(t, http.StatusOK, "Cluster founded", "Not signed yet", first.Hash[:4], cluster.ChainStart(a.State().Cluster.ID)[:4])
	b.get("/audit/99999").wants(t, http.StatusNotFound, "There is no entry 99999")
	b.get("/audit/x").wants(t, http.StatusBadRequest)
	b.get("/audit?act=cluster.create&who=root&since=2026-01-01").wants(t, http.StatusOK, "Cluster founded")
	b.get("/audit?since=x").wants(t, http.StatusBadRequest)
}

func TestSeal(t *testing.T) {
	checked := node.AuditStatus{CheckedFrom: 5, CheckedTo: 9}
	damaged := checked
	damaged.Damage = "entry 7 does not fit"
	none := func(uint64) (cluster.Checkpoint, bool, error) { return cluster.Checkpoint{}, false, nil }
	for _, c := range []struct {
		status node.AuditStatus
		seq    uint64
		cover  covering
		want   string
	}{
		{checked, 7, coveringOf(nil), "Signed"}, {checked, 7, none, "Not signed yet"}, {checked, 7, coveringOf(http.ErrBodyNotAllowed), "Signature does not hold"},
		{checked, 4, coveringOf(nil), "Not checked yet"}, {checked, 10, coveringOf(nil), "Not checked yet"}, {damaged, 7, coveringOf(nil), "Not proved"},
	} {
		if got := newSeal(c.status, c.seq, c.cover).Mark.Word; got != c.want {
			t.Errorf("entry %d: %s, want %s", c.seq, got, c.want)
		}
	}
}

func TestAuditProblems(t *testing.T) {
	v := plainSituation(1, 1, 0)
	if list := v.auditProblems(); len(list) != 0 {
		t.Errorf("where all is well: %+v", list)
	}
	v.Audit = node.AuditStatus{Damage: "entry 7 does not fit", Alerts: 2, Syslog: node.SyslogStatus{Address: "log:6514", Error: "connection refused", Waiting: 1}}
	list := v.auditProblems()
	if len(list) != 3 || list[0].Severity != bad || list[0].Text != "Entry 7 does not fit." || list[1].Text != "2 policy violations in the last 24 hours." || list[1].Path != "/audit?alerts=1" ||
		!strings.Contains(list[2].Text, "log:6514 does not take") || !strings.Contains(list[2].Remedy, "one entry waits") {
		t.Errorf("%+v", list)
	}
}
