package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// privateBus runs a message bus of the test's own and makes it the system bus of this process.
func privateBus(t *testing.T) string {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "bus.conf")
	text := `<busconfig><type>system</type><listen>unix:dir=` + t.TempDir() + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(hsmtest.Tool(t, "dbus-daemon"), "--nofork", "--print-address", "--config-file="+conf)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	return address
}

// A manager stands in for systemd on the bus: it answers the calls that a restart makes, as systemd's D-Bus
// interface describes them (org.freedesktop.systemd1(5)).
type manager struct {
	conn *dbus.Conn

	mu     sync.Mutex
	result string   // of the next job
	states []string // that a unit passes through; the last one stays
	asked  []string
}

const (
	jobPath  = dbus.ObjectPath("/org/freedesktop/systemd1/job/7")
	unitPath = dbus.ObjectPath("/org/freedesktop/systemd1/unit/ejbca_2eservice")
)

func (m *manager) RestartUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, unit+" "+mode)
	if unit != "ejbca.service" {
		return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"Unit " + unit + " not found."})
	}
	if m.result != "" { // otherwise the job never ends
		go m.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", uint32(7), jobPath, unit, m.result)
	}
	return jobPath, nil
}

// GetAll is org.freedesktop.DBus.Properties of the unit.
func (m *manager) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, sub, _ := strings.Cut(m.states[0], " ")
	if len(m.states) > 1 {
		m.states = m.states[1:]
	}
	return map[string]dbus.Variant{"ActiveState": dbus.MakeVariant(state), "SubState": dbus.MakeVariant(sub)}, nil
}

func newManager(t *testing.T, address string) *manager {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := &manager{conn: conn}
	if err := conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if err := conn.Export(m, unitPath, "org.freedesktop.DBus.Properties"); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("the name on the bus: %v, %v", r, err)
	}
	return m
}

// TestRestartUnit speaks to a stand-in for systemd over a real bus.
func TestRestartUnit(t *testing.T) {
	m := newManager(t, privateBus(t))
	for _, c := range []struct {
		what, unit, result string
		states             []string
		says               string // empty: it is up
	}{
		{"up at once", "ejbca.service", "done", []string{"active running"}, ""},
		{"up after a while", "ejbca.service", "done", []string{"activating start", "activating start-post", "active running"}, ""},
		{"has done its work", "ejbca.service", "done", []string{"inactive dead"}, ""},
		{"fails", "ejbca.service", "failed", []string{"failed failed"}, `ended as "failed"`},
		{"fails right after", "ejbca.service", "done", []string{"activating start", "failed failed"}, "is failed (failed) now"},
		{"depends on another", "ejbca.service", "dependency", []string{"inactive dead"}, `ended as "dependency"`},
		{"unknown", "nothing.service", "done", []string{"inactive dead"}, "Unit nothing.service not found"},
		{"hangs", "ejbca.service", "", []string{"activating start"}, "has not ended in time"},
		{"never up", "ejbca.service", "done", []string{"activating start"}, "still activating (start)"},
	} {
		t.Run(c.what, func(t *testing.T) {
			m.mu.Lock()
			m.result, m.states, m.asked = c.result, c.states, nil
			m.mu.Unlock()
			limit := 30 * time.Second
			if c.what == "hangs" || c.what == "never up" {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := restartUnit(ctx, c.unit)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if want := fmt.Sprint([]string{c.unit + " replace"}); fmt.Sprint(m.asked) != want {
				t.Errorf("systemd was asked %v, want %s", m.asked, want)
			}
		})
	}
	t.Run("no bus", func(t *testing.T) {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
		if err := restartUnit(t.Context(), "ejbca.service"); err == nil || !strings.Contains(err.Error(), "does not answer on the system bus") {
			t.Errorf("error %v", err)
		}
	})
}
