// Package hsmtest gives tests real PKCS#11 modules: SoftHSM with a token directory of its own, and NSS
// softoken with a database of its own. A module that is not installed skips the test, and fails it
// where the environment says CI=true.
package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/worker"
)

// Main runs a package's tests. The package's test binary is also the program that its modules start
// as their worker, so each TestMain that uses modules calls this.
func Main(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "hsm-worker" {
		if err := worker.Main(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	EndAtOnce()
	os.Exit(m.Run())
}

// EndAtOnce has the processes that a test starts end without the second for which the race detector lets each
// linger, in case that other goroutines find a race then. A worker that lingers keeps its module's lock file, and
// whoever closes a module waits for it; a command does nothing else for ten times as long as it works.
func EndAtOnce() {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
}

// Missing skips a test for want of something, or fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI must not skip this test", what)
	}
	t.Skipf("%s is missing", what)
}

// Tool finds a program.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil { // daemons are where only root's PATH leads
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		Missing(t, "the program "+name)
	}
	return path
}

// library finds the first of the given files.
func library(t testing.TB, what string, paths ...string) string {
	t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	Missing(t, what)
	return ""
}

// SoftHSMLibrary finds SoftHSM's module.
func SoftHSMLibrary(t testing.TB) string {
	return library(t, "SoftHSM (Debian package softhsm2)", "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
}

// Spy is OpenSC's pkcs11-spy, which stands before a module and writes down each call.
func Spy(t testing.TB) string {
	return library(t, "pkcs11-spy (Debian package opensc)", "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so", "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so", "/usr/lib64/pkcs11/pkcs11-spy.so")
}

// SoftHSM makes an empty SoftHSM in dir and returns how to run it.
func SoftHSM(t testing.TB, dir string) hsm.Config {
	t.Helper()
	lib := SoftHSMLibrary(t)
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.MkdirAll(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := "directories.tokendir = " + dir + "/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return hsm.Config{Name: "softhsm", Path: lib, Env: map[string]string{"SOFTHSM2_CONF": conf}, Lock: filepath.Join(dir, "lock")}
}

// NSS makes an empty NSS database in dir and returns how to run softoken on it.
func NSS(t testing.TB, dir string) hsm.Config {
	t.Helper()
	lib := library(t, "NSS softoken (Debian package libnss3)",
		"/usr/lib/x86_64-linux-gnu/libsoftokn3.so", "/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
		"/usr/lib/aarch64-linux-gnu/libsoftokn3.so", "/usr/lib64/libsoftokn3.so")
	return hsm.Config{Name: "nss", Path: lib, Lock: filepath.Join(dir, "lock"),
		InitArgs: "configdir='sql:" + dir + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags="}
}

// Start starts a module and ends it with the test.
func Start(t testing.TB, cfg hsm.Config) *hsm.Module {
	m := hsm.Start(cfg)
	t.Cleanup(m.Close)
	return m
}

// Code is the code of tokens made by NewToken.
const Code = "correct horse"

// NewToken initializes a token and logs in to it.
func NewToken(t testing.TB, m *hsm.Module, label string) *hsm.Token {
	t.Helper()
	info, err := m.InitToken(t.Context(), label, []byte("officer-0123456789"), []byte(Code))
	if err != nil {
		t.Fatal(err)
	}
	tok := m.Token(info.Serial)
	if err := tok.Login(t.Context(), []byte(Code), false); err != nil {
		t.Fatal(err)
	}
	return tok
}
