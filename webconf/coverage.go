package webconf

import (
	"encoding/csv"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type coverageView struct {
	Node    string
	Nodes   []columnHead
	Slots   []string // labels to filter by
	Filter  coverageFilter
	Rows    []coverageRow
	Matches int // rows of all pages
	Page    int // from 1
	Pages   int
	Summary node.Summary
	Losses  string   // which keys would be lost with which node
	Sources []string // slots of this node that a package can be made from
}

// A columnHead is a node at the head of the matrix.
type columnHead struct {
	Name    string
	Here    bool
	Answers bool
	Last    time.Time // when it last answered
}

// A coverageRow is one key, with a cell for each node in the order of the heads.
type coverageRow struct {
	node.KeyCoverage
	Cells []coverageCell
}

type coverageCell struct {
	Node string
	Mark mark
	Why  string // it is not present, and what to do
}

// A coverageFilter says which keys are wanted.
type coverageFilter struct {
	Slot string // label; empty: all
	Gaps bool   // only keys that are not present everywhere
	Text string // in label, ID or fingerprint
}

func (f coverageFilter) wants(k node.KeyCoverage) bool {
	if f.Slot != "" && k.Slot != f.Slot || f.Gaps && k.Complete() {
		return false
	}
	if f.Text == "" {
		return true
	}
	text := strings.ToLower(f.Text)
	return strings.Contains(strings.ToLower(k.Key.Label), text) || strings.Contains(k.Key.ID, text) ||
		strings.HasPrefix(k.Key.Fingerprint, strings.ReplaceAll(text, " ", ""))
}

// query is the filter as part of an address.
func (f coverageFilter) query() url.Values {
	q := url.Values{}
	if f.Slot != "" {
		q.Set("slot", f.Slot)
	}
	if f.Gaps {
		q.Set("show", "gaps")
	}
	if f.Text != "" {
		q.Set("text", f.Text)
	}
	return q
}

func (c *call) coverageFilter() coverageFilter {
	return coverageFilter{Slot: c.QueryParam("slot"), Gaps: c.QueryParam("show") == "gaps", Text: strings.TrimSpace(c.QueryParam("text"))}
}

func coveragePage(c *call) error {
	number, err := optionalNumber(c.QueryParam("page"))
	if err != nil {
		return err
	}
	v := newCoverageView(c.look(), c.coverageFilter(), int(min(number, 1e6)))
	return c.show(page{Name: "coverage", Title: "Key coverage", Nav: "/coverage", Data: v})
}

func newCoverageView(s *situation, f coverageFilter, number int) coverageView {
	v := coverageView{Node: s.Node, Filter: f, Slots: slices.Sorted(maps.Keys(s.State.Slots)), Summary: s.Summary, Losses: strings.TrimSpace(s.losses())}
	names := s.names()
	for _, n := range names {
		v.Nodes = append(v.Nodes, columnHead{n, n == s.Node, s.Seen[n].Answers, s.Seen[n].Last})
	}
	var wanted []node.KeyCoverage
	for _, k := range s.Coverage {
		if f.wants(k) {
			wanted = append(wanted, k)
		}
	}
	v.Matches = len(wanted)
	v.Pages = max(1, (len(wanted)+coverageRows-1)/coverageRows)
	v.Page = min(max(number, 1), v.Pages)
	first := (v.Page - 1) * coverageRows
	for _, k := range wanted[first:min(first+coverageRows, len(wanted))] {
		v.Rows = append(v.Rows, newCoverageRow(k, names))
	}
	v.Sources = sources(s)
	return v
}

func newCoverageRow(k node.KeyCoverage, names []string) coverageRow {
	r := coverageRow{KeyCoverage: k}
	for _, n := range names {
		why := k.Reasons[n]
		if !strings.HasPrefix(why, n) { // names stay as they are
			why = sentence(why)
		}
		r.Cells = append(r.Cells, coverageCell{n, presenceMark(k.Nodes[n]), stopped(why)})
	}
	return r
}

// sources are the slots of this node whose keys are not everywhere and could be sent.
func sources(s *situation) []string {
	var labels []string
	for _, k := range s.Coverage {
		if slices.Contains(k.Holders, s.Node) && !slices.Contains(labels, k.Slot) && slices.Contains(slices.Collect(maps.Values(k.Nodes)), node.Missing) {
			labels = append(labels, k.Slot)
		}
	}
	return labels
}

// PagePath is the address of another page of the same list.
func (v coverageView) PagePath(number int) string {
	q := v.Filter.query()
	q.Set("page", strconv.Itoa(number))
	return "/coverage?" + q.Encode()
}

// CSVPath is the same list as a file.
func (v coverageView) CSVPath() string {
	path := "/coverage.csv"
	if q := v.Filter.query().Encode(); q != "" {
		path += "?" + q
	}
	return path
}

func (v coverageView) Previous() int { return v.Page - 1 }
func (v coverageView) Next() int     { return v.Page + 1 }

// coverageCSV is the matrix for spreadsheets.
func coverageCSV(c *call) error {
	s := c.look()
	h := c.Response().Header()
	h.Set("Content-Type", "text/csv; charset=utf-8")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="coverage-%s-%s.csv"`, s.Node, s.Now.UTC().Format("20060102-150405")))
	c.Response().WriteHeader(http.StatusOK)
	return writeCoverage(csv.NewWriter(c.Response()), s, c.coverageFilter())
}

func writeCoverage(w *csv.Writer, s *situation, f coverageFilter) error {
	names := s.names()
	w.Write(append([]string{"slot", "label", "id", "type", "fingerprint", "first_seen", "certificates"}, names...))
	for _, k := range s.Coverage {
		if !f.wants(k) {
			continue
		}
		row := []string{inert(k.Slot), inert(k.Key.Label), k.Key.ID, k.Key.Type, k.Key.Fingerprint, k.Since.UTC().Format(time.RFC3339), strconv.Itoa(k.Certs)}
		for _, n := range names {
			row = append(row, string(k.Nodes[n]))
		}
		w.Write(row)
	}
	w.Flush()
	return w.Error()
}

// inert keeps spreadsheets from taking a label for a formula.
func inert(s string) string {
	if s != "" && strings.ContainsAny(s[:1], "=+-@\t\r") {
		return "'" + s
	}
	return s
}

type keyView struct{ Key coverageRow }

// keyPage tells of one key what the matrix has no room for.
func keyPage(c *call) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	fingerprint, err := c.segment("fingerprint")
	if err != nil {
		return err
	}
	s := c.look()
	i := slices.IndexFunc(s.Coverage, func(k node.KeyCoverage) bool { return k.Slot == label && k.Key.Fingerprint == fingerprint })
	if i < 0 {
		return &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("no node holds a key with that fingerprint in slot %q", label)}
	}
	k := s.Coverage[i]
	return c.show(page{Name: "key", Title: "Key " + keyName(k.Key), Nav: "/coverage", Crumbs: []crumb{{"Key coverage", "/coverage"}}, Data: keyView{newCoverageRow(k, s.names())}})
}
