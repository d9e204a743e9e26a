package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyferry/keyferry/cluster"
	"go.etcd.io/bbolt"
)

// acts records what people and nodes do with an HSM: authorized and written to the audit trail before it
// runs, and its result after.
type acts struct{ m *Member }

// An act is one such deed. Its name and object are what the audit log shows.
type act struct {
	actor      cluster.Actor
	permission cluster.Permission
	name       string // "slot.activate"
	object     string // "slot/payments"
	detail     string
}

// slot is the label of the slot that the act is about, "" where it is not about one.
func (a act) slot() string {
	label, _ := strings.CutPrefix(a.object, "slot/")
	if label == a.object {
		return ""
	}
	return label
}

// A refusal is an error that means: nothing was done, because it may not or cannot be. It is recorded
// as such; all other errors count as failures.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

// ask asks for the approval of an act that a job is about to begin, where a policy wants that, so that its
// author is told at once. It is as begin will be, but for its id.
func (a *acts) ask(ctx context.Context, act act) error {
	return a.m.Cluster.Ask(ctx, act.begin(cluster.NewID()), act.actor)
}

// begin is the first record of an act.
func (a act) begin(id string) *cluster.BeginAct {
	begin := &cluster.BeginAct{ID: id, Act: a.name, Object: a.object, Detail: line(a.detail), Permission: a.permission, Slot: a.slot()}
	if begin.Detail != a.detail {
		begin.Digest = fmt.Sprintf("%x", sha256.Sum256([]byte(a.detail)))
	}
	return begin
}

// do runs f between the two records of an act. Without the first there is no act.
func (a *acts) do(ctx context.Context, act act, f func() error) error {
	if err := a.m.StillMember(); err != nil {
		return err
	}
	id := cluster.NewID()
	begin := act.begin(id)
	if _, err := a.m.Cluster.Apply(ctx, begin, act.actor); errors.Is(err, cluster.NeedsApproval) {
		return err // which says so
	} else if err != nil {
		return fmt.Errorf("nothing was done: %w", err)
	}
	err := f()
	a.end(id, act.actor, err)
	return err
}

// end records how an act ended. A record that cannot be made now waits in the outbox.
func (a *acts) end(id string, actor cluster.Actor, err error) {
	w := waiting{End: &cluster.EndAct{ID: id, Result: resultOf(err)}, Actor: actor}
	if err != nil {
		w.End.Detail = line(err.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := a.m.Cluster.Apply(ctx, w.command(), a.m.self()); err != nil && !errors.Is(err, cluster.NotFound) {
		a.keep(w)
	}
}

func resultOf(err error) string {
	if err == nil {
		return cluster.Done
	}
	if _, ok := errors.AsType[refusal](err); ok {
		return cluster.Refused
	}
	return cluster.Failed
}

// doLocally is do for what a node must be able to do without a quorum, such as opening a slot. Where
// nothing can be replicated, the act is authorized by the state that this node has, and recorded in the
// outbox before it runs.
func (a *acts) doLocally(ctx context.Context, act act, f func() error) error {
	if err := a.m.StillMember(); err != nil {
		return err
	}
	if a.m.Cluster.Status().Quorum {
		return a.do(ctx, act, f)
	}
	if err := cluster.Authorize(a.m.State(), act.actor, a.m.Name(), act.permission, act.slot()); err != nil {
		return err
	}
	if a.m.State().CoveredAct(act.name) {
		return refuse("a policy wants others to approve this, and without a quorum nobody can: it has to wait for the cluster")
	}
	began := time.Now().UTC().Format(time.RFC3339)
	id := cluster.NewID()
	begin := &cluster.BeginAct{ID: id, Act: act.name, Object: act.object, Permission: act.permission, Slot: act.slot(),
		Detail: line("begun at " + began + " without a quorum; " + act.detail)}
	if err := a.keep(waiting{Begin: begin, Actor: act.actor}); err != nil {
		return fmt.Errorf("nothing was done, because it could not be recorded: %w", err)
	}
	err := f()
	end := &cluster.EndAct{ID: id, Result: resultOf(err)}
	if err != nil {
		end.Detail = line(err.Error())
	}
	a.keep(waiting{End: end, Actor: act.actor})
	return err
}

// note records something that happened on this node and changes nothing replicated: a log-in, a part of a
// code that came in. act is one of cluster.Note...; object and detail must hold no secret. Where the
// cluster cannot take it now, it waits in the outbox, with the time; the error is of the disk, or of a note
// that is not valid.
func (a *acts) note(ctx context.Context, actor cluster.Actor, act, object, result, detail string) error {
	n := &cluster.RecordNote{Actor: actor, Act: act, Object: line(object), Result: result, Detail: line(detail)}
	at := time.Now().UTC()
	var err error = cluster.NoLeader
	if a.m.Cluster.Status().Quorum && a.m.Removed().IsZero() { // one that was removed sees the leader for a moment more
		if _, err = a.m.Cluster.Apply(ctx, n, a.m.self()); err == nil || errors.Is(err, cluster.Behind) {
			return nil
		}
	}
	if errors.Is(err, cluster.Invalid) || errors.Is(err, cluster.Denied) {
		return err
	}
	n.Detail = line("at " + at.Format(time.RFC3339) + " without a quorum; " + detail)
	return a.keep(waiting{Note: n, Actor: a.m.self()})
}

// waiting is a record that waits for a quorum: one of the three.
type waiting struct {
	Begin *cluster.BeginAct   `json:",omitempty"`
	End   *cluster.EndAct     `json:",omitempty"`
	Note  *cluster.RecordNote `json:",omitempty"`
	Actor cluster.Actor       // of the act
}

// command is the node's own word, never one of the actor's: what happened cannot be refused afterwards,
// because they have lost their account or a policy was made.
func (w waiting) command() cluster.Command {
	if w.Note != nil {
		return w.Note
	}
	return &cluster.RecordAct{Actor: w.Actor, Begin: w.Begin, End: w.End}
}

// maxWaitingNotes bounds the outbox for notes: whoever tries passwords while there is no quorum must not
// fill the disk. Acts are not bounded by it; they need somebody who is logged in.
const maxWaitingNotes = 10_000

// keep puts a record into the outbox. Keys are sequence numbers, so that the order stays.
func (a *acts) keep(w waiting) error {
	var seq uint64
	err := a.m.node.store.db.Update(func(tx *bbolt.Tx) (err error) {
		outbox := tx.Bucket(bucketOutbox)
		oldest, _ := outbox.Cursor().First()
		seq, err = outbox.NextSequence()
		if w.Note != nil && oldest != nil && string(oldest) <= outboxKey(seq-min(seq, maxWaitingNotes)) {
			err = fmt.Errorf("%d records wait for the cluster already", maxWaitingNotes)
		}
		return err
	})
	if err == nil {
		err = a.m.node.store.put(bucketOutbox, outboxKey(seq), w)
	}
	if err != nil {
		a.m.log.Error("an act cannot be recorded", "error", err)
	}
	return err
}

func outboxKey(seq uint64) string {
	s := strconv.FormatUint(seq, 10)
	return "00000000000000000000"[len(s):] + s
}

// flush replicates what waits in the outbox whenever there is a quorum, and ends acts of this node that
// a crash left open.
func (a *acts) flush(ctx context.Context) {
	a.closeInterrupted(ctx)
	for {
		if a.m.Cluster.Status().Quorum {
			if err := a.flushOnce(ctx); err != nil {
				a.m.log.Warn("audit entries wait for the cluster", "error", err)
			}
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return
		}
	}
}

func (a *acts) flushOnce(ctx context.Context) error {
	type entry struct {
		key string
		w   waiting
	}
	var entries []entry
	err := a.m.node.store.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOutbox).ForEach(func(k, _ []byte) error {
			entries = append(entries, entry{key: string(k)})
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.w, err = get[waiting](a.m.node.store, bucketOutbox, e.key); err != nil {
			return err
		}
		_, err := a.m.Cluster.Apply(ctx, e.w.command(), a.m.self())
		switch {
		case err == nil, errors.Is(err, cluster.Conflict), errors.Is(err, cluster.NotFound):
			// recorded now, or before
		case errors.Is(err, cluster.Invalid), errors.Is(err, cluster.Denied):
			a.m.log.Error("a record in the outbox cannot be taken and is given up", "record", e.w.command().Kind(), "error", err)
		default:
			return err
		}
		if err := a.m.node.store.drop(bucketOutbox, e.key); err != nil {
			return err
		}
	}
	return nil
}

// closeInterrupted ends the acts that this node had begun when it stopped.
func (a *acts) closeInterrupted(ctx context.Context) {
	began := time.Now()
	for {
		s, changed := a.m.Cluster.Watch()
		ready := a.m.Cluster.Status().Quorum && s.Cluster.ID != ""
		open := 0
		for id, act := range s.Acts {
			if act.Node != a.m.Name() || !act.Started.Before(began) {
				continue
			}
			open++
			end := &cluster.EndAct{ID: id, Result: cluster.Failed, Detail: "the node stopped before this ended; see the entries after it for what became of it"}
			if ready {
				a.m.Cluster.Apply(ctx, end, a.m.self())
			}
		}
		if ready && open == 0 {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// line makes a text fit for one line of the audit trail.
func line(s string) string {
	const most = 480
	out := make([]rune, 0, len(s))
	size := 0
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		if size += utf8.RuneLen(r); size > most {
			return string(out) + "…"
		}
		out = append(out, r)
	}
	return string(out)
}

// IsRefusal tells whether an error means that nothing was done, because what was asked for may not or
// cannot be; its text is for the person who asked.
func IsRefusal(err error) bool {
	_, ok := errors.AsType[refusal](err)
	return ok
}
