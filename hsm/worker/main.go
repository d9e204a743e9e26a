package worker

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"golang.org/x/sys/unix"
)

// lingering is how long calls may go on after the daemon has gone, so that a key is written whole.
const lingering = 10 * time.Second

// Main runs the child until its pipe ends. It never returns before the module is shut down, or cannot
// be.
func Main() error {
	// The daemon decides when the child ends: by closing the pipe. A signal from a terminal or a service
	// manager must not come in the middle of a write.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if err := harden(); err != nil {
		return err
	}
	debug.SetTraceback("none") // a trace could show arguments
	unix.CloseOnExec(hsm.ChildConn)
	unix.CloseOnExec(hsm.ChildLock)
	f := os.NewFile(hsm.ChildConn, "daemon")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("this command is for the daemon to start: %w", err)
	}
	if err := lock(); err != nil {
		return err
	}
	w := newWorker()
	err = serve(conn, w)
	w.close()
	return err
}

// serve ends when the pipe ends and the calls in flight have ended, or lingering has passed.
func serve(conn io.ReadWriter, w *worker) error {
	ended := &endWatch{conn: conn, ended: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- hsm.Serve(ended, w.handle) }()
	select {
	case err := <-done:
		return err
	case <-ended.ended:
	}
	select {
	case err := <-done:
		return err
	case <-time.After(lingering):
		os.Stderr.WriteString("a call into the module does not return; leaving\n")
		os.Exit(1) // C_Finalize under a running call would crash: this is the only way out
	}
	return nil
}

// endWatch tells when reading has ended.
type endWatch struct {
	conn  io.ReadWriter
	ended chan struct{}
}

func (e *endWatch) Write(b []byte) (int, error) { return e.conn.Write(b) }
func (e *endWatch) Read(b []byte) (int, error) {
	n, err := e.conn.Read(b)
	if err != nil {
		select {
		case <-e.ended:
		default:
			close(e.ended)
		}
	}
	return n, err
}

// harden keeps other processes and core files out of this one's memory, and the memory out of swap
// where the system allows that.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &lim); err == nil && lim.Cur == unix.RLIM_INFINITY {
		if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
			return fmt.Errorf("mlockall: %w", err)
		}
	}
	return nil
}

// lock waits until no earlier child uses the same tokens: one that outlived its daemon may still be
// finishing a write.
func lock() error {
	if _, err := unix.FcntlInt(hsm.ChildLock, unix.F_GETFD, 0); err != nil {
		return nil // the daemon uses no lock
	}
	for until := time.Now().Add(2 * lingering); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(hsm.ChildLock, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("another process holds this module's lock file: %w", err)
		}
	}
}
