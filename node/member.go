package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Member is a node's part in a cluster: what it knows of the others, and what can be asked of it.
type Member struct {
	Cluster   *cluster.Cluster
	Identity  *Identity
	Peers     *Peers
	Slots     *Slots
	Keys      *Keys
	Sync      *Sync
	Apps      *Apps
	Accounts  *Accounts
	Passkeys  *Passkeys
	Custody   *Custody
	Jobs      *Jobs
	Trail     *Trail
	Approvals *Approvals
	Trust     *Trust
	Settings  *Settings
	Syslog    *Syslog

	node  *Node
	log   *slog.Logger
	link  *cluster.Link
	acts  *acts
	taken handovers
	ready atomic.Bool // all parts are there
	stop  context.CancelFunc
	tasks sync.WaitGroup
}

// enter makes the node a member by its record. With bootstrap it begins the log of a new cluster.
func (n *Node) enter(ctx context.Context, rec identityRecord, bootstrap bool) error {
	id, err := newIdentity(n, rec)
	if err != nil {
		return err
	}
	// Without its HSM a node still takes part, with the TLS certificate it has.
	if err := id.open(ctx); err != nil {
		if id.leaf == nil {
			return err
		}
		n.log.Error("the admin token does not open; this node goes on without signing", "error", err)
	}
	if err := id.renewLeaf(n.cfg.Now()); err != nil && id.leaf == nil {
		return err
	}
	if err := id.writeOwners(); err != nil {
		return err
	}
	m := &Member{Identity: id, node: n, log: n.log}
	m.Settings = &Settings{m}
	if err := m.connect(rec, bootstrap); err != nil {
		return err
	}
	m.acts = &acts{m: m}
	m.Jobs = newJobs(m)
	m.Trail = newTrail(m)
	if m.Syslog, err = newSyslog(m, n.cfg.Syslog); err != nil {
		m.link.Close()
		return fmt.Errorf("the queue for syslog: %w", err)
	}
	m.Slots = newSlots(m)
	m.Keys = newKeys(m)
	m.Apps = newApps(m)
	m.Sync = newSync(m)
	m.Accounts = newAccounts(m)
	m.Passkeys = newPasskeys(m)
	m.Custody = newCustody(m)
	m.Approvals = &Approvals{m}
	m.Trust = &Trust{m}
	if rec.Complete {
		if err := id.complete(); err != nil { // not rec, which is from before the TLS certificate was made
			m.link.Close()
			return err
		}
	}
	m.ready.Store(true)
	m.run()
	n.mu.Lock()
	n.member = m
	n.mu.Unlock()
	n.entrance.end()
	return nil
}

// connect opens the link and the replicated state.
func (m *Member) connect(rec identityRecord, bootstrap bool) (err error) {
	n := m.node
	if m.Cluster, err = cluster.Open(cluster.Config{Dir: n.clusterDir(), Log: n.log.With("part", "cluster")}); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.Cluster.Close()
		}
	}()
	m.link, err = cluster.NewLink(cluster.LinkConfig{
		Cluster: rec.Cluster, Node: n.cfg.Name, Owners: m.roots, Certificate: m.Identity.Certificate,
		Address: m.address, Admit: m.admits, Log: n.log.With("part", "link"),
	})
	if err != nil {
		return err
	}
	ln, err := n.entrance.listener(n.cfg.PeerListen)
	if err != nil {
		m.link.Close()
		return fmt.Errorf("listening for other nodes on %s: %w", n.cfg.PeerListen, err)
	}
	m.Peers = newPeers(m)
	peers := http.NewServeMux()
	peers.Handle("/cluster/", m.Cluster.Handler())
	peers.Handle("/node/", m.Peers.handler())
	m.tasks.Go(func() {
		if err := m.link.Serve(ln, peers, m.joins()); err != nil {
			n.log.Error("the listener for other nodes ended", "error", err)
		}
	})
	return m.Cluster.Start(cluster.Network{Node: n.cfg.Name, Transport: m.link.Transport(), Forward: m.link}, bootstrap)
}

// known finds a node in the replicated state. While this node is joining, what it has of that may be from
// before the others were there; until then the members that it was told of count too.
func (m *Member) known(name string) (cluster.Node, error) {
	s := m.State()
	if n, ok := s.Nodes[name]; ok {
		return n, nil
	}
	if s.Nodes[m.Name()].Status != cluster.Connected {
		m.Identity.mu.Lock()
		defer m.Identity.mu.Unlock()
		for _, n := range m.Identity.rec.Members {
			if n.Name == name {
				return n, nil
			}
		}
	}
	return cluster.Node{}, fmt.Errorf("there is no node %q in this cluster", name)
}

func (m *Member) address(name string) (string, error) {
	n, err := m.known(name)
	return n.PeerAddress, err
}

// roots are the owners whose certificates connect: those of now, and the one before. A node that was away when the
// owner changed still shows a certificate of the latter; see admits for what that is good for.
func (m *Member) roots() []*x509.Certificate {
	owners := m.Identity.Owners()
	if former := m.State().Cluster.Former; len(former) > 0 {
		if poc, err := x509.ParseCertificate(former[len(former)-1]); err == nil {
			owners = append(owners, poc)
		}
	}
	return owners
}

// admits tells whether a certificate is that of a member: it is for the registered identity key, whichever owner has
// certified that. A node that was away may have missed that another got a new key, and learns of it only from a node
// that it admits: while it sees no majority, it believes a later certificate in the same name of the owner of now.
func (m *Member) admits(name string, pic *x509.Certificate) error {
	n, err := m.known(name)
	key := cluster.KeyHash(pic)
	if err != nil || n.Admits(key) {
		return err
	}
	refused := fmt.Errorf("the identity key is not the one that node %q is known by", name)
	registered, err := x509.ParseCertificate(n.Identity)
	switch {
	case err != nil, m.Cluster.Status().Quorum, n.Had(key), m.State().Barred(key):
		return refused
	case pic.Subject.CommonName != name || !pic.NotBefore.After(registered.NotBefore):
		return refused
	case madeBy(pic, ownerOf(pic, m.Identity.Owners())) != nil:
		return refused
	}
	return nil
}

// State is the replicated state as this node knows it.
func (m *Member) State() *cluster.State { return m.Cluster.State() }

// Name is the node's name.
func (m *Member) Name() string { return m.node.cfg.Name }

// Node is the appliance.
func (m *Member) Node() *Node { return m.node }

// self is the daemon acting by itself.
func (m *Member) self() cluster.Actor { return cluster.Actor{Kind: cluster.ByNode, Name: m.Name()} }

// run starts what goes on by itself.
func (m *Member) run() {
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	for _, loop := range []func(context.Context){
		m.connectLoop,    // joining: tells the cluster how far this node has come
		m.maintain,       // admin token, TLS certificate
		m.Peers.watch,    // who answers
		m.followKeys,     // identity and owner keys that are replaced
		m.watchStanding,  // whether the cluster still knows this node
		m.Slots.activate, // generated slots
		m.Slots.tend,     // stored codes: tried, and changed by schedule
		m.Keys.watch,     // which keys are there
		m.Sync.resume,    // imports that were interrupted
		m.acts.flush,     // audit entries from a time without quorum
		m.Trail.watch,    // checks and signs the audit trail
		m.Syslog.watch,   // copies audit entries to the queue for syslog
		m.Syslog.send,    // sends what is in it
		m.Apps.follow,    // codes for applications, and what waits for slots
		m.Apps.runner.loop,
	} {
		m.tasks.Go(func() { loop(ctx) })
	}
}

// close ends the member: first its own work, then the connections, then the state.
func (m *Member) close() {
	m.Trail.signLast()
	m.stop()
	m.Jobs.close()
	m.Custody.close()
	m.Cluster.Close() // a leader hands over while the link is still there
	m.link.Close()
	m.tasks.Wait()
}

// connectLoop tells the cluster that this node runs, and that it has caught up, until the cluster knows.
func (m *Member) connectLoop(ctx context.Context) {
	for {
		s, changed := m.Cluster.Watch()
		n, here := s.Nodes[m.Name()]
		switch {
		case here && n.Status == cluster.Connected:
			if m.toldSelf(ctx, n) {
				return
			}
		case here || m.joined() && m.Removed().IsZero():
			if err := m.tellEntry(ctx); err != nil {
				m.log.Info("the cluster does not know yet that this node is ready", "error", err)
			}
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// tellEntry says that this node runs, as soon as it knows who leads, and then that it has caught up: the first
// of the two is answered once it stands in the state of this node too.
func (m *Member) tellEntry(ctx context.Context) error {
	for _, s := range []cluster.NodeStatus{cluster.Connecting, cluster.Connected} {
		if _, err := m.Cluster.Apply(ctx, &cluster.ConnectNode{Status: s}, m.self()); err != nil {
			return err
		}
		m.node.cfg.Fault("join: " + string(s))
	}
	return nil
}

// joined tells whether others let this node in: one that founds a cluster is in no state before it has.
func (m *Member) joined() bool {
	m.Identity.mu.Lock()
	defer m.Identity.mu.Unlock()
	return len(m.Identity.rec.Members) > 0
}

// toldSelf brings the cluster's record of this node up to date: addresses and version may have changed
// with the configuration or the program.
func (m *Member) toldSelf(ctx context.Context, known cluster.Node) bool {
	m.Identity.mu.Lock()
	want := m.node.self(m.Identity.rec, known.Key)
	m.Identity.mu.Unlock()
	want.Status, want.Joined, want.Identity = known.Status, known.Joined, known.Identity // kept by the cluster
	if equalNodes(want, known) {
		return true
	}
	_, err := m.Cluster.Apply(ctx, &cluster.SetNode{Node: want}, m.self())
	return err == nil
}

func equalNodes(a, b cluster.Node) bool {
	a.Identity, b.Identity = nil, nil // compared by Key
	return a.Name == b.Name && a.Serial == b.Serial && a.PeerAddress == b.PeerAddress && a.WebURL == b.WebURL &&
		a.Version == b.Version && a.Protocol == b.Protocol && a.Key == b.Key && a.Protector == b.Protector
}

// maintain keeps the admin token open, the TLS certificate fresh, and the modules tested.
func (m *Member) maintain(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if !m.Identity.Open() {
			if err := m.Identity.open(ctx); err != nil {
				m.log.Error("the admin token does not open", "error", err)
			}
		}
		m.changeOver(ctx)
		if err := m.Identity.renewLeaf(m.node.cfg.Now()); err != nil && !errors.Is(err, errAdminClosed) {
			m.log.Error("the TLS certificate was not renewed", "error", err)
		}
		m.selfTest(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
