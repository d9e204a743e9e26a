package webconf

import (
	"context"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// exchange makes a package on one node and, with another, imports it there. It returns the digest of the
// package and the id of the job that imported it.
func exchange(t testing.TB, from, to *appliance, slot string, receivers ...string) (digest, job string) {
	t.Helper()
	for _, name := range receivers {
		eventually(t, name+" can receive packages", func() bool {
			seat := from.State().Slots[slot].Seats[name]
			return seat.Receiver != "" && seat.State == cluster.Active
		})
	}
	built, err := from.Sync.Build(t.Context(), root, slot, receivers)
	digest = done(t, from, built, err).Result
	if to == nil {
		return digest, ""
	}
	bring(t, from, to, digest)
	started, err := to.Sync.Import(t.Context(), root, digest)
	return digest, done(t, to, started, err).ID
}

// bring carries a package from one node to another.
func bring(t testing.TB, from, to *appliance, digest string) {
	t.Helper()
	s, err := from.Sync.Get(digest)
	if err != nil {
		t.Fatal(err)
	}
	f, err := from.Sync.File(s)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := to.Sync.Stage(t.Context(), root, f); err != nil {
		t.Fatal(err)
	}
}

// done waits for the end of a job.
func done(t testing.TB, a *appliance, job *node.Job, err error) node.Job {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	j, err := a.Jobs.Wait(ctx, job)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func packageID(t testing.TB, a *appliance, digest string) string {
	t.Helper()
	s, err := a.Sync.Get(digest)
	if err != nil {
		t.Fatal(err)
	}
	return s.Header.ID
}

func lastJob(t testing.TB, a *appliance) string {
	t.Helper()
	list, err := a.Jobs.List()
	if err != nil || len(list) == 0 {
		t.Fatalf("%d jobs, %v", len(list), err)
	}
	return list[0].ID
}

func fingerprintOf(t testing.TB, a *appliance, label string) string {
	t.Helper()
	for _, k := range a.Keys.Coverage() {
		if k.Key.Label == label {
			return k.Key.Fingerprint
		}
	}
	t.Fatalf("no key %q", label)
	return ""
}
