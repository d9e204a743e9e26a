package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/rand"
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
	"github.com/keyferry/keyferry/syncpkg"
)

// A handover carries a code, or shares of codes, from the node where a person entered them to the node
// that needs them. Mutual TLS is between the processes; that it is sealed to the sealing key, half of which
// is in the other node's HSM, keeps it from whoever has only a TLS key.
type handover struct {
	Kind    string        `json:"kind"` // handCode or handShares
	Cluster string        `json:"cluster"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	Slot    string        `json:"slot,omitempty"` // of a code
	Age     time.Duration `json:"age,omitempty"`  // of a code: how long ago it was entered; clocks may differ
	Actor   cluster.Actor `json:"actor"`
	Nonce   []byte        `json:"nonce"`
	Expires time.Time     `json:"expires"`
	Sealed  []byte        `json:"sealed,omitempty"`
}

const (
	handCode   = "code"
	handShares = "shares"

	// handoverLife is how long a handover is good: an activation ends within that or is given up.
	handoverLife = 2 * time.Minute
	// handoverSkew is how far the clocks of two nodes may differ.
	handoverSkew = 5 * time.Minute
	// maxHandover bounds one: shares of two splits for each of 1,000 slots.
	maxHandover = 1 << 20
	// mostHandovers bounds those that are remembered so that none is taken twice.
	mostHandovers = 10_000
)

// info is what a handover is bound to: all of it but the secret.
func (h handover) info() ([]byte, error) {
	h.Sealed = nil
	b, err := json.Marshal(h)
	return append([]byte("keyferry handover v1\n"), b...), err
}

// sealingKeyOf is the key that secrets for a node are sealed to: from a statement that its identity key has
// signed. Every slot that was open there has one, and they all name the same key.
func (m *Member) sealingKeyOf(name string) (hpke.PublicKey, error) {
	now, s := time.Now(), m.State()
	members := m.Sync.memberKeys(now)
	trust := func(clusterID, source, kid string) (*ecdsa.PublicKey, error) {
		if source != name {
			return nil, fmt.Errorf("it is not signed by node %s", name)
		}
		return members(clusterID, source, kid)
	}
	if _, ok := s.Nodes[name]; !ok {
		return nil, fmt.Errorf("node %q is not a member of this cluster", name)
	}
	err := refuse("node %s has not said yet which key to seal codes to: open one of its slots there", name)
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		seat := s.Slots[label].Seats[name]
		if seat.Receiver == "" {
			continue
		}
		stated, serr := syncpkg.VerifyReceiverKeys(seat.Receiver, trust, now)
		if serr != nil {
			err = fmt.Errorf("the sealing key of node %s is not to be trusted: %w", name, serr)
			continue
		}
		return stated.Seal.PublicKey()
	}
	return nil, err
}

// hand gives a secret to another node in the name of a person, and reads what came of it into answer.
func (m *Member) hand(ctx context.Context, path string, h handover, secret []byte, answer any) error {
	h, err := m.sealHandover(h, secret)
	if err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+h.To+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := m.link.Client().Do(req)
	if err != nil {
		return fmt.Errorf("node %s: %w", h.To, err)
	}
	defer resp.Body.Close()
	return json.NewDecoder(io.LimitReader(resp.Body, maxHandover)).Decode(answer)
}

// sealHandover fills in what a handover is bound to, and seals the secret to the node that it is for.
func (m *Member) sealHandover(h handover, secret []byte) (handover, error) {
	key, err := m.sealingKeyOf(h.To)
	if err != nil {
		return h, err
	}
	if h.Actor.Kind == cluster.ByConsole { // root of this node is not root of the other
		h.Actor.Name = consoleOf(h.Actor.Name, m.Name())
	}
	h.Cluster, h.From, h.Nonce, h.Expires = m.State().Cluster.ID, m.Name(), make([]byte, 16), time.Now().UTC().Add(handoverLife).Truncate(time.Second)
	rand.Read(h.Nonce)
	info, err := h.info()
	if err != nil {
		return h, err
	}
	h.Sealed, err = hpke.Seal(key, hpke.HKDFSHA512(), hpke.AES256GCM(), info, secret)
	return h, err
}

// consoleOf names a person at another node's console.
func consoleOf(user, node string) string {
	const most = 64
	name := user + "@" + node
	return name[:min(len(name), most)]
}

// handovers remembers what was taken, so that nothing is taken twice.
type handovers struct {
	mu   sync.Mutex
	seen map[string]time.Time // nonce -> when it has expired
}

// once tells whether a handover is new.
func (t *handovers) once(h handover, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[string]time.Time{}
	}
	for nonce, until := range t.seen {
		if now.After(until) {
			delete(t.seen, nonce)
		}
	}
	key := h.From + " " + string(h.Nonce)
	if _, again := t.seen[key]; again {
		return refuse("this was handed over before")
	}
	if len(t.seen) >= mostHandovers {
		return refuse("too many codes are being handed over; try again in a moment")
	}
	t.seen[key] = h.Expires.Add(handoverSkew)
	return nil
}

// readHandover takes what another node hands over. from is who it is by its certificates.
func (m *Member) readHandover(from, kind string, body io.Reader) (h handover, secret []byte, err error) {
	d := json.NewDecoder(io.LimitReader(body, maxHandover))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, nil, refuse("the handover cannot be read")
	}
	if err := h.check(m.State().Cluster.ID, from, m.Name(), kind, time.Now()); err != nil {
		return h, nil, err
	}
	key, err := m.Identity.sealing()
	if err != nil {
		return h, nil, err
	}
	info, err := h.info()
	if err != nil {
		return h, nil, err
	}
	if secret, err = hpke.Open(key, hpke.HKDFSHA512(), hpke.AES256GCM(), info, h.Sealed); err != nil {
		return h, nil, refuse("what node %s handed over does not open: it is sealed to another key, or was changed on the way", from)
	}
	if err := m.taken.once(h, time.Now()); err != nil {
		clear(secret)
		return h, nil, err
	}
	return h, secret, nil
}

// check holds a handover to what is expected of it before anything is opened.
func (h handover) check(clusterID, from, to, kind string, now time.Time) error {
	switch {
	case h.Kind != kind, h.Cluster != clusterID, h.To != to, from == "", h.From != from:
		return refuse("the handover is for another node, cluster or purpose")
	case len(h.Nonce) != 16, len(h.Sealed) == 0, len(h.Slot) > 64, h.Age < 0, h.Age > handoverLife:
		return refuse("the handover is not well-formed")
	case now.After(h.Expires.Add(handoverSkew)):
		return refuse("the handover has expired; are the clocks of the nodes right?")
	case h.Expires.After(now.Add(handoverLife + handoverSkew)):
		return refuse("the handover is good for longer than any is; are the clocks of the nodes right?")
	case h.Actor.Kind != cluster.ByAccount && h.Actor.Kind != cluster.ByConsole:
		return refuse("only people hand over codes")
	}
	return nil
}

// peerAnswer is what a node says to another that asked it to do something.
type peerAnswer struct {
	Error    string    `json:"error,omitempty"`
	Refused  bool      `json:"refused,omitempty"` // nothing was done
	Openings []Opening `json:"openings,omitempty"`
}

func answerOf(err error) peerAnswer {
	if err == nil {
		return peerAnswer{}
	}
	return peerAnswer{Error: err.Error(), Refused: IsRefusal(err) || errors.Is(err, cluster.Denied)}
}

// err is the error that a node answered with.
func (a peerAnswer) err() error {
	switch {
	case a.Error == "":
		return nil
	case a.Refused:
		return refusal{errors.New(line(a.Error))}
	}
	return errors.New(line(a.Error))
}
