package node

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A sealer keeps what a node must be able to read again by itself: codes of generated slots, software
// keys. Seal binds the plaintext to a name, so that one sealed value cannot be put in another's place.
type sealer interface {
	Seal(name string, plain []byte) ([]byte, error)
	Open(name string, sealed []byte) ([]byte, error)
	// Where says in words what protects the values, for the people who decide on modes.
	Where() string
}

// fileSealer seals with AES-256-GCM under a key in a file. Whoever can read both file and store has
// the values: it protects copies of the store, not a stolen machine.
type fileSealer struct {
	aead cipher.AEAD
	path string
}

func newFileSealer(dir string) (*fileSealer, error) {
	path := filepath.Join(dir, "node.key")
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key)
		err = writeFile(path, key)
	}
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if len(key) != 32 {
		return nil, fmt.Errorf("node key %s has %d bytes, not 32: it was damaged; restore it from where it was kept", path, len(key))
	}
	block, err := aes.NewCipher(key)
	clear(key)
	if err != nil {
		return nil, err
	}
	// NewGCMWithRandomNonce also runs where only FIPS 140 modes are allowed.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &fileSealer{aead, path}, nil
}

func (f *fileSealer) Seal(name string, plain []byte) ([]byte, error) {
	return f.aead.Seal(nil, nil, plain, []byte(name)), nil
}

func (f *fileSealer) Open(name string, sealed []byte) ([]byte, error) {
	plain, err := f.aead.Open(nil, nil, sealed, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("what is stored as %s does not open with the node key %s: was the key or the store replaced?", name, f.path)
	}
	return plain, nil
}

func (f *fileSealer) Where() string { return "a key in the file " + f.path }

// writeFile writes a file whole and durably, or not at all.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // created with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
