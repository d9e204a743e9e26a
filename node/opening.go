package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Opening is what became of one slot on one node when people gave what they have for it.
type Opening struct {
	Slot   string `json:"slot"`
	Node   string `json:"node"`
	Result string `json:"result"`
	Detail string `json:"detail,omitempty"`
}

// Results of an Opening.
const (
	Opened      = "opened"
	Waits       = "waits"       // for more custodians
	Changed     = "changed"     // a code or custodians, as somebody asked for
	NotOpened   = "refused"     // Detail says why
	Unreachable = "unreachable" // nothing was sent
)

// ok tells whether nothing went wrong.
func (o Opening) ok() bool { return o.Result == Opened || o.Result == Changed || o.Result == Waits }

// Activation is what a person gives to open slots on many nodes at once.
type Activation struct {
	Codes      []CodeFor // of manual slots
	Passphrase []byte    // of the custodian, for shared slots; empty: none
	As         string    // account of the custodian, where the actor is at a node's console
	Nodes      []string  // only these; empty: all
	Requests   []string  // of other custodians' changes that the person agrees to, by id
}

// CodeFor is a code that somebody entered.
type CodeFor struct {
	Slot string
	Node string // empty: every node where the slot is closed
	Code []byte
}

// openAtOnce bounds the nodes and tokens that are asked at the same time.
const openAtOnce = 8

// openPatience bounds one node's answer: an HSM may take seconds for a login.
const openPatience = 90 * time.Second

// Activate opens slots on all nodes, in parallel, as a job with a result for each slot and node. A code is
// tried once on each token that it is for. Codes and passphrase are wiped.
func (c *Custody) Activate(ctx context.Context, actor cluster.Actor, a Activation) (*Job, error) {
	wipe := func() {
		for _, code := range a.Codes {
			clear(code.Code)
		}
	}
	targets, err := c.targets(a)
	if err != nil {
		clear(a.Passphrase)
		wipe()
		return nil, err
	}
	var keys *opened
	if len(a.Passphrase) > 0 { // a wrong one is told before anything begins
		keys, actor, err = c.open(ctx, actor, a.As, a.Passphrase)
		clear(a.Passphrase)
		if err != nil {
			wipe()
			return nil, err
		}
	}
	if len(targets) == 0 && keys == nil {
		return nil, refuse("enter a code, or your custodian passphrase")
	}
	entered := justNow()
	return c.m.Jobs.start("activate", "cluster/"+line(c.m.Identity.ClusterName()), actor, func(ctx context.Context, pr *progress) error {
		defer wipe()
		r := &openings{pr: pr, total: len(targets)}
		r.tell()
		var work sync.WaitGroup
		turn := make(chan struct{}, openAtOnce)
		for _, t := range targets {
			work.Go(func() {
				turn <- struct{}{}
				defer func() { <-turn }()
				r.add(c.openOne(ctx, actor, t, entered))
			})
		}
		if keys != nil {
			work.Go(func() { c.contribute(ctx, actor, keys, a.Nodes, a.Requests, r) })
		}
		work.Wait()
		return r.err()
	}), nil
}

// targets finds the tokens that the entered codes are for.
func (c *Custody) targets(a Activation) ([]CodeFor, error) {
	s := c.m.State()
	var list []CodeFor
	for _, name := range a.Nodes {
		if _, ok := s.Nodes[name]; !ok {
			return nil, refuse("%q is not a node of this cluster", name)
		}
	}
	own := map[string]bool{} // slots and nodes that have a code of their own
	for _, code := range a.Codes {
		own[code.Slot+"\x00"+code.Node] = true
	}
	for _, code := range a.Codes {
		seats := s.Slots[code.Slot].Seats
		if len(seats) == 0 {
			return nil, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no slot %q in this cluster", code.Slot)}}
		}
		if len(code.Code) == 0 {
			return nil, refuse("enter the authentication code of slot %q", code.Slot)
		}
		before := len(list)
		for _, name := range slices.Sorted(maps.Keys(seats)) {
			wanted := len(a.Nodes) == 0 || slices.Contains(a.Nodes, name)
			if code.Node != "" {
				wanted = wanted && code.Node == name
			} else {
				wanted = wanted && !own[code.Slot+"\x00"+name] && c.closed(s, code.Slot, name)
			}
			if wanted {
				list = append(list, CodeFor{code.Slot, name, code.Code})
			}
		}
		if len(list) == before {
			return nil, refuse("slot %q is not closed on any of these nodes", code.Slot)
		}
	}
	return list, nil
}

// closed tells whether somebody can open a slot on a node by its code. This node knows best of itself.
func (c *Custody) closed(s *cluster.State, label, node string) bool {
	if node == c.m.Name() {
		v, err := c.m.Slots.One(label)
		return err == nil && v.Mode == cluster.Manual && v.State == cluster.Down
	}
	seat := s.Slots[label].Seats[node]
	return seat.Mode == cluster.Manual && seat.State != cluster.Active
}

// openOne gives one token its code, here or on the other node.
func (c *Custody) openOne(ctx context.Context, actor cluster.Actor, t CodeFor, entered time.Time) Opening {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	o := Opening{Slot: t.Slot, Node: t.Node}
	var err error
	switch {
	case t.Node == c.m.Name():
		err = c.m.Slots.activateSince(ctx, actor, t.Slot, bytes.Clone(t.Code), entered)
	case !c.m.Peers.Seen(t.Node).Answers:
		o.Result, o.Detail = Unreachable, "it does not answer; nothing was sent to it"
		return o
	default:
		var a peerAnswer
		h := handover{Kind: handCode, To: t.Node, Slot: t.Slot, Actor: actor, Age: min(time.Since(entered), handoverLife)}
		if err = c.m.hand(ctx, activatePath, h, t.Code, &a); err == nil {
			err = a.err()
		}
	}
	if err != nil {
		o.Result, o.Detail = NotOpened, line(err.Error())
		return o
	}
	o.Result = Opened
	return o
}

// openings collects the results of an activation.
type openings struct {
	pr *progress

	mu    sync.Mutex
	list  []Opening
	total int
}

func (r *openings) expect(n int) {
	r.mu.Lock()
	r.total += n
	r.mu.Unlock()
	r.tell()
}

func (r *openings) add(list ...Opening) {
	r.mu.Lock()
	r.list = append(r.list, list...)
	r.mu.Unlock()
	r.tell()
}

func (r *openings) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := slices.Clone(r.list)
	slices.SortFunc(list, func(a, b Opening) int {
		return slices.Compare([]string{a.Slot, a.Node}, []string{b.Slot, b.Node})
	})
	r.pr.openings(list)
	r.pr.at(len(list), max(r.total, len(list)))
}

// err says how many slots did not open.
func (r *openings) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := 0
	for _, o := range r.list {
		if !o.ok() {
			failed++
		}
	}
	switch {
	case failed > 0:
		return refuse("%d of %d did not open; the table says why. Nothing is tried again by itself", failed, len(r.list))
	case len(r.list) == 0:
		return refuse("no node needs anything from you now")
	}
	return nil
}

const activatePath = "/node/v1/activate"

// serveActivate takes a code from the node where somebody entered it. Who may is decided here, by this
// node's own state.
func (p *Peers) serveActivate(w http.ResponseWriter, r *http.Request) {
	h, code, err := p.m.readHandover(cluster.PeerOf(r), handCode, r.Body)
	if err == nil {
		// The login goes on when the other node hangs up: a token that was asked has an answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), openPatience)
		defer cancel()
		err = p.m.Slots.activateSince(ctx, h.Actor, h.Slot, code, time.Now().Add(-h.Age))
	}
	if err != nil && errors.Is(err, errAdminClosed) {
		err = refusal{err}
	}
	respond(w, http.StatusOK, answerOf(err))
}
