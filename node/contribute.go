package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

const custodyPath = "/node/v1/custody"

// opened is a custodian's key, open for as long as it takes to hand out shares.
type opened struct {
	key  string
	seed []byte
}

// open opens a custodian's key: that of the actor, or of the account that somebody at a node's console says
// to be. The passphrase proves that, so the custodian acts from then on. A wrong one is told at once and is
// in the audit trail, about the account and in the name of who was there.
func (c *Custody) open(ctx context.Context, actor cluster.Actor, as string, passphrase []byte) (*opened, cluster.Actor, error) {
	custodian := actor
	if as != "" {
		if actor.Kind != cluster.ByConsole {
			return nil, actor, refuse("somebody who is logged in gives their own share and no other")
		}
		custodian = cluster.Actor{Kind: cluster.ByAccount, Name: as}
	}
	if err := c.person(custodian); err != nil {
		return nil, actor, err
	}
	id, seed, err := c.unlock(ctx, custodian.Name, passphrase)
	if errors.Is(err, errCustodian) {
		c.m.acts.note(ctx, actor, cluster.NoteShareRefused, "account/"+custodian.Name, cluster.Refused, "wrong custodian passphrase")
	}
	if err != nil {
		return nil, actor, err
	}
	return &opened{id, seed}, custodian, nil
}

// contribute hands the custodian's shares to every node that needs them, and wipes the key.
func (c *Custody) contribute(ctx context.Context, actor cluster.Actor, keys *opened, nodes, requests []string, r *openings) {
	defer clear(keys.seed)
	s := c.m.State()
	var work sync.WaitGroup
	turn := make(chan struct{}, openAtOnce)
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		if len(nodes) > 0 && !slices.Contains(nodes, name) {
			continue
		}
		work.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			ctx, cancel := context.WithTimeout(ctx, openPatience)
			defer cancel()
			c.contributeTo(ctx, s, name, actor, keys, requests, r)
		})
	}
	work.Wait()
}

func (c *Custody) contributeTo(ctx context.Context, s *cluster.State, node string, actor cluster.Actor, keys *opened, requests []string, r *openings) {
	needs, err := c.needsOf(ctx, node)
	if err != nil {
		if list := c.unreached(s, node, actor.Name); len(list) > 0 {
			r.expect(len(list))
			r.add(list...)
		}
		return
	}
	given, problems := c.shares(s, node, needs, actor.Name, keys, requests)
	defer func() {
		for _, g := range given {
			clear(g.Share)
		}
	}()
	r.expect(len(problems))
	r.add(problems...)
	if len(given) == 0 {
		return
	}
	list, err := c.give(ctx, node, actor, given)
	if err != nil {
		list = nil
		for _, g := range given {
			list = append(list, Opening{Slot: g.Slot, Node: node, Result: NotOpened, Detail: line(err.Error())})
		}
		list = slices.CompactFunc(list, func(a, b Opening) bool { return a.Slot == b.Slot })
	}
	r.expect(len(list))
	r.add(list...)
}

// unreached are the shared slots of a node that does not answer, where the account holds a share.
func (c *Custody) unreached(s *cluster.State, node, account string) []Opening {
	var list []Opening
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seat := s.Slots[label].Seats[node]
		p, ok := s.Slots[label].Generation(seat.Generation)
		if ok && seat.Mode == cluster.Shared && s.Holds(label, account, p) == nil {
			list = append(list, Opening{Slot: label, Node: node, Result: Unreachable, Detail: "it does not answer; nothing was sent to it"})
		}
	}
	return list
}

// needsOf asks a node what it needs.
func (c *Custody) needsOf(ctx context.Context, node string) ([]ShareNeed, error) {
	if node == c.m.Name() {
		return c.Needs(), nil
	}
	var needs []ShareNeed
	err := c.m.Peers.get(ctx, node, custodyPath, func(r io.Reader) error { return json.NewDecoder(r).Decode(&needs) })
	return needs, err
}

// A givenShare is a share on its way to the node that needs it.
type givenShare struct {
	Slot    string
	Purpose string
	Request string
	Split   string
	Share   []byte
}

// shares opens what the account holds of what a node needs. A node is told nothing of a slot in which it
// has no token.
func (c *Custody) shares(s *cluster.State, node string, needs []ShareNeed, account string, keys *opened, requests []string) (given []givenShare, problems []Opening) {
	for _, n := range needs {
		slot := s.Slots[n.Slot]
		if _, ok := slot.Seats[node]; !ok || n.asked() && !slices.Contains(requests, n.Request) {
			continue
		}
		for _, id := range n.Splits {
			p := splitOf(slot, id)
			share, ok := p.Share(account)
			if !ok {
				continue
			}
			if err := s.Holds(n.Slot, account, p); err != nil {
				problems = append(problems, Opening{Slot: n.Slot, Node: node, Result: NotOpened, Detail: line(err.Error())})
				continue
			}
			plain, err := c.m.nameOf(n.Slot, p).openShare(account, share, keys.seed)
			if err == nil {
				err = c.m.nameOf(n.Slot, p).verifyShare(p, account, plain)
			}
			if err != nil {
				clear(plain)
				problems = append(problems, Opening{Slot: n.Slot, Node: node, Result: NotOpened, Detail: "your share does not open, although your passphrase is right: it was damaged or tampered with"})
				continue
			}
			given = append(given, givenShare{n.Slot, n.Purpose, n.Request, id, plain})
		}
	}
	return given, problems
}

// give hands shares to a node and returns what came of them.
func (c *Custody) give(ctx context.Context, node string, actor cluster.Actor, given []givenShare) ([]Opening, error) {
	if node == c.m.Name() {
		return c.accept(ctx, actor, given), nil
	}
	b, err := json.Marshal(given)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	var a peerAnswer
	if err := c.m.hand(ctx, custodyPath, handover{Kind: handShares, To: node, Actor: actor}, b, &a); err != nil {
		return nil, err
	}
	for i := range a.Openings { // what another node says is shown to people
		o := &a.Openings[i]
		o.Node, o.Slot, o.Detail = node, line(o.Slot), line(o.Detail)
	}
	return a.Openings, a.err()
}

// serveNeeds tells another node what this one waits for.
func (p *Peers) serveNeeds(w http.ResponseWriter, r *http.Request) {
	needs := p.m.Custody.Needs()
	if needs == nil {
		needs = []ShareNeed{}
	}
	respond(w, http.StatusOK, needs)
}

// serveShares takes shares from the node where their holder entered the passphrase.
func (p *Peers) serveShares(w http.ResponseWriter, r *http.Request) {
	h, secret, err := p.m.readHandover(cluster.PeerOf(r), handShares, r.Body)
	if err != nil {
		if errors.Is(err, errAdminClosed) {
			err = refusal{err}
		}
		respond(w, http.StatusOK, answerOf(err))
		return
	}
	given, err := readShares(secret)
	clear(secret)
	if err != nil {
		respond(w, http.StatusOK, answerOf(err))
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), openPatience)
	defer cancel()
	respond(w, http.StatusOK, peerAnswer{Openings: p.m.Custody.accept(ctx, h.Actor, given)})
	for _, g := range given {
		clear(g.Share)
	}
}

// mostShares bounds the shares of one handover: opening and switching, of two generations, in each of
// 1,000 slots.
const mostShares = 4000

func readShares(secret []byte) ([]givenShare, error) {
	var given []givenShare
	if err := json.Unmarshal(secret, &given); err != nil {
		return nil, refuse("the shares cannot be read")
	}
	if len(given) > mostShares {
		return nil, refuse("%d shares at once; at most %d are taken", len(given), mostShares)
	}
	for _, g := range given {
		if len(g.Share) != shareSize {
			return nil, refuse("a share of %d bytes; each has %d", len(g.Share), shareSize)
		}
	}
	return given, nil
}

// accept takes a custodian's shares, and does what enough of them have come for.
func (c *Custody) accept(ctx context.Context, actor cluster.Actor, given []givenShare) []Opening {
	entered := justNow()
	var list []Opening
	var touched []needKey
	needs := map[needKey]ShareNeed{}
	for _, n := range c.Needs() {
		needs[n.key()] = n
	}
	c.drop(func(k needKey) bool { _, ok := needs[k]; return ok })
	bad, again := map[needKey]bool{}, map[needKey]bool{}
	for _, g := range given {
		k := needKey{g.Slot, g.Purpose, g.Request}
		n, ok := needs[k]
		twice, err := c.acceptOne(ctx, actor, n, ok, k, g)
		again[k] = again[k] || twice
		if err != nil && !bad[k] {
			bad[k] = true
			list = append(list, Opening{Slot: g.Slot, Node: c.m.Name(), Result: NotOpened, Detail: line(err.Error())})
		}
		if err == nil && !slices.Contains(touched, k) {
			touched = append(touched, k)
		}
	}
	slices.SortFunc(touched, func(a, b needKey) int { return turnOf(a) - turnOf(b) })
	for _, k := range touched {
		if !bad[k] {
			o := c.advance(ctx, actor, needs[k], entered)
			if again[k] && o.Result == Waits {
				o.Detail = "you had given your share already, and one person counts once; " + o.Detail
			}
			list = append(list, o)
		}
	}
	return list
}

// turnOf orders what shares are for: a slot is opened before anything is changed.
func turnOf(k needKey) int {
	return slices.Index([]string{ForOpening, ForReplacing, ForSwitching, ForLeaving}, k.purpose)
}

func (c *Custody) acceptOne(ctx context.Context, actor cluster.Actor, n ShareNeed, needed bool, k needKey, g givenShare) (again bool, err error) {
	if !needed {
		return false, refuse("node %s does not need this any more: look again", c.m.Name())
	}
	s := c.m.State()
	p := splitOf(s.Slots[g.Slot], g.Split)
	refused := func(err error) (bool, error) {
		c.m.acts.note(ctx, actor, cluster.NoteShareRefused, "slot/"+g.Slot, cluster.Refused, err.Error())
		return false, refusal{err}
	}
	if actor.Kind != cluster.ByAccount {
		return refused(errors.New("a share comes from a custodian, who is a person with an account"))
	}
	if !slices.Contains(n.Splits, g.Split) {
		return refused(errOtherSplit)
	}
	if err := s.Holds(g.Slot, actor.Name, p); err != nil {
		return refused(err)
	}
	if err := c.m.nameOf(g.Slot, p).verifyShare(p, actor.Name, g.Share); err != nil {
		return refused(err)
	}
	if c.put(k, g.Split, actor.Name, g.Share) {
		return true, nil
	}
	have, _ := c.have(k, g.Split, func(a string) bool { return s.Holds(g.Slot, a, p) == nil })
	detail := fmt.Sprintf("to %s on node %s: %d of %d", purposeWord(g.Purpose), c.m.Name(), have, p.Threshold)
	c.m.acts.note(ctx, actor, cluster.NoteShareEntered, "slot/"+g.Slot, cluster.Done, detail)
	return false, nil
}

func purposeWord(purpose string) string {
	switch purpose {
	case ForOpening:
		return "open it"
	case ForSwitching:
		return "give its token the new code"
	case ForReplacing:
		return "replace its custodians"
	}
	return "switch it to another mode"
}

// advance does what a need is for, once enough custodians have come.
func (c *Custody) advance(ctx context.Context, actor cluster.Actor, n ShareNeed, entered time.Time) Opening {
	o := Opening{Slot: n.Slot, Node: c.m.Name(), Result: Waits}
	s := c.m.State()
	slot := s.Slots[n.Slot]
	lacks := func(shares map[string]map[string][]byte) (have, threshold int) {
		for _, id := range n.Splits {
			p := splitOf(slot, id)
			live := 0
			for account := range shares[id] {
				if s.Holds(n.Slot, account, p) == nil {
					live++
				}
			}
			if threshold == 0 || p.Threshold-live > threshold-have {
				have, threshold = live, p.Threshold
			}
		}
		return have, threshold
	}
	var have, threshold int
	shares, ok := c.take(n.key(), func(shares map[string]map[string][]byte) bool {
		have, threshold = lacks(shares)
		return have >= threshold
	})
	if threshold == 0 { // somebody else's share has just completed it
		have, threshold = n.Have, n.Threshold
	}
	if !ok {
		o.Detail = fmt.Sprintf("%d of %d custodians have come to %s; the others have until %s", have, threshold, purposeWord(n.Purpose), c.until(n.key()))
		return o
	}
	secrets, err := c.rebuild(s, n, shares)
	defer func() {
		for _, secret := range secrets {
			clear(secret)
		}
	}()
	if err == nil {
		o.Result, o.Detail, err = c.carryOut(ctx, actor, n, secrets, entered)
	}
	if err != nil {
		o.Result, o.Detail = NotOpened, line(err.Error())
	}
	return o
}

func (c *Custody) until(k needKey) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.piles[k]; p != nil {
		return p.until.UTC().Format("15:04 UTC")
	}
	return "now"
}

// rebuild combines the shares of those who may still give theirs, and wipes them all.
func (c *Custody) rebuild(s *cluster.State, n ShareNeed, shares map[string]map[string][]byte) (map[string][]byte, error) {
	defer (&pile{shares: shares}).wipe()
	secrets := map[string][]byte{}
	for _, id := range n.Splits {
		p := splitOf(s.Slots[n.Slot], id)
		live := map[string][]byte{}
		for account, share := range shares[id] {
			if s.Holds(n.Slot, account, p) == nil {
				live[account] = share
			}
		}
		secret, err := c.m.nameOf(n.Slot, p).combine(p, live)
		if err != nil {
			return secrets, err
		}
		secrets[id] = secret
	}
	return secrets, nil
}
