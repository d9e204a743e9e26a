package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/keyferry/keyferry/cluster"
)

// Passkeys are WebAuthn credentials (WebAuthn level 3) that log in by themselves: the device that holds
// one is the first factor, and the finger or PIN that opens the device, which is always asked for, the
// second.
type Passkeys struct {
	m   *Member
	web *webauthn.WebAuthn
	why error // why there are none
}

// CheckPasskeyDomain tells whether passkeys can be for a domain at a console with this URL. A browser
// gives them only to names in the domain, and to no IP addresses.
func CheckPasskeyDomain(domain, consoleURL string) error {
	u, err := url.Parse(consoleURL)
	if err != nil {
		return err
	}
	host := u.Hostname()
	switch {
	case net.ParseIP(domain) != nil:
		return fmt.Errorf("the passkey domain %q is an IP address: browsers have passkeys for names only", domain)
	case host != domain && !strings.HasSuffix(host, "."+domain):
		return fmt.Errorf("the passkey domain %q is not that of this console, %q, nor a parent of it", domain, host)
	}
	return nil
}

func newPasskeys(m *Member) *Passkeys {
	p := &Passkeys{m: m}
	domain, console := m.node.cfg.PasskeyDomain, m.node.cfg.WebURL
	if domain == "" {
		p.why = refuse("passkeys are not set up: the configuration of this node names no passkey_domain")
		if net.ParseIP(hostOf(console)) != nil {
			p.why = refuse("passkeys are not possible here: this console is reached by an IP address, and browsers have passkeys for names only")
		}
		return p
	}
	if err := CheckPasskeyDomain(domain, console); err != nil {
		p.why = refusal{err}
		return p
	}
	timeout := webauthn.TimeoutConfig{Enforce: true, Timeout: LoginTime, TimeoutUVD: LoginTime}
	var err error
	p.web, err = webauthn.New(&webauthn.Config{
		RPID: domain, RPDisplayName: "Keyferry", RPOrigins: []string{console},
		AttestationPreference:  protocol.PreferNoAttestation, // whom a device is from decides nothing here
		AuthenticatorSelection: protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired},
		Timeouts:               webauthn.TimeoutsConfig{Login: timeout, Registration: timeout},
	})
	if err != nil {
		p.why = refuse("passkeys are not possible with this configuration: %v", err)
	}
	return p
}

// Offered is nil when this console has passkeys; otherwise it says why not.
func (p *Passkeys) Offered() error { return p.why }

// A Ceremony is one exchange with a browser's authenticator. Its challenge is good for one answer; whoever
// keeps it has to give it to one browser only, and forget it with the answer.
type Ceremony struct {
	Options string // JSON, for the browser: PublicKeyCredentialCreationOptionsJSON or ...RequestOptionsJSON

	session webauthn.SessionData
	account string // registering: whose
	name    string // registering: of the passkey
}

// person is an account as the library wants it.
type person struct {
	account cluster.Account
	cluster string
}

// WebAuthnID is the user handle: the same on all nodes, and telling nobody who holds the device a name.
func (p person) WebAuthnID() []byte {
	sum := sha256.Sum256([]byte("keyferry passkey\x00" + p.cluster + "\x00" + p.account.Name))
	return sum[:]
}

func (p person) WebAuthnName() string        { return p.account.Name }
func (p person) WebAuthnDisplayName() string { return p.account.Name }

func (p person) WebAuthnCredentials() []webauthn.Credential {
	list := make([]webauthn.Credential, len(p.account.Passkeys))
	for i, k := range p.account.Passkeys {
		list[i] = webauthn.Credential{ID: k.ID, PublicKey: k.Key, Flags: webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: k.Synced},
			Authenticator: webauthn.Authenticator{SignCount: k.Count}}
	}
	return list
}

func (p *Passkeys) person(name string) person {
	s := p.m.State()
	return person{s.Accounts[name], s.Cluster.ID}
}

// BeginLogin makes a challenge for whoever has a passkey.
func (p *Passkeys) BeginLogin() (*Ceremony, error) {
	if p.why != nil {
		return nil, p.why
	}
	options, session, err := p.web.BeginDiscoverableLogin(webauthn.WithUserVerification(protocol.VerificationRequired))
	if err != nil {
		return nil, fmt.Errorf("passkey: %w", err)
	}
	b, err := json.Marshal(options.Response)
	return &Ceremony{Options: string(b), session: *session}, err
}

// errPasskey tells a stranger nothing about which of the checks failed.
var errPasskey = refuse("this passkey does not open an account here; if you removed it from your account, remove it from your device too")

// FinishLogin checks what the authenticator answered to a challenge.
func (p *Passkeys) FinishLogin(ctx context.Context, c *Ceremony, answer []byte, from string) (*Login, error) {
	if p.why != nil {
		return nil, p.why
	}
	if c == nil || c.account != "" {
		return nil, ErrTooLate
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, refuse("the browser's answer cannot be read: try again")
	}
	account := p.m.State().Accounts[p.m.State().PasskeyOwner(parsed.RawID)]
	if account.Name == "" || account.Disabled {
		return nil, errPasskey
	}
	find := func(rawID, handle []byte) (webauthn.User, error) { return p.person(account.Name), nil }
	_, credential, err := p.web.ValidatePasskeyLogin(find, c.session, parsed)
	if err == nil {
		err = p.useCount(ctx, account, credential.ID, parsed.Response.AuthenticatorData.Counter)
	}
	if err != nil {
		p.m.log.Warn("a passkey was refused", "account", account.Name, "error", detailOf(err))
		p.m.acts.note(ctx, p.m.self(), cluster.NoteLoginRefused, "account/"+account.Name, cluster.Refused, "passkey from "+from+": "+err.Error())
		if errors.Is(err, cluster.Denied) {
			return nil, refusal{err}
		}
		return nil, errPasskey
	}
	l := newLogin(account, "passkey", from)
	return l, p.m.Accounts.opened(ctx, l)
}

// useCount has the cluster remember the signature counter, and refuses one that went back.
func (p *Passkeys) useCount(ctx context.Context, account cluster.Account, id []byte, count uint32) error {
	for _, k := range account.Passkeys {
		if string(k.ID) != string(id) {
			continue
		}
		if err := k.CheckCount(count); err != nil {
			return err
		}
	}
	if !p.m.Cluster.Status().Quorum {
		return nil
	}
	_, err := p.m.Cluster.Apply(ctx, &cluster.ReportFactor{Name: account.Name, Factor: cluster.FactorPasskey, ID: id, Counter: uint64(count)}, p.m.self())
	if errors.Is(err, cluster.NoLeader) || errors.Is(err, cluster.Uncertain) || errors.Is(err, cluster.Behind) {
		return nil // as without a quorum
	}
	return err
}

// detailOf is what the library says of an error, for the log.
func detailOf(err error) string {
	if p, ok := errors.AsType[*protocol.Error](err); ok {
		return p.Details + " " + p.DevInfo
	}
	return err.Error()
}

// BeginRegister makes a challenge for a new passkey of the account that is logged in. It needs the
// password: a passkey stays when the session is over.
func (p *Passkeys) BeginRegister(ctx context.Context, actor cluster.Actor, password, name string) (*Ceremony, error) {
	if p.why != nil {
		return nil, p.why
	}
	if err := cluster.CheckFactorName(name); err != nil {
		return nil, refusal{err}
	}
	account, err := p.m.Accounts.confirm(ctx, actor, password)
	if err != nil {
		return nil, err
	}
	who := p.person(account.Name)
	options, session, err := p.web.BeginRegistration(who, webauthn.WithExclusions(webauthn.Credentials(who.WebAuthnCredentials()).CredentialDescriptors()))
	if err != nil {
		return nil, fmt.Errorf("passkey: %w", err)
	}
	b, err := json.Marshal(options.Response)
	return &Ceremony{Options: string(b), session: *session, account: account.Name, name: name}, err
}

// FinishRegister adds the passkey that the authenticator made to the account that is logged in.
func (p *Passkeys) FinishRegister(ctx context.Context, actor cluster.Actor, c *Ceremony, answer []byte) error {
	if p.why != nil {
		return p.why
	}
	if c == nil || c.account != actor.Name || time.Now().After(c.session.Expires) {
		return refuse("adding the passkey took too long, or was begun in another window: begin again")
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return refuse("the browser's answer cannot be read: try again")
	}
	made, err := p.web.CreateCredential(p.person(actor.Name), c.session, parsed)
	if err != nil {
		p.m.log.Warn("a new passkey was refused", "account", actor.Name, "error", detailOf(err))
		return refuse("the passkey is refused: it is not for this console, or your device did not ask for your finger or PIN")
	}
	key := cluster.Passkey{ID: made.ID, Key: made.PublicKey, Count: made.Authenticator.SignCount, Synced: made.Flags.BackupEligible, Name: c.name}
	_, err = p.m.Cluster.Apply(ctx, &cluster.AddPasskey{Name: actor.Name, Passkey: key}, actor)
	return err
}
