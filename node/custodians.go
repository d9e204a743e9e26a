package node

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Custody is how codes are shared: people who hold shares, and nodes that collect them to open slots.
type Custody struct {
	m *Member
	collecting
	requests
}

func newCustody(m *Member) *Custody {
	c := &Custody{m: m, collecting: newCollecting(), requests: newRequests()}
	c.expired = func(k needKey) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		m.acts.note(ctx, m.self(), cluster.NoteShareExpired, "slot/"+k.slot, cluster.Failed,
			fmt.Sprintf("too few custodians came within %s to %s on node %s", shareLife, purposeWord(k.purpose), m.Name()))
	}
	return c
}

// errCustodian says that a custodian's key does not open.
var errCustodian = errors.New("the custodian passphrase is wrong")

// SetUp gives the acting account a custodian key, sealed under a passphrase. One that is there is given
// up, with the shares that it could open, when replace is set.
func (c *Custody) SetUp(ctx context.Context, actor cluster.Actor, passphrase []byte, replace bool) error {
	defer clear(passphrase)
	if err := c.person(actor); err != nil {
		return err
	}
	if err := CheckPassphrase(passphrase); err != nil {
		return err
	}
	if _, ok := c.m.State().Custodians[actor.Name]; ok && !replace {
		return refuse("%s has a custodian passphrase already; change it with the present one, or give it up together with the shares that it opens", actor.Name)
	}
	key, err := hpke.MLKEM1024P384().GenerateKey()
	if err != nil {
		return err
	}
	seed, err := key.Bytes()
	if err != nil {
		return err
	}
	defer clear(seed)
	id := cluster.NewID()
	sealed, err := c.sealKey(ctx, actor.Name, id, seed, passphrase)
	if err != nil {
		return err
	}
	_, err = c.m.Cluster.Apply(ctx, &cluster.PutCustodian{Account: actor.Name, Key: id, Public: key.PublicKey().Bytes(), Sealed: sealed}, actor)
	return err
}

// Change seals a custodian key under another passphrase: that of the actor, or of the account that somebody
// at a node's console says to be, which the old passphrase proves. A wrong old one is in the audit trail.
func (c *Custody) Change(ctx context.Context, actor cluster.Actor, account string, old, passphrase []byte) error {
	defer clear(old)
	defer clear(passphrase)
	if err := CheckPassphrase(passphrase); err != nil {
		return err
	}
	keys, custodian, err := c.open(ctx, actor, account, old)
	if err != nil {
		return err
	}
	defer clear(keys.seed)
	sealed, err := c.sealKey(ctx, custodian.Name, keys.key, keys.seed, passphrase)
	if err != nil {
		return err
	}
	_, err = c.m.Cluster.Apply(ctx, &cluster.PutCustodian{Account: custodian.Name, Key: keys.key, Sealed: sealed}, custodian)
	return err
}

// person refuses actors that are not accounts: a custodian is one person.
func (c *Custody) person(actor cluster.Actor) error {
	if actor.Kind != cluster.ByAccount {
		return refuse("a custodian is a person with an account: log in, or say which account with --as")
	}
	if _, ok := c.m.State().Accounts[actor.Name]; !ok {
		return refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no account %q", actor.Name)}}
	}
	return nil
}

// unlock opens the private half of an account's custodian key. Wrong passphrases are throttled like wrong
// passwords, in a count of their own.
func (c *Custody) unlock(ctx context.Context, account string, passphrase []byte) (id string, seed []byte, err error) {
	custodian, ok := c.m.State().Custodians[account]
	if !ok {
		return "", nil, refuse("%s has no custodian passphrase yet: set one on the page \"Your account\"", account)
	}
	if len(passphrase) == 0 || len(passphrase) > maxPassphrase {
		return "", nil, refusal{errCustodian}
	}
	if until, ok := c.m.Accounts.mayTry(custodianTries + account); !ok {
		return "", nil, &WaitError{until}
	}
	seed, err = c.openKey(ctx, account, custodian, passphrase)
	if errors.Is(err, errCustodian) {
		c.m.Accounts.count(custodianTries+account, "")
		return "", nil, refusal{err}
	}
	if err == nil {
		c.m.Accounts.forgive(custodianTries + account)
	}
	return custodian.Key, seed, err
}

// custodianTries keeps the count of wrong passphrases apart from that of passwords: it begins with a
// character that no account name has.
const custodianTries = "\x00custodian "

// sealKey seals a private key under a passphrase: argon2id with the parameters of passwords, and
// AES-256-GCM bound to the cluster, the account and the key.
func (c *Custody) sealKey(ctx context.Context, account, id string, seed, passphrase []byte) (string, error) {
	salt := make([]byte, hashSalt)
	rand.Read(salt)
	cost := c.m.Accounts.cost
	key, err := c.m.Accounts.argon2(ctx, string(passphrase), salt, cost, 32)
	if err != nil {
		return "", err
	}
	defer clear(key)
	aead, err := keyAEAD(key)
	if err != nil {
		return "", err
	}
	return cost.encode(salt, aead.Seal(nil, nil, seed, c.keyName(account, id))), nil
}

func (c *Custody) keyName(account, id string) []byte {
	return fmt.Appendf(nil, "keyferry custodian v1\ncluster %s, account %s, key %s", c.m.State().Cluster.ID, account, id)
}

func keyAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

var sealedKey = regexp.MustCompile(`^\$argon2id\$v=19\$m=([0-9]{1,9}),t=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$`)

// openKey is the way back from sealKey; errCustodian when it does not open.
func (c *Custody) openKey(ctx context.Context, account string, custodian cluster.Custodian, passphrase []byte) ([]byte, error) {
	parts := sealedKey.FindStringSubmatch(custodian.Sealed)
	if parts == nil {
		return nil, fmt.Errorf("the custodian key of %s is stored in an unknown form", account)
	}
	memory, _ := strconv.Atoi(parts[1])
	passes, _ := strconv.Atoi(parts[2])
	threads, _ := strconv.Atoi(parts[3])
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	box, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	cost, err := readCost(memory, passes, threads)
	if err1 != nil || err2 != nil || err != nil || len(salt) < 8 || len(salt) > 64 {
		return nil, fmt.Errorf("the custodian key of %s is stored with unknown parameters", account)
	}
	key, err := c.m.Accounts.argon2(ctx, string(passphrase), salt, cost, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := keyAEAD(key)
	if err != nil {
		return nil, err
	}
	seed, err := aead.Open(nil, nil, box, c.keyName(account, custodian.Key))
	if err != nil {
		return nil, errCustodian
	}
	return seed, nil
}

// openShare opens a share with the private half of its holder's key.
func (n splitName) openShare(account string, share cluster.Share, seed []byte) ([]byte, error) {
	key, err := hpke.MLKEM1024P384().NewPrivateKey(seed)
	if err != nil {
		return nil, err
	}
	return hpke.Open(key, hpke.HKDFSHA512(), hpke.AES256GCM(), n.shareInfo(account, share.Index), share.Sealed)
}
