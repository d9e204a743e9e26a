package webconf

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// An auditRow is one line of the audit page: an entry, or the two entries of an act as one.
type auditRow struct {
	cluster.Entry
	Began  time.Time // of an act that has ended
	Intent string    // what was known when it began
	Seal   seal      // on pages that show it
}

// Took is how long an act took; empty where there was no act.
func (r auditRow) Took() string {
	if r.Began.IsZero() || r.Time.Sub(r.Began) < time.Second {
		return ""
	}
	return span(r.Time.Sub(r.Began))
}

// Noun and Name split the object: "slot/payments".
func (r auditRow) Noun() string { return objectNoun(r.Object) }
func (r auditRow) Name() string { return objectName(r.Object) }

func objectNoun(object string) string { noun, _, _ := strings.Cut(object, "/"); return noun }

func objectName(object string) string {
	noun, name, found := strings.Cut(object, "/")
	if !found {
		return object
	}
	if noun == "package" || noun == "cluster" {
		return name[:min(len(name), 8)]
	}
	return name
}

// An auditFilter says which rows are wanted. What is zero does not filter.
type auditFilter struct {
	Result string // one of the cluster's results
	Text   string // somewhere in the row, in any case
	Who    string // name of an actor
	Node   string
	Act    string
	Alerts bool // only those that somebody should look at
	Since  time.Time
	Until  time.Time
}

// readAuditFilter reads a filter from a query. Days count in UTC, and until a day is until its end.
func readAuditFilter(q url.Values) (f auditFilter, err error) {
	value := func(name string) string { return strings.TrimSpace(q.Get(name)) }
	f = auditFilter{Result: value("result"), Text: value("text"), Who: value("who"), Node: value("node"), Act: value("act"), Alerts: value("alerts") != ""}
	if f.Since, err = node.ParseMoment(value("since"), false); err == nil {
		f.Until, err = node.ParseMoment(value("until"), true)
	}
	if err != nil {
		return f, invalid("%w", err)
	}
	return f, nil
}

// query is the filter as a query, without what is zero.
func (f auditFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"text": f.Text, "result": f.Result, "who": f.Who, "node": f.Node, "act": f.Act, "since": dayOf(f.Since), "until": dayOf(f.Until)} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.Alerts {
		q.Set("alerts", "1")
	}
	return q
}

// dayOf writes a time as node.ParseMoment reads it: as a day where it is the beginning or the end of one.
func dayOf(t time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case t.Equal(t.Truncate(24 * time.Hour)), t.Equal(t.Truncate(24*time.Hour).AddDate(0, 0, 1).Add(-1)):
		return t.UTC().Format(time.DateOnly)
	}
	return t.UTC().Format(time.RFC3339)
}

func (f auditFilter) wants(r auditRow) bool {
	switch {
	case f.Result != "" && r.Result != f.Result, f.Who != "" && r.Actor.Name != f.Who, f.Node != "" && r.Node != f.Node,
		f.Act != "" && r.Act != f.Act, f.Alerts && r.Alert == "",
		!f.Since.IsZero() && r.Time.Before(f.Since), !f.Until.IsZero() && r.Time.After(f.Until):
		return false
	}
	if f.Text == "" {
		return true
	}
	all := strings.ToLower(strings.Join([]string{r.Act, actWord(r.Act), r.Object, r.Detail, r.Intent, r.Node, r.Actor.String()}, "\n"))
	return strings.Contains(all, strings.ToLower(f.Text))
}

// auditRowsOf lists rows with sequence numbers below before (0: from the newest on), the newest first,
// and tells whether there are more. The beginning of an act shows up in the row of its end, and by itself
// only while the act is under way.
func auditRowsOf(s *cluster.State, f auditFilter, before uint64, limit int) (rows []auditRow, more bool) {
	for i, e := range slices.Backward(s.Audit) {
		if before > 0 && e.Seq >= before {
			continue
		}
		if _, underWay := s.Acts[e.ActID]; e.Result == cluster.Started && !underWay {
			continue
		}
		row := auditRow{Entry: e}
		if e.Result != cluster.Started && e.ActID != "" {
			row.Began, row.Intent = beginning(s.Audit[:i], e.ActID)
		}
		if !f.wants(row) {
			continue
		}
		if len(rows) == limit {
			return rows, true
		}
		rows = append(rows, row)
	}
	return rows, false
}

// beginning finds where an act began. It is near its end, or was forgotten.
func beginning(older []cluster.Entry, id string) (time.Time, string) {
	const far = 5000
	for _, e := range slices.Backward(older[max(0, len(older)-far):]) {
		if e.ActID == id && e.Result == cluster.Started {
			return e.Time, e.Detail
		}
	}
	return time.Time{}, ""
}

type auditView struct {
	Rows   []auditRow
	Filter auditFilter
	Before uint64 // the page begins below this entry; 0: with the newest
	Next   uint64 // where the next page begins; 0: there is none
	First  uint64 // the oldest entry that is kept
	Total  int
	Node   string
	Status node.AuditStatus
	People []string // who is in the trail
	Nodes  []string
	Acts   []string
}

func auditPage(c *call) error {
	f, err := readAuditFilter(c.QueryParams())
	if err != nil {
		return err
	}
	before, err := optionalNumber(c.QueryParam("before"))
	if err != nil {
		return err
	}
	return c.show(page{Name: "audit", Title: "Audit log", Nav: "/audit", Data: newAuditView(c.look(), f, before, c.covering())})
}

func newAuditView(s *situation, f auditFilter, before uint64, cover covering) auditView {
	v := auditView{Filter: f, Before: before, Total: len(s.State.Audit), Node: s.Node, Status: s.Audit}
	var more bool
	v.Rows, more = auditRowsOf(s.State, f, before, auditRows)
	if more {
		v.Next = v.Rows[len(v.Rows)-1].Seq
	}
	for i := range v.Rows {
		v.Rows[i].Seal = newSeal(s.Audit, v.Rows[i].Seq, cover)
	}
	if len(s.State.Audit) > 0 {
		v.First = s.State.Audit[0].Seq
	}
	v.People, v.Nodes, v.Acts = auditChoices(s.State)
	return v
}

// auditChoices are the names in the trail, to choose from.
func auditChoices(s *cluster.State) (people, nodes, acts []string) {
	who, where, what := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range s.Audit {
		who[e.Actor.Name], where[e.Node], what[e.Act] = true, true, true
	}
	acts = slices.SortedFunc(maps.Keys(what), func(a, b string) int { return cmp.Or(cmp.Compare(actWord(a), actWord(b)), cmp.Compare(a, b)) })
	return slices.Sorted(maps.Keys(who)), slices.Sorted(maps.Keys(where)), acts
}

// Results are what can be filtered by.
func (auditView) Results() []string {
	return []string{cluster.Done, cluster.Refused, cluster.Failed, cluster.Started}
}

// Gone is how many entries were forgotten.
func (v auditView) Gone() uint64 { return v.First - 1 }

// Since and Until are the bounds as days.
func (v auditView) Since() string { return dayOf(v.Filter.Since) }
func (v auditView) Until() string { return dayOf(v.Filter.Until) }

// Narrow tells whether a filter is set that stands behind "more".
func (v auditView) Narrow() bool {
	f := v.Filter
	return f.Who != "" || f.Node != "" || f.Act != "" || !f.Since.IsZero() || !f.Until.IsZero()
}

// PagePath is the address of the page that begins below an entry.
func (v auditView) PagePath(before uint64) string {
	q := v.Filter.query()
	if before > 0 {
		q.Set("before", strconv.FormatUint(before, 10))
	}
	return "/audit?" + q.Encode()
}

// optionalNumber reads a number from a query; 0 when there is none.
func optionalNumber(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, invalid("%q is not a number", s)
	}
	return n, nil
}
