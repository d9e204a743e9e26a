package node

import (
	"bytes"
	"crypto/ecdsa"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// A wrongClock is off by what a test says.
type wrongClock struct{ off atomic.Int64 }

func (w *wrongClock) set(off time.Duration) { w.off.Store(int64(off)) }
func (w *wrongClock) now() time.Time        { return time.Now().Add(time.Duration(w.off.Load())) }

func TestCompareClocks(t *testing.T) {
	const limit = 30 * time.Second
	now := time.Now()
	for _, c := range []struct {
		there time.Duration // what the other says, after this node asked
		took  time.Duration
		past  bool
		says  string
	}{
		{time.Second, 2 * time.Second, false, "0.0 s ahead"},
		{0, time.Millisecond, false, "0.0 s behind"},
		{30 * time.Second, 0, false, "30 s ahead"},
		{31 * time.Second, 0, true, "31 s ahead"},
		{-31 * time.Second, 0, true, "31 s behind"},
		{40 * time.Second, 10 * time.Second, false, "35 s ahead"}, // it may be 30
		{41 * time.Second, 10 * time.Second, true, "36 s ahead"},
		{-time.Hour, 2 * time.Second, true, "1h0m1s behind"},
		{-5 * time.Second, 10 * time.Minute, false, "5m5s behind"},
	} {
		if got := compareClocks(now, now.Add(c.there), c.took); got.Past(limit) != c.past || got.String() != c.says {
			t.Errorf("%v after %v: %s, past the limit: %v", c.there, c.took, got, got.Past(limit))
		}
	}
	for ahead, want := range map[time.Duration]bool{0: true, -100 * time.Millisecond: true, 101 * time.Millisecond: false, -time.Hour: false} {
		if c := (Clock{Known: true, Ahead: ahead}); c.Agrees() != want {
			t.Errorf("%v agrees: %v", ahead, c.Agrees())
		}
	}
	if slow := (Clock{Known: true, Ahead: time.Second, Within: time.Second}); !slow.Agrees() {
		t.Error("a difference is seen that may be none")
	}
	if unknown := (Clock{Ahead: time.Hour}); unknown.Past(limit) || unknown.String() != "not known" {
		t.Errorf("a clock that is not known: %s", unknown)
	}
	if got := (Clock{Known: true, Ahead: -45 * time.Second}).Of("node2", "node1"); got != "the clock of node2 is 45 s behind that of node1" {
		t.Error(got)
	}
}

// TestClocks joins and imports with clocks that are wrong on one node or another.
func TestClocks(t *testing.T) {
	clocks := map[string]*wrongClock{"node1": {}, "node2": {}}
	members := newCluster(t, 2, func(c *Config) { c.Now = clocks[c.Name].now })
	a, b := members[0], members[1]
	seen := func(off time.Duration) {
		t.Helper()
		clocks["node2"].set(off)
		eventually(t, "node1 and node2 see how far their clocks are apart", func() bool {
			one, two := a.Peers.Seen("node2").Clock, b.Peers.Seen("node1").Clock
			return one.Known && (one.Ahead-off).Abs() <= one.Within && two.Known && (two.Ahead+off).Abs() <= two.Within
		})
	}
	third := &wrongClock{}
	cfg := testConfig(t, t.TempDir(), "node3")
	cfg.Now = third.now
	n := open(t, cfg)
	inv, err := a.Invite(t.Context(), console, "node3", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, address, fingerprint, says string) {
		t.Helper()
		if _, err := n.Join(t.Context(), address, fingerprint, inv.Code); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "NTP") {
			t.Errorf("%s: %v; want %q", what, err, says)
		}
	}
	other, err := b.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	third.set(-45 * time.Second)
	refused("a new node whose clock is behind", inv.Address, inv.Fingerprint, "45 s ahead of that of this node, node3, and 30s is the most")
	if info, err := n.modules[0].Info(t.Context()); err != nil || len(info.Tokens) != 1 {
		t.Errorf("the new node has %d tokens, want the free one: %v", len(info.Tokens), err)
	}
	if _, err := a.admit(t.Context(), joinRequest{}); err == nil {
		t.Error("an empty request to join is taken")
	}
	third.set(0)
	seen(45 * time.Second)
	refused("by a member whose clock is ahead", b.node.cfg.PeerAddress, other, "45 s ahead of that of this node, node3")
	third.set(40 * time.Second)
	refused("by a member whose clock agrees with the new node's, and not with that of the owner key", b.node.cfg.PeerAddress, other, "the clock of node2 is 45 s ahead of that of node1")
	seen(20 * time.Second)
	refused("where small differences add up", b.node.cfg.PeerAddress, other, "the clock of the new node node3 is 40 s ahead of that of node1, which certifies it")
	if len(a.State().Nodes) != 2 {
		t.Errorf("%d nodes", len(a.State().Nodes))
	}
	third.set(10 * time.Second)
	if _, err := n.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err != nil {
		t.Errorf("with clocks that agree: %v", err)
	}
	t.Run("import", func(t *testing.T) { importByWrongClock(t, a, b, seen, clocks["node2"]) })
}

// importByWrongClock imports where the clock is off: it is said, and from five minutes on it is refused.
func importByWrongClock(t *testing.T, a, b *Member, seen func(time.Duration), clock *wrongClock) {
	newSlot(t, []*Member{a, b}, "demo", cluster.Generated)
	newKey(t, a, "demo", ecKey("one"))
	waitFor(t, a, "one", "node2", Missing)
	seen(-50 * time.Second)
	s := ship(t, a, b, "demo", "node2")
	p, err := b.Sync.Preview(t.Context(), console, s.SHA256)
	if err != nil || !strings.Contains(p.Clock, "the clock of node1 is 50 s ahead of that of node2") {
		t.Errorf("preview: %q, %v", p.Clock, err)
	}
	job, err := b.Sync.Import(t.Context(), console, s.SHA256)
	done, err := finish(t, b, job, err)
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, l := range done.Log {
		said += l.Text + "\n"
	}
	if !strings.Contains(said, "is judged by the clock here") {
		t.Errorf("the import says nothing of clocks: %s", said)
	}
	clock.set(-6 * time.Minute)
	if _, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(bytesOf(t, a, s))); !IsRefusal(err) || !strings.Contains(err.Error(), "compare the clocks") {
		t.Errorf("six minutes behind: %v", err)
	}
	clock.set(8 * 24 * time.Hour)
	if _, err := b.Sync.Import(t.Context(), console, s.SHA256); !IsRefusal(err) || !strings.Contains(err.Error(), "expired at") {
		t.Errorf("eight days ahead: %v", err)
	}
	clock.set(0)
}

// TestRenewal lets years go by: what the daemon renews is renewed in time, and what people have to renew is said.
func TestRenewal(t *testing.T) {
	clock := &wrongClock{}
	m := newCluster(t, 1, func(c *Config) { c.Now = clock.now })[0]
	newSlot(t, []*Member{m}, "demo", cluster.Generated)
	const day = 24 * time.Hour
	statement := func() syncpkg.ReceiverKeys {
		t.Helper()
		mine := func(_, _, _ string) (*ecdsa.PublicKey, error) {
			return m.Identity.pic.PublicKey.(*ecdsa.PublicKey), nil
		}
		rk, err := syncpkg.VerifyReceiverKeys(m.State().Slots["demo"].Seats["node1"].Receiver, mine, clock.now())
		if err != nil {
			t.Fatal(err)
		}
		return rk
	}
	first := statement()
	clock.set(180 * day)
	m.Slots.nudge()
	leaf, err := m.Identity.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Identity.renewLeaf(clock.now()); err != nil {
		t.Fatal(err)
	}
	if renewed, err := m.Identity.Certificate(); err != nil || renewed.Leaf.NotAfter.Before(leaf.Leaf.NotAfter.Add(170*day)) {
		t.Errorf("the TLS certificate ends %v, and %v after half a year; %v", leaf.Leaf.NotAfter, renewed.Leaf.NotAfter, err)
	}
	clock.set(184 * day)
	eventually(t, "the receiver keys of a slot that stayed open are stated anew", func() bool {
		m.Slots.nudge()
		return statement().Created.After(first.Created)
	})
	if again := statement(); !bytes.Equal(again.Transport, first.Transport) || !bytes.Equal(again.Seal.Public, first.Seal.Public) || !again.NotAfter.After(first.NotAfter.Add(170*day)) {
		t.Errorf("the keys themselves have changed, or it is no longer: %+v", again)
	}
	pic := m.Identity.pic
	for _, c := range []struct {
		at   time.Time
		want CertState
	}{{pic.NotAfter.Add(-91 * day), CertValid}, {pic.NotAfter.Add(-89 * day), CertExpiring}, {pic.NotAfter.Add(day), CertExpired}} {
		clock.set(time.Until(c.at))
		if got := m.Identities().Nodes[0].Certificate; got.State != c.want || (got.Problem == "") != (c.want == CertValid) {
			t.Errorf("at %v: %+v", c.at, got)
		}
	}
}
