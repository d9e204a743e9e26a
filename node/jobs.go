package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Jobs are what takes longer than a person waits for a page: each has progress, a log and an end, and
// goes on when the browser is closed.
type Jobs struct {
	m     *Member
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup

	mu      sync.Mutex
	running map[string]*Job
}

// Job is one long piece of work, as of a moment.
type Job struct {
	ID     string        `json:"id"`
	Kind   string        `json:"kind"`   // "build", "import", "activate" or "restart"
	Object string        `json:"object"` // "slot/payments"
	Actor  cluster.Actor `json:"actor"`
	State  string        `json:"state"` // JobRunning, JobDone or JobFailed
	Began  time.Time     `json:"began"`
	Ended  time.Time     `json:"ended,omitzero"`
	Done   int           `json:"done"` // of Total keys, or tokens
	Total  int           `json:"total"`
	Log    []JobLine     `json:"log"`
	Error  string        `json:"error,omitempty"`
	Result string        `json:"result,omitempty"` // SHA-256 of the package it made or imported
	Report *ImportReport `json:"report,omitempty"`

	Openings []Opening `json:"openings,omitempty"` // of an activation, by slot and node

	err  error
	done chan struct{}
}

// JobLine is one line of a job's log.
type JobLine struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// States of a job.
const (
	JobRunning = "running"
	JobDone    = "done"
	JobFailed  = "failed"
)

// Limits of jobs.
const (
	mostJobLines = 200 // of one job's log
	mostJobs     = 200 // that are remembered
)

func newJobs(m *Member) *Jobs {
	ctx, stop := context.WithCancel(context.Background())
	return &Jobs{m: m, ctx: ctx, stop: stop, running: map[string]*Job{}}
}

func (j *Jobs) close() {
	j.stop()
	j.tasks.Wait()
}

// start runs f as a job. Its context ends with the node, not with the request that began it.
func (j *Jobs) start(kind, object string, actor cluster.Actor, f func(context.Context, *progress) error) *Job {
	job := &Job{ID: cluster.NewID(), Kind: kind, Object: object, Actor: actor, State: JobRunning, Began: time.Now().UTC(), done: make(chan struct{})}
	j.mu.Lock()
	j.running[job.ID] = job
	j.mu.Unlock()
	j.tasks.Go(func() {
		err := f(j.ctx, &progress{j, job})
		j.mu.Lock()
		job.State, job.Ended, job.err = JobDone, time.Now().UTC(), err
		if err != nil {
			job.State, job.Error = JobFailed, err.Error()
		}
		ended := *job
		j.mu.Unlock()
		if err := j.m.node.store.put(bucketJobs, ended.Began.Format("20060102150405.000000000")+ended.ID, ended); err != nil {
			j.m.log.Error("a job cannot be stored", "error", err)
		}
		j.forget()
		close(job.done)
		j.mu.Lock()
		delete(j.running, job.ID)
		j.mu.Unlock()
	})
	return job
}

// on finds a job that is running on an object.
func (j *Jobs) on(object string) (Job, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, job := range j.running {
		if job.Object == object && job.State == JobRunning {
			return *job, true
		}
	}
	return Job{}, false
}

// progress is how a job tells how far it is.
type progress struct {
	jobs *Jobs
	job  *Job
}

func (p *progress) say(format string, args ...any) {
	p.jobs.mu.Lock()
	defer p.jobs.mu.Unlock()
	if len(p.job.Log) < mostJobLines {
		p.job.Log = append(slices.Clip(p.job.Log), JobLine{time.Now().UTC(), fmt.Sprintf(format, args...)})
	}
}

func (p *progress) at(done, total int) {
	p.jobs.mu.Lock()
	defer p.jobs.mu.Unlock()
	p.job.Done, p.job.Total = done, total
}

// result names the package that the job made or imported.
func (p *progress) result(digest string) {
	p.jobs.mu.Lock()
	defer p.jobs.mu.Unlock()
	p.job.Result = digest
}

// report shows how an import stands. The job may go on writing its own copy.
func (p *progress) report(r ImportReport) {
	p.jobs.mu.Lock()
	defer p.jobs.mu.Unlock()
	p.job.Report = &r
}

// openings shows how an activation stands.
func (p *progress) openings(list []Opening) {
	p.jobs.mu.Lock()
	defer p.jobs.mu.Unlock()
	p.job.Openings = list
}

// forget drops the oldest jobs.
func (j *Jobs) forget() {
	list, err := all[Job](j.m.node.store, bucketJobs)
	for i := 0; err == nil && i < len(list)-mostJobs; i++ {
		err = j.m.node.store.drop(bucketJobs, list[i].Began.Format("20060102150405.000000000")+list[i].ID)
	}
}

// List returns the jobs, the newest first.
func (j *Jobs) List() ([]Job, error) {
	// What runs is looked at first: a job that ends meanwhile is in the store by then.
	var running []Job
	j.mu.Lock()
	for _, job := range j.running {
		running = append(running, *job)
	}
	j.mu.Unlock()
	list, err := all[Job](j.m.node.store, bucketJobs)
	for _, job := range running {
		if !slices.ContainsFunc(list, func(stored Job) bool { return stored.ID == job.ID }) {
			list = append(list, job)
		}
	}
	slices.SortFunc(list, func(a, b Job) int { return b.Began.Compare(a.Began) })
	return list, err
}

// Get returns one job.
func (j *Jobs) Get(id string) (Job, error) {
	list, err := j.List()
	if err != nil {
		return Job{}, err
	}
	for _, job := range list {
		if job.ID == id {
			return job, nil
		}
	}
	return Job{}, refusal{&cluster.Error{Code: cluster.NotFound, Message: "there is no such job; the oldest are forgotten"}}
}

// Wait waits for a job's end, or for ctx, and returns it as it is then. Its error is the job's.
func (j *Jobs) Wait(ctx context.Context, job *Job) (Job, error) {
	select {
	case <-job.done:
	case <-ctx.Done():
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return *job, job.err
}
