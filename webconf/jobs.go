package webconf

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
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
	var staged *node.Staged
	if s, err := c.m.Sync.Get(j.Result); err == nil {
		staged = &s
	}
	p := page{Name: "job", Title: jobWord(j.Kind), Nav: "/jobs", Crumbs: []crumb{{"Jobs", "/jobs"}}, Data: newJobView(j, staged)}
	if j.State == node.JobRunning {
		p.Refresh = 1
	}
	return c.show(p)
}

type jobView struct {
	Job      node.Job
	Slot     string
	App      string              // that it restarted
	Package  *node.Staged        // that it made or imported
	Keys     []syncpkg.KeyResult // those with trouble first
	MoreKeys int                 // that are not shown
	Total    int
}

func newJobView(j node.Job, staged *node.Staged) jobView {
	v := jobView{Job: j, Package: staged}
	if noun, label, _ := strings.Cut(j.Object, "/"); noun == "slot" {
		v.Slot = label
	} else if noun == "app" {
		v.App = label
	}
	if j.Report == nil {
		return v
	}
	keys := slices.Clone(j.Report.Keys)
	slices.SortStableFunc(keys, func(a, b syncpkg.KeyResult) int { return cmp.Compare(len(b.Error), len(a.Error)) })
	v.Total = len(keys)
	v.Keys, v.MoreKeys = keys[:min(len(keys), mostJobKeys)], max(0, len(keys)-mostJobKeys)
	return v
}

// Percent is how far the job is, for people; 0 when that is not known.
func (v jobView) Percent() int {
	if v.Job.Total == 0 {
		return 0
	}
	return 100 * v.Job.Done / v.Job.Total
}
