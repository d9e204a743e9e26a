package cluster

import (
	"context"
	"errors"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// When a leader's process ends, its followers need not wait until they miss its heartbeats: each holds an
// idle connection to the leader's host, which breaks at once, and a new one is refused, which only a host
// without the process does. A follower then campaigns at once, by the message with which a leader hands
// over (TimeoutNow). Raft's rules for votes are the same as ever, so a wrong guess costs an election and
// nothing else. A host that is frozen or cut off refuses nothing: the heartbeats tell of that.

// Watcher is what a Forwarder can be besides: it knows at once when another node's process ends.
type Watcher interface {
	// Gone waits until it has reached node and node's process has ended. It fails only when ctx ends.
	Gone(ctx context.Context, node string) error
}

const (
	// watchRetry is the pause between two attempts to connect to a node that is not there.
	watchRetry = 250 * time.Millisecond

	// watchStagger is how much longer each follower waits than the one before it in the order of names, so
	// that they do not campaign against each other. An election takes some flushes to disk.
	watchStagger = 100 * time.Millisecond
)

// succeed campaigns as soon as the leader is gone, again and again.
func (c *Cluster) succeed(p *part, w Watcher) {
	for !c.closing() {
		moved := c.moved.wait()
		leader := p.leader()
		if leader == "" || leader == p.Node {
			select {
			case <-moved:
				continue
			case <-c.closed:
				return
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		c.tasks.Go(func() { // ends ctx when the leader is another, or the node closes
			defer cancel()
			for p.leader() == leader {
				select {
				case <-moved:
					moved = c.moved.wait()
				case <-ctx.Done():
					return
				case <-c.closed:
					return
				}
			}
		})
		if w.Gone(ctx, leader) == nil {
			c.campaign(ctx, p, leader)
		}
		cancel()
	}
}

// campaign stands for election in place of a leader that is gone, unless ctx ends before it is this node's
// turn.
func (c *Cluster) campaign(ctx context.Context, p *part, leader string) {
	voters := slices.DeleteFunc(p.named(raft.Voter), func(name string) bool { return name == leader })
	turn := slices.Index(voters, p.Node)
	if turn < 0 {
		return
	}
	select {
	case <-time.After(time.Duration(turn) * watchStagger):
	case <-ctx.Done():
		return
	}
	c.log.Info("the leader's process has ended: this node stands for election", "leader", leader)
	if err := p.stand(); err != nil {
		c.log.Warn("this node cannot stand for election; it waits for the usual time", "error", err)
	}
}

// stand sends this node the message with which a leader hands over to it.
func (p *part) stand() error {
	self := raft.ServerAddress(p.Node)
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(p.Node), Addr: []byte(p.Node)}
	return p.Transport.TimeoutNow(raft.ServerID(p.Node), self, &raft.TimeoutNowRequest{RPCHeader: header}, new(raft.TimeoutNowResponse))
}

// Gone implements Watcher over the link.
func (l *Link) Gone(ctx context.Context, node string) error {
	reached := false
	for {
		began := time.Now()
		c, err := l.dial(ctx, node, protoWatch)
		if err == nil {
			reached = true
			hold(ctx, c)
			if time.Since(began) > watchRetry {
				continue // at once: it matters now whether the next one is refused
			}
		} else if reached && errors.Is(err, syscall.ECONNREFUSED) {
			return nil
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serveWatch holds the connections of nodes that watch this one.
func (l *Link) serveWatch() {
	for {
		c, err := l.watch.Accept()
		if err != nil {
			return
		}
		l.tasks.Go(func() { hold(l.ctx, c) })
	}
}

// hold keeps an idle connection until it breaks or ctx ends.
func hold(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	c.Read(make([]byte, 1)) // nobody sends anything
	c.Close()
}
