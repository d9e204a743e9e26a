package node

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// TestJobIsThereAtItsEnd looks a job up again and again while it ends and moves to the store.
func TestJobIsThereAtItsEnd(t *testing.T) {
	db, err := openStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.close() })
	jobs := newJobs(&Member{node: &Node{store: db}, log: slog.New(slog.DiscardHandler)})
	t.Cleanup(jobs.close)
	for i := range 50 {
		end := make(chan struct{})
		job := jobs.start("build", "slot/CA", cluster.Actor{}, func(context.Context, *progress) error {
			<-end
			return errors.New("it failed")
		})
		close(end)
		for state := JobRunning; state == JobRunning; {
			found, err := jobs.Get(job.ID)
			if err != nil {
				t.Fatalf("job %d: %v", i, err)
			}
			state = found.State
		}
		if list, err := jobs.List(); err != nil || len(list) != i+1 {
			t.Fatalf("after job %d: %d jobs, %v", i, len(list), err)
		}
		<-job.done
	}
}
