package webconf

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
)

// A drawn page is one page in one state.
type drawnPage struct {
	state string
	page
}

// everyPage is every page in every state: without anything, with one of each, with many, when much is
// wrong, and with text that wants to be more than text.
func everyPage() []drawnPage {
	var list []drawnPage
	for state, v := range map[string]*situation{
		"empty":    plainSituation(1, 0, 0),
		"one":      plainSituation(2, 1, 1).history(1, "text"),
		"many":     plainSituation(9, 30, 350).history(60, "text"),
		"degraded": plainSituation(3, 4, 12).history(5, "text").degrade().custody("text"),
		"shared":   plainSituation(3, 2, 3).custody("text"),
		"silent":   silentSituation(),
		"hostile":  plainSituation(3, 1, 6).history(6, evil).degrade().custody(evil).hostile(evil),
	} {
		text := "text"
		if state == "hostile" {
			text = evil
		}
		for _, p := range slices.Concat(plainPages(v, text), meansPages(v, text), slotPages(v), packagePages(v, text), jobPages(v, text), identityPages(v, text), keysPages(v, text), settingsPages(v, text)) {
			p.may = func(cluster.Permission, string) bool { return state != "silent" }
			p.Account, p.Node, p.Cluster, p.Notes = "alice", v.Node, v.State.Cluster.Name, []string{text}
			p.surround(v, p, p.Nav)
			list = append(list, drawnPage{state, p})
		}
		for _, p := range append(outsidePages(text), startPages(text)...) {
			p.Node, p.Cluster, p.Theme = v.Node, v.State.Cluster.Name, "dark"
			list = append(list, drawnPage{state, p})
		}
	}
	return list
}

// silentSituation is a cluster of which this node sees nothing but itself.
func silentSituation() *situation {
	v := plainSituation(3, 2, 3)
	for _, name := range []string{"node2", "node3"} {
		v.Seen[name] = node.Seen{Error: "no route to host"}
		for i := range v.Coverage {
			v.Coverage[i].Nodes[name] = node.Unknown
		}
	}
	v.Summary = node.Summarize(v.Coverage)
	return v
}

func failed(name, text string) *form {
	f := newForm(name, map[string]string{"name": text, "label": text, "kind": "command", "target": text, "mode": "manual", "hours": text})
	f.fail("", "%s", text)
	for _, field := range []string{"name", "code", "old", "new", "again", "password", "present", "package", "to", "node", "hours", "label", "days", "passphrase", "threshold", "cluster", "address", "end"} {
		f.fail(field, "%s", text)
	}
	return f
}

func plainPages(v *situation, text string) []page {
	list := []page{
		{Name: "status", Title: "Status", Nav: "/", Data: newStatusView(v)},
		{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: hsmView{v.Node, modulesOf(v, text), text}},
		{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: hsmView{Node: v.Node}},
		{Name: "restart", Title: "Restart forecast", Nav: "/restart", Data: newRestartView(v)},
		{Name: "custody", Title: "Custody", Nav: "/custody", Data: newCustodyView(v)},
		{Name: "protection", Title: "Protection", Nav: "/hsm", Data: newProtectionView(v, node.Sealing{Protector: cluster.ByFile, Where: text, Risk: text}, node.SealConfig{})},
		{Name: "protection", Title: "Protection", Nav: "/hsm", Form: failed("protect", text), Data: newProtectionView(v, node.Sealing{Protector: cluster.ByTPM, Where: text, Risk: text}, node.SealConfig{TPM: text, PassphraseFile: text})},
		{Name: "coverage", Title: "Key coverage", Nav: "/coverage", Data: newCoverageView(v, coverageFilter{}, 2)},
		{Name: "coverage", Title: "Key coverage", Nav: "/coverage", Data: newCoverageView(v, coverageFilter{Slot: "Slot01", Gaps: true, Text: text}, 1)},
		{Name: "audit", Title: "Audit log", Nav: "/audit", Data: newAuditView(v, auditFilter{}, 0, coveringOf(nil))},
		{Name: "audit", Title: "Audit log", Nav: "/audit", Data: newAuditView(v, auditFilter{Result: "failed", Text: text, Who: text, Since: v.Now, Alerts: true}, 1000, coveringOf(errors.New(text)))},
		{Name: "applications", Title: "Applications", Nav: "/applications", Data: newApplicationsView(v)},
		{Name: "application", Title: "New", Nav: "/applications", Form: newForm("app", nil), Data: newApplicationView(v, nil, newForm("app", nil))},
		{Name: "application", Title: "New", Nav: "/applications", Form: failed("app", text), Data: newApplicationView(v, nil, failed("app", text))},
		{Name: "account", Title: "Account", Nav: "/account", Form: failed("password", text), Data: accountView{cluster.Account{Name: "alice", FullName: text, MustChange: true, By: "console/" + text}, []string{text}, "15 min", "8 h", meansOf(v, text, true), newCustodianView(v.State, "alice")}},
		{Name: "account", Title: "Account", Nav: "/account", Form: failed("custodian", text), Data: accountView{cluster.Account{Name: "nobody", By: "console/" + text}, []string{text}, "15 min", "8 h", meansOf(v, text, true), newCustodianView(v.State, "nobody")}},
		{Name: "account", Title: "Account", Nav: "/account", Form: newForm("password", nil), Data: accountView{cluster.Account{Name: "alice", By: "console/" + text}, []string{text}, "15 min", "8 h", meansOf(v, text, true), newCustodianView(v.State, "alice")}},
		{Name: "error", Title: text, Data: errorView{500, text}},
	}
	for _, l := range []node.Losses{{Node: "node2", Member: true, Owner: true, Alone: 1, Keys: 2, Apps: []string{text}, Slots: []node.LossesSlot{{Slot: text, Keys: 1, Alone: 1, Shared: true}, {Slot: "b", Others: []string{"node1", text}}}},
		{Node: "node2", Member: true, Answers: true}, {Node: "node9"}} {
		list = append(list, page{Name: "replace", Title: "Replace", Nav: "/cluster", Data: newReplaceView(v, l)})
	}
	list = append(list, stolenPages(v, text)...)
	list = append(list, auditEntryPages(v, text)...)
	list = append(list, peoplePages(v, text)...)
	list = append(list, approvalPages(v, text)...)
	for _, made := range []*node.Invitation{nil, {Code: "AAAA-BBBB", Fingerprint: "AA:BB", Address: "node1:1", Node: "node4", Expires: v.Now, Seconds: 3600}, {Code: "AAAA-BBBB", Fingerprint: "AA:BB", Address: "node1:1", Node: "node4", Seconds: 5400, Certified: true}} {
		c := newClusterView(v)
		c.Invitation, c.Fingerprint = made, "AA:BB:CC"
		c.Entering, c.Watching = []string{text}, made == nil
		list = append(list, page{Name: "cluster", Title: "Cluster", Nav: "/cluster", Form: failed("invite", text), Data: c})
	}
	for _, name := range slices.Sorted(maps.Keys(v.State.Apps)) {
		a := v.State.Apps[name]
		f := failed("remove", text)
		data := newApplicationView(v, &a, f)
		data.Files = []node.CodeFile{{Slot: text, Path: text, URI: text, There: true}, {Slot: "b", URI: text, Problem: text}}
		data.Targets = node.RestartTargets{Dir: text, Units: []string{text}, Codes: text, Kubernetes: []string{text}, Webhooks: []string{text}}
		list = append(list, page{Name: "application", Title: name, Nav: "/applications", Form: f, Data: data})
		break
	}
	if len(v.Coverage) > 0 {
		list = append(list, page{Name: "key", Title: "Key", Nav: "/coverage", Crumbs: []crumb{{text, "/coverage"}}, Data: keyView{newCoverageRow(v.Coverage[0], v.names())}})
	}
	return list
}

// coveringOf is a signature of node2 that is good, or not.
func coveringOf(err error) covering {
	return func(seq uint64) (cluster.Checkpoint, bool, error) {
		return cluster.Checkpoint{Node: "node2", Seq: seq + 1, Time: time.Now()}, true, err
	}
}

func auditEntryPages(v *situation, text string) (list []page) {
	if len(v.State.Audit) == 0 {
		return nil
	}
	none := func(uint64) (cluster.Checkpoint, bool, error) { return cluster.Checkpoint{}, false, nil }
	for _, cover := range []covering{coveringOf(nil), coveringOf(errors.New(text)), none} {
		for _, seq := range []uint64{1, 2, uint64(len(v.State.Audit))} {
			data, err := newAuditEntryView(v, seq, cover)
			if err != nil {
				panic(err)
			}
			list = append(list, page{Name: "auditentry", Title: "Entry", Nav: "/audit", Crumbs: []crumb{{"Audit log", "/audit"}}, Data: data})
		}
	}
	return list
}

func peoplePages(v *situation, text string) []page {
	people := []node.Person{
		{Name: "alice", FullName: text, Factors: []string{"totp", "passkey", "certificate"}, LockedOn: []string{text}, Roles: []cluster.RoleGrant{{Role: cluster.SecurityOfficer}, {Role: cluster.CryptoOfficer}}, Created: v.Now, By: "console/" + text, LastLogin: v.Now},
		{Name: "otto", FullName: text, Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser, Slots: []string{text, "Slot01"}}}, Created: v.Now, By: "account/alice", MustChange: true},
		{Name: "berta", Roles: []cluster.RoleGrant{}, Created: v.Now, By: "account/alice"},
		{Name: "dora", Disabled: true, Created: v.Now, By: "account/alice"},
	}
	list := []page{
		{Name: "people", Title: "People", Nav: "/people", Data: newPeopleView(people, "alice")},
		{Name: "people", Title: "People", Nav: "/people", Data: newPeopleView(nil, "alice")},
		{Name: "roles", Title: "Roles", Nav: "/people", Data: newRolesView()},
		{Name: "person", Title: "New", Nav: "/people", Form: failed("person", text), Data: newPersonView(v, nil, "alice", failed("person", text))},
	}
	for i, p := range people {
		for _, f := range []*form{nil, failed("person", text), failed("remove", text), failed("reset", text), failed("disable", text)} {
			data := newPersonView(v, &p, "alice", f)
			if i == 1 {
				data.Password, data.For = "secret", p.Name
			}
			list = append(list, page{Name: "person", Title: "Account", Nav: "/people", Form: f, Data: data})
		}
	}
	return list
}

func approvalPages(v *situation, text string) []page {
	base := node.ApprovalView{ID: "abc", Hash: fmt.Sprintf("%064x", 7), Act: "node.remove", Object: "node/" + text, Detail: text, Exactly: text, Node: "node1",
		Asker: cluster.Actor{Kind: cluster.ByAccount, Name: text}, Created: v.Now, Expires: v.Now.Add(time.Hour), State: cluster.ApprovalWaiting, Has: 1, Needs: 2,
		Votes: []cluster.Vote{{Account: text, Node: "node2", Time: v.Now}}}
	change := func(f func(*node.ApprovalView)) node.ApprovalView { a := base; f(&a); return a }
	all := []node.ApprovalView{base,
		change(func(a *node.ApprovalView) { a.MayDecide = true }),
		change(func(a *node.ApprovalView) { a.MayDecide, a.Voted, a.Votes = true, true, nil }),
		change(func(a *node.ApprovalView) { a.Mine, a.Repeats, a.Exactly = true, true, "" }),
		change(func(a *node.ApprovalView) { a.Mine, a.Repeats, a.Has = true, true, 2 }),
		change(func(a *node.ApprovalView) { a.Needs = 0 }),
	}
	for _, state := range []cluster.ApprovalState{cluster.ApprovalUsed, cluster.ApprovalFailed, cluster.ApprovalRejected, cluster.ApprovalWithdrawn, cluster.ApprovalExpired} {
		all = append(all, change(func(a *node.ApprovalView) { a.State, a.Ended, a.Result, a.Act = state, v.Now, text, "policy.remove" }))
	}
	policies := []node.PolicyView{{Policy: cluster.Policy{Act: "sync.build", Needs: 2, Role: cluster.SecurityOfficer, Set: v.Now, By: "account/" + text}, Could: 3}, {Policy: cluster.Policy{Act: text, Needs: 1, Role: text}, Could: 1}}
	list := []page{
		{Name: "approvals", Title: "Approvals", Nav: "/approvals", Data: newApprovalsView(nil, nil)},
		{Name: "approvals", Title: "Approvals", Nav: "/approvals", Data: newApprovalsView(all, policies)},
		{Name: "policies", Title: "Policies", Nav: "/approvals", Form: newForm("policy", nil), Data: newPoliciesView(nil, newForm("policy", nil))},
		{Name: "policies", Title: "Policies", Nav: "/approvals", Form: failed("policy", text), Data: newPoliciesView(policies, failed("policy", text))},
		{Name: "person", Title: "Account", Nav: "/people", Data: personView{Password: "secret", For: text, Approval: "abc", Waits: text}},
	}
	for _, a := range all {
		for _, f := range []*form{nil, failed("reject", text), failed("approve", text)} {
			list = append(list, page{Name: "approval", Title: "Approval", Nav: "/approvals", Form: f, Data: a})
		}
	}
	return list
}

func slotPages(v *situation) []page {
	list := []page{{Name: "slots", Title: "Slots", Nav: "/slots", Data: newSlotsView(v)}}
	for _, serial := range []string{"", "0123"} {
		for _, f := range []*form{newForm("slot", map[string]string{"label": "Slot01", "serial": serial}), failed("slot", "text")} {
			f.Values.Set("serial", serial)
			list = append(list, page{Name: "newslot", Title: "New slot", Nav: "/slots", Form: f, Data: newSlotFormView(v, f, []string{"softhsm", "luna"})})
		}
	}
	for _, s := range v.Slots[:min(4, len(v.Slots))] {
		for _, f := range []*form{nil, failed("activate", evil), failed("code", evil), failed("mode", evil), failed("manual", evil), failed("rotation", evil), failed("rotate", evil)} {
			slot, err := newSlotView(v, s.Label)
			if err != nil {
				panic(err)
			}
			slot.Sealing = node.Sealing{Protector: "file", Where: "a key in the file " + evil, Risk: evil}
			list = append(list, page{Name: "slot", Title: "Slot " + s.Label, Nav: "/slots", Form: f, Data: slot})
		}
	}
	list = append(list, custodyPages(v)...)
	elsewhere := *v
	elsewhere.Slots = nil
	list = append(list, page{Name: "slots", Title: "Slots", Nav: "/slots", Data: newSlotsView(&elsewhere)})
	for label := range v.State.Slots {
		slot, err := newSlotView(&elsewhere, label)
		if err != nil {
			panic(err)
		}
		list = append(list, page{Name: "slot", Title: "Slot " + label, Nav: "/slots", Data: slot})
		break
	}
	return list
}

func custodyPages(v *situation) []page {
	var list []page
	for label := range v.State.Slots {
		for _, f := range []*form{newForm("custody", nil), failed("custody", evil), failed("prepare", evil), failed("leave", evil)} {
			data, err := newCustodiansView(v, label, f)
			if err != nil {
				panic(err)
			}
			list = append(list, page{Name: "custodians", Title: "Custodians", Nav: "/slots", Form: f, Data: data})
		}
		if len(list) > 12 {
			break
		}
	}
	for _, account := range []string{"alice", "nobody"} {
		for _, f := range []*form{newForm("open", nil), failed("open", evil)} {
			data := newActivateView(v, account)
			data.Running = map[string]string{"nobody": "job1"}[account]
			list = append(list, page{Name: "activate", Title: "Activate slots", Nav: "/activate", Form: f, Data: data})
		}
	}
	return list
}

func packagePages(v *situation, text string) []page {
	here := newSyncView(v, []node.Staged{
		{SHA256: fmt.Sprintf("%064x", 1), Size: 1 << 20, Header: syncpkg.Header{ID: fmt.Sprintf("%032x", 1), Slot: text, Source: "node2", Receivers: []string{"node1"}, Keys: 3, Created: v.Now, Expires: v.Now.Add(time.Hour)}, Kept: v.Now},
		{SHA256: fmt.Sprintf("%064x", 99), Header: syncpkg.Header{ID: fmt.Sprintf("%032x", 99), Slot: text, Source: "node2", Receivers: []string{"node1"}, Keys: 3, Created: v.Now, Expires: v.Now.Add(time.Hour)}},
	}, "")
	plans := []*node.Plan{nil, {Slot: text}, {Slot: text, Receivers: []node.Receiver{{Node: "node2", Lacks: 2}, {Node: "node3", Lacks: 1, Problem: text}, {Node: "node4"}},
		Keys: []node.PlannedKey{{Key: node.KeyName{Label: text, Type: "RSA 2048", ID: "01"}, For: []string{"node2"}}, {Key: node.KeyName{ID: "02", Type: "AES"}, For: []string{"node2", "node3"}, Problem: text}}}}
	var list []page
	for i, plan := range plans {
		s := here
		s.Plan, s.Slot, s.Slots, s.Stuck = plan, text, []string{text, "other"}, min(i, 1)
		list = append(list, page{Name: "sync", Title: "Sync", Nav: "/sync", Data: s}, page{Name: "sync", Title: "Sync", Nav: "/sync", Form: failed("make", text), Data: s},
			page{Name: "sync", Title: "Sync", Nav: "/sync", Form: failed("upload", text), Data: s})
	}
	problem := here
	problem.Slots, problem.Problem = []string{text}, text
	none := newSyncView(v, nil, "")
	none.Slots = nil
	list = append(list, page{Name: "sync", Title: "Sync", Nav: "/sync", Data: problem}, page{Name: "sync", Title: "Sync", Nav: "/sync", Data: none})
	for _, row := range here.Packages[:min(3, len(here.Packages))] {
		p := packageView{Node: v.Node, Row: row, KeyID: "kid", FileName: text, SourceURL: "https://node2/", Inspection: &node.Inspection{Problem: text}, Problem: text}
		for _, r := range row.Receipts {
			p.Receipts = append(p.Receipts, verifiedReceipt{receiptRow: r, Verified: true, Proved: 1, Total: 2}, verifiedReceipt{receiptRow: r, Problem: text})
		}
		closed := p
		closed.Inspection, closed.SlotClosed = &node.Inspection{Verified: true}, true
		closed.Preview = &node.Preview{Keys: []node.PreviewKey{{Key: node.KeyName{Label: text, ID: "01"}, Action: node.ActionImport, Usage: text}, {Action: node.ActionSkip}, {Action: node.ActionConflict, Why: text}},
			New: 1, There: 1, Conflict: 1, Problem: text, Clock: text, Apps: []string{text, "b"}}
		open, again := closed, closed
		preview, before := *closed.Preview, *closed.Preview
		preview.Problem, preview.Apps = "", nil
		before.Problem, before.New, before.Imported = "", 0, v.Now
		open.Preview, again.Preview = &preview, &before
		for _, one := range []packageView{p, closed, open, again, {Node: v.Node, Row: row}} {
			list = append(list, page{Name: "package", Title: "Package", Nav: "/sync", Form: failed("import", text), Data: one})
		}
	}
	r := receiptOf(text)
	return append(list, page{Name: "receipt", Title: "Receipt", Nav: "/sync", Data: newReceiptView(r, text)})
}

func jobPages(v *situation, text string) []page {
	actor := cluster.Actor{Kind: cluster.ByAccount, Name: text}
	staged := &node.Staged{SHA256: fmt.Sprintf("%064x", 1), Header: syncpkg.Header{ID: fmt.Sprintf("%032x", 1), Slot: text, Receivers: []string{"node2", "node3"}, Expires: v.Now}}
	report := &node.ImportReport{Package: staged.Header.ID, Slot: text, Imported: 1, There: 1, Conflicts: 1, Failed: 1, Keys: receiptOf(text).Keys, Receipt: true,
		Restarts: []node.RestartResult{{App: text, OK: true}, {App: "b", Detail: text}}}
	jobs := []node.Job{
		{ID: "a", Kind: "build", Object: "slot/" + text, Actor: actor, State: node.JobRunning, Began: v.Now},
		{ID: "b", Kind: "import", Object: "slot/" + text, Actor: actor, State: node.JobRunning, Began: v.Now, Done: 3, Total: 10, Log: []node.JobLine{{Time: v.Now, Text: text}}, Report: report},
		{ID: "c", Kind: "build", Object: "slot/" + text, Actor: actor, State: node.JobDone, Began: v.Now, Ended: v.Now, Result: "x"},
		{ID: "d", Kind: "import", Object: "slot/" + text, Actor: actor, State: node.JobFailed, Began: v.Now, Ended: v.Now, Error: text, Report: report},
		{ID: "f", Kind: "activate", Object: "cluster/" + text, Actor: actor, State: node.JobFailed, Began: v.Now, Ended: v.Now, Done: 1, Total: 5, Error: text, Openings: []node.Opening{
			{Slot: text, Node: "node1", Result: node.Opened}, {Slot: text, Node: "node2", Result: node.NotOpened, Detail: text}, {Slot: text, Node: "node3", Result: node.Waits, Detail: "1 of 2"},
			{Slot: text, Node: "node4", Result: node.Unreachable, Detail: text}, {Slot: text, Node: "node5", Result: node.Changed}}},
		{ID: "g", Kind: "activate", Object: "cluster/" + text, Actor: actor, State: node.JobRunning, Began: v.Now, Done: 1, Total: 5},
		{ID: "e", Kind: text, Object: text, Actor: actor, State: node.JobDone, Began: v.Now, Report: &node.ImportReport{Package: "p"}},
	}
	list := []page{{Name: "jobs", Title: "Jobs", Nav: "/jobs", Data: jobsView{}}, {Name: "jobs", Title: "Jobs", Nav: "/jobs", Refresh: 3, Data: jobsView{jobs, 7}}}
	for _, j := range jobs {
		list = append(list, page{Name: "job", Title: "Job", Nav: "/jobs", Data: newJobView(j, staged)}, page{Name: "job", Title: "Job", Nav: "/jobs", Data: newJobView(j, nil)})
	}
	return list
}

// outsidePages are for people who are not logged in.
func outsidePages(text string) []page {
	list := []page{
		{Name: "login", Title: "Log in", Form: newForm("login", nil), Data: loginView{Next: "/", Ended: true, Notice: strings.Repeat("staffonly", 55), Idle: "15 min", Life: "8 h"}},
		{Name: "login", Title: "Log in", Form: failed("login", text), Data: loginView{Notice: text, Next: text, Idle: "15 min", Life: "8 h", Passkeys: true, Certificate: &certificateView{text, text}}},
		{Name: "code", Title: "Code", Form: newForm("code", nil), Data: codeView{"/"}},
		{Name: "code", Title: "Code", Form: failed("code", text), Data: codeView{text}},
		{Name: "passkey", Title: "Log in with a passkey", Script: passkeyScript, Data: passkeyView{Act: "get", Options: `{"a":"` + text + `"}`, Action: "/login/passkey", Next: text, Button: "Log in", Other: "/login"}},
		{Name: "passkey", Title: "Log in with a passkey", Script: passkeyScript, Form: failed("passkey", text), Data: passkeyView{Act: "get", Options: "{}", Action: "/login/passkey", Next: "/", Button: "Log in", Other: "/login"}},
		{Name: "setup", Title: "First start", Form: newForm("setup", nil), Data: setupView{"AA:BB", "ca"}},
		{Name: "setup", Title: "First start", Form: failed("setup", text), Data: setupView{"AA:BB", text}},
		{Name: "removed", Title: "Removed", Data: removedView{"node1", text, text, time.Now()}},
		{Name: "onward", Title: "One moment", Data: "/login?next=" + text},
	}
	for _, status := range []int{403, 404, 409, 429, 500, 503} {
		list = append(list, page{Name: "error", Title: "Error", Data: errorView{status, text}})
	}
	return list
}

// TestEveryPage draws every page in every state and looks at the HTML as a strict reader would.
func TestEveryPage(t *testing.T) {
	files, err := newStatic()
	if err != nil {
		t.Fatal(err)
	}
	views, err := newViews(files)
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]int{}
	for _, p := range everyPage() {
		html, err := views.draw(p.page)
		if err != nil {
			t.Errorf("%s, %s: %v", p.Name, p.state, err)
			continue
		}
		drawn[p.Name]++
		if p.Script != "" { // the one script that the page names is no complaint, and any other is one
			html = bytes.Replace(html, []byte(`<script src="`+files.url(p.Script)+`" defer></script>`), nil, 1)
		}
		for _, complaint := range inspect(string(html)) {
			t.Errorf("%s, %s: %s", p.Name, p.state, complaint)
		}
	}
	for name := range views.sets {
		if drawn[name] < 2 {
			t.Errorf("template %s was drawn %d times", name, drawn[name])
		}
	}
}
