package node

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// TestPutSetting reads what people and programs enter.
func TestPutSetting(t *testing.T) {
	before := cluster.Settings{ClockLimit: 7, SessionIdle: 7, PackageLife: 7, Notice: "seven"}
	for _, c := range []struct {
		key, text string
		want      cluster.Settings
	}{
		{"clock_limit", "45", cluster.Settings{ClockLimit: 45, SessionIdle: 7, PackageLife: 7, Notice: "seven"}},
		{"clock_limit", " 1m30s ", cluster.Settings{ClockLimit: 90, SessionIdle: 7, PackageLife: 7, Notice: "seven"}},
		{"session_idle", "1h", cluster.Settings{ClockLimit: 7, SessionIdle: 60, PackageLife: 7, Notice: "seven"}},
		{"package_life", "48h", cluster.Settings{ClockLimit: 7, SessionIdle: 7, PackageLife: 48, Notice: "seven"}},
		{"package_life", "", cluster.Settings{ClockLimit: 7, SessionIdle: 7, Notice: "seven"}},
		{"notice", "For staff only.", cluster.Settings{ClockLimit: 7, SessionIdle: 7, PackageLife: 7, Notice: "For staff only."}},
		{"notice", "", cluster.Settings{ClockLimit: 7, SessionIdle: 7, PackageLife: 7}},
	} {
		s := before
		if err := PutSetting(&s, c.key, c.text); err != nil || s != c.want {
			t.Errorf("%s = %q: %+v, %v", c.key, c.text, s, err)
		}
	}
	for _, c := range [][2]string{{"clock_limit", "0"}, {"clock_limit", "-1"}, {"clock_limit", "301"}, {"clock_limit", "1.5s"}, {"clock_limit", "30 s"}, {"clock_limit", "99999999999999999999"}, {"clock_limit", "a\x00"},
		{"session_idle", "30s"}, {"session_idle", "481"}, {"session_idle", "\xff"}, {"package_life", "2161h"}, {"package_life", "9e9"}, {"package_life", "2540400h"}, {"notice", strings.Repeat("x", 501)},
		{"notice", "a\x00b"}, {"notice", "a\xff"}, {"notice", "two\nlines"}, {"notice", strings.Repeat("x", 1<<20)}, {"name", "x"}, {"", ""}, {strings.Repeat("k", 1<<16), "1"}} {
		s := before
		err := PutSetting(&s, c[0], c[1])
		if !IsRefusal(err) || s != before || len(err.Error()) > 400 {
			t.Errorf("%.20s = %.20q: %+v, %v", c[0], c[1], s, err)
		}
	}
}

// TestSettings changes them on one node and sees them hold on the other; and who holds the lease.
func TestSettings(t *testing.T) {
	clocks := map[string]*wrongClock{"node1": {}, "node2": {}}
	members := newCluster(t, 2, func(c *Config) { c.Now = clocks[c.Name].now })
	a, b := members[0], members[1]
	seen := func(what string, f func() bool) { t.Helper(); eventually(t, "node2 sees "+what, f) }
	change := func(m *Member, over bool, pairs ...string) error {
		values := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			values[pairs[i]] = pairs[i+1]
		}
		return m.Settings.Change(t.Context(), console, values, over)
	}

	if a.Settings.ClockLimit() != ClockLimit || a.Settings.SessionIdle() != 15*time.Minute || a.Settings.PackageLife() != 7*24*time.Hour || a.Settings.Notice() != "" {
		t.Error("without settings other values hold")
	}
	v := a.Settings.View(console)
	if len(v.Settings) != 4 || v.Settings[0].Set || v.Settings[0].Value != "30" || v.Settings[0].Source != "configuration" || v.Settings[2].Value != "168" || v.Settings[2].Source != "default" || v.Lease != nil {
		t.Errorf("the settings are %+v", v)
	}
	for _, bad := range [][]string{nil, {"clock_limit", "0"}, {"x", "1"}, {"notice", "ok", "clock_limit", "400"}} {
		if err := change(a, false, bad...); !IsRefusal(err) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if s := a.State(); s.Lease.ID != "" || s.Settings != (cluster.Settings{}) {
		t.Fatal("bad values changed something, or took the lease")
	}

	if err := change(a, false, "clock_limit", "10s", "session_idle", "20", "package_life", "2h", "notice", "For staff only."); err != nil {
		t.Fatal(err)
	}
	seen("the settings", func() bool { return b.Settings.Notice() == "For staff only." })
	if b.Settings.ClockLimit() != 10*time.Second || b.Settings.SessionIdle() != 20*time.Minute || b.Settings.PackageLife() != 2*time.Hour {
		t.Errorf("node2 has %+v", b.Settings.View(console))
	}
	if err := change(b, false, "session_idle", ""); err != nil {
		t.Fatal(err)
	}
	if b.Settings.SessionIdle() != 15*time.Minute || b.Settings.Notice() != "For staff only." {
		t.Error("a setting that was not named is another, or one that was taken back still holds")
	}

	t.Run("lease", func(t *testing.T) { leaseOfAnother(t, a, b, change) })
	t.Run("clocks", func(t *testing.T) { clockLimitHolds(t, a, b, clocks["node2"]) })
	t.Run("packages", func(t *testing.T) {
		newSlot(t, members, "demo", cluster.Generated)
		newKey(t, a, "demo", ecKey("one"))
		waitFor(t, a, "one", "node2", Missing)
		if h := ship(t, a, b, "demo", "node2").Header; h.Expires.Sub(h.Created) != 2*time.Hour {
			t.Errorf("a package is good from %v until %v", h.Created, h.Expires)
		}
	})
}

// leaseOfAnother: root of node1 edits, and root of node2 wants to.
func leaseOfAnother(t *testing.T, a, b *Member, change func(*Member, bool, ...string) error) {
	ctx := t.Context()
	if err := a.Settings.Take(ctx, console); err != nil {
		t.Fatal(err)
	}
	mine := a.Settings.View(console)
	eventually(t, "node2 sees who edits", func() bool { return b.Settings.View(console).Lease != nil })
	if l := b.Settings.View(console).Lease; l.Yours || l.Node != "node1" || !mine.Lease.Yours || l.Until.Sub(l.Since) != cluster.LeaseTime {
		t.Errorf("node1 sees %+v, node2 %+v", mine.Lease, l)
	}
	if err := change(b, false, "notice", "theirs"); !errors.Is(err, cluster.Conflict) || !strings.Contains(err.Error(), "root on node1") {
		t.Errorf("a change beside the lease: %v", err)
	}
	if err := b.Settings.Save(ctx, console, mine.Lease.ID, mine.Version, cluster.Settings{}); !errors.Is(err, cluster.Conflict) {
		t.Errorf("a change under the lease of another: %v", err)
	}
	if err := b.Settings.TakeOver(ctx, console, "other"); !IsRefusal(err) {
		t.Errorf("taking over from whom there is not: %v", err)
	}
	if err := change(b, true, "notice", "theirs"); err != nil {
		t.Fatal(err)
	}
	err := a.Settings.Save(ctx, console, mine.Lease.ID, mine.Version, cluster.Settings{Notice: "mine"})
	if !errors.Is(err, cluster.Expired) || !strings.Contains(err.Error(), "root on node2 has taken over from you") {
		t.Errorf("saving what was taken over: %v", err)
	}
	if a.Settings.Notice() != "theirs" {
		t.Errorf("the notice is %q", a.Settings.Notice())
	}
	for what, err := range map[string]error{"extend": a.Settings.Extend(ctx, console, ""), "release": a.Settings.Release(ctx, console, ""), "save": a.Settings.Save(ctx, console, "", 0, cluster.Settings{})} {
		if !IsRefusal(err) {
			t.Errorf("%s without a lease: %v", what, err)
		}
	}
	if err := a.Settings.Take(ctx, console); err != nil {
		t.Fatal(err)
	}
	id := a.State().Lease.ID
	if err := errors.Join(a.Settings.Extend(ctx, console, id), a.Settings.Release(ctx, console, id)); err != nil || a.Settings.View(console).Lease != nil {
		t.Errorf("extend and release: %v", err)
	}
}

// clockLimitHolds: 20 seconds are past the limit of the cluster, 10 s, for members and for a new node, though the
// configuration of each would allow 30.
func clockLimitHolds(t *testing.T, a, b *Member, clock *wrongClock) {
	clock.set(20 * time.Second)
	defer clock.set(0)
	eventually(t, "node1 sees the clock of node2", func() bool {
		c := a.Peers.Seen("node2").Clock
		return c.Past(15 * time.Second)
	})
	if err := a.node.refuseClock(a.Peers.Seen("node2").Clock, "node2", "node1"); !IsRefusal(err) || !strings.Contains(err.Error(), "10s is the most that is allowed") {
		t.Errorf("%v", err)
	}
	cfg := testConfig(t, t.TempDir(), "node3")
	n := open(t, cfg)
	other, err := b.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Join(t.Context(), b.node.cfg.PeerAddress, other, "AAAA-AAAA-AAAA-AAAA-AAAA"); err == nil || !strings.Contains(err.Error(), "and 10s is the most that is allowed") {
		t.Errorf("a new node goes by its own configuration: %v", err)
	}
}
