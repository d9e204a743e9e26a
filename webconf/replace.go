package webconf

import (
	"net/http"
	"slices"

	"github.com/keyferry/keyferry/node"
)

type replaceView struct {
	node.Losses
	Mark    mark     // of the node, if it is a member
	Invited bool     // there is an open invitation for the name
	Missing []string // slots that it is to get
	Gaps    int      // keys that it lacks
}

// Entered tells whether a machine with the name takes part.
func (v replaceView) Entered() bool { return v.Member && v.Answers }

// replacePage walks through the replacement of a node that is broken for good.
func replacePage(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	l, err := c.m.Losses(name)
	if err != nil {
		return err
	}
	return c.show(page{Name: "replace", Title: "Replace " + name, Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Data: newReplaceView(c.look(), l)})
}

func newReplaceView(s *situation, l node.Losses) replaceView {
	v := replaceView{Losses: l}
	if n, ok := s.State.Nodes[l.Node]; ok {
		v.Mark = memberMark(n, s.Seen[l.Node])
	}
	for _, i := range s.State.Invites {
		v.Invited = v.Invited || i.Node == l.Node && i.Used == "" && s.Now.Before(i.Expires)
	}
	for label, slot := range s.State.Slots { // of a dead one, those that it had; nobody remembers them once it is removed
		if _, has := slot.Seats[l.Node]; has == (l.Member && !l.Answers) && len(slot.Seats) > 0 {
			v.Missing = append(v.Missing, label)
		}
	}
	slices.Sort(v.Missing)
	for _, k := range s.Coverage {
		if p, ok := k.Nodes[l.Node]; ok && p != node.Present && p != node.Unknown {
			v.Gaps++
		}
	}
	return v
}

func apiLosses(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	l, err := c.m.Losses(name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, l)
}
