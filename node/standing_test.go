package node

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// TestRemovedNode: a node finds out that it was removed, closes its slots, does nothing any more, and knows it after a restart.
// One that is only alone does not take itself for removed.
func TestRemovedNode(t *testing.T) {
	members := newCluster(t, 3)
	one, two, three := members[0], members[1], members[2]
	for _, m := range members {
		if err := m.Slots.Create(t.Context(), console, NewSlot{Label: "payments", Mode: cluster.Generated}); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.Slots.Create(t.Context(), console, NewSlot{Label: "hand", Mode: cluster.Manual, Code: []byte(manualCode)}); err != nil {
		t.Fatal(err)
	}
	stored, err := two.Slots.record("payments")
	if err != nil {
		t.Fatal(err)
	}
	strangers(t, one, two)
	if err := one.Remove(t.Context(), console, "node2", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node2 knows that it was removed", func() bool { return !two.Removed().IsZero() })
	eventually(t, "node2 closes its slots", func() bool { return !isOpenHere(t, two, "payments") && !isOpenHere(t, two, "hand") })
	if rec, err := two.Slots.record("payments"); err != nil || !bytes.Equal(rec.Code, stored.Code) || rec.Refused {
		t.Errorf("what is stored of its slot: %+v, %v", rec, err)
	}
	if two.Slots.comes("payments") {
		t.Error("a file with the code would stay")
	}
	for what, err := range map[string]error{
		"activating":      two.Slots.Activate(t.Context(), console, "hand", []byte(manualCode)),
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
	three.forget(t.Context())
	if isOpenHere(t, three, "payments") {
		t.Error("a slot is still open")
	}
	three.setRemoved(false)
	eventually(t, "node3 opens its slot again", func() bool { return isOpenHere(t, three, "payments") })
	if err := three.StillMember(); err != nil {
		t.Errorf("%v", err)
	}
}

// isOpenHere tells whether a slot, its token or the memory of the module is open on a node.
func isOpenHere(t *testing.T, m *Member, label string) bool {
	t.Helper()
	v, err := m.Slots.One(label)
	if err != nil {
		t.Fatal(err)
	}
	mod, err := m.node.module(v.Module)
	if err != nil {
		t.Fatal(err)
	}
	info, err := mod.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, held := mod.Token(v.Serial).Code()
	return held || v.State == cluster.Active || slices.ContainsFunc(info.Tokens, func(i hsm.TokenInfo) bool { return i.Serial == v.Serial && i.LoggedIn })
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
