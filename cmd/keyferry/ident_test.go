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
)

// A station is a machine with a module and a certificate store, and no daemon.
type station struct {
	t     *testing.T
	conf  string
	lib   string
	store string
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
	b.must("code of B1\n", "init-token")
	b.refuses("--yes", "code of B2\n", "init-token")
	b.must("code of B2\n", "init-token", "--yes")
	a.want("none/none")

	a.refuses("the authentication code is wrong", "no\n", "gen-owner", "1")
	a.must("code of A\n", "gen-owner", "1", "--name", "Example CA")
	a.want("POC-Pending/none")

	devices := b.list().Devices
	b1, b2 := devices[0].Serial, devices[1].Serial
	// The second device drops out: the first is finished, the other is reported.
	b.refuses("1 of 2 devices failed", "code of B1\nwrong\n", "gen-csr", "all")
	b.want("none/PIK-Pending none/none")
	b.must("code of B1\ncode of B2\n", "gen-csr", "sn:"+b1+",2")
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
	b.refuses("does not know its owner yet", "code of B1\n", "store-pic", pic1, "1")
	b.refuses("this is no owner certificate", "", "store-poc", pic1, "all")
	b.refuses("Is that what the owner's administrator says?", "code of B1\n", "store-poc", poc, "all")
	b.must("code of B1\ncode of B2\n", "store-poc", poc, "all", "--yes")
	b.want("valid/PIK-Pending valid/PIK-Pending")
	b.refuses("is for device", "code of B1\n", "store-pic", pic2, "1")
	b.must("code of B1\n", "store-pic", pic1, "1")
	b.must("code of B2\n", "store-pic", pic2, "sn:"+b2)
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
}

// replaced is what comes years later: a new identity for a device, a new store, another owner.
func replaced(t *testing.T, a, b *station, b1, stick string) {
	b.must("code of B1\n", "gen-csr", "1")
	if v := b.list().Devices[0]; !v.Renewing || v.PIC.State != identity.Valid {
		t.Errorf("the old identity does not hold while the new one is asked for: %+v", v)
	}
	b.refuses("it answers an older request", "code of B1\n", "store-pic", filepath.Join(stick, b1+".crt"), "1")
	csr := filepath.Join(b.store, b1+".csr")
	a.refuses("two devices claim the number", "", "import-csr", csr)
	a.must("", "import-csr", csr, "--yes")
	a.must("code of A\n", "sign", "1", "sn:"+b1)
	a.must("", "export", "sn:"+b1, "--to", stick)
	b.refuses("It would be replaced for good", "code of B1\n", "store-pic", filepath.Join(stick, b1+".crt"), "1")
	b.must("code of B1\n", "store-pic", filepath.Join(stick, b1+".crt"), "1", "--yes")
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
	b.must("code of B2\n", "gen-selfsigned", "2", "--yes")
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
