package webconf

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

func apiHSM(c *call) error {
	return c.JSON(http.StatusOK, whole(c.m.Overview(c.Request().Context())))
}

type slotsAnswer struct {
	Here  []node.SlotView `json:"here"`
	Slots []cluster.Slot  `json:"slots"` // of the whole cluster, by label
}

func apiSlots(c *call) error {
	slots := c.m.State().Slots
	a := slotsAnswer{Here: c.m.Slots.Here(), Slots: []cluster.Slot{}}
	for _, label := range slices.Sorted(maps.Keys(slots)) {
		a.Slots = append(a.Slots, slots[label])
	}
	return c.JSON(http.StatusOK, a)
}

// answerSlot answers with a slot of this node as it is now.
func (c *call) answerSlot(label string) error {
	v, err := c.m.Slots.One(label)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, v)
}

func apiNewSlot(c *call) error {
	var n node.NewSlot
	if err := c.decode(&n); err != nil {
		return err
	}
	if err := c.m.Slots.Create(c.Request().Context(), c.actor, n); err != nil {
		return err
	}
	return c.answerSlot(strings.TrimSpace(n.Label))
}

// changeSlot reads a body into v, acts on the slot that the address names, and answers with it.
func (c *call) changeSlot(v any, act func(ctx context.Context, label string) error) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	if err := c.decode(v); err != nil {
		return err
	}
	if err := act(c.Request().Context(), label); err != nil {
		return err
	}
	return c.answerSlot(label)
}

func apiActivate(c *call) error {
	var q struct {
		Code []byte `json:"code"`
	}
	return c.changeSlot(&q, func(ctx context.Context, label string) error {
		return c.m.Slots.Activate(ctx, c.actor, label, q.Code)
	})
}

func apiDeactivate(c *call) error {
	return c.changeSlot(&struct{}{}, func(ctx context.Context, label string) error {
		return c.m.Slots.Deactivate(ctx, c.actor, label)
	})
}

func apiChangeCode(c *call) error {
	var q struct {
		Old []byte `json:"old"`
		New []byte `json:"new"`
	}
	return c.changeSlot(&q, func(ctx context.Context, label string) error {
		return c.m.Slots.ChangeCode(ctx, c.actor, label, q.Old, q.New)
	})
}

func apiSetMode(c *call) error {
	var q struct {
		Mode string `json:"mode"`
		Old  []byte `json:"old"`
		New  []byte `json:"new"`
	}
	return c.changeSlot(&q, func(ctx context.Context, label string) error {
		return c.m.Slots.SetMode(ctx, c.actor, label, q.Mode, q.Old, q.New)
	})
}

// apiCoverage looks at the open slots of this node first: a script that has just made a key wants to see
// it.
func apiCoverage(c *call) error {
	for _, s := range c.m.Slots.Here() {
		if s.State != cluster.Active {
			continue
		}
		if err := c.m.Keys.Look(c.Request().Context(), s.Label); err != nil {
			c.srv.log.Warn("the keys of a slot cannot be listed", "slot", s.Label, "error", err)
		}
	}
	return c.JSON(http.StatusOK, whole(c.m.Keys.Coverage()))
}
