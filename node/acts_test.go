package node

import (
	"errors"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestActsAreRecordedAsTheyWere takes a person's account away, and makes a policy, between an act and its
// record: the trail says what was done, under the name of who did it.
func TestActsAreRecordedAsTheyWere(t *testing.T) {
	m := newCluster(t, 1)[0]
	newCustodians(t, m, "carl")
	put := func(disabled bool) error {
		_, err := m.Cluster.Apply(t.Context(), &cluster.PutAccount{Name: "carl", Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser}}, Disabled: disabled}, console)
		return err
	}
	carl := act{as("carl"), cluster.MayActivate, "slot.activate", "slot/demo", ""}
	recorded := func(id, alert string, began, ended cluster.Entry) {
		t.Helper()
		if began.ActID == "" || began.ActID != ended.ActID || id != "" && began.ActID != id || began.Actor != carl.actor || ended.Actor != carl.actor ||
			began.Result != cluster.Started || ended.Result != cluster.Done || began.Alert != alert || ended.Alert != "" {
			t.Errorf("recorded as\n%+v\n%+v", began, ended)
		}
		if len(m.State().Acts) != 0 || len(m.State().Approvals) != 0 {
			t.Errorf("left: acts %v, approvals %v", m.State().Acts, m.State().Approvals)
		}
	}
	offline := func(a act, id string) { // what doLocally leaves in the outbox
		t.Helper()
		for _, w := range []waiting{{Begin: a.begin(id)}, {End: &cluster.EndAct{ID: id, Result: cluster.Done}}} {
			w.Actor = a.actor
			if err := m.acts.keep(w); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "act "+id+" is in the trail", func() bool {
			last := m.State().Audit[len(m.State().Audit)-1]
			return last.ActID == id && last.Result != cluster.Started
		})
	}
	last := func() (began, ended cluster.Entry) {
		trail := m.State().Audit
		return trail[len(trail)-2], trail[len(trail)-1]
	}

	// He is disabled while it runs.
	if err := m.acts.do(t.Context(), carl, func() error { return put(true) }); err != nil {
		t.Fatal(err)
	}
	trail := m.State().Audit
	recorded("", "", trail[len(trail)-3], trail[len(trail)-1])

	// He was disabled by the majority while this node was alone.
	offline(carl, "act-alone")
	began, ended := last()
	recorded("act-alone", cluster.AlertDenied, began, ended)
	if err := m.acts.do(t.Context(), carl, func() error { return nil }); !errors.Is(err, cluster.Denied) {
		t.Errorf("and now: %v", err)
	}

	// The majority made a policy meanwhile.
	if err := put(false); err != nil {
		t.Fatal(err)
	}
	newCustodians(t, m, "dora")
	if _, err := m.Cluster.Apply(t.Context(), &cluster.SetPolicy{Act: "slot.rotate", Needs: 1, Role: cluster.CryptoUser}, console); err != nil {
		t.Fatal(err)
	}
	carl.name = "slot.rotate"
	offline(carl, "act-policy")
	began, ended = last()
	recorded("act-policy", "", began, ended)
}
