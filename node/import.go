package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// ImportReport is what an import did.
type ImportReport struct {
	Package   string              `json:"package"`
	Slot      string              `json:"slot"`
	Imported  int                 `json:"imported"`
	There     int                 `json:"already_there"`
	Conflicts int                 `json:"conflicts"`
	Failed    int                 `json:"failed"`
	Keys      []syncpkg.KeyResult `json:"keys"`
	Receipt   bool                `json:"receipt"` // signed, and known to the cluster
	Restarts  []RestartResult     `json:"restarts"`
}

// importing is which slots have an import in progress: one at a time.
type importing struct {
	mu    sync.Mutex
	busy  map[string]bool  // by slot
	retry map[string]pause // by package id: interrupted imports that did not get on
}

func newSync(m *Member) *Sync {
	return &Sync{m: m, importing: importing{busy: map[string]bool{}, retry: map[string]pause{}},
		refusals: refusals{told: map[refused]time.Time{}, spans: map[cluster.Actor]refusedIn{}}}
}

// acquire takes a slot for an import; release gives it back.
func (i *importing) acquire(slot string) (release func(), ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy[slot] {
		return nil, false
	}
	i.busy[slot] = true
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.busy, slot)
	}, true
}

// Import puts the keys of a kept package on this node's token. What is there already is skipped, so that
// an import can be repeated.
func (y *Sync) Import(ctx context.Context, actor cluster.Actor, digest string) (*Job, error) {
	s, err := y.Get(digest)
	if err != nil {
		return nil, err
	}
	if _, err := y.open(s); err != nil {
		y.tellRefusedKept(ctx, actor, "to be imported", s, err)
		return nil, err
	}
	slot := s.Header.Slot
	if _, err := y.m.Slots.token(slot); err != nil {
		return nil, err
	}
	release, ok := y.acquire(slot)
	if !ok {
		return nil, refuse("another import into slot %q is in progress; wait for its end", slot)
	}
	return y.m.Jobs.start("import", "slot/"+slot, actor, func(ctx context.Context, pr *progress) error {
		defer release()
		detail := fmt.Sprintf("package %s from %s, %s", s.Header.ID, s.Header.Source, plural(s.Header.Keys, "key"))
		return y.m.acts.do(ctx, act{actor, cluster.MaySynchronize, "sync.import", "slot/" + slot, detail}, func() error {
			return y.run(ctx, s, actor, pr)
		})
	}), nil
}

// An importRun is one import as it goes on.
type importRun struct {
	y       *Sync
	pkg     *syncpkg.Package
	slot    string
	token   *hsm.Token
	journal *journal
	pr      *progress
	judged  judged
	begun   map[string]bool              // fingerprints that an interrupted run had begun
	results map[string]syncpkg.KeyResult // by fingerprint
}

// attempts is how often an import goes on after the module was restarted under it.
const attempts = 3

// run imports, signs the receipt, and restarts applications.
func (y *Sync) run(ctx context.Context, s Staged, actor cluster.Actor, pr *progress) error {
	pkg, err := y.open(s)
	if err != nil {
		return err
	}
	slot := s.Header.Slot
	token, err := y.m.Slots.token(slot)
	if err != nil {
		return err
	}
	r := &importRun{y: y, pkg: pkg, slot: slot, token: token, pr: pr, begun: map[string]bool{}, results: map[string]syncpkg.KeyResult{}}
	head := journalHead{Package: s.Header.ID, File: s.SHA256, Slot: slot, Serial: token.Serial, Actor: actor, Began: time.Now().UTC()}
	if r.journal, err = y.m.node.store.journal(head); err != nil {
		return fmt.Errorf("the journal cannot be written, so nothing was begun: %w", err)
	}
	pr.say("the package of %s is authentic, for this node, and opened: %s", s.Header.Source, plural(s.Header.Keys, "key"))
	if note := y.clockNote(s.Header.Source); note != "" {
		pr.say("%s", note)
	}
	y.m.node.cfg.Fault("import: journal open")
	for try := 1; ; try++ {
		err = r.keys(ctx)
		if err == nil || try == attempts || !interrupted(err) {
			break
		}
		pr.say("the module was restarted during the import (%v); going on", err)
	}
	if err != nil {
		return errors.Join(err, r.giveUp(ctx, err))
	}
	report := r.report()
	pr.say("%s imported and proved, %d already there, %s, %d failed", plural(report.Imported, "key"), report.There, plural(report.Conflicts, "conflict"), report.Failed)
	pr.result(s.SHA256)
	pr.report(*report)
	if err := y.sendReceipt(ctx, pkg, report); err != nil {
		return fmt.Errorf("the keys are on the token, but the receipt could not be made: %w; import the package again to make it", err)
	}
	pr.say("the receipt is signed by this node's HSM")
	y.m.node.cfg.Fault("import: receipt sent")
	if err := r.journal.close(); err != nil {
		return err
	}
	if err := y.m.Keys.Look(ctx, slot); err != nil {
		y.m.log.Warn("the cluster does not know the imported keys yet", "slot", slot, "error", err)
	}
	if report.Imported > 0 {
		report.Restarts = y.m.Apps.restartUsers(ctx, slot, pr)
	}
	pr.report(*report)
	return report.err()
}

// giveUp closes the journal of an import that an error has ended for good, after removing what was half
// made. After an interruption it stays open, and the node goes on by itself later.
func (r *importRun) giveUp(ctx context.Context, err error) error {
	if interrupted(err) || ctx.Err() != nil {
		return nil
	}
	_, keys, err := r.y.m.node.store.readJournal(r.pkg.Head.Header.ID)
	if err != nil {
		return err
	}
	if len(keys) > 0 {
		if _, err := r.token.Sweep(ctx, unproved(keys), settle); err != nil {
			return err
		}
	}
	return r.journal.close()
}

// interrupted tells whether an import may go on after an error.
func interrupted(err error) bool {
	return errors.Is(err, hsm.Down) || errors.Is(err, hsm.Stale) || errors.Is(err, hsm.Timeout)
}

func (r *ImportReport) err() error {
	if r.Conflicts+r.Failed == 0 {
		return nil
	}
	return fmt.Errorf("%s could not be imported: %s, %d failed; %d imported, %d were there already",
		plural(r.Conflicts+r.Failed, "key"), plural(r.Conflicts, "conflict"), r.Failed, r.Imported, r.There)
}

// keys sweeps what an interruption left, decides about each key, and imports in batches.
func (r *importRun) keys(ctx context.Context) error {
	if err := r.sweep(ctx); err != nil {
		return err
	}
	objects, err := r.token.Objects(ctx, 0, true)
	if err != nil {
		return err
	}
	var todo []int
	beside := r.y.sourceHolds(r.pkg.Head.Header)
	for i, k := range r.pkg.Content.Keys {
		fp := k.Fingerprint()
		if r.results[fp].Result == syncpkg.Imported {
			continue
		}
		action, why := actionFor(k, objects, beside)
		switch {
		case action == ActionSkip && r.begun[fp]:
			r.results[fp] = r.prove(k, objects)
		case action == ActionSkip:
			r.results[fp] = result(k, syncpkg.AlreadyThere, nil, nil)
		case action == ActionConflict:
			r.results[fp] = result(k, syncpkg.Conflict, nil, errors.New(why))
			r.pr.say("key %q is not imported: %s", packagedLabel(k), why)
		default:
			todo = append(todo, i)
		}
	}
	r.pr.at(len(r.pkg.Content.Keys)-len(todo), len(r.pkg.Content.Keys))
	if len(todo) == 0 {
		return nil
	}
	return r.batches(ctx, todo)
}

// sweep removes half-made keys of an interrupted run and remembers what it had begun.
func (r *importRun) sweep(ctx context.Context) error {
	_, keys, err := r.y.m.node.store.readJournal(r.pkg.Head.Header.ID)
	if err != nil || len(keys) == 0 {
		return err
	}
	for _, k := range keys {
		r.begun[k.Fingerprint] = true
	}
	n, err := r.token.Sweep(ctx, unproved(keys), settle)
	if n > 0 {
		r.pr.say("removed %s that the interruption left half made", plural(n, "object"))
	}
	return err
}

// settle is how long a half-made object must stay as it is before it counts as left behind, and not as
// just being written by another program.
const settle = 2 * time.Second

// batches imports the keys with the given indexes: journal, then act, then prove.
func (r *importRun) batches(ctx context.Context, todo []int) error {
	envelope, err := r.envelope(ctx)
	if err != nil {
		return err
	}
	imp, err := r.token.Import(ctx, envelope)
	if err != nil {
		return err
	}
	defer imp.Close()
	total := len(r.pkg.Content.Keys)
	for left := len(todo); len(todo) > 0; {
		batch := todo[:min(len(todo), hsm.MaxBatch)]
		todo = todo[len(batch):]
		if err := r.batch(ctx, imp, batch); err != nil {
			return err
		}
		left -= len(batch)
		r.pr.at(total-left, total)
	}
	return nil
}

func (r *importRun) batch(ctx context.Context, imp *hsm.Import, batch []int) error {
	fault := r.y.m.node.cfg.Fault
	marks := map[int]journalKey{}
	var send []hsm.Incoming
	var which []int
	for _, i := range batch {
		k := r.pkg.Content.Keys[i]
		in, err := incoming(k)
		if err != nil {
			r.results[k.Fingerprint()] = result(k, syncpkg.Failed, nil, err)
			continue
		}
		marks[i] = journalKey{ID: k.ID, Fingerprint: k.Fingerprint()}
		send, which = append(send, in), append(which, i)
	}
	if err := r.journal.write(marks); err != nil {
		return fmt.Errorf("the journal cannot be written, so the import stops here: %w", err)
	}
	fault("import: journaled")
	stopped := r.unwrap(ctx, imp, which, send, marks)
	if err := r.journal.write(marks); err != nil {
		return fmt.Errorf("the journal cannot be written, so the import stops here: %w", errors.Join(err, stopped))
	}
	if stopped == nil {
		fault("import: proved")
	}
	return stopped
}

// unwrap imports the keys of a batch one by one, so that trust which is removed meanwhile stops it before the next
// key, and marks those that have proved themselves.
func (r *importRun) unwrap(ctx context.Context, imp *hsm.Import, which []int, send []hsm.Incoming, marks map[int]journalKey) error {
	challenge := make([]byte, 32)
	rand.Read(challenge)
	for n, i := range which {
		if err := r.stillTrusted(); err != nil {
			return err
		}
		arrived, err := imp.Unwrap(ctx, challenge, send[n:n+1])
		if err != nil {
			return err
		}
		r.y.m.node.cfg.Fault("import: unwrapped")
		k := r.pkg.Content.Keys[i]
		res := judge(k, challenge, arrived[0])
		r.results[k.Fingerprint()] = res
		if mark := marks[i]; res.Result == syncpkg.Imported {
			mark.Done = true
			marks[i] = mark
		} else {
			r.pr.say("key %q failed: %s", packagedLabel(k), res.Error)
		}
	}
	return nil
}

// envelope finds what opens the package key: the transport key of the slot, and the context that binds
// it to this package and this node.
func (r *importRun) envelope(ctx context.Context) (hsm.Envelope, error) {
	transport, err := identity.FindKey(ctx, r.token, identity.TransportID)
	if err != nil {
		return hsm.Envelope{}, err
	}
	public, err := transport.PublicKey()
	if err != nil {
		return hsm.Envelope{}, err
	}
	point, err := public.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		return hsm.Envelope{}, err
	}
	me := r.y.m.Name()
	wrapped, ok := r.pkg.Content.PackageKey(me)
	if !ok {
		return hsm.Envelope{}, refuse("the package has no key for node %s", me)
	}
	c := r.pkg.Head.Header.Context(me, point.Bytes(), r.pkg.Content.Ephemeral)
	return hsm.Envelope{Transport: transport.Ref, Ephemeral: r.pkg.Content.Ephemeral, Context: c[:], PackageKey: wrapped}, nil
}

func (r *importRun) report() *ImportReport {
	rep := &ImportReport{Package: r.pkg.Head.Header.ID, Slot: r.slot, Restarts: []RestartResult{}}
	for _, k := range r.pkg.Content.Keys {
		res := r.results[k.Fingerprint()]
		rep.Keys = append(rep.Keys, res)
		switch res.Result {
		case syncpkg.Imported:
			rep.Imported++
		case syncpkg.AlreadyThere:
			rep.There++
		case syncpkg.Conflict:
			rep.Conflicts++
		default:
			rep.Failed++
		}
	}
	return rep
}
