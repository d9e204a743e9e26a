package webconf

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type syncView struct {
	Node     string
	Slots    []string // open slots of this node
	Slot     string   // the chosen one
	Plan     *node.Plan
	Problem  string // why there is no plan
	Stuck    int    // keys of the plan that cannot travel
	Packages []packageRow
	Arrived  []packageRow // brought here and not imported yet
	More     int          // packages that are not listed
	Single   bool
}

// Ready tells whether a package can be made now.
func (v syncView) Ready() bool {
	if v.Plan == nil || v.Stuck == len(v.Plan.Keys) {
		return false
	}
	return slices.ContainsFunc(v.Plan.Receivers, func(r node.Receiver) bool { return r.Problem == "" && r.Lacks > 0 })
}

// A packageRow is a package as lists show it.
type packageRow struct {
	ID        string
	Slot      string
	Source    string
	Receivers []string
	Keys      int
	Size      int64
	Created   time.Time
	Expires   time.Time
	SHA256    string
	Here      bool // this node keeps the file
	Mine      bool // this node made it
	ForMe     bool
	Imported  bool // by this node
	Receipts  []receiptRow
}

// A receiptRow is what the cluster says came of a package on one receiver.
type receiptRow struct {
	Node string
	cluster.Receipt
	Known bool // there is a receipt
}

// Done counts the receivers that have imported the package.
func (p packageRow) Done() int {
	n := 0
	for _, r := range p.Receipts {
		if r.Known && r.Failed+r.Conflicts == 0 {
			n++
		}
	}
	return n
}

// Mark is how far the package has come.
func (p packageRow) Mark(now time.Time) mark {
	known, trouble := 0, false
	for _, r := range p.Receipts {
		if r.Known {
			known++
			trouble = trouble || r.Failed+r.Conflicts > 0
		}
	}
	switch {
	case trouble:
		return mark{"warn", "warn", "Imported in part"}
	case known == len(p.Receivers) && known > 0: // all of them may have been stolen
		return mark{"ok", "ok", "Imported"}
	case !now.Before(p.Expires):
		return mark{"mute", "none", "Expired"}
	}
	return mark{"warn", "wait", "On its way"}
}

// StateMark is Mark at this moment, for templates.
func (p packageRow) StateMark() mark { return p.Mark(time.Now()) }

// syncPage shows the three steps of an exchange: make, carry, import.
func syncPage(c *call) error {
	return showSync(c, c.QueryParam("slot"), nil)
}

func showSync(c *call, slot string, f *form) error {
	kept, err := c.m.Sync.List()
	if err != nil {
		return err
	}
	v := newSyncView(c.look(), kept, slot)
	if v.Slot != "" {
		v.plan(c)
	}
	return c.show(page{Name: "sync", Title: "Key synchronization", Nav: "/sync", Form: f, Data: v})
}

func newSyncView(s *situation, kept []node.Staged, slot string) syncView {
	v := syncView{Node: s.Node, Slot: slot, Single: len(s.State.Nodes) == 1}
	for _, here := range s.Slots {
		if here.State == cluster.Active {
			v.Slots = append(v.Slots, here.Label)
		}
	}
	if v.Slot == "" && len(v.Slots) == 1 {
		v.Slot = v.Slots[0]
	}
	all := packageRows(s, kept)
	for _, p := range all {
		if p.Here && p.ForMe && !p.Mine && !p.Imported && s.Now.Before(p.Expires) {
			v.Arrived = append(v.Arrived, p)
		}
	}
	v.Packages, v.More = all[:min(len(all), mostPackages)], max(0, len(all)-mostPackages)
	return v
}

// plan looks what the other nodes lack. A key that an application made a moment ago counts.
func (v *syncView) plan(c *call) {
	ctx, cancel := context.WithTimeout(c.Request().Context(), lookTime)
	defer cancel()
	err := c.m.Keys.Look(ctx, v.Slot)
	if err == nil || judge(err).status >= 500 { // without the cluster there still is the plan as it was
		var p node.Plan
		if p, err = c.m.Sync.Plan(v.Slot, nil); err == nil {
			v.Plan = &p
		}
	}
	if err != nil {
		v.Problem = sentence(c.settle(err).message)
		return
	}
	for _, k := range v.Plan.Keys {
		if k.Problem != "" {
			v.Stuck++
		}
	}
}

// packageRows lists every package that the cluster knows or this node keeps, the newest first.
func packageRows(s *situation, kept []node.Staged) []packageRow {
	rows := map[string]packageRow{}
	for id, p := range s.State.Packages {
		rows[id] = recordedRow(s, p)
	}
	for _, k := range kept {
		rows[k.Header.ID] = keptRow(s, k)
	}
	return slices.SortedFunc(maps.Values(rows), func(a, b packageRow) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
}

func recordedRow(s *situation, p cluster.Package) packageRow {
	r := packageRow{ID: p.ID, Slot: p.Slot, Source: p.Source, Receivers: p.Receivers, Keys: len(p.Keys), Size: p.Size, Created: p.Created,
		Expires: p.Expires, SHA256: p.SHA256, Mine: p.Source == s.Node, ForMe: slices.Contains(p.Receivers, s.Node)}
	for _, name := range p.Receivers {
		receipt, known := p.Receipts[name]
		r.Receipts = append(r.Receipts, receiptRow{name, receipt, known})
		r.Imported = r.Imported || known && name == s.Node
	}
	return r
}

// keptRow is a package whose file is here. The cluster may have forgotten its record, or not got it yet.
func keptRow(s *situation, k node.Staged) packageRow {
	h := k.Header
	r := recordedRow(s, s.State.Packages[h.ID])
	r.ID, r.Slot, r.Source, r.Receivers, r.Keys, r.Created, r.Expires = h.ID, h.Slot, h.Source, h.Receivers, h.Keys, h.Created, h.Expires
	r.Size, r.SHA256, r.Here, r.Mine, r.ForMe = k.Size, k.SHA256, true, k.Mine, slices.Contains(h.Receivers, s.Node)
	return r
}

// makePackage begins the job that makes a package.
func makePackage(c *call) error {
	f, err := c.readForm("make")
	if err != nil {
		return err
	}
	slot := f.Value("slot")
	if len(f.Values["to"]) == 0 {
		f.fail("to", "Choose at least one node that the package is for.")
	}
	if f.ok() {
		job, err := c.m.Sync.Build(c.Request().Context(), c.actor, slot, f.Values["to"])
		if err == nil {
			return c.redirect(jobPath(job.ID))
		}
		if err := f.blame("to", err); err != nil {
			return err
		}
	}
	return showSync(c, slot, f)
}
