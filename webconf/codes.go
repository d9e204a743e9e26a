package webconf

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// RotationDue is when this node replaces the code of the slot by itself; zero: never.
func (v slotView) RotationDue() time.Time {
	if v.Slot == nil {
		return time.Time{}
	}
	seat := cluster.Seat{Node: v.Slot.Node, Mode: v.Slot.Mode, CodeFacts: v.Slot.CodeFacts}
	return node.RotationDue(v.Rotates, seat)
}

// Rotation is what the field for the schedule shows.
func (v slotView) Rotation(f *form) *form {
	if f = f.Of("rotation"); f != nil {
		return f
	}
	return newForm("rotation", map[string]string{"days": strconv.Itoa(v.Rotates.RotateEvery)})
}

func rotateCode(c *call) error {
	return slotForm(c, "rotate", nil, func(ctx context.Context, label string, _ *form) (string, error) {
		return fmt.Sprintf("Slot %s has a new code on %s.", label, c.m.Name()), c.m.Slots.Rotate(ctx, c.actor, label)
	}, always(""))
}

func tryCode(c *call) error {
	return slotForm(c, "try", nil, func(ctx context.Context, label string, _ *form) (string, error) {
		return fmt.Sprintf("The token of slot %s takes the stored code: after a restart %s opens it again by itself.", label, c.m.Name()), c.m.Slots.TryCode(ctx, c.actor, label)
	}, always(""))
}

func setRotation(c *call) error {
	return slotForm(c, "rotation", nil, func(ctx context.Context, label string, f *form) (string, error) {
		days, err := strconv.Atoi(f.text("days"))
		if err != nil {
			f.fail("days", "Enter a number of days, or 0 for never.")
			return "", nil
		}
		done := fmt.Sprintf("The nodes do not change generated codes of slot %s by themselves.", label)
		if days > 0 {
			done = fmt.Sprintf("Each node changes its generated code of slot %s by itself, at least every %s.", label, plural(days, "day"))
		}
		return done, c.m.Slots.SetRotation(ctx, c.actor, label, days)
	}, always("days"))
}

func apiRotateCode(c *call) error {
	return c.changeSlot(&struct{}{}, func(ctx context.Context, label string) error {
		return c.m.Slots.Rotate(ctx, c.actor, label)
	})
}

func apiTryCode(c *call) error {
	return c.changeSlot(&struct{}{}, func(ctx context.Context, label string) error {
		return c.m.Slots.TryCode(ctx, c.actor, label)
	})
}

// apiSetRotation answers with the schedule alone: the slot may be on other nodes only.
func apiSetRotation(c *call) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	var q struct {
		Days int `json:"days"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if err := c.m.Slots.SetRotation(c.Request().Context(), c.actor, label, q.Days); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"slot": label, "rotate_every": q.Days})
}
