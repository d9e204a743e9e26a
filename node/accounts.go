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
	cost  hashCost
}

// A hashCost is what argon2id is asked to spend (RFC 9106).
type hashCost struct {
	passes, memory uint32 // memory in KiB
	threads        uint8
}

// 64 MiB and three passes take about 0.15 s of one core. Two at a time bound the memory that a crowd at the
// login page can take.
var (
	passwordCost = hashCost{passes: 3, memory: 64 << 10, threads: 1}
	leastCost    = hashCost{passes: 1, memory: 8, threads: 1}
)

const (
	hashSize   = 32
	hashSalt   = 16
	hashAtOnce = 2

	minPassword = 12  // characters
	maxPassword = 256 // bytes
)

func newAccounts(m *Member) *Accounts {
	a := &Accounts{m: m, hashing: make(chan struct{}, hashAtOnce), fails: map[string]failures{}, used: map[string]uint64{}, cost: passwordCost}
	if m != nil && m.node.cfg.WeakHashes {
		a.cost = leastCost
	}
	return a
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
	if err := a.m.node.checkStartCode(single, code); err != nil {
		return refusal{err}
	}
	hash, err := a.hash(ctx, password)
	if err != nil {
		return err
	}
	actor := cluster.Actor{Kind: cluster.ByConsole, Name: firstStart}
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

// unknown has the cost of a real hash and no password.
func (c hashCost) unknown() string { return c.encode(make([]byte, hashSalt), make([]byte, hashSize)) }

func (c hashCost) encode(salt, sum []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.passes, c.threads, b64.EncodeToString(salt), b64.EncodeToString(sum))
}

// readCost holds the parameters of a stored hash to what a node is ready to spend.
func readCost(memory, passes, threads int) (hashCost, error) {
	if memory < int(leastCost.memory) || memory > 4*int(passwordCost.memory) || passes < 1 || passes > 16 || threads < 1 || threads > 8 {
		return hashCost{}, errors.New("unknown parameters of argon2id")
	}
	return hashCost{uint32(passes), uint32(memory), uint8(threads)}, nil
}

// hash makes the stored form of a password.
func (a *Accounts) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, hashSalt)
	rand.Read(salt)
	sum, err := a.argon2(ctx, password, salt, a.cost, hashSize)
	return a.cost.encode(salt, sum), err
}

// verify compares a password with its stored form.
func (a *Accounts) verify(ctx context.Context, encoded, password string) (bool, error) {
	var v, memory, passes, threads int
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("a stored password has an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2]+","+parts[3], "v=%d,m=%d,t=%d,p=%d", &v, &memory, &passes, &threads); err != nil || v != argon2.Version {
		return false, errors.New("a stored password has unknown parameters")
	}
	cost, err := readCost(memory, passes, threads)
	if err != nil {
		return false, fmt.Errorf("a stored password: %w", err)
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) < 16 || len(want) > 64 {
		return false, errors.New("a stored password has an unknown form")
	}
	got, err := a.argon2(ctx, password, salt, cost, uint32(len(want)))
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1, err
}

// argon2 waits for its turn, and gives the memory back when nobody else waits.
func (a *Accounts) argon2(ctx context.Context, password string, salt []byte, cost hashCost, size uint32) ([]byte, error) {
	select {
	case a.hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	sum := argon2.IDKey([]byte(password), salt, cost.passes, cost.memory, cost.threads, size)
	<-a.hashing
	if len(a.hashing) == 0 {
		debug.FreeOSMemory()
	}
	return sum, nil
}
