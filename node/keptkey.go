package node

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unicode/utf8"

	"github.com/keyferry/keyferry/cluster"
	"golang.org/x/crypto/argon2"
)

// keptFormat is the first field of node.key.sealed.
const keptFormat = "keyferry-node-key-1"

// A keptKey is the node key as it lies in node.key.sealed: under a passphrase, or under a TPM.
type keptKey struct {
	Format    string      `json:"format"`
	Protector string      `json:"protector"` // cluster.ByPassphrase or cluster.ByTPM
	Argon2    *argonTerms `json:"argon2id,omitempty"`
	Sealed    []byte      `json:"sealed,omitempty"` // AES-256-GCM under the key that argon2id makes of the passphrase
	TPM       *tpmBlob    `json:"tpm,omitempty"`
}

// argonTerms are the parameters of argon2id (RFC 9106).
type argonTerms struct {
	Salt    []byte `json:"salt"`
	Passes  uint32 `json:"passes"`
	Memory  uint32 `json:"memory"` // KiB
	Threads uint8  `json:"threads"`
}

// keyTerms are what RFC 9106, section 4, recommends where 2 GiB are too much: 64 MiB, three passes, four lanes.
// Tests that make many keys make them cheaper.
var keyTerms = argonTerms{Passes: 3, Memory: 64 << 10, Threads: 4}

const (
	keySalt = 16

	minPassphrase = 12      // characters
	maxPassphrase = 1 << 10 // bytes
	maxKept       = 16 << 10
)

// errPassphrase says that a passphrase does not open the node key.
var errPassphrase = errors.New("that is not the passphrase of the node key")

// CheckPassphrase holds a new passphrase to the rules.
func CheckPassphrase(passphrase []byte) error {
	switch {
	case !utf8.Valid(passphrase):
		return refuse("the passphrase is not valid UTF-8")
	case utf8.RuneCount(passphrase) < minPassphrase:
		return refuse("the passphrase has %d characters; it needs at least %d", utf8.RuneCount(passphrase), minPassphrase)
	case len(passphrase) > maxPassphrase:
		return refuse("the passphrase has %d bytes; at most %d are allowed", len(passphrase), maxPassphrase)
	case bytes.ContainsAny(passphrase, "\r\n\x00"):
		return refuse("the passphrase must be one line")
	}
	return nil
}

// readPassphrase reads a file with a passphrase, with or without the end of its line.
func readPassphrase(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("the file with the passphrase of the node key: %w", err)
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), nil
}

// readKept reads node.key.sealed.
func readKept(path string) (keptKey, error) {
	var k keptKey
	b, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	d := json.NewDecoder(bytes.NewReader(b[:min(len(b), maxKept)]))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil || k.Format != keptFormat {
		return k, fmt.Errorf("%s cannot be read: it was damaged, or written by another version; restore it from where it was kept", path)
	}
	switch a := k.Argon2; {
	case k.Protector == cluster.ByTPM && k.TPM != nil:
	case k.Protector == cluster.ByPassphrase && a != nil && len(a.Salt) == keySalt && a.Passes >= 1 && a.Passes <= 16 && a.Memory >= 8 && a.Memory <= 1<<20 && a.Threads >= 1 && a.Threads <= 16:
	default:
		return k, fmt.Errorf("%s says that the node key is protected by %q, in a form that this version does not know", path, k.Protector)
	}
	return k, nil
}

// keep protects a key.
func keep(cfg SealConfig, by string, key, passphrase []byte) (keptKey, error) {
	k := keptKey{Format: keptFormat, Protector: by}
	if by == cluster.ByTPM {
		blob, err := tpmSeal(cfg.TPM, key)
		k.TPM = &blob
		return k, err
	}
	terms := keyTerms
	terms.Salt = make([]byte, keySalt)
	rand.Read(terms.Salt)
	k.Argon2 = &terms
	aead, err := k.Argon2.cipher(passphrase)
	if err != nil {
		return k, err
	}
	k.Sealed = aead.Seal(nil, nil, key, []byte(keptFormat))
	return k, nil
}

// open gives the key back.
func (k keptKey) open(cfg SealConfig, passphrase []byte) ([]byte, error) {
	if k.Protector == cluster.ByTPM {
		return tpmOpen(cfg.TPM, *k.TPM)
	}
	if len(passphrase) > maxPassphrase {
		return nil, errPassphrase
	}
	aead, err := k.Argon2.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	key, err := aead.Open(nil, nil, k.Sealed, []byte(keptFormat))
	if err != nil {
		return nil, errPassphrase
	}
	return key, nil
}

func (a *argonTerms) cipher(passphrase []byte) (cipher.AEAD, error) {
	key := argon2.IDKey(passphrase, a.Salt, a.Passes, a.Memory, a.Threads, 32)
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
