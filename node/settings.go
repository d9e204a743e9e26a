package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Settings are what the whole cluster has one value of. Who changes them holds a lease meanwhile.
type Settings struct{ m *Member }

// What holds where nothing is set. For clocks that is the node's configuration.
const (
	// sessionIdle ends the session of somebody who went away.
	sessionIdle = 15 * time.Minute
	// packageLife is long enough to carry a package by hand, and short enough that a forgotten one is of no use later.
	packageLife = 7 * 24 * time.Hour
)

// ClockLimit is how far the clock of another node may be off before nothing is certified.
func (s *Settings) ClockLimit() time.Duration {
	return cmp.Or(time.Duration(s.m.State().Settings.ClockLimit)*time.Second, s.m.node.cfg.ClockLimit)
}

// SessionIdle is after which time without a click a session of the console ends.
func (s *Settings) SessionIdle() time.Duration {
	return cmp.Or(time.Duration(s.m.State().Settings.SessionIdle)*time.Minute, sessionIdle)
}

// PackageLife is how long a package that is made now can be imported.
func (s *Settings) PackageLife() time.Duration {
	return cmp.Or(time.Duration(s.m.State().Settings.PackageLife)*time.Hour, packageLife)
}

// Notice is what people are told before they log in; empty: nothing.
func (s *Settings) Notice() string { return s.m.State().Settings.Notice }

// A setting is one line of the table of settings.
type setting struct {
	key   string
	unit  time.Duration                 // of the number; 0: a text
	field func(*cluster.Settings) *int  // of a number
	now   func(*Settings) time.Duration // what holds, set or not
	where string                        // where that comes from if it is not set
}

// settings are all there are, in the order in which people read them. What a node alone decides, such as its
// addresses, is in its configuration.
var settings = []setting{
	{key: "clock_limit", unit: time.Second, field: func(s *cluster.Settings) *int { return &s.ClockLimit }, now: (*Settings).ClockLimit, where: "configuration"},
	{key: "session_idle", unit: time.Minute, field: func(s *cluster.Settings) *int { return &s.SessionIdle }, now: (*Settings).SessionIdle, where: "default"},
	{key: "package_life", unit: time.Hour, field: func(s *cluster.Settings) *int { return &s.PackageLife }, now: (*Settings).PackageLife, where: "default"},
	{key: keyNotice},
}

const keyNotice = "notice"

// unitWords are the units of settings.
var unitWords = map[time.Duration]string{time.Second: "seconds", time.Minute: "minutes", time.Hour: "hours"}

// SettingKeys are the names of the settings.
func SettingKeys() []string {
	var keys []string
	for _, s := range settings {
		keys = append(keys, s.key)
	}
	return keys
}

// PutSetting sets one setting in s from a text: a number in the unit of the setting, or a time such as 30s or 2h. An
// empty text means that it is not set. The error is for whoever entered it.
func PutSetting(s *cluster.Settings, key, text string) error {
	i := slices.IndexFunc(settings, func(d setting) bool { return d.key == key })
	if i < 0 {
		return refuse("there is no setting %q; there are %s", clipped(key), strings.Join(SettingKeys(), ", "))
	}
	d, next := settings[i], *s
	if text = strings.TrimSpace(text); d.unit == 0 {
		next.Notice = text
	} else {
		n, err := d.number(text)
		if err != nil {
			return err
		}
		*d.field(&next) = n
	}
	if err := cluster.CheckSettings(next); err != nil {
		return refuse("%w", err)
	}
	*s = next
	return nil
}

// number reads a number of the setting's unit.
func (d setting) number(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err == nil && n > 0 {
		return n, nil
	}
	if t, err := time.ParseDuration(text); err == nil && t > 0 && t%d.unit == 0 {
		return int(t / d.unit), nil
	}
	return 0, refuse("%q is no value for %s: give a whole number of %s, from 1 on, or nothing for what holds without a setting", clipped(text), d.key, unitWords[d.unit])
}

// clipped is the beginning of what a stranger sent.
func clipped(s string) string {
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

// A SettingValue is one setting as it is.
type SettingValue struct {
	Key    string `json:"key"`
	Set    bool   `json:"set"`
	Value  string `json:"value"`          // what holds: a number of units, or a text
	Unit   string `json:"unit,omitempty"` // seconds, minutes or hours
	Source string `json:"source"`         // cluster; if it is not set: configuration (of this node) or default

	Time time.Duration `json:"-"` // the number with its unit
}

// SettingsView is the settings, and who changes them.
type SettingsView struct {
	Settings []SettingValue `json:"settings"`
	Version  uint64         `json:"version"`
	Changed  time.Time      `json:"changed,omitzero"`
	By       string         `json:"by,omitempty"`
	Lease    *LeaseView     `json:"lease,omitempty"` // missing while nobody changes them
}

// LeaseView is who may change the settings now.
type LeaseView struct {
	ID        string        `json:"id"`
	Holder    cluster.Actor `json:"holder"`
	Node      string        `json:"node"`
	Since     time.Time     `json:"since"`
	Until     time.Time     `json:"until"`
	Yours     bool          `json:"yours"`
	TakenFrom string        `json:"taken_from,omitempty"` // from whom it was taken over
}

// View is the settings as actor sees them.
func (s *Settings) View(actor cluster.Actor) SettingsView {
	st := s.m.State()
	v := SettingsView{Version: st.Settings.Version, Changed: st.Settings.Set, By: st.Settings.By}
	for _, d := range settings {
		one := SettingValue{Key: d.key, Source: cmp.Or(d.where, "default"), Unit: unitWords[d.unit]}
		if d.unit == 0 {
			one.Value, one.Set = st.Settings.Notice, st.Settings.Notice != ""
		} else {
			one.Time, one.Set = d.now(s), *d.field(&st.Settings) != 0
			one.Value = strconv.FormatFloat(float64(one.Time)/float64(d.unit), 'f', -1, 64)
		}
		if one.Set {
			one.Source = "cluster"
		}
		v.Settings = append(v.Settings, one)
	}
	if l := st.Lease; l.Held(time.Now()) {
		v.Lease = &LeaseView{ID: l.ID, Holder: l.Holder, Node: l.Node, Since: l.Since, Until: l.Until, Yours: l.HeldBy(actor, s.m.Name())}
		if l.Before != nil {
			v.Lease.TakenFrom = l.Before.String()
		}
	}
	return v
}

// Take begins to change the settings. It is refused while somebody else does.
func (s *Settings) Take(ctx context.Context, actor cluster.Actor) error {
	_, err := s.m.Cluster.Apply(ctx, &cluster.TakeLease{ID: cluster.NewID()}, actor)
	return err
}

// TakeOver ends the lease from, which the actor has seen, and begins the actor's own.
func (s *Settings) TakeOver(ctx context.Context, actor cluster.Actor, from string) error {
	l := s.m.State().Lease
	if l.ID == "" || l.ID != from {
		return refuse("whom you wanted to take over from does not change the settings any more: look again")
	}
	_, err := s.m.Cluster.Apply(ctx, &cluster.TakeOverLease{ID: cluster.NewID(), From: l.ID, Holder: l.Holder}, actor)
	return err
}

// Extend gives the holder of the lease the full time from now on.
func (s *Settings) Extend(ctx context.Context, actor cluster.Actor, lease string) error {
	if lease == "" {
		return errNoLease
	}
	_, err := s.m.Cluster.Apply(ctx, &cluster.ExtendLease{ID: lease}, actor)
	return err
}

// Release ends the lease without a change.
func (s *Settings) Release(ctx context.Context, actor cluster.Actor, lease string) error {
	if lease == "" {
		return errNoLease
	}
	_, err := s.m.Cluster.Apply(ctx, &cluster.ReleaseLease{ID: lease}, actor)
	return err
}

var errNoLease = refuse("say which lease: begin first, and send the id that you get")

// Save sets all settings, under a lease, in place of the version that the actor saw, and ends the lease.
func (s *Settings) Save(ctx context.Context, actor cluster.Actor, lease string, version uint64, to cluster.Settings) error {
	if lease == "" {
		return errNoLease
	}
	_, err := s.m.Cluster.Apply(ctx, &cluster.SetSettings{Lease: lease, Replaces: version,
		ClockLimit: to.ClockLimit, SessionIdle: to.SessionIdle, PackageLife: to.PackageLife, Notice: to.Notice}, actor)
	return err
}

// With is the settings as they are, with others where they are named.
func (s *Settings) With(values map[string]string) (cluster.Settings, error) {
	to := s.m.State().Settings
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := PutSetting(&to, key, values[key]); err != nil {
			return to, err
		}
	}
	return to, nil
}

// Change takes the lease, changes the settings that are named, and ends it. With takeOver it takes the lease from
// whoever holds it.
func (s *Settings) Change(ctx context.Context, actor cluster.Actor, values map[string]string, takeOver bool) error {
	if len(values) == 0 {
		return refuse("name a setting to change: %s", strings.Join(SettingKeys(), ", "))
	}
	if _, err := s.With(values); err != nil { // before anybody is disturbed
		return err
	}
	err := s.Take(ctx, actor)
	if l := s.m.State().Lease; takeOver && errors.Is(err, cluster.Conflict) {
		err = s.TakeOver(ctx, actor, l.ID)
	}
	if err != nil {
		return err
	}
	st := s.m.State() // which Apply has brought up to the lease
	to, err := s.With(values)
	if err == nil {
		err = s.Save(ctx, actor, st.Lease.ID, st.Settings.Version, to)
	}
	if err != nil {
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if problem := s.Release(release, actor, st.Lease.ID); problem != nil {
			s.m.node.log.Debug("the lease on the settings was not released, and ends by itself", "error", problem)
		}
		return fmt.Errorf("the settings were not changed: %w", err)
	}
	return nil
}
