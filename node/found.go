package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
)

// Founded is what the person at the console needs after a cluster was founded.
type Founded struct {
	Cluster     string `json:"cluster"`
	Node        string `json:"node"`
	WebURL      string `json:"webconf"`
	Fingerprint string `json:"fingerprint"` // of the TLS certificate that the browser will show
	Code        string `json:"code"`        // one-time code of the first administrator
}

// Found makes this node the first of a new cluster: owner key and certificate, the node's identity, its
// TLS certificate, and the replicated state with one member. It can be repeated after an interruption.
func (n *Node) Found(ctx context.Context, actor cluster.Actor, name string) (Founded, error) {
	rec, done, err := n.mayEnter()
	if err != nil {
		return Founded{}, err
	}
	defer done()
	if err := cluster.CheckClusterName(name); err != nil { // before a certificate says it
		return Founded{}, err
	}
	if rec.Owner != nil && !rec.HoldsOwner {
		return Founded{}, fmt.Errorf("node %s has begun to join the cluster %q, or to found it under another owner; finish that, or clear its data directory", n.cfg.Name, rec.ClusterName)
	}
	admin, err := n.openAdmin(ctx, &rec)
	if err != nil {
		return Founded{}, err
	}
	if err := n.makeOwner(ctx, admin, &rec, name); err != nil {
		return Founded{}, err
	}
	return n.found(ctx, actor, rec)
}

// found begins the cluster of a node that has its identity.
func (n *Node) found(ctx context.Context, actor cluster.Actor, rec identityRecord) (Founded, error) {
	if err := n.software(&rec); err != nil {
		return Founded{}, err
	}
	if err := n.enter(ctx, rec, true); err != nil {
		return Founded{}, err
	}
	m, err := n.Member()
	if err != nil {
		return Founded{}, err
	}
	if err := m.createCluster(ctx, actor, rec); err != nil {
		return Founded{}, err
	}
	code, err := m.Accounts.NewFirstCode()
	if err != nil {
		return Founded{}, err
	}
	f, err := m.Fingerprint()
	return Founded{rec.ClusterName, n.cfg.Name, n.cfg.WebURL, f, code}, err
}

// makeOwner makes the owner key with its certificate, and the node's identity under it, as far as they
// are not there.
func (n *Node) makeOwner(ctx context.Context, admin *hsm.Token, rec *identityRecord, name string) error {
	pok, err := identity.EnsureKey(ctx, admin, identity.OwnerID, "P-521", hsm.UseSign)
	if err != nil {
		return err
	}
	now := n.cfg.Now()
	if rec.Owner == nil {
		rec.Cluster, rec.ClusterName, rec.HoldsOwner = cluster.NewID(), name, true
		if rec.Owner, err = identity.OwnerCertificate(name, pok, now); err != nil {
			return fmt.Errorf("owner certificate: %w", err)
		}
		if err := n.saveIdentity(rec); err != nil {
			return err
		}
	}
	if rec.Identity != nil {
		return nil
	}
	poc, err := x509.ParseCertificate(rec.Owner)
	if err != nil {
		return err
	}
	request, err := n.requestIdentity(ctx, admin)
	if err != nil {
		return err
	}
	parsed, err := identity.ParseRequest(request)
	if err != nil {
		return err
	}
	if rec.Identity, err = identity.Certificate(parsed, poc, pok, now); err != nil {
		return fmt.Errorf("identity certificate: %w", err)
	}
	return n.saveIdentity(rec)
}

// requestIdentity makes the identity key and asks for a certificate for it.
func (n *Node) requestIdentity(ctx context.Context, admin *hsm.Token) ([]byte, error) {
	pik, err := identity.EnsureKey(ctx, admin, identity.IdentityID, "P-521", hsm.UseSign)
	if err != nil {
		return nil, err
	}
	return identity.Request(n.cfg.Name, admin.Serial, pik)
}

// createCluster puts the first command into the log of a new cluster.
func (m *Member) createCluster(ctx context.Context, actor cluster.Actor, rec identityRecord) error {
	if m.State().Cluster.ID == "" {
		cmd := &cluster.CreateCluster{ID: rec.Cluster, Name: rec.ClusterName, Owner: rec.Owner,
			Node: m.node.self(rec, cluster.KeyHash(m.Identity.pic))}
		if _, err := m.Cluster.Apply(ctx, cmd, actor); err != nil {
			return err
		}
	}
	return m.Identity.complete()
}

// complete records that the node is a member for good.
func (id *Identity) complete() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.rec.Complete = true
	return id.node.saveIdentity(&id.rec)
}

// firstCodeLife is how long a one-time code of the first start is good, and firstCodeTries how often it may
// be mistyped.
const (
	firstCodeLife  = 24 * time.Hour
	firstCodeTries = 5
)

// A firstCode is the one-time code of a new node, or of the first administrator, as a hash: it has 100
// random bits.
type firstCode struct {
	Hash    string
	Expires time.Time
	Tries   int
}

// NewFirstCode makes a one-time code with which the first administrator can make an account. There is
// none any more once there is an account.
func (a *Accounts) NewFirstCode() (string, error) {
	if len(a.m.State().Accounts) > 0 {
		return "", refuse("there is an administrator already, so there is no code for the first one")
	}
	return a.m.node.newStartCode(single)
}

// newStartCode makes a one-time code and keeps its hash.
func (n *Node) newStartCode(key string) (string, error) {
	code, hash := cluster.NewJoinCode()
	return code, n.store.put(bucketStart, key, firstCode{Hash: hash, Expires: time.Now().Add(firstCodeLife)})
}

// firstStart is who acts when somebody uses a one-time code of the first start.
const firstStart = "first start"

// ErrFirstCode says that the one-time code was not accepted.
var ErrFirstCode = errors.New("that is not the one-time code, or it has been used, has expired or was mistyped too often; \"keyferry first-code\" on the node's console gives a new one")

// checkStartCode counts a try and compares. It does so once at a time: tries at the same moment count as
// many.
func (n *Node) checkStartCode(key, typed string) error {
	n.codes.Lock()
	defer n.codes.Unlock()
	s := n.store
	c, err := get[firstCode](s, bucketStart, key)
	if err != nil || c.Tries >= firstCodeTries || time.Now().After(c.Expires) {
		return ErrFirstCode
	}
	c.Tries++
	if err := s.put(bucketStart, key, c); err != nil {
		return err
	}
	hash, err := cluster.HashCode(typed)
	if err != nil || subtle.ConstantTimeCompare([]byte(hash), []byte(c.Hash)) != 1 {
		return ErrFirstCode
	}
	return nil
}

// codeAlphabet is what generated codes are made of: 5 bits a character, none that looks like another.
const codeAlphabet = "abcdefghijkmnpqrstuvwxyz23456789"

// newCode makes a generated code of n characters.
func newCode(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = codeAlphabet[b[i]&31]
	}
	return b
}

func digestHex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
