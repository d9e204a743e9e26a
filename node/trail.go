package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Trail is the audit trail as this node checks and signs it. Its own last signature is kept here, outside
// the replicated state: so a trail that was exchanged for another shows, even one that is whole in itself.
type Trail struct {
	m *Member

	began time.Time

	mu       sync.Mutex
	checked  cluster.Entry // the chain was computed again up to here
	base     uint64        // and from here on
	damage   string        // what is wrong with the trail; empty: nothing
	waiting  time.Time     // when the oldest entry without this node's signature was first seen
	signErr  error         // why the last attempt to sign did not work
	verified map[string]error
}

const (
	// signEvery and signAfter say when a node signs: what a forger could still change unnoticed is what
	// came since. An HSM signs in milliseconds, and each signature is one flush to disk on each node.
	signEvery = 10 * time.Minute
	signAfter = 500 // entries
	signRetry = time.Minute

	// A new cluster is vouched for before somebody looks: a young trail is signed whenever it is as old again,
	// from signFirst on. So the founding is one signature, and there are few.
	signFirst = 5 * time.Second

	// arrival is how long after a start the newest entries may still be missing.
	arrival = 5 * time.Minute
)

// ownCheckpoint is the last signature of this node.
type ownCheckpoint struct {
	Seq       uint64
	Hash      string
	Statement string
}

func newTrail(m *Member) *Trail { return &Trail{m: m, began: time.Now(), verified: map[string]error{}} }

// watch checks every new entry and signs the trail at intervals.
func (t *Trail) watch(ctx context.Context) {
	var retry time.Time
	for {
		s, changed := t.m.Cluster.Watch()
		t.look(ctx, s)
		wait := signEvery
		if due, ok := t.due(s, time.Now()); ok {
			if wait = max(time.Until(due), time.Until(retry)); wait <= 0 {
				if err := t.sign(ctx, s); err != nil {
					t.m.log.Warn("the audit trail was not signed; another try follows", "error", err)
					retry = time.Now().Add(signRetry)
					wait = signRetry
				}
			}
		}
		select {
		case <-changed:
		case <-time.After(max(wait, time.Second)):
		case <-ctx.Done():
			return
		}
	}
}

// look computes the chain of what is new again, compares it with what this node has signed, and raises
// the alarm once.
func (t *Trail) look(ctx context.Context, s *cluster.State) {
	t.mu.Lock()
	before := t.damage
	err := t.check(s)
	if err == nil {
		err = t.compare(s)
	}
	if err != nil {
		t.damage = err.Error()
	}
	alarm := err != nil && before == ""
	t.mu.Unlock()
	if !alarm {
		return
	}
	t.m.log.Error("the audit trail is not what it was", "error", err)
	if err := t.m.acts.note(ctx, t.m.self(), cluster.NoteAuditDiffers, "cluster/"+s.Cluster.ID, cluster.Failed, err.Error()); err != nil {
		t.m.log.Error("that could not be recorded", "error", err)
	}
}

// check computes the chain from the last entry that was checked, or from the oldest where that one is not
// in the trail any more.
func (t *Trail) check(s *cluster.State) error {
	if len(s.Audit) == 0 {
		return nil
	}
	prev, from := s.AuditBase, 0
	if e, ok := s.EntryAt(t.checked.Seq); ok && e == t.checked {
		prev, from = e.Hash, int(e.Seq-s.Audit[0].Seq)+1
	} else {
		t.base = s.Audit[0].Seq
		if t.base == 1 && prev != cluster.ChainStart(s.Cluster.ID) {
			return errors.New("the audit trail begins as that of another cluster")
		}
	}
	for _, e := range s.Audit[from:] {
		if e.Chained(prev) != e.Hash {
			return fmt.Errorf("entry %d of the audit trail does not fit its hash: it, or what was before it, was changed", e.Seq)
		}
		prev, t.checked = e.Hash, e
	}
	return nil
}

// compare holds the trail against this node's last signature. A trail that ends before it may still be
// coming in, after a start.
func (t *Trail) compare(s *cluster.State) error {
	own, err := get[ownCheckpoint](t.m.node.store, bucketTrail, single)
	if errors.Is(err, errAbsent) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("this node's last signature under the audit trail cannot be read: %w", err)
	}
	if own.Seq > lastEntry(s).Seq && time.Since(t.began) > arrival && t.m.Cluster.Status().Quorum {
		return fmt.Errorf("the audit trail ends before entry %d, which this node signed", own.Seq)
	}
	if e, ok := s.EntryAt(own.Seq); ok && e.Hash != own.Hash {
		return fmt.Errorf("the audit trail is not the one that this node signed: they differ at entry %d, or before", own.Seq)
	}
	return nil
}

// lastEntry is the newest entry; the zero one where there is none.
func lastEntry(s *cluster.State) (e cluster.Entry) {
	if n := len(s.Audit); n > 0 {
		e = s.Audit[n-1]
	}
	return e
}

// newest is the newest signature of a node that the cluster has.
func newest(s *cluster.State, node string) (c cluster.Checkpoint) {
	for _, other := range s.Checkpoints {
		if other.Node == node && other.Seq > c.Seq {
			c = other
		}
	}
	return c
}

// due tells when the node should sign next, if there is something to sign.
func (t *Trail) due(s *cluster.State, now time.Time) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := lastEntry(s).Seq
	signed := newest(s, t.m.Name()).Seq
	if last <= signed {
		t.waiting = time.Time{}
		return time.Time{}, false
	}
	if t.waiting.IsZero() {
		t.waiting = now
	}
	if last-signed >= signAfter {
		return now, true
	}
	age := t.waiting.Sub(s.Audit[0].Time)
	return t.waiting.Add(min(signEvery, max(signFirst, age))), true
}

// sign signs the trail up to its last entry and tells the cluster. It keeps the signature before it does:
// from then on this node holds the cluster to it.
func (t *Trail) sign(ctx context.Context, s *cluster.State) (err error) {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.signErr = err
		if err == nil {
			t.waiting = time.Time{}
		}
	}()
	if damage := t.Damage(); damage != "" {
		return errors.New(damage)
	}
	e := lastEntry(s)
	if e.Seq == 0 {
		return nil
	}
	pik, err := t.m.Identity.signer()
	if err != nil {
		return err
	}
	signer, err := t.m.registered(s, pik)
	if err != nil {
		return err
	}
	jws, err := syncpkg.SignAuditCheckpoint(syncpkg.AuditCheckpoint{
		Cluster: s.Cluster.ID, Node: t.m.Name(), Seq: e.Seq, Hash: e.Hash, Time: time.Now(),
	}, pik)
	if err != nil {
		return err
	}
	if err := t.m.node.store.put(bucketTrail, single, ownCheckpoint{e.Seq, e.Hash, jws}); err != nil {
		return err
	}
	_, err = t.m.Cluster.Apply(ctx, &cluster.SignAudit{Seq: e.Seq, Hash: e.Hash, Signer: signer, Statement: jws}, t.m.self())
	return err
}

// signLast signs what is new when the node stops, as far as that can be done at once.
func (t *Trail) signLast() {
	s := t.m.State()
	if _, some := t.due(s, time.Now()); !some || !t.m.Identity.Open() || !t.m.Cluster.Status().Quorum {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := t.sign(ctx, s); err != nil {
		t.m.log.Info("the newest audit entries are not signed by this node yet", "error", err)
	}
}

// Damage says what is wrong with the trail; empty: nothing that this node can see.
func (t *Trail) Damage() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.damage
}

// Checked is the range of entries whose chain this node has computed again since it started.
func (t *Trail) Checked() (first, last uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.base, t.checked.Seq
}

// SignError is why this node could not sign the trail at its last attempt.
func (t *Trail) SignError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.signErr
}

// Covering finds the first signature under entry seq or a later one, and verifies it by this node's owner
// certificate. ok is false when no node has signed that far.
func (t *Trail) Covering(s *cluster.State, seq uint64) (c cluster.Checkpoint, ok bool, err error) {
	for _, other := range s.Checkpoints {
		if other.Seq >= seq && (!ok || other.Seq < c.Seq) {
			c, ok = other, true
		}
	}
	if ok {
		err = t.Verify(s, c)
	}
	return c, ok, err
}

// Verify checks a signature: that it fits the trail, and that a member of this cluster made it.
func (t *Trail) Verify(s *cluster.State, c cluster.Checkpoint) error {
	if e, ok := s.EntryAt(c.Seq); !ok || e.Hash != c.Hash {
		return fmt.Errorf("entry %d is not the one that %s signed", c.Seq, c.Node)
	}
	t.mu.Lock()
	err, known := t.verified[c.Statement]
	t.mu.Unlock()
	if known {
		return err
	}
	err = verifyCheckpoint(s, c, t.m.Identity.ownersEver(s))
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.verified) > 2*mostVerified {
		clear(t.verified)
	}
	t.verified[c.Statement] = err
	return err
}

// mostVerified is as many signatures as a cluster keeps, more or less. A verification takes a millisecond.
const mostVerified = 2000

func verifyCheckpoint(s *cluster.State, c cluster.Checkpoint, owners []*x509.Certificate) error {
	signer, ok := s.Signers[c.Signer]
	if !ok || signer.Node != c.Node {
		return fmt.Errorf("the identity that signed for %s is not known", c.Node)
	}
	signers, err := readSigners([]AuditSigner{{signer.Node, signer.Identity}}, owners)
	if err != nil {
		return err
	}
	got, err := syncpkg.VerifyAuditCheckpoint(c.Statement, signers.trust(s.Cluster.ID))
	if err == nil && (got.Node != c.Node || got.Seq != c.Seq || got.Hash != c.Hash) {
		err = fmt.Errorf("the signature of %s is under something else", c.Node)
	}
	return err
}

// auditSigners are identities by the thumbprint of their keys.
type auditSigners map[string]auditIdentity

type auditIdentity struct {
	node string
	pics []*x509.Certificate // for the key, one after the other
	key  *ecdsa.PublicKey
}

// readSigners takes the identities that one of the owners has certified for the nodes that they are said to be of.
func readSigners(list []AuditSigner, owners []*x509.Certificate) (auditSigners, error) {
	signers := auditSigners{}
	for _, a := range list {
		pic, err := x509.ParseCertificate(a.Identity)
		if err != nil {
			return nil, fmt.Errorf("the identity certificate of %q cannot be read: %w", a.Node, err)
		}
		key, err := identity.CheckIdentity(pic, ownerOf(pic, owners), pic.NotBefore)
		if err != nil {
			return nil, err
		}
		if pic.Subject.CommonName != a.Node {
			return nil, fmt.Errorf("the identity certificate of %q is shown as that of %q", pic.Subject.CommonName, a.Node)
		}
		print, err := syncpkg.Thumbprint(key)
		if err != nil {
			return nil, err
		}
		if err := signers.add(print, auditIdentity{a.Node, []*x509.Certificate{pic}, key}); err != nil {
			return nil, err
		}
	}
	return signers, nil
}

func (a auditSigners) add(print string, more auditIdentity) error {
	s, known := a[print]
	if known && s.node != more.node {
		return fmt.Errorf("the identity key of %q is shown as that of %q, too", s.node, more.node)
	}
	a[print] = auditIdentity{more.node, append(slices.Clip(s.pics), more.pics...), more.key}
	return nil
}

// trust takes a signature by the key that it names, if that is one of the named node's.
func (a auditSigners) trust(clusterID string) syncpkg.Trust {
	return func(id, node, kid string) (*ecdsa.PublicKey, error) {
		if id != clusterID {
			return nil, fmt.Errorf("it is about another cluster (%s)", id)
		}
		signer, ok := a[kid]
		if !ok || signer.node != node {
			return nil, fmt.Errorf("the owner certificate vouches for no such key of node %q", node)
		}
		return signer.key, nil
	}
}

// nodes lists whose identities these are.
func (a auditSigners) nodes() []string {
	var names []string
	for _, s := range a {
		names = append(names, s.node)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
