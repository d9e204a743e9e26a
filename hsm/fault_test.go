package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// events collects what a module reports.
type events struct {
	mu  sync.Mutex
	all []hsm.Event
}

func (e *events) add(ev hsm.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

func (e *events) has(f func(hsm.Event) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if f(ev) {
			return true
		}
	}
	return false
}

// TestWorkerKilled kills the child while calls are inside the module. The module comes back, with the
// token open, and no call hangs.
func TestWorkerKilled(t *testing.T) {
	each(t, func(t *testing.T, m *hsm.Module, tok *hsm.Token) {
		for round := range 5 {
			k := generate(t, tok, kinds[3], byte(round+1))
			signer, err := tok.Signer(k)
			if err != nil {
				t.Fatal(err)
			}
			began := make(chan struct{}, 1)
			ended := make(chan error, 1)
			go func() {
				digest := sha256.Sum256(nil)
				for {
					_, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256)
					if err != nil {
						ended <- err
						return
					}
					select {
					case began <- struct{}{}:
					default:
					}
				}
			}()
			<-began
			syscall.Kill(m.PID(), syscall.SIGKILL)
			if err := <-ended; !errors.Is(err, hsm.Down) && !errors.Is(err, hsm.Stale) {
				t.Errorf("the call that was inside: %v", err)
			}
			if o := objects(t, tok); len(o.Keys) != round+1 {
				t.Errorf("round %d: %d keys", round, len(o.Keys))
			}
		}
	})
}

// TestModuleHangs freezes the child. The call fails in time, the child is ended and another one
// started.
func TestModuleHangs(t *testing.T) {
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	cfg.Patience = 2 * time.Second
	m := hsmtest.Start(t, cfg)
	tok := hsmtest.NewToken(t, m, "hangs")
	syscall.Kill(m.PID(), syscall.SIGSTOP)
	if _, err := tok.Objects(t.Context(), 0, false); !errors.Is(err, hsm.Timeout) {
		t.Errorf("a call into a frozen module: %v", err)
	}
	objects(t, tok)
}

// TestKeyChangedWhileNew: another program gives a key its ID right after it was first seen, as one that is
// seen half-written gets it. The listing finds that out by itself, without reading everything again.
func TestKeyChangedWhileNew(t *testing.T) {
	tool := hsmtest.Tool(t, "pkcs11-tool")
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	tok := hsmtest.NewToken(t, hsmtest.Start(t, cfg), "new")
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"--module", cfg.Path, "--token-label", "new", "--login", "--pin", hsmtest.Code}, args...)...)
		cmd.Env = append(cmd.Environ(), "SOFTHSM2_CONF="+cfg.Env["SOFTHSM2_CONF"])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	found := func(id byte) bool {
		list, err := tok.Objects(t.Context(), 0, false)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list.Keys, func(k hsm.Key) bool { return bytes.Equal(k.ID, []byte{id}) && k.PublicObject })
	}
	found(0)
	for id := byte(0x10); id < 0x18; id++ { // a slow machine may be too late for one
		before, after := fmt.Sprintf("%02x", id), fmt.Sprintf("%02x", id+0x10)
		run("--keypairgen", "--key-type", "EC:prime256v1", "--id", before)
		if !found(id) {
			t.Fatalf("the key %s is not listed", before)
		}
		run("--type", "pubkey", "--id", before, "--set-id", after)
		run("--type", "privkey", "--id", before, "--set-id", after)
		for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
			if found(id + 0x10) {
				return
			}
		}
	}
	t.Error("the listing keeps what it saw first")
}

// TestCodeChangedByOthers changes a code with another program. The module must find that out by one
// try, and not try a refused code again.
func TestCodeChangedByOthers(t *testing.T) {
	tool := hsmtest.Tool(t, "pkcs11-tool")
	var ev events
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	cfg.Changed = ev.add
	m := hsmtest.Start(t, cfg)
	tok := hsmtest.NewToken(t, m, "changed")
	cmd := exec.Command(tool, "--module", cfg.Path, "--token-label", "changed", "--login", "--pin", hsmtest.Code, "--change-pin", "--new-pin", "another code")
	cmd.Env = append(cmd.Environ(), "SOFTHSM2_CONF="+cfg.Env["SOFTHSM2_CONF"])
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objects(t, tok) // still open, as modules have it
	if err := tok.TryCode(t.Context(), []byte(hsmtest.Code)); !errors.Is(err, hsm.WrongCode) {
		t.Errorf("trying the old code: %v", err)
	}
	if err := tok.TryCode(t.Context(), []byte("another code")); err != nil {
		t.Errorf("trying the new code: %v", err)
	}
	objects(t, tok) // nobody noticed
	if err := m.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Objects(t.Context(), 0, false); !errors.Is(err, hsm.NotLoggedIn) {
		t.Errorf("after the restart: %v", err)
	}
	if !ev.has(func(e hsm.Event) bool { return e.Serial == tok.Serial && errors.Is(e.Err, hsm.WrongCode) }) {
		t.Error("nobody was told that the token did not open again")
	}
	if err := tok.Login(t.Context(), []byte("another code"), true); err != nil {
		t.Errorf("the new code: %v", err)
	}
}

// TestFreshLogin changes codes while the child runs with the tokens closed: a module that is not initialized
// anew would refuse the right code. One restart is enough for all codes that were entered at once.
func TestFreshLogin(t *testing.T) {
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	m := hsmtest.Start(t, cfg)
	tokens := []*hsm.Token{hsmtest.NewToken(t, m, "one"), hsmtest.NewToken(t, m, "two"), hsmtest.NewToken(t, m, "three")}
	other := cfg
	other.Lock = ""
	beside := hsmtest.Start(t, other)
	for _, tok := range tokens {
		if err := tok.Logout(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := beside.Token(tok.Serial).SetCode(t.Context(), []byte(hsmtest.Code), []byte("changed code")); err != nil {
			t.Fatal(err)
		}
	}
	entered, before := time.Now(), m.PID()
	var children []int
	for _, tok := range tokens {
		if err := tok.LoginSince(t.Context(), []byte("changed code"), entered); err != nil {
			t.Error(err)
		}
		children = append(children, m.PID())
	}
	if children[0] == before || children[1] != children[0] || children[2] != children[0] {
		t.Errorf("the child was %d before, and %d when each token was open", before, children)
	}
	if err := tokens[0].Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := tokens[0].Login(t.Context(), []byte("changed code"), false); err != nil || m.PID() != children[0] {
		t.Errorf("without any need: child %d, %v", m.PID(), err)
	}
}

// TestSetCodeChangedByOthers changes a code that is not the token's any more, at an open token. The
// child that is started for it finds that out; the change does not try the code a second time.
func TestSetCodeChangedByOthers(t *testing.T) {
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	other := cfg
	other.Lock = ""
	var mu sync.Mutex
	changes := 0
	cfg.Fault = func(op string, call func() error) error {
		if op == hsm.OpSetCode {
			mu.Lock()
			changes++
			mu.Unlock()
		}
		return call()
	}
	m := hsmtest.Start(t, cfg)
	tok := hsmtest.NewToken(t, m, "changed")
	if err := hsmtest.Start(t, other).Token(tok.Serial).SetCode(t.Context(), []byte(hsmtest.Code), []byte("changed code")); err != nil {
		t.Fatal(err)
	}
	<-time.After(1100 * time.Millisecond) // a child younger than a second counts as fresh
	if err := tok.SetCode(t.Context(), []byte(hsmtest.Code), []byte("our new code")); !errors.Is(err, hsm.WrongCode) {
		t.Errorf("changing the old code: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if changes != 0 {
		t.Error("the code was tried again, by the change")
	}
	if err := tok.Login(t.Context(), []byte("changed code"), false); err != nil {
		t.Errorf("the code as it is now: %v", err)
	}
}

func TestModuleNotThere(t *testing.T) {
	for name, path := range map[string]string{"no file": "/nonexistent/module.so", "no library": "/etc/passwd", "no PKCS#11": libc(t)} {
		t.Run(name, func(t *testing.T) {
			m := hsmtest.Start(t, hsm.Config{Name: "broken", Path: path})
			_, err := m.Info(t.Context())
			if !errors.Is(err, hsm.Down) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error that names %s", err, path)
			}
		})
	}
}

func libc(t *testing.T) string {
	found, _ := filepath.Glob("/lib/*/libz.so.1")
	if len(found) == 0 {
		found, _ = filepath.Glob("/lib/*/libm.so.6")
	}
	if len(found) == 0 {
		t.Fatal("no ordinary library found to try")
	}
	return found[0]
}

// TestFaultHook checks both sides of the hook that other tests use.
func TestFaultHook(t *testing.T) {
	var armed, after bool
	broken := errors.New("broken by the test")
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	cfg.Fault = func(op string, call func() error) error {
		if op != hsm.OpGenerate || !armed {
			return call()
		}
		if after {
			if err := call(); err != nil {
				return err
			}
		}
		return broken
	}
	tok := hsmtest.NewToken(t, hsmtest.Start(t, cfg), "fault")
	spec := hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte{1}, Usage: hsm.UseSign}
	armed = true
	if _, err := tok.Generate(t.Context(), spec); !errors.Is(err, broken) || len(objects(t, tok).Keys) != 0 {
		t.Errorf("failed and not done: %v", err)
	}
	after = true
	if _, err := tok.Generate(t.Context(), spec); !errors.Is(err, broken) || len(objects(t, tok).Keys) != 1 {
		t.Errorf("failed but done: %v", err)
	}
}

// TestKilledWhileImporting kills the child at random moments of an import and looks at what is left:
// no acknowledged key is lost, and the sweep removes what is half made.
func TestKilledWhileImporting(t *testing.T) {
	m := hsmtest.Start(t, hsmtest.SoftHSM(t, t.TempDir()))
	tok := hsmtest.NewToken(t, m, "killed")
	to := newReceiver(t, tok)
	source := generate(t, tok, kinds[0], 1)
	acknowledged := 0
	for round := range 25 {
		to.transport = newest(t, tok, []byte("transport"))
		source = newest(t, tok, source.ID)
		envelope, incoming := send(t, tok, to, source)
		one := incoming[0]
		one.ID = []byte{0xf0, byte(round)}
		imp, err := tok.Import(t.Context(), envelope)
		if err != nil {
			t.Fatal(err)
		}
		pid, kill := m.PID(), make(chan struct{})
		go func() {
			<-kill
			time.Sleep(time.Duration(round%13) * 100 * time.Microsecond)
			syscall.Kill(pid, syscall.SIGKILL)
		}()
		close(kill)
		r, err := imp.Unwrap(t.Context(), challenge, []hsm.Incoming{one})
		imp.Close()
		if err == nil && r[0].Err == nil {
			acknowledged++
			for m.PID() == pid { // the blow comes after the answer
				time.Sleep(time.Millisecond)
			}
		}
		if _, err := tok.Sweep(t.Context(), [][]byte{one.ID}, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	o := objects(t, tok)
	if o.Loose != 0 || len(o.Keys) < 2+acknowledged {
		t.Errorf("%d loose objects, %d keys, %d acknowledged", o.Loose, len(o.Keys), acknowledged)
	}
	for _, k := range o.Keys {
		if k.Usage&hsm.UseSign == 0 {
			continue
		}
		signer, err := tok.Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		checkSigner(t, signer)
	}
	t.Logf("%d of 25 imports were acknowledged", acknowledged)
}

func newest(t *testing.T, tok *hsm.Token, id []byte) hsm.Key {
	t.Helper()
	for _, k := range objects(t, tok).Keys {
		if string(k.ID) == string(id) {
			return k
		}
	}
	t.Fatalf("no key %x", id)
	return hsm.Key{}
}
