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
	used  map[string]uint64   // by account: the time step of the last one-time password taken here
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
)

func newAccounts(m *Member) *Accounts {
	return &Accounts{m: m, hashing: make(chan struct{}, hashAtOnce), fails: map[string]failures{}, used: map[string]uint64{}}
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

// ChangePassword sets a new password for the account that is logged in.
func (a *Accounts) ChangePassword(ctx context.Context, actor cluster.Actor, old, password string) error {
	account, err := a.confirm(ctx, actor, old)
	if err != nil {
		return err
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
	totp, err := a.reseal(ctx, account, old, password)
	if err != nil {
		return err
	}
	_, err = a.m.Cluster.Apply(ctx, &cluster.SetPassword{Hash: hash, TOTP: totp}, actor)
	return err
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
