package node

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// shareLife is how long shares are kept for others to follow, from the first one on.
const shareLife = 15 * time.Minute

// A ShareNeed is what a node waits for from custodians. It says how many have come, and never who.
type ShareNeed struct {
	Slot      string    `json:"slot"`
	Purpose   string    `json:"purpose"`
	Request   string    `json:"request,omitempty"` // of whom asked for it, where people ask
	Splits    []string  `json:"splits"`            // whose shares are needed
	Have      int       `json:"have"`
	Threshold int       `json:"threshold"`
	Until     time.Time `json:"until,omitzero"`   // when what has come is wiped
	Detail    string    `json:"detail,omitempty"` // what was asked for, for people
	By        string    `json:"by,omitempty"`     // who asked
}

// Purposes of a ShareNeed.
const (
	ForOpening   = "open"    // open the slot
	ForSwitching = "switch"  // give the token the code of the newest split
	ForReplacing = "replace" // split the secret for other custodians
	ForLeaving   = "leave"   // switch the slot to another mode
)

// asked tells whether custodians have to agree to it one by one: opening is what they came for, and the
// newest split is what the security officer has published.
func (n ShareNeed) asked() bool { return n.Purpose == ForReplacing || n.Purpose == ForLeaving }

func (n ShareNeed) key() needKey { return needKey{n.Slot, n.Purpose, n.Request} }

type needKey struct{ slot, purpose, request string }

// collecting keeps shares in memory until enough have come, or their time is over.
type collecting struct {
	mu      sync.Mutex
	piles   map[needKey]*pile
	expired func(needKey)
}

// A pile is the shares that have come for one need.
type pile struct {
	shares map[string]map[string][]byte // split -> account -> share
	until  time.Time
	timer  *time.Timer
}

func newCollecting() collecting { return collecting{piles: map[needKey]*pile{}} }

// put adds a share. It tells whether the same holder had given it already.
func (c *collecting) put(k needKey, split, account string, share []byte) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.piles[k]
	if p == nil {
		p = &pile{shares: map[string]map[string][]byte{}, until: time.Now().Add(shareLife)}
		p.timer = time.AfterFunc(shareLife, func() { c.expire(k, p) })
		c.piles[k] = p
	}
	if p.shares[split] == nil {
		p.shares[split] = map[string][]byte{}
	}
	if _, again = p.shares[split][account]; again {
		return true
	}
	p.shares[split][account] = bytes.Clone(share)
	return false
}

func (c *collecting) expire(k needKey, p *pile) {
	c.mu.Lock()
	mine := c.piles[k] == p
	if mine {
		delete(c.piles, k)
	}
	p.wipe()
	c.mu.Unlock()
	if mine && c.expired != nil {
		c.expired(k)
	}
}

// wipe clears the shares. The caller holds the lock.
func (p *pile) wipe() {
	for _, shares := range p.shares {
		for _, share := range shares {
			clear(share)
		}
	}
	p.shares = nil
}

// have counts the holders of a split who have given their share and still may, by the state of now.
func (c *collecting) have(k needKey, split string, may func(account string) bool) (n int, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.piles[k]
	if p == nil {
		return 0, time.Time{}
	}
	for account := range p.shares[split] {
		if may(account) {
			n++
		}
	}
	return n, p.until
}

// take removes a pile and gives its shares to f, where f says that there are enough; they are wiped after.
func (c *collecting) take(k needKey, enough func(shares map[string]map[string][]byte) bool) (map[string]map[string][]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.piles[k]
	if p == nil || !enough(p.shares) {
		return nil, false
	}
	p.timer.Stop()
	delete(c.piles, k)
	return p.shares, true
}

// drop forgets piles that nothing needs any more.
func (c *collecting) drop(keep func(needKey) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, p := range c.piles {
		if !keep(k) {
			p.timer.Stop()
			p.wipe()
			delete(c.piles, k)
		}
	}
}

// Needs is what this node waits for from custodians, by slot.
func (c *Custody) Needs() []ShareNeed {
	s := c.m.State()
	c.m.Slots.mu.Lock()
	var list []ShareNeed
	for label, t := range c.m.Slots.seats {
		list = append(list, t.needs(s.Slots[label], label, c.m.Name())...)
	}
	c.m.Slots.mu.Unlock()
	list = append(list, c.asks(s)...)
	for i := range list {
		n := &list[i]
		for _, id := range n.Splits {
			p := splitOf(s.Slots[n.Slot], id)
			have, until := c.have(n.key(), id, func(account string) bool { return s.Holds(n.Slot, account, p) == nil })
			if n.Threshold == 0 || p.Threshold-have > n.Threshold-n.Have { // of two splits, the one that lacks more
				n.Have, n.Threshold = have, p.Threshold
			}
			n.Until = until
		}
	}
	slices.SortFunc(list, func(a, b ShareNeed) int {
		return strings.Compare(a.Slot+"\x00"+a.Purpose+"\x00"+a.Request, b.Slot+"\x00"+b.Purpose+"\x00"+b.Request)
	})
	return list
}

// needs is what a seat of this node needs. The caller holds Slots.mu.
func (t *seat) needs(slot cluster.Slot, label, node string) []ShareNeed {
	var list []ShareNeed
	add := func(purpose string, generations ...int) {
		n := ShareNeed{Slot: label, Purpose: purpose}
		for _, g := range generations {
			p, ok := slot.Generation(g)
			if !ok {
				return // the cluster has not told this node of it yet, or forgot it
			}
			n.Splits = append(n.Splits, p.ID)
		}
		list = append(list, n)
	}
	r := t.rec
	if t.state == cluster.Down && !t.open {
		switch {
		case r.Mode == cluster.Shared && r.Next > 0:
			add(ForOpening, r.Next, r.Generation)
		case r.Mode == cluster.Shared:
			add(ForOpening, r.Generation)
		case r.Mode == cluster.Manual && r.Next > 0:
			add(ForOpening, r.Next)
		}
	}
	newest, ok := slot.Newest()
	if !ok || !slices.Contains(newest.Nodes, node) || r.Mode == cluster.Shared && r.Generation == newest.Generation || r.Next > 0 || t.state == cluster.Broken {
		return list
	}
	switch {
	case r.Mode == cluster.Shared:
		add(ForSwitching, newest.Generation, r.Generation)
	case r.Mode == cluster.Generated && t.open, r.Mode == cluster.Manual && t.prepared(time.Now()):
		add(ForSwitching, newest.Generation)
	}
	return list
}

// splitOf finds a split of a slot by its id; one without holders when there is none.
func splitOf(slot cluster.Slot, id string) cluster.Split {
	for _, p := range slot.Custody {
		if p.ID == id {
			return p
		}
	}
	return cluster.Split{}
}
