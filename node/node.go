package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// Config says what a node is made of.
type Config struct {
	Name    string // of the node, in the cluster
	Dir     string // of its data
	Version string // of the program

	PeerListen  string // host:port where other nodes connect
	PeerAddress string // host:port under which they reach it
	WebURL      string // https URL of its WebConf

	PasskeyDomain string // of which passkeys are; empty: none

	Modules     []ModuleConfig
	AdminModule string // which module holds the admin token; the first one when empty
	Seal        SealConfig
	RestartDir  string   // commands that restart applications
	Units       []string // systemd units that may be restarted as applications
	Syslog      SyslogConfig
	CodesDir    string // codes for applications; on a file system in memory
	Kubernetes  []KubernetesConfig
	Webhooks    []WebhookConfig

	Command []string // how HSM workers are started; see hsm.Config
	Log     *slog.Logger

	WeakHashes bool // passwords are hashed at the lowest cost: for tests, which log in often

	ClockLimit time.Duration // how far another node's clock may be off before nothing is certified; ClockLimit when 0

	// Now is the clock by which this node signs and judges; time.Now when nil. Tests set it wrong.
	Now func() time.Time

	// Fault stands around steps that change something, when it is set: tests end the process there.
	Fault func(step string)
}

// ModuleConfig is one PKCS#11 module of the node.
type ModuleConfig struct {
	Name     string
	Path     string
	Env      map[string]string
	InitArgs string
}

// KubernetesConfig is a cluster of Kubernetes whose workloads can be restarted.
type KubernetesConfig struct {
	Name      string
	Server    string // https URL of its API
	CAFile    string // certificates to verify it by, PEM; the system's when empty
	TokenFile string // bearer token; read anew each time, since tokens of service accounts are renewed
}

// WebhookConfig is an address that is told when an application is to be restarted.
type WebhookConfig struct {
	Name   string
	URL    string // https
	CAFile string // certificates to verify it by, PEM; the system's when empty
}

// Node is one appliance with its HSM.
type Node struct {
	cfg     Config
	log     *slog.Logger
	store   *store
	sealer  *nodeKey
	modules []*hsm.Module // in the order of the configuration

	entrance  *Entrance
	codes     sync.Mutex // one-time codes of the first start are tried one at a time
	unsealing sync.Mutex // one try at a time
	tries     unsealing

	mu       sync.Mutex
	member   *Member
	unsealed chan struct{} // closed when there is a member, or could be one
	sessions SessionKeeper // the console, once it is there
	healths  map[string]ModuleHealth
	onEvent  func(module string, e hsm.Event)
}

// ModuleHealth is whether a module runs.
type ModuleHealth struct {
	Up    bool
	Err   error // why not
	Since time.Time
}

// ErrNotMember says that the node belongs to no cluster yet.
var ErrNotMember = errors.New("this node is not in a cluster yet: run \"keyferry init\" for the first node, \"keyferry join\" for any other; or \"keyferry first-code\" to do it in a browser")

// Open starts the node's modules and, where it belongs to a cluster already, its part in that.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.ClockLimit = cmp.Or(cfg.ClockLimit, ClockLimit)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Fault == nil {
		cfg.Fault = func(string) {}
	}
	if len(cfg.Modules) == 0 {
		return nil, errors.New("the configuration names no PKCS#11 module")
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "packages"), 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s, err := openStore(cfg.Dir)
	if err != nil {
		return nil, err
	}
	sealer, err := openNodeKey(cfg.Dir, cfg.Seal)
	if err != nil {
		s.close()
		return nil, err
	}
	n := &Node{cfg: cfg, log: cfg.Log, store: s, sealer: sealer, unsealed: make(chan struct{}), healths: map[string]ModuleHealth{}}
	n.entrance = newEntrance(n)
	for _, m := range cfg.Modules {
		n.healths[m.Name] = ModuleHealth{Since: time.Now()}
		n.modules = append(n.modules, hsm.Start(hsm.Config{
			Name: m.Name, Path: m.Path, Env: m.Env, InitArgs: m.InitArgs, Command: cfg.Command,
			Lock: filepath.Join(cfg.Dir, "module-"+m.Name+".lock"), Log: cfg.Log,
			Changed: func(e hsm.Event) { n.moduleChanged(m.Name, e) },
		}))
	}
	if why := sealer.Where().Sealed; why != "" {
		n.log.Error("this node is sealed: its slots stay closed, and it takes no part in its cluster", "why", why, "next", "keyferry unseal")
		return n, nil
	}
	if err := n.resume(ctx); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// resume takes up the node's part in its cluster, where it has one.
func (n *Node) resume(ctx context.Context) error {
	rec, err := get[identityRecord](n.store, bucketIdentity, single)
	if errors.Is(err, errAbsent) || err == nil && !rec.Complete {
		n.log.Info("this node is new", "next", "keyferry first-code, which lets a browser go on; or keyferry init, or keyferry join")
		n.opened()
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.enter(ctx, rec, false); err != nil {
		return err
	}
	n.opened()
	return nil
}

// opened tells who waits for it that the node is not sealed any more.
func (n *Node) opened() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.unsealed:
	default:
		close(n.unsealed)
	}
}

// Close ends everything, in the reverse order of its start: first what makes new work, then the
// cluster, then the modules, last the store that they all write to.
func (n *Node) Close() {
	n.entrance.close()
	n.mu.Lock()
	m := n.member
	n.mu.Unlock()
	if m != nil {
		m.close()
	}
	for _, mod := range n.modules {
		mod.Close()
	}
	n.store.close()
}

// Name is the node's name.
func (n *Node) Name() string { return n.cfg.Name }

// Version is the program's version.
func (n *Node) Version() string { return n.cfg.Version }

// Member returns the node's part in a cluster, or ErrNotMember.
func (n *Node) Member() (*Member, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil && n.sealer.Where().Sealed != "" {
		return nil, ErrSealed
	}
	if n.member == nil {
		return nil, ErrNotMember
	}
	return n.member, nil
}

// Unsealed is closed once there is something to show to browsers: the node is a member, or is new and can
// become one.
func (n *Node) Unsealed() <-chan struct{} { return n.unsealed }

// module finds a module by name.
func (n *Node) module(name string) (*hsm.Module, error) {
	i := slices.IndexFunc(n.modules, func(m *hsm.Module) bool { return m.Name() == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no PKCS#11 module %q in the configuration of node %s", name, n.cfg.Name)
	}
	return n.modules[i], nil
}

func (n *Node) adminModule() (*hsm.Module, error) {
	if n.cfg.AdminModule == "" {
		return n.modules[0], nil
	}
	return n.module(n.cfg.AdminModule)
}

// moduleChanged keeps track of which modules run. It is called by the module and must not call it.
func (n *Node) moduleChanged(name string, e hsm.Event) {
	n.mu.Lock()
	if e.Serial == "" {
		n.healths[name] = ModuleHealth{Up: e.Up, Err: e.Err, Since: time.Now()}
	}
	m := n.member
	n.mu.Unlock()
	if m != nil {
		m.Slots.moduleChanged(name, e)
	}
}

// hosts are the names and addresses that the node's TLS certificate is good for.
func (n *Node) hosts() []string {
	hosts := []string{n.cfg.Name, "localhost", "127.0.0.1", "::1"}
	if h, _, err := net.SplitHostPort(n.cfg.PeerAddress); err == nil {
		hosts = append(hosts, h)
	}
	if u := hostOf(n.cfg.WebURL); u != "" {
		hosts = append(hosts, u)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// clusterDir is where Raft keeps its data.
func (n *Node) clusterDir() string { return filepath.Join(n.cfg.Dir, "cluster") }

// self is what the node says about itself to the cluster.
func (n *Node) self(rec identityRecord, key string) cluster.Node {
	return cluster.Node{
		Name: n.cfg.Name, Serial: rec.Serial, PeerAddress: n.cfg.PeerAddress, WebURL: n.cfg.WebURL,
		Version: n.cfg.Version, Protocol: cluster.Protocol, Identity: rec.Identity, Key: key, Protector: n.sealer.protector(),
	}
}
