package webconf

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/node"
)

type slotFormView struct {
	Node    string
	Modules []string
	Serial  string       // of a token that is there already
	Module  string       // where that is
	Sealing node.Sealing // what protects a generated code
	Others  []string     // nodes that have a slot with this label
	Usual   string       // the mode they use
	MinCode int
}

func newSlotPage(c *call) error {
	f := newForm("slot", map[string]string{"label": c.QueryParam("label"), "module": c.QueryParam("module"), "serial": c.QueryParam("serial")})
	return showNewSlot(c, f)
}

func showNewSlot(c *call, f *form) error {
	v := newSlotFormView(c.look(), f, c.m.Node().Modules())
	v.Sealing = c.m.Node().Sealing()
	title := "Make a slot on " + v.Node
	if v.Serial != "" {
		title = "Take a token into a slot"
	}
	return c.show(page{Name: "newslot", Title: title, Nav: "/slots", Crumbs: []crumb{{"PKCS#11 slots", "/slots"}}, Form: f, Data: v})
}

// newSlotFormView proposes the mode that the other nodes have, where the slot is there already.
func newSlotFormView(s *situation, f *form, modules []string) slotFormView {
	v := slotFormView{Node: s.Node, Modules: modules, Serial: f.text("serial"), Module: f.text("module"), MinCode: node.MinCode}
	for _, o := range s.others(s.State.Slots[f.text("label")]) {
		v.Others, v.Usual = append(v.Others, o.Node), o.Mode
	}
	if f.Value("mode") == "" {
		f.Values.Set("mode", cmp.Or(v.Usual, cluster.Generated))
	}
	return v
}

func newSlot(c *call) error {
	f, err := c.readForm("slot", "code", "again", "present")
	if err != nil {
		return err
	}
	n := node.NewSlot{Label: f.text("label"), Module: f.text("module"), Mode: f.text("mode"), Serial: f.text("serial"), Code: f.code("present")}
	if n.Serial == "" && n.Mode == cluster.Manual {
		n.Code = f.code("code")
		if err := node.CheckCode(n.Code); err != nil {
			f.fail("code", "%s", sentence(err.Error()))
		}
		f.twice("code", "again", "authentication code")
	}
	if !f.ok() {
		return showNewSlot(c, f)
	}
	if err := c.m.Slots.Create(c.Request().Context(), c.actor, n); err != nil {
		if err := f.blame(newSlotField(n, err), err); err != nil {
			return err
		}
		return showNewSlot(c, f)
	}
	if err := c.flash(fmt.Sprintf("Slot %s is ready on %s. Make it on the other nodes too, so that they can receive its keys.", n.Label, c.m.Name())); err != nil {
		return err
	}
	return c.redirect(slotPath(n.Label))
}

// newSlotField is which field an error of Create is about; empty where it is about the module.
func newSlotField(n node.NewSlot, err error) string {
	switch {
	case n.Serial != "" && (isCode(err) || len(n.Code) == 0):
		return "present"
	case isCode(err):
		return "code"
	case errors.Is(err, cluster.Invalid), errors.Is(err, cluster.Conflict), n.Label == "":
		return "label"
	}
	return ""
}

// isCode tells whether a token refused a code.
func isCode(err error) bool {
	return errors.Is(err, hsm.WrongCode) || errors.Is(err, hsm.CodeLocked) || errors.Is(err, hsm.CodeLength)
}

// slotForm does what a form of a slot's page asks for. blamed is which field an error is about.
func slotForm(c *call, name string, secret []string, act func(context.Context, string, *form) (done string, err error), blamed func(*form, error) string) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	f, err := c.readForm(name, secret...)
	if err != nil {
		return err
	}
	done, err := act(c.Request().Context(), label, f)
	if err != nil {
		if err := f.blame(blamed(f, err), err); err != nil {
			return err
		}
	}
	if !f.ok() {
		return showSlot(c, label, f)
	}
	if err := c.flash(done); err != nil {
		return err
	}
	return c.redirect(slotPath(label))
}

func always(field string) func(*form, error) string {
	return func(*form, error) string { return field }
}

// oldOrNew blames the field of the present code for what the token said about it.
func oldOrNew(f *form, err error) string {
	if errors.Is(err, hsm.WrongCode) || errors.Is(err, hsm.CodeLocked) || f.text("mode") == cluster.Generated {
		return "old"
	}
	return "new"
}

func activateSlot(c *call) error {
	return slotForm(c, "activate", []string{"code"}, func(ctx context.Context, label string, f *form) (string, error) {
		return fmt.Sprintf("Slot %s is active on %s.", label, c.m.Name()), c.m.Slots.Activate(ctx, c.actor, label, f.code("code"))
	}, always("code"))
}

func deactivateSlot(c *call) error {
	return slotForm(c, "deactivate", nil, func(ctx context.Context, label string, _ *form) (string, error) {
		return fmt.Sprintf("Slot %s is closed on %s until somebody enters its code.", label, c.m.Name()), c.m.Slots.Deactivate(ctx, c.actor, label)
	}, always(""))
}

func changeCode(c *call) error {
	return slotForm(c, "code", []string{"old", "new", "again"}, func(ctx context.Context, label string, f *form) (string, error) {
		if f.twice("new", "again", "new code"); !f.ok() {
			return "", nil
		}
		return fmt.Sprintf("The code of slot %s is changed on %s. The other nodes keep theirs.", label, c.m.Name()),
			c.m.Slots.ChangeCode(ctx, c.actor, label, f.code("old"), f.code("new"))
	}, oldOrNew)
}

func setMode(c *call) error {
	return slotForm(c, "mode", []string{"old", "new", "again"}, func(ctx context.Context, label string, f *form) (string, error) {
		mode := f.text("mode")
		done := fmt.Sprintf("%s now keeps the code of slot %s itself, and opens the slot after each restart.", c.m.Name(), label)
		if mode == cluster.Manual {
			f.Name = "manual"
			done = fmt.Sprintf("Slot %s is in manual mode on %s: the node has forgotten the old code.", label, c.m.Name())
			f.twice("new", "again", "new code")
		}
		if !f.ok() {
			return "", nil
		}
		return done, c.m.Slots.SetMode(ctx, c.actor, label, mode, f.code("old"), f.code("new"))
	}, oldOrNew)
}
