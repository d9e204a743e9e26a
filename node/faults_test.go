package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// TestWorkerKilledDuringImport kills the HSM worker again and again while keys are imported. The daemon
// lives, the slot comes back active by itself, and the import ends with every key proved.
func TestWorkerKilledDuringImport(t *testing.T) {
	members := newCluster(t, 2)
	newSlot(t, members, "demo", cluster.Manual)
	const keys = 150
	for i := range keys {
		newKey(t, members[0], "demo", ecKey(fmt.Sprintf("key %03d", i)))
	}
	waitFor(t, members[0], fmt.Sprintf("key %03d", keys-1), "node1", Present)
	staged := ship(t, members[0], members[1], "demo")
	b := members[1]
	job, err := b.Sync.Import(t.Context(), console, staged.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	kills := 0
	for kills < 2 { // two attempts may fail, the third ends the job
		at := 0
		eventually(t, "the import is on its way", func() bool {
			j, err := b.Jobs.Get(job.ID)
			if at = j.Done; err != nil || j.State != JobRunning {
				t.Fatalf("the import ended early: %+v, %v", j, err)
			}
			return at > 0
		})
		pid := b.node.modules[0].PID()
		if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
			continue
		}
		kills++
		eventually(t, "another worker runs", func() bool { p := b.node.modules[0].PID(); return p != 0 && p != pid })
	}
	done, err := finish(t, b, job, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := done.Report; r.Imported != keys || r.Failed+r.Conflicts+r.There != 0 {
		t.Errorf("report: %d imported, %d there, %d conflicts, %d failed", r.Imported, r.There, r.Conflicts, r.Failed)
	}
	if v, err := b.Slots.One("demo"); err != nil || v.State != cluster.Active {
		t.Errorf("the slot: %+v, %v", v, err)
	}
	o, err := b.Sync.here(t.Context(), "demo")
	if err != nil || len(o.Keys) != keys+1 || o.Loose != 0 {
		t.Errorf("%d keys, %d loose objects, %v", len(o.Keys), o.Loose, err)
	}
	checkReceipts(t, members)
}

// TestWithoutQuorum stops two of three nodes. The third still shows its slots and can open them, refuses
// what it cannot do, and writes down later what was done meanwhile.
func TestWithoutQuorum(t *testing.T) {
	members := newCluster(t, 3)
	newSlot(t, members, "hand", cluster.Manual)
	last := members[2]
	if err := last.Slots.Deactivate(t.Context(), console, "hand"); err != nil {
		t.Fatal(err)
	}
	cfgs := []Config{members[0].node.cfg, members[1].node.cfg}
	members[0].node.Close()
	members[1].node.Close()
	eventually(t, "node3 notices", func() bool { return !last.Cluster.Status().Quorum })
	if err := last.Slots.Activate(t.Context(), console, "hand", []byte(manualCode)); err != nil {
		t.Errorf("activating without a quorum: %v", err)
	}
	if v, err := last.Slots.One("hand"); err != nil || v.State != cluster.Active {
		t.Errorf("the slot: %+v, %v", v, err)
	}
	err := last.Slots.ChangeCode(t.Context(), console, "hand", []byte(manualCode), []byte("battery staple"))
	if !errors.Is(err, cluster.NoLeader) {
		t.Errorf("changing a code without a quorum: %v", err)
	}
	if _, err := last.Invite(t.Context(), console, "", time.Hour); !errors.Is(err, cluster.NoLeader) {
		t.Errorf("inviting without a quorum: %v", err)
	}
	if err := last.acts.note(t.Context(), console, cluster.NoteLogin, "account/root", cluster.Done, "by password"); err != nil {
		t.Errorf("a note without a quorum: %v", err)
	}
	open(t, cfgs[0])
	eventually(t, "the note is in the audit trail, with its time", func() bool {
		return slices.ContainsFunc(last.State().Audit, func(e cluster.Entry) bool {
			return e.Act == cluster.NoteLogin && e.Node == "node3" && e.Actor == console && strings.Contains(e.Detail, "without a quorum; by password")
		})
	})
	eventually(t, "the activation is in the audit trail", func() bool {
		done := 0
		for _, e := range last.State().Audit {
			if e.Act == "slot.activate" && e.Node == "node3" && (e.Result == cluster.Done || strings.Contains(e.Detail, "without a quorum")) {
				done++
			}
		}
		return done == 2
	})
}

// TestFollowerWrites asks every node for a change.
func TestFollowerWrites(t *testing.T) {
	members := newCluster(t, 3)
	for i, m := range members {
		name := fmt.Sprintf("app%d", i)
		app := cluster.App{Name: name, Slots: []string{}, Nodes: []string{}, Restart: cluster.Restart{Kind: cluster.RestartNone}}
		if err := m.Apps.Put(t.Context(), console, app, nil); err != nil {
			t.Errorf("%s: %v", m.Name(), err)
		}
		if _, ok := m.State().Apps[name]; !ok {
			t.Errorf("%s does not see at once what it wrote", m.Name())
		}
	}
}

// TestRestartCommands restarts an application after an import, and refuses programs that others could
// have put there.
func TestRestartCommands(t *testing.T) {
	members := newCluster(t, 2)
	newSlot(t, members, "demo", cluster.Generated)
	b := members[1]
	dir := b.node.cfg.RestartDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	proof := filepath.Join(t.TempDir(), "ran")
	script := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	script("good", "echo again >>"+proof, 0o700)
	script("fails", "echo it is broken >&2; exit 3", 0o700)
	script("open", "true", 0o722)
	script("plain", "true", 0o600)
	for _, a := range []struct{ name, command, says string }{
		{"good", "good", ""}, {"fails", "fails", "it is broken"}, {"open", "open", "changed by others"},
		{"plain", "plain", "no executable"}, {"absent", "absent", "not there"},
	} {
		app := cluster.App{Name: a.name, Slots: []string{"demo"}, Nodes: []string{"node2"}, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: a.command}}
		if err := b.Apps.Put(t.Context(), console, app, nil); err != nil {
			t.Fatal(err)
		}
		_, err := b.Apps.Restart(t.Context(), console, a.name)
		if (err == nil) != (a.says == "") || err != nil && !strings.Contains(err.Error(), a.says) {
			t.Errorf("%s: %v", a.name, err)
		}
	}
	unit := cluster.App{Name: "unit", Slots: []string{}, Nodes: []string{"node2"}, Restart: cluster.Restart{Kind: cluster.RestartSystemd, Target: "poweroff.target"}}
	if err := b.Apps.Put(t.Context(), console, unit, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Apps.Restart(t.Context(), console, "unit"); err == nil || !strings.Contains(err.Error(), "restart_units") {
		t.Errorf("a unit that the configuration does not name: %v", err)
	}
	evil := cluster.App{Name: "evil", Slots: []string{}, Nodes: []string{}, Restart: cluster.Restart{Kind: cluster.RestartCommand, Target: "../../bin/sh"}}
	if err := b.Apps.Put(t.Context(), console, evil, nil); err == nil {
		t.Error("a path was taken for a command")
	}
	newKey(t, members[0], "demo", ecKey("k"))
	waitFor(t, members[0], "k", "node2", Missing)
	staged := ship(t, members[0], b, "demo")
	job, err := b.Sync.Import(t.Context(), console, staged.SHA256)
	done, err := finish(t, b, job, err)
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Report.Restarts) != 5 {
		t.Errorf("restarts: %+v", done.Report.Restarts)
	}
	if ran, err := os.ReadFile(proof); err != nil || strings.Count(string(ran), "again") != 2 {
		t.Errorf("the command ran like this: %q, %v", ran, err)
	}
	eventually(t, "node1 knows the last restart", func() bool {
		r := members[0].State().Apps["fails"].Runs["node2"]
		return !r.OK && strings.Contains(r.Detail, "it is broken")
	})
}
