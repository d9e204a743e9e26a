package cluster

import (
	"maps"
	"slices"
	"time"
)

// Stolen is what the cluster remembers of a node that is in strange hands: who it was, so that it is never let in
// again, and which keys it held, until people have dealt with each of them.
type Stolen struct {
	Node      string               `json:"node"`
	Time      time.Time            `json:"time"`      // when it was declared stolen
	By        string               `json:"by"`        // who did
	Barred    []string             `json:"barred"`    // KeyHash of each identity key that it had
	Serials   []string             `json:"serials"`   // of its tokens, the admin token first
	Protector string               `json:"protector"` // what protected its stored codes
	Keys      map[string]StolenKey `json:"keys"`      // by StolenKey.Name
	Held      int                  `json:"held"`      // how many keys it held: more than Keys lists, if they were too many
}

// StolenKey is one key in the hands of a stolen node.
type StolenKey struct {
	Slot  string    `json:"slot"`
	Mode  string    `json:"mode"` // of the seat: who had its code
	Key   Held      `json:"key"`
	Dealt time.Time `json:"dealt,omitzero"` // when somebody said that it is dealt with; zero: not yet
	By    string    `json:"by,omitempty"`   // who did
}

// Name is the place of the key in Stolen.Keys: one key can be in two slots.
func (k StolenKey) Name() string { return k.Key.Fingerprint + " " + k.Slot }

// Open is how many keys nobody has dealt with.
func (r Stolen) Open() int {
	open := 0
	for _, k := range r.Keys {
		if k.Dealt.IsZero() {
			open++
		}
	}
	return open
}

// Barred tells whether an identity key, by its KeyHash, was in the HSM of a stolen node.
func (s *State) Barred(key string) bool {
	for _, r := range s.Stolen {
		if slices.Contains(r.Barred, key) {
			return true
		}
	}
	return false
}

// barred refuses a node that shows what a stolen one had, in whatever name it comes.
func (s *State) barred(n Node) error {
	for _, id := range sorted(s.Stolen) {
		r := s.Stolen[id]
		switch {
		case slices.Contains(r.Barred, n.Key):
			return errorf(Denied, "this identity key was in the HSM of node %q, which was declared stolen at %s: it is never let in again", r.Node, r.Time.UTC().Format(time.RFC3339))
		case n.Serial != "" && slices.Contains(r.Serials, n.Serial):
			return errorf(Denied, "the token with the serial %s was of node %q, which was declared stolen at %s: it is never let in again", n.Serial, r.Node, r.Time.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// stolen remembers a node before it is removed, and takes back what could be used in its name.
func (s *State) stolen(n Node, m Meta) error {
	if len(s.Stolen) >= maxStolen {
		return errorf(Full, "the cluster remembers %d stolen nodes, which is the most it can: remove the node without declaring it stolen", maxStolen)
	}
	r := Stolen{Node: n.Name, Time: m.Time, By: m.Actor.String(), Barred: []string{n.Key}, Serials: []string{}, Protector: n.Protector, Keys: map[string]StolenKey{}}
	for _, p := range n.Past {
		r.Barred = append(r.Barred, p.Key)
	}
	if n.Serial != "" {
		r.Serials = append(r.Serials, n.Serial)
	}
	for _, label := range sorted(s.Slots) {
		seat, ok := s.Slots[label].Seats[n.Name]
		if !ok {
			continue
		}
		if len(r.Serials) < maxStolenSerials && seat.Serial != "" && !slices.Contains(r.Serials, seat.Serial) {
			r.Serials = append(r.Serials, seat.Serial)
		}
		held := s.Keys[label][n.Name].Keys
		for _, fp := range sorted(held) {
			if r.Held++; r.Held > maxStolenKeys {
				continue
			}
			k := StolenKey{Slot: label, Mode: seat.Mode, Key: held[fp]}
			r.Keys[k.Name()] = k
		}
	}
	s.Stolen = with(s.Stolen, n.Key, r)
	s.withdrawAll(n.Name, m)
	s.record(m, Entry{Act: actStolen, Object: "node/" + n.Name, Result: Done,
		Detail: "it held " + plural(r.Held, "key") + "; identity key " + n.Key + " and its tokens are barred"})
	return nil
}

// actStolen stands in the trail beside node.remove, which policies are about.
const actStolen = "node.stolen"

// withdrawAll takes back what was for a stolen node or may be known there. Invitations go all: nobody can tell on
// which node their codes were shown.
func (s *State) withdrawAll(node string, m Meta) {
	invites := maps.Clone(s.Invites)
	maps.DeleteFunc(invites, func(_ string, i Invite) bool { return i.Used == "" })
	s.Invites = invites
	for _, id := range sorted(s.Packages) {
		p := s.Packages[id]
		_, done := p.Receipts[node]
		to := slices.Index(p.Receivers, node)
		if p.Source != node && (to < 0 || done) {
			continue
		}
		if p.Source != node {
			p.Receivers = slices.Delete(slices.Clone(p.Receivers), to, to+1)
		}
		if (p.Source == node || len(p.Receivers) == 0) && m.Time.Before(p.Expires) {
			p.Expires = m.Time
		}
		s.Packages = with(s.Packages, id, p)
	}
	for _, id := range sorted(s.Approvals) {
		a := s.Approvals[id]
		if a.Node == node && a.StateAt(m.Time) == ApprovalWaiting {
			s.endApproval(a, m, ApprovalWithdrawn, "it was asked for on node "+node+", which was stolen")
		}
	}
	for _, name := range sorted(s.Apps) {
		if app := s.Apps[name]; len(app.Nodes) > 1 && slices.Contains(app.Nodes, node) {
			app.Nodes = slices.DeleteFunc(slices.Clone(app.Nodes), func(n string) bool { return n == node })
			s.Apps = with(s.Apps, name, app)
		}
	}
}

// SettleStolen says that keys which a stolen node held are dealt with: replaced, revoked, or of no use any more.
type SettleStolen struct {
	Record string `json:"record"`        // KeyHash of the identity key that the node had last
	Key    string `json:"key,omitempty"` // StolenKey.Name, or "" for all of them
}

func (c *SettleStolen) Kind() string { return "stolen.settle" }
func (c *SettleStolen) describe() (string, string) {
	if c.Key == "" {
		return "stolen/" + c.Record, "all keys"
	}
	return "stolen/" + c.Record, "key " + c.Key
}

func (c *SettleStolen) validate() error {
	return check(checkHash("record of the stolen node", c.Record), checkText("key", c.Key, maxText))
}

func (c *SettleStolen) apply(s *State, m Meta) error {
	r, ok := s.Stolen[c.Record]
	if !ok {
		return errorf(NotFound, "no stolen node is remembered by that identity key")
	}
	if _, ok := r.Keys[c.Key]; c.Key != "" && !ok {
		return errorf(NotFound, "the stolen node %q held no such key", r.Node)
	}
	keys := maps.Clone(r.Keys)
	for name, k := range r.Keys {
		if (c.Key == "" || c.Key == name) && k.Dealt.IsZero() {
			k.Dealt, k.By = m.Time, m.Actor.String()
			keys[name] = k
		}
	}
	r.Keys = keys
	s.Stolen = with(s.Stolen, c.Record, r)
	return nil
}
