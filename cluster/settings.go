package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Settings are what the whole cluster has one value of. A zero is not set: what holds then is said where the value
// is used.
type Settings struct {
	ClockLimit  int    `json:"clock_limit,omitempty"`  // seconds that the clock of another node may be off
	SessionIdle int    `json:"session_idle,omitempty"` // minutes without a click after which a session ends
	PackageLife int    `json:"package_life,omitempty"` // hours in which a package can be imported
	Notice      string `json:"notice,omitempty"`       // for whoever is about to log in

	Set     time.Time `json:"set,omitzero"` // when they were changed last
	By      string    `json:"by,omitempty"`
	Version uint64    `json:"version,omitempty"` // see replacing
}

// CheckSettings tells whether a cluster can have these settings.
func CheckSettings(s Settings) error {
	return check(
		checkRange("the most that clocks may be apart, in seconds,", s.ClockLimit, 0, maxClockLimit),
		checkRange("the minutes until an idle session ends", s.SessionIdle, 0, maxSessionIdle),
		checkRange("the life of a package in hours", s.PackageLife, 0, maxPackageLife),
		checkNotice(s.Notice),
	)
}

func checkNotice(text string) error {
	if text == "" {
		return nil
	}
	return checkLine("the notice", text, maxNotice)
}

// A Lease lets one person change the settings until it ends. It stays in the State after that, so that whoever held
// it before can be told who took it.
type Lease struct {
	ID     string    `json:"id"`
	Holder Actor     `json:"holder"`
	Node   string    `json:"node"` // where the holder took it
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // by the leader's clock, as all times of the State

	TakenFrom string `json:"taken_from,omitempty"` // id of the lease that it ended
	Before    *Actor `json:"before,omitempty"`     // who held that
}

// Held tells whether somebody holds the lease at the time now.
func (l Lease) Held(now time.Time) bool { return l.ID != "" && now.Before(l.Until) }

// HeldBy tells whether actor, working at node, is its holder. Root at the consoles of two nodes are two people.
func (l Lease) HeldBy(actor Actor, node string) bool {
	return l.ID != "" && l.Holder == actor && (actor.Kind == ByAccount || l.Node == node)
}

// Who names the holder for people.
func (l Lease) Who() string { return l.Holder.Name + " on " + l.Node }

// until is how an error says when the lease ends.
func (l Lease) until() string { return l.Until.UTC().Format("15:04:05 UTC") }

// settingsObject is the object of everything about settings in the audit trail.
const settingsObject = "settings/cluster"

// TakeLease begins to change the settings: it is refused while somebody else does. Whoever holds the lease already
// keeps it, for its full time from now on.
type TakeLease struct {
	ID string `json:"id"`
}

func (c *TakeLease) Kind() string               { return "lease.take" }
func (c *TakeLease) describe() (string, string) { return settingsObject, "" }
func (c *TakeLease) validate() error            { return checkToken("lease id", c.ID) }

func (c *TakeLease) apply(s *State, m Meta) error {
	switch l := s.Lease; {
	case !l.Held(m.Time):
		s.Lease = Lease{ID: c.ID, Holder: m.Actor, Node: m.Node, Since: m.Time, Until: m.Time.Add(LeaseTime)}
	case l.HeldBy(m.Actor, m.Node):
		l.Until = m.Time.Add(LeaseTime)
		s.Lease = l
	default:
		return errorf(Conflict, "%s changes the settings now, until %s: wait for that, or take over", l.Who(), l.until())
	}
	return nil
}

// TakeOverLease ends the lease of somebody else and begins one's own. It names whom it takes it from, as its author
// saw it, so that nobody is pushed out whom they did not mean.
type TakeOverLease struct {
	ID     string `json:"id"`
	From   string `json:"from"`   // id of the lease to end
	Holder Actor  `json:"holder"` // of that lease
}

func (c *TakeOverLease) Kind() string { return "lease.take-over" }
func (c *TakeOverLease) describe() (string, string) {
	return settingsObject, "from " + c.Holder.String()
}

func (c *TakeOverLease) validate() error {
	return check(checkToken("lease id", c.ID), checkToken("id of the lease to take over", c.From), c.Holder.validate())
}

func (c *TakeOverLease) apply(s *State, m Meta) error {
	l := s.Lease
	if l.ID != c.From || l.Holder != c.Holder || !l.Held(m.Time) {
		if l.Held(m.Time) {
			return errorf(Conflict, "%s changes the settings now, and not whom you saw: nothing was taken over; look again", l.Who())
		}
		return errorf(Expired, "nobody changes the settings any more: begin, without taking over")
	}
	if l.HeldBy(m.Actor, m.Node) {
		return errorf(Conflict, "you change the settings already: there is nobody to take over from")
	}
	before := l.Holder
	s.Lease = Lease{ID: c.ID, Holder: m.Actor, Node: m.Node, Since: m.Time, Until: m.Time.Add(LeaseTime), TakenFrom: l.ID, Before: &before}
	return nil
}

// ExtendLease gives the holder the full time from now on.
type ExtendLease struct {
	ID string `json:"id"`
}

func (c *ExtendLease) Kind() string                   { return "lease.extend" }
func (c *ExtendLease) describe() (string, string)     { return settingsObject, "" }
func (c *ExtendLease) validate() error                { return checkToken("lease id", c.ID) }
func (c *ExtendLease) allowed(s *State, m Meta) error { return s.leased(c.ID, m) }

func (c *ExtendLease) apply(s *State, m Meta) error {
	s.Lease.Until = m.Time.Add(LeaseTime)
	return nil
}

// ReleaseLease lets others change the settings, without a change.
type ReleaseLease struct {
	ID string `json:"id"`
}

func (c *ReleaseLease) Kind() string                   { return "lease.release" }
func (c *ReleaseLease) describe() (string, string)     { return settingsObject, "" }
func (c *ReleaseLease) validate() error                { return checkToken("lease id", c.ID) }
func (c *ReleaseLease) allowed(s *State, m Meta) error { return s.leased(c.ID, m) }

func (c *ReleaseLease) apply(s *State, m Meta) error {
	s.Lease.Until = m.Time
	return nil
}

// SetSettings changes the settings, all of them, and ends the lease.
type SetSettings struct {
	Lease    string `json:"lease"`
	Replaces uint64 `json:"replaces"` // the version that its author saw

	ClockLimit  int    `json:"clock_limit,omitempty"` // as in Settings
	SessionIdle int    `json:"session_idle,omitempty"`
	PackageLife int    `json:"package_life,omitempty"`
	Notice      string `json:"notice,omitempty"`
}

func (c *SetSettings) Kind() string { return "settings.set" }

func (c *SetSettings) describe() (string, string) {
	return settingsObject, clipTo(c.settings().Words(), maxText-10)
}

func (c *SetSettings) settings() Settings {
	return Settings{ClockLimit: c.ClockLimit, SessionIdle: c.SessionIdle, PackageLife: c.PackageLife, Notice: c.Notice}
}

func (c *SetSettings) validate() error {
	return check(checkToken("lease id", c.Lease), CheckSettings(c.settings()))
}

// allowed comes before the version is asked: who has lost the lease is told who has it.
func (c *SetSettings) allowed(s *State, m Meta) error { return s.leased(c.Lease, m) }

func (c *SetSettings) apply(s *State, m Meta) error {
	if c.Replaces != s.Settings.Version {
		by := ""
		if _, name, ok := strings.Cut(s.Settings.By, "/"); ok {
			by = " by " + name
		}
		return errorf(Changed, "the settings were changed meanwhile%s, so nothing was done: look at them as they are now", by)
	}
	s.Settings = c.settings()
	s.Settings.Set, s.Settings.By, s.Settings.Version = m.Time, m.Actor.String(), s.Index
	s.Lease.Until = m.Time
	return nil
}

// leased refuses whoever does not hold the lease any more, and says who does.
func (s *State) leased(id string, m Meta) error {
	const again = "nothing was changed"
	l := s.Lease
	if l.ID == id && l.HeldBy(m.Actor, m.Node) {
		if l.Held(m.Time) {
			return nil
		}
		return errorf(Expired, "your time to change the settings ended at %s, and nobody changes them now: %s; begin again", l.until(), again)
	}
	switch held := l.Held(m.Time); {
	case held && l.TakenFrom == id:
		return errorf(Conflict, "%s has taken over from you at %s, and changes the settings until %s: %s", l.Who(), l.Since.UTC().Format("15:04:05"), l.until(), again)
	case held && l.HeldBy(m.Actor, m.Node):
		return errorf(Conflict, "you have begun anew elsewhere, at %s, to change the settings: %s; go on there, or load this page again", l.Since.UTC().Format("15:04:05 UTC"), again)
	case held:
		return errorf(Conflict, "%s changes the settings now, until %s: %s", l.Who(), l.until(), again)
	case l.TakenFrom == id:
		return errorf(Expired, "%s has taken over from you at %s, and has ended since: %s; begin again", l.Who(), l.Since.UTC().Format("15:04:05 UTC"), again)
	}
	return errorf(Expired, "you do not hold the settings any more, and nobody does: %s; begin again", again)
}

// Words say what is set, for a line of the audit trail.
func (s Settings) Words() string {
	var words []string
	add := func(format string, n int) {
		if n != 0 {
			words = append(words, fmt.Sprintf(format, n))
		}
	}
	add("clocks may be %d s apart", s.ClockLimit)
	add("idle sessions end after %d min", s.SessionIdle)
	add("packages are good for %d h", s.PackageLife)
	if s.Notice != "" {
		words = append(words, "notice: "+s.Notice)
	}
	if len(words) == 0 {
		return "nothing is set"
	}
	return strings.Join(words, ", ")
}
