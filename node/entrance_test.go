package node

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

const entrancePassword = "a long way to Tipperary"

// TestStartCertificate: a new node has one certificate, which outlives a restart and ends with membership.
func TestStartCertificate(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "node1")
	n := open(t, cfg)
	first, err := n.Entrance().Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(cfg.Dir, startFile)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key of the start: %v, %v", info, err)
	}
	n.Close()
	n = open(t, cfg)
	if again, err := n.Entrance().Fingerprint(); err != nil || again != first {
		t.Errorf("after a restart it is %s, not %s: %v", again, first, err)
	}
	n.Close()
	if err := os.WriteFile(file, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = open(t, cfg)
	if again, err := n.Entrance().Fingerprint(); err != nil || again == first {
		t.Errorf("a broken file gives %s: %v", again, err)
	}
	c, err := n.Entrance().Certificate()
	if err != nil || c.Leaf.VerifyHostname("node1") != nil || c.Leaf.VerifyHostname(hostOf(cfg.WebURL)) != nil || c.Leaf.IsCA {
		t.Errorf("%+v, %v", c.Leaf, err)
	}
	if _, err := n.Entrance().NewCode(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key of the start is still there: %v", err)
	}
	if _, err := get[firstCode](n.store, bucketStart, startKey); !errors.Is(err, errAbsent) {
		t.Errorf("the code of the start is still there: %v", err)
	}
	if _, err := n.Entrance().Certificate(); err == nil {
		t.Error("a member makes a certificate for the start")
	}
	for what, err := range map[string]error{"code": n.Entrance().CheckCode("0000-0000-0000-0000-0000"), "found": n.Entrance().Found("x", "alice", entrancePassword),
		"join": n.Entrance().Join("127.0.0.1:1", strings.Repeat("AA", 32), "0000-0000-0000-0000-0000", nil)} {
		if !IsRefusal(err) || !strings.Contains(err.Error(), "in a cluster already") {
			t.Errorf("%s on a member: %v", what, err)
		}
	}
}

// TestStartCode: good once, not after five wrong tries, not after a day.
func TestStartCode(t *testing.T) {
	n := open(t, testConfig(t, t.TempDir(), "node1"))
	e := n.Entrance()
	fresh := func() string {
		t.Helper()
		code, err := e.NewCode()
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
	wrong, _ := cluster.NewJoinCode()
	refused := func(what, code string) {
		t.Helper()
		if err := e.CheckCode(code); !errors.Is(err, ErrFirstCode) || !IsRefusal(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("before there is a code", wrong)
	old := fresh()
	code := fresh()
	refused("a code that was replaced", old)
	refused("no code", "")
	if err := e.CheckCode(strings.ToLower(code)); err != nil {
		t.Error(err)
	}
	refused("a second time", code)
	code = fresh()
	for range firstCodeTries {
		refused("a wrong code", wrong)
	}
	refused("after too many tries", code)
	code = fresh()
	c, err := get[firstCode](n.store, bucketStart, startKey)
	if err != nil || strings.Contains(c.Hash, code) {
		t.Fatalf("%+v, %v", c, err)
	}
	c.Expires = time.Now().Add(-time.Second)
	if err := n.store.put(bucketStart, startKey, c); err != nil {
		t.Fatal(err)
	}
	refused("after its time", code)
}

// entered waits for the end of an attempt.
func entered(t testing.TB, e *Entrance) Entry {
	t.Helper()
	eventually(t, "the attempt ends", func() bool { return !e.Now().Running })
	return e.Now()
}

// TestEntrance founds a cluster and joins it as the pages do, and makes every mistake on the way first.
func TestEntrance(t *testing.T) {
	one := open(t, testConfig(t, t.TempDir(), "node1"))
	for want, err := range map[string]error{
		"cluster name is missing":     one.Entrance().Found("", "alice", entrancePassword),
		"begins or ends with a space": one.Entrance().Found("x ", "alice", entrancePassword),
		"at most 64":                  one.Entrance().Found(strings.Repeat("x", 65), "alice", entrancePassword),
		"account name":                one.Entrance().Found("test", "A B", entrancePassword),
		"password":                    one.Entrance().Found("test", "alice", "short"),
	} {
		if !IsRefusal(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	busy, err := net.Listen("tcp", one.cfg.PeerListen)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Entrance().Found("test", "alice", entrancePassword); err != nil {
		t.Fatal(err)
	}
	if now := entered(t, one.Entrance()); now.Err == nil || !strings.Contains(now.Err.Error(), "[peer] listen") {
		t.Errorf("with the address for nodes taken: %v", now.Err)
	}
	if rec, err := get[identityRecord](one.store, bucketIdentity, single); !errors.Is(err, errAbsent) {
		t.Errorf("something is half done: %+v, %v", rec, err)
	}
	busy.Close()
	eventually(t, "the address is free", func() bool { // a process that was starting may have it for a moment
		ln, err := net.Listen("tcp", one.cfg.PeerListen)
		if err == nil {
			ln.Close()
		}
		return err == nil
	})
	if err := one.Entrance().Found("test", "alice", entrancePassword); err != nil {
		t.Fatal(err)
	}
	if err := one.Entrance().Found("again", "mallory", entrancePassword); !IsRefusal(err) {
		t.Errorf("at the same time: %v", err)
	}
	if now := entered(t, one.Entrance()); now.Err != nil || now.Stage != cluster.Connected || !now.Founding {
		t.Fatalf("%+v", now)
	}
	m, err := one.Member()
	if err != nil {
		t.Fatal(err)
	}
	if a := m.State().Accounts["alice"]; len(m.State().Accounts) != 1 || len(a.Roles) != 2 || m.State().Cluster.Name != "test" {
		t.Errorf("%+v", m.State().Accounts)
	}
	joinByMistakes(t, m)
}

// joinByMistakes lets a second node join.
func joinByMistakes(t *testing.T, m *Member) {
	inv, err := m.Invite(t.Context(), console, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	defer elsewhere.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	cfg, hold := testConfig(t, t.TempDir(), "node2"), make(chan struct{})
	cfg.Fault = func(step string) {
		if step == "join: connecting" {
			<-hold
		}
	}
	two := open(t, cfg)
	goOn := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(goOn)
	for address, want := range map[string]string{
		"": "address", "node1": "address", "https://node1:7443": "address",
		elsewhere.Listener.Addr().String(): "not that of its console", silent.Addr().String(): "check that it runs",
	} {
		if _, err := two.Entrance().Look(t.Context(), address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("looking at %q: %v", address, err)
		}
	}
	seen, err := two.Entrance().Look(t.Context(), inv.Address)
	if err != nil || seen != inv.Fingerprint {
		t.Fatalf("%s, %v", seen, err)
	}
	other := open(t, testConfig(t, t.TempDir(), "node1"))
	same := testConfig(t, t.TempDir(), "node3")
	same.PeerAddress = inv.Address
	unknown, _ := cluster.NewJoinCode()
	for _, c := range []struct {
		what, fingerprint, code, want string
		n                             *Node
	}{
		{"a wrong fingerprint", strings.Repeat("AA", 32), inv.Code, "the fingerprint of", two},
		{"a code that nobody made", seen, unknown, "is not known", two},
		{"a name that is taken", seen, inv.Code, "choose another name", other},
		{"an address that is taken", seen, inv.Code, "give this one another address", open(t, same)},
	} {
		if err := c.n.Entrance().Join(inv.Address, c.fingerprint, c.code, nil); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if now := entered(t, c.n.Entrance()); now.Err == nil || !strings.Contains(now.Err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, now.Err)
		}
	}
	if err := two.Entrance().Join(inv.Address, seen, "no code", nil); !IsRefusal(err) {
		t.Errorf("what is no code: %v", err)
	}
	if n := len(m.State().Nodes); n != 1 {
		t.Errorf("%d nodes after nothing but mistakes", n)
	}
	if err := two.Entrance().Join(inv.Address, seen, inv.Code, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node1 sees that node2 is connecting", func() bool { return m.State().Nodes["node2"].Status == cluster.Connecting })
	if now := two.Entrance().Now(); !now.Running || slices.Contains(m.Cluster.Status().Voters, "node2") {
		t.Errorf("node2 is connecting: %+v, voters %v", now, m.Cluster.Status().Voters)
	}
	goOn()
	if now := entered(t, two.Entrance()); now.Err != nil || now.Stage != cluster.Connected {
		t.Fatalf("%+v", now)
	}
	if s := m.State().Nodes["node2"].Status; s != cluster.Connected {
		t.Errorf("node2 is %s", s)
	}
}

// TestEntranceCloses: a node that is stopped in the middle of an attempt stops, and another start goes on.
func TestEntranceCloses(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "node1")
	n := open(t, cfg)
	if err := n.Entrance().Found("test", "alice", entrancePassword); err != nil {
		t.Fatal(err)
	}
	n.Close()
	n = open(t, cfg)
	if _, err := n.Member(); err == nil {
		return // it was quick enough
	}
	if err := n.Entrance().Found("test", "alice", entrancePassword); err != nil {
		t.Fatal(err)
	}
	if now := entered(t, n.Entrance()); now.Err != nil {
		t.Error(now.Err)
	}
}
