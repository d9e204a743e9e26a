package webconf

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/keyferry/keyferry/node"
)

func apiPlan(c *call) error {
	slot := c.QueryParam("slot")
	if slot == "" {
		return invalid("say which slot: ?slot=LABEL")
	}
	var to []string
	if names := c.QueryParam("to"); names != "" {
		to = strings.Split(names, ",")
	}
	if err := c.m.Keys.Look(c.Request().Context(), slot); err != nil {
		return err
	}
	p, err := c.m.Sync.Plan(slot, to)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, p)
}

func apiPackages(c *call) error {
	list, err := c.m.Sync.List()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, whole(list))
}

func apiBuild(c *call) error {
	var q struct {
		Slot string   `json:"slot"`
		To   []string `json:"to"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	job, err := c.m.Sync.Build(c.Request().Context(), c.actor, q.Slot, q.To)
	return c.answerBegun(job, err)
}

// answerBegun answers with a job that has just begun.
func (c *call) answerBegun(begun *node.Job, err error) error {
	if err != nil {
		return err
	}
	j, err := c.job(begun.ID, 0)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, j)
}

func (c *call) staged() (node.Staged, error) {
	digest, err := c.segment("digest")
	if err != nil {
		return node.Staged{}, err
	}
	return c.m.Sync.Get(digest)
}

func apiPackage(c *call) error {
	s, err := c.staged()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, s)
}

func apiPreview(c *call) error {
	s, err := c.staged()
	if err != nil {
		return err
	}
	p, err := c.m.Sync.Preview(c.Request().Context(), c.actor, s.SHA256)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, p)
}

func apiImport(c *call) error {
	s, err := c.staged()
	if err != nil {
		return err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	job, err := c.m.Sync.Import(c.Request().Context(), c.actor, s.SHA256)
	return c.answerBegun(job, err)
}

// apiUpload takes in a package file as the body of the request, and keeps none of it in memory.
func apiUpload(c *call) error {
	if err := c.kind("application/octet-stream"); err != nil {
		return err
	}
	c.patience(uploadTime)
	s, err := c.m.Sync.Stage(c.Request().Context(), c.actor, c.Request().Body)
	if err != nil {
		c.drain()
		return err
	}
	return c.JSON(http.StatusOK, s)
}

// apiInspect says what a package file is, without keeping it.
func apiInspect(c *call) error {
	if err := c.kind("application/octet-stream"); err != nil {
		return err
	}
	c.patience(uploadTime)
	f, err := os.CreateTemp("", "keyferry-inspect-*")
	if err != nil {
		return fmt.Errorf("a package to look at: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, c.Request().Body); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	i, err := c.m.Sync.Inspect(f)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, i)
}
