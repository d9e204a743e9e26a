package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// A cluster has one owner, and two while it is replaced. What either has certified is believed then.

// Owner is the cluster's owner certificate.
func (id *Identity) Owner() *x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.poc
}

// Owners are the owner certificates that are roots now: the owner's, and while it is replaced the next one's.
func (id *Identity) Owners() []*x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil {
		return []*x509.Certificate{id.poc}
	}
	return []*x509.Certificate{id.poc, id.next}
}

// ownerOf is which of the owners has certified pic; the first where none has.
func ownerOf(pic *x509.Certificate, owners []*x509.Certificate) *x509.Certificate {
	for _, poc := range owners {
		if madeBy(pic, poc) == nil {
			return poc
		}
	}
	return owners[0]
}

// ownersEver are the owners of now and those before, to which what was signed before is held.
func (id *Identity) ownersEver(s *cluster.State) []*x509.Certificate {
	owners := id.Owners()
	for _, der := range slices.Backward(s.Cluster.Former) {
		if poc, err := x509.ParseCertificate(der); err == nil {
			owners = append(owners, poc)
		}
	}
	return owners
}

// followOwner keeps in the node's own record who the owner is, so that the node knows it from its start on. A state
// that is behind what is recorded, as after a start, changes nothing.
func (id *Identity) followOwner(ctx context.Context, c cluster.Info) error {
	if err := id.recordOwner(c); err != nil {
		return err
	}
	id.mu.Lock()
	admin, rec, pok := id.admin, id.rec, id.pok
	id.mu.Unlock()
	if admin == nil || pok != nil {
		return nil
	}
	pok, err := ownerKey(ctx, admin, rec)
	id.mu.Lock()
	defer id.mu.Unlock()
	if err == nil && bytes.Equal(rec.Owner, id.rec.Owner) && bytes.Equal(rec.Next, id.rec.Next) {
		id.pok = pok
	}
	return err
}

func (id *Identity) recordOwner(c cluster.Info) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	rec := id.rec
	switch {
	case c.Owner == nil:
		return nil
	case bytes.Equal(c.Owner, rec.Owner):
		if c.Next == nil || bytes.Equal(c.Next, rec.Next) {
			return nil
		}
		rec.Next, rec.NextIdentity = c.Next, nil
	case bytes.Equal(c.Owner, rec.Next):
		if rec.NextIdentity == nil {
			return fmt.Errorf("the cluster stands under another owner now, and this node has no certificate of it")
		}
		if rec.HoldsOwner = rec.holdsNext(); rec.HoldsOwner {
			rec.OwnerKey = rec.MadeKey
		} else {
			rec.OwnerKey = identity.Next(cmp.Or(rec.MadeKey, rec.ownerID()))
		}
		rec.Owner, rec.Identity, rec.Unsettled = rec.Next, rec.NextIdentity, true
		rec.Next, rec.NextIdentity, rec.Made, rec.MadeKey = c.Next, nil, nil, ""
	default:
		return nil // a state from before, or of a cluster that this node does not know any more
	}
	return id.useOwner(rec)
}

// useOwner takes a record with other owners into use. The caller holds id.mu.
func (id *Identity) useOwner(rec identityRecord) error {
	poc, err := x509.ParseCertificate(rec.Owner)
	if err != nil {
		return err
	}
	var next *x509.Certificate
	if rec.Next != nil {
		if next, err = x509.ParseCertificate(rec.Next); err != nil {
			return err
		}
	}
	pic, err := x509.ParseCertificate(rec.Identity)
	if err != nil {
		return err
	}
	if err := id.node.saveIdentity(&rec); err != nil {
		return err
	}
	id.rec, id.poc, id.next, id.pic = rec, poc, next, pic
	id.pok = nil // followOwner finds it again
	if err := id.writeOwners(); err != nil {
		return err
	}
	if rec.Leaf == nil {
		return nil
	}
	return id.useLeaf(rec.Leaf)
}

// writeOwners writes owner.pem, for browsers and programs that are to trust this cluster's consoles. While the owner
// is replaced it has both certificates. The caller holds id.mu, or is alone.
func (id *Identity) writeOwners() error {
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.rec.Owner})
	if id.rec.Next != nil {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.rec.Next})...)
	}
	if err := writeFile(filepath.Join(id.node.cfg.Dir, "owner.pem"), b); err != nil {
		return fmt.Errorf("owner.pem: %w", err)
	}
	return nil
}

// nextOwner is the owner that replaces the present one; nil while none does.
func (id *Identity) nextOwner() *x509.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.next
}
