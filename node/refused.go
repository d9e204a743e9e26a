package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// A package that is refused before an import begins has changed nothing; but somebody has brought it, and it may
// be forged. So the audit trail tells of it, without letting whoever uploads files all day fill it.

const (
	refusedOnce = 24 * time.Hour // the same package for the same reason by the same person: one entry
	refusedSpan = time.Hour      // within which mostRefused packages of one person get entries
	mostRefused = 20
)

// A refused package, as one person meets it.
type refused struct {
	actor cluster.Actor
	what  string // digest
	kind  syncpkg.Kind
}

// refusals are the refused packages that the trail tells of, since the daemon started.
type refusals struct {
	mu    sync.Mutex
	told  map[refused]time.Time
	spans map[cluster.Actor]refusedIn
}

// refusedIn is what one person met within a span.
type refusedIn struct {
	began          time.Time
	told, unlisted int
}

// listing says what the trail tells of a refused package.
type listing struct {
	entry  bool
	last   bool // no other of this person gets an entry in this span
	before int  // packages of this person that got none in the span before
}

// meet counts a refused package. An entry for each of 10,000 files would push everything else out of the trail.
func (r *refusals) meet(p refused, now time.Time) listing {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.told, func(_ refused, at time.Time) bool { return now.Sub(at) >= refusedOnce })
	if _, known := r.told[p]; known {
		return listing{}
	}
	var l listing
	s, begun := r.spans[p.actor]
	if !begun || now.Sub(s.began) >= refusedSpan {
		l.before, s = s.unlisted, refusedIn{began: now}
	}
	if s.told == mostRefused {
		s.unlisted++
	} else {
		s.told++
		l.entry, l.last = true, s.told == mostRefused
		r.told[p] = now
	}
	r.spans[p.actor] = s
	return l
}

// tellRefused records that somebody met a package that is refused, and how. Where err is not a verdict on the
// package there is nothing to tell. Of a file without a head it does not say what it holds, nor its digest: it may
// be anything, also a file with a code in it that somebody took for a package.
func (y *Sync) tellRefused(ctx context.Context, actor cluster.Actor, how string, head *syncpkg.Head, digest string, err error) {
	kind, verdict := errors.AsType[syncpkg.Kind](err)
	if !verdict {
		return
	}
	object, detail := "package", fmt.Sprintf("%s: the head cannot be read (%s)", how, kind)
	if head != nil {
		digest = head.Digest()
		object, detail = "package/"+head.Header.ID, fmt.Sprintf("%s, SHA-256 of the header %s: %v", how, digest, err)
	}
	l := y.refusals.meet(refused{actor, digest, kind}, time.Now())
	if !l.entry {
		return
	}
	if l.before > 0 {
		detail = fmt.Sprintf("%s refused before it have no entry; %s", plural(l.before, "package"), detail)
	}
	if l.last {
		detail = "the last within an hour that gets an entry; " + detail
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second) // also if nobody waits for the answer
	defer cancel()
	y.m.acts.note(ctx, actor, cluster.NotePackageRefused, object, cluster.Refused, detail)
}

// tellRefusedFile is tellRefused of what came in before it was refused.
func (y *Sync) tellRefusedFile(ctx context.Context, actor cluster.Actor, f *os.File, digest string, err error) {
	var head *syncpkg.Head
	if _, seek := f.Seek(0, io.SeekStart); seek == nil {
		head, _ = syncpkg.ReadHead(bufio.NewReader(f))
	}
	y.tellRefused(ctx, actor, "brought", head, digest, err)
}

// tellRefusedKept is tellRefused of a package that is kept here. One that was imported here before is no news.
func (y *Sync) tellRefusedKept(ctx context.Context, actor cluster.Actor, how string, s Staged, err error) {
	if _, imported := y.m.State().Packages[s.Header.ID].Receipts[y.m.Name()]; imported {
		return
	}
	f, opened := y.File(s)
	if opened != nil {
		return
	}
	defer f.Close()
	if head, unread := syncpkg.ReadHead(bufio.NewReader(f)); unread == nil {
		y.tellRefused(ctx, actor, how, head, s.SHA256, err)
	}
}
