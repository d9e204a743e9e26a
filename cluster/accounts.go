package cluster

import (
	"slices"
	"strings"
	"time"
)

// Account is a person who may log in, on any node.
type Account struct {
	Name       string      `json:"name"`
	FullName   string      `json:"full_name,omitempty"`
	Hash       string      `json:"hash"`                  // of the password: argon2id in its usual encoding
	MustChange bool        `json:"must_change,omitempty"` // the password is temporary: it opens nothing but the page to change it
	Roles      []RoleGrant `json:"roles"`
	Disabled   bool        `json:"disabled,omitempty"` // may not log in, and may do nothing
	Created    time.Time   `json:"created"`
	By         string      `json:"by"`
	Version    uint64      `json:"version"` // of who it is and what it may do: see replacing

	Factors
	SessionEpoch uint64 `json:"session_epoch,omitempty"` // how often all sessions were ended: one from before is over
	Locks        []Lock `json:"locks,omitempty"`         // by node
}

// RoleGrant is a role that an account has, for every slot or for some.
type RoleGrant struct {
	Role  string   `json:"role"`            // one of Roles
	Slots []string `json:"slots,omitempty"` // labels; empty: every slot. Only for CryptoOfficer and CryptoUser
}

func (r RoleGrant) String() string {
	if len(r.Slots) == 0 {
		return r.Role
	}
	return r.Role + " of " + strings.Join(r.Slots, ", ")
}

// perSlot tells whether a role can be for some slots only.
func perSlot(role string) bool { return role == CryptoOfficer || role == CryptoUser }

func roleList(roles []string) string { return strings.Join(roles, ", ") }

// Has tells whether the account has a role, for at least one slot.
func (a Account) Has(role string) bool {
	return slices.ContainsFunc(a.Roles, func(r RoleGrant) bool { return r.Role == role })
}

// checkRoles wants known roles, each once, with slots only where a role can have them.
func checkRoles(roles []RoleGrant) error {
	for i, r := range roles {
		if err := checkOneOf("role", r.Role, Roles()...); err != nil {
			return err
		}
		if slices.ContainsFunc(roles[:i], func(o RoleGrant) bool { return o.Role == r.Role }) {
			return errorf(Invalid, "the role %q comes twice: name all its slots in one", r.Role)
		}
		if len(r.Slots) > 0 && !perSlot(r.Role) {
			return errorf(Invalid, "the role %q is for the whole cluster: it takes no slots", r.Role)
		}
		if len(r.Slots) > maxSlots {
			return errorf(Invalid, "the role %q names %d slots; at most %d are allowed", r.Role, len(r.Slots), maxSlots)
		}
		for j, label := range r.Slots {
			if err := checkLabel(label); err != nil {
				return err
			}
			if slices.Contains(r.Slots[:j], label) {
				return errorf(Invalid, "the role %q names slot %q twice", r.Role, label)
			}
		}
	}
	return nil
}

func checkPasswordHash(name, hash string) error {
	if len(hash) > maxHash || !argon2Pattern.MatchString(hash) { // it may be a password: not for a message
		return errorf(Invalid, "the password hash of account %q is not argon2id in its usual encoding", clip(name))
	}
	return nil
}

// PutAccount makes an account (New), or changes who it is and what it may do. Passwords of accounts that
// are there have commands of their own, so that a change of one cannot touch the other.
type PutAccount struct {
	Name      string      `json:"name"`
	FullName  string      `json:"full_name,omitempty"`
	Roles     []RoleGrant `json:"roles"` // all of them: what is not here is taken away
	Disabled  bool        `json:"disabled,omitempty"`
	New       bool        `json:"new"`
	Hash      string      `json:"hash,omitempty"`      // New: of the first password
	Temporary bool        `json:"temporary,omitempty"` // New: the first password has to be changed at the first log in
	Replaces  *uint64     `json:"replaces,omitempty"`  // the version that its author saw
}

func (c *PutAccount) Kind() string { return "account.put" }

// subject is for new accounts, whose password is another one each time.
func (c *PutAccount) subject() string {
	if c.New {
		return c.Name
	}
	return ""
}

func (c *PutAccount) describe() (string, string) {
	what := "changed, "
	if c.New {
		what = "new, "
	}
	if c.Disabled {
		what += "disabled, "
	}
	roles := make([]string, len(c.Roles))
	for i, r := range c.Roles {
		roles[i] = r.String()
	}
	if len(roles) == 0 {
		roles = []string{"no role"}
	}
	return "account/" + c.Name, clipTo(what+strings.Join(roles, "; "), maxText)
}

func (c *PutAccount) validate() error {
	if c.New && c.Replaces != nil {
		return errorf(Invalid, "the account %q is to be a new one, so it replaces none", clip(c.Name))
	}
	if !c.New && (c.Hash != "" || c.Temporary) {
		return errorf(Invalid, "the password of account %q cannot be changed together with its roles", clip(c.Name))
	}
	if c.New {
		if err := checkPasswordHash(c.Name, c.Hash); err != nil {
			return err
		}
	}
	if c.FullName != "" {
		if err := checkLine("full name", c.FullName, maxFullName); err != nil {
			return err
		}
	}
	return check(checkAccountName(c.Name), checkRoles(c.Roles))
}

func (c *PutAccount) apply(s *State, m Meta) error {
	old, exists := s.Accounts[c.Name]
	switch {
	case c.New && exists:
		return errorf(Conflict, "there is an account %q already", c.Name)
	case !c.New && !exists:
		return errorf(NotFound, "there is no account %q", c.Name)
	case c.New && len(s.Accounts) >= maxAccounts:
		return errorf(Full, "there are %d accounts, which is the most there can be", len(s.Accounts))
	}
	for _, r := range c.Roles {
		for _, label := range r.Slots {
			if _, err := s.slot(label); err != nil {
				return err
			}
		}
	}
	a := old
	if c.New {
		a = Account{Name: c.Name, Created: m.Time, By: m.Actor.String(), Hash: c.Hash, MustChange: c.Temporary}
	}
	a.FullName, a.Roles, a.Disabled, a.Version = c.FullName, c.Roles, c.Disabled, s.Index
	if isOwn(m, c.Name) && (a.Disabled || !slices.EqualFunc(a.Roles, old.Roles, sameGrant)) {
		return errorf(Conflict, "the account %q is the one in use: nobody changes their own roles; another security officer can", c.Name)
	}
	if err := s.keepsOfficer(old, a); err != nil {
		return err
	}
	before := *s
	s.Accounts = with(s.Accounts, c.Name, a)
	return check(s.keepsApprovers(&before, c.Name), s.keepsCustodians(&before, c.Name))
}

func sameGrant(a, b RoleGrant) bool { return a.Role == b.Role && slices.Equal(a.Slots, b.Slots) }

// isOwn tells whether the account called name is that of the actor.
func isOwn(m Meta, name string) bool { return m.Actor.Kind == ByAccount && m.Actor.Name == name }

func (a Account) isOfficer() bool { return !a.Disabled && a.Has(SecurityOfficer) }

// keepsOfficer refuses a change of an account that would leave the cluster without a security officer who
// can log in.
func (s *State) keepsOfficer(before, after Account) error {
	if !before.isOfficer() || after.isOfficer() {
		return nil
	}
	for name, a := range s.Accounts {
		if name != before.Name && a.isOfficer() {
			return nil
		}
	}
	return errorf(Conflict, "the account %q is the last security officer: give another account the role first", before.Name)
}

// SetPassword is a person's new password, for the account that is logged in and no other.
type SetPassword struct {
	Hash string        `json:"hash"`
	TOTP *ResealedTOTP `json:"totp,omitempty"` // where the account has one-time passwords
}

func (c *SetPassword) Kind() string               { return "account.password" }
func (c *SetPassword) describe() (string, string) { return "account", "own password" }
func (c *SetPassword) validate() error {
	return check(checkPasswordHash("in use", c.Hash), c.TOTP.validate())
}

func (c *SetPassword) apply(s *State, m Meta) error {
	a, ok := s.Accounts[m.Actor.Name]
	if !ok || m.Actor.Kind != ByAccount {
		return errorf(Denied, "there is no account of %s", m.Actor)
	}
	totp, err := a.TOTP.reseal(c.TOTP)
	if err != nil {
		return err
	}
	a.Hash, a.MustChange, a.TOTP = c.Hash, false, totp
	s.Accounts = with(s.Accounts, a.Name, a)
	return nil
}

// ResetPassword gives another's account a temporary password, which has to be changed at the next log in.
// The secret of the one-time passwords is lost with it: it was sealed under the old password. Locks are
// lifted: they were of guesses at the old one. Passkeys and certificates stay, and none can be added or
// removed by whoever logs in with the temporary password.
type ResetPassword struct {
	Name string `json:"name"`
	Hash string `json:"hash"`
}

func (c *ResetPassword) Kind() string    { return "account.reset" }
func (c *ResetPassword) subject() string { return c.Name }
func (c *ResetPassword) describe() (string, string) {
	return "account/" + c.Name, "temporary password; one-time passwords removed, locks lifted"
}
func (c *ResetPassword) validate() error {
	return check(checkAccountName(c.Name), checkPasswordHash(c.Name, c.Hash))
}

func (c *ResetPassword) apply(s *State, m Meta) error {
	a, ok := s.Accounts[c.Name]
	if !ok {
		return errorf(NotFound, "there is no account %q", c.Name)
	}
	if isOwn(m, c.Name) {
		return errorf(Conflict, "the account %q is the one in use: change its password with the present one", c.Name)
	}
	a.Hash, a.MustChange, a.TOTP, a.Locks = c.Hash, true, TOTP{}, nil
	before := *s
	s.Accounts = with(s.Accounts, c.Name, a)
	return s.keepsApprovers(&before, c.Name)
}

// RemoveAccount forgets an account: never the one in use, and never the last security officer's.
type RemoveAccount struct {
	Name string `json:"name"`
}

func (c *RemoveAccount) Kind() string               { return "account.remove" }
func (c *RemoveAccount) describe() (string, string) { return "account/" + c.Name, "" }
func (c *RemoveAccount) validate() error            { return checkAccountName(c.Name) }

func (c *RemoveAccount) apply(s *State, m Meta) error {
	a, ok := s.Accounts[c.Name]
	if !ok {
		return errorf(NotFound, "there is no account %q", c.Name)
	}
	if isOwn(m, c.Name) {
		return errorf(Conflict, "the account %q is the one in use: another security officer can remove it", c.Name)
	}
	if err := s.keepsOfficer(a, Account{}); err != nil {
		return err
	}
	before := *s
	s.Accounts, s.Custodians = without(s.Accounts, c.Name), without(s.Custodians, c.Name)
	return check(s.keepsApprovers(&before, c.Name), s.keepsCustodians(&before, c.Name))
}

// ungrant takes a slot that is gone out of all roles, so that a later slot with its label is not given to
// people by accident. A role for this slot alone goes with it: without slots it would be one for every slot.
func (s *State) ungrant(label string) {
	names := func(r RoleGrant) bool { return slices.Contains(r.Slots, label) }
	for _, name := range sorted(s.Accounts) {
		a := s.Accounts[name]
		if !slices.ContainsFunc(a.Roles, names) {
			continue
		}
		var roles []RoleGrant
		for _, r := range a.Roles {
			if names(r) {
				r.Slots = slices.DeleteFunc(slices.Clone(r.Slots), func(l string) bool { return l == label })
				if len(r.Slots) == 0 {
					continue
				}
			}
			roles = append(roles, r)
		}
		a.Roles, a.Version = roles, s.Index
		s.Accounts = with(s.Accounts, name, a)
	}
}
