package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// resume finishes imports that were interrupted, as soon as their slot is open, and tells the cluster
// what it missed meanwhile.
func (y *Sync) resume(ctx context.Context) {
	for {
		ids, err := y.m.node.store.journals()
		if err != nil {
			y.m.log.Error("the journal cannot be read", "error", err)
		}
		for _, id := range ids {
			if y.m.Cluster.Status().Quorum {
				y.resumeOne(ctx, id)
			}
		}
		if err := y.flushReceipts(ctx); err != nil && ctx.Err() == nil {
			y.m.log.Warn("receipts wait for the cluster", "error", err)
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// A pause is how long an interrupted import waits until it is tried again.
type pause struct {
	length time.Duration
	until  time.Time
}

const (
	firstPause = 5 * time.Second
	mostPause  = 10 * time.Minute
)

// due tells whether an import may be tried again now.
func (i *importing) due(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().After(i.retry[id].until)
}

// postpone makes the next try wait, each time longer.
func (i *importing) postpone(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	p := i.retry[id]
	p.length = min(max(2*p.length, firstPause), mostPause)
	p.until = time.Now().Add(p.length)
	i.retry[id] = p
}

// resumeOne goes on with one import, in a job of the node's own.
func (y *Sync) resumeOne(ctx context.Context, id string) {
	h, keys, err := y.m.node.store.readJournal(id)
	if err != nil {
		return
	}
	if _, err := y.m.Slots.token(h.Slot); err != nil || !y.due(id) {
		return // it waits for its slot, or for better times
	}
	release, ok := y.acquire(h.Slot)
	if !ok {
		return // it is just going on
	}
	if !y.isOpen(id) { // it ended before the slot was free
		release()
		return
	}
	job := y.m.Jobs.start("import", "slot/"+h.Slot, y.m.self(), func(ctx context.Context, pr *progress) error {
		defer release()
		pr.say("going on with the import of package %s, which %s began at %s and which was interrupted", id, h.Actor, h.Began.Format(time.RFC3339))
		detail := fmt.Sprintf("package %s, interrupted; begun by %s", id, h.Actor)
		return y.m.acts.do(ctx, act{y.m.self(), cluster.MaySynchronize, "sync.import", "slot/" + h.Slot, detail}, func() error {
			s, err := y.Get(h.File)
			if err == nil {
				err = y.run(ctx, s, h.Actor, pr)
			}
			if _, final := errors.AsType[refusal](err); final { // expired or gone: it cannot be finished
				return errors.Join(err, y.abandon(ctx, id, h, keys, pr))
			}
			return err
		})
	})
	y.m.Jobs.Wait(ctx, job)
	if y.isOpen(id) {
		y.postpone(id)
	}
}

// abandon cleans up after an import that cannot be finished. Keys that had proved themselves stay.
func (y *Sync) abandon(ctx context.Context, id string, h journalHead, keys []journalKey, pr *progress) error {
	token, err := y.m.Slots.token(h.Slot)
	if err != nil {
		return err
	}
	n, err := token.Sweep(ctx, unproved(keys), settle)
	if err != nil {
		return err
	}
	pr.say("removed %s that the interruption left half made; keys that had proved themselves stay", plural(n, "object"))
	return (&journal{y.m.node.store, []byte(id)}).close()
}
