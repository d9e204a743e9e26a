package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/node"
)

// The steps of an import after which a daemon is killed.
var importSteps = []string{
	"import: journal open", "import: journaled", "import: unwrapped", "import: proved", "import: receipt sent",
}

// killedImports kills node2's daemon with SIGKILL at each step of an import and starts it again: no key is
// half made, none is lost, and the import ends by itself. The last daemon lives as long as all.
func killedImports(all, t *testing.T, d *testDemo) {
	syscall.Kill(d.Nodes[1].PID, syscall.SIGTERM)
	waitGone(t, d.Nodes[1].PID)
	daemon := d.daemon(all, 1)
	d.activate(t, 1)
	for i, step := range importSteps {
		label := fmt.Sprintf("crash %d", i)
		id := fmt.Sprintf("c%d", i)
		first := foreign{d, 0}
		first.pkcs11Tool(t, "--keypairgen", "--key-type", "EC:prime256v1", "--label", label, "--id", id+"01", "--usage-sign", "--extractable")
		first.pkcs11Tool(t, "--keypairgen", "--key-type", "rsa:2048", "--label", label+" rsa", "--id", id+"02", "--usage-sign", "--extractable")
		public := filepath.Join(t.TempDir(), "public.der")
		first.writePublic(t, id+"01", public)
		d.waitCoverage(t, 0, label+" rsa", node.Present, "node1")
		d.settle(t, "node1 knows that both can travel", func() bool { // it may have seen a key half written
			k, _ := d.coverage(t, 0, label)
			rsa, _ := d.coverage(t, 0, label+" rsa")
			return !strings.Contains(fmt.Sprint(k.Reasons, rsa.Reasons), "public key is not on the token")
		})
		file := filepath.Join(t.TempDir(), "crash.keyferry")
		d.must(t, 0, "", "sync", "build", "--slot", d.Slots[0].Label, "--to", "node2", "-o", file)

		if err := setSteps(d.conf(1), step); err != nil {
			t.Fatal(err)
		}
		if out, err := d.keyferry(1, "", "sync", "import", file); err == nil {
			t.Fatalf("%s: the import ended well: %s", step, out)
		}
		if state := daemon.wait(); !strings.Contains(state, "killed") {
			t.Fatalf("%s: the daemon ended so: %s", step, state)
		}

		daemon = d.daemon(all, 1)
		d.activate(t, 1)
		d.waitCoverage(t, 1, label, node.Present, "node1", "node2")
		d.waitCoverage(t, 1, label+" rsa", node.Present, "node1", "node2")
		foreign{d, 1}.signAndVerify(t, id+"01", public)
		d.checkReceipt(t, step)
		if v := d.slot(t, 1); v.Loose != 0 {
			t.Errorf("%s: %d half-made objects are left", step, v.Loose)
		}
	}
}

// A daemonProcess is a daemon that a test has started itself.
type daemonProcess struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startDaemon(t testing.TB, args ...string) *daemonProcess {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(t.TempDir(), "daemon.log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &daemonProcess{cmd: exec.Command(os.Args[0], args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		showLog(t, fmt.Sprint(args), log.Name())
	})
	return p
}

// showLog shows the end of a daemon's log where a test has failed, or the race detector has found something
// in the daemon, which nobody else would see.
func showLog(t testing.TB, whose, path string) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("the log of %s: %v", whose, err)
	}
	if i := bytes.Index(b, []byte("WARNING: DATA RACE")); i >= 0 {
		t.Errorf("%s:\n%s", whose, b[i:min(len(b), i+8000)])
	}
	if t.Failed() {
		t.Logf("the end of the log of %s:\n%s", whose, b[max(0, len(b)-4000):])
	}
}

func (p *daemonProcess) wait() string {
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		return "not at all"
	}
	return p.cmd.ProcessState.String()
}

func (p *daemonProcess) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	if p.wait() == "not at all" {
		p.cmd.Process.Kill()
		<-p.done
	}
}

func waitGone(t testing.TB, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

// activate opens the demo's manual slot on a node that has just started.
func (d *testDemo) activate(t testing.TB, i int) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err = d.keyferry(i, d.Slots[0].PIN+"\n", "slots", "activate", d.Slots[0].Label); err == nil {
			return
		}
		if !strings.Contains(err.Error(), "no daemon answers") { // it answers, and has another reason
			break
		}
	}
	t.Fatalf("activating %s on %s: %v", d.Slots[0].Label, d.Nodes[i].Name, err)
}

func (d *testDemo) slot(t testing.TB, i int) node.SlotView {
	t.Helper()
	var list slotList
	if err := json.Unmarshal([]byte(d.must(t, i, "", "slots", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, v := range list.Here {
		if v.Label == d.Slots[0].Label {
			return v
		}
	}
	t.Fatal("the slot is gone")
	return node.SlotView{}
}

// checkReceipt looks for the end of the interrupted import in the audit trail and the jobs.
func (d *testDemo) checkReceipt(t testing.TB, step string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var jobs []node.Job
		if err := json.Unmarshal([]byte(d.must(t, 1, "", "jobs", "-o", "json")), &jobs); err != nil {
			t.Fatal(err)
		}
		if len(jobs) == 0 || jobs[0].State != node.JobDone || jobs[0].Report == nil {
			continue
		}
		if r := jobs[0].Report; r.Imported != 2 || !r.Receipt {
			t.Errorf("%s: the import that went on by itself: %+v", step, r)
		}
		return
	}
	t.Errorf("%s: no import went on by itself", step)
}
