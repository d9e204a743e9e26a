package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// bytesOf reads a kept package.
func bytesOf(t testing.TB, m *Member, s Staged) []byte {
	t.Helper()
	b, err := os.ReadFile(m.Sync.path(s.SHA256))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// made builds a package on a node and returns its file.
func made(t testing.TB, m *Member, slot string, to ...string) ([]byte, Staged) {
	t.Helper()
	job, err := m.Sync.Build(t.Context(), console, slot, to)
	done, err := finish(t, m, job, err)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Sync.Get(done.Result)
	if err != nil {
		t.Fatal(err)
	}
	return bytesOf(t, m, s), s
}

// resealed makes a package that says what the test wants, signed by a real node.
func resealed(t testing.TB, from *Member, to *Member, change func(*syncpkg.Header)) []byte {
	t.Helper()
	s := from.State()
	keys, problem := from.Sync.receiver(s, "demo", to.Name())
	if problem != "" {
		t.Fatal(problem)
	}
	recipient, err := keys.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	h := syncpkg.Header{ID: syncpkg.NewID(), Cluster: s.Cluster.ID, Source: from.Name(), Slot: "demo", Created: time.Now(), Expires: time.Now().Add(time.Hour)}
	change(&h)
	content, err := from.Sync.exportKeys(t.Context(), h, []Receiver{{Node: to.Name(), keys: keys}}, allPrints(s, from.Name()), &progress{from.Jobs, &Job{}})
	if err != nil {
		t.Fatal(err)
	}
	pik, err := from.Identity.signer()
	if err != nil {
		t.Fatal(err)
	}
	b, err := syncpkg.Seal(h, content, []syncpkg.Recipient{recipient}, pik)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func allPrints(s *cluster.State, node string) []string {
	var all []string
	for fp := range s.Keys["demo"][node].Keys {
		all = append(all, fp)
	}
	return all
}

// TestRefusedPackages brings bad files to a node. Each is refused with its reason, and nothing is kept.
func TestRefusedPackages(t *testing.T) {
	members := newCluster(t, 3)
	newSlot(t, members, "demo", cluster.Generated)
	newKey(t, members[0], "demo", ecKey("one"))
	waitFor(t, members[0], "one", "node2", Missing)
	good, _ := made(t, members[0], "demo", "node2")
	other, _ := made(t, members[0], "demo", "node2")
	forThird, _ := made(t, members[0], "demo", "node3")
	head := bytes.Index(good, []byte("\n\n")) + 2
	otherHead := bytes.Index(other, []byte("\n\n")) + 2
	flipped := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	for _, c := range []struct {
		name string
		file io.Reader
		want error
		says string
	}{
		{"empty", strings.NewReader(""), syncpkg.ErrMalformed, "empty"},
		{"a text file", strings.NewReader("Dear administrator,\n"), syncpkg.ErrMalformed, ""},
		{"cut in the head", bytes.NewReader(good[:head/2]), syncpkg.ErrTruncated, ""},
		{"cut in the body", bytes.NewReader(good[:len(good)-1]), syncpkg.ErrTruncated, ""},
		{"bytes behind it", bytes.NewReader(append(bytes.Clone(good), 0)), syncpkg.ErrMalformed, ""},
		{"a flipped bit in the body", bytes.NewReader(flipped(len(good) - 5)), syncpkg.ErrDigest, ""},
		{"a swapped body", bytes.NewReader(append(bytes.Clone(good[:head]), other[otherHead:]...)), syncpkg.ErrDigest, ""},
		{"expired", bytes.NewReader(resealed(t, members[0], members[1], func(h *syncpkg.Header) {
			h.Created, h.Expires = h.Created.Add(-48*time.Hour), h.Created.Add(-24*time.Hour)
		})), syncpkg.ErrExpired, "expired"},
		{"from tomorrow", bytes.NewReader(resealed(t, members[0], members[1], func(h *syncpkg.Header) {
			h.Created, h.Expires = h.Created.Add(24*time.Hour), h.Created.Add(48*time.Hour)
		})), syncpkg.ErrNotYetValid, "clock"},
		{"from an unknown node", bytes.NewReader(resealed(t, members[0], members[1], func(h *syncpkg.Header) { h.Source = "stranger" })), syncpkg.ErrUntrusted, "stranger"},
		{"in another node's name", bytes.NewReader(resealed(t, members[0], members[1], func(h *syncpkg.Header) { h.Source = "node3" })), syncpkg.ErrUntrusted, "node3"},
		{"from another cluster", bytes.NewReader(resealed(t, members[0], members[1], func(h *syncpkg.Header) { h.Cluster = "elsewhere" })), syncpkg.ErrUntrusted, "another cluster"},
		{"1 GiB", io.LimitReader(zeros{}, 1<<30), syncpkg.ErrMalformed, ""},
		{"a good head and 1 GiB", io.MultiReader(bytes.NewReader(good), io.LimitReader(zeros{}, 1<<30)), syncpkg.ErrMalformed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := members[1].Sync.Stage(t.Context(), console, c.file)
			if !errors.Is(err, c.want) || !IsRefusal(err) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("are in the trail", func(t *testing.T) {
		if _, err := members[1].Sync.Stage(t.Context(), console, strings.NewReader("Dear administrator,\n")); err == nil { // again
			t.Error("a text file was taken")
		}
		told := refusedEntries(members[1])
		if len(told) != 12 { // a body that is damaged and one that is swapped are the same package, refused for the same reason; so are two with bytes behind it
			t.Errorf("%d entries:\n%s", len(told), strings.Join(told, "\n"))
		}
		all := strings.Join(told, "\n")
		for _, want := range []string{"console/root node2 package refused brought: the head cannot be read (malformed)", "cut short: its body has", "expired", "stranger", "another cluster", "SHA-256 of the header"} {
			if !strings.Contains(all, want) {
				t.Errorf("no entry says %q:\n%s", want, all)
			}
		}
		if strings.Contains(all, "Dear") {
			t.Errorf("the trail says what is in a file that is no package:\n%s", all)
		}
	})
	t.Run("for other receivers", func(t *testing.T) {
		s, err := members[1].Sync.Stage(t.Context(), console, bytes.NewReader(forThird)) // it can be kept, and carried on
		if err != nil {
			t.Fatal(err)
		}
		if _, err := members[1].Sync.Preview(t.Context(), console, s.SHA256); !errors.Is(err, syncpkg.ErrNotReceiver) {
			t.Errorf("preview: %v", err)
		}
		if _, err := members[1].Sync.Import(t.Context(), console, s.SHA256); !errors.Is(err, syncpkg.ErrNotReceiver) {
			t.Errorf("import: %v", err)
		}
		if told := refusedEntries(members[1]); len(told) != 13 || !strings.Contains(told[12], "looked at, ") || !strings.Contains(told[12], "package/"+s.Header.ID) {
			t.Errorf("the last of %d entries is %q", len(told), told[len(told)-1])
		}
	})
	t.Run("by the node that made it", func(t *testing.T) {
		s, err := members[0].Sync.Stage(t.Context(), console, bytes.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := members[0].Sync.Import(t.Context(), console, s.SHA256); !IsRefusal(err) {
			t.Errorf("import: %v", err)
		}
	})
	t.Run("from a node that is not trusted any more", func(t *testing.T) {
		s, err := members[1].Sync.Stage(t.Context(), console, bytes.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := members[1].Cluster.Apply(t.Context(), &cluster.SetTrust{Trusting: "node2", Trusted: "node1"}, console); err != nil {
			t.Fatal(err)
		}
		if _, err := members[1].Sync.Import(t.Context(), console, s.SHA256); !errors.Is(err, syncpkg.ErrUntrusted) {
			t.Errorf("import: %v", err)
		}
		if told := refusedEntries(members[1]); len(told) != 15 || !strings.Contains(told[14], "to be imported, ") || !strings.Contains(told[14], "does not trust node node1 any more") {
			t.Errorf("the last of %d entries is %q", len(told), told[len(told)-1])
		}
		if _, err := members[0].Sync.Build(t.Context(), console, "demo", []string{"node2"}); !IsRefusal(err) || !strings.Contains(fmt.Sprint(err), "trust") {
			t.Errorf("build: %v", err)
		}
	})
	left, err := filepath.Glob(filepath.Join(members[1].node.cfg.Dir, "packages", ".*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if o, err := members[1].Sync.here(t.Context(), "demo"); err != nil || len(o.Keys) != 1 {
		t.Errorf("node2 holds %d keys, want its transport key only (%v)", len(o.Keys), err)
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestImport is what happens to keys that are there already, or whose names are taken.
func TestImport(t *testing.T) {
	members := newCluster(t, 2)
	newSlot(t, members, "demo", cluster.Generated)
	a, b := members[0], members[1]
	importOn := func(file []byte) (Job, error) {
		t.Helper()
		s, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		job, err := b.Sync.Import(t.Context(), console, s.SHA256)
		return finish(t, b, job, err)
	}
	newKey(t, a, "demo", ecKey("first"))
	waitFor(t, a, "first", "node2", Missing)
	file, _ := made(t, a, "demo")
	t.Run("twice", func(t *testing.T) {
		for i, want := range []ImportReport{{Imported: 1}, {There: 1}} {
			done, err := importOn(file)
			if err != nil {
				t.Fatal(err)
			}
			if r := done.Report; r.Imported != want.Imported || r.There != want.There {
				t.Errorf("time %d: %+v", i+1, r)
			}
		}
		checkReceipts(t, members)
		s, err := b.Sync.Stage(t.Context(), console, bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if p, err := b.Sync.Preview(t.Context(), console, s.SHA256); err != nil || p.Imported.IsZero() || p.There != 1 {
			t.Errorf("preview of an imported package: %+v, %v", p, err)
		}
	})
	t.Run("nothing to send", func(t *testing.T) {
		waitFor(t, a, "first", "node2", Present)
		if _, err := a.Sync.Build(t.Context(), console, "demo", nil); !IsRefusal(err) || !strings.Contains(err.Error(), "nothing to send") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("conflicts", func(t *testing.T) {
		newKey(t, a, "demo", ecKey("same-id"))
		newKey(t, b, "demo", hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte("same-id"), Label: "another label", Extractable: true})
		newKey(t, a, "demo", hsm.KeySpec{Type: "EC", Curve: "P-384", ID: []byte("x1"), Label: "same label", Extractable: true})
		newKey(t, b, "demo", hsm.KeySpec{Type: "EC", Curve: "P-384", ID: []byte("x2"), Label: "same label", Extractable: true})
		newKey(t, a, "demo", ecKey("fine"))
		waitFor(t, a, "same-id", "node2", Differs)
		waitFor(t, a, "fine", "node2", Missing)
		before, _ := b.Sync.here(t.Context(), "demo")
		file, _ := made(t, a, "demo")
		done, err := importOn(file)
		if err == nil || done.Report == nil {
			t.Fatalf("an import with conflicts: %v, %+v", err, done)
		}
		if r := done.Report; r.Imported != 1 || r.Conflicts != 2 || r.Failed != 0 {
			t.Errorf("report: %+v", r)
		}
		after, _ := b.Sync.here(t.Context(), "demo")
		if len(after.Keys) != len(before.Keys)+1 {
			t.Errorf("%d keys before, %d after", len(before.Keys), len(after.Keys))
		}
	})
	t.Run("not extractable", func(t *testing.T) {
		newKey(t, a, "demo", hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte("stays"), Label: "stays"})
		waitFor(t, b, "stays", "node2", NotExtractable)
	})
}

// TestSlots is about codes and modes.
func TestSlots(t *testing.T) {
	m := newCluster(t, 1)[0]
	ctx := t.Context()
	s := m.Slots
	refused := func(what string, err error, says string) {
		t.Helper()
		if !IsRefusal(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []struct {
		what string
		slot NewSlot
		says string
	}{
		{"no label", NewSlot{Mode: cluster.Generated}, "label"},
		{"a long label", NewSlot{Label: strings.Repeat("x", 33), Mode: cluster.Generated}, "label"},
		{"the admin token's label", NewSlot{Label: identity.AdminLabel, Mode: cluster.Generated}, identity.AdminLabel},
		{"no mode", NewSlot{Label: "a"}, "mode"},
		{"an unknown module", NewSlot{Label: "a", Mode: cluster.Generated, Module: "luna"}, "luna"},
		{"7 characters", NewSlot{Label: "a", Mode: cluster.Manual, Code: []byte("1234567")}, "at least 8"},
		{"7 characters of 2 bytes", NewSlot{Label: "a", Mode: cluster.Manual, Code: []byte("äöüäöüä")}, "at least 8"},
		{"256 bytes", NewSlot{Label: "a", Mode: cluster.Manual, Code: bytes.Repeat([]byte("x"), 256)}, "takes"},
		{"not UTF-8", NewSlot{Label: "a", Mode: cluster.Manual, Code: []byte("12345678\xff")}, "UTF-8"},
		{"a control character", NewSlot{Label: "a", Mode: cluster.Manual, Code: []byte("1234\n5678")}, "control"},
		{"an unknown serial", NewSlot{Label: "a", Mode: cluster.Manual, Serial: "ffff", Code: []byte("12345678")}, "ffff"},
	} {
		refused(bad.what, s.Create(ctx, console, bad.slot), bad.says)
	}
	if err := s.Create(ctx, console, NewSlot{Label: "manual", Mode: cluster.Manual, Code: []byte(manualCode)}); err != nil {
		t.Fatal(err)
	}
	refused("the same again", s.Create(ctx, console, NewSlot{Label: "manual", Mode: cluster.Manual, Code: []byte(manualCode)}), "already")
	refused("activating an active slot", s.Activate(ctx, console, "manual", []byte(manualCode)), "already")
	refused("an unknown slot", s.Activate(ctx, console, "nowhere", []byte(manualCode)), "nowhere")
	if err := s.Deactivate(ctx, console, "manual"); err != nil {
		t.Fatal(err)
	}
	refused("no code", s.Activate(ctx, console, "manual", nil), "enter")
	refused("a wrong code", s.Activate(ctx, console, "manual", []byte("wrong horse!")), "tried once")
	if v, _ := s.One("manual"); v.State == cluster.Active || !strings.Contains(v.Reason, "wrong") {
		t.Errorf("after a wrong code: %+v", v)
	}
	if err := s.Activate(ctx, console, "manual", []byte(manualCode)); err != nil {
		t.Fatal(err)
	}
	refused("changing with a wrong code", s.ChangeCode(ctx, console, "manual", []byte("wrong horse!"), []byte("battery staple")), "wrong")
	refused("changing to a short code", s.ChangeCode(ctx, console, "manual", []byte(manualCode), []byte("short")), "at least 8")
	if err := s.ChangeCode(ctx, console, "manual", []byte(manualCode), []byte("battery staple")); err != nil {
		t.Fatal(err)
	}
	refused("to generated mode with the old code", s.SetMode(ctx, console, "manual", cluster.Generated, []byte(manualCode), nil), "wrong")
	if err := s.SetMode(ctx, console, "manual", cluster.Generated, []byte("battery staple"), nil); err != nil {
		t.Fatal(err)
	}
	refused("entering a generated code", s.Activate(ctx, console, "manual", []byte("battery staple")), "activated already")
	refused("closing a generated slot", s.Deactivate(ctx, console, "manual"), "generated")
	if err := s.SetMode(ctx, console, "manual", cluster.Manual, nil, []byte("third code 3")); err != nil {
		t.Fatal(err)
	}
	if err := s.Deactivate(ctx, console, "manual"); err != nil {
		t.Fatal(err)
	}
	if err := s.Activate(ctx, console, "manual", []byte("third code 3")); err != nil {
		t.Fatal(err)
	}
	checkNoCodes(t, m, manualCode, "battery staple", "third code 3", "wrong horse!")
}

// checkNoCodes looks for codes in everything that the node has written.
func checkNoCodes(t testing.TB, m *Member, codes ...string) {
	t.Helper()
	err := filepath.WalkDir(m.node.cfg.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, c := range codes {
			if bytes.Contains(b, []byte(c)) {
				t.Errorf("%s contains a code", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, e := range m.State().Audit {
		for _, c := range codes {
			if strings.Contains(e.Detail, c) {
				t.Errorf("the audit log contains a code: %+v", e)
			}
		}
	}
}

// TestRestart stops a node and starts it again: generated slots open by themselves, manual ones wait.
func TestRestart(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "node1")
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	m, _ := n.Member()
	newSlot(t, []*Member{m}, "auto", cluster.Generated)
	newSlot(t, []*Member{m}, "hand", cluster.Manual)
	newKey(t, m, "auto", ecKey("k"))
	waitFor(t, m, "k", "node1", Present)
	n.Close()
	n = open(t, cfg)
	m, err = n.Member()
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, m, "k", "node1", Present)
	if v, err := m.Slots.One("hand"); err != nil || v.State != cluster.Down {
		t.Errorf("the manual slot: %+v, %v", v, err)
	}
	if err := m.Slots.Activate(t.Context(), console, "hand", []byte(manualCode)); err != nil {
		t.Error(err)
	}
}

// TestJoinRefused tries to join with what is wrong or used up.
func TestJoinRefused(t *testing.T) {
	m := newCluster(t, 1)[0]
	inv, err := m.Invite(t.Context(), console, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger := open(t, testConfig(t, t.TempDir(), "stranger"))
	wrong := strings.Repeat("00:", 31) + "00"
	if _, err := stranger.Join(t.Context(), inv.Address, wrong, inv.Code); !isFingerprint(err) {
		t.Errorf("a wrong fingerprint: %v", err)
	}
	if _, err := stranger.Join(t.Context(), inv.Address, inv.Fingerprint, "AAAA-BBBB-CCCC-DDDD-EEEE"); err == nil {
		t.Error("a wrong code was taken")
	}
	if _, err := stranger.Member(); !errors.Is(err, ErrNotMember) {
		t.Errorf("the stranger is a member: %v", err)
	}
	second := open(t, testConfig(t, t.TempDir(), "second"))
	if _, err := second.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err == nil || !strings.Contains(err.Error(), "used") {
		t.Errorf("a used code: %v", err)
	}
	if _, err := second.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err == nil {
		t.Error("a member joined again")
	}
	if len(m.State().Nodes) != 2 {
		t.Errorf("%d nodes", len(m.State().Nodes))
	}
}

func isFingerprint(err error) bool {
	_, ok := errors.AsType[*cluster.FingerprintError](err)
	return ok
}
