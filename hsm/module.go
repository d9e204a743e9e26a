package hsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"
)

// Config says which module to run, and how.
type Config struct {
	Name     string            // for messages
	Path     string            // of the PKCS#11 library
	Env      map[string]string // what the library reads from its environment
	InitArgs string            // reserved argument of C_Initialize; NSS needs one
	Command  []string          // starts a child; default is this program with the argument hsm-worker
	Lock     string            // a file that only one child at a time may hold; none when empty
	Log      *slog.Logger

	// Patience, when it is set, shortens the deadlines after which a module counts as hung.
	Patience time.Duration
	// Changed is told when the module comes up, goes down, or loses a token that was logged in. It
	// must not call back into the module.
	Changed func(Event)
	// Fault stands around each call when it is set: tests let calls fail before or after they happen.
	Fault func(op string, call func() error) error
}

// Event is a change that nobody asked for.
type Event struct {
	Up     bool
	Serial string // the token that could not be opened again; empty for the module itself
	Err    error  // why, when it is down or closed
}

// Module runs one PKCS#11 library in a child process.
type Module struct {
	cfg  Config
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	up       *process          // nil while there is no child
	failing  error             // why the last start failed
	changed  chan struct{}     // closed and replaced when anything here changes
	busy     int               // leases given out
	draining bool              // a restart waits for busy to fall to zero
	held     map[string][]byte // serial -> code of tokens to log in again after a restart
	epoch    uint64
}

// Start starts the child and returns at once; calls wait until it is up.
func Start(cfg Config) *Module {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func(Event) {}
	}
	if len(cfg.Command) == 0 {
		cfg.Command = []string{"/proc/self/exe", "hsm-worker"}
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &Module{cfg: cfg, stop: stop, done: make(chan struct{}), changed: make(chan struct{}), held: map[string][]byte{}}
	m.cfg.Log = cfg.Log.With("module", cfg.Name)
	go m.supervise(ctx)
	return m
}

// Close ends the child. Calls in flight fail.
func (m *Module) Close() {
	m.stop()
	<-m.done
}

// Name is the module's name in the configuration.
func (m *Module) Name() string { return m.cfg.Name }

// PID is the child's process id, 0 while there is none.
func (m *Module) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up == nil {
		return 0
	}
	return m.up.cmd.Process.Pid
}

// update changes the module's state and wakes everybody who waits for a change.
func (m *Module) update(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// supervise keeps a child running until the module is closed.
func (m *Module) supervise(ctx context.Context) {
	defer close(m.done)
	wait := restartBackoff
	for ctx.Err() == nil {
		p, closed, err := m.begin(ctx)
		if err != nil {
			m.cfg.Log.Error("HSM worker does not start", "error", err, "again in", wait)
			m.update(func() { m.failing = err })
			m.cfg.Changed(Event{Err: err})
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(2*wait, restartMost)
			continue
		}
		m.update(func() { m.up, m.failing, m.draining = p, nil, false })
		m.cfg.Changed(Event{Up: true})
		for serial, err := range closed {
			m.cfg.Changed(Event{Serial: serial, Err: err})
		}
		select {
		case <-p.gone:
		case <-ctx.Done():
		}
		m.update(func() { m.up = nil })
		why := p.end()
		if ctx.Err() == nil && !p.asked.Load() {
			m.cfg.Log.Error("HSM worker ended", "why", why)
			m.cfg.Changed(Event{Err: &Error{Code: Down, Detail: why}})
		}
		if p.asked.Load() || p.worked.Load() {
			wait = restartBackoff
			continue
		}
		// A child that dies before it was of use will die again: do not spin.
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, restartMost)
	}
	m.update(func() { m.failing = &Error{Code: Down, Object: m.cfg.Name, Detail: "it was shut down"} })
}

// begin starts a child, opens the module in it and logs in the tokens that were open. It returns the
// tokens that did not open again.
func (m *Module) begin(ctx context.Context) (*process, map[string]error, error) {
	m.mu.Lock()
	m.epoch++
	epoch := m.epoch
	held := maps.Clone(m.held)
	m.mu.Unlock()
	p, err := startProcess(m.cfg, epoch)
	if err != nil {
		return nil, nil, err
	}
	l := &lease{m: m, p: p, free: true}
	args := OpenArgs{Path: m.cfg.Path, InitArgs: m.cfg.InitArgs, Epoch: epoch}
	if _, err := call[Info](ctx, l, OpOpen, args, openDeadline); err != nil {
		why := p.end()
		if CodeOf(err) == Down {
			err = fmt.Errorf("%w: %s", err, why)
		}
		return nil, nil, err
	}
	closed := map[string]error{}
	for serial, code := range held {
		_, err := call[Empty](ctx, l, OpLogin, CodeArgs{serial, bytes.Clone(code)}, codeDeadline)
		if err == nil {
			continue
		}
		closed[serial] = err
		m.cfg.Log.Error("token does not open again", "serial", serial, "error", err)
		if c := CodeOf(err); c == WrongCode || c == CodeLocked { // never try a refused code again
			m.forget(serial)
		}
	}
	return p, closed, nil
}

func (m *Module) hold(serial string, code []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.held[serial])
	m.held[serial] = bytes.Clone(code)
}

func (m *Module) forget(serial string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.held[serial])
	delete(m.held, serial)
}

// A lease keeps the child from being restarted on purpose while it is used.
type lease struct {
	m    *Module
	p    *process
	free bool // not counted
	once sync.Once
}

// enter waits for a running child. It fails at once when the module is known not to start.
func (m *Module) enter(ctx context.Context) (*lease, error) {
	for {
		m.mu.Lock()
		if m.up != nil && !m.draining {
			m.busy++
			l := &lease{m: m, p: m.up}
			m.mu.Unlock()
			return l, nil
		}
		failing, changed := m.failing, m.changed
		m.mu.Unlock()
		if failing != nil {
			return nil, &Error{Code: Down, Object: "module " + m.cfg.Name, Detail: failing.Error()}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *lease) leave() {
	if l.free {
		return
	}
	l.once.Do(func() { l.m.update(func() { l.m.busy-- }) })
}

// end ends an export or import session in the child and gives the lease back.
func (l *lease) end(session uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), keyDeadline)
	defer cancel()
	call[Empty](ctx, l, OpEnd, EndArgs{session}, keyDeadline) // a child that is gone has forgotten it already
	l.leave()
}

// call asks the child of a lease. A child that does not answer in time is ended, because a hung
// module answers no other call either.
func call[R any](ctx context.Context, l *lease, op string, args any, limit time.Duration) (R, error) {
	var reply R
	if p := l.m.cfg.Patience; p > 0 {
		limit = min(limit, p)
	}
	err := l.m.guard(op, func() error {
		f, err := l.p.conn.roundTrip(ctx, op, args, limit)
		if errors.Is(err, errDeadline) {
			l.m.cfg.Log.Error("HSM worker hangs and is ended", "operation", op, "after", limit)
			l.m.retire(l.p)
			l.p.kill()
			return &Error{Code: Timeout, Object: "module " + l.m.cfg.Name, Detail: op}
		}
		if err != nil {
			return err
		}
		defer f.wipe()
		l.p.worked.Store(!l.free)
		return f.body(&reply)
	})
	return reply, err
}

// retire makes sure that a child which hangs or has died is given to nobody any more.
func (m *Module) retire(p *process) {
	m.update(func() {
		if m.up == p {
			m.up = nil
		}
	})
}

// guard runs a call through the fault hook, where there is one.
func (m *Module) guard(op string, f func() error) error {
	if m.cfg.Fault == nil {
		return f()
	}
	return m.cfg.Fault(op, f)
}

// repeatable are the operations that may be done twice. When the child ends during one of them, the
// next child is asked.
var repeatable = map[string]bool{OpInfo: true, OpObjects: true, OpPublic: true, OpSweep: true, OpSelfTest: true}

// once enters, calls and leaves.
func once[R any](ctx context.Context, m *Module, op string, args any, limit time.Duration) (R, error) {
	for again := repeatable[op]; ; again = false {
		l, err := m.enter(ctx)
		if err != nil {
			var none R
			return none, err
		}
		reply, err := call[R](ctx, l, op, args, limit)
		l.leave()
		if !again || CodeOf(err) != Down {
			return reply, err
		}
		m.retire(l.p)
	}
}

// Restart ends the child when no call is in flight and waits for the next one. It is how a module is
// initialized anew: C_Finalize under running calls crashes real modules.
func (m *Module) Restart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainDeadline)
	defer cancel()
	m.mu.Lock()
	before := m.up
	m.draining = before != nil
	m.mu.Unlock()
	for {
		m.mu.Lock()
		up, busy, failing, changed := m.up, m.busy, m.failing, m.changed
		m.mu.Unlock()
		switch {
		case up != nil && up != before:
			return nil
		case up == nil && failing != nil:
			return &Error{Code: Down, Object: "module " + m.cfg.Name, Detail: failing.Error()}
		case up != nil && busy == 0:
			up.asked.Store(true)
			up.kill()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			m.update(func() { m.draining = false })
			return fmt.Errorf("module %s is busy: %w", m.cfg.Name, ctx.Err())
		}
	}
}

// exists is a small courtesy: a path that is not there gets a better message than dlopen's.
func exists(path string) error {
	if _, err := os.Stat(path); err != nil {
		return &Error{Code: ModuleNotLoaded, Object: path, Detail: "no such file; check the module's path in the configuration, and that its package is installed"}
	}
	return nil
}
