package webconf

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// apiAudit answers with entries of the audit trail, the newest first.
func apiAudit(c *call) error {
	limit := uint64(100)
	if s := c.QueryParam("limit"); s != "" {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil || n == 0 {
			return invalid("limit must be a number from 1 to %d", maxAPIEntries)
		}
		limit = min(n, maxAPIEntries)
	}
	before, err := optionalNumber(c.QueryParam("before"))
	if err != nil {
		return err
	}
	f, err := readAuditFilter(c.QueryParams())
	if err != nil {
		return err
	}
	entries := []cluster.Entry{}
	for _, e := range slices.Backward(c.m.State().Audit) {
		if uint64(len(entries)) == limit {
			break
		}
		if (before == 0 || e.Seq < before) && f.wants(auditRow{Entry: e}) {
			entries = append(entries, e)
		}
	}
	return c.JSON(http.StatusOK, entries)
}

func apiAuditStatus(c *call) error {
	return c.JSON(http.StatusOK, c.m.Trail.Status())
}

// apiExportAudit takes the bounds as a JSON body.
func apiExportAudit(c *call) error {
	var q struct {
		Since time.Time `json:"since"`
		Until time.Time `json:"until"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	return c.exportAudit(q.Since, q.Until)
}

// exportAudit is the same for a browser.
func exportAudit(c *call) error {
	f, err := c.readForm("export")
	if err != nil {
		return err
	}
	filter, err := readAuditFilter(f.Values)
	if err != nil {
		return err
	}
	return c.exportAudit(filter.Since, filter.Until)
}

// exportAudit writes the trail into the answer. What fails before the first bytes is told as an error;
// what fails later leaves a file without its end line, which verifying shows.
func (c *call) exportAudit(since, until time.Time) error {
	c.patience(uploadTime)
	to := bufio.NewWriterSize(exportWriter{c}, 64<<10)
	err := c.m.Trail.Export(c.Request().Context(), c.actor, to, since, until)
	if err == nil {
		err = to.Flush()
	}
	if err != nil && c.Response().Committed {
		c.srv.log.Warn("an export of the audit trail was cut off", "error", err)
		return nil
	}
	return err
}

// exportWriter sends the head of the answer with its first bytes.
type exportWriter struct{ c *call }

func (w exportWriter) Write(b []byte) (int, error) {
	if r := w.c.Response(); !r.Committed {
		w.c.attach(fmt.Sprintf("audit_%s_%s.jsonl", w.c.m.Name(), time.Now().UTC().Format("20060102T150405Z")))
		r.Header().Set("Content-Type", "application/jsonl")
		r.WriteHeader(http.StatusOK)
	}
	return w.c.Response().Write(b)
}
