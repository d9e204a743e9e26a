package hsm

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The file descriptors a child finds open, besides the standard ones.
const (
	ChildConn = 3 // the pipe to the parent
	ChildLock = 4 // the lock file, where the configuration names one
)

// A process is one running child.
type process struct {
	cmd   *exec.Cmd
	conn  *conn
	epoch uint64
	gone  <-chan struct{}
	began time.Time

	asked  atomic.Bool // its end was asked for
	worked atomic.Bool // it answered a call
}

func startProcess(cfg Config, epoch uint64) (*process, error) {
	if err := exists(cfg.Path); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the HSM worker: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "hsm-worker"), os.NewFile(uintptr(fds[1]), "daemon")
	defer ours.Close() // net.FileConn has its own copy
	defer theirs.Close()
	rw, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(cfg.Command[0], cfg.Command[1:]...)
	cmd.Env = os.Environ()
	for k, v := range cfg.Env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.ExtraFiles = []*os.File{theirs}
	if cfg.Lock != "" {
		lock, err := os.OpenFile(cfg.Lock, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			rw.Close()
			return nil, fmt.Errorf("lock file of module %s: %w", cfg.Name, err)
		}
		defer lock.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, lock)
	}
	// A group of its own: Ctrl-C at the terminal must not end the child in the middle of a write.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	logTo := &lineLog{log: cfg.Log}
	cmd.Stderr = logTo
	if err := cmd.Start(); err != nil {
		rw.Close()
		return nil, fmt.Errorf("starting the HSM worker: %w", err)
	}
	c := newConn(rw)
	return &process{cmd: cmd, conn: c, epoch: epoch, gone: c.gone, began: time.Now()}, nil
}

// kill ends the child now.
func (p *process) kill() { p.cmd.Process.Kill() }

// end makes sure that the child is gone and says how it ended.
func (p *process) end() string {
	p.conn.rw.Close() // a child whose pipe closes finishes its calls and exits
	<-p.gone
	if p.cmd.ProcessState == nil {
		p.cmd.Wait() // its text says less than the state
	}
	if p.cmd.ProcessState == nil {
		return "unknown"
	}
	return p.cmd.ProcessState.String()
}

// lineLog passes what a module prints to the log, line by line, cut to a sane length.
type lineLog struct {
	log  *slog.Logger
	rest []byte
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		n, line, _ := bufio.ScanLines(l.rest, false)
		if n == 0 && len(l.rest) < 4096 {
			return len(b), nil
		}
		if n == 0 {
			n, line = len(l.rest), l.rest
		}
		l.log.Info("HSM module says", "line", strings.ToValidUTF8(string(line), "?"))
		l.rest = l.rest[n:]
	}
}
