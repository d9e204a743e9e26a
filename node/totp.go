package node

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"image/color"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"
	"github.com/keyferry/keyferry/cluster"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// One-time passwords (TOTP, RFC 6238) with what authenticator programs take without asking: SHA-1, six
// digits, thirty seconds. A code from one step before or after counts, for clocks that differ.
const (
	totpSecret = 20 // bytes: as long as the hash (RFC 4226, section 4, R6)
	totpPeriod = 30 // seconds
	totpDigits = otp.DigitsSix
	totpSkew   = 1 // steps
)

// The shared secret is in the replicated state, because people log in on every node; so it is sealed, by a
// key that argon2id makes from the password with a salt of its own. A node can open it only while somebody
// logs in there, and a copy of the state is as good as the password is long.

// sealer makes the cipher that the password of an account stands for.
func (a *Accounts) sealer(ctx context.Context, password string, salt []byte) (cipher.AEAD, error) {
	key, err := a.argon2(ctx, password, salt, a.cost, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// sealLabel binds a sealed secret to its account.
func sealLabel(account string) []byte { return []byte("keyferry totp\x00" + account) }

func (a *Accounts) seal(ctx context.Context, account, password string, secret []byte) (salt, sealed []byte, err error) {
	salt = make([]byte, hashSalt)
	rand.Read(salt)
	aead, err := a.sealer(ctx, password, salt)
	if err != nil {
		return nil, nil, err
	}
	return salt, aead.Seal(nil, nil, secret, sealLabel(account)), nil
}

func (a *Accounts) unseal(ctx context.Context, account cluster.Account, password string) ([]byte, error) {
	aead, err := a.sealer(ctx, password, account.TOTP.Salt)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, nil, account.TOTP.Sealed, sealLabel(account.Name))
	if err != nil {
		return nil, errors.New("the sealed secret of the one-time passwords does not open with the account's password")
	}
	return secret, nil
}

// reseal seals the secret of an account under its next password; nil when it has none.
func (a *Accounts) reseal(ctx context.Context, account cluster.Account, old, next string) (*cluster.ResealedTOTP, error) {
	if len(account.TOTP.Sealed) == 0 {
		return nil, nil
	}
	secret, err := a.unseal(ctx, account, old)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	r := &cluster.ResealedTOTP{Before: account.TOTP.Salt}
	r.Salt, r.Sealed, err = a.seal(ctx, account.Name, next, secret)
	return r, err
}

// findStep finds the time step that a code belongs to.
func findStep(secret []byte, code string, now time.Time) (step uint64, ok bool) {
	code = strings.Join(strings.Fields(code), "")
	if len(code) != totpDigits.Length() {
		return 0, false
	}
	text := base32.StdEncoding.EncodeToString(secret)
	present := uint64(now.Unix()) / totpPeriod
	for s := present - totpSkew; s <= present+totpSkew; s++ {
		if right, err := hotp.ValidateCustom(code, s, text, hotp.ValidateOpts{Digits: totpDigits, Algorithm: otp.AlgorithmSHA1}); err == nil && right {
			step, ok = s, true
		}
	}
	return step, ok
}

// useStep makes sure that no one-time password is taken twice: by the replicated state where there is a
// quorum, and by this node's memory in any case.
func (a *Accounts) useStep(ctx context.Context, account string, step uint64) error {
	a.mu.Lock()
	seen := a.used[account]
	if step > seen {
		a.used[account] = step
	}
	a.mu.Unlock()
	if step <= seen || step <= a.m.State().Accounts[account].TOTP.LastStep {
		return ErrCode
	}
	if !a.m.Cluster.Status().Quorum {
		return nil
	}
	_, err := a.m.Cluster.Apply(ctx, &cluster.ReportFactor{Name: account, Factor: cluster.FactorTOTP, Counter: step}, a.m.self())
	switch {
	case errors.Is(err, cluster.Denied), errors.Is(err, cluster.NotFound):
		return ErrCode
	case errors.Is(err, cluster.NoLeader), errors.Is(err, cluster.Uncertain), errors.Is(err, cluster.Behind):
		return nil // as without a quorum
	}
	return err
}

// An Enrolment is a generator of one-time passwords that is not in use yet: its owner has to prove first
// that it makes the right ones.
type Enrolment struct {
	URI    string   // otpauth://, for authenticator programs
	Secret string   // the same as text, in groups of four
	Matrix [][]bool // the URI as a QR code: rows of modules, true is dark

	account, hash string
	salt, sealed  []byte
	secret        []byte
	until         time.Time
}

// BeginTOTP makes a generator for the account that is logged in. It needs the password, to seal the secret.
func (a *Accounts) BeginTOTP(ctx context.Context, actor cluster.Actor, password string) (*Enrolment, error) {
	account, err := a.confirm(ctx, actor, password)
	if err != nil {
		return nil, err
	}
	if len(account.TOTP.Sealed) > 0 {
		return nil, refuse("this account has one-time passwords already: remove them first")
	}
	e := &Enrolment{account: account.Name, hash: account.Hash, secret: make([]byte, totpSecret), until: time.Now().Add(2 * LoginTime)}
	rand.Read(e.secret)
	if e.salt, e.sealed, err = a.seal(ctx, account.Name, password, e.secret); err != nil {
		return nil, err
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: "Keyferry " + a.m.State().Cluster.Name, AccountName: account.Name,
		Secret: e.secret, Period: totpPeriod, Digits: totpDigits, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return nil, fmt.Errorf("one-time passwords: %w", err)
	}
	e.URI, e.Secret = key.URL(), grouped(key.Secret())
	e.Matrix, err = matrix(e.URI)
	return e, err
}

// FinishTOTP puts a generator into use after its first right code.
func (a *Accounts) FinishTOTP(ctx context.Context, actor cluster.Actor, e *Enrolment, code string) error {
	if e == nil || e.account != actor.Name || time.Now().After(e.until) || a.m.State().Accounts[actor.Name].Hash != e.hash {
		return refuse("setting up one-time passwords took too long: begin again")
	}
	step, right := findStep(e.secret, code, time.Now())
	if !right {
		return refuse("the one-time password is wrong; check that the clock of your device is right, and enter the code that it shows now")
	}
	_, err := a.m.Cluster.Apply(ctx, &cluster.SetTOTP{Name: actor.Name, Salt: e.salt, Sealed: e.sealed, Step: step}, actor)
	if err == nil {
		clear(e.secret)
	}
	return err
}

// RemoveFactor takes a factor from an account: one's own, or, by whoever manages accounts, another's.
func (a *Accounts) RemoveFactor(ctx context.Context, actor cluster.Actor, account, factor, id string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.RemoveFactor{Name: account, Factor: factor, ID: id}, actor)
	return err
}

// matrix draws a text as a QR code.
func matrix(text string) ([][]bool, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, fmt.Errorf("QR code: %w", err)
	}
	size := code.Bounds()
	rows := make([][]bool, size.Dy())
	for y := range rows {
		rows[y] = make([]bool, size.Dx())
		for x := range rows[y] {
			rows[y][x] = color.GrayModel.Convert(code.At(x, y)).(color.Gray).Y < 128
		}
	}
	return rows, nil
}

// grouped puts a space after each four characters, for people who type them.
func grouped(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}
