package webconf

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
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
		"degraded": plainSituation(3, 4, 12).history(5, "text").degrade(),
		"silent":   silentSituation(),
		"hostile":  plainSituation(3, 1, 6).history(6, evil).degrade().hostile(evil),
	} {
		text := "text"
		if state == "hostile" {
			text = evil
		}
		for _, p := range slices.Concat(plainPages(v, text), slotPages(v), packagePages(v, text), jobPages(v, text)) {
			p.Account, p.Node, p.Cluster, p.Notes = "alice", v.Node, v.State.Cluster.Name, []string{text}
			p.surround(v, p, p.Nav)
			list = append(list, drawnPage{state, p})
		}
		for _, p := range outsidePages(text) {
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
	for _, field := range []string{"name", "code", "old", "new", "again", "password", "present", "package", "to", "node", "hours", "label"} {
		f.fail(field, "%s", text)
	}
	return f
}

func plainPages(v *situation, text string) []page {
	list := []page{
		{Name: "status", Title: "Status", Nav: "/", Data: newStatusView(v)},
		{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: hsmView{v.Node, modulesOf(v, text)}},
		{Name: "hsm", Title: "HSM overview", Nav: "/hsm", Data: hsmView{Node: v.Node}},
		{Name: "coverage", Title: "Key coverage", Nav: "/coverage", Data: newCoverageView(v, coverageFilter{}, 2)},
		{Name: "coverage", Title: "Key coverage", Nav: "/coverage", Data: newCoverageView(v, coverageFilter{Slot: "Slot01", Gaps: true, Text: text}, 1)},
		{Name: "audit", Title: "Audit log", Nav: "/audit", Data: newAuditView(v.State, auditFilter{}, 0)},
		{Name: "audit", Title: "Audit log", Nav: "/audit", Data: newAuditView(v.State, auditFilter{Result: "failed", Text: text}, 1000)},
		{Name: "applications", Title: "Applications", Nav: "/applications", Data: newApplicationsView(v)},
		{Name: "application", Title: "New", Nav: "/applications", Form: newForm("app", nil), Data: newApplicationView(v, nil, newForm("app", nil))},
		{Name: "application", Title: "New", Nav: "/applications", Form: failed("app", text), Data: newApplicationView(v, nil, failed("app", text))},
		{Name: "account", Title: "Account", Nav: "/account", Form: failed("password", text), Data: accountView{cluster.Account{Name: "alice", Role: "administrator", By: "console/" + text}, "15 min", "8 h"}},
		{Name: "error", Title: text, Data: errorView{500, text}},
	}
	for _, made := range []*node.Invitation{nil, {Code: "AAAA-BBBB", Fingerprint: "AA:BB", Address: "node1:1", Node: "node4", Expires: v.Now}} {
		c := newClusterView(v)
		c.Invitation, c.Fingerprint = made, "AA:BB:CC"
		list = append(list, page{Name: "cluster", Title: "Cluster", Nav: "/cluster", Form: failed("invite", text), Data: c})
	}
	for _, name := range slices.Sorted(maps.Keys(v.State.Apps)) {
		a := v.State.Apps[name]
		f := failed("remove", text)
		list = append(list, page{Name: "application", Title: name, Nav: "/applications", Form: f, Data: newApplicationView(v, &a, f)})
		break
	}
	if len(v.Coverage) > 0 {
		list = append(list, page{Name: "key", Title: "Key", Nav: "/coverage", Crumbs: []crumb{{text, "/coverage"}}, Data: keyView{newCoverageRow(v.Coverage[0], v.names())}})
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
		for _, f := range []*form{nil, failed("activate", evil), failed("code", evil), failed("mode", evil)} {
			slot, err := newSlotView(v, s.Label)
			if err != nil {
				panic(err)
			}
			slot.Sealing = "a key in the file " + evil
			list = append(list, page{Name: "slot", Title: "Slot " + s.Label, Nav: "/slots", Form: f, Data: slot})
		}
	}
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
			New: 1, There: 1, Conflict: 1, Problem: text, Apps: []string{text, "b"}}
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
		{Name: "login", Title: "Log in", Form: newForm("login", nil), Data: loginView{"/", true, "15 min", "8 h"}},
		{Name: "login", Title: "Log in", Form: failed("login", text), Data: loginView{text, false, "15 min", "8 h"}},
		{Name: "setup", Title: "First start", Form: newForm("setup", nil), Data: setupView{"AA:BB", "ca"}},
		{Name: "setup", Title: "First start", Form: failed("setup", text), Data: setupView{"AA:BB", text}},
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

// An htmlReader checks one document.
type htmlReader struct {
	open       []string
	ids        map[string]bool
	references []string // to ids
	headings   []int
	complaints []string
	labels     map[string]bool // ids that have a label
	fields     []string        // ids of inputs without a label around them
	title      string
}

var void = map[string]bool{"meta": true, "link": true, "input": true, "br": true, "hr": true, "img": true}

// inspect reads HTML and returns what is wrong with it.
func inspect(html string) []string {
	r := &htmlReader{ids: map[string]bool{}, labels: map[string]bool{}}
	for _, never := range []string{"<script", "ZgotmplZ", "<no value>", "javascript:", "%!"} {
		if strings.Contains(html, never) {
			r.complain("it contains %s", never)
		}
	}
	d := xml.NewDecoder(strings.NewReader(html))
	d.Strict, d.Entity = false, xml.HTMLEntity
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			r.complain("it is not well-formed: %v", err)
			return r.complaints
		}
		switch token := token.(type) {
		case xml.StartElement:
			r.start(token)
		case xml.EndElement:
			r.end(token.Name.Local)
		case xml.CharData:
			if len(r.open) > 0 && r.open[len(r.open)-1] == "title" {
				r.title += string(token)
			}
		}
	}
	r.finish()
	return r.complaints
}

func (r *htmlReader) complain(format string, args ...any) {
	r.complaints = append(r.complaints, fmt.Sprintf(format, args...))
}

func (r *htmlReader) start(e xml.StartElement) {
	name := e.Name.Local
	a := map[string]string{}
	for _, attr := range e.Attr {
		key := attr.Name.Local
		if attr.Name.Space != "" {
			key = attr.Name.Space + ":" + key
		}
		if _, twice := a[key]; twice {
			r.complain("<%s> has the attribute %s twice", name, key)
		}
		a[key] = attr.Value
		if key == "style" || strings.HasPrefix(key, "on") {
			r.complain("<%s> has the attribute %s", name, key)
		}
	}
	if id, ok := a["id"]; ok {
		if r.ids[id] {
			r.complain("the id %q is there twice", id)
		}
		r.ids[id] = true
	}
	for _, key := range []string{"aria-labelledby", "aria-describedby", "for"} {
		r.references = append(r.references, strings.Fields(a[key])...)
	}
	r.meaning(name, a)
	if !void[name] {
		r.open = append(r.open, name)
	}
}

// meaning checks what certain elements need.
func (r *htmlReader) meaning(name string, a map[string]string) {
	switch name {
	case "script", "style":
		r.complain("there is a <%s>", name)
	case "h1", "h2", "h3", "h4":
		r.headings = append(r.headings, int(name[1]-'0'))
	case "label":
		r.labels[a["for"]] = true
	case "input", "select":
		if a["type"] != "hidden" && !slices.Contains(r.open, "label") {
			r.fields = append(r.fields, a["id"])
		}
		if a["type"] == "password" && a["value"] != "" {
			r.complain("a password field is filled in")
		}
	case "a":
		if a["href"] == "" {
			r.complain("a link leads nowhere")
		}
	case "form":
		if a["action"] == "" || a["method"] == "" {
			r.complain("a form does not say where it goes")
		}
	case "th":
		if a["scope"] == "" {
			r.complain("a <th> has no scope")
		}
	}
}

func (r *htmlReader) end(name string) {
	if void[name] {
		return
	}
	if len(r.open) == 0 || r.open[len(r.open)-1] != name {
		r.complain("</%s> ends %v", name, r.open)
		return
	}
	r.open = r.open[:len(r.open)-1]
}

func (r *htmlReader) finish() {
	if len(r.open) > 0 {
		r.complain("not ended: %v", r.open)
	}
	for _, id := range r.references {
		if !r.ids[id] {
			r.complain("there is no id %q that something refers to", id)
		}
	}
	for _, id := range r.fields {
		if !r.labels[id] || id == "" {
			r.complain("the field %q has no label", id)
		}
	}
	if strings.TrimSpace(strings.Split(r.title, "–")[0]) == "" {
		r.complain("the title is empty")
	}
	ones, last := 0, 0
	for _, h := range r.headings {
		if h == 1 {
			ones++
		}
		if h > last+1 && last > 0 {
			r.complain("a heading of level %d follows one of level %d", h, last)
		}
		last = h
	}
	if ones != 1 {
		r.complain("there are %d headings of the first level", ones)
	}
}

// TestInspect makes sure that the reader above finds what it looks for.
func TestInspect(t *testing.T) {
	const good = `<!doctype html><html lang="en"><head><title>A – b</title></head><body><h1>A</h1><p id="x">text &amp; text</p></body></html>`
	if c := inspect(good); len(c) > 0 {
		t.Errorf("a good page: %v", c)
	}
	for _, broken := range []string{
		strings.Replace(good, "</p>", "</b>", 1), strings.Replace(good, "text", "<script>alert(1)</script>", 1), strings.Replace(good, "text", `<b style="x">y</b>`, 1),
		strings.Replace(good, "text", `<b onclick="x">y</b>`, 1), strings.Replace(good, "text", `<b id="x">y</b>`, 1), strings.Replace(good, "text", `<input id="y" type="text">`, 1),
		strings.Replace(good, "text", `<h1>y</h1>`, 1), strings.Replace(good, "text", `<h3>y</h3>`, 1), strings.Replace(good, "A –", `–`, 1), strings.Replace(good, "text", `<label for="z">y</label>`, 1),
		strings.Replace(good, "text", `<a href="">y</a>`, 1), strings.Replace(good, "text", `<form>y</form>`, 1), strings.Replace(good, "</body>", "", 1),
	} {
		if len(inspect(broken)) == 0 {
			t.Errorf("nothing is found wrong with %s", broken)
		}
	}
}
