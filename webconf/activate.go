package webconf

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// The activation page opens slots of all nodes at once, after a power cut say.

type activateView struct {
	Node     string
	Manual   []closedSlot
	Shared   []closedSlot
	Others   []closedSeat // closed, and nothing that people enter opens them
	Requests []askedFor
	Active   int
	Total    int
	Silent   []string
	// Custodian tells whether the person has a custodian passphrase.
	Custodian bool
	Running   string // a job that is opening slots now
}

// A closedSlot is a slot that somebody can open, with the nodes where it is closed.
type closedSlot struct {
	Label string
	Seats []closedSeat
	Apps  []string
}

// Field is the name of the field for a code: labels may contain anything.
func (s closedSlot) Field(node string) string { return codeField(s.Label, node) }

// Many tells whether the nodes may have codes that differ.
func (s closedSlot) Many() bool { return len(s.Seats) > 1 }

// Names are the nodes that answer, where the code goes to.
func (s closedSlot) Names() []string {
	var names []string
	for _, seat := range s.Seats {
		if seat.Answers {
			names = append(names, seat.Node)
		}
	}
	return names
}

type closedSeat struct {
	Label   string
	Node    string
	Mark    mark
	Reason  string
	Answers bool
	Need    node.ShareNeed // of a shared slot, where the node says what it waits for
}

// An askedFor is a change that custodians are asked to agree to.
type askedFor struct {
	Node string
	node.ShareNeed
}

const codePrefix = "code."

func codeField(label, node string) string {
	return codePrefix + base64.RawURLEncoding.EncodeToString([]byte(label)) + "." + node
}

// fieldCode is the way back from codeField.
func fieldCode(field string) (label, node string, ok bool) {
	rest, ok := strings.CutPrefix(field, codePrefix)
	name, node, found := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(name)
	return string(b), node, ok && found && err == nil
}

func newActivateView(v *situation, account string) activateView {
	a := activateView{Node: v.Node, Silent: v.silent()}
	_, a.Custodian = v.State.Custodians[account]
	for _, label := range slices.Sorted(maps.Keys(v.State.Slots)) {
		manual, shared := closedSlot{Label: label}, closedSlot{Label: label}
		for _, name := range slices.Sorted(maps.Keys(v.State.Slots[label].Seats)) {
			seat := v.seat(label, name)
			a.Total++
			if seat.State == cluster.Active {
				a.Active++
				continue
			}
			c := closedSeat{Label: label, Node: name, Mark: seatMark(seat.State, seat.Mode), Reason: seat.Reason, Answers: v.Seen[name].Answers || name == v.Node}
			c.Need = v.need(name, label, node.ForOpening)
			switch {
			case seat.State == cluster.Broken || seat.Mode == cluster.Generated:
				a.Others = append(a.Others, c)
			case seat.Mode == cluster.Shared || c.Need.Slot != "":
				shared.Seats = append(shared.Seats, c)
			}
			if seat.State != cluster.Broken && seat.Mode == cluster.Manual {
				manual.Seats = append(manual.Seats, c)
			}
		}
		for _, found := range []struct {
			slot closedSlot
			to   *[]closedSlot
		}{{manual, &a.Manual}, {shared, &a.Shared}} {
			if len(found.slot.Seats) > 0 {
				found.slot.Apps = v.apps(label)
				*found.to = append(*found.to, found.slot)
			}
		}
	}
	for _, name := range v.names() {
		for _, n := range v.needs(name) {
			if n.Purpose != node.ForOpening {
				a.Requests = append(a.Requests, askedFor{name, n})
			}
		}
	}
	return a
}

// Codes tells whether there is anything to enter.
func (a activateView) Codes() bool { return len(a.Manual)+len(a.Shared)+len(a.Requests) > 0 }

// Ticks tells whether any change waits for custodians to agree to it one by one.
func (r askedFor) Ticks() bool {
	return r.Purpose == node.ForReplacing || r.Purpose == node.ForLeaving
}

// seat is what is known of a node's token. Of its own this node knows better than the cluster.
func (v *situation) seat(label, name string) cluster.Seat {
	seat := v.State.Slots[label].Seats[name]
	if name != v.Node {
		return seat
	}
	for _, here := range v.Slots {
		if here.Label == label {
			seat.State, seat.Mode, seat.Reason = here.State, here.Mode, here.Reason
		}
	}
	return seat
}

// needs is what a node waits for from custodians.
func (v *situation) needs(name string) []node.ShareNeed {
	if name == v.Node {
		return v.Needs
	}
	if !v.Seen[name].Answers {
		return nil
	}
	return v.Seen[name].Health.Needs
}

func (v *situation) need(name, label, purpose string) node.ShareNeed {
	for _, n := range v.needs(name) {
		if n.Slot == label && n.Purpose == purpose {
			return n
		}
	}
	return node.ShareNeed{}
}

func activatePage(c *call) error { return showActivate(c, newForm("open", nil)) }

func showActivate(c *call, f *form) error {
	v := newActivateView(c.look(), c.actor.Name)
	jobs, err := c.m.Jobs.List()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.Kind == "activate" && j.State == node.JobRunning {
			v.Running = j.ID
		}
	}
	return c.show(page{Name: "activate", Title: "Activation", Nav: "/activate", Form: f, Data: v})
}

// activateAll gives the codes and shares that somebody entered to the nodes that need them.
func activateAll(c *call) error {
	f, err := c.readForm("open", "passphrase", codePrefix+"*")
	if err != nil {
		return err
	}
	a := node.Activation{Requests: f.Values["request"]}
	if c.actor.Kind == cluster.ByAccount {
		a.Passphrase = f.code("passphrase")
	}
	for _, field := range slices.Sorted(maps.Keys(f.secrets)) {
		if label, name, ok := fieldCode(field); ok && f.secret(field) != "" {
			a.Codes = append(a.Codes, node.CodeFor{Slot: label, Node: name, Code: f.code(field)})
		}
	}
	job, err := c.m.Custody.Activate(c.Request().Context(), c.actor, a)
	if err != nil {
		field := ""
		if len(f.secret("passphrase")) > 0 {
			field = "passphrase"
		}
		if err := f.blame(field, err); err != nil {
			return err
		}
		return showActivate(c, f)
	}
	return c.redirect(jobPath(job.ID))
}

// openingMark is what became of a slot on a node.
func openingMark(result string) mark {
	switch result {
	case node.Opened:
		return mark{"ok", "ok", "Open"}
	case node.Changed:
		return mark{"ok", "ok", "Done"}
	case node.Waits:
		return mark{"warn", "wait", "Waits for others"}
	case node.Unreachable:
		return mark{"mute", "unknown", "Does not answer"}
	}
	return mark{"bad", "bad", "Not opened"}
}

// purposeWord is what shares are for, in words for a table.
func purposeWord(purpose string) string {
	switch purpose {
	case node.ForSwitching:
		return "The token takes the code of the newest custodians"
	case node.ForReplacing:
		return "Other custodians"
	case node.ForLeaving:
		return "Another mode"
	}
	return "Open"
}

// shareWord is how far the custodians of a slot are.
func shareWord(n node.ShareNeed) string {
	if n.Threshold == 0 {
		return "not known"
	}
	return fmt.Sprintf("%d of %d", n.Have, n.Threshold)
}
