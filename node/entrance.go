package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// Entrance is the way into a cluster by browser, for a node that belongs to none: a TLS certificate of its
// own, a one-time code that proves access to the node's console, and one attempt at a time.
type Entrance struct {
	n     *Node
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup

	making   sync.Mutex   // held while a cluster is founded or joined, so that it happens once at a time
	reserved net.Listener // for other nodes, until the member takes it over; under making

	mu   sync.Mutex
	leaf *tls.Certificate
	over bool // the node is a member
	now  Entry
}

// Entry is how far an attempt to enter a cluster has come.
type Entry struct {
	Founding bool // a new cluster; otherwise an existing one is joined
	Running  bool
	Stage    cluster.NodeStatus // empty before the first attempt
	Account  string             // the first administrator, of a new cluster
	Err      error              // why it ended
}

const (
	startFile = "start-tls.pem" // key and certificate; 0600
	startKey  = "entrance"      // of the one-time code; the first administrator's has another
)

func newEntrance(n *Node) *Entrance {
	e := &Entrance{n: n}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// Entrance is how this node becomes a member by browser.
func (n *Node) Entrance() *Entrance { return n.entrance }

// Certificate is what the node shows to browsers while it belongs to no cluster. It is self-signed, so a
// person compares its fingerprint with the one on the node's console.
func (e *Entrance) Certificate() (*tls.Certificate, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch now := time.Now(); {
	case e.over:
		return nil, errors.New("this node is a member of a cluster and shows the certificate that it has there")
	case e.leaf != nil && now.Before(e.leaf.Leaf.NotAfter):
		return e.leaf, nil
	}
	path := filepath.Join(e.n.cfg.Dir, startFile)
	if b, err := os.ReadFile(path); err == nil {
		c, err := tls.X509KeyPair(b, b)
		if err == nil && time.Now().Before(c.Leaf.NotAfter) && sameHosts(c.Leaf, e.n.hosts()) {
			e.leaf = &c
			return e.leaf, nil
		}
	}
	b, err := startCertificate(e.n.cfg.Name, e.n.hosts(), time.Now())
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if err := writeFile(path, b); err != nil {
		return nil, fmt.Errorf("the certificate of the first start: %w", err)
	}
	c, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, err
	}
	e.leaf = &c
	return e.leaf, nil
}

// startCertificate is a new key with a self-signed certificate, PEM.
func startCertificate(name string, hosts []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := identity.Start(name, hosts, key, now)
	if err != nil {
		return nil, err
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "PRIVATE KEY", Bytes: plain}); err != nil {
		return nil, err
	}
	err = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return b.Bytes(), err
}

// Fingerprint is that of the certificate of the first start.
func (e *Entrance) Fingerprint() (string, error) {
	c, err := e.Certificate()
	if err != nil {
		return "", err
	}
	return cluster.Fingerprint(c.Certificate[0]), nil
}

// NewCode makes the one-time code with which a browser may make this node a member. It replaces the one
// before.
func (e *Entrance) NewCode() (string, error) {
	if err := e.open(); err != nil {
		return "", err
	}
	return e.n.newStartCode(startKey)
}

// CheckCode uses the one-time code up.
func (e *Entrance) CheckCode(typed string) error {
	if err := e.open(); err != nil {
		return err
	}
	if err := e.n.checkStartCode(startKey, typed); err != nil {
		return refusal{err}
	}
	return e.n.store.drop(bucketStart, startKey)
}

// open tells whether the node is still to become a member.
func (e *Entrance) open() error {
	_, err := e.n.Member()
	switch {
	case err == nil:
		return refuse("node %s is in a cluster already", e.n.cfg.Name)
	case errors.Is(err, ErrNotMember):
		return nil
	}
	return err
}

// Look fetches the fingerprint of the node at an address, for a person to compare.
func (e *Entrance) Look(ctx context.Context, address string) (string, error) {
	if err := e.open(); err != nil {
		return "", err
	}
	f, err := cluster.FetchFingerprint(ctx, address)
	if _, dialed := errors.AsType[*cluster.DialError](err); dialed {
		return "", refuse("no node of Keyferry answers at %s (%w): check that it runs, and that this is its address for other nodes, as its Cluster page shows it, and not that of its console", address, errors.Unwrap(err))
	}
	return f, err
}

// Found begins to make a new cluster with its first administrator. See Now for how it goes on.
func (e *Entrance) Found(name, account, password string) error {
	return e.found(name, account, password, e.n.Found)
}

// FoundUnder is Found under an owner whose key is elsewhere.
func (e *Entrance) FoundUnder(name, account, password string, c Certified) error {
	return e.found(name, account, password, func(ctx context.Context, actor cluster.Actor, name string) (Founded, error) {
		return e.n.FoundUnder(ctx, actor, name, c)
	})
}

func (e *Entrance) found(name, account, password string, found func(context.Context, cluster.Actor, string) (Founded, error)) error {
	for _, err := range []error{cluster.CheckClusterName(name), cluster.CheckAccountName(account), checkPassword(password)} {
		if err != nil {
			return refusal{err}
		}
	}
	return e.begin(Entry{Founding: true, Account: account}, func(ctx context.Context) error {
		f, err := found(ctx, cluster.Actor{Kind: cluster.ByConsole, Name: firstStart}, name)
		if err != nil {
			return err
		}
		m, err := e.n.Member()
		if err != nil {
			return err
		}
		e.reach(cluster.Connecting)
		if err := m.Accounts.CreateFirst(ctx, f.Code, account, password); err != nil {
			return fmt.Errorf("the cluster is there, but its first administrator was not made (%w): \"keyferry first-code\" on the node's console gives a code with which it can be", err)
		}
		return nil
	})
}

// Join begins to join the cluster of the node at an address. The fingerprint was compared by a person. Where the
// owner key is elsewhere, the node brings what that has certified.
func (e *Entrance) Join(address, fingerprint, code string, c *Certified) error {
	if _, err := cluster.NormalizeCode(code); err != nil {
		return refusal{err}
	}
	return e.begin(Entry{}, func(ctx context.Context) error {
		m, err := e.n.join(ctx, address, fingerprint, code, c)
		if err != nil {
			return err
		}
		e.reach(cluster.Connecting)
		return m.connected(ctx)
	})
}

// begin runs one attempt, unless one runs.
func (e *Entrance) begin(now Entry, f func(context.Context) error) error {
	if err := e.open(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now.Running {
		return refuse("this node is entering a cluster at this moment: wait for that to end")
	}
	now.Running, now.Stage = true, cluster.Initializing
	e.now = now
	e.tasks.Go(func() {
		err := f(e.ctx)
		if err != nil {
			e.n.log.Error("this node has not entered a cluster", "error", err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.now.Running, e.now.Err = false, err
		if err == nil {
			e.now.Stage = cluster.Connected
		}
	})
	return nil
}

func (e *Entrance) reach(s cluster.NodeStatus) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now.Stage = s
}

// Now is how far the last attempt has come.
func (e *Entrance) Now() Entry {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.now
}

// close ends an attempt and waits for its end.
func (e *Entrance) close() {
	e.stop()
	e.tasks.Wait()
}

// end takes away what only a new node needs. Nothing of it opens anything any more.
func (e *Entrance) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over, e.leaf = true, nil
	if err := os.Remove(filepath.Join(e.n.cfg.Dir, startFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		e.n.log.Error("the key of the first start is not removed", "error", err)
	}
	if err := e.n.store.drop(bucketStart, startKey); err != nil {
		e.n.log.Error("the one-time code of the first start is not removed", "error", err)
	}
}

// connected waits until the cluster knows that this node is a full member.
func (m *Member) connected(ctx context.Context) error {
	for {
		s, changed := m.Cluster.Watch()
		if s.Nodes[m.Name()].Status == cluster.Connected {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mayEnter is asked before anything is made: one attempt at a time, of a node that belongs to no cluster, and
// the address for other nodes must be free, which otherwise shows only once the cluster has let the node in. It
// stays reserved until done. rec is what an interrupted attempt has left.
func (n *Node) mayEnter() (rec identityRecord, done func(), err error) {
	e := n.entrance
	if !e.making.TryLock() {
		return rec, nil, refuse("this node is entering a cluster at this moment: wait for that to end")
	}
	if rec, err = n.fresh(); err != nil {
		e.making.Unlock()
		return rec, nil, err
	}
	if e.reserved, err = net.Listen("tcp", n.cfg.PeerListen); err != nil {
		e.making.Unlock()
		return rec, nil, fmt.Errorf("this node cannot listen for other nodes: %w: change [peer] listen in its configuration, or stop what has this address", err)
	}
	return rec, func() {
		if e.reserved != nil {
			e.reserved.Close()
		}
		e.reserved = nil
		e.making.Unlock()
	}, nil
}

// listener is what was reserved for other nodes, or a new one for a node that was a member before.
func (e *Entrance) listener(address string) (net.Listener, error) {
	if ln := e.reserved; ln != nil {
		e.reserved = nil
		return ln, nil
	}
	return net.Listen("tcp", address)
}
