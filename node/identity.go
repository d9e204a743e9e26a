package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// An identityRecord is what a node stores of who it is. It grows step by step while a node founds or
// joins a cluster, so that an interrupted start can be repeated.
type identityRecord struct {
	Cluster     string // id
	ClusterName string
	Module      string         // of the admin token
	Serial      string         // of the admin token
	Code        []byte         // of the admin token, sealed; stored before the token is made
	Owner       []byte         // owner certificate (POC), DER
	HoldsOwner  bool           // the owner key is on this node's admin token
	Elsewhere   bool           // the node founds a cluster whose owner key is on no node
	Identity    []byte         // identity certificate (PIC), DER
	MLKEM       []byte         // seed of the post-quantum half of the sealing key, sealed
	Members     []cluster.Node // whom this node was told of when it joined
	LeafKey     []byte         // software key for TLS (PKCS #8), sealed
	Leaf        []byte         // its certificate, DER
	Complete    bool           // the node is a member
	Removed     time.Time      // since when it knows that it is none any more

	IdentityKey string // CKA_ID of the identity key; empty: identity.IdentityID
	NextKey     string // CKA_ID of the key that is to replace it; stored before the key is made
	OwnerKey    string // CKA_ID of the owner certificate, and key; empty: identity.OwnerID
	Unsettled   bool   // the admin token still has what was replaced

	Next         []byte // owner certificate of the owner that replaces Owner, DER
	NextIdentity []byte // identity certificate that it has made, DER; used once Next is the owner
	Made         []byte // owner certificate for a key that was made here to be the next owner, DER
	MadeKey      string // its CKA_ID; stored before the key is made
}

func (r *identityRecord) identityID() string { return cmp.Or(r.IdentityKey, identity.IdentityID) }
func (r *identityRecord) ownerID() string    { return cmp.Or(r.OwnerKey, identity.OwnerID) }

// holdsNext tells whether the key of the next owner is on this node's admin token.
func (r *identityRecord) holdsNext() bool { return r.Next != nil && bytes.Equal(r.Next, r.Made) }

const (
	sealedCode  = "admin token code"
	sealedMLKEM = "ML-KEM seed"
	sealedLeaf  = "TLS key"
)

// Identity is who the node is: its keys on the admin token and the certificates for them.
type Identity struct {
	node *Node

	renewing sync.Mutex // held while a key or certificate is replaced

	mu    sync.Mutex
	rec   identityRecord
	poc   *x509.Certificate // the owner
	next  *x509.Certificate // that replaces it; nil while none does
	pic   *x509.Certificate
	pik   *identity.Key // nil while the admin token is closed
	pok   *identity.Key // only where HoldsOwner
	seal  hpke.PrivateKey
	leaf  *tls.Certificate
	admin *hsm.Token

	refused error // the stored code was refused; it is not tried again
}

// errAdminClosed says that what needs the node's identity key cannot be done now.
var errAdminClosed = errors.New("the admin token of this node is not open, so the node cannot sign: see HSM overview")

// openAdmin logs in to the admin token, making it where there is none yet, and returns the record as it
// is then.
func (n *Node) openAdmin(ctx context.Context, rec *identityRecord) (*hsm.Token, error) {
	if rec.Code == nil {
		m, err := n.adminModule()
		if err != nil {
			return nil, err
		}
		rec.Module = m.Name()
		if rec.Code, err = n.sealer.Seal(sealedCode, newCode(maxGenerated)); err != nil {
			return nil, err
		}
		if err := n.saveIdentity(rec); err != nil {
			return nil, err
		}
	}
	m, err := n.module(rec.Module)
	if err != nil {
		return nil, err
	}
	code, err := n.sealer.Open(sealedCode, rec.Code)
	if err != nil {
		return nil, err
	}
	defer clear(code)
	if rec.Serial == "" {
		if rec.Serial, err = n.makeAdmin(ctx, m, code); err != nil {
			return nil, err
		}
		if err := n.saveIdentity(rec); err != nil {
			return nil, err
		}
	}
	t := m.Token(rec.Serial)
	if err := t.Login(ctx, code, false); err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	return t, nil
}

// makeAdmin initializes the admin token, or finds the one that an interrupted start has made with this
// code.
func (n *Node) makeAdmin(ctx context.Context, m *hsm.Module, code []byte) (serial string, err error) {
	info, err := m.Info(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range info.Tokens {
		if t.Initialized && t.Label == identity.AdminLabel {
			if err := m.Token(t.Serial).Login(ctx, code, false); err != nil {
				return "", fmt.Errorf("module %s has a token %q already that this node did not make: remove it, or give the node another module", m.Name(), identity.AdminLabel)
			}
			return t.Serial, nil
		}
	}
	made, err := m.InitToken(ctx, identity.AdminLabel, newCode(maxGenerated), append([]byte(nil), code...))
	return made.Serial, err
}

func (n *Node) saveIdentity(rec *identityRecord) error {
	return n.store.put(bucketIdentity, single, rec)
}

// software makes the keys that are not in the HSM: the post-quantum half of the sealing key and the
// TLS key.
func (n *Node) software(rec *identityRecord) error {
	if rec.MLKEM == nil {
		k, err := mlkem.GenerateKey1024()
		if err != nil {
			return err
		}
		if rec.MLKEM, err = n.sealer.Seal(sealedMLKEM, k.Bytes()); err != nil {
			return err
		}
	}
	if rec.LeafKey == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return err
		}
		if rec.LeafKey, err = n.sealer.Seal(sealedLeaf, der); err != nil {
			return err
		}
	}
	return n.saveIdentity(rec)
}

// newIdentity reads a record. It needs no HSM, so that a node whose HSM is down still takes part.
func newIdentity(n *Node, rec identityRecord) (*Identity, error) {
	id := &Identity{node: n, rec: rec}
	var err error
	if id.poc, err = x509.ParseCertificate(rec.Owner); err != nil {
		return nil, fmt.Errorf("stored owner certificate: %w", err)
	}
	if rec.Next != nil {
		if id.next, err = x509.ParseCertificate(rec.Next); err != nil {
			return nil, fmt.Errorf("stored certificate of the next owner: %w", err)
		}
	}
	if id.pic, err = x509.ParseCertificate(rec.Identity); err != nil {
		return nil, fmt.Errorf("stored identity certificate: %w", err)
	}
	if rec.Leaf != nil {
		if err := id.useLeaf(rec.Leaf); err != nil {
			return nil, err
		}
	}
	return id, nil
}

func (id *Identity) useLeaf(der []byte) error {
	plain, err := id.node.sealer.Open(sealedLeaf, id.rec.LeafKey)
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(plain)
	clear(plain)
	if err != nil {
		return fmt.Errorf("stored TLS key: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("stored TLS certificate: %w", err)
	}
	id.leaf = &tls.Certificate{Certificate: [][]byte{der, id.pic.Raw}, PrivateKey: key, Leaf: leaf}
	return nil
}

// open logs in to the admin token and finds the keys there.
func (id *Identity) open(ctx context.Context) error {
	id.mu.Lock()
	rec, refused, pic, poc := id.rec, id.refused, id.pic, id.poc
	id.mu.Unlock()
	if refused != nil {
		return refused
	}
	admin, err := id.node.openAdmin(ctx, &rec)
	if errors.Is(err, hsm.WrongCode) || errors.Is(err, hsm.CodeLocked) {
		id.mu.Lock()
		id.refused = err
		id.mu.Unlock()
	}
	if err != nil {
		return err
	}
	pik, err := identity.EnsureKey(ctx, admin, rec.identityID(), "P-521", hsm.UseSign)
	if err != nil {
		return err
	}
	if !pic.PublicKey.(*ecdsa.PublicKey).Equal(pik.Public()) {
		return fmt.Errorf("the identity key on admin token %s is not the one that the identity certificate is for", admin.Serial)
	}
	pok, err := ownerKey(ctx, admin, rec)
	if err != nil {
		return err
	}
	seal, err := id.sealingKey(ctx, admin, rec)
	if err != nil {
		return err
	}
	if err := identity.Keep(ctx, admin, rec.ownerID(), poc, rec.identityID(), pic); err != nil { // the node's store has them
		id.node.log.Warn("the certificates are not on the admin token", "error", err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.admin, id.pik, id.pok, id.seal = admin, pik, pok, seal
	return nil
}

// sealingKey joins the two halves of the key that packages for this node are sealed to: P-384 on the
// admin token, ML-KEM-1024 in the store.
func (id *Identity) sealingKey(ctx context.Context, admin *hsm.Token, rec identityRecord) (hpke.PrivateKey, error) {
	k, err := identity.EnsureKey(ctx, admin, identity.SealID, "P-384", hsm.UseDerive)
	if err != nil {
		return nil, err
	}
	ec, err := k.Exchanger()
	if err != nil {
		return nil, err
	}
	seed, err := id.node.sealer.Open(sealedMLKEM, rec.MLKEM)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	pq, err := mlkem.NewDecapsulationKey1024(seed)
	if err != nil {
		return nil, err
	}
	return hpke.NewHybridPrivateKey(pq, ec)
}

// signer is the identity key.
func (id *Identity) signer() (crypto.Signer, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.pik == nil {
		return nil, errAdminClosed
	}
	return id.pik, nil
}

// sealing is the key that packages for this node are sealed to.
func (id *Identity) sealing() (hpke.PrivateKey, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.seal == nil {
		return nil, errAdminClosed
	}
	return id.seal, nil
}

// certificate is the identity certificate in use, DER.
func (id *Identity) certificate() []byte {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.pic.Raw
}

// Certificate is what the node shows on TLS connections: its leaf, then its identity certificate.
func (id *Identity) Certificate() (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.leaf == nil {
		return nil, errors.New("this node has no TLS certificate yet")
	}
	return id.leaf, nil
}

// ownerKey is the owner key that certifies now, the next one while the owner is replaced; nil where it is not here.
func ownerKey(ctx context.Context, admin *hsm.Token, rec identityRecord) (*identity.Key, error) {
	switch {
	case rec.holdsNext():
		return identity.EnsureKey(ctx, admin, rec.MadeKey, "P-521", hsm.UseSign)
	case rec.HoldsOwner && rec.Next == nil:
		return identity.EnsureKey(ctx, admin, rec.ownerID(), "P-521", hsm.UseSign)
	}
	return nil, nil
}

// HoldsOwner tells whether this node can sign identities: the owner key is here, that of the next owner while it is
// replaced.
func (id *Identity) HoldsOwner() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.rec.holdsNext() || id.rec.HoldsOwner && id.rec.Next == nil
}

// Refused is why the admin token does not take its stored code, nil when it does.
func (id *Identity) Refused() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.refused
}

// Open tells whether the admin token is open.
func (id *Identity) Open() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.pik != nil
}

// renewLeaf makes a new TLS certificate when the present one ends soon or names other hosts.
func (id *Identity) renewLeaf(now time.Time) error {
	id.mu.Lock()
	pik, leaf, rec, pic := id.pik, id.leaf, id.rec, id.pic
	id.mu.Unlock()
	hosts := id.node.hosts()
	if leaf != nil && now.Before(leaf.Leaf.NotAfter.Add(-identity.LeafRenew)) && sameHosts(leaf.Leaf, hosts) {
		return nil
	}
	if pik == nil {
		return errAdminClosed
	}
	der, err := id.makeLeaf(rec, pic, pik, now)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if !pic.Equal(id.pic) {
		return errors.New("the identity of this node was just replaced") // with another TLS certificate
	}
	id.rec.Leaf = der
	if err := id.node.saveIdentity(&id.rec); err != nil {
		return err
	}
	return id.useLeaf(der)
}

// makeLeaf certifies the node's TLS key with an identity key.
func (id *Identity) makeLeaf(rec identityRecord, pic *x509.Certificate, pik *identity.Key, now time.Time) ([]byte, error) {
	plain, err := id.node.sealer.Open(sealedLeaf, rec.LeafKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(plain)
	clear(plain)
	if err != nil {
		return nil, err
	}
	return identity.Leaf(cluster.NodeURI(rec.Cluster, id.node.cfg.Name), id.node.cfg.Name, id.node.hosts(), key.(crypto.Signer).Public(), pic, pik, now)
}

func sameHosts(c *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if c.VerifyHostname(h) != nil {
			return false
		}
	}
	return len(c.DNSNames)+len(c.IPAddresses) == len(hosts)
}

// certify makes an identity certificate with the owner key.
func (id *Identity) certify(request []byte, now time.Time) ([]byte, error) {
	id.mu.Lock()
	pok, poc := id.pok, id.poc
	if id.next != nil {
		poc = id.next
	}
	id.mu.Unlock()
	if pok == nil {
		return nil, errAdminClosed
	}
	r, err := identity.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	return identity.Certificate(r, poc, pok, now)
}
