package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// Config says where a Cluster keeps its data and how patient it is. Zero durations mean the defaults.
type Config struct {
	Dir string       // directory of its own: log, snapshots, mark
	Log *slog.Logger // nil: no log

	// Heartbeat is how long a follower waits for the leader before it calls an election. The default,
	// 1 s, suits nodes in one data center or several.
	Heartbeat time.Duration

	// LeaderWait is how long Apply waits for a leader when there is none, and for this node to see what
	// the leader did. The default, 5 s, covers an ordinary election.
	LeaderWait time.Duration

	noSync bool // for tests, whose machine does not lose power
}

// Network is how a node reaches the others. A Link gives both; tests use memory.
type Network struct {
	Node      string         // the name of this node: its Raft id and its Raft address
	Transport raft.Transport // whose addresses are node names; closed by Close
	Forward   Forwarder      // if it is a Watcher too, a leader whose process ends is replaced at once
}

// Cluster is this node's part in the cluster. All methods can be called from many goroutines.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	now   atomic.Pointer[version] // what State returns
	part  atomic.Pointer[part]    // nil until Start
	moved signal                  // the leader may have changed

	store  *raftboltdb.BoltStore
	snaps  *raft.FileSnapshotStore
	mark   *mark
	closed chan struct{}
	once   sync.Once
	tasks  sync.WaitGroup
}

// part is what there is once the node takes part.
type part struct {
	Network
	raft *raft.Raft
}

// version is a State and the news that there is a newer one.
type version struct {
	state      *State
	superseded chan struct{}
}

// Open reads what this node knows from cfg.Dir: the last snapshot, and the log as far as it is known to
// be committed. State works from then on, without any other node. An empty directory gives an empty State.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = time.Second
	}
	if cfg.LeaderWait == 0 {
		cfg.LeaderWait = 5 * time.Second
	}
	c := &Cluster{cfg: cfg, log: cfg.Log, closed: make(chan struct{})}
	c.now.Store(&version{new(State), make(chan struct{})})
	if err := c.open(); err != nil {
		c.closeFiles()
		return nil, errorf(Internal, "the cluster state in %s cannot be opened: %v", cfg.Dir, err)
	}
	if low := c.State().protocol(); low > Protocol {
		c.closeFiles()
		return nil, errorf(Upgrade, "this cluster speaks protocol %d and this program only %d: upgrade Keyferry on this node", low, Protocol)
	}
	return c, nil
}

func (c *Cluster) open() (err error) {
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	c.store, err = raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(c.cfg.Dir, "log.db"),
		BoltOptions: &bbolt.Options{Timeout: time.Second},
		NoSync:      c.cfg.noSync,
	})
	if errors.Is(err, bbolt.ErrTimeout) {
		return fmt.Errorf("another process uses it: is the daemon running already?")
	}
	if err != nil {
		return err
	}
	c.snaps, err = raft.NewFileSnapshotStoreWithLogger(c.cfg.Dir, 2, raftLogger(c.log))
	if err != nil {
		return err
	}
	c.mark, err = openMark(filepath.Join(c.cfg.Dir, "committed"))
	if err != nil {
		return err
	}
	return c.recover()
}

// Start makes this node take part in the cluster. With bootstrap and an empty directory, it begins a new
// cluster with this node as the only voter; CreateCluster is to follow. Otherwise it waits until the
// leader of a cluster that admitted it makes contact.
func (c *Cluster) Start(n Network, bootstrap bool) error {
	if c.part.Load() != nil {
		return errorf(Conflict, "the cluster is started already")
	}
	conf := c.raftConfig(n.Node)
	log, err := raft.NewLogCache(512, c.store)
	if err != nil {
		return errorf(Internal, "the cluster cannot be started: %v", err)
	}
	if bootstrap {
		self := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(n.Node), Address: raft.ServerAddress(n.Node)}}}
		err := raft.BootstrapCluster(conf, log, c.store, c.snaps, n.Transport, self)
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return errorf(Internal, "the cluster cannot be begun: %v", err)
		}
	}
	r, err := raft.NewRaft(conf, (*fsm)(c), log, c.store, c.snaps, n.Transport)
	if err != nil {
		return errorf(Internal, "the cluster cannot be started: %v", err)
	}
	p := &part{n, r}
	c.part.Store(p)
	c.tasks.Go(func() { c.watchLeader(p) })
	c.tasks.Go(func() { c.keepMembers(p) })
	if w, ok := n.Forward.(Watcher); ok {
		c.tasks.Go(func() { c.succeed(p, w) })
	}
	if slices.Equal(p.named(raft.Voter), []string{n.Node}) { // nobody to wait for
		if err := p.stand(); err != nil {
			c.log.Warn("this node waits for the usual time before it leads", "error", err)
		}
	}
	return nil
}

func (c *Cluster) raftConfig(node string) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(node)
	conf.Logger = raftLogger(c.log)
	conf.HeartbeatTimeout = c.cfg.Heartbeat
	conf.ElectionTimeout = c.cfg.Heartbeat
	conf.LeaderLeaseTimeout = c.cfg.Heartbeat / 2
	conf.SnapshotThreshold = 4096
	conf.TrailingLogs = 4096 // a node that was away for long gets a snapshot instead
	conf.NoSnapshotRestoreOnStart = true
	conf.ShutdownOnRemove = false // State stays readable, and says that the node was removed
	return conf
}

// Close takes the node out of the cluster for now and closes its files. A leader hands over first, so
// that a planned restart costs the others no election.
func (c *Cluster) Close() error {
	var err error
	c.once.Do(func() {
		close(c.closed)
		if p := c.part.Load(); p != nil {
			if p.raft.State() == raft.Leader && len(p.named(raft.Voter)) > 1 {
				if err := p.raft.LeadershipTransfer().Error(); err != nil {
					c.log.Warn("no other node took over the lead", "error", err)
				}
			}
			c.tasks.Wait() // before Raft ends, which leaves what waits for it without an answer
			err = p.raft.Shutdown().Error()
		}
		err = errors.Join(err, c.closeFiles())
	})
	return err
}

// closing tells whether Close was called.
func (c *Cluster) closing() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func (c *Cluster) closeFiles() error {
	var errs []error
	if c.mark != nil {
		errs = append(errs, c.mark.close())
	}
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	return errors.Join(errs...)
}

// State returns the newest State of this node. It never blocks and needs no quorum.
func (c *Cluster) State() *State { return c.now.Load().state }

// Watch returns the newest State, and a channel that is closed as soon as there is a newer one.
func (c *Cluster) Watch() (*State, <-chan struct{}) {
	v := c.now.Load()
	return v.state, v.superseded
}

// publish makes s what State returns. Only one goroutine at a time calls it: Open, then Raft's.
func (c *Cluster) publish(s *State) {
	old := c.now.Swap(&version{s, make(chan struct{})})
	close(old.superseded)
}

// waitIndex waits until this node's State has reached index, for LeaderWait at most.
func (c *Cluster) waitIndex(ctx context.Context, index uint64) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.LeaderWait)
	defer cancel()
	for {
		s, changed := c.Watch()
		if s.Index >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errorf(Behind, "the change is done, but this node has not seen it yet: look again in a moment")
		case <-c.closed:
			return errorf(Behind, "the change is done, but this node is shutting down and has not seen it")
		}
	}
}

// signal wakes everybody who waits. The zero signal is ready.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next fire closes. Take it before looking at what it announces.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
