package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/identity"
	"golang.org/x/sys/unix"
)

// newTerminal opens a terminal, and what a person types at it.
func newTerminal(t *testing.T) (terminal, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, person
}

// TestIdentAtTerminal: a code is chosen by typing it twice, and a question is answered before it is asked for.
func TestIdentAtTerminal(t *testing.T) {
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	t.Setenv("SOFTHSM2_CONF", cfg.Env["SOFTHSM2_CONF"])
	terminal, person := newTerminal(t)
	store := filepath.Join(t.TempDir(), "certs")
	ident := func(typed string, args ...string) (string, error) {
		t.Helper()
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := newApp(terminal, &out, &out).run(t.Context(), append(append([]string{"ident"}, args...), "--module", cfg.Path, "--store", store))
		return out.String(), err
	}
	fails := func(says, typed string, args ...string) {
		t.Helper()
		if out, err := ident(typed, args...); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v: %v, which does not say %q:\n%s", args, err, says, out)
		}
	}
	must := func(shows, typed string, args ...string) {
		t.Helper()
		if out, err := ident(typed, args...); err != nil || !strings.Contains(out, shows) {
			t.Errorf("%v: %v, which does not show %q:\n%s", args, err, shows, out)
		}
	}
	owner := func() string {
		t.Helper()
		c, err := identity.ReadCertificate(filepath.Join(store, "owner.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return identity.Fingerprint(c)
	}
	fails("not the same", "one code\nanother\n", "init-token")
	must("The same again: ", "one code\none code\n", "init-token")
	must("Authentication code of device", "one code\n", "gen-owner", "1")
	before := owner()
	fails("nothing was done", "n\n", "gen-owner", "1")
	fails("nothing was done", "\n", "gen-owner", "1")
	if owner() != before {
		t.Error("the owner was replaced against the answer")
	}
	must("every certificate that it signed is worthless. [y/N] ", "y\none code\n", "gen-owner", "1")
	if owner() == before {
		t.Error("the owner was not replaced")
	}
}
