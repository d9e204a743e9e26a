package webconf

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type settingsView struct {
	Node    string
	Rows    []settingRow
	Version uint64
	Changed time.Time
	By      string
	Lease   *node.LeaseView // of whoever changes the settings now
	Lost    bool            // it was taken over from whoever looks
	Editing bool            // the form is there: the lease is theirs, or what they entered must not be lost
	Said    string          // what was just done
	Idle    string          // what holds, for the hints
}

// Mine tells whether whoever looks may save.
func (v settingsView) Mine() bool { return v.Lease != nil && v.Lease.Yours }

// Minutes is how long a lease lasts.
func (v settingsView) Minutes() int { return int(cluster.LeaseTime.Minutes()) }

// A settingRow is one setting as it is.
type settingRow struct {
	Key, Name, Effect string
	Now               string
	Source            string
	Set               bool
}

// settingWords are the name of a setting and what it does.
var settingWords = map[string][2]string{
	"clock_limit":  {"How far clocks may be apart", "A node whose clock is further off is not let in, and nothing is certified for it."},
	"session_idle": {"Idle time of a session", "After that long without a click a person has to log in again, on every node."},
	"package_life": {"Life of a package", "For that long after it was made a package with keys can be imported."},
	"notice":       {"Notice before the log-in", "Everybody who opens WebConf reads it, also without an account."},
}

func newSettingRow(s node.SettingValue, here string) settingRow {
	r := settingRow{Key: s.Key, Name: settingWords[s.Key][0], Effect: settingWords[s.Key][1], Now: s.Value, Set: s.Set}
	if s.Unit != "" {
		r.Now = span(s.Time)
	}
	switch s.Source {
	case "cluster":
		r.Source = "set here, for all nodes"
	case "configuration":
		r.Source = "not set: configuration of " + here
	default:
		r.Source = "not set"
	}
	return r
}

func newSettingsView(here string, s node.SettingsView, actor cluster.Actor) settingsView {
	v := settingsView{Node: here, Version: s.Version, Changed: s.Changed, By: s.By, Lease: s.Lease}
	for _, one := range s.Settings {
		v.Rows = append(v.Rows, newSettingRow(one, here))
	}
	v.Lost = s.Lease != nil && !s.Lease.Yours && s.Lease.TakenFrom == actor.String()
	v.Editing = v.Mine()
	return v
}

// settingsPage shows the settings, and the form to whoever holds the lease.
func settingsPage(c *call) error { return showSettings(c, nil, "") }

// showSettings shows a form with what was entered, where there is one.
func showSettings(c *call, f *form, said string) error {
	s := c.m.Settings.View(c.actor)
	v := newSettingsView(c.m.Name(), s, c.actor)
	v.Said = said
	if f == nil {
		f = newForm("settings", presentSettings(s))
	} else {
		v.Editing = true
	}
	return c.show(page{Name: "settings", Title: "Settings of the cluster", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Form: f, Data: v})
}

// presentSettings is what stands in the form at first: nothing where nothing is set.
func presentSettings(s node.SettingsView) map[string]string {
	values := map[string]string{}
	for _, one := range s.Settings {
		if one.Set {
			values[one.Key] = one.Value
		}
	}
	return values
}

// entered is the form with what was entered, or nil where there was nothing yet.
func entered(f *form) *form {
	for _, key := range node.SettingKeys() {
		if f.Values.Has(key) {
			return f
		}
	}
	return nil
}

// held does something about the lease. What was entered is shown again, whatever comes of it.
func held(c *call, said string, do func(f *form) error) error {
	f, err := c.readForm("settings")
	if err != nil {
		return err
	}
	if err := do(f); err != nil {
		return refusedSettings(c, f, err)
	}
	if f = entered(f); f == nil {
		return c.done("/cluster/settings", said)
	}
	return showSettings(c, f, said)
}

// refusedSettings shows the form again, with what is wrong: mostly that somebody else has the lease now.
func refusedSettings(c *call, f *form, err error) error {
	status := judge(err).status
	if err := f.blame("", err); err != nil {
		return err
	}
	if errors.Is(err, cluster.Conflict) || errors.Is(err, cluster.Expired) || errors.Is(err, cluster.Changed) || node.IsRefusal(err) {
		f.status = status
	}
	if entered(f) == nil { // nothing to keep: the page with what is wrong
		s := c.m.Settings.View(c.actor)
		kept := newForm("settings", presentSettings(s))
		kept.Errors, kept.status = f.Errors, f.status
		v := newSettingsView(c.m.Name(), s, c.actor)
		return c.show(page{Name: "settings", Title: "Settings of the cluster", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Form: kept, Data: v})
	}
	return showSettings(c, f, "")
}

func beginSettings(c *call) error {
	return held(c, "The settings are yours to change.", func(*form) error { return c.m.Settings.Take(c.Request().Context(), c.actor) })
}

func takeOverSettings(c *call) error {
	return held(c, "You have taken over. The settings are yours to change.", func(f *form) error {
		return c.m.Settings.TakeOver(c.Request().Context(), c.actor, f.text("from"))
	})
}

func extendSettings(c *call) error {
	return held(c, "You have the full time again.", func(f *form) error {
		return c.m.Settings.Extend(c.Request().Context(), c.actor, f.text("lease"))
	})
}

// releaseSettings throws away what was entered: that is what it is for.
func releaseSettings(c *call) error {
	f, err := c.readForm("settings")
	if err != nil {
		return err
	}
	if err := c.m.Settings.Release(c.Request().Context(), c.actor, f.text("lease")); err != nil {
		return refusedSettings(c, f, err)
	}
	return c.done("/cluster/settings", "Nothing was changed, and others can change the settings now.")
}

func saveSettings(c *call) error {
	f, err := c.readForm("settings")
	if err != nil {
		return err
	}
	version, err := f.version("version")
	if err != nil {
		return err
	}
	to := c.m.State().Settings
	if version == nil {
		version = &to.Version
	}
	for _, key := range node.SettingKeys() {
		if !f.Values.Has(key) { // a program that names only some
			continue
		}
		if err := node.PutSetting(&to, key, f.text(key)); err != nil {
			f.fail(key, "%s", sentence(err.Error()))
		}
	}
	if !f.ok() {
		return showSettings(c, f, "")
	}
	if err := c.m.Settings.Save(c.Request().Context(), c.actor, f.text("lease"), *version, to); err != nil {
		return refusedSettings(c, f, err)
	}
	return c.done("/cluster/settings", "The settings are changed, on every node.")
}

func apiSettings(c *call) error { return c.JSON(http.StatusOK, c.m.Settings.View(c.actor)) }

// apiSaveSettings changes the settings that are named. With a lease it saves and ends that; without one it takes it
// for this change alone.
func apiSaveSettings(c *call) error {
	var q struct {
		Values   map[string]string `json:"values"`
		TakeOver bool              `json:"take_over,omitempty"`
		Lease    string            `json:"lease,omitempty"`
		Version  *uint64           `json:"version,omitempty"` // that the author saw; with a lease
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	ctx := c.Request().Context()
	if q.Lease == "" {
		if err := c.m.Settings.Change(ctx, c.actor, q.Values, q.TakeOver); err != nil {
			return err
		}
		return apiSettings(c)
	}
	if q.TakeOver || q.Version == nil || len(q.Values) == 0 {
		return invalid("with a lease, give the version that you saw and the values to change, and no take_over")
	}
	to, err := c.m.Settings.With(q.Values)
	if err != nil {
		return err
	}
	if err := c.m.Settings.Save(ctx, c.actor, q.Lease, *q.Version, to); err != nil {
		return err
	}
	return apiSettings(c)
}

// apiTakeLease begins to change the settings, or takes over the lease that is named.
func apiTakeLease(c *call) error {
	var q struct {
		TakeOver string `json:"take_over,omitempty"` // id of the lease to end
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	err := error(nil)
	if q.TakeOver == "" {
		err = c.m.Settings.Take(c.Request().Context(), c.actor)
	} else {
		err = c.m.Settings.TakeOver(c.Request().Context(), c.actor, q.TakeOver)
	}
	if err != nil {
		return err
	}
	return apiSettings(c)
}

func apiExtendLease(c *call) error { return aboutLease(c, c.m.Settings.Extend) }

func apiReleaseLease(c *call) error { return aboutLease(c, c.m.Settings.Release) }

func aboutLease(c *call, do func(ctx context.Context, actor cluster.Actor, lease string) error) error {
	var q struct {
		Lease string `json:"lease"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if err := do(c.Request().Context(), c.actor, q.Lease); err != nil {
		return err
	}
	return apiSettings(c)
}
