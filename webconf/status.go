package webconf

import (
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type statusView struct {
	Problems []problem
	Active   int // slots of this node
	Slots    int
	Keys     node.Summary
	Answers  int
	Nodes    int
	Recent   []auditRow
	Forecast node.Forecast
	Single   bool // there is one node only, so nothing is redundant
	NoSlots  bool // in the whole cluster
	Waiting  int  // requests for approval
}

const recentRows = 6

func statusPage(c *call) error {
	v := c.look()
	return c.show(page{Name: "status", Title: "Status of " + v.Node, Nav: "/", Data: newStatusView(v)})
}

func newStatusView(v *situation) statusView {
	rows, _ := auditRowsOf(v.State, auditFilter{}, 0, recentRows)
	return statusView{
		Problems: v.problems(), Active: v.active(), Slots: len(v.Slots), Keys: v.Summary, Answers: len(v.names()) - len(v.silent()),
		Nodes: len(v.State.Nodes), Recent: rows, Forecast: v.forecasts()[0], Single: len(v.State.Nodes) == 1, NoSlots: len(v.State.Slots) == 0, Waiting: v.waiting(),
	}
}

// waiting counts the requests that wait for anybody's approval.
func (v *situation) waiting() int {
	n := 0
	for _, a := range v.State.Approvals {
		if a.StateAt(v.Now) == cluster.ApprovalWaiting {
			n++
		}
	}
	return n
}

// State is the node's state in one word, for the head of the page.
func (s statusView) State() mark {
	switch {
	case len(s.Problems) == 0:
		return mark{"ok", "ok", "All is well"}
	case s.Problems[0].Severity == bad:
		return mark{"bad", "alert", "Needs attention now"}
	}
	return mark{"warn", "warn", "Needs attention"}
}
