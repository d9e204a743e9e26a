package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// An owner key need not be in the cluster. Then a new node asks for its certificate by a file, and founds or joins
// with the one that comes back.

// Certified is what an owner elsewhere has made of a node's request.
type Certified struct {
	Owner    *x509.Certificate // POC
	Identity *x509.Certificate // PIC
}

// Request makes the identity key of a new node and asks for a certificate for it. It can be repeated; the key stays.
func (n *Node) Request(ctx context.Context) (*x509.CertificateRequest, error) {
	rec, done, err := n.mayEnter()
	if err != nil {
		return nil, err
	}
	defer done()
	admin, err := n.openAdmin(ctx, &rec)
	if err != nil {
		return nil, err
	}
	der, err := n.requestIdentity(ctx, admin)
	if err != nil {
		return nil, err
	}
	return identity.ParseRequest(der)
}

// fresh is the record of a node that belongs to no cluster yet.
func (n *Node) fresh() (identityRecord, error) {
	if _, err := n.Member(); errors.Is(err, ErrSealed) {
		return identityRecord{}, err
	} else if err == nil {
		return identityRecord{}, refuse("node %s is in a cluster already", n.cfg.Name)
	}
	rec, err := get[identityRecord](n.store, bucketIdentity, single)
	if errors.Is(err, errAbsent) {
		err = nil
	}
	return rec, err
}

// under puts the node under an owner elsewhere.
func (n *Node) under(ctx context.Context, admin *hsm.Token, rec *identityRecord, c Certified) error {
	now := n.cfg.Now()
	if err := identity.CheckOwner(c.Owner, now); err != nil {
		return err
	}
	pik, err := identity.EnsureKey(ctx, admin, identity.IdentityID, "P-521", hsm.UseSign)
	if err != nil {
		return err
	}
	if err := identity.CheckFor(c.Identity, c.Owner, rec.Serial, pik.Public(), now); err != nil {
		return err
	}
	if name := c.Identity.Subject.CommonName; name != n.cfg.Name {
		return fmt.Errorf("the certificate names node %q, and this is node %q", name, n.cfg.Name)
	}
	rec.Owner, rec.Identity = c.Owner.Raw, c.Identity.Raw
	return nil
}

// FoundUnder makes this node the first of a new cluster under an owner whose key is elsewhere. The cluster has no
// owner key then: each node that is to join brings a certificate of that owner.
func (n *Node) FoundUnder(ctx context.Context, actor cluster.Actor, name string, c Certified) (Founded, error) {
	rec, done, err := n.mayEnter()
	if err != nil {
		return Founded{}, err
	}
	defer done()
	if err := cluster.CheckClusterName(name); err != nil {
		return Founded{}, err
	}
	if rec.Owner != nil && !rec.Elsewhere {
		return Founded{}, refuse("node %s has begun to found or join the cluster %q in another way; finish that, or clear its data directory", n.cfg.Name, rec.ClusterName)
	}
	if rec.Elsewhere && !bytes.Equal(rec.Owner, c.Owner.Raw) {
		return Founded{}, refuse("node %s has begun to found the cluster %q under another owner; finish that, or clear its data directory", n.cfg.Name, rec.ClusterName)
	}
	admin, err := n.openAdmin(ctx, &rec)
	if err != nil {
		return Founded{}, err
	}
	if err := n.under(ctx, admin, &rec, c); err != nil {
		return Founded{}, refusal{err}
	}
	if !rec.Elsewhere {
		rec.Cluster, rec.ClusterName, rec.Elsewhere = cluster.NewID(), name, true
	}
	if err := n.saveIdentity(&rec); err != nil {
		return Founded{}, err
	}
	return n.found(ctx, actor, rec)
}
