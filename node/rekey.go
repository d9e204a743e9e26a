package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// A node gets another identity key while the cluster runs. The order lets no connection fail, and an interruption
// leaves nothing half done, since each step is found from what the ones before have left:
//
//  1. the new key is made on the admin token, beside the present one;
//  2. the owner certifies it;
//  3. the cluster registers it (node.identity), and admits both from then on;
//  4. the node signs with the new one, and its TLS certificate is made anew with it;
//  5. the keys that it receives by are stated anew, and requests that came by old connections end;
//  6. the node says that it has changed over (node.retire), and only the new key is admitted;
//  7. the old key is destroyed.

const rekeyAct = "identity.rekey" // as the audit trail has it

// drainTime is how long requests that a node made with its old identity may take to end, before those that are left
// lose their connection.
const drainTime = 30 * time.Second

// ReplaceIdentityKey gives this node another identity key, certified as RenewIdentity says: pic is for the key of
// NewKeyRequest. What the old key has signed stays good; the key itself is destroyed.
func (m *Member) ReplaceIdentityKey(ctx context.Context, actor cluster.Actor, pic *x509.Certificate) error {
	return m.acts.do(ctx, act{actor, cluster.MayManageNodes, rekeyAct, "node/" + m.Name(), certifiedHow(pic)}, func() error {
		m.Identity.renewing.Lock()
		defer m.Identity.renewing.Unlock()
		key, err := m.Identity.nextKey(ctx)
		if err != nil {
			return err
		}
		if pic == nil {
			if pic, err = m.recertified(ctx, key); err != nil {
				return err
			}
		}
		if err := m.checkRenewed(pic, key.Public()); err != nil {
			return refuse("%w", err)
		}
		m.node.cfg.Fault("rekey: certified")
		if _, err := m.Cluster.Apply(ctx, &cluster.ReplaceIdentity{Identity: pic.Raw, Key: cluster.KeyHash(pic)}, actor); err != nil {
			return err
		}
		m.node.cfg.Fault("rekey: registered")
		return m.takeOver(ctx)
	})
}

// NewKeyRequest makes the identity key that is to replace the present one, unless it is there, and asks for a
// certificate for it.
func (m *Member) NewKeyRequest(ctx context.Context, actor cluster.Actor) (r *x509.CertificateRequest, err error) {
	err = m.acts.do(ctx, act{actor, cluster.MayManageNodes, "identity.request", "node/" + m.Name(), "a new identity key"}, func() error {
		m.Identity.renewing.Lock()
		defer m.Identity.renewing.Unlock()
		key, err := m.Identity.nextKey(ctx)
		if err == nil {
			r, err = m.request(key)
		}
		return err
	})
	return r, err
}

// nextKey is the identity key that is to replace the present one. It is made once. The caller holds renewing.
func (id *Identity) nextKey(ctx context.Context) (*identity.Key, error) {
	id.mu.Lock()
	admin := id.admin
	id.mu.Unlock()
	if admin == nil {
		return nil, errAdminClosed
	}
	rec, err := id.change(func(rec *identityRecord) {
		if rec.NextKey == "" {
			rec.NextKey = identity.Next(rec.identityID())
		}
	})
	if err != nil {
		return nil, err
	}
	return identity.EnsureKey(ctx, admin, rec.NextKey, "P-521", hsm.UseSign)
}

// change stores a change of the record.
func (id *Identity) change(f func(*identityRecord)) (identityRecord, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	rec := id.rec
	f(&rec)
	err := id.node.saveIdentity(&rec)
	if err == nil {
		id.rec = rec
	}
	return rec, err
}

// takeOver goes through the steps that are left once the cluster has registered another identity for this node. The
// caller holds renewing.
func (m *Member) takeOver(ctx context.Context) error {
	n, ok := m.State().Nodes[m.Name()]
	if !ok || !m.Identity.Open() {
		return nil
	}
	if err := m.useRegistered(ctx, n); err != nil {
		return err
	}
	if !n.Changing {
		return m.Identity.settle(ctx)
	}
	if uses, err := x509.ParseCertificate(m.Identity.certificate()); err != nil || cluster.KeyHash(uses) != n.Key {
		return errors.Join(err, errors.New("the cluster has registered an identity key that this node does not use"))
	}
	m.node.cfg.Fault("rekey: in use")
	m.link.Renew()
	m.Slots.restate(ctx)
	m.drain(ctx, n.Key)
	if _, err := m.Cluster.Apply(ctx, &cluster.RetireIdentity{Key: n.Key}, m.self()); err != nil {
		return fmt.Errorf("the new identity key is in use, and the old one is still admitted, too: %w", err)
	}
	m.node.cfg.Fault("rekey: retired")
	return m.Identity.settle(ctx)
}

// useRegistered uses the certificate that the cluster has of this node: a later one for the present key, or one for
// the key that was made to replace it. Only one that holds is used.
func (m *Member) useRegistered(ctx context.Context, n cluster.Node) error {
	pic, err := x509.ParseCertificate(n.Identity)
	if err != nil {
		return err
	}
	pik, err := m.Identity.signer()
	if err != nil {
		return err
	}
	m.Identity.mu.Lock()
	present, next := m.Identity.pic, m.Identity.rec.NextKey
	m.Identity.mu.Unlock()
	if identity.SameKey(pik.Public(), pic.PublicKey) {
		if pic.Equal(present) || pic.NotBefore.Before(present.NotBefore) { // as in a state from before, after a start
			return nil
		}
		if err := m.checkRenewed(pic, pik.Public()); err != nil {
			return err
		}
		return m.Identity.adopt(ctx, pic)
	}
	if next == "" { // a state from before
		return nil
	}
	key, err := m.Identity.nextKey(ctx)
	if err != nil || !identity.SameKey(key.Public(), pic.PublicKey) {
		return err
	}
	if err := m.checkRenewed(pic, key.Public()); err != nil {
		return err
	}
	m.awaitOthers(ctx)
	return m.Identity.changeKey(key, pic, m.node.cfg.Now())
}

// awaitOthers waits until the nodes that answer know what this one knows now. One that does not know of a new key yet
// would refuse it.
func (m *Member) awaitOthers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	index := m.State().Index
	for name := range m.State().Nodes {
		for name != m.Name() && m.Peers.Seen(name).Answers && ctx.Err() == nil {
			if h, err := m.Peers.health(ctx, name); err != nil || h.Index >= index {
				break
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

// changeKey uses another identity key, with a TLS certificate that it has made.
func (id *Identity) changeKey(key *identity.Key, pic *x509.Certificate, now time.Time) error {
	id.mu.Lock()
	rec := id.rec
	id.mu.Unlock()
	leaf, err := id.makeLeaf(rec, pic, key, now)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	rec = id.rec
	rec.Identity, rec.Leaf, rec.IdentityKey, rec.NextKey, rec.Unsettled = pic.Raw, leaf, rec.NextKey, "", true
	if err := id.node.saveIdentity(&rec); err != nil {
		return err
	}
	id.rec, id.pic, id.pik = rec, pic, key
	return id.useLeaf(leaf)
}

// drain waits until no request of this node's is under way on a connection that it made with another identity key.
func (m *Member) drain(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for m.link.Outdated(key) > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			m.log.Warn("some requests to other nodes are still under way with the old identity key")
			return
		}
	}
}

// settle removes from the admin token what was replaced, for good.
func (id *Identity) settle(ctx context.Context) error {
	id.mu.Lock()
	admin, rec, poc, pic := id.admin, id.rec, id.poc, id.pic
	id.mu.Unlock()
	if !rec.Unsettled || admin == nil {
		return nil
	}
	id.node.cfg.Fault("rekey: settling")
	if err := identity.Settle(ctx, admin, rec.ownerID(), poc, rec.identityID(), pic); err != nil {
		return err
	}
	_, err := id.change(func(rec *identityRecord) { rec.Unsettled = false })
	return err
}

// changeOver does what is left of a change of keys that was interrupted, or that others have approved meanwhile.
func (m *Member) changeOver(ctx context.Context) {
	m.Identity.renewing.Lock()
	defer m.Identity.renewing.Unlock()
	err := m.Identity.followOwner(ctx, m.State().Cluster)
	for _, step := range []func(context.Context) error{m.takeOver, m.succeed} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err != nil && !errors.Is(err, errAdminClosed) && ctx.Err() == nil {
		m.log.Error("a change of identity or owner key is not finished; it is tried again", "error", err)
	}
}

// retryKeys is the pause before a change that is not finished is tried again.
const retryKeys = 2 * time.Second

// keysSeen is what this node's part in a change of keys depends on.
type keysSeen struct {
	owner, next, identity, renewed string
	changing                       bool
}

// followKeys does this node's part when keys are replaced, as soon as the state says so.
func (m *Member) followKeys(ctx context.Context) {
	var seen keysSeen
	known := map[string]string{}
	for {
		s, changed := m.Cluster.Watch()
		n := s.Nodes[m.Name()]
		now := keysSeen{string(s.Cluster.Owner), string(s.Cluster.Next), string(n.Identity), string(n.Renewed), n.Changing}
		other, gone := otherKeys(known, s.Nodes)
		if other {
			m.link.Renew() // what is asked from now on is asked of the new identity
		}
		if gone {
			m.link.Recheck() // it may have been stolen
		}
		var retry <-chan time.Time
		if pending := n.Changing || s.Cluster.Next != nil && n.Renewed == nil; pending || now != seen {
			m.changeOver(ctx)
			if seen = now; pending {
				retry = time.After(retryKeys)
			}
		}
		select {
		case <-changed:
		case <-retry:
		case <-ctx.Done():
			return
		}
	}
}

// otherKeys tells whether a node has another identity key than was known, and whether one is no member any more. It
// notes what it found.
func otherKeys(known map[string]string, nodes map[string]cluster.Node) (other, gone bool) {
	for name, n := range nodes {
		if known[name] != n.Key {
			other = other || known[name] != ""
			known[name] = n.Key
		}
	}
	for name := range known {
		if _, member := nodes[name]; !member {
			gone = true
			delete(known, name)
		}
	}
	return other, gone
}

// registered is the hash of the certificate that the cluster has of this node, if it is for that key.
func (m *Member) registered(s *cluster.State, key crypto.Signer) (string, error) {
	n := s.Nodes[m.Name()]
	pic, err := x509.ParseCertificate(n.Identity)
	if err != nil {
		return "", err
	}
	if !identity.SameKey(key.Public(), pic.PublicKey) {
		return "", errors.New("this node is just changing over to another identity key")
	}
	return cluster.CertificateHash(n.Identity), nil
}
