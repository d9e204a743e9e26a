package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// ModuleView is one PKCS#11 module of this node, with what does not work and what to do about it.
type ModuleView struct {
	Name      string        `json:"name"`
	Path      string        `json:"path"`
	Up        bool          `json:"up"`
	Problem   string        `json:"problem,omitempty"`
	Since     time.Time     `json:"since"`
	PID       int           `json:"worker_pid,omitempty"`
	Info      hsm.Info      `json:"info"`
	Tokens    []TokenView   `json:"tokens"`
	Abilities []hsm.Ability `json:"abilities"`
	Tested    time.Time     `json:"tested,omitzero"`
}

// TokenView is one token, and what it is used for.
type TokenView struct {
	hsm.TokenInfo
	Use     string `json:"use"` // UseAdmin, UseSlot, UseNone or UseFree
	Slot    string `json:"slot,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// What a token is used for.
const (
	UseAdmin = "admin"      // holds the node's identity
	UseSlot  = "slot"       // belongs to a slot
	UseNone  = "unassigned" // was made by another program; it can be taken into a slot
	UseFree  = "free"       // not initialized
)

// A selfTested is the stored result of a module's self-test.
type selfTested struct {
	Version   string
	Abilities []hsm.Ability
	Time      time.Time
}

// Overview describes the modules of this node.
func (m *Member) Overview(ctx context.Context) []ModuleView {
	health := m.node.ModuleHealth()
	slots := m.Slots.Here()
	var views []ModuleView
	for i, mod := range m.node.modules {
		h := health[mod.Name()]
		v := ModuleView{Name: mod.Name(), Path: m.node.cfg.Modules[i].Path, Up: h.Up, Since: h.Since, PID: mod.PID(), Tokens: []TokenView{}, Abilities: []hsm.Ability{}}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		info, err := mod.Info(ctx)
		cancel()
		switch {
		case err == nil:
			v.Info = info
			for _, t := range info.Tokens {
				v.Tokens = append(v.Tokens, m.tokenView(mod.Name(), t, slots))
			}
		case h.Err != nil:
			v.Problem = h.Err.Error()
		default:
			v.Problem = err.Error()
		}
		if t, err := get[selfTested](m.node.store, bucketModules, mod.Name()); err == nil {
			v.Abilities, v.Tested = t.Abilities, t.Time
		}
		views = append(views, v)
	}
	return views
}

func (m *Member) tokenView(module string, t hsm.TokenInfo, slots []SlotView) TokenView {
	v := TokenView{TokenInfo: t, Use: UseNone}
	m.Identity.mu.Lock()
	admin := m.Identity.rec.Module == module && m.Identity.rec.Serial == t.Serial
	m.Identity.mu.Unlock()
	i := slices.IndexFunc(slots, func(s SlotView) bool { return s.Module == module && s.Serial == t.Serial })
	switch {
	case admin:
		v.Use = UseAdmin
		if err := m.Identity.Refused(); err != nil {
			v.Problem = "it refuses the stored code, so this node cannot sign: " + err.Error()
		}
	case i >= 0:
		v.Use, v.Slot = UseSlot, slots[i].Label
		if slots[i].State != cluster.Active {
			v.Problem = slots[i].Reason
		}
	case !t.Initialized:
		v.Use = UseFree
	}
	switch {
	case t.CodeLocked:
		v.Problem = "its user code is locked after too many wrong tries; only its security officer can unlock it"
	case t.CodeFinalTry:
		v.Problem = "one more wrong code locks it"
	case t.CodeCountLow && v.Problem == "":
		v.Problem = "somebody has tried a wrong code since the last right one"
	}
	return v
}

// selfTest tests each module once per version of its library, on a token that is open.
func (m *Member) selfTest(ctx context.Context) {
	for _, mod := range m.node.modules {
		info, err := mod.Info(ctx)
		if err != nil {
			continue
		}
		version := fmt.Sprintf("%s %s %s", info.Manufacturer, info.Version, m.node.cfg.Version)
		old, err := get[selfTested](m.node.store, bucketModules, mod.Name())
		if err == nil && old.Version == version || err != nil && !errors.Is(err, errAbsent) {
			continue
		}
		i := slices.IndexFunc(info.Tokens, func(t hsm.TokenInfo) bool { return t.LoggedIn })
		if i < 0 {
			continue
		}
		abilities, err := mod.Token(info.Tokens[i].Serial).SelfTest(ctx)
		if err != nil {
			m.log.Warn("the self-test of a module did not end", "module", mod.Name(), "error", err)
			continue
		}
		for _, a := range abilities {
			m.log.Info("self-test", "module", mod.Name(), "test", a.Name, "ok", a.OK, "note", a.Note)
		}
		if err := m.node.store.put(bucketModules, mod.Name(), selfTested{version, abilities, time.Now().UTC()}); err != nil {
			m.log.Error("the result of a self-test cannot be stored", "error", err)
		}
	}
}
