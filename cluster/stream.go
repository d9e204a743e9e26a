package cluster

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftTimeout bounds one message of Raft; a snapshot gets as much per 256 KiB.
const raftTimeout = 10 * time.Second

// stream is the link as Raft's network: it dials nodes by name.
type stream struct {
	*queue
	link *Link
}

// Dial implements raft.StreamLayer. The address is the name of a node; this node reaches itself in memory.
func (s stream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.link.ctx, timeout)
	defer cancel()
	if string(address) == string(s.addr) {
		here, there := net.Pipe()
		s.deliver(ctx, s.link.track(there, peer{}, nil))
		return here, nil
	}
	return s.link.dial(ctx, string(address), protoRaft)
}

// queue is a net.Listener whose connections are delivered by accept.
type queue struct {
	addr   nodeAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(addr nodeAddr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver hands c to whoever accepts, or closes it when nobody does in time.
func (q *queue) deliver(ctx context.Context, c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		c.Close()
	case <-ctx.Done():
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were accepted stay.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }

// nodeAddr is the name of a node as an address: the address of a node may change, its name does not.
type nodeAddr string

func (nodeAddr) Network() string  { return "keyferry" }
func (a nodeAddr) String() string { return string(a) }
