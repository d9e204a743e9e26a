package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// TestMain makes the test binary the program itself when it is called like it, so that the demo's
// daemons and their workers are real processes of the code under test. "serve-until FILE" is a daemon
// that ends itself with SIGKILL at the steps that a test names meanwhile.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		hsmtest.EndAtOnce()
		os.Exit(m.Run())
	}
	var err error
	if len(os.Args) == 3 && os.Args[1] == "serve-until" {
		err = serveUntil(os.Args[2])
	} else {
		err = newApp(os.Stdin, os.Stdout, os.Stderr).run(context.Background(), os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "keyferry:", err)
		os.Exit(exitStatus(err))
	}
}

func serveUntil(path string) error {
	cfg, err := readConfig(path)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return serve(ctx, cfg, os.Stderr, holdAt(path))
}

// holdAt stops what comes to the first of the steps in the file that stepsLeft reads, for good, and takes
// the step out of the file. With the last one it kills the process: so one kill can find several commands
// between two steps.
func holdAt(conf string) func(string) {
	var mu sync.Mutex
	return func(step string) {
		mu.Lock()
		steps := stepsLeft(conf)
		if len(steps) == 0 || steps[0] != step {
			mu.Unlock()
			return
		}
		if err := setSteps(conf, steps[1:]...); err != nil {
			panic(err)
		}
		if len(steps) == 1 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		} else {
			mu.Unlock()
		}
		select {} // nothing after it happens
	}
}

// stepsLeft are the steps that a daemon started by "serve-until" has not come to yet.
func stepsLeft(conf string) []string {
	b, _ := os.ReadFile(conf + ".until") // no file: no steps
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

func setSteps(conf string, steps ...string) error {
	next := conf + ".until.next"
	if err := os.WriteFile(next, []byte(strings.Join(steps, "\n")), 0o600); err != nil {
		return err
	}
	return os.Rename(next, conf+".until")
}

// commandLine runs the command line, which speaks to a daemon, and returns what it printed. It needs no
// process for that, which costs a test more than what the daemon does; badInput and the audit tests run it as one.
func commandLine(socket, in string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	err := newApp(strings.NewReader(in), &out, &errs).run(context.Background(), append(slices.Clone(args), "--socket", socket))
	if err != nil && errs.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), err
}

// A running demo, as other programs see it.
type testDemo struct {
	readyFile
	dir string
	cmd *exec.Cmd
	end chan struct{}    // closed once cmd has ended
	own []*daemonProcess // that run in place of the demo's daemons
}

// startDemo runs the demo and waits for its ready file.
func startDemo(t testing.TB, dir string, base int, extra ...string) *testDemo {
	t.Helper()
	d := &testDemo{dir: dir, end: make(chan struct{})}
	ready := filepath.Join(dir, "ready.json")
	args := append([]string{"demo", "--dir", dir, "--port-base", fmt.Sprint(base), "--ready", ready}, extra...)
	d.cmd = exec.Command(os.Args[0], args...)
	var out bytes.Buffer
	d.cmd.Stdout, d.cmd.Stderr = &out, &out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.end)
		d.cmd.Wait()
	}()
	t.Cleanup(func() {
		d.interrupt(t)
		if t.Failed() {
			t.Logf("the demo said:\n%s", out.String())
		}
		for _, n := range d.Nodes {
			showLog(t, n.Name, filepath.Join(dir, n.Name, "keyferry.log"))
		}
	})
	deadline := time.After(2 * time.Minute)
	for {
		if b, err := os.ReadFile(ready); err == nil {
			if err := json.Unmarshal(b, &d.readyFile); err != nil {
				t.Fatal(err)
			}
			return d
		}
		select {
		case <-d.end:
			t.Fatalf("the demo ended: %v\n%s", d.cmd.ProcessState, out.String())
		case <-deadline:
			t.Fatal("the demo is not ready")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// interrupt sends the demo Ctrl-C, and waits for its end.
func (d *testDemo) interrupt(t testing.TB) {
	t.Helper()
	d.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-d.end:
	case <-time.After(time.Minute):
		d.cmd.Process.Kill()
		t.Error("the demo does not end")
	}
}

// stop ends the demo as a person at the terminal does.
func (d *testDemo) stop(t testing.TB) {
	t.Helper()
	for _, p := range d.own {
		p.stop()
	}
	d.interrupt(t)
	for _, n := range d.Nodes {
		waitGone(t, n.PID)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "ready.json")); err == nil {
		t.Error("the ready file is still there after the demo's end")
	}
}

// keyferry runs the command line against a node, and returns what it printed.
func (d *testDemo) keyferry(i int, in string, args ...string) (string, error) {
	return commandLine(d.Nodes[i].Socket, in, args...)
}

// process is keyferry in a process of its own, as people start it.
func (d *testDemo) process(i int, in string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(os.Args[0], append(args, "--socket", d.Nodes[i].Socket)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

func (d *testDemo) must(t testing.TB, i int, in string, args ...string) string {
	t.Helper()
	out, err := d.keyferry(i, in, args...)
	if err != nil {
		t.Fatalf("keyferry %v on %s: %v", args, d.Nodes[i].Name, err)
	}
	return out
}

// coverage asks a node, and finds a key by its label.
func (d *testDemo) coverage(t testing.TB, i int, label string) (node.KeyCoverage, bool) {
	t.Helper()
	var list []node.KeyCoverage
	if err := json.Unmarshal([]byte(d.must(t, i, "", "coverage", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, k := range list {
		if k.Key.Label == label {
			return k, true
		}
	}
	return node.KeyCoverage{}, false
}

// waitCoverage waits until a node says of a key that it is so on all the given nodes.
func (d *testDemo) waitCoverage(t testing.TB, i int, label string, want node.Presence, on ...string) {
	t.Helper()
	var last node.KeyCoverage
	// A node that had to wait for its token looks again after half a minute only.
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		k, ok := d.coverage(t, i, label)
		last = k
		all := ok
		for _, n := range on {
			all = all && k.Nodes[n] == want
		}
		if all {
			return
		}
	}
	t.Fatalf("%s never said that %q is %s on %v, but: %+v", d.Nodes[i].Name, label, want, on, last)
}

// carry makes a package on one node and imports it on others.
func (d *testDemo) carry(t testing.TB, from int, slot string, to ...int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keys.keyferry")
	d.must(t, from, "", "sync", "build", "--slot", slot, "-o", file)
	for _, i := range to {
		d.must(t, i, "", "sync", "import", file)
	}
	return file
}
