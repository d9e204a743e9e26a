package node

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A Person is what people may know of an account: everything but its password.
type Person struct {
	Name       string              `json:"name"`
	FullName   string              `json:"full_name"`
	Roles      []cluster.RoleGrant `json:"roles"`
	Disabled   bool                `json:"disabled"`
	MustChange bool                `json:"must_change"` // the password is temporary
	Created    time.Time           `json:"created"`
	By         string              `json:"by"`
	Version    uint64              `json:"version"`             // of full name, roles and disabled
	LastLogin  time.Time           `json:"last_login,omitzero"` // as far as the audit trail reaches back
	Factors    []string            `json:"factors"`             // kinds of ways to log in besides the password
	LockedOn   []string            `json:"locked_on,omitempty"` // nodes that take no password for now
}

// A PersonChange is what a security officer decides about an account.
type PersonChange struct {
	FullName string
	Roles    []cluster.RoleGrant
	Disabled bool
	Replaces *uint64 // the version of the account that the officer saw; nil: whatever there is
}

// A NewPerson is an account to be made.
type NewPerson struct {
	Name     string              `json:"name"`
	FullName string              `json:"full_name"`
	Roles    []cluster.RoleGrant `json:"roles"`
}

// temporarySize is the length of a temporary password, in characters of 5 random bits.
const temporarySize = 20

// People lists the accounts by name.
func (a *Accounts) People() []Person {
	s := a.m.State()
	seen := lastLogins(s)
	var list []Person
	for _, name := range slices.Sorted(maps.Keys(s.Accounts)) {
		list = append(list, personOf(s.Accounts[name], seen[name]))
	}
	return list
}

// Person finds one account.
func (a *Accounts) Person(name string) (Person, error) {
	s := a.m.State()
	account, ok := s.Accounts[name]
	if !ok {
		return Person{}, &cluster.Error{Code: cluster.NotFound, Message: "there is no account \"" + line(name) + "\""}
	}
	return personOf(account, lastLogins(s)[name]), nil
}

func personOf(a cluster.Account, seen time.Time) Person {
	p := Person{Name: a.Name, FullName: a.FullName, Roles: a.Roles, Disabled: a.Disabled, MustChange: a.MustChange, Created: a.Created, By: a.By, Version: a.Version, LastLogin: seen}
	if p.Roles == nil {
		p.Roles = []cluster.RoleGrant{}
	}
	p.Factors = factorKinds(a.Factors)
	for _, l := range a.Locks {
		if time.Now().Before(l.Until) {
			p.LockedOn = append(p.LockedOn, l.Node)
		}
	}
	return p
}

// lastLogins is when each account was logged in to last, from the audit trail.
func lastLogins(s *cluster.State) map[string]time.Time {
	seen := map[string]time.Time{}
	for i := len(s.Audit) - 1; i >= 0 && len(seen) < len(s.Accounts); i-- {
		e := s.Audit[i]
		name, ok := strings.CutPrefix(e.Object, "account/")
		if !ok || e.Act != cluster.NoteLogin || e.Result != cluster.Done {
			continue
		}
		if _, known := s.Accounts[name]; known && seen[name].IsZero() {
			seen[name] = e.Time
		}
	}
	return seen
}

// Add makes an account with a temporary password, which is returned and kept nowhere. Whoever logs in with
// it has to choose another at once. The password counts also when the error says that others have to
// approve: it is good once they have.
func (a *Accounts) Add(ctx context.Context, actor cluster.Actor, p NewPerson) (password string, err error) {
	if err := cluster.CheckAccountName(p.Name); err != nil {
		return "", refusal{err}
	}
	password, hash, err := a.temporary(ctx)
	if err != nil {
		return "", err
	}
	_, err = a.m.Cluster.Apply(ctx, &cluster.PutAccount{Name: p.Name, FullName: strings.TrimSpace(p.FullName), Roles: p.Roles, New: true, Hash: hash, Temporary: true}, actor)
	return password, err
}

// Change replaces what an account is and may do. Its sessions end when it is disabled. The error is
// cluster.Changed where somebody else has changed it since the officer saw it.
func (a *Accounts) Change(ctx context.Context, actor cluster.Actor, name string, c PersonChange) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.PutAccount{Name: name, FullName: strings.TrimSpace(c.FullName), Roles: c.Roles, Disabled: c.Disabled, Replaces: c.Replaces}, actor)
	return err
}

// Disable disables or enables an account and leaves the rest of it.
func (a *Accounts) Disable(ctx context.Context, actor cluster.Actor, name string, disabled bool) error {
	p, err := a.Person(name)
	if err != nil {
		return err
	}
	if p.Disabled == disabled {
		return refuse("the account %q is %s already", name, map[bool]string{true: "disabled", false: "enabled"}[disabled])
	}
	return a.Change(ctx, actor, name, PersonChange{FullName: p.FullName, Roles: p.Roles, Disabled: disabled, Replaces: &p.Version})
}

// ResetPassword gives an account a temporary password as Add does. Its sessions end.
func (a *Accounts) ResetPassword(ctx context.Context, actor cluster.Actor, name string) (password string, err error) {
	if _, err := a.Person(name); err != nil {
		return "", err
	}
	password, hash, err := a.temporary(ctx)
	if err != nil {
		return "", err
	}
	_, err = a.m.Cluster.Apply(ctx, &cluster.ResetPassword{Name: name, Hash: hash}, actor)
	return password, err
}

// Remove forgets an account. Its name stays in the audit trail.
func (a *Accounts) Remove(ctx context.Context, actor cluster.Actor, name string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.RemoveAccount{Name: name}, actor)
	return err
}

func (a *Accounts) temporary(ctx context.Context) (password, hash string, err error) {
	password = string(newCode(temporarySize))
	hash, err = a.hash(ctx, password)
	return password, hash, err
}
