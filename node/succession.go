package node

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// A cluster gets another owner while it runs: because the key was lost with its HSM, because its certificate ends, or
// because the key is to be elsewhere. Both owners are believed from the first step to the last:
//
//  1. the next owner key is made on the admin token of the node where somebody asks for it, or its certificate is
//     brought;
//  2. the cluster knows of it (owner.replace); no node is let in, and no identity replaced, until the end;
//  3. each node has its present identity key certified by it, and says so (owner.certified), but still shows the
//     certificate of the present owner: a node that is away does not know the next one;
//  4. with the last node the next owner is the owner. Each node has known it since step 3, so each can show the
//     certificate of it from now on, also to one that was away meanwhile;
//  5. the old owner key is destroyed, where it is on a node.
//
// Where the key of the next owner is lost before the end, it begins again with another one.

const ownerAct = "owner.make" // as the audit trail has it

// ReplaceOwner puts the cluster under another owner: a key that is made here, or where poc is given, the one that has
// made it elsewhere. It ends when the last node is certified; see cluster.State.Awaited.
func (m *Member) ReplaceOwner(ctx context.Context, actor cluster.Actor, poc *x509.Certificate) error {
	how := "a key on this node"
	if poc != nil {
		how = "brought, SHA-256 " + identity.Fingerprint(poc)
	}
	return m.acts.do(ctx, act{actor, cluster.MayManageNodes, ownerAct, "cluster/" + m.State().Cluster.ID, how}, func() (err error) {
		m.Identity.renewing.Lock()
		defer m.Identity.renewing.Unlock()
		if poc == nil {
			if poc, err = m.Identity.makeOwner(ctx); err != nil {
				return err
			}
		}
		if err := identity.CheckOwner(poc, m.node.cfg.Now()); err != nil {
			return refuse("%w", err)
		}
		m.node.cfg.Fault("owner: made")
		_, err = m.Cluster.Apply(ctx, &cluster.ReplaceOwner{Owner: poc.Raw}, actor)
		m.node.cfg.Fault("owner: known")
		return err
	})
}

// makeOwner makes the next owner key on the admin token, with its certificate. What an interruption has left, or a
// request that others have not approved yet, is used again. The caller holds renewing.
func (id *Identity) makeOwner(ctx context.Context) (*x509.Certificate, error) {
	id.mu.Lock()
	admin, rec, now := id.admin, id.rec, id.node.cfg.Now()
	id.mu.Unlock()
	if admin == nil {
		return nil, errAdminClosed
	}
	if rec.Made != nil {
		poc, err := x509.ParseCertificate(rec.Made)
		if err == nil && identity.StateOf(poc, now) == identity.Valid {
			return poc, nil
		}
	}
	rec, err := id.change(func(rec *identityRecord) { rec.MadeKey = cmp.Or(rec.MadeKey, identity.Next(rec.ownerID())) })
	if err != nil {
		return nil, err
	}
	pok, err := identity.EnsureKey(ctx, admin, rec.MadeKey, "P-521", hsm.UseSign)
	if err != nil {
		return nil, err
	}
	made, err := identity.OwnerCertificate(rec.ClusterName, pok, now)
	if err != nil {
		return nil, err
	}
	if _, err := id.change(func(rec *identityRecord) { rec.Made = made }); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(made)
}

// succeed has this node certified by the next owner. Where its key is on no node, somebody brings the certificate; see
// RenewIdentity. The caller holds renewing.
func (m *Member) succeed(ctx context.Context) error {
	s, next := m.State(), m.Identity.nextOwner()
	n, ok := s.Nodes[m.Name()]
	if !ok || s.Cluster.Next == nil || next == nil || n.Renewed != nil {
		return nil
	}
	pik, err := m.Identity.signer()
	if err != nil {
		return err
	}
	m.Identity.mu.Lock()
	made := m.Identity.rec.NextIdentity
	m.Identity.mu.Unlock()
	var pic *x509.Certificate
	switch {
	case made != nil:
		pic, err = x509.ParseCertificate(made)
	case m.Identity.HoldsOwner() || m.Peers.ownerHolder() != "":
		pic, err = m.recertified(ctx, pik)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	if err := m.checkRenewed(pic, pik.Public()); err != nil {
		return err
	}
	return m.certifiedUnder(ctx, next, pic)
}

// certifiedUnder keeps the certificate that the next owner has made, and tells the cluster.
func (m *Member) certifiedUnder(ctx context.Context, next, pic *x509.Certificate) error {
	if err := madeBy(pic, next); err != nil {
		return errors.New("the node that has certified this one does not have the key of the next owner yet")
	}
	if _, err := m.Identity.change(func(rec *identityRecord) { rec.NextIdentity = pic.Raw }); err != nil {
		return err
	}
	m.node.cfg.Fault("owner: certified")
	_, err := m.Cluster.Apply(ctx, &cluster.CertifyUnder{Owner: cluster.CertificateHash(next.Raw), Identity: pic.Raw, Key: cluster.KeyHash(pic)}, m.self())
	return err
}
