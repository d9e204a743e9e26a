package node

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// issued makes a certificate of a node, or of an owner where parent is nil.
func issued(t testing.TB, name string, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, from, to time.Time) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(from.Unix()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: parent != nil}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// issuedTo makes a certificate that names a device, for a year and as a CA or not.
func issuedTo(t testing.TB, name, serial string, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, ca bool) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name, SerialNumber: serial}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(11, 0, 0),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: ca, MaxPathLenZero: ca}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestJudgeCertificate(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	owner, other, pik := newP521(t), newP521(t), newP521(t)
	poc := issued(t, "owner", nil, owner.Public(), owner, now.Add(-day), now.Add(5000*day))
	twin := issued(t, "owner", nil, other.Public(), other, now.Add(-day), now.Add(5000*day))
	stranger := issued(t, "stranger", nil, other.Public(), other, now.Add(-day), now.Add(5000*day))
	pic := issued(t, "node1", poc, pik.Public(), owner, now.Add(-time.Hour), now.Add(1000*day))
	for _, c := range []struct {
		what string
		cert *x509.Certificate
		now  time.Time
		want CertState
		says string
	}{
		{"good", pic, now, CertValid, ""},
		{"in its first second", pic, pic.NotBefore, CertValid, ""},
		{"a second too early", pic, pic.NotBefore.Add(-time.Second), CertNotYet, "compare the clocks"},
		{"91 days before its end", pic, pic.NotAfter.Add(-91 * day), CertValid, ""},
		{"89 days before its end", pic, pic.NotAfter.Add(-89 * day), CertExpiring, "have its identity certified anew"},
		{"in its last second", pic, pic.NotAfter, CertExpiring, ""},
		{"after its end", pic, pic.NotAfter.Add(time.Second), CertExpired, "it is 2028"},
		{"by an owner of the same name", issued(t, "node1", twin, pik.Public(), other, now, now.Add(day)), now, CertForeign, "another owner key of the same name"},
		{"by another owner", issued(t, "node1", stranger, pik.Public(), other, now, now.Add(day)), now, CertForeign, "CN=stranger"},
		{"by itself", issued(t, "node1", nil, pik.Public(), pik, now, now.Add(day)), now, CertForeign, "does not end in the owner certificate"},
		{"under an owner that ended", issued(t, "node1", poc, pik.Public(), owner, now, now.Add(9000*day)), now.Add(6000 * day), CertExpired, "worth nothing now: the owner certificate ended"},
		{"the owner", poc, now, CertValid, ""},
		{"the owner near its end", poc, poc.NotAfter.Add(-day), CertExpiring, "replace the owner"},
		{"the owner after its end", poc, poc.NotAfter.Add(day), CertExpired, "replace the owner"},
	} {
		if got, problem := judgeCertificate(c.cert, poc, c.now); got != c.want || !strings.Contains(problem, c.says) || (problem == "") != (got == CertValid) {
			t.Errorf("%s: %s, %q", c.what, got, problem)
		}
	}
}

// TestSevered counts what would not come any more, by a made-up state.
func TestSevered(t *testing.T) {
	now := time.Now()
	inventory := func(prints ...string) cluster.Inventory {
		keys := map[string]cluster.Held{}
		for _, fp := range prints {
			keys[fp] = cluster.Held{Fingerprint: fp}
		}
		return cluster.Inventory{Keys: keys}
	}
	seats := func(names ...string) map[string]cluster.Seat {
		m := map[string]cluster.Seat{}
		for _, n := range names {
			m[n] = cluster.Seat{Node: n}
		}
		return m
	}
	since := now.Add(-time.Hour)
	pack := func(slot, source string, made time.Time, receipts map[string]cluster.Receipt) cluster.Package {
		return cluster.Package{ID: "p" + slot + source + made.Format(time.RFC3339Nano), Slot: slot, Source: source, Receivers: []string{"b"}, Keys: []string{"k"}, Created: made, Expires: made.Add(2 * time.Hour), Receipts: receipts}
	}
	s := &cluster.State{
		Nodes: map[string]cluster.Node{"a": {Name: "a"}, "b": {Name: "b"}, "c": {Name: "c"}, "d": {Name: "d"}},
		Trust: map[string][]cluster.Edge{"b": {{Node: "a", Since: since, By: "account/anna"}, {Node: "c", Since: since}, {Node: "d", Since: since, Removed: now}}, "a": {{Node: "b", Since: since}}},
		Slots: map[string]cluster.Slot{"one": {Seats: seats("a", "b", "c", "d")}, "two": {Seats: seats("a", "b")}, "three": {Seats: seats("a", "c")}},
		Keys: map[string]map[string]cluster.Inventory{
			"one": {"a": inventory("1", "2", "3", "4"), "b": inventory("1"), "c": inventory("2"), "d": inventory("3")},
			"two": {"a": inventory("5")}, "three": {"a": inventory("6")},
		},
		Packages: map[string]cluster.Package{},
	}
	for _, p := range []cluster.Package{
		pack("one", "a", now, nil), pack("one", "a", now.Add(-time.Minute), map[string]cluster.Receipt{"b": {Imported: 7}}), pack("one", "a", now.Add(-3*time.Hour), nil), // expired
		pack("one", "a", since.Add(-time.Second), nil), // before the edge, refused already
		pack("one", "c", now, nil),
	} {
		s.Packages[p.ID] = p
	}
	v, err := severed(s, "b", "a", now)
	if err != nil {
		t.Fatal(err)
	}
	if !v.Mutual || v.Lacks != 4 || v.Only != 3 || v.Got != 7 || len(v.Packages) != 1 || len(v.Slots) != 2 || v.Edge.By != "account/anna" {
		t.Errorf("%+v", v)
	}
	if one := v.Slots[0]; one.Slot != "one" || one.Lacks != 3 || one.Only != 2 || fmt.Sprint(one.Ways) != "[c]" {
		t.Errorf("%+v", one)
	}
	for _, pair := range [][2]string{{"b", "d"}, {"c", "a"}, {"b", "x"}, {"x", "a"}} {
		if _, err := severed(s, pair[0], pair[1], now); !IsRefusal(err) || !errors.Is(err, cluster.NotFound) {
			t.Errorf("%v: %v", pair, err)
		}
	}
}

// setTrust makes or removes an edge on the first node, waits until all nodes know it, and says how long that
// took.
func setTrust(t testing.TB, members []*Member, trusting, trusted string, trust bool) {
	t.Helper()
	began := time.Now()
	if err := members[0].Trust.Set(t.Context(), console, trusting, trusted, trust); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		for {
			s, changed := m.Cluster.Watch()
			if s.Trusts(trusting, trusted) == trust {
				break
			}
			select {
			case <-changed:
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
	}
	t.Logf("the trust of %s in %s: %v; all nodes knew it after %v", trusting, trusted, trust, time.Since(began).Round(time.Millisecond))
}

// A hook is what a test does at the next step of that name on a node.
type hook struct {
	node, step string
	do         func()
}

// TestTrustDecides: what a node takes is decided by its own trust, whenever a package is looked at.
func TestTrustDecides(t *testing.T) {
	var next atomic.Pointer[hook]
	members := newCluster(t, 3, func(c *Config) {
		name := c.Name
		c.Fault = func(step string) {
			if h := next.Load(); h != nil && h.node == name && h.step == step && next.CompareAndSwap(h, nil) {
				h.do()
			}
		}
	})
	a, b := members[0], members[1]
	newSlot(t, members, "demo", cluster.Generated)
	newKey(t, a, "demo", ecKey("one"))
	waitFor(t, a, "one", "node2", Missing)
	stage := func(file []byte) error {
		_, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(file))
		return err
	}
	refused := func(t *testing.T, what string, err error, says string) {
		t.Helper()
		if !errors.Is(err, syncpkg.ErrUntrusted) || !IsRefusal(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v; want %q", what, err, says)
		}
	}
	// refusedEverywhere is for a package that was staged while it was trusted.
	refusedEverywhere := func(t *testing.T, s Staged, file []byte, says string) {
		t.Helper()
		_, err := b.Sync.Preview(t.Context(), console, s.SHA256)
		refused(t, "preview", err, says)
		_, err = b.Sync.Import(t.Context(), console, s.SHA256)
		refused(t, "import", err, says)
		refused(t, "stage", stage(file), says)
		if i, err := b.Sync.Inspect(bytes.NewReader(file)); err != nil || i.Verified || !strings.Contains(i.Problem, says) {
			t.Errorf("inspect: %+v, %v", i, err)
		}
	}
	old := ship(t, a, b, "demo", "node2")
	oldFile := bytesOf(t, b, old)
	t.Run("a removed edge", func(t *testing.T) {
		setTrust(t, members, "node2", "node1", false)
		refusedEverywhere(t, old, oldFile, "does not trust node node1 any more: console/root removed that at")
		if _, err := a.Sync.Build(t.Context(), console, "demo", []string{"node2"}); !IsRefusal(err) || !strings.Contains(err.Error(), "does not trust node1") {
			t.Errorf("build: %v", err)
		}
		for _, k := range a.Keys.Coverage() {
			if why := k.Reasons["node2"]; k.Nodes["node2"] != Missing || !strings.Contains(why, "node2 takes no packages from node1") {
				t.Errorf("coverage says of %s on node2: %s, %s", k.Key.Label, k.Nodes["node2"], why)
			}
		}
	})
	t.Run("made again", func(t *testing.T) {
		setTrust(t, members, "node2", "node1", true)
		refusedEverywhere(t, old, oldFile, "does not bring older packages back: make a new one on node1")
		refused(t, "a package that says itself that it is old", stage(resealed(t, a, b, func(h *syncpkg.Header) { h.Created = h.Created.Add(-time.Minute) })), "before the trust of node node2 in node node1")
	})
	t.Run("one way", func(t *testing.T) {
		setTrust(t, members, "node1", "node2", false)
		s := ship(t, a, b, "demo", "node2")
		job, err := b.Sync.Import(t.Context(), console, s.SHA256)
		if _, err := finish(t, b, job, err); err != nil {
			t.Fatal(err)
		}
		waitFor(t, a, "one", "node2", Present)
		eventually(t, "node1 verifies the receipt of a node that it does not trust", func() bool {
			_, _, err := a.Sync.Receipt(t.Context(), s.Header.ID, "node2")
			return err == nil
		})
		setTrust(t, members, "node1", "node2", true)
	})
	t.Run("certificates", func(t *testing.T) { wrongCertificates(t, members, stage, refused) })
	t.Run("during an import", func(t *testing.T) { stoppedImport(t, members, &next) })
	t.Run("while a package is made", func(t *testing.T) {
		setTrust(t, members, "node2", "node1", true)
		next.Store(&hook{"node1", "build: exported", func() { setTrust(t, members, "node2", "node1", false) }})
		before := len(a.State().Packages)
		job, err := a.Sync.Build(t.Context(), console, "demo", []string{"node2"})
		if _, err := finish(t, a, job, err); !IsRefusal(err) || !strings.Contains(err.Error(), "no package is made: node node2 does not trust node node1 any more") {
			t.Errorf("the build ended with %v", err)
		}
		if n := len(a.State().Packages); n != before {
			t.Errorf("%d packages, %d before", n, before)
		}
	})
	t.Run("between two keys", func(t *testing.T) { stoppedBetweenKeys(t, members, &next) })
}

// wrongCertificates registers the identity of node1 with certificates that do not hold. Packages that it
// signs are refused by what is wrong with them, and by nothing that they say themselves.
func wrongCertificates(t *testing.T, members []*Member, stage func([]byte) error, refused func(*testing.T, string, error, string)) {
	a, b := members[0], members[1]
	good, poc, pok := a.Identity.pic, a.Identity.poc, a.Identity.pok
	other, now := newP521(t), time.Now()
	foreign := issued(t, "owner", nil, other.Public(), other, now.Add(-time.Hour), now.Add(time.Hour))
	twin := *poc
	twin.PublicKey = other.Public()
	register := func(pic *x509.Certificate) {
		t.Helper()
		if _, err := a.Cluster.Apply(t.Context(), &cluster.ReplaceIdentity{Identity: pic.Raw, Key: cluster.KeyHash(pic)}, console); err != nil {
			t.Fatal(err)
		}
		eventually(t, "node2 knows the certificate", func() bool { return bytes.Equal(b.State().Nodes["node1"].Identity, pic.Raw) })
	}
	file := resealed(t, a, b, func(*syncpkg.Header) {})
	for _, c := range []struct {
		pic  *x509.Certificate
		says string
	}{
		{issued(t, "node1", poc, good.PublicKey, pok, now.Add(-2*time.Hour), now.Add(-time.Hour)), "the identity certificate of node1 ended at"},
		{issued(t, "node1", poc, good.PublicKey, pok, now.Add(time.Hour), now.Add(2*time.Hour)), "compare the clocks of the nodes"},
		{issued(t, "node1", foreign, good.PublicKey, other, now.Add(-time.Hour), now.Add(time.Hour)), "does not end in the owner certificate of this cluster"},
		{issued(t, "node1", &twin, good.PublicKey, other, now.Add(-time.Hour), now.Add(time.Hour)), "another owner key of the same name"},
	} {
		register(c.pic)
		refused(t, c.says, stage(file), c.says)
		if err := b.Trust.Set(t.Context(), console, "node3", "node1", true); !IsRefusal(err) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("trust in node1: %v", err)
		}
	}
	register(good)
	if err := stage(file); err != nil {
		t.Errorf("with the right certificate: %v", err)
	}
}

// stoppedImport removes the trust while an import is under way: the journal is open, and the next batch would
// come. Nothing comes any more, and nothing is left to go on with.
func stoppedImport(t *testing.T, members []*Member, next *atomic.Pointer[hook]) {
	a, b := members[0], members[1]
	newKey(t, a, "demo", ecKey("two"))
	s := ship(t, a, b, "demo", "node2")
	next.Store(&hook{"node2", "import: journal open", func() { setTrust(t, members, "node2", "node1", false) }})
	job, err := b.Sync.Import(t.Context(), console, s.SHA256)
	done, err := finish(t, b, job, err)
	if !IsRefusal(err) || !errors.Is(err, syncpkg.ErrUntrusted) || !strings.Contains(done.Error, "any more") {
		t.Fatalf("the import ended with %v: %+v", err, done)
	}
	if b.Sync.isOpen(s.Header.ID) {
		t.Error("the journal is open: the import would go on")
	}
	interrupted := journalHead{Package: s.Header.ID, File: s.SHA256, Slot: "demo", Actor: console, Began: time.Now()}
	if _, err := b.node.store.journal(interrupted); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trail tells of the import that was stopped, and of one that was interrupted before", func() bool {
		refusals := 0
		for _, e := range b.State().Audit {
			if e.Act == "sync.import" && e.Result == cluster.Refused && strings.Contains(e.Detail, "any more") {
				refusals++
			}
		}
		return refusals == 2 && !b.Sync.isOpen(s.Header.ID)
	})
	if o, err := b.Sync.here(t.Context(), "demo"); err != nil || len(o.Keys) != 2 { // its transport key, and the key of before
		t.Errorf("%d keys are there, want 2: %v", len(o.Keys), err)
	}
}

// stoppedBetweenKeys removes the trust as soon as the first key of a package is on the token: no other comes. What
// has come stays, has proved itself, and is not sent again.
func stoppedBetweenKeys(t *testing.T, members []*Member, next *atomic.Pointer[hook]) {
	a, b := members[0], members[1]
	setTrust(t, members, "node2", "node1", true)
	for _, label := range []string{"three", "four", "five"} {
		newKey(t, a, "demo", ecKey(label))
		waitFor(t, a, label, "node2", Missing)
	}
	before, err := b.Sync.here(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	s := ship(t, a, b, "demo", "node2")
	next.Store(&hook{"node2", "import: unwrapped", func() { setTrust(t, members, "node2", "node1", false) }})
	job, err := b.Sync.Import(t.Context(), console, s.SHA256)
	if _, err := finish(t, b, job, err); !errors.Is(err, syncpkg.ErrUntrusted) || !strings.Contains(err.Error(), "any more") {
		t.Fatalf("the import ended with %v", err)
	}
	after, err := b.Sync.here(t.Context(), "demo")
	if err != nil || len(after.Keys) != len(before.Keys)+1 || after.Loose != 0 {
		t.Errorf("%d keys and %d half-made objects are there, %d keys were before: %v", len(after.Keys), after.Loose, len(before.Keys), err)
	}
	if b.Sync.isOpen(s.Header.ID) {
		t.Error("the journal is open: the import would go on")
	}
	setTrust(t, members, "node2", "node1", true)
	eventually(t, "node1 knows which key has come", func() bool { return len(a.State().Keys["demo"]["node2"].Keys) == len(after.Keys)-1 })
	s = ship(t, a, b, "demo", "node2")
	job, err = b.Sync.Import(t.Context(), console, s.SHA256)
	done, err := finish(t, b, job, err)
	if err != nil || done.Report.Imported != s.Header.Keys || s.Header.Keys != len(a.State().Keys["demo"]["node1"].Keys)-len(after.Keys)+1 {
		t.Errorf("the rest: %+v, %v", done.Report, err)
	}
}
