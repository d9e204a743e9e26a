package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A Login is somebody who is logging in, or has: which account, how, and what the account was at that
// moment. A session that begins with it ends when any of that changes.
type Login struct {
	Account string
	Method  string // for people: "password", "passkey"
	Hash    string // of the password
	Epoch   uint64 // how often all sessions were ended

	from   string // where the person is
	trying sync.Mutex
	secret []byte // of the one-time password that is needed yet
	until  time.Time
}

// NeedsCode tells whether a one-time password is needed yet, for Accounts.Code.
func (l *Login) NeedsCode() bool {
	l.trying.Lock()
	defer l.trying.Unlock()
	return l.secret != nil
}

// Actor is who acts once the login is complete.
func (l *Login) Actor() cluster.Actor {
	return cluster.Actor{Kind: cluster.ByAccount, Name: l.Account}
}

func newLogin(account cluster.Account, method, from string) *Login {
	return &Login{Account: account.Name, Method: method, Hash: account.Hash, Epoch: account.SessionEpoch, from: from}
}

// LoginTime is how long somebody may take from the first step of a login to the last.
const LoginTime = 5 * time.Minute

// Errors of logging in. They tell a stranger nothing about which accounts there are.
var (
	ErrLogin   = errors.New("the account name or the password is wrong")
	ErrCode    = errors.New("the one-time password is wrong, or was used already")
	ErrTooLate = errors.New("the log in took too long or was begun in another window: begin again")
)

// WaitError says that an account takes no password for a while.
type WaitError struct{ Until time.Time }

func (w *WaitError) Error() string {
	return fmt.Sprintf("too many wrong passwords: this account takes none before %s", w.Until.UTC().Format("15:04:05 UTC"))
}

// Login checks a password. from says where the person is, for the audit trail. When the account has
// one-time passwords, the Login needs one yet.
func (a *Accounts) Login(ctx context.Context, name, password, from string) (*Login, error) {
	account, err := a.prove(ctx, name, password, from)
	if err != nil {
		return nil, err
	}
	l := newLogin(account, "password", from)
	if len(account.TOTP.Sealed) == 0 {
		a.forgive(name)
		return l, a.opened(ctx, l)
	}
	// The wrong tries stay counted: whoever knows the password must not get free tries of the code.
	if l.secret, err = a.unseal(ctx, account, password); err != nil {
		return nil, err
	}
	l.until = time.Now().Add(LoginTime)
	return l, nil
}

// prove looks at a password, and counts a wrong one. A disabled account is like one that is not there.
func (a *Accounts) prove(ctx context.Context, name, password, from string) (cluster.Account, error) {
	none := cluster.Account{}
	if len(name) > 64 || len(password) > maxPassword {
		return none, ErrLogin
	}
	if until, ok := a.mayTry(name); !ok {
		return none, &WaitError{until}
	}
	account, known := a.m.State().Accounts[name]
	known = known && !account.Disabled
	encoded := account.Hash
	if !known { // takes as long as a wrong password
		encoded = a.cost.unknown()
	}
	right, err := a.verify(ctx, encoded, password)
	if err != nil {
		return none, err
	}
	if !right || !known {
		a.failed(name, from)
		return none, ErrLogin
	}
	return account, nil
}

// Code completes a login with a one-time password.
func (a *Accounts) Code(ctx context.Context, l *Login, code string) error {
	l.trying.Lock() // one browser may send two codes at once
	defer l.trying.Unlock()
	if l.secret == nil || time.Now().After(l.until) {
		clear(l.secret)
		return ErrTooLate
	}
	if until, ok := a.mayTry(l.Account); !ok {
		return &WaitError{until}
	}
	account := a.m.State().Accounts[l.Account]
	if account.Disabled || account.Hash != l.Hash || account.SessionEpoch != l.Epoch {
		return ErrTooLate
	}
	step, right := findStep(l.secret, code, time.Now())
	if !right {
		a.failed(l.Account, l.from)
		return ErrCode
	}
	if err := a.useStep(ctx, l.Account, step); err != nil {
		a.failed(l.Account, l.from)
		return err
	}
	clear(l.secret)
	l.secret, l.Method = nil, "password and one-time password"
	a.forgive(l.Account)
	return a.opened(ctx, l)
}

// opened records a complete login.
func (a *Accounts) opened(ctx context.Context, l *Login) error {
	return a.m.acts.note(ctx, l.Actor(), cluster.NoteLogin, "account/"+l.Account, cluster.Done, "by "+l.Method+" from "+l.from)
}

// Left records that a person ended their session.
func (a *Accounts) Left(ctx context.Context, actor cluster.Actor, from string) error {
	return a.m.acts.note(ctx, actor, cluster.NoteLogout, "account/"+actor.Name, cluster.Done, "from "+from)
}

// Confirm wants the password of the account that is logged in again, before what would let whoever sits
// at a screen that was left open come back later.
func (a *Accounts) Confirm(ctx context.Context, actor cluster.Actor, password string) error {
	_, err := a.confirm(ctx, actor, password)
	return err
}

func (a *Accounts) confirm(ctx context.Context, actor cluster.Actor, password string) (cluster.Account, error) {
	account, err := a.prove(ctx, actor.Name, password, "a session")
	if errors.Is(err, ErrLogin) {
		return account, refuse("the present password is wrong")
	}
	if err == nil {
		a.forgive(actor.Name)
	}
	return account, err
}

// Prove checks the password of an account where nobody logs in: for one act at a node's console. Where the
// account has one-time passwords the password alone proves nothing, and is not looked at.
func (a *Accounts) Prove(ctx context.Context, name, password, from string) error {
	if len(a.m.State().Accounts[name].TOTP.Sealed) > 0 {
		return refuse("the account %q logs in with one-time passwords too: use WebConf, where it can be asked for one", name)
	}
	_, err := a.prove(ctx, name, password, from)
	if err == nil {
		a.forgive(name)
	}
	return err
}

// factorKinds are the kinds of ways to log in that an account has.
func factorKinds(f cluster.Factors) []string {
	kinds := []string{}
	if len(f.TOTP.Sealed) > 0 {
		kinds = append(kinds, cluster.FactorTOTP)
	}
	if len(f.Passkeys) > 0 {
		kinds = append(kinds, cluster.FactorPasskey)
	}
	if len(f.Certificates) > 0 {
		kinds = append(kinds, cluster.FactorCertificate)
	}
	return kinds
}
