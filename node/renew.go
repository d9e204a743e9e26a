package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// An identity certificate ends some day. Renewing gives the same key another one, so nothing that the key has
// signed and nobody who trusts the node has to change.

const (
	renewPath = "/node/v1/renew"
	renewAct  = "identity.renew" // as the audit trail has it
)

// RenewIdentity has the identity key of this node certified anew: by the owner key on whichever node it is or, where
// it is on none, by pic, which the owner has made elsewhere of IdentityRequest. Where others have to approve it,
// the error says so; the certificate is used as soon as they have.
func (m *Member) RenewIdentity(ctx context.Context, actor cluster.Actor, pic *x509.Certificate) error {
	return m.acts.do(ctx, act{actor, cluster.MayManageNodes, renewAct, "node/" + m.Name(), certifiedHow(pic)}, func() error {
		m.Identity.renewing.Lock()
		defer m.Identity.renewing.Unlock()
		pik, err := m.Identity.signer()
		if err != nil {
			return err
		}
		if pic == nil {
			if pic, err = m.recertified(ctx, pik); err != nil {
				return err
			}
		}
		if err := m.checkRenewed(pic, pik.Public()); err != nil {
			return refuse("%w", err)
		}
		if next := m.Identity.nextOwner(); next != nil && madeBy(pic, next) == nil {
			return m.certifiedUnder(ctx, next, pic)
		}
		if _, err := m.Cluster.Apply(ctx, &cluster.ReplaceIdentity{Identity: pic.Raw, Key: cluster.KeyHash(pic)}, actor); err != nil {
			return err
		}
		return m.Identity.adopt(ctx, pic)
	})
}

func certifiedHow(pic *x509.Certificate) string {
	if pic == nil {
		return "by the owner key in the cluster"
	}
	return "with a certificate that was brought, SHA-256 " + identity.Fingerprint(pic)
}

// IdentityRequest asks for another certificate for the identity key, as a file for an owner that is elsewhere.
func (m *Member) IdentityRequest() (*x509.CertificateRequest, error) {
	pik, err := m.Identity.signer()
	if err != nil {
		return nil, err
	}
	return m.request(pik)
}

func (m *Member) request(key crypto.Signer) (*x509.CertificateRequest, error) {
	m.Identity.mu.Lock()
	serial := m.Identity.rec.Serial
	m.Identity.mu.Unlock()
	der, err := identity.Request(m.Name(), serial, key)
	if err != nil {
		return nil, err
	}
	return identity.ParseRequest(der)
}

// checkRenewed holds a certificate for an identity key of this node to what the node knows of itself.
func (m *Member) checkRenewed(pic *x509.Certificate, key crypto.PublicKey) error {
	m.Identity.mu.Lock()
	serial, present := m.Identity.rec.Serial, m.Identity.pic
	m.Identity.mu.Unlock()
	if err := identity.CheckFor(pic, ownerOf(pic, m.Identity.Owners()), serial, key, m.node.cfg.Now()); err != nil {
		return err
	}
	switch same := identity.SameKey(pic.PublicKey, present.PublicKey) && bytes.Equal(pic.AuthorityKeyId, present.AuthorityKeyId); {
	case pic.Subject.CommonName != m.Name():
		return fmt.Errorf("the certificate names node %q, and this is node %q", pic.Subject.CommonName, m.Name())
	case same && !pic.NotAfter.After(present.NotAfter):
		return fmt.Errorf("the certificate ends at %s, which is no later than the present one", pic.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// recertified has the node with the owner key certify an identity key of this node.
func (m *Member) recertified(ctx context.Context, key crypto.Signer) (*x509.Certificate, error) {
	r, err := m.request(key)
	if err != nil {
		return nil, err
	}
	if m.Identity.HoldsOwner() {
		der, err := m.recertify(ctx, m.Name(), r.Raw)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	holder := m.Peers.ownerHolder()
	if holder == "" {
		return nil, refuse("no node with the owner key answers: start the one that has it or, where the owner is elsewhere, have it certify this node's request and bring the certificate")
	}
	var a certifyAnswer
	if err := m.Peers.post(ctx, holder, renewPath, certifyRequest{Request: r.Raw}, &a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, refuse("node %s does not certify this node: %s", holder, a.Error)
	}
	return x509.ParseCertificate(a.Identity)
}

// recertify signs another certificate for a member, with the owner key of this node: for the key that the member
// is registered with or for a new one, and only while somebody who may has begun that there. A node cannot ask by
// itself, but while the owner is replaced: then each needs a certificate of the next one.
func (m *Member) recertify(ctx context.Context, name string, request []byte) ([]byte, error) {
	r, err := identity.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	if err := asks(m.State(), name, r); err != nil {
		return nil, err
	}
	if err := m.node.refuseClock(m.Peers.Seen(name).Clock, name, m.Name()); err != nil {
		return nil, err
	}
	s, err := m.awaitRenewal(ctx, name, digestHex(r.RawSubjectPublicKeyInfo))
	if err != nil {
		return nil, err
	}
	if err := asks(s, name, r); err != nil { // the node may have been removed meanwhile
		return nil, err
	}
	return m.Identity.certify(request, m.node.cfg.Now())
}

// asks tells whether a request can be that of the member name: it names it and its admin token, and no key that
// another node has or that was replaced.
func asks(s *cluster.State, name string, r *x509.CertificateRequest) error {
	n, ok := s.Nodes[name]
	key := digestHex(r.RawSubjectPublicKeyInfo)
	if !ok || r.Subject.CommonName != name || r.Subject.SerialNumber != n.Serial || n.Key != key && n.Had(key) {
		return fmt.Errorf("the request is not for the identity key of node %s", name)
	}
	for other, o := range s.Nodes {
		if other != name && o.Had(key) {
			return fmt.Errorf("the request is not for the identity key of node %s: it is for that of %s", name, other)
		}
	}
	return nil
}

// awaitRenewal finds the act for which a certificate is made, of somebody who may, and returns the state that has
// it. It may reach this node a moment after the question.
func (m *Member) awaitRenewal(ctx context.Context, name, key string) (*cluster.State, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		s, changed := m.Cluster.Watch()
		wants := rekeyAct
		if n := s.Nodes[name]; n.Key == key {
			if wants = renewAct; s.Cluster.Next != nil && n.Renewed == nil {
				return s, nil
			}
		}
		for _, a := range s.Acts {
			if a.Act == wants && a.Node == name && cluster.Authorize(s, a.Actor, a.Node, cluster.MayManageNodes, "") == nil {
				return s, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if wants == rekeyAct {
				return nil, fmt.Errorf("the request is not for the identity key of node %s, and nobody has asked there for a new one", name)
			}
			return nil, fmt.Errorf("nobody has asked on node %s for its identity to be certified anew", name)
		}
	}
}

// serveRenew answers another member.
func (p *Peers) serveRenew(w http.ResponseWriter, r *http.Request) {
	var q certifyRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinMessage))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		respond(w, http.StatusBadRequest, certifyAnswer{Error: "the request cannot be read"})
		return
	}
	pic, err := p.m.recertify(r.Context(), cluster.PeerOf(r), q.Request)
	if err != nil {
		respond(w, http.StatusForbidden, certifyAnswer{Error: err.Error()})
		return
	}
	respond(w, http.StatusOK, certifyAnswer{Identity: pic})
}

// adopt uses another certificate for the same identity key, and puts it on the admin token. The TLS certificate is
// signed by that key and stays.
func (id *Identity) adopt(ctx context.Context, pic *x509.Certificate) error {
	if err := id.use(pic); err != nil {
		return err
	}
	id.mu.Lock()
	admin, rec, poc := id.admin, id.rec, id.poc
	id.mu.Unlock()
	if admin == nil {
		return nil // it comes there when the token is opened
	}
	if err := identity.Keep(ctx, admin, rec.ownerID(), poc, rec.identityID(), pic); err != nil { // the node's store has it
		id.node.log.Warn("the certificates are not on the admin token", "error", err)
	}
	return nil
}

func (id *Identity) use(pic *x509.Certificate) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if bytes.Equal(pic.Raw, id.rec.Identity) {
		return nil
	}
	if cluster.KeyHash(pic) != cluster.KeyHash(id.pic) {
		return errors.New("the certificate is for another identity key than this node has")
	}
	rec := id.rec
	rec.Identity = pic.Raw
	if err := id.node.saveIdentity(&rec); err != nil {
		return err
	}
	id.rec, id.pic = rec, pic
	if rec.Leaf == nil {
		return nil
	}
	return id.useLeaf(rec.Leaf)
}
