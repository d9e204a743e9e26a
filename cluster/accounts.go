package cluster

import "time"

// Account is a person who may log in, on any node.
type Account struct {
	Name    string    `json:"name"`
	Hash    string    `json:"hash"` // of the password: argon2id in its usual encoding
	Role    string    `json:"role"` // Administrator
	Created time.Time `json:"created"`
	By      string    `json:"by"`
}

// PutAccount makes an account (New), or changes the password or role of one that is there.
type PutAccount struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
	Role string `json:"role"`
	New  bool   `json:"new"`
}

func (c *PutAccount) Kind() string { return "account.put" }

func (c *PutAccount) describe() (string, string) {
	if c.New {
		return "account/" + c.Name, "new, " + c.Role
	}
	return "account/" + c.Name, "changed, " + c.Role
}

func (c *PutAccount) validate() error {
	if len(c.Hash) > maxHash || !argon2Pattern.MatchString(c.Hash) { // it may be a password: not for a message
		return errorf(Invalid, "the password hash of account %q is not argon2id in its usual encoding", clip(c.Name))
	}
	return check(checkAccountName(c.Name), checkOneOf("role", c.Role, Administrator))
}

func (c *PutAccount) apply(s *State, m Meta) error {
	a, exists := s.Accounts[c.Name]
	switch {
	case c.New && exists:
		return errorf(Conflict, "there is an account %q already", c.Name)
	case !c.New && !exists:
		return errorf(NotFound, "there is no account %q", c.Name)
	case c.New && len(s.Accounts) >= maxAccounts:
		return errorf(Full, "there are %d accounts, which is the most there can be", len(s.Accounts))
	case c.New:
		a = Account{Name: c.Name, Created: m.Time, By: m.Actor.String()}
	}
	a.Hash, a.Role = c.Hash, c.Role
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// RemoveAccount forgets an account. Nobody can remove the account they use, so an administrator is left.
type RemoveAccount struct {
	Name string `json:"name"`
}

func (c *RemoveAccount) Kind() string               { return "account.remove" }
func (c *RemoveAccount) describe() (string, string) { return "account/" + c.Name, "" }
func (c *RemoveAccount) validate() error            { return checkAccountName(c.Name) }

func (c *RemoveAccount) apply(s *State, m Meta) error {
	if _, ok := s.Accounts[c.Name]; !ok {
		return errorf(NotFound, "there is no account %q", c.Name)
	}
	if m.Actor.Kind == ByAccount && m.Actor.Name == c.Name {
		return errorf(Conflict, "the account %q is the one in use: another administrator can remove it", c.Name)
	}
	s.Accounts = without(s.Accounts, c.Name)
	return nil
}
