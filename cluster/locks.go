package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Lock says that a node takes no password for an account before Until, because of so many wrong ones.
// It is replicated so that it is seen, and can be lifted, on any node, also while that node is away.
type Lock struct {
	Node  string    `json:"node"`
	Tries int       `json:"tries"` // wrong passwords in a row
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
}

// ReportLock says that the node locked an account.
type ReportLock struct {
	Name  string    `json:"name"`
	Tries int       `json:"tries"`
	Until time.Time `json:"until"`
}

func (c *ReportLock) Kind() string { return "account.lock" }
func (c *ReportLock) describe() (string, string) {
	return "account/" + c.Name, fmt.Sprintf("%d wrong passwords in a row; takes none before %s", c.Tries, c.Until.UTC().Format("2006-01-02 15:04:05 UTC"))
}

func (c *ReportLock) validate() error {
	return check(checkAccountName(c.Name), checkRange("the number of tries", c.Tries, 1, 1<<30), checkTime("the end of the lock", c.Until))
}

func (c *ReportLock) apply(s *State, m Meta) error {
	a, ok := s.Accounts[c.Name]
	if !ok {
		return errorf(NotFound, "there is no account %q", c.Name)
	}
	if c.Until.After(m.Time.Add(maxLock)) { // a wrong clock must not lock somebody out for years
		return errorf(Invalid, "a lock lasts for at most %d hours", int(maxLock.Hours()))
	}
	a.Locks, _ = dropped(a.Locks, func(l Lock) bool { return l.Node == m.Node || !m.Time.Before(l.Until) })
	a.Locks = append(a.Locks, Lock{Node: m.Node, Tries: c.Tries, Since: m.Time, Until: c.Until.UTC()})
	slices.SortFunc(a.Locks, func(a, b Lock) int { return strings.Compare(a.Node, b.Node) })
	s.Accounts = with(s.Accounts, c.Name, a)
	object, detail := c.describe()
	s.record(m, Entry{Act: NoteLocked, Object: object, Result: Done, Detail: detail, Alert: AlertLockout})
	return nil
}

// UnlockAccount lets an account try passwords again, on every node. Nobody unlocks their own.
type UnlockAccount struct {
	Name string `json:"name"`
}

func (c *UnlockAccount) Kind() string               { return "account.unlock" }
func (c *UnlockAccount) describe() (string, string) { return "account/" + c.Name, "" }
func (c *UnlockAccount) validate() error            { return checkAccountName(c.Name) }

func (c *UnlockAccount) apply(s *State, m Meta) error {
	a, ok := s.Accounts[c.Name]
	switch {
	case !ok:
		return errorf(NotFound, "there is no account %q", c.Name)
	case m.Actor.Kind == ByAccount && m.Actor.Name == c.Name:
		return errorf(Conflict, "the account %q is the one in use: somebody else guesses its password, and another person has to look at that", c.Name)
	case len(a.Locks) == 0:
		return errorf(NotFound, "the account %q is not locked", c.Name)
	}
	a.Locks = nil
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// EndSessions ends all sessions of an account, on every node; on one that is away, when it is back.
type EndSessions struct {
	Name string `json:"name"`
}

func (c *EndSessions) Kind() string               { return "account.end-sessions" }
func (c *EndSessions) describe() (string, string) { return "account/" + c.Name, "" }
func (c *EndSessions) validate() error            { return checkAccountName(c.Name) }

func (c *EndSessions) apply(s *State, m Meta) error {
	a, err := s.own(c.Name, m)
	if err != nil {
		return err
	}
	a.SessionEpoch++
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}
