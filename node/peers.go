package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Peers is who of the other nodes answers, and what they say of themselves.
type Peers struct {
	m *Member

	mu   sync.Mutex
	seen map[string]Seen
}

// Seen is what this node knows of another from asking it.
type Seen struct {
	Answers bool
	Last    time.Time // when it last answered; zero: not since this node started
	Error   string    // why it does not
	Health  Health
	Clock   Clock // when it last answered
}

// Health is what a node says when another asks how it is.
type Health struct {
	Node       string    `json:"node"`
	Version    string    `json:"version"`
	Time       time.Time `json:"time"`
	HoldsOwner bool      `json:"holds_owner"`
	Admin      bool      `json:"admin"` // its admin token is open
	Index      uint64    `json:"index"` // of its state
	Modules    []string  `json:"modules_down,omitempty"`

	Needs []ShareNeed `json:"needs,omitempty"` // what it waits for from custodians
}

const (
	healthPath   = "/node/v1/health"
	receiptPath  = "/node/v1/receipt/"
	pollInterval = 2 * time.Second
	// silence is how long a node may be quiet before its state counts as unknown: three polls.
	silence       = 3 * pollInterval
	maxPeerAnswer = 64 << 20 // a receipt of 5,000 proofs
)

func newPeers(m *Member) *Peers { return &Peers{m: m, seen: map[string]Seen{}} }

// handler serves other nodes.
func (p *Peers) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+healthPath, func(w http.ResponseWriter, r *http.Request) {
		respond(w, http.StatusOK, p.own())
	})
	mux.HandleFunc("POST "+certifyPath, func(w http.ResponseWriter, r *http.Request) {
		var q certifyRequest
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinMessage))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			respond(w, http.StatusBadRequest, certifyAnswer{Error: "the request cannot be read"})
			return
		}
		pic, err := p.m.certifyHere(cluster.PeerOf(r), q)
		if err != nil {
			respond(w, http.StatusForbidden, certifyAnswer{Error: err.Error()})
			return
		}
		respond(w, http.StatusOK, certifyAnswer{Identity: pic})
	})
	mux.HandleFunc("POST "+renewPath, p.serveRenew)
	mux.HandleFunc("POST "+sessionsPath, p.m.node.serveSessions)
	mux.HandleFunc("GET "+receiptPath+"{id}", func(w http.ResponseWriter, r *http.Request) {
		kept, err := get[keptReceipt](p.m.node.store, bucketReceipts, r.PathValue("id"))
		if err != nil {
			http.Error(w, "no such receipt", http.StatusNotFound)
			return
		}
		io.WriteString(w, kept.JWS)
	})
	mux.HandleFunc("POST "+activatePath, p.serveActivate)
	mux.HandleFunc("GET "+custodyPath, p.serveNeeds)
	mux.HandleFunc("POST "+custodyPath, p.serveShares)
	return p.onceReady(mux)
}

// onceReady lets other nodes ask only once all parts of this one are there.
func (p *Peers) onceReady(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.m.ready.Load() {
			http.Error(w, "this node is just starting", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// own is this node's health.
func (p *Peers) own() Health {
	h := Health{Node: p.m.Name(), Version: p.m.node.cfg.Version, Time: p.m.node.cfg.Now().UTC(), HoldsOwner: p.m.Identity.HoldsOwner(), Admin: p.m.Identity.Open(), Index: p.m.State().Index, Needs: p.m.Custody.Needs()}
	for name, mod := range p.m.node.ModuleHealth() {
		if !mod.Up {
			h.Modules = append(h.Modules, name)
		}
	}
	return h
}

// watch asks every other node how it is, again and again.
func (p *Peers) watch(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		var asked sync.WaitGroup
		for name := range p.m.State().Nodes {
			if name != p.m.Name() {
				asked.Go(func() { p.poll(ctx, name) })
			}
		}
		asked.Wait()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *Peers) poll(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	began, start := p.m.node.cfg.Now(), time.Now()
	h, err := p.health(ctx, name)
	took := time.Since(start)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[name]
	if s.Answers = err == nil; s.Answers {
		s.Last, s.Health, s.Error = time.Now(), h, ""
		s.Clock = compareClocks(began, h.Time, took)
	} else {
		s.Error = err.Error()
	}
	p.seen[name] = s
}

// health asks a node how it is.
func (p *Peers) health(ctx context.Context, name string) (h Health, err error) {
	err = p.get(ctx, name, healthPath, func(r io.Reader) error { return json.NewDecoder(io.LimitReader(r, maxHandover)).Decode(&h) })
	return h, err
}

// Seen tells what is known of a node. This node itself always answers.
func (p *Peers) Seen(name string) Seen {
	if name == p.m.Name() {
		return Seen{Answers: true, Last: time.Now(), Health: p.own(), Clock: Clock{Known: true}}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[name]
	s.Answers = !s.Last.IsZero() && time.Since(s.Last) < silence
	return s
}

// ownerHolder is a node that answers and has the owner key; "" when there is none.
func (p *Peers) ownerHolder() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.seen {
		if s.Health.HoldsOwner && time.Since(s.Last) < silence {
			return name
		}
	}
	return ""
}

func (p *Peers) get(ctx context.Context, node, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+node+path, nil)
	if err != nil {
		return err
	}
	return p.do(req, node, read)
}

// post sends a question and reads the answer, whatever its status.
func (p *Peers) post(ctx context.Context, node, path string, question, answer any) error {
	b, err := json.Marshal(question)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+node+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.m.link.Client().Do(req)
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	defer resp.Body.Close()
	return json.NewDecoder(io.LimitReader(resp.Body, maxJoinMessage)).Decode(answer)
}

func (p *Peers) do(req *http.Request, node string, read func(io.Reader) error) error {
	resp, err := p.m.link.Client().Do(req)
	if err != nil {
		return fmt.Errorf("node %s: %w", node, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("node %s answers %s", node, resp.Status)
	}
	return read(io.LimitReader(resp.Body, maxPeerAnswer))
}

// ModuleHealth tells which modules run.
func (n *Node) ModuleHealth() map[string]ModuleHealth {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := make(map[string]ModuleHealth, len(n.healths))
	for name, h := range n.healths {
		all[name] = h
	}
	return all
}
