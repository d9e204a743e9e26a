package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/keyferry/keyferry/cluster"
	"golang.org/x/crypto/argon2"
)

// Accounts are the people who log in.
type Accounts struct {
	m *Member

	hashing chan struct{} // bounds the memory that logins take

	mu    sync.Mutex
	fails map[string]failures // by account
}

// failures are the wrong passwords in a row.
type failures struct {
	count int
	until time.Time // no password is looked at before
}

// Parameters of argon2id (RFC 9106): 64 MiB and three passes take about 0.15 s of one core. Two at a time
// bound the memory that a crowd at the login page can take.
const (
	hashTime    = 3
	hashMemory  = 64 << 10 // KiB
	hashThreads = 1
	hashSize    = 32
	hashSalt    = 16
	hashAtOnce  = 2

	minPassword = 12  // characters
	maxPassword = 256 // bytes

	freeTries = 5 // wrong passwords in a row before an account has to wait
	firstWait = 30 * time.Second
	mostWait  = 15 * time.Minute
)

func newAccounts(m *Member) *Accounts {
	return &Accounts{m: m, hashing: make(chan struct{}, hashAtOnce), fails: map[string]failures{}}
}

// Errors of logging in. They tell a stranger nothing about which accounts there are.
var ErrLogin = errors.New("the account name or the password is wrong")

// WaitError says that an account takes no password for a while.
type WaitError struct{ Until time.Time }

func (w *WaitError) Error() string {
	return fmt.Sprintf("too many wrong passwords: this account takes none before %s", w.Until.UTC().Format("15:04:05 UTC"))
}

// Any tells whether there is an account at all; before that, the first administrator can be made.
func (a *Accounts) Any() bool { return len(a.m.State().Accounts) > 0 }

// CreateFirst makes the first administrator, for whoever has the one-time code from the node's console.
func (a *Accounts) CreateFirst(ctx context.Context, code, name, password string) error {
	if a.Any() {
		return refuse("there is an administrator already")
	}
	if err := checkPassword(password); err != nil { // before a try is counted
		return err
	}
	if err := cluster.CheckAccountName(name); err != nil {
		return refusal{err}
	}
	if err := a.checkFirstCode(code); err != nil {
		return refusal{err}
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	actor := cluster.Actor{Kind: cluster.ByConsole, Name: "first start"}
	if _, err := a.m.Cluster.Apply(ctx, &cluster.PutAccount{Name: name, Hash: hash, Roles: firstRoles(), New: true}, actor); err != nil {
		return err
	}
	return a.m.node.store.drop(bucketStart, single)
}

// firstRoles are what the first account may do: everything, until it has given roles to others.
func firstRoles() []cluster.RoleGrant {
	return []cluster.RoleGrant{{Role: cluster.SecurityOfficer}, {Role: cluster.CryptoOfficer}}
}

// Login checks a password and returns the actor that the account is.
func (a *Accounts) Login(ctx context.Context, name, password string) (cluster.Actor, error) {
	none := cluster.Actor{}
	if len(name) > 64 || len(password) > maxPassword {
		return none, ErrLogin
	}
	if until, ok := a.mayTry(name); !ok {
		return none, &WaitError{until}
	}
	account, known := a.m.State().Accounts[name]
	encoded := account.Hash
	if !known { // takes as long as a wrong password
		encoded = unknownHash
	}
	right, err := a.verify(ctx, encoded, password)
	if err != nil {
		return none, err
	}
	if !right || !known || account.Disabled {
		a.failed(name)
		return none, ErrLogin
	}
	a.mu.Lock()
	delete(a.fails, name)
	a.mu.Unlock()
	return cluster.Actor{Kind: cluster.ByAccount, Name: name}, nil
}

// ChangePassword sets a new password for the account that is logged in.
func (a *Accounts) ChangePassword(ctx context.Context, actor cluster.Actor, old, password string) error {
	if _, err := a.Login(ctx, actor.Name, old); err != nil {
		return refuse("the present password is wrong")
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	if password == old { // a temporary password would stay known to whoever set it
		return refuse("the new password is the same as the present one")
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	_, err = a.m.Cluster.Apply(ctx, &cluster.SetPassword{Hash: hash}, actor)
	return err
}

// mayTry counts accounts that there are and accounts that there are not alike. The table of failures is
// bounded: when strangers fill it, the entries that wait longest are not the ones that go.
func (a *Accounts) mayTry(name string) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.fails[name]
	return f.until, !time.Now().Before(f.until)
}

const mostFailures = 10_000

func (a *Accounts) failed(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.fails[name]
	f.count++
	if over := f.count - freeTries; over >= 0 {
		f.until = time.Now().Add(min(firstWait<<min(over, 10), mostWait))
	}
	if len(a.fails) >= mostFailures {
		now := time.Now()
		for n, old := range a.fails {
			if old.until.Before(now) && n != name {
				delete(a.fails, n)
			}
		}
	}
	if len(a.fails) < mostFailures || f.count > 1 {
		a.fails[name] = f
	}
}

func checkPassword(password string) error {
	if !utf8.ValidString(password) {
		return refuse("the password is not valid UTF-8")
	}
	if n := utf8.RuneCountInString(password); n < minPassword {
		return refuse("the password has %d characters; it needs at least %d", n, minPassword)
	}
	if len(password) > maxPassword {
		return refuse("the password has %d bytes; at most %d are allowed", len(password), maxPassword)
	}
	return nil
}

// unknownHash has the cost of a real one and no password.
var unknownHash = encodeHash(make([]byte, hashSalt), make([]byte, hashSize))

func encodeHash(salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, hashMemory, hashTime, hashThreads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// hash makes the stored form of a password.
func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, hashSalt)
	rand.Read(salt)
	sum, err := a.argon2(ctx, password, salt, hashTime, hashMemory, hashThreads, hashSize)
	return encodeHash(salt, sum), err
}

// verify compares a password with its stored form.
func (a *Accounts) verify(ctx context.Context, encoded, password string) (bool, error) {
	var v, memory, passes, threads int
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("a stored password has an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2]+","+parts[3], "v=%d,m=%d,t=%d,p=%d", &v, &memory, &passes, &threads); err != nil ||
		v != argon2.Version || memory < 8 || memory > 4*hashMemory || passes < 1 || passes > 16 || threads < 1 || threads > 8 {
		return false, errors.New("a stored password has unknown parameters")
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) < 16 || len(want) > 64 {
		return false, errors.New("a stored password has an unknown form")
	}
	got, err := a.argon2(ctx, password, salt, uint32(passes), uint32(memory), uint8(threads), uint32(len(want)))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

// argon2 waits for its turn, and gives the memory back when nobody else waits.
func (a *Accounts) argon2(ctx context.Context, password string, salt []byte, passes, memory uint32, threads uint8, size uint32) ([]byte, error) {
	select {
	case a.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	sum := argon2.IDKey([]byte(password), salt, passes, memory, threads, size)
	<-a.hashing
	if len(a.hashing) == 0 {
		debug.FreeOSMemory()
	}
	return sum, nil
}
