package node

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestRemovedNode: a node finds out that it was removed, does nothing any more, and knows it after a restart.
// One that is only alone does not take itself for removed.
func TestRemovedNode(t *testing.T) {
	members := newCluster(t, 3)
	one, two, three := members[0], members[1], members[2]
	for _, m := range []*Member{one, two} {
		if err := m.Slots.Create(t.Context(), console, NewSlot{Label: "payments", Mode: cluster.Generated}); err != nil {
			t.Fatal(err)
		}
	}
	strangers(t, one, two)
	if err := one.Remove(t.Context(), console, "node2", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node2 knows that it was removed", func() bool { return !two.Removed().IsZero() })
	for what, err := range map[string]error{
		"deactivating":    two.Slots.Deactivate(t.Context(), console, "payments"),
		"making a slot":   two.Slots.Create(t.Context(), console, NewSlot{Label: "more", Mode: cluster.Generated}),
		"trying a code":   two.Slots.TryCode(t.Context(), console, "payments"),
		"another removal": two.Remove(t.Context(), console, "node3", false),
	} {
		if err == nil {
			t.Errorf("%s: it was done", what)
		}
	}
	if err := two.Slots.TryCode(t.Context(), console, "payments"); !IsRefusal(err) {
		t.Errorf("trying a code: %v", err)
	}
	cfg := two.node.cfg
	two.node.Close()
	again := open(t, cfg)
	m, err := again.Member()
	if err != nil {
		t.Fatal(err)
	}
	if m.Removed().IsZero() {
		t.Error("after a restart it takes itself for a member")
	}
	if s, err := m.Slots.One("payments"); err != nil || s.State == cluster.Active {
		t.Errorf("after a restart its slot is %+v, %v", s, err)
	}
	// node3 loses node1, and with it the majority. Nobody says that it was removed.
	one.node.Close()
	eventually(t, "node3 is alone", func() bool { return !three.Cluster.Status().Quorum })
	three.checkStanding(t.Context())
	if !three.Removed().IsZero() {
		t.Error("a node that is alone takes itself for removed")
	}
	three.setRemoved(true) // by a mistake that a later answer puts right
	if err := three.StillMember(); !IsRefusal(err) {
		t.Errorf("%v", err)
	}
	three.setRemoved(false)
	if err := three.StillMember(); err != nil {
		t.Errorf("%v", err)
	}
}

// strangers ask a member who belongs to the cluster.
func strangers(t *testing.T, one, two *Member) {
	key := two.State().Nodes["node2"].Key
	for _, c := range []struct {
		node, key, want string
	}{{"node2", key, `"member":true`}, {"node2", "00", `"member":false`}, {"node1", key, `"member":false`}, {"", "", `"member":false`}} {
		w := httptest.NewRecorder()
		one.joins().ServeHTTP(w, httptest.NewRequest(http.MethodGet, standingPath+"?"+url.Values{"node": {c.node}, "key": {c.key}}.Encode(), nil))
		if got := w.Body.String(); w.Code != http.StatusOK || len(got) < len(c.want) || got[1:1+len(c.want)] != c.want {
			t.Errorf("%s, %s: %d %s", c.node, c.key, w.Code, got)
		}
	}
	if a, err := two.askStanding(t.Context(), "node1"); err != nil || !a.Member || a.Index == 0 {
		t.Errorf("%+v, %v", a, err)
	}
}
