package webconf

import (
	"context"
	"time"

	"github.com/keyferry/keyferry/node"
)

type jobsView struct {
	Jobs []node.Job
	More int
}

func jobsPage(c *call) error {
	list, err := c.m.Jobs.List()
	if err != nil {
		return err
	}
	v := jobsView{Jobs: list[:min(len(list), mostJobs)], More: max(0, len(list)-mostJobs)}
	p := page{Name: "jobs", Title: "Jobs", Nav: "/jobs", Data: v}
	for _, j := range list {
		if j.State == node.JobRunning {
			p.Refresh = 3
		}
	}
	return c.show(p)
}

// job is a job as it is now or, with a wait, once it has ended.
func (c *call) job(id string, wait time.Duration) (node.Job, error) {
	ctx, cancel := context.WithTimeout(c.Request().Context(), wait)
	defer cancel()
	return c.m.Jobs.Await(ctx, id)
}

func jobPage(c *call) error {
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	j, err := c.job(id, 0)
	if err != nil {
		return err
	}
	p := page{Name: "job", Title: jobWord(j.Kind), Nav: "/jobs", Crumbs: []crumb{{"Jobs", "/jobs"}}, Data: newJobView(c.m, j)}
	if j.State == node.JobRunning {
		p.Refresh = 1
	}
	return c.show(p)
}

type jobView struct {
	Job     node.Job
	Slot    string
	Package *node.Staged // that it made or imported
}

func newJobView(m *node.Member, j node.Job) jobView {
	v := jobView{Job: j}
	if len(j.Object) > 5 && j.Object[:5] == "slot/" {
		v.Slot = j.Object[5:]
	}
	if j.Result != "" {
		if s, err := m.Sync.Get(j.Result); err == nil {
			v.Package = &s
		}
	}
	return v
}

// Percent is how far the job is, for people; 0 when that is not known.
func (v jobView) Percent() int {
	if v.Job.Total == 0 {
		return 0
	}
	return 100 * v.Job.Done / v.Job.Total
}
