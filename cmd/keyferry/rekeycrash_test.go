package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyferry/keyferry/identity"
)

// TestKilledWhileReplacingKeys kills a daemon with -9 between every two steps of replacing its identity key and the
// owner of its cluster. After the next start either nothing has happened, and the command can be repeated, or it goes
// on to its end by itself.
func TestKilledWhileReplacingKeys(t *testing.T) {
	n := newLoneNode(t)
	n.start()
	n.must("", "init")
	list := func() (l identListing) {
		if out, err := n.keyferry("", "ident", "list", "-o", "json"); err == nil {
			json.Unmarshal([]byte(out), &l)
		}
		return l
	}
	settled := func(l identListing) bool {
		return len(l.Devices) == 1 && !l.Devices[0].Renewing && l.Next == nil && l.Devices[0].POK && l.Devices[0].PIC.State == identity.Valid
	}
	key, owner := []string{"ident", "renew", "--new-key", "--yes"}, []string{"ident", "replace-owner", "--yes"}
	for _, c := range []struct {
		step    string
		args    []string
		nothing bool // has happened by then
	}{
		// What was not settled is settled by the start after it. The other rounds come in between, so that it is not
		// taken for that of the round.
		{"rekey: certified", key, true}, {"rekey: settling", key, false}, {"owner: made", owner, true}, {"rekey: settling", owner, false},
		{"rekey: registered", key, false}, {"rekey: in use", key, false}, {"rekey: retired", key, false}, {"owner: known", owner, false}, {"owner: certified", owner, false},
	} {
		what := strings.Join(c.args[:2], " ") + ", killed at " + c.step
		before := list()
		if err := setSteps(n.conf, c.step); err != nil {
			t.Fatal(err)
		}
		n.keyferry("", c.args...) // it may end well: some steps come after the answer
		if state := n.daemon.wait(); !strings.Contains(state, "killed") {
			t.Fatalf("%s: the daemon ended so: %s", what, state)
		}
		n.start()
		var after identListing
		n.wait(what+": the keys are settled", func() bool { after = list(); return settled(after) })
		changed := before.Devices[0].PIC.Fingerprint != after.Devices[0].PIC.Fingerprint
		if changed == c.nothing || before.Devices[0].POC.Fingerprint != after.Devices[0].POC.Fingerprint != (c.args[1] == "replace-owner" && !c.nothing) {
			t.Errorf("%s: before %+v, after %+v", what, before.Devices[0], after.Devices[0])
		}
	}
	for _, args := range [][]string{key, owner} {
		n.must("", args...)
		n.wait("the keys are settled", func() bool { return settled(list()) })
	}
	n.daemon.stop()
}

// rekeyDemo gives each node of the demo a new identity key, and the cluster another owner on another node, while all
// are asked to read and to write all the time. No request fails.
func rekeyDemo(t *testing.T, d *testDemo) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var tasks sync.WaitGroup
	var asked, longest atomic.Int64
	var mu sync.Mutex
	var failed []string
	for i := range d.Nodes {
		for _, args := range [][]string{{"ident", "list"}, {"slots", "rotation", "demo-auto", "--days", "30"}} {
			tasks.Go(func() {
				for ctx.Err() == nil {
					began := time.Now()
					_, err := d.keyferry(i, "", args...)
					longest.Store(max(longest.Load(), int64(time.Since(began))))
					asked.Add(1)
					if err != nil {
						mu.Lock()
						failed = append(failed, fmt.Sprintf("%s: %v: %v", d.Nodes[i].Name, args, err))
						mu.Unlock()
					}
				}
			})
		}
	}
	list := func() (l identListing) {
		t.Helper()
		if err := json.Unmarshal([]byte(d.must(t, 0, "", "ident", "list", "-o", "json")), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	before, began := list(), time.Now()
	for i := range d.Nodes {
		d.must(t, i, "", "ident", "renew", "--new-key", "--yes")
	}
	d.must(t, 1, "", "ident", "replace-owner", "--yes")
	var after identListing
	d.settle(t, "the owner is replaced", func() bool {
		after = list()
		return after.Next == nil && after.Devices[1].POK && after.Devices[0].POC.Fingerprint != before.Devices[0].POC.Fingerprint
	})
	took := time.Since(began)
	stop()
	tasks.Wait()
	d.must(t, 0, "", "slots", "rotation", "demo-auto", "--days", "0")
	for _, f := range failed[:min(5, len(failed))] {
		t.Error(f)
	}
	for i, v := range after.Devices {
		if v.PIC.State != identity.Valid || v.PIC.Fingerprint == before.Devices[i].PIC.Fingerprint || v.Renewing {
			t.Errorf("%+v", v)
		}
	}
	t.Logf("three identity keys and the owner in %v; %d requests, %d failed, the longest took %v", took.Round(time.Millisecond), asked.Load(), len(failed), time.Duration(longest.Load()).Round(time.Millisecond))
}
