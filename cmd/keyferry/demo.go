package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	toml "github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

// The slots of the demo.
const (
	demoCA   = "demo-ca"   // manual, with a code that foreign programs can use
	demoAuto = "demo-auto" // generated
)

func (a *app) demoCommand() *cobra.Command {
	d := &demo{out: a.out}
	c := &cobra.Command{
		Use:   "demo --dir DIR",
		Short: "Run a cluster of three nodes on SoftHSM2, on this machine",
		Long: `Run a cluster of three nodes on SoftHSM2, on loopback, until interrupted. Everything is in the given directory;
started again on it, the cluster is as it was. When all of it can be used, the ready file says how, as JSON.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return d.run(ctx)
		},
	}
	c.Flags().StringVar(&d.dir, "dir", "demo", "`directory` for everything")
	c.Flags().IntVar(&d.base, "port-base", 8440, "first of six `ports`: three for WebConf, three for the nodes among themselves")
	c.Flags().StringVar(&d.ready, "ready", "", "`file` to write when all of it can be used")
	c.Flags().BoolVar(&d.story, "story", false, "make a CA key and certificate on node1 with pkcs11-tool, so that there is something to see")
	return c
}

// A demo is three daemons and what they need.
type demo struct {
	dir   string
	base  int
	ready string
	story bool
	out   io.Writer

	secrets demoSecrets
	nodes   []*demoNode
	closed  map[seatOf]bool // what people have changed so that the demo cannot open it any more
}

// A seatOf names a slot's place on a node.
type seatOf struct{ slot, node string }

// demoSecrets are kept in the demo's directory, so that it can be started again.
type demoSecrets struct {
	Password string `json:"password"`
	PIN      string `json:"pin"`
}

type demoNode struct {
	name   string
	dir    string
	conf   config
	api    *client
	daemon *exec.Cmd
	ended  chan struct{}
}

// demoNodes is how many nodes the demo has.
const demoNodes = 3

const demoUser = "admin"

func (d *demo) run(ctx context.Context) error {
	if err := d.prepare(); err != nil {
		return err
	}
	defer d.stop()
	defer d.notReady() // before the daemons stop
	for _, n := range d.nodes {
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	for _, step := range []func(context.Context) error{d.members, d.slots, d.account, d.settled, d.tellStory} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // interrupted by the user
			}
			return err
		}
	}
	if err := d.writeReady(); err != nil {
		return err
	}
	d.welcome()
	<-ctx.Done()
	fmt.Fprintln(d.out, "\nStopping; the same command goes on from here.")
	return nil
}

func softHSM() (string, error) {
	for _, p := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", errors.New("SoftHSM2 is not installed: on Debian, apt-get install softhsm2 (\"make demo\" does that)")
}

// prepare makes the directories, configurations and secrets, as far as they are not there.
func (d *demo) prepare() (err error) {
	if d.base < 1024 || d.base+2*demoNodes > 65535 {
		return fmt.Errorf("--port-base must be between 1024 and %d, not %d", 65535-2*demoNodes, d.base)
	}
	module, err := softHSM()
	if err != nil {
		return err
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if err := d.notReady(); err != nil {
		return err
	}
	if err := d.loadSecrets(); err != nil {
		return err
	}
	for i := range demoNodes {
		n, err := d.prepareNode(i, module)
		if err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
	}
	return nil
}

// notReady removes the ready file, so that nobody takes an old one for this run's.
func (d *demo) notReady() error {
	if err := os.Remove(d.ready); d.ready != "" && err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *demo) loadSecrets() error {
	path := filepath.Join(d.dir, "demo.json")
	b, err := os.ReadFile(path)
	if err == nil {
		return json.Unmarshal(b, &d.secrets)
	}
	d.secrets = demoSecrets{Password: randomText(20), PIN: randomText(12)}
	if b, err = json.Marshal(d.secrets); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

func randomText(n int) string { return strings.ToLower(rand.Text())[:n] }

func (d *demo) prepareNode(i int, module string) (*demoNode, error) {
	name := fmt.Sprintf("node%d", i+1)
	n := &demoNode{name: name, dir: filepath.Join(d.dir, name)}
	for _, sub := range []string{"tokens", "restart.d"} {
		if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	soft := filepath.Join(n.dir, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", filepath.Join(n.dir, "tokens"))
	if err := os.WriteFile(soft, []byte(text), 0o600); err != nil {
		return nil, err
	}
	c := config{Name: name, DataDir: filepath.Join(n.dir, "data"), Socket: filepath.Join(n.dir, "keyferry.sock"), RestartDir: filepath.Join(n.dir, "restart.d"), CodesDir: demoCodes(n.dir),
		Modules: []moduleConfig{{Name: "softhsm", Path: module, Env: map[string]string{"SOFTHSM2_CONF": soft}}}}
	c.WebConf.Listen = fmt.Sprintf("127.0.0.1:%d", d.base+i)
	c.WebConf.URL = "https://" + c.WebConf.Listen
	c.Peer.Listen = fmt.Sprintf("127.0.0.1:%d", d.base+demoNodes+i)
	c.Peer.Address = c.Peer.Listen
	b, err := toml.Marshal(c)
	if err != nil {
		return nil, err
	}
	n.conf, n.api = c, newClient(c.Socket)
	return n, os.WriteFile(n.configPath(), b, 0o600)
}

// demoCodes is a directory in memory for the codes that a node's applications get, told apart from those of
// other demos by where the demo is.
func demoCodes(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("/dev/shm/keyferry-demo-%x", sum[:6])
}

func (n *demoNode) configPath() string { return filepath.Join(n.dir, "keyferry.toml") }

// start runs the daemon and waits until it answers.
func (n *demoNode) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(n.dir, "keyferry.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	n.daemon = exec.Command(self, "serve", "--config", n.configPath())
	n.daemon.Stdout, n.daemon.Stderr = log, log
	// A group of its own, so that the demo stops it in its own order; and an end with the demo's, however
	// that ends.
	n.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := startWithParent(n.daemon); err != nil {
		return fmt.Errorf("%s does not start: %w", n.name, err)
	}
	n.ended = make(chan struct{})
	go func() {
		n.daemon.Wait()
		close(n.ended)
	}()
	return n.await(ctx, "it answers", func() (bool, error) {
		_, err := get[status](ctx, n.api, "/status")
		return err == nil, nil
	})
}

// await looks again and again until something is so. It gives up when the daemon ends, or after a time in
// which it should have long been so.
func (n *demoNode) await(ctx context.Context, what string, f func() (bool, error)) error {
	limit := time.After(2 * time.Minute)
	for {
		ok, err := f()
		if ok || err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-n.ended:
			return fmt.Errorf("%s has ended; its log is %s/keyferry.log", n.name, n.dir)
		case <-limit:
			return fmt.Errorf("%s: not in two minutes: %s; its log is %s/keyferry.log", n.name, what, n.dir)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// members founds the cluster and lets the other nodes join.
func (d *demo) members(ctx context.Context) error {
	first := d.nodes[0]
	for _, n := range d.nodes {
		s, err := get[status](ctx, n.api, "/status")
		switch {
		case err != nil:
			return err
		case s.Member:
		case n == first:
			if _, err := post[node.Founded](ctx, n.api, "/cluster/init", map[string]string{"name": "demo"}); err != nil {
				return err
			}
		default:
			i, err := post[node.Invitation](ctx, first.api, "/cluster/invitations", map[string]any{"node": n.name, "hours": 1})
			if err != nil {
				return err
			}
			body := map[string]string{"address": i.Address, "fingerprint": i.Fingerprint, "code": i.Code}
			if _, err := post[membership](ctx, n.api, "/cluster/join", body); err != nil {
				return err
			}
		}
	}
	for _, n := range d.nodes {
		err := n.await(ctx, "all nodes are connected", func() (bool, error) {
			s, err := get[status](ctx, n.api, "/status")
			ready := err == nil && s.Quorum && len(s.Nodes) == len(d.nodes)
			for _, o := range s.Nodes {
				ready = ready && o.Answers && o.Status == string(cluster.Connected)
			}
			return ready, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// slots makes the two slots on every node, and opens the manual one. Whoever plays with the demo may have
// changed them; that keeps it from nothing else.
func (d *demo) slots(ctx context.Context) error {
	d.closed = map[seatOf]bool{}
	for _, n := range d.nodes {
		list, err := get[slotList](ctx, n.api, "/slots")
		if err != nil {
			return err
		}
		here := map[string]node.SlotView{}
		for _, v := range list.Here {
			here[v.Label] = v
		}
		for _, s := range []node.NewSlot{{Label: demoCA, Mode: cluster.Manual, Code: []byte(d.secrets.PIN)}, {Label: demoAuto, Mode: cluster.Generated}} {
			v, ok := here[s.Label]
			switch {
			case !ok:
				_, err = post[node.SlotView](ctx, n.api, "/slots", s)
			case v.State == cluster.Active:
			case v.Mode == cluster.Manual && s.Label == demoCA:
				_, err = post[node.SlotView](ctx, n.api, "/slots/"+s.Label+"/activate", map[string][]byte{"code": []byte(d.secrets.PIN)})
			case v.Mode != cluster.Generated:
				err = errors.New("people open it")
			}
			if ok && err != nil {
				fmt.Fprintf(d.out, "%s: slot %s stays closed: %v\n", n.name, s.Label, err)
				d.closed[seatOf{s.Label, n.name}] = true
			} else if err != nil {
				return fmt.Errorf("%s: slot %s: %w", n.name, s.Label, err)
			}
		}
	}
	return nil
}

// settled waits until every node knows that the demo's slots are active everywhere and can receive packages,
// and has told which keys it holds.
func (d *demo) settled(ctx context.Context) error {
	for _, n := range d.nodes {
		if err := n.await(ctx, "the slots are active everywhere", func() (bool, error) { return d.settledOn(ctx, n), nil }); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) settledOn(ctx context.Context, n *demoNode) bool {
	list, err := get[slotList](ctx, n.api, "/slots")
	if err != nil {
		return false
	}
	ready := map[seatOf]bool{}
	for _, s := range list.Slots {
		for name, seat := range s.Seats {
			ready[seatOf{s.Label, name}] = seat.State == cluster.Active && seat.Receiver != ""
		}
	}
	for _, v := range list.Here {
		here := seatOf{v.Label, n.name}
		ready[here] = ready[here] && !v.Listed.IsZero()
	}
	for _, label := range []string{demoCA, demoAuto} {
		for _, o := range d.nodes {
			if seat := (seatOf{label, o.name}); !ready[seat] && !d.closed[seat] {
				return false
			}
		}
	}
	return true
}

// stop ends the daemons, all at once: no leader is left to hand over to.
func (d *demo) stop() {
	for _, n := range d.nodes {
		if n.daemon != nil && n.daemon.Process != nil {
			n.daemon.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, n := range d.nodes {
		if n.ended == nil {
			continue
		}
		select {
		case <-n.ended:
		case <-time.After(20 * time.Second):
			n.daemon.Process.Kill()
			<-n.ended
		}
	}
}
