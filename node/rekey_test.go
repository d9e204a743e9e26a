package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// load asks all the time, on each node: for writes, which go to the leader, and of each other node. It ends by
// itself with the test, and counts what failed.
type load struct {
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	done   atomic.Int64
	slow   atomic.Int64 // the longest, in ns
	mu     sync.Mutex
	failed []string
}

func startLoad(t testing.TB, members []*Member) *load {
	ctx, stop := context.WithCancel(t.Context())
	l := &load{stop: stop}
	try := func(m *Member, what string, f func() error) {
		began := time.Now()
		err := f()
		if ctx.Err() != nil {
			return
		}
		l.done.Add(1)
		l.slow.Store(max(l.slow.Load(), int64(time.Since(began))))
		if err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Sprintf("%s: %s: %v", m.Name(), what, err))
			l.mu.Unlock()
		}
	}
	for _, m := range members {
		l.tasks.Go(func() {
			for ctx.Err() == nil {
				try(m, "a write", func() error {
					_, err := m.Cluster.Apply(ctx, &cluster.RecordNote{Actor: m.self(), Act: cluster.NoteSyslogGap, Object: "node/" + m.Name(), Result: cluster.Done}, m.self())
					return err
				})
			}
		})
		for _, other := range members {
			if other == m {
				continue
			}
			l.tasks.Go(func() {
				for ctx.Err() == nil {
					try(m, "a question to "+other.Name(), func() error {
						return m.Peers.get(ctx, other.Name(), healthPath, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
					})
				}
			})
		}
	}
	t.Cleanup(func() { stop(); l.tasks.Wait() })
	return l
}

// end stops the load and wants that nothing has failed.
func (l *load) end(t testing.TB) {
	t.Helper()
	l.stop()
	l.tasks.Wait()
	for i, f := range l.failed {
		if i == 10 {
			t.Errorf("and %d more", len(l.failed)-i)
			break
		}
		t.Error(f)
	}
	t.Logf("%d requests, %d failed, the longest took %v", l.done.Load(), len(l.failed), time.Duration(l.slow.Load()).Round(time.Millisecond))
}

// onToken lists the IDs of a node's own signing keys.
func onToken(t testing.TB, m *Member) []string {
	t.Helper()
	objects, err := m.Identity.admin.Objects(t.Context(), 0, true)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range objects.Keys {
		if k.Class == hsm.PrivateKey && string(k.ID) != identity.SealID {
			ids = append(ids, string(k.ID))
		}
	}
	return ids
}

// TestReplaceKeys gives three nodes new identity keys, and the cluster two new owners, while each asks the others
// all the time. Nothing fails, what was signed before stays good, and the old keys are gone.
func TestReplaceKeys(t *testing.T) {
	members := newCluster(t, 3)
	a, b, c := members[0], members[1], members[2]
	newSlot(t, members, "demo", cluster.Generated)
	newKey(t, a, "demo", ecKey("one"))
	waitFor(t, a, "one", "node2", Missing)
	before := ship(t, a, b, "demo", "node2", "node3")
	first := bytesOf(t, b, before)
	job, err := b.Sync.Import(t.Context(), console, before.SHA256)
	if _, err := finish(t, b, job, err); err != nil {
		t.Fatal(err)
	}
	unknown := resealed(t, a, b, func(*syncpkg.Header) {})
	l := startLoad(t, members)
	began := time.Now()
	for _, m := range members {
		old := m.Identity.pic
		if err := m.ReplaceIdentityKey(t.Context(), console, nil); err != nil {
			t.Fatal(err)
		}
		for _, o := range members {
			eventually(t, o.Name()+" knows the new key of "+m.Name(), func() bool {
				n := o.State().Nodes[m.Name()]
				return n.Key == cluster.KeyHash(m.Identity.pic) && !n.Changing
			})
			if err := o.admits(m.Name(), old); err == nil {
				t.Errorf("%s admits the old key of %s", o.Name(), m.Name())
			}
		}
	}
	t.Logf("three identity keys: %v", time.Since(began).Round(time.Millisecond))
	t.Run("what the old keys signed", func(t *testing.T) { signedBefore(t, members, before, first, unknown) })
	began = time.Now()
	for _, holder := range []*Member{a, c} {
		if err := holder.ReplaceOwner(t.Context(), console, nil); err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			eventually(t, m.Name()+" stands under the owner that "+holder.Name()+" has made", func() bool {
				s := m.State()
				return s.Cluster.Next == nil && bytes.Equal(s.Cluster.Owner, m.Identity.Owner().Raw) && len(m.Identity.Owners()) == 1 &&
					m.Identity.HoldsOwner() == (m == holder) && bytes.Equal(s.Nodes[m.Name()].Identity, m.Identity.certificate())
			})
		}
	}
	t.Logf("two owners: %v", time.Since(began).Round(time.Millisecond))
	l.end(t)
	for _, m := range members {
		want := "keyferry:identity-2"
		if m == c {
			want = "keyferry:owner-3 " + want
		}
		eventually(t, m.Name()+" has only the new keys on its token", func() bool {
			ids := onToken(t, m)
			return len(ids) == len(strings.Fields(want)) && strings.Contains(want, ids[0]) && strings.Contains(want, ids[len(ids)-1])
		})
	}
	t.Run("what former owners vouch for", func(t *testing.T) {
		signedBefore(t, members, before, first, unknown)
		var file bytes.Buffer
		if err := b.Trail.Export(t.Context(), console, &file, time.Time{}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if v, err := VerifyAudit(&file, c.Identity.Owner()); err != nil || !v.Intact() || !v.Anchored {
			t.Errorf("the exported trail: %+v, %v", v, err)
		}
		if v, err := VerifyAudit(bytes.NewReader(file.Bytes()), nil); err != nil || len(v.Signed) == 0 && v.Last > 0 {
			t.Logf("%+v %v", v, err)
		}
	})
	t.Run("a start", func(t *testing.T) {
		cfg := b.node.cfg
		b.node.Close()
		n := open(t, cfg)
		again, err := n.Member()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "node2 is back with its new key and the new owner", func() bool {
			return again.Identity.Open() && again.Identity.Owner().Equal(c.Identity.Owner()) && a.Peers.Seen("node2").Answers && again.Peers.Seen("node1").Answers
		})
		if err := again.RenewIdentity(t.Context(), console, nil); err != nil {
			t.Errorf("the new owner certifies nobody: %v", err)
		}
		approvedMeanwhile(t, again, c)
	})
}

// approvedMeanwhile registers a certificate for a new key of m, as the last approval of it would: m takes it into use.
func approvedMeanwhile(t *testing.T, m, holder *Member) {
	t.Helper()
	r, err := m.NewKeyRequest(t.Context(), console)
	if err != nil {
		t.Fatal(err)
	}
	der, err := holder.Identity.certify(r.Raw, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Cluster.Apply(t.Context(), &cluster.ReplaceIdentity{Identity: pic.Raw, Key: cluster.KeyHash(pic)}, console); err != nil {
		t.Fatal(err)
	}
	eventually(t, m.Name()+" uses the key that was approved", func() bool {
		n := m.State().Nodes[m.Name()]
		return n.Key == cluster.KeyHash(pic) && !n.Changing && bytes.Equal(m.Identity.certificate(), pic.Raw) && holder.Peers.Seen(m.Name()).Answers
	})
}

// signedBefore wants that what was signed with keys which were replaced is good: receipts, statements of receiver
// keys, the trail, and packages that the cluster knows. A package that it does not know is refused.
func signedBefore(t *testing.T, members []*Member, s Staged, file, unknown []byte) {
	a, b := members[0], members[1]
	if _, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(file)); err != nil {
		t.Errorf("a package from before: %v", err)
	}
	if _, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(unknown)); !IsRefusal(err) || !strings.Contains(err.Error(), "the cluster does not know this file") {
		t.Errorf("a package that the cluster does not know: %v", err)
	}
	if _, _, err := a.Sync.Receipt(t.Context(), s.Header.ID, "node2"); err != nil {
		t.Errorf("a receipt from before: %v", err)
	}
	if _, err := a.sealingKeyOf("node2"); err != nil {
		t.Errorf("the key to seal codes to: %v", err)
	}
	for _, m := range members {
		state := m.State()
		for _, c := range state.Checkpoints {
			if err := m.Trail.Verify(state, c); err != nil {
				t.Errorf("%s: the signature of %s under entry %d: %v", m.Name(), c.Node, c.Seq, err)
			}
		}
		if d := m.Trail.Damage(); d != "" {
			t.Errorf("%s: %s", m.Name(), d)
		}
	}
	job, err := a.Sync.Build(t.Context(), console, "demo", []string{"node2", "node3"})
	if _, err := finish(t, a, job, err); err != nil && !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a new package: %v", err)
	}
}

// TestKeysReplacedMeanwhile: a node that was away while all others got new identity keys, and another owner came, is
// let in by them and lets them in. The change of the owner waits for it, and lets nobody in until then.
func TestKeysReplacedMeanwhile(t *testing.T) {
	members := newCluster(t, 3)
	a, b, away := members[0], members[1], members[2]
	cfg := away.node.cfg
	away.node.Close()
	for _, m := range []*Member{a, b} {
		eventually(t, "a quorum of two", func() bool { return m.Cluster.Status().Quorum })
		if err := m.ReplaceIdentityKey(t.Context(), console, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, m.Name()+" has changed over", func() bool { return !a.State().Nodes[m.Name()].Changing && !b.State().Nodes[m.Name()].Changing })
	}
	if err := b.ReplaceOwner(t.Context(), console, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only node3 is awaited", func() bool { w := a.State().Awaited(); return len(w) == 1 && w[0] == "node3" })
	if err := b.ReplaceOwner(t.Context(), console, nil); err == nil || !strings.Contains(err.Error(), "by this one already: node3") {
		t.Errorf("the same once more: %v", err)
	}
	// Its key is lost, as it were: it begins again with that of another node, and goes back once more.
	if err := a.ReplaceOwner(t.Context(), console, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node1 and node2 are certified by the key on node1", func() bool {
		s := b.State()
		return len(s.Awaited()) == 1 && bytes.Equal(s.Cluster.Next, a.Identity.rec.Made)
	})
	if err := b.ReplaceOwner(t.Context(), console, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "and by that on node2 again", func() bool {
		s := a.State()
		return len(s.Awaited()) == 1 && bytes.Equal(s.Cluster.Next, b.Identity.rec.Made)
	})
	if err := a.ReplaceIdentityKey(t.Context(), console, nil); err == nil || !strings.Contains(err.Error(), "the owner of the cluster is being replaced") {
		t.Errorf("another identity key meanwhile: %v", err)
	}
	inv, err := a.Invite(t.Context(), console, "node4", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	late := open(t, testConfig(t, t.TempDir(), "node4"))
	if _, err := late.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err == nil || !strings.Contains(err.Error(), "until that is done no node is let in") {
		t.Errorf("a node that joins meanwhile: %v", err)
	}
	if pem, err := os.ReadFile(filepath.Join(a.node.cfg.Dir, "owner.pem")); err != nil || bytes.Count(pem, []byte("BEGIN CERTIFICATE")) != 2 || !bytes.Equal(pem, a.OwnerPEM()) {
		t.Errorf("owner.pem: %s, %v", pem, err)
	}
	back := open(t, cfg)
	m, err := back.Member()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Member{a, b, m} {
		eventually(t, m.Name()+" stands under the new owner, and hears the others", func() bool {
			for _, other := range []string{"node1", "node2", "node3"} {
				if other != m.Name() && !m.Peers.Seen(other).Answers {
					return false
				}
			}
			return m.State().Cluster.Next == nil && len(m.Identity.Owners()) == 1 && m.Identity.Owner().Equal(b.Identity.Owner()) && bytes.Equal(m.State().Cluster.Owner, m.Identity.Owner().Raw)
		})
	}
	if _, err := late.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err != nil {
		t.Errorf("the node that was refused joins: %v", err)
	}
	t.Run("certified and then away", func(t *testing.T) { awayAtTheEnd(t, a, b, m, late) })
}

// awayAtTheEnd stops a node when the next owner has certified it, and lets the others end the change without it. It
// still shows a certificate of the owner before when it is back.
func awayAtTheEnd(t *testing.T, a, b, away *Member, last *Node) {
	l, err := last.Member()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "node4 takes part", func() bool { return a.State().Nodes["node4"].Status == cluster.Connected })
	last.Close() // it is awaited
	if err := a.ReplaceOwner(t.Context(), console, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only node4 is awaited", func() bool { w := away.State().Awaited(); return len(w) == 1 && w[0] == "node4" })
	cfg := away.node.cfg
	away.node.Close()
	if err := a.Remove(t.Context(), console, l.Name(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the change ends without both", func() bool { return b.State().Cluster.Next == nil && b.Identity.Owner().Equal(a.Identity.Owner()) })
	back, err := open(t, cfg).Member()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "node3 is let in and stands under the new owner", func() bool {
		return back.Identity.Owner().Equal(a.Identity.Owner()) && a.Peers.Seen("node3").Answers && back.Peers.Seen("node1").Answers && back.Peers.Seen("node2").Answers
	})
}
