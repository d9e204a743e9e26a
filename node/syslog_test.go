package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/leodido/go-syslog/v4/rfc5424"
)

// newTestSyslog is a Syslog without a cluster, and the queue that it sends.
func newTestSyslog(t testing.TB, s *syslogSink) *Syslog {
	t.Helper()
	st, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Open(cluster.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); st.close() })
	m := &Member{Cluster: c, log: slog.New(slog.DiscardHandler), node: &Node{store: st, cfg: Config{Name: "node1"}}}
	y, err := newSyslog(m, SyslogConfig{Address: s.address, CAFile: s.ca, Facility: DefaultFacility})
	if err != nil {
		t.Fatal(err)
	}
	y.settle, y.patient, y.retry = 150*time.Millisecond, 10*time.Second, 20*time.Millisecond
	return y
}

// fill puts entries of node1 into the queue, so that it ends with number last.
func fillQueue(t testing.TB, y *Syslog, last int) {
	t.Helper()
	s := newTestTrail(last)
	if _, _, err := y.queue.copy(s, "node1"); err != nil {
		t.Fatal(err)
	}
}

// newTestTrail is a trail of n entries, of which every third is of node2.
func newTestTrail(n int) *cluster.State {
	s := &cluster.State{Cluster: cluster.Info{ID: "c1"}}
	for i := 1; i <= n; i++ {
		name := "node1"
		if i%3 == 0 {
			name = "node2"
		}
		s.Audit = append(s.Audit, cluster.Entry{Seq: uint64(i), Time: trailEpoch, Node: name, Actor: cluster.Actor{Kind: cluster.ByAccount, Name: "anna"},
			Act: "slot.activate", Object: "slot/x", Result: cluster.Done, Detail: strings.Repeat("text ", 60), Hash: fmt.Sprintf("%064x", i)})
	}
	return s
}

// run sends until the queue is empty and the sink has every entry, in order.
func (s *syslogSink) run(y *Syslog, last int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { y.send(ctx); close(done) }()
	eventually(s.t, "the queue is empty", func() bool { n, _ := y.queue.waiting(); return n == 0 })
	cancel()
	<-done
	s.mu.Lock()
	defer s.mu.Unlock()
	at := 0
	for i := 1; i <= last; i++ {
		if i%3 == 0 {
			continue
		}
		if at >= len(s.seqs) || s.seqs[at] != uint64(i) {
			s.t.Fatalf("entry %d is lost or out of order; the sink has %d entries", i, len(s.seqs))
		}
		at++
	}
	if at != len(s.seqs) {
		s.t.Errorf("the sink has %d entries, %d were sent", len(s.seqs), at)
	}
}

// TestSyslogSinks sends to sinks that behave as sinks do. None loses an entry, and the order stays.
func TestSyslogSinks(t *testing.T) {
	const last = 900
	for name, behave := range map[string]func(s *syslogSink) func(n int, c net.Conn){
		"good": func(s *syslogSink) func(int, net.Conn) {
			return func(_ int, c net.Conn) { s.take(c, -1) }
		},
		"closes after 100": func(s *syslogSink) func(int, net.Conn) {
			return func(n int, c net.Conn) {
				if n < 4 {
					s.take(c, 100)
					c.Close()
					return
				}
				s.take(c, -1)
			}
		},
		"resets after 50": func(s *syslogSink) func(int, net.Conn) {
			return func(n int, c net.Conn) {
				if n < 3 {
					s.take(c, 50)
					c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
					c.(*tls.Conn).NetConn().Close()
					return
				}
				s.take(c, -1)
			}
		},
		"no handshake at first": func(s *syslogSink) func(int, net.Conn) {
			return func(n int, c net.Conn) {
				if n < 2 {
					c.(*tls.Conn).NetConn().Close()
					return
				}
				s.take(c, -1)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSyslogSink(t)
			y := newTestSyslog(t, s)
			fillQueue(t, y, last)
			stop := s.serve(behave(s))
			defer stop()
			s.run(y, last)
			if st := y.Status(); st.Error != "" || st.Waiting != 0 || st.Sent != last-last/3 {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestSyslogSinkNeverReads: a sink that takes connections and reads nothing is given up after a while, and
// told of; what it has not taken goes to the next connection.
func TestSyslogSinkNeverReads(t *testing.T) {
	const last = 900
	s := newSyslogSink(t)
	y := newTestSyslog(t, s)
	y.patient = 300 * time.Millisecond
	fillQueue(t, y, last)
	told := make(chan struct{})
	stop := s.serve(func(n int, c net.Conn) {
		if n > 0 {
			s.take(c, -1)
			return
		}
		c.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096)
		c.(*tls.Conn).Handshake()
		<-told
	})
	defer stop()
	go func() {
		defer close(told)
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
			if e := y.Status().Error; strings.Contains(e, "taken nothing") || strings.Contains(e, "timeout") {
				return
			}
		}
		t.Error("the status never told that the sink takes nothing")
	}()
	s.run(y, last)
}

// TestSyslogSinkIsGone: while nobody answers, entries wait on disk, also over a restart, and the status
// says so; when the sink is back all of them come.
func TestSyslogSinkIsGone(t *testing.T) {
	s := newSyslogSink(t)
	y := newTestSyslog(t, s)
	fillQueue(t, y, 300)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { y.send(ctx); close(done) }()
	eventually(t, "the status tells of the failure", func() bool {
		st := y.Status()
		return strings.Contains(st.Error, "refused") && st.Waiting == 200 && !st.Since.IsZero()
	})
	cancel()
	<-done
	again, err := newSyslog(y.m, y.cfg) // as after a restart
	if err != nil {
		t.Fatal(err)
	}
	again.settle, again.patient, again.retry = y.settle, y.patient, y.retry
	fillQueue(t, again, 600)
	if n, _ := again.queue.waiting(); n != 400 {
		t.Errorf("%d entries wait", n)
	}
	stop := s.serve(func(_ int, c net.Conn) { s.take(c, -1) })
	defer stop()
	s.run(again, 600)
}

// A sink with a certificate of somebody else gets nothing.
func TestSyslogStranger(t *testing.T) {
	s, other := newSyslogSink(t), newSyslogSink(t)
	y := newTestSyslog(t, s)
	y.cfg.CAFile = other.ca
	fillQueue(t, y, 3)
	stop := s.serve(func(_ int, c net.Conn) { s.take(c, -1) })
	defer stop()
	if err := y.stream(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("sending to a stranger: %v", err)
	}
	for _, c := range []SyslogConfig{{Address: s.address, CAFile: "/nonexistent"}, {Address: s.address, CAFile: s.ca, Certificate: s.ca, Key: s.ca}} {
		y.cfg = c
		if err := y.stream(t.Context()); err == nil {
			t.Errorf("%+v works", c)
		}
	}
}

// TestSyslogQueue: a trail that was shortened while nothing was copied leaves a gap that is told once,
// and a full queue keeps its cursor.
func TestSyslogQueue(t *testing.T) {
	y := newTestSyslog(t, newSyslogSink(t))
	q := y.queue
	s := newTestTrail(100)
	if from, _, err := q.copy(s, "node1"); from != 0 || err != nil {
		t.Fatal(from, err)
	}
	more := newTestTrail(200)
	more.Audit = more.Audit[150:]
	for i, want := range []uint64{101, 0} {
		if from, to, err := q.copy(more, "node1"); err != nil || from != want || want > 0 && to != 150 {
			t.Errorf("copy %d: gap from %d to %d, %v", i, from, to, err)
		}
	}
	q.most = q.length + 2
	full := newTestTrail(300)
	q.copy(full, "node1")
	if n, _ := q.waiting(); n > q.most || q.cursor >= 300 {
		t.Errorf("%d entries wait, cursor %d", n, q.cursor)
	}
	gone := newTestTrail(400)
	gone.Audit = gone.Audit[390:]
	if from, _, _ := q.copy(gone, "node1"); from == 0 {
		t.Error("a gap behind a full queue is not told")
	}
	if from, _, _ := q.copy(gone, "node1"); from != 0 {
		t.Error("a gap behind a full queue is told again and again")
	}
	first, err := q.after(0, 1)
	if err != nil || len(first) != 1 || first[0].Seq != 1 {
		t.Errorf("the queue begins with %+v, %v", first, err)
	}
	if n, err := q.drop(100); err != nil || n != 67 {
		t.Errorf("%d dropped, %v", n, err)
	}
}

// TestRsyslog sends to the syslog server that Debian has, which takes the messages apart.
func TestRsyslog(t *testing.T) {
	program := hsmtest.Tool(t, "rsyslogd")
	const last = 90
	s := newSyslogSink(t)
	y := newTestSyslog(t, s)
	fillQueue(t, y, last)
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(s.address)
	out, conf := filepath.Join(dir, "out"), filepath.Join(dir, "rsyslog.conf")
	text := fmt.Sprintf(`global(workDirectory=%[1]q maxMessageSize="16k" DefaultNetstreamDriverCAFile=%[2]q DefaultNetstreamDriverCertFile=%[2]q DefaultNetstreamDriverKeyFile=%[3]q)
module(load="imtcp" StreamDriver.Name="gtls" StreamDriver.Mode="1" StreamDriver.AuthMode="anon")
input(type="imtcp" address="127.0.0.1" port=%[4]q)
template(name="line" type="string" string="%%syslogfacility-text%% %%syslogseverity-text%% %%hostname%% %%app-name%% %%msgid%% %%structured-data%%\n")
action(type="omfile" file=%[5]q template="line")
`, dir, s.ca, s.key, port, out)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go y.send(ctx)
	var lines []string
	eventually(t, "rsyslog has written every entry", func() bool {
		b, _ := os.ReadFile(out)
		lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		return len(lines) == last-last/3
	})
	for i, line := range lines {
		seq := i/2*3 + i%2 + 1
		if !strings.HasPrefix(line, "authpriv info node1 keyferry slot.activate ["+syslogElement+" ") || !strings.Contains(line, fmt.Sprintf(`seq="%d"`, seq)) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
	eventually(t, "the queue is empty", func() bool { n, _ := y.queue.waiting(); return n == 0 })
}

func TestSyslogMessage(t *testing.T) {
	e := cluster.Entry{Seq: 7, Time: trailEpoch.Add(123456789), Node: "node1", Actor: cluster.Actor{Kind: cluster.ByConsole, Name: `ro"ot`}, Act: strings.Repeat("long.act", 8),
		Object: `slot/a]b\c`, Result: cluster.Done, Detail: "Grüße", Hash: strings.Repeat("ab", 32), ActID: "x"}
	for want, change := range map[uint8]func(*cluster.Entry){
		severityInfo:    func(e *cluster.Entry) {},
		severityWarning: func(e *cluster.Entry) { e.Result = cluster.Refused },
		severityError:   func(e *cluster.Entry) { e.Result = cluster.Failed },
		severityAlert:   func(e *cluster.Entry) { e.Alert = cluster.AlertDenied },
	} {
		e := e
		change(&e)
		text, err := syslogMessage(e, "c1", SyslogFacilities["local0"])
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := rfc5424.NewParser().Parse([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		m := parsed.(*rfc5424.SyslogMessage)
		data := (*m.StructuredData)[syslogElement]
		if *m.Facility != 16 || *m.Severity != want || *m.Hostname != "node1" || *m.MsgID != e.Act[:32] || !m.Timestamp.Equal(e.Time.Truncate(time.Microsecond)) {
			t.Errorf("%q is read as %+v", text, m)
		}
		if data["seq"] != "7" || data["hash"] != e.Hash || data["actor"] != e.Actor.Name || data["object"] != e.Object || data["detail"] != e.Detail || data["alert"] != e.Alert || data["act"] != e.Act || data["cluster"] != "c1" {
			t.Errorf("%q has the data %v", text, data)
		}
		if !strings.HasPrefix(*m.Message, "\ufeffconsole/ro") {
			t.Errorf("message %q", *m.Message)
		}
	}
}
