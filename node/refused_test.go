package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// TestRefusalsAreBounded: the same package is told once a day, and somebody with 10,000 files fills no trail.
func TestRefusalsAreBounded(t *testing.T) {
	r := &refusals{told: map[refused]time.Time{}, spans: map[cluster.Actor]refusedIn{}}
	mallory, anna := cluster.Actor{Kind: cluster.ByAccount, Name: "mallory"}, cluster.Actor{Kind: cluster.ByAccount, Name: "anna"}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	one := refused{mallory, "digest", syncpkg.ErrSignature}
	if l := r.meet(one, now); l != (listing{entry: true}) {
		t.Errorf("the first: %+v", l)
	}
	for _, c := range []struct {
		what string
		p    refused
		at   time.Duration
		want listing
	}{
		{"the same again", one, time.Minute, listing{}},
		{"for another reason", refused{mallory, "digest", syncpkg.ErrExpired}, time.Minute, listing{entry: true}},
		{"by another person", refused{anna, "digest", syncpkg.ErrSignature}, time.Minute, listing{entry: true}},
		{"the same in the evening", one, 23 * time.Hour, listing{}},
		{"the same the next day", one, 24 * time.Hour, listing{entry: true}},
	} {
		if l := r.meet(c.p, now.Add(c.at)); l != c.want {
			t.Errorf("%s: %+v", c.what, l)
		}
	}
	now = now.AddDate(0, 0, 7)
	entries, lasts := 0, 0
	for i := range 10_000 {
		l := r.meet(refused{mallory, fmt.Sprint(i), syncpkg.ErrMalformed}, now.Add(time.Duration(i)*time.Millisecond))
		if l.entry {
			entries++
		}
		if l.last {
			lasts++
		}
	}
	if entries != mostRefused || lasts != 1 || len(r.told) != mostRefused {
		t.Errorf("%d entries, %d of them the last, %d remembered", entries, lasts, len(r.told))
	}
	if l := r.meet(refused{anna, "another", syncpkg.ErrMalformed}, now); l != (listing{entry: true}) {
		t.Errorf("somebody else meanwhile: %+v", l)
	}
	if l := r.meet(refused{mallory, "x", syncpkg.ErrMalformed}, now.Add(refusedSpan)); l != (listing{entry: true, before: 10_000 - mostRefused}) {
		t.Errorf("an hour later: %+v", l)
	}
}

// refusedEntries are what the trail says of refused packages: who, which, why.
func refusedEntries(m *Member) (list []string) {
	for _, e := range m.State().Audit {
		if e.Act == cluster.NotePackageRefused {
			list = append(list, strings.Join([]string{e.Actor.String(), e.Node, e.Object, e.Result, e.Detail}, " "))
		}
	}
	return list
}
