package webconf

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
	"github.com/labstack/echo/v4"
)

// TestJudge: each kind of error has its status and code, and only text made for people is told.
func TestJudge(t *testing.T) {
	clusterError := func(c cluster.Code) error {
		return fmt.Errorf("nothing was done: %w", &cluster.Error{Code: c, Message: "the reason"})
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{clusterError(cluster.Invalid), 400, "invalid"},
		{clusterError(cluster.Denied), 403, "denied"},
		{clusterError(cluster.NotFound), 404, "not_found"},
		{clusterError(cluster.Conflict), 409, "conflict"},
		{clusterError(cluster.Expired), 409, "expired"},
		{clusterError(cluster.NoLeader), 503, "no_leader"},
		{clusterError(cluster.Uncertain), 503, "uncertain"},
		{clusterError(cluster.Behind), 503, "behind"},
		{clusterError(cluster.Upgrade), 409, "upgrade"},
		{clusterError(cluster.Full), 409, "full"},
		{clusterError(cluster.NeedsApproval), 409, "needs_approval"},
		{clusterError(cluster.Changed), 409, "changed"},
		{clusterError(cluster.Internal), 500, "internal"},
		{&syncpkg.Error{Kind: syncpkg.ErrExpired, Err: errors.New("the reason")}, 422, "package"},
		{fmt.Errorf("a reason: %w", &hsm.Error{Code: hsm.Down}), 503, "unavailable"},
		{&hsm.Error{Code: hsm.Timeout}, 503, "unavailable"},
		{&hsm.Error{Code: hsm.Device, RV: 5}, 503, "unavailable"},
		{&hsm.Error{Code: hsm.Internal}, 500, "internal"},
		{&node.WaitError{Until: time.Now().Add(time.Minute)}, 429, "throttled"},
		{node.ErrLogin, 401, "denied"},
		{node.ErrNotMember, 409, "not_member"},
		{errTooFast, 429, "throttled"},
		{errCrossOrigin, 403, "denied"},
		{errNoSession, 401, "denied"},
		{echo.ErrNotFound, 404, "not_found"},
		{echo.ErrMethodNotAllowed, 405, "invalid"},
		{&http.MaxBytesError{}, 413, "invalid"},
		{context.DeadlineExceeded, 503, "unavailable"},
		{errors.New("the disk is on fire"), 500, "internal"},
		{fmt.Errorf("open /secret/path: %w", errors.New("no")), 500, "internal"},
	} {
		v := judge(c.err)
		if v.status != c.status || v.code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, v.status, v.code, c.status, c.code)
		}
		if (v.message == "") != (c.code == "internal") {
			t.Errorf("%v: the message is %q", c.err, v.message)
		}
	}
	if v := judge(&node.WaitError{Until: time.Now().Add(time.Minute)}); v.retry < 50*time.Second {
		t.Errorf("to try again after %v", v.retry)
	}
	if v := judge(said(errors.New("the disk is on fire"))); v.code != "refused" || v.message != "the disk is on fire" {
		t.Errorf("said: %+v", v)
	}
	if err := clusterError(cluster.Invalid); said(err) != err || said(nil) != nil {
		t.Error("said changes what is told anyway")
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "just now", 4 * time.Second: "just now", 59 * time.Second: "59 s ago", 6 * time.Minute: "6 min ago", 26 * time.Hour: "26 h ago", 41 * 24 * time.Hour: "41 days ago",
		3 * 365 * 24 * time.Hour: "3 years ago", -45 * time.Minute: "in 45 min", -7*24*time.Hour + time.Second: "in 7 days",
	} {
		if got := relative(now.Add(-d), now); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if tag := string(timeTag(now.Add(-time.Hour), now)); tag != `<time datetime="2026-03-01T11:00:00Z" title="2026-03-01 11:00:00 UTC">60 min ago</time>` {
		t.Error(tag)
	}
	if tag := string(timeTag(time.Time{}, now)); !strings.Contains(tag, "never") {
		t.Error(tag)
	}
}

func TestWords(t *testing.T) {
	for in, want := range map[string]string{"": "", "a": "A.", "the end.": "The end.", "why?": "Why?", "über": "Über.", "  x ": "X."} {
		if got := sentence(in); got != want {
			t.Errorf("sentence(%q) = %q", in, got)
		}
	}
	for in, want := range map[string][]string{"none": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}} {
		if got := and(want); got != in {
			t.Errorf("and(%v) = %q", want, got)
		}
	}
	if plural(1, "key") != "1 key" || plural(2, "key") != "2 keys" || plural(0, "entry") != "0 entries" {
		t.Error("plural")
	}
	if size(999) != "999 bytes" || size(20_480) != "20 kB" || size(67_108_864) != "67.1 MB" {
		t.Error(size(999), size(20_480), size(67_108_864))
	}
	if short("9f2c41d077ab0000") != "9f2c 41d0 77ab" || short("ab") != "ab" {
		t.Error(short("9f2c41d077ab0000"))
	}
	if got := lostWith([]string{"a", "b", "c", "d", "e"}); got != "a, b, c and 2 more keys are lost with it" {
		t.Error(got)
	}
	if got := lostWith([]string{"a"}); got != "a is lost with it" {
		t.Error(got)
	}
}

func TestLocalPath(t *testing.T) {
	for in, want := range map[string]string{"/slots?x=1#y": "/slots?x=1#y", "/": "/", "": "/", "slots": "/", "//evil.example/x": "/", "https://evil.example": "/", `/\evil.example`: "/", "/\\evil": "/", "/a\r\nSet-Cookie: x": "/", "javascript:alert(1)": "/"} {
		if got := localPath(in); got != want {
			t.Errorf("localPath(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestAuditRows: an act is one row, under way or ended, on whichever page its two entries are.
func TestAuditRows(t *testing.T) {
	v := plainSituation(1, 0, 0).history(30, "text")
	var seen []uint64
	before, pages := uint64(0), 0
	for {
		rows, more := auditRowsOf(v.State, auditFilter{}, before, 7)
		for _, r := range rows {
			seen = append(seen, r.Seq)
			if r.Act == "slot.activate" && r.Result != cluster.Started && r.Began.IsZero() {
				t.Errorf("the act that ended with entry %d does not say when it began", r.Seq)
			}
		}
		if pages++; !more {
			break
		}
		before = rows[len(rows)-1].Seq
	}
	// 120 times an act and a note; the first act is still under way.
	if want := 240; len(seen) != want || pages != (want+6)/7 {
		t.Errorf("%d rows on %d pages, want %d", len(seen), pages, want)
	}
	for i := 1; i < len(seen); i++ {
		if seen[i] >= seen[i-1] {
			t.Fatalf("entry %d comes after %d", seen[i], seen[i-1])
		}
	}
	for filter, want := range map[auditFilter]int{{Result: cluster.Started}: 1, {Result: cluster.Failed}: 40, {Text: "ACTIVATED"}: 120, {Text: "no such thing"}: 0, {Text: "text", Result: cluster.Refused}: 40} {
		if rows, _ := auditRowsOf(v.State, filter, 0, 1000); len(rows) != want {
			t.Errorf("%+v: %d rows, want %d", filter, len(rows), want)
		}
	}
}

// TestCoverageView: filters and pages.
func TestCoverageView(t *testing.T) {
	v := plainSituation(3, 5, 250)
	v.Coverage[7].Nodes["node2"] = node.Missing
	for _, c := range []struct {
		filter        coverageFilter
		page          int
		matches, rows int
	}{
		{coverageFilter{}, 1, 250, 100}, {coverageFilter{}, 3, 250, 50}, {coverageFilter{}, 99, 250, 50}, {coverageFilter{}, 0, 250, 100},
		{coverageFilter{Slot: "Slot01"}, 1, 50, 50}, {coverageFilter{Gaps: true}, 1, 1, 1}, {coverageFilter{Text: "KEY-008"}, 1, 1, 1},
		{coverageFilter{Text: v.Coverage[7].Key.Fingerprint[:62]}, 1, 250, 100}, {coverageFilter{Text: grouped(v.Coverage[7].Key.Fingerprint)}, 1, 1, 1}, {coverageFilter{Text: "nothing"}, 1, 0, 0},
	} {
		got := newCoverageView(v, c.filter, c.page)
		if got.Matches != c.matches || len(got.Rows) != c.rows {
			t.Errorf("%+v page %d: %d matches, %d rows; want %d, %d", c.filter, c.page, got.Matches, len(got.Rows), c.matches, c.rows)
		}
	}
	if got := sources(v); len(got) != 1 || got[0] != v.Coverage[7].Slot {
		t.Errorf("packages can be made from %v", got)
	}
}

func TestForm(t *testing.T) {
	f := newForm("code", map[string]string{"label": "a"})
	in, err := newInput(f, "code", "label", "Label", "hint", "h", "optional", true, "min", 3)
	if err != nil || in.Value != "a" || in.ID != "code-label" || in.Hint != "h" || !in.Optional || in.Min != 3 {
		t.Errorf("%+v, %v", in, err)
	}
	if other, err := newInput(f, "mode", "label", "Label"); err != nil || other.Value != "" {
		t.Errorf("the field of another form: %+v, %v", other, err)
	}
	for _, options := range [][]any{{"hint", 3}, {"colour", "red"}, {"min", "3"}} {
		if _, err := newInput(f, "code", "label", "Label", options...); err == nil {
			t.Errorf("%v is accepted", options)
		}
	}
	if err := f.blame("label", errors.New("private")); err == nil || !f.ok() {
		t.Error("an internal error is blamed on a field")
	}
	if err := f.blame("label", &cluster.Error{Code: cluster.NoLeader, Message: "no leader answers"}); err != nil || f.Error("label") != "No leader answers." || f.status != 503 {
		t.Errorf("%v, %q, %d", err, f.Error("label"), f.status)
	}
}
