package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"golang.org/x/sys/unix"
)

// SyslogConfig says where this node sends its audit entries: RFC 5424 messages over TLS (RFC 5425).
type SyslogConfig struct {
	Address     string // host:port; empty: nowhere
	CAFile      string // PEM; who may have signed the sink's certificate
	Certificate string // PEM, with Key; empty: none is shown
	Key         string
	Facility    string // one of SyslogFacilities
}

// SyslogStatus is how sending goes.
type SyslogStatus struct {
	Address   string    `json:"address"` // empty: not configured
	Connected bool      `json:"connected"`
	Waiting   int       `json:"waiting"` // entries on disk that the sink has not confirmed
	Since     time.Time `json:"since,omitzero"`
	Sent      uint64    `json:"sent"`  // confirmed since this node started
	Error     string    `json:"error"` // why the last attempt failed; empty: it did not
	ErrorTime time.Time `json:"error_time,omitzero"`
}

// Syslog sends the entries of this node's own acts to a sink, each at least once and in order. Nothing
// waits for it: acts are written to the trail, the trail is copied to a queue on disk, and the queue is
// sent from there.
type Syslog struct {
	m     *Member
	cfg   SyslogConfig
	queue *syslogQueue

	settle  time.Duration // how long a connection must stay whole after the sink's TCP has taken an entry
	patient time.Duration // how long the sink's TCP may take nothing
	retry   time.Duration // pause after the first failure; it doubles up to maxRetry

	connected atomic.Bool
	sent      atomic.Uint64
	mu        sync.Mutex
	err       error
	errTime   time.Time
}

const (
	// syslogSettle: TCP acknowledges what the sink's kernel has, not what its program has read. A sink
	// that ends with unread data resets the connection, and that arrives well within this time.
	syslogSettle  = 3 * time.Second
	syslogPatient = 30 * time.Second
	syslogRetry   = time.Second
	maxRetry      = time.Minute

	syslogWindow = 500                    // entries on their way at once
	syslogLook   = 100 * time.Millisecond // between looks at what was acknowledged
	syslogDial   = 10 * time.Second
)

func newSyslog(m *Member, cfg SyslogConfig) (*Syslog, error) {
	y := &Syslog{m: m, cfg: cfg, settle: syslogSettle, patient: syslogPatient, retry: syslogRetry}
	if cfg.Address == "" {
		return y, nil
	}
	var err error
	y.queue, err = openSyslogQueue(m.node.store)
	return y, err
}

// watch copies new entries to the queue.
func (y *Syslog) watch(ctx context.Context) {
	if y.queue == nil {
		return
	}
	for {
		s, changed := y.m.Cluster.Watch()
		from, to, err := y.queue.copy(s, y.m.Name())
		if err != nil {
			y.m.log.Error("audit entries cannot be queued for syslog", "error", err)
			y.failed(fmt.Errorf("the queue on disk: %w", err))
		}
		if from > 0 {
			y.m.log.Error("audit entries were forgotten before they were queued for syslog", "from", from, "to", to)
			y.m.acts.note(ctx, y.m.self(), cluster.NoteSyslogGap, "node/"+y.m.Name(), cluster.Failed, fmt.Sprintf("%s no longer kept and not sent", entriesAre(from, to)))
		}
		select {
		case <-changed:
		case <-time.After(time.Minute): // room in the queue
		case <-ctx.Done():
			return
		}
	}
}

// send sends what is in the queue, over one connection after another.
func (y *Syslog) send(ctx context.Context) {
	if y.queue == nil {
		return
	}
	pause := y.retry
	for ctx.Err() == nil {
		if n, _ := y.queue.waiting(); n == 0 {
			select {
			case <-y.queue.added:
			case <-ctx.Done():
			}
			continue
		}
		before := y.sent.Load()
		err := y.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		y.failed(err)
		if y.sent.Load() > before {
			pause = y.retry
		}
		y.m.log.Warn("the syslog sink does not take audit entries; they are kept", "address", y.cfg.Address, "error", err, "next", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxRetry)
	}
}

func (y *Syslog) failed(err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.err, y.errTime = err, time.Now()
}

// Status describes how sending goes.
func (y *Syslog) Status() SyslogStatus {
	st := SyslogStatus{Address: y.cfg.Address, Connected: y.connected.Load(), Sent: y.sent.Load()}
	if y.queue == nil {
		return st
	}
	st.Waiting, st.Since = y.queue.waiting()
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.err != nil {
		st.Error, st.ErrorTime = y.err.Error(), y.errTime
	}
	return st
}

// countedConn counts what was written, so that what is unacknowledged can be told by message.
type countedConn struct {
	*net.TCPConn
	written atomic.Int64
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// acknowledged is how many of the written bytes the other side's TCP has (SIOCOUTQ, tcp(7)).
func (c *countedConn) acknowledged() (int64, error) {
	written := c.written.Load() // before the look: what is written meanwhile counts as not acknowledged
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var unsent int
	var ioErr error
	if err := raw.Control(func(fd uintptr) { unsent, ioErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return 0, err
	}
	return written - int64(unsent), ioErr
}

// tls makes the configuration from the files as they are now, so that renewed ones are used.
func (y *Syslog) tls() (*tls.Config, error) {
	host, _, err := net.SplitHostPort(y.cfg.Address)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(y.cfg.CAFile)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: x509.NewCertPool()}
	if !cfg.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", y.cfg.CAFile)
	}
	if y.cfg.Certificate != "" {
		own, err := tls.LoadX509KeyPair(y.cfg.Certificate, y.cfg.Key)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{own}
	}
	return cfg, nil
}

// stream sends over one connection until it breaks or ctx ends.
func (y *Syslog) stream(ctx context.Context) error {
	cfg, err := y.tls()
	if err != nil {
		return err
	}
	dialCtx, cancel := context.WithTimeout(ctx, syslogDial)
	defer cancel()
	plain, err := (&net.Dialer{}).DialContext(dialCtx, "tcp", y.cfg.Address)
	if err != nil {
		return err
	}
	counted := &countedConn{TCPConn: plain.(*net.TCPConn)}
	defer counted.Close()
	conn := tls.Client(counted, cfg)
	if err := conn.HandshakeContext(dialCtx); err != nil {
		return err
	}
	broken := make(chan error, 1)
	go func() { // ends when the connection does
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			err = errors.New("the sink closed the connection")
		}
		broken <- err
	}()
	stop := context.AfterFunc(ctx, func() { counted.SetWriteDeadline(time.Unix(1, 0)) }) // a write that blocks ends too
	defer stop()
	y.connected.Store(true)
	defer y.connected.Store(false)
	flight := &syslogFlight{ctx: ctx, y: y, conn: conn, counted: counted}
	for {
		if err := flight.advance(time.Now()); err != nil {
			return err
		}
		var look <-chan time.Time
		if len(flight.on) > 0 {
			look = time.After(syslogLook)
		}
		select {
		case err := <-broken:
			return err
		case <-y.queue.added:
		case <-look:
		case <-ctx.Done():
			conn.Close() // says that nothing more comes; what is not confirmed is sent again
			return ctx.Err()
		}
	}
}

// syslogFlight is what was sent over one connection and is not confirmed.
type syslogFlight struct {
	ctx     context.Context
	y       *Syslog
	conn    *tls.Conn
	counted *countedConn
	last    uint64 // number of the last entry sent
	on      []sentEntry
	moved   time.Time // when something was acknowledged last
}

type sentEntry struct {
	seq   uint64
	end   int64     // of its bytes on the connection
	acked time.Time // zero: not yet
}

// advance sends as much as the window takes and lets go what is confirmed.
func (f *syslogFlight) advance(now time.Time) error {
	if err := f.confirm(now); err != nil {
		return err
	}
	entries, err := f.y.queue.after(f.last, syslogWindow-len(f.on))
	if err != nil {
		return err
	}
	id := f.y.m.State().Cluster.ID
	for _, e := range entries {
		message, err := syslogMessage(e, id, SyslogFacilities[f.y.cfg.Facility])
		if err != nil {
			return fmt.Errorf("entry %d: %w", e.Seq, err)
		}
		f.conn.SetWriteDeadline(time.Now().Add(f.y.patient)) // of this one: many take longer
		if err := f.ctx.Err(); err != nil {                  // after the deadline, which the end of ctx changes
			return err
		}
		if _, err := f.conn.Write(syslogFrame(message)); err != nil {
			return err
		}
		if len(f.on) == 0 {
			f.moved = now
		}
		f.last = e.Seq
		f.on = append(f.on, sentEntry{seq: e.Seq, end: f.counted.written.Load()})
	}
	return nil
}

// confirm finds out what the sink's TCP has, and drops from the queue what it has had for long enough
// while it took everything.
func (f *syslogFlight) confirm(now time.Time) error {
	if len(f.on) == 0 {
		return nil
	}
	acked, err := f.counted.acknowledged()
	if err != nil {
		return err
	}
	done := 0
	for i := range f.on {
		e := &f.on[i]
		if e.acked.IsZero() && e.end <= acked {
			e.acked, f.moved = now, now
		}
		if !e.acked.IsZero() && now.Sub(e.acked) >= f.y.settle {
			done = i + 1
		}
	}
	if f.on[len(f.on)-1].acked.IsZero() {
		if now.Sub(f.moved) > f.y.patient {
			return fmt.Errorf("the sink has taken nothing for %s", f.y.patient)
		}
		return nil // it may be that it reads nothing, and what it took is in its kernel alone
	}
	if done == 0 {
		return nil
	}
	n, err := f.y.queue.drop(f.on[done-1].seq)
	if err != nil {
		return err
	}
	f.on = f.on[done:]
	f.y.sent.Add(uint64(n))
	f.y.mu.Lock()
	f.y.err = nil
	f.y.mu.Unlock()
	return nil
}
