package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// A node that was removed is told nothing any more: the others close their connections to it. So it asks, as a
// node that joins would, which needs no membership; and it believes the answer, since it comes from a member
// whose identity it knows, and from a later state than its own.

const (
	standingPath  = "/node/v1/standing"
	standingEvery = 2 * time.Second // while it is not clear
	standingLater = time.Minute     // once the node is known to be removed: it may have been a mistake
	standingTime  = 3 * time.Second // for one answer
	maxStanding   = 1 << 10
)

// A standing is what a member says of whoever asks.
type standing struct {
	Member bool   `json:"member"`
	Index  uint64 `json:"index"` // of the state that says so
}

// serveStanding answers who knows the name and the hash of the identity key of a node. A member that does not
// see the cluster itself knows nothing.
func (m *Member) serveStanding(w http.ResponseWriter, r *http.Request) {
	s := m.State()
	if !m.ready.Load() || !m.Cluster.Status().Quorum || s.Nodes[m.Name()].Status != cluster.Connected {
		http.Error(w, "this node does not know at the moment", http.StatusServiceUnavailable)
		return
	}
	n, ok := s.Nodes[r.FormValue("node")]
	respond(w, http.StatusOK, standing{Member: ok && n.Admits(r.FormValue("key")), Index: s.Index})
}

// Removed is since when this node knows that it was removed from its cluster; zero while it is a member.
func (m *Member) Removed() time.Time {
	m.Identity.mu.Lock()
	defer m.Identity.mu.Unlock()
	return m.Identity.rec.Removed
}

// StillMember refuses what a removed node does not do any more: everything.
func (m *Member) StillMember() error {
	if m.Removed().IsZero() {
		return nil
	}
	return refuse("node %s was removed from cluster %q, so it does nothing any more; to use it again, clear its data directory, delete its token %q and start anew", m.Name(), m.State().Cluster.Name, identity.AdminLabel)
}

// watchStanding finds out whether this node was removed.
func (m *Member) watchStanding(ctx context.Context) {
	for {
		m.checkStanding(ctx)
		wait := standingEvery
		if !m.Removed().IsZero() {
			m.forget(ctx)
			wait = standingLater
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// forget closes the slots of a removed node, and forgets the codes that it has in memory: nobody decides any more
// who may use them here. What is stored stays as it is, since it may have been a mistake.
func (m *Member) forget(ctx context.Context) {
	m.Custody.close()
	m.Slots.closeAll(ctx)
}

// closeAll closes the slots of a node that was removed. The module forgets their codes, also where it does not run.
func (s *Slots) closeAll(ctx context.Context) {
	s.mu.Lock()
	seats := slices.Collect(maps.Values(s.seats))
	s.mu.Unlock()
	var work sync.WaitGroup
	for _, t := range seats {
		work.Go(func() {
			t.changing.Lock()
			defer t.changing.Unlock()
			if err := s.closeRemoved(ctx, t); err != nil {
				s.m.log.Error("a slot of this node, which was removed, does not close: end the daemon", "slot", s.recordOf(t).Slot, "error", err)
			}
		})
	}
	work.Wait()
}

// closeRemoved closes one slot. The caller holds t.changing.
func (s *Slots) closeRemoved(ctx context.Context, t *seat) error {
	s.mu.Lock()
	t.forgetPrepared()
	rec, open := t.rec, t.open
	s.mu.Unlock()
	if !open {
		return nil
	}
	mod, err := s.m.node.module(rec.Module)
	if err != nil {
		return err
	}
	if err := mod.Token(rec.Serial).Logout(ctx); err != nil && !interrupted(err) { // the next child opens nothing
		return err
	}
	s.set(t, cluster.Down, "this node was removed from its cluster", false, "")
	s.m.log.Warn("a slot was closed, because this node was removed from its cluster", "slot", rec.Slot)
	return nil
}

func (m *Member) checkStanding(ctx context.Context) {
	s := m.State()
	self, here := s.Nodes[m.Name()]
	switch {
	case s.Cluster.ID == "" || here && self.Status != cluster.Connected: // still on its way in
		return
	case here && m.Cluster.Status().Quorum:
		m.setRemoved(false)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		if name == m.Name() {
			continue
		}
		a, err := m.askStanding(ctx, name)
		if err != nil || a.Index < s.Index || a.Index == s.Index && here {
			continue // it knows no more than this node
		}
		m.setRemoved(!a.Member)
		return
	}
}

func (m *Member) askStanding(ctx context.Context, name string) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, standingTime)
	defer cancel()
	m.Identity.mu.Lock()
	key := cluster.KeyHash(m.Identity.pic)
	m.Identity.mu.Unlock()
	q := url.Values{"node": {m.Name()}, "key": {key}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+standingPath+"?"+q.Encode(), nil)
	if err != nil {
		return standing{}, err
	}
	resp, err := m.link.Stranger().Do(req)
	if err != nil {
		return standing{}, err
	}
	defer resp.Body.Close()
	var a standing
	if resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("node %s: %s", name, resp.Status)
	}
	return a, json.NewDecoder(io.LimitReader(resp.Body, maxStanding)).Decode(&a)
}

// setRemoved keeps what was found out, so that a removed node knows it from its start on.
func (m *Member) setRemoved(removed bool) {
	id := m.Identity
	id.mu.Lock()
	defer id.mu.Unlock()
	if removed == !id.rec.Removed.IsZero() {
		return
	}
	id.rec.Removed = time.Time{}
	if removed {
		id.rec.Removed = time.Now().UTC()
		m.log.Error("this node was removed from its cluster: it does nothing any more, and closes its slots")
	} else {
		m.log.Info("this node is a member of its cluster after all")
	}
	if err := id.node.saveIdentity(&id.rec); err != nil {
		m.log.Error("the node's standing in the cluster cannot be stored", "error", err)
	}
	m.Slots.nudge()
}
