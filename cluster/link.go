package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// What a connection is for, told by ALPN (RFC 7301). There is no HTTP/2: nodes exchange few requests, and
// a connection more costs less than a second protocol to defend.
const (
	protoRaft  = "keyferry-raft/1"
	protoWatch = "keyferry-watch/1"
	protoHTTP  = "http/1.1"
	protoJoin  = "keyferry-join/1"
)

// LinkConfig says who this node is and whom it believes.
type LinkConfig struct {
	Cluster string // id of the cluster
	Node    string // name of this node

	// Owners returns the owner certificates (POC) that are roots of identities now: that of the owner, and while it is
	// replaced or shortly was, of those after and before it. It is asked for every connection.
	Owners func() []*x509.Certificate

	// Certificate returns the leaf that is valid now, followed by the identity certificate. It is asked
	// for every connection, so a renewed leaf is used from the next one on.
	Certificate func() (*tls.Certificate, error)

	// Address returns "host:port" of a node's link. For a node that joins, see Admit.
	Address func(node string) (string, error)

	// Admit decides whether a node that proved its name with this identity may connect and be connected
	// to. It must compare the identity key with the one the node is registered with: any member's
	// identity key can sign a leaf in the name of another. State.Admits does. A node that joins goes by
	// the members it was told of until the State says that it is Connected: an older State on the way
	// there may lack the leader, and would shut it out.
	Admit func(node string, identity *x509.Certificate) error

	Log *slog.Logger // nil: no log
}

// Link is the mutual TLS 1.3 connection between the nodes of a cluster: Raft, HTTP between nodes, and the
// channel on which a new node joins, on one listener.
type Link struct {
	cfg    LinkConfig
	log    *slog.Logger
	client *http.Client
	asks   *http.Client // on the channel of nodes that join

	renewing *renewable // of client

	raft, http, watch, join *queue // accepted connections, by purpose

	handshakes, joins *gate

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	conns  map[*conn]struct{}
	closed bool
}

// NewLink makes a link. It can dial at once, and accepts connections with Serve.
func NewLink(cfg LinkConfig) (*Link, error) {
	if err := check(checkName("cluster id", cfg.Cluster), checkName("node name", cfg.Node)); err != nil {
		return nil, err
	}
	if cfg.Owners == nil || cfg.Certificate == nil || cfg.Address == nil || cfg.Admit == nil {
		return nil, errorf(Invalid, "a link needs owner certificates, a certificate, addresses and a decision whom to admit")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	self := nodeAddr(cfg.Node)
	l := &Link{
		cfg: cfg, log: cfg.Log,
		raft: newQueue(self), http: newQueue(self), watch: newQueue(self), join: newQueue(self),
		handshakes: newGate(maxHandshakes), joins: newGate(maxJoins),
		conns: make(map[*conn]struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.renewing = newRenewable(func() *http.Transport { return l.transport(protoHTTP) })
	l.client, l.asks = newClient(l.renewing), newClient(l.transport(protoJoin))
	return l, nil
}

// Transport is the link as Raft uses it. Its addresses are node names. A link has one: call it once.
func (l *Link) Transport() *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream{l.raft, l}, MaxPool: 3, Timeout: raftTimeout, Logger: raftLogger(l.log),
	})
}

// Client returns a client for requests to other nodes: the host of the URL is the node's name, as in
// "https://node2/cluster/v1/...". A connection that cannot be made fails with a *DialError.
func (l *Link) Client() *http.Client { return l.client }

// Stranger returns a client like Client for what a member answers to any node, also to one that is admitted no
// more. The member proves its identity as always; this node does not.
func (l *Link) Stranger() *http.Client { return l.asks }

// Close ends all connections and waits for what serves them.
func (l *Link) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	for _, q := range []*queue{l.raft, l.http, l.watch, l.join} {
		q.Close()
	}
	l.client.CloseIdleConnections()
	l.asks.CloseIdleConnections()
	for _, c := range l.open() {
		c.Close()
	}
	l.tasks.Wait()
	return nil
}

// conn is a connection that Close and Recheck know.
type conn struct {
	net.Conn
	peer  peer   // zero for a joining node, and for this node itself
	own   string // KeyHash of the identity that this node showed for requests to another; under link.mu
	link  *Link
	after func() // runs once, when the connection is closed
	once  sync.Once
}

// track makes the link responsible for nc.
func (l *Link) track(nc net.Conn, p peer, after func()) *conn {
	c := &conn{Conn: nc, peer: p, link: l, after: after}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	closed := l.closed
	l.mu.Unlock()
	if closed { // Close may have looked before c was there
		c.Close()
	}
	return c
}

// Close closes the connection.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.link.mu.Lock()
		delete(c.link.conns, c)
		c.link.mu.Unlock()
		if c.after != nil {
			c.after()
		}
	})
	return c.Conn.Close()
}

func (l *Link) open() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		open = append(open, c)
	}
	return open
}

// Renew lets requests that begin from now on use connections that are made from now on, after this node or another
// has got another identity. Those under way end on the connections that they have.
func (l *Link) Renew() { l.renewing.renew() }

// Outdated counts the connections for requests to others on which this node has shown another identity key than key,
// by KeyHash. After Renew they become none as requests end.
func (l *Link) Outdated(key string) (n int) {
	l.renewing.last.Load().CloseIdleConnections() // a request that began as Renew was called may have left one
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if c.own != "" && c.own != key {
			n++
		}
	}
	return n
}

// Recheck closes every connection to a node that is not admitted any more, or whose certificate has
// expired. The link does so every minute; after a node was removed there is a reason to do so at once.
func (l *Link) Recheck() {
	for _, c := range l.open() {
		if c.peer.node == "" {
			continue
		}
		if err := l.stillGood(c.peer); err != nil {
			l.log.Info("a connection between nodes is closed", "node", c.peer.node, "reason", err)
			c.Close()
		}
	}
}

func (l *Link) stillGood(p peer) error {
	if time.Now().After(p.expires) {
		return errorf(Expired, "its certificate expired at %s", p.expires.UTC().Format(time.RFC3339))
	}
	return l.cfg.Admit(p.node, p.identity)
}
