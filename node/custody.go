package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// NewCustody says who is to hold the shares of a slot's code.
type NewCustody struct {
	Slot      string   `json:"slot"`
	Threshold int      `json:"threshold"`
	Holders   []string `json:"holders"`
	Nodes     []string `json:"nodes,omitempty"` // whose tokens take their code from the shares; empty: all that have the slot
}

// Publish splits a new code for a slot and publishes it. No token has it yet: each takes it once enough of
// the custodians have entered their passphrases.
func (c *Custody) Publish(ctx context.Context, actor cluster.Actor, n NewCustody) error {
	s := c.m.State()
	slot, ok := s.Slots[n.Slot]
	if !ok {
		return refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no slot %q", n.Slot)}}
	}
	if err := cluster.Authorize(s, actor, c.m.Name(), cluster.MayManageCodes, n.Slot); err != nil {
		return err
	}
	if len(n.Nodes) == 0 {
		n.Nodes = slices.Collect(maps.Keys(slot.Seats))
	}
	slices.Sort(n.Nodes)
	if err := c.sizes(slot, n.Nodes); err != nil {
		return err
	}
	newest, _ := slot.Newest()
	secret, err := newSecret()
	if err != nil {
		return err
	}
	defer clear(secret)
	return c.publish(ctx, actor, n, newest, newest.Generation+1, secret)
}

// sizes refuses tokens that take only short codes, before anything is published.
func (c *Custody) sizes(slot cluster.Slot, nodes []string) error {
	for _, name := range nodes {
		seat, ok := slot.Seats[name]
		if !ok {
			return refuse("node %q has no token in slot %q", name, slot.Label)
		}
		if _, err := generatedSize(seat.MinCode, seat.MaxCode); err != nil {
			return refuse("the token of node %s takes codes of at most %d characters, which is too short for a shared one", name, seat.MaxCode)
		}
	}
	return nil
}

// publish splits a secret and has the cluster take the split. base is the split that it follows.
func (c *Custody) publish(ctx context.Context, actor cluster.Actor, n NewCustody, base cluster.Split, generation int, secret []byte) error {
	holders, err := c.holders(n)
	if err != nil {
		return err
	}
	name := splitName{c.m.State().Cluster.ID, n.Slot, cluster.NewID(), generation}
	p, err := name.makeSplit(secret, n.Threshold, holders, n.Nodes)
	if err != nil {
		return err
	}
	_, err = c.m.Cluster.Apply(ctx, &cluster.PutSplit{Slot: n.Slot, Base: base.ID, Split: p}, actor)
	return err
}

// holders finds the keys of those who are to hold shares.
func (c *Custody) holders(n NewCustody) ([]holder, error) {
	names := slices.Clone(n.Holders)
	slices.Sort(names)
	switch {
	case len(names) < 2:
		return nil, refuse("name at least two custodians")
	case n.Threshold < 2:
		return nil, refuse("at least 2 custodians must be needed together; for a code that one person knows there is manual mode")
	case n.Threshold > len(names):
		return nil, refuse("%d of %d custodians can never come together", n.Threshold, len(names))
	}
	s := c.m.State()
	var list []holder
	for i, name := range names {
		if i > 0 && names[i-1] == name {
			return nil, refuse("%q is named twice: each custodian has one share", name)
		}
		if _, ok := s.Accounts[name]; !ok {
			return nil, refuse("there is no account %q", name)
		}
		k, ok := s.Custodians[name]
		if !ok {
			return nil, refuse("%s has no custodian passphrase yet: they set one on their page \"Your account\"", name)
		}
		list = append(list, holder{name, k.Key, k.Public})
	}
	return list, nil
}

// Withdraw takes a split back that no token has taken its code from yet.
func (c *Custody) Withdraw(ctx context.Context, actor cluster.Actor, label string) error {
	p, ok := c.m.State().Slots[label].Newest()
	if !ok {
		return refuse("slot %q has no custodians", label)
	}
	_, err := c.m.Cluster.Apply(ctx, &cluster.RemoveSplit{Slot: label, Split: p.ID}, actor)
	return err
}

// requestLife is how long custodians have to agree to what somebody asked for.
const requestLife = time.Hour

// A request is a change that needs the secret, so enough custodians have to come for it. It is kept in the
// memory of the node where it was asked for.
type request struct {
	id      string
	purpose string
	slot    string
	split   string // that was the newest when it was made
	actor   cluster.Actor
	until   time.Time

	custody NewCustody // for ForReplacing
	mode    string     // for ForLeaving
	code    []byte     // chosen by people, for manual mode
}

func (r *request) detail(node string) string {
	if r.purpose == ForReplacing {
		return fmt.Sprintf("the custodians become %s, %d of %d; the code stays", strings.Join(r.custody.Holders, ", "), r.custody.Threshold, len(r.custody.Holders))
	}
	if r.mode == cluster.Generated {
		return "node " + node + " makes a code of its own for the slot and keeps it"
	}
	return "the slot gets a code on node " + node + " that " + r.actor.Name + " has chosen"
}

const mostRequests = 100

type requests struct {
	reqMu sync.Mutex
	open_ map[string]*request // by id
}

func newRequests() requests { return requests{open_: map[string]*request{}} }

// ask keeps a request, after its author is authorized and in the audit trail.
func (c *Custody) ask(ctx context.Context, r *request, what string) (string, error) {
	r.id, r.until = cluster.NewID(), time.Now().Add(requestLife)
	err := c.m.acts.do(ctx, act{r.actor, cluster.MayManageCodes, "custody.request", "slot/" + r.slot, what}, func() error {
		c.reqMu.Lock()
		defer c.reqMu.Unlock()
		for id, old := range c.open_ {
			if old.purpose == r.purpose && old.slot == r.slot || time.Now().After(old.until) {
				clear(old.code)
				delete(c.open_, id)
			}
		}
		if len(c.open_) >= mostRequests {
			return refuse("%d changes wait for custodians; let some be done first", len(c.open_))
		}
		c.open_[r.id] = r
		return nil
	})
	if err != nil {
		clear(r.code)
	}
	return r.id, err
}

// Replace asks the custodians of a slot to let others take their place. The code stays: what is new is who
// holds shares of it. It is done once enough of the present custodians agree at this node.
func (c *Custody) Replace(ctx context.Context, actor cluster.Actor, n NewCustody) (string, error) {
	p, ok := c.m.State().Slots[n.Slot].Newest()
	if !ok {
		return "", refuse("slot %q has no custodians yet", n.Slot)
	}
	n.Nodes = p.Nodes
	slices.Sort(n.Holders)
	if _, err := c.holders(n); err != nil {
		return "", err
	}
	r := &request{purpose: ForReplacing, slot: n.Slot, split: p.ID, actor: actor, custody: n}
	return c.ask(ctx, r, r.detail(c.m.Name()))
}

// Leave asks the custodians of a shared slot to let this node's token have a code of its own again: one
// that the node makes, or one that people chose.
func (c *Custody) Leave(ctx context.Context, actor cluster.Actor, label, mode string, code []byte) (string, error) {
	rec, err := c.m.Slots.record(label)
	if err != nil {
		clear(code)
		return "", err
	}
	if rec.Mode != cluster.Shared {
		clear(code)
		return "", refuse("slot %q is not shared on node %s", label, c.m.Name())
	}
	switch mode {
	case cluster.Generated:
		_, err = generatedSize(rec.MinCode, rec.MaxCode)
	case cluster.Manual:
		err = checkManual(code, rec.MinCode, rec.MaxCode)
	default:
		err = refuse("a slot's mode is %q or %q, not %q", cluster.Generated, cluster.Manual, mode)
	}
	if err != nil {
		clear(code)
		return "", err
	}
	p, _ := c.m.State().Slots[label].Generation(rec.Generation)
	r := &request{purpose: ForLeaving, slot: label, split: p.ID, actor: actor, mode: mode, code: code}
	return c.ask(ctx, r, "to "+mode+", node "+c.m.Name())
}

// asks is what people have asked for and custodians have not agreed to yet.
func (c *Custody) asks(s *cluster.State) []ShareNeed {
	c.reqMu.Lock()
	defer c.reqMu.Unlock()
	var list []ShareNeed
	for _, r := range c.open_ {
		if splitOf(s.Slots[r.slot], r.split).ID == "" || time.Now().After(r.until) {
			continue
		}
		list = append(list, ShareNeed{Slot: r.slot, Purpose: r.purpose, Request: r.id, Splits: []string{r.split}, Detail: r.detail(c.m.Name()), By: r.actor.String()})
	}
	return list
}

// takeRequest removes a request that custodians have agreed to.
func (c *Custody) takeRequest(n ShareNeed) (*request, error) {
	c.reqMu.Lock()
	defer c.reqMu.Unlock()
	r := c.open_[n.Request]
	if r == nil || r.slot != n.Slot || r.purpose != n.Purpose {
		return nil, refuse("nobody asks for this any more")
	}
	delete(c.open_, n.Request)
	return r, nil
}

// replace splits the secret for other custodians.
func (c *Custody) replace(ctx context.Context, n ShareNeed, secret []byte) (result, detail string, err error) {
	r, err := c.takeRequest(n)
	if err != nil {
		return "", "", err
	}
	base := splitOf(c.m.State().Slots[n.Slot], r.split)
	if err := c.publish(ctx, r.actor, r.custody, base, base.Generation, secret); err != nil {
		return "", "", err
	}
	return Changed, r.detail(c.m.Name()), nil
}

// leave gives the token a code of its own again.
func (c *Custody) leave(ctx context.Context, actor cluster.Actor, n ShareNeed, secret []byte) (result, detail string, err error) {
	r, err := c.takeRequest(n)
	if err != nil {
		return "", "", err
	}
	defer clear(r.code)
	s := c.m.Slots
	t, unlock, err := s.lock(n.Slot)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	rec := s.recordOf(t)
	p := splitOf(c.m.State().Slots[n.Slot], r.split)
	if rec.Mode != cluster.Shared || rec.Generation != p.Generation {
		return "", "", refuse("slot %q was changed meanwhile: look again", n.Slot)
	}
	old, err := s.derived(rec, p, secret)
	if err != nil {
		return "", "", err
	}
	defer clear(old)
	detail = fmt.Sprintf("to %s, node %s, by %d custodians", r.mode, c.m.Name(), n.Threshold)
	err = c.m.acts.do(ctx, act{r.actor, cluster.MayManageCodes, "slot.set-mode", "slot/" + n.Slot, detail}, func() error {
		if r.mode == cluster.Generated {
			return s.toGenerated(ctx, t, old)
		}
		return s.toManual(ctx, t, old, r.code)
	})
	return Changed, r.detail(c.m.Name()), err
}

// close wipes what is in memory.
func (c *Custody) close() {
	c.drop(func(needKey) bool { return false })
	c.reqMu.Lock()
	defer c.reqMu.Unlock()
	for id, r := range c.open_ {
		clear(r.code)
		delete(c.open_, id)
	}
}
