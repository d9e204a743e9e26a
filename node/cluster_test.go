package node

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

func TestMain(m *testing.M) { hsmtest.Main(m) }

var console = cluster.Actor{Kind: cluster.ByConsole, Name: "root"}

// freeAddress finds an address that nothing listens on. It is below the ports that systems give to outgoing
// connections, because a node may listen on it only much later.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+mathrand.IntN(20000))
		if ln, err := net.Listen("tcp", address); err == nil {
			ln.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// testConfig describes a node on a SoftHSM of its own.
func testConfig(t testing.TB, dir, name string) Config {
	t.Helper()
	soft := hsmtest.SoftHSM(t, filepath.Join(dir, "softhsm"))
	address := freeAddress(t)
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	return Config{
		Name: name, Dir: filepath.Join(dir, "data"), Version: "test", PeerListen: address, PeerAddress: address,
		WebURL: "https://" + freeAddress(t), Modules: []ModuleConfig{{Name: "softhsm", Path: soft.Path, Env: soft.Env}},
		RestartDir: filepath.Join(dir, "restart.d"), WeakHashes: true,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", name),
	}
}

func open(t testing.TB, cfg Config) *Node {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// newCluster founds a cluster with so many nodes.
func newCluster(t testing.TB, count int, change ...func(*Config)) []*Member {
	t.Helper()
	var members []*Member
	for i := range count {
		cfg := testConfig(t, t.TempDir(), fmt.Sprintf("node%d", i+1))
		for _, f := range change {
			f(&cfg)
		}
		n := open(t, cfg)
		if i == 0 {
			if _, err := n.Found(t.Context(), console, "test"); err != nil {
				t.Fatal(err)
			}
		} else {
			inv, err := members[0].Invite(t.Context(), console, n.Name(), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err != nil {
				t.Fatal(err)
			}
		}
		m, err := n.Member()
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, m)
	}
	for _, m := range members {
		eventually(t, m.Name()+" knows all nodes, connected", func() bool {
			s := m.State()
			for _, n := range s.Nodes {
				if n.Status != cluster.Connected || !m.Peers.Seen(n.Name).Answers {
					return false
				}
			}
			return len(s.Nodes) == count
		})
	}
	return members
}

// eventually waits until a condition holds, looking again whenever something may have changed.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

const manualCode = "correct horse"

// newSlot makes a slot on every node.
func newSlot(t testing.TB, members []*Member, label, mode string) {
	t.Helper()
	for _, m := range members {
		n := NewSlot{Label: label, Mode: mode}
		if mode == cluster.Manual {
			n.Code = []byte(manualCode)
		}
		if err := m.Slots.Create(t.Context(), console, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members {
		eventually(t, label+" is active everywhere, says "+m.Name(), func() bool {
			for _, o := range members {
				seat := m.State().Slots[label].Seats[o.Name()]
				if seat.State != cluster.Active || seat.Receiver == "" {
					return false
				}
			}
			return true
		})
	}
}

// newKey makes a key on a node, as an application would.
func newKey(t testing.TB, m *Member, slot string, spec hsm.KeySpec) hsm.Key {
	t.Helper()
	token, err := m.Slots.token(slot)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Usage == 0 {
		spec.Usage = hsm.UseSign
	}
	k, err := token.Generate(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ecKey(label string) hsm.KeySpec {
	return hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte(label), Label: label, Extractable: true}
}

// waitFor waits until a node says of a key that it is so on another.
func waitFor(t testing.TB, m *Member, label, node string, want Presence) {
	t.Helper()
	var got Presence
	var why string
	defer func() {
		if t.Failed() {
			t.Logf("%s says of %s on %s: %s (%s)", m.Name(), label, node, got, why)
		}
	}()
	eventually(t, fmt.Sprintf("%s says that key %s is %s on %s", m.Name(), label, want, node), func() bool {
		for _, k := range m.Keys.Coverage() {
			if k.Key.Label == label {
				got, why = k.Nodes[node], k.Reasons[node]
				return got == want
			}
		}
		return false
	})
}

// finish waits for a job's end.
func finish(t testing.TB, m *Member, job *Job, err error) (Job, error) {
	t.Helper()
	if err != nil {
		return Job{}, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return m.Jobs.Wait(ctx, job)
}

// ship makes a package on one node and takes it in on another, without importing it.
func ship(t testing.TB, from, to *Member, slot string, receivers ...string) Staged {
	t.Helper()
	job, err := from.Sync.Build(t.Context(), console, slot, receivers)
	done, err := finish(t, from, job, err)
	if err != nil {
		t.Fatal(err)
	}
	s, err := from.Sync.Get(done.Result)
	if err != nil {
		t.Fatal(err)
	}
	f, err := from.Sync.File(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	staged, err := to.Sync.Stage(t.Context(), console, f)
	if err != nil {
		t.Fatal(err)
	}
	return staged
}

// TestTravel is the main job: a key made on one node is usable on the others.
func TestTravel(t *testing.T) {
	members := newCluster(t, 3)
	newSlot(t, members, "demo-ca", cluster.Manual)
	made := newKey(t, members[0], "demo-ca", ecKey("ca"))
	newKey(t, members[0], "demo-ca", hsm.KeySpec{Type: "AES", Bits: 256, ID: []byte("aes"), Label: "aes", Usage: hsm.UseEncrypt | hsm.UseDecrypt, Extractable: true})
	for _, m := range members {
		waitFor(t, m, "ca", "node1", Present)
		waitFor(t, m, "ca", "node2", Missing)
		waitFor(t, m, "aes", "node3", Missing)
	}
	for _, m := range members[1:] {
		staged := ship(t, members[0], m, "demo-ca")
		preview, err := m.Sync.Preview(t.Context(), console, staged.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if preview.New != 2 || preview.Problem != "" {
			t.Errorf("preview: %+v", preview)
		}
		job, err := m.Sync.Import(t.Context(), console, staged.SHA256)
		done, err := finish(t, m, job, err)
		if err != nil {
			t.Fatal(err)
		}
		if r := done.Report; r.Imported != 2 || !r.Receipt {
			t.Errorf("report: %+v", r)
		}
		signWith(t, m, "demo-ca", made)
	}
	for _, m := range members {
		for _, n := range members {
			waitFor(t, m, "ca", n.Name(), Present)
			waitFor(t, m, "aes", n.Name(), Present)
		}
	}
	checkReceipts(t, members)
}

// signWith signs with the key on a member's token and verifies with the public key taken elsewhere.
func signWith(t testing.TB, m *Member, slot string, made hsm.Key) {
	t.Helper()
	token, err := m.Slots.token(slot)
	if err != nil {
		t.Fatal(err)
	}
	o, err := token.Objects(t.Context(), 0, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range o.Keys {
		if string(k.ID) != string(made.ID) {
			continue
		}
		signer, err := token.Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte("message"))
		sig, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyECDSA(made.Public, digest[:], sig); err != nil {
			t.Errorf("%s: %v", m.Name(), err)
		}
		return
	}
	t.Errorf("%s has no key %q", m.Name(), made.ID)
}

func verifyECDSA(spki, digest, sig []byte) error {
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return err
	}
	if !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), digest, sig) {
		return errors.New("the signature does not verify")
	}
	return nil
}

// checkReceipts verifies every receipt on every node.
func checkReceipts(t testing.TB, members []*Member) {
	t.Helper()
	count := 0
	for _, m := range members {
		for id, p := range m.State().Packages {
			for node := range p.Receipts {
				r, _, err := m.Sync.Receipt(t.Context(), id, node)
				if err != nil {
					t.Errorf("%s cannot verify the receipt of %s: %v", m.Name(), node, err)
					continue
				}
				count++
				for _, k := range r.Keys {
					if k.Result == "imported" && k.Proof == nil {
						t.Errorf("the receipt of %s has no proof for %s", node, k.Label)
					}
				}
			}
		}
	}
	if count == 0 {
		t.Error("there is no receipt")
	}
}
