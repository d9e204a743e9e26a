package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// unitPoll is how often the state of a unit that is just starting is looked at.
const unitPoll = 100 * time.Millisecond

// restartUnit restarts a systemd unit and waits until it is up. It speaks to systemd over the system bus, so
// that no other program is run, and systemd (by polkit) decides whether that is permitted.
func restartUnit(ctx context.Context, unit string) error {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("systemd does not answer on the system bus: %w", err)
	}
	defer conn.Close()
	result := make(chan string, 1)
	if _, err := conn.RestartUnitContext(ctx, unit, "replace", result); err != nil {
		return fmt.Errorf("systemd does not restart unit %s: %w", unit, err)
	}
	select {
	case r := <-result:
		if r != "done" {
			return fmt.Errorf("systemd's job to restart unit %s ended as %q; see journalctl -u %s", unit, r, unit)
		}
	case <-ctx.Done():
		return fmt.Errorf("systemd's job to restart unit %s has not ended in time: %w", unit, ctx.Err())
	}
	return unitUp(ctx, conn, unit)
}

// unitUp waits until a unit is started and says whether it is up. One that has done its work and ended well
// counts as up.
func unitUp(ctx context.Context, conn *dbus.Conn, unit string) error {
	for {
		properties, err := conn.GetUnitPropertiesContext(ctx, unit)
		if err != nil {
			return fmt.Errorf("systemd does not tell the state of unit %s: %w", unit, err)
		}
		active, _ := properties["ActiveState"].(string)
		sub, _ := properties["SubState"].(string)
		switch active {
		case "active":
			return nil
		case "activating", "reloading", "deactivating":
		case "inactive":
			return nil // its job was done, so it did not fail; a unit of the type oneshot ends so
		default:
			return fmt.Errorf("unit %s was restarted and is %s (%s) now; see journalctl -u %s", unit, active, sub, unit)
		}
		select {
		case <-time.After(unitPoll):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("unit %s is still %s (%s)", unit, active, sub), ctx.Err())
		}
	}
}
