package cluster

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Factors are the ways to log in that an account has besides its password. Nothing in them opens
// anything for whoever reads the State: the secret of the one-time passwords is sealed under the account's
// password, and the others are public keys and hashes.
type Factors struct {
	TOTP         TOTP                `json:"totp,omitzero"`
	Passkeys     []Passkey           `json:"passkeys,omitempty"`
	Certificates []ClientCertificate `json:"certificates,omitempty"`
}

// TOTP is a generator of one-time passwords (RFC 6238) that a login by password needs as well.
type TOTP struct {
	Salt     []byte    `json:"salt"`      // of the key, which argon2id makes from the password
	Sealed   []byte    `json:"sealed"`    // the shared secret: nonce and AES-256-GCM
	LastStep uint64    `json:"last_step"` // the newest time step that was used: none up to it is taken again
	Created  time.Time `json:"created"`
}

// Passkey is a WebAuthn credential that logs in by itself.
type Passkey struct {
	ID      []byte    `json:"id"`         // chosen by the authenticator
	Key     []byte    `json:"public_key"` // COSE_Key (RFC 9052), as the authenticator sent it
	Count   uint32    `json:"count"`      // of signatures; stays 0 where the authenticator has no counter
	Synced  bool      `json:"synced"`     // may be copied to other devices of its owner (WebAuthn: backup eligible)
	Name    string    `json:"name"`       // for people
	Created time.Time `json:"created"`
}

// ClientCertificate is a TLS certificate that logs in by itself: exactly this one, whoever issued it.
type ClientCertificate struct {
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the certificate, hexadecimal
	Subject     string    `json:"subject"`
	Issuer      []byte    `json:"issuer"` // its name in DER: browsers offer certificates by issuer
	NotAfter    time.Time `json:"not_after"`
	Name        string    `json:"name"` // for people
	Created     time.Time `json:"created"`
}

// Kinds of factors.
const (
	FactorTOTP        = "totp"
	FactorPasskey     = "passkey"
	FactorCertificate = "certificate"
)

// settled refuses what a person with a temporary password must not do: whoever set the password knows it
// too, and could come back by what is added under it after the password was changed.
func (a Account) settled() error {
	if a.MustChange {
		return errorf(Denied, "the account %q has a temporary password: its owner has to change it first", a.Name)
	}
	return nil
}

// own finds an account for an act that its owner may do, and whoever manages accounts.
func (s *State) own(name string, m Meta) (Account, error) {
	a, ok := s.Accounts[name]
	if !ok {
		return a, errorf(NotFound, "there is no account %q", name)
	}
	if isOwn(m, name) {
		return a, nil
	}
	return a, Authorize(s, m.Actor, m.Node, MayManageAccounts, "")
}

// ownFactors is own for the ways to log in.
func (s *State) ownFactors(name string, m Meta) (Account, error) {
	a, err := s.own(name, m)
	if err == nil && isOwn(m, name) {
		err = a.settled()
	}
	return a, err
}

// personal finds the account that the actor uses, for what stays and what nobody else can do.
func (s *State) personal(name string, m Meta) (Account, error) {
	a, ok := s.Accounts[name]
	if !ok {
		return a, errorf(NotFound, "there is no account %q", name)
	}
	if !isOwn(m, name) {
		return a, errorf(Denied, "only %q can do this, for the account in use", name)
	}
	return a, a.settled()
}

// SetTOTP gives the actor's account a generator of one-time passwords. Step is that of the code which
// proved it.
type SetTOTP struct {
	Name   string `json:"name"`
	Salt   []byte `json:"salt"`
	Sealed []byte `json:"sealed"`
	Step   uint64 `json:"step"`
}

func (c *SetTOTP) Kind() string               { return "factor.totp" }
func (c *SetTOTP) describe() (string, string) { return "account/" + c.Name, "one-time passwords added" }

func (c *SetTOTP) validate() error {
	return check(checkAccountName(c.Name), checkSealed(c.Salt, c.Sealed))
}

func checkSealed(salt, sealed []byte) error {
	return check(checkRange("the size of a salt", len(salt), minSalt, maxSalt),
		checkRange("the size of a sealed secret", len(sealed), minSealed, maxSealed))
}

func (c *SetTOTP) apply(s *State, m Meta) error {
	a, err := s.personal(c.Name, m)
	if err != nil {
		return err
	}
	if len(a.TOTP.Sealed) > 0 {
		return errorf(Conflict, "the account %q has one-time passwords already: remove them first", c.Name)
	}
	a.TOTP = TOTP{Salt: c.Salt, Sealed: c.Sealed, LastStep: c.Step, Created: m.Time}
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// ResealedTOTP is the secret of the one-time passwords of an account, sealed under its next password. It
// goes with the command that sets the password, so that the two fit at any moment.
type ResealedTOTP struct {
	Before []byte `json:"before"` // the salt of the secret that was sealed again
	Salt   []byte `json:"salt"`
	Sealed []byte `json:"sealed"`
}

func (r *ResealedTOTP) validate() error {
	if r == nil {
		return nil
	}
	return checkSealed(r.Salt, r.Sealed)
}

// reseal makes the secret fit the account's next password.
func (t TOTP) reseal(r *ResealedTOTP) (TOTP, error) {
	if len(t.Sealed) == 0 && r == nil {
		return t, nil
	}
	if r == nil || !bytes.Equal(t.Salt, r.Before) {
		return t, errorf(Conflict, "the one-time passwords of the account were changed at the same moment: try again")
	}
	t.Salt, t.Sealed = r.Salt, r.Sealed
	return t, nil
}

// AddPasskey gives the actor's account a passkey.
type AddPasskey struct {
	Name    string  `json:"name"`
	Passkey Passkey `json:"passkey"` // Created is not taken from here
}

func (c *AddPasskey) Kind() string { return "factor.passkey" }
func (c *AddPasskey) describe() (string, string) {
	return "account/" + c.Name, fmt.Sprintf("passkey %q added", c.Passkey.Name)
}

func (c *AddPasskey) validate() error {
	return check(checkAccountName(c.Name), checkRange("the size of a passkey's id", len(c.Passkey.ID), 1, maxCredential),
		checkRange("the size of a passkey's public key", len(c.Passkey.Key), 1, maxPublicKey), checkLine("the passkey's name", c.Passkey.Name, maxFactorName))
}

func (c *AddPasskey) apply(s *State, m Meta) error {
	a, err := s.personal(c.Name, m)
	if err != nil {
		return err
	}
	if owner := s.PasskeyOwner(c.Passkey.ID); owner != "" {
		return errorf(Conflict, "this passkey is registered already")
	}
	if len(a.Passkeys) >= maxFactors {
		return errorf(Full, "the account %q has %d passkeys: remove one first", c.Name, len(a.Passkeys))
	}
	c.Passkey.Created = m.Time
	a.Passkeys = append(slices.Clip(a.Passkeys), c.Passkey)
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// AddCertificate lets the holder of a TLS certificate's key log in as an account. A certificate belongs
// to one account.
type AddCertificate struct {
	Name        string            `json:"name"`
	Certificate ClientCertificate `json:"certificate"` // Created is not taken from here
}

func (c *AddCertificate) Kind() string { return "factor.certificate" }
func (c *AddCertificate) describe() (string, string) {
	return "account/" + c.Name, fmt.Sprintf("certificate %q added: %s", c.Certificate.Name, c.Certificate.Fingerprint)
}

// allowed is asked before policies are, so that nobody requests what they could not do.
func (c *AddCertificate) allowed(s *State, m Meta) error {
	_, err := s.own(c.Name, m)
	return err
}

func (c *AddCertificate) validate() error {
	cert := &c.Certificate
	return check(checkAccountName(c.Name), checkHash("the certificate's fingerprint", cert.Fingerprint), checkText("the certificate's subject", cert.Subject, maxText),
		checkRange("the size of the issuer's name", len(cert.Issuer), 1, maxIssuer), checkTime("the end of the certificate", cert.NotAfter), checkLine("the certificate's name", cert.Name, maxFactorName))
}

func (c *AddCertificate) apply(s *State, m Meta) error {
	a, err := s.ownFactors(c.Name, m)
	if err != nil {
		return err
	}
	switch owner := s.CertificateOwner(c.Certificate.Fingerprint); {
	case owner == c.Name:
		return errorf(Conflict, "the account %q has this certificate already", c.Name)
	case owner != "":
		return errorf(Conflict, "this certificate belongs to another account: a certificate names one person")
	case len(a.Certificates) >= maxFactors:
		return errorf(Full, "the account %q has %d certificates: remove one first", c.Name, len(a.Certificates))
	case !m.Time.Before(c.Certificate.NotAfter):
		return errorf(Expired, "the certificate ended on %s", c.Certificate.NotAfter.UTC().Format(time.DateOnly))
	}
	c.Certificate.Created = m.Time
	a.Certificates = append(slices.Clip(a.Certificates), c.Certificate)
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// RemoveFactor takes a factor from an account. ID says which of several: a passkey's id in hexadecimal, or
// a certificate's fingerprint.
type RemoveFactor struct {
	Name   string `json:"name"`
	Factor string `json:"factor"`
	ID     string `json:"id,omitempty"`
}

func (c *RemoveFactor) Kind() string { return "factor.remove" }
func (c *RemoveFactor) describe() (string, string) {
	return "account/" + c.Name, fmt.Sprintf("%s removed %s", c.Factor, clip(c.ID))
}

func (c *RemoveFactor) validate() error {
	if len(c.ID) > 2*maxCredential {
		return errorf(Invalid, "the id of the %s is too long", clip(c.Factor))
	}
	return check(checkAccountName(c.Name), checkOneOf("factor", c.Factor, FactorTOTP, FactorPasskey, FactorCertificate),
		checkMatch("the factor's id", c.ID, hexPattern, "it has hexadecimal digits, two for each byte"))
}

func (c *RemoveFactor) apply(s *State, m Meta) error {
	a, err := s.ownFactors(c.Name, m)
	if err != nil {
		return err
	}
	found := false
	switch c.Factor {
	case FactorTOTP:
		found = len(a.TOTP.Sealed) > 0
		a.TOTP = TOTP{}
	case FactorPasskey:
		a.Passkeys, found = dropped(a.Passkeys, func(p Passkey) bool { return fmt.Sprintf("%x", p.ID) == c.ID })
	case FactorCertificate:
		a.Certificates, found = dropped(a.Certificates, func(cert ClientCertificate) bool { return cert.Fingerprint == c.ID })
	}
	if !found {
		return errorf(NotFound, "the account %q has no such %s", c.Name, c.Factor)
	}
	if c.Factor != FactorTOTP { // a stolen device may be logged in
		a.SessionEpoch++
	}
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// dropped returns list without what is unwanted; nil when nothing is left, as in a decoded State.
func dropped[T any](list []T, unwanted func(T) bool) (rest []T, found bool) {
	for _, v := range list {
		if unwanted(v) {
			found = true
		} else {
			rest = append(rest, v)
		}
	}
	return rest, found
}

// ReportFactor says that somebody has just used a factor. Counter is the time step of a one-time password,
// or the signature counter of the passkey with the ID. What was used before is refused, here, where all
// nodes agree on what was used: so a code that somebody looked at is of no use on another node.
type ReportFactor struct {
	Name    string `json:"name"`
	Factor  string `json:"factor"` // FactorTOTP or FactorPasskey
	ID      []byte `json:"id,omitempty"`
	Counter uint64 `json:"counter"`
}

func (c *ReportFactor) Kind() string               { return "factor.used" }
func (c *ReportFactor) describe() (string, string) { return "account/" + c.Name, c.Factor }

func (c *ReportFactor) validate() error {
	if c.Factor == FactorPasskey && c.Counter > 1<<32-1 {
		return errorf(Invalid, "a passkey's counter has 32 bits")
	}
	return check(checkAccountName(c.Name), checkOneOf("factor", c.Factor, FactorTOTP, FactorPasskey),
		checkRange("the size of a passkey's id", len(c.ID), 0, maxCredential))
}

func (c *ReportFactor) apply(s *State, _ Meta) error {
	a, ok := s.Accounts[c.Name]
	if !ok {
		return errorf(NotFound, "there is no account %q", c.Name)
	}
	if c.Factor == FactorTOTP {
		switch {
		case len(a.TOTP.Sealed) == 0:
			return errorf(NotFound, "the account %q has no one-time passwords", c.Name)
		case c.Counter <= a.TOTP.LastStep:
			return errorf(Denied, "this one-time password was used already; each is good for one login")
		}
		a.TOTP.LastStep = c.Counter
		s.Accounts = with(s.Accounts, c.Name, a)
		return nil
	}
	i := slices.IndexFunc(a.Passkeys, func(p Passkey) bool { return bytes.Equal(p.ID, c.ID) })
	if i < 0 {
		return errorf(NotFound, "the account %q has no such passkey", c.Name)
	}
	p := a.Passkeys[i]
	if err := p.CheckCount(uint32(c.Counter)); err != nil {
		return err
	}
	if p.Count == uint32(c.Counter) {
		return nil
	}
	a.Passkeys = slices.Clone(a.Passkeys)
	a.Passkeys[i].Count = uint32(c.Counter)
	s.Accounts = with(s.Accounts, c.Name, a)
	return nil
}

// CheckCount refuses a signature counter that does not go up: two devices then hold the same passkey
// (WebAuthn, section 6.1.1). An authenticator without a counter says 0 each time.
func (p *Passkey) CheckCount(count uint32) error {
	if count > p.Count || count == 0 && p.Count == 0 {
		return nil
	}
	return errorf(Denied, "the counter of the passkey %q went from %d to %d: it may have been copied; remove it and register a new one", p.Name, p.Count, count)
}

// PasskeyOwner is the account that has the passkey with this id; "" when none has.
func (s *State) PasskeyOwner(id []byte) string {
	for name, a := range s.Accounts {
		if slices.ContainsFunc(a.Passkeys, func(p Passkey) bool { return bytes.Equal(p.ID, id) }) {
			return name
		}
	}
	return ""
}

// CertificateOwner is the account that has the certificate with this fingerprint; "" when none has.
func (s *State) CertificateOwner(fingerprint string) string {
	for name, a := range s.Accounts {
		if slices.ContainsFunc(a.Certificates, func(c ClientCertificate) bool { return c.Fingerprint == fingerprint }) {
			return name
		}
	}
	return ""
}
