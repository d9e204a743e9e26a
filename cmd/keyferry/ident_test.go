package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// A station is a machine with a module and a certificate store, and no daemon.
type station struct {
	t     *testing.T
	conf  string
	lib   string
	store string
	codes [2]string // of the devices by number, as they are typed
}

func newStation(t *testing.T) *station {
	dir := t.TempDir()
	cfg := hsmtest.SoftHSM(t, dir)
	return &station{t: t, conf: cfg.Env["SOFTHSM2_CONF"], lib: cfg.Path, store: filepath.Join(dir, "certs")}
}

// try runs "keyferry ident" with codes on standard input. The module is in a process of its own, as always.
func (s *station) try(in string, args ...string) (string, error) {
	s.t.Setenv("SOFTHSM2_CONF", s.conf)
	var out bytes.Buffer
	a := newApp(strings.NewReader(in), &out, &out)
	err := a.run(s.t.Context(), append(append([]string{"ident"}, args...), "--module", s.lib, "--store", s.store))
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return out.String(), err
}

func (s *station) must(in string, args ...string) string {
	s.t.Helper()
	out, err := s.try(in, args...)
	if err != nil {
		s.t.Fatalf("keyferry ident %v: %v\n%s", args, err, out)
	}
	return out
}

// refuses checks that a command fails, and says why.
func (s *station) refuses(says, in string, args ...string) {
	s.t.Helper()
	out, err := s.try(in, args...)
	if err == nil || !strings.Contains(out, says) {
		s.t.Errorf("keyferry ident %v: %v, which does not say %q:\n%s", args, err, says, out)
	}
}

func (s *station) list() identListing {
	s.t.Helper()
	var l identListing
	if err := json.Unmarshal([]byte(s.must("", "list", "-o", "json")), &l); err != nil {
		s.t.Fatal(err)
	}
	return l
}

// states are POC and PIC of each device.
func (s *station) states() string {
	s.t.Helper()
	var all []string
	for _, v := range s.list().Devices {
		all = append(all, string(v.POC.State)+"/"+string(v.PIC.State))
	}
	return strings.Join(all, " ")
}

func (s *station) want(states string) {
	s.t.Helper()
	if got := s.states(); got != states {
		s.t.Errorf("the devices are %q, want %q", got, states)
	}
}

// TestOfflineOwner is the whole path of two installations that never talk: A has the owner key, B two devices.
// Only files are carried between them.
func TestOfflineOwner(t *testing.T) {
	openssl := hsmtest.Tool(t, "openssl")
	a, b, stick := newStation(t), newStation(t), t.TempDir()

	a.refuses("init-token", "", "gen-owner", "1")
	a.must("code of A\n", "init-token")
	b.must("code x\n", "init-token")
	first := b.list().Devices[0].Serial
	b.refuses("--yes", "code y\n", "init-token")
	b.must("code y\n", "init-token", "--yes")
	b.codes = [2]string{"code x\n", "code y\n"}
	if b.list().Devices[0].Serial != first { // the module has put the new one before it
		b.codes = [2]string{"code y\n", "code x\n"}
	}
	a.want("none/none")

	a.refuses("the authentication code is wrong", "no\n", "gen-owner", "1")
	a.must("code of A\n", "gen-owner", "1", "--name", "Example CA")
	a.want("POC-Pending/none")

	devices := b.list().Devices
	b1, b2 := devices[0].Serial, devices[1].Serial
	// The second device drops out: the first is finished, the other is reported.
	b.refuses("1 of 2 devices failed", b.codes[0]+"wrong\n", "gen-csr", "all")
	b.want("none/PIK-Pending none/none")
	b.must(b.codes[0]+b.codes[1], "gen-csr", "sn:"+b1+",2")
	b.want("none/PIK-Pending none/PIK-Pending")

	request := func(s *station, serial string) string { return filepath.Join(s.store, serial+".csr") }
	certificate := func(s *station, serial string) string { return filepath.Join(s.store, serial+".crt") }
	copyFile(t, request(b, b1), filepath.Join(stick, "1.csr"))
	copyFile(t, request(b, b2), filepath.Join(stick, "2.csr"))
	a.refuses("two devices claim", "", "import-csr", filepath.Join(stick, "1.csr"), filepath.Join(stick, "1.csr"))
	a.must("", "import-csr", filepath.Join(stick, "1.csr"), filepath.Join(stick, "2.csr"))
	a.refuses("is not taken as CA for others", "code of A\n", "sign", "1", "all")
	a.must("code of A\n", "gen-key", "1", "all", "--name", "owner")
	a.want("valid/valid")
	a.refuses("--yes", "code of A\n", "gen-key", "1", "1")
	a.refuses("--yes", "code of A\n", "gen-owner", "1")

	a.refuses("there is no device \"sn:none\"", "code of A\n", "sign", "1", "sn:none")
	a.must("code of A\n", "sign", "1", "all")
	a.must("", "export", "sn:"+b1+",sn:"+b2, "--to", stick)

	poc, pic1, pic2 := filepath.Join(stick, "owner.crt"), filepath.Join(stick, b1+".crt"), filepath.Join(stick, b2+".crt")
	b.refuses("does not know its owner yet", b.codes[0], "store-pic", pic1, "1")
	b.refuses("this is no owner certificate", "", "store-poc", pic1, "all")
	b.refuses("Is that what the owner's administrator says?", b.codes[0], "store-poc", poc, "all")
	b.must(b.codes[0]+b.codes[1], "store-poc", poc, "all", "--yes")
	b.want("valid/PIK-Pending valid/PIK-Pending")
	b.refuses("is for device", b.codes[0], "store-pic", pic2, "1")
	b.must(b.codes[0], "store-pic", pic1, "1")
	b.must(b.codes[1], "store-pic", pic2, "sn:"+b2)
	b.want("valid/valid valid/valid")

	for _, file := range []string{certificate(b, b1), certificate(b, b2), certificate(a, b1)} {
		if out, err := exec.Command(openssl, "verify", "-x509_strict", "-CAfile", filepath.Join(b.store, "owner.crt"), file).CombinedOutput(); err != nil {
			t.Errorf("openssl verify %s: %v\n%s", file, err, out)
		}
	}
	l := a.list()
	if l.Owner == nil || l.Owner.State != identity.Valid || len(l.Store) != 3 {
		t.Errorf("the owner's store: %+v", l)
	}
	for _, k := range l.Store {
		if k.PIC.State != identity.Valid || k.Requested {
			t.Errorf("the owner's store has %+v", k)
		}
	}
	if _, err := os.Stat(request(b, b1)); err == nil {
		t.Error("a request that was answered is still in the store")
	}
	replaced(t, a, b, b1, stick)
	t.Run("found", func(t *testing.T) { foundUnder(t, a, stick) })
}

// foundUnder founds a cluster under the offline owner: the daemon's node asks by a file too.
func foundUnder(t *testing.T, a *station, stick string) {
	n := newLoneNode(t)
	n.start()
	store := filepath.Join(t.TempDir(), "certs")
	if _, err := n.keyferry("", "ident", "gen-csr"); err == nil || !strings.Contains(err.Error(), "--store") {
		t.Errorf("a request to nowhere: %v", err)
	}
	n.must("", "ident", "gen-csr", "--store", store)
	files, err := filepath.Glob(filepath.Join(store, "*.csr"))
	if err != nil || len(files) != 1 {
		t.Fatalf("requests: %v, %v", files, err)
	}
	serial := strings.TrimSuffix(filepath.Base(files[0]), ".csr")
	a.t = t
	a.must("", "import-csr", files[0])
	a.must("code of A\n", "sign", "1", "sn:"+serial)
	a.must("", "export", "sn:"+serial, "--to", stick)
	poc, pic := filepath.Join(stick, "owner.crt"), filepath.Join(stick, serial+".crt")
	if _, err := n.keyferry("", "init", "--owner", pic, "--identity", pic); err == nil || !strings.Contains(err.Error(), "no owner certificate") {
		t.Errorf("founded under a node: %v", err)
	}
	n.must("", "init", "--name", "under another", "--owner", poc, "--identity", pic)
	var l identListing
	if err := json.Unmarshal([]byte(n.must("", "ident", "list", "-o", "json")), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Devices) != 1 || l.Devices[0].POK || l.Devices[0].PIC.State != identity.Valid || l.Devices[0].Serial != serial || !strings.Contains(l.Devices[0].POC.Subject, "Example CA") {
		t.Errorf("the cluster under the offline owner: %+v", l.Devices)
	}
	changeKeys(t, n, a, serial, store, poc)
}

// changeKeys gives the node of a running cluster a new identity key by its owner elsewhere, puts the cluster under
// another such owner, and at last under one of its own.
func changeKeys(t *testing.T, n *loneNode, first *station, serial, store, firstPOC string) {
	view := func() identity.View {
		t.Helper()
		var l identListing
		if err := json.Unmarshal([]byte(n.must("", "ident", "list", "-o", "json")), &l); err != nil {
			t.Fatal(err)
		}
		return l.Devices[0]
	}
	// certified carries the node's request to an owner, and the certificate back.
	certified := func(owner *station, code string, flags ...string) string {
		t.Helper()
		dir := t.TempDir()
		n.must("", append([]string{"ident", "gen-csr", "--store", store}, flags...)...)
		owner.must("", "import-csr", filepath.Join(store, serial+".csr"), "--yes")
		owner.must(code, "sign", "1", "sn:"+serial, "--yes")
		owner.must("", "export", "sn:"+serial, "--to", dir)
		return filepath.Join(dir, serial+".crt")
	}
	refused := func(says string, args ...string) {
		t.Helper()
		if out, err := n.keyferry("", append([]string{"ident"}, args...)...); err == nil || !strings.Contains(out+err.Error(), says) {
			t.Errorf("%v: %v, which does not say %q:\n%s", args, err, says, out)
		}
	}
	old := view().PIC.Fingerprint
	pic := certified(first, "code of A\n", "--new-key")
	refused("--yes", "renew", "--new-key", "--identity", pic)
	refused("not for the identity key", "renew", "--identity", pic)
	refused("no node with the owner key answers", "renew", "--new-key", "--yes")
	n.must("", "ident", "renew", "--new-key", "--identity", pic, "--yes")
	if v := view(); v.PIC.Fingerprint == old || v.PIC.State != identity.Valid {
		t.Errorf("after the new key: %+v", v)
	}
	second := newStation(t)
	second.must("code of C\n", "init-token")
	second.must("code of C\n", "gen-owner", "1", "--name", "Second CA")
	second.must("code of C\n", "gen-key", "1", "1", "--name", "owner")
	next := filepath.Join(second.store, "owner.crt")
	refused("--yes", "replace-owner", "--owner", next)
	refused("no owner certificate", "replace-owner", "--owner", pic, "--yes")
	refused("the owner that the cluster has", "replace-owner", "--owner", firstPOC, "--yes")
	n.must("", "ident", "replace-owner", "--owner", next, "--yes")
	refused("by this one already", "replace-owner", "--owner", next, "--yes")
	refused("the owner of the cluster is being replaced", "renew", "--new-key", "--identity", certified(first, "code of A\n", "--new-key"), "--yes")
	n.must("", "ident", "renew", "--identity", certified(second, "code of C\n"))
	n.wait("the second owner", func() bool { return strings.Contains(view().POC.Subject, "Second CA") })
	refused("does not come back", "replace-owner", "--owner", firstPOC, "--yes")
	n.must("", "ident", "replace-owner", "--yes")
	n.wait("an owner of its own", func() bool {
		v := view()
		return v.POK && v.PIC.State == identity.Valid && !strings.Contains(v.POC.Subject, "Second CA")
	})
	n.wait("its own owner certifies it again, a second later", func() bool { _, err := n.keyferry("", "ident", "renew"); return err == nil })
}

// identCluster is "keyferry ident" through the daemon, on the nodes of the demo. It leaves the trust as it was.
func identCluster(t *testing.T, d *testDemo) {
	list := func() []identity.View {
		t.Helper()
		var l identListing
		if err := json.Unmarshal([]byte(d.must(t, 0, "", "ident", "list", "-o", "json")), &l); err != nil {
			t.Fatal(err)
		}
		return l.Devices
	}
	all := list()
	if len(all) != 3 || all[0].Name != "node1" || !all[0].POK || all[1].POK || all[2].PIC.State != identity.Valid || strings.Join(all[2].Trusts, ",") != "node1,node2" {
		t.Fatalf("the nodes: %+v", all)
	}
	for _, c := range []struct {
		says string
		args []string
	}{
		{"takes no packages from itself", []string{"trust", "node1", "sn:" + all[0].Serial}},
		{"there is no device \"sn:none\"", []string{"trust", "sn:none", "1"}},
		{"there is no device \"node9\"", []string{"remove", "node9", "all"}},
		{"--yes", []string{"remove", "3", "1,2"}},
		{"--store", []string{"fetch-certs", "all"}},
		{"--module", []string{"gen-owner", "1", "--store", t.TempDir()}},
	} {
		if _, err := d.keyferry(0, "", append([]string{"ident"}, c.args...)...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, which does not say %q", c.args, err, c.says)
		}
	}
	d.must(t, 0, "", "ident", "remove", "3", "all", "--yes")
	if got := list()[2].Trusts; len(got) != 0 {
		t.Errorf("node3 still trusts %v", got)
	}
	if _, err := d.keyferry(0, "", "ident", "remove", "3", "1,2", "--yes"); err == nil || !strings.Contains(err.Error(), "nothing to remove") {
		t.Errorf("removed again: %v", err)
	}
	if out := d.must(t, 0, "", "ident", "trust", "all", "sn:"+all[2].Serial); strings.Count(out, "trusts") != 2 {
		t.Errorf("trust again:\n%s", out)
	}
	if got := strings.Join(list()[2].Trusts, ","); got != "node1,node2" {
		t.Errorf("node3 trusts %s", got)
	}
	renewedByCommand(t, d)
	store := filepath.Join(t.TempDir(), "certs")
	d.must(t, 0, "", "ident", "fetch-certs", "all", "--store", store, "--yes")
	out, err := exec.Command(hsmtest.Tool(t, "openssl"), "verify", "-CAfile", filepath.Join(store, "owner.crt"), filepath.Join(store, all[1].Serial+".crt")).CombinedOutput()
	if err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

// renewedByCommand has node2 certified anew by the owner key on node1, after what is no certificate for it.
func renewedByCommand(t *testing.T, d *testDemo) {
	junk := filepath.Join(t.TempDir(), "junk.crt")
	if err := os.WriteFile(junk, []byte("Dear administrator,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, file := range map[string]string{"no such file": junk + ".none", "no PEM file with a certificate": junk, "is for": filepath.Join(d.dir, "node1", "data", "owner.pem")} {
		if _, err := d.keyferry(1, "", "ident", "renew", "--identity", file); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("renewed with %s: %v, which does not say %q", file, err, says)
		}
	}
	here := func() node.NodeIdentity {
		t.Helper()
		ids, err := get[node.Identities](t.Context(), newClient(d.Nodes[1].Socket), "/identity")
		if err != nil || len(ids.Nodes) != 3 {
			t.Fatalf("%v: %+v", err, ids)
		}
		return ids.Nodes[1]
	}
	before := here()
	if out := d.must(t, 1, "", "ident", "renew"); strings.Count(out, "valid") != 3 || !strings.Contains(out, "node2") {
		t.Errorf("renewed:\n%s", out)
	}
	after := here()
	if after.Node != "node2" || after.Key != before.Key || after.Certificate.Fingerprint == before.Certificate.Fingerprint || after.Certificate.State != identity.Valid {
		t.Errorf("renewed: %+v, before %+v", after, before)
	}
}

// TestPairs: a node and itself are no pair of a list.
func TestPairs(t *testing.T) {
	a, b := identity.View{Name: "a"}, identity.View{Name: "b"}
	if got, err := pairs([]identity.View{a, b}, []identity.View{a, b}); err != nil || len(got) != 2 || got[0] != (edge{Trusting: "a", Trusted: "b"}) || got[1] != (edge{Trusting: "b", Trusted: "a"}) {
		t.Errorf("all and all: %v, %v", got, err)
	}
	if got, err := pairs([]identity.View{a}, []identity.View{a}); err == nil {
		t.Errorf("towards itself: %v", got)
	}
}

// replaced is what comes years later: a new identity for a device, a new store, another owner.
func replaced(t *testing.T, a, b *station, b1, stick string) {
	b.must(b.codes[0], "gen-csr", "1")
	if v := b.list().Devices[0]; !v.Renewing || v.PIC.State != identity.Valid {
		t.Errorf("the old identity does not hold while the new one is asked for: %+v", v)
	}
	b.refuses("it answers an older request", b.codes[0], "store-pic", filepath.Join(stick, b1+".crt"), "1")
	csr := filepath.Join(b.store, b1+".csr")
	a.refuses("two devices claim the number", "", "import-csr", csr)
	a.must("", "import-csr", csr, "--yes")
	a.must("code of A\n", "sign", "1", "sn:"+b1)
	a.must("", "export", "sn:"+b1, "--to", stick)
	b.refuses("It would be replaced for good", b.codes[0], "store-pic", filepath.Join(stick, b1+".crt"), "1")
	b.must(b.codes[0], "store-pic", filepath.Join(stick, b1+".crt"), "1", "--yes")
	b.want("valid/valid valid/valid")

	fresh := *b
	fresh.store = filepath.Join(t.TempDir(), "new")
	fresh.refuses("Is that what the owner's administrator says?", "", "fetch-certs", "all")
	fresh.must("", "fetch-certs", "all", "--yes")
	if l := fresh.list(); l.Owner.State != identity.Valid || len(l.Store) != 2 {
		t.Errorf("the fetched store: %+v", l)
	}

	other := newStation(t)
	other.must("code of C\n", "init-token")
	other.must("code of C\n", "gen-owner", "1", "--name", "Other")
	b.refuses("It replaces the owner of device", "", "store-poc", filepath.Join(other.store, "owner.crt"), "1")
	mixed := *other
	mixed.store = a.store
	mixed.refuses("belongs to another owner", "code of C\n", "gen-key", "1", "1")
	other.must("code of C\n", "gen-key", "1", "1")
	mixed.refuses("belongs to another owner", "", "fetch-certs", "1")
	b.must(b.codes[1], "gen-selfsigned", "2", "--yes")
	b.want("valid/valid valid/valid")
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
