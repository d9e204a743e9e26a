package node

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/keyferry/keyferry/cluster"
)

// A sealer keeps what a node must be able to read again by itself: codes of generated slots, software
// keys. Seal binds the plaintext to a name, so that one sealed value cannot be put in another's place.
type sealer interface {
	Seal(name string, plain []byte) ([]byte, error)
	Open(name string, sealed []byte) ([]byte, error)
	// Where says in words what protects the values, for the people who decide on modes.
	Where() Sealing
}

// SealConfig says by what the node key can be protected here.
type SealConfig struct {
	PassphraseFile string // a file with the passphrase, such as a systemd credential; none: somebody enters it
	TPM            string // device (/dev/tpmrm0) or Unix socket of a TPM 2.0; none: there is no TPM to use
}

// Sealing says what protects the codes that a node keeps.
type Sealing struct {
	Protector string `json:"protector"`        // one of the cluster's protectors
	Where     string `json:"where"`            // "a key in the file …"
	Risk      string `json:"risk"`             // what that means when the machine is stolen, or restarts
	Sealed    string `json:"sealed,omitempty"` // why the node key is not open; empty when it is
}

func (s Sealing) String() string { return s.Where }

// ErrSealed says that the node waits for its node key: it can do nothing before.
var ErrSealed = errors.New("this node is sealed: it waits for the key that opens its stored codes; run \"keyferry unseal\" on it")

// A nodeKey seals with AES-256-GCM under the node key. How that is kept is its protector's matter.
type nodeKey struct {
	dir string
	cfg SealConfig

	mu    sync.Mutex
	key   []byte // nil while the node is sealed
	aead  cipher.AEAD
	by    string // protector
	asked bool   // somebody entered the passphrase, or would have to
	why   error  // the node is sealed
}

// Names in the data directory. node.key is the key itself and counts wherever it exists; otherwise
// node.key.sealed does. node.key.old is a node.key that is just being wiped.
const (
	keyFile    = "node.key"
	sealedFile = "node.key.sealed"
	wipedFile  = "node.key.old"
)

// openNodeKey finds the node key, or makes the first one. A key that does not open leaves the node sealed.
func openNodeKey(dir string, cfg SealConfig) (*nodeKey, error) {
	k := &nodeKey{dir: dir, cfg: cfg}
	if err := k.sweep(); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	key, err := os.ReadFile(k.path(keyFile))
	switch {
	case err == nil:
		return k, k.use(key, cluster.ByFile)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("node key: %w", err)
	}
	kept, err := readKept(k.path(sealedFile))
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key)
		if err := writeFile(k.path(keyFile), key); err != nil {
			return nil, fmt.Errorf("node key: %w", err)
		}
		return k, k.use(key, cluster.ByFile)
	}
	if err != nil {
		return nil, err
	}
	k.by, k.asked = kept.Protector, true
	k.why = k.openAlone(kept)
	return k, nil
}

// sweep wipes what a switch of protectors that was cut off may have left: a key being written, and the plain
// key that another form has replaced, which was proved before.
func (k *nodeKey) sweep() error {
	left, err := filepath.Glob(k.path(tempPattern))
	if err != nil {
		return err
	}
	if _, err := readKept(k.path(sealedFile)); err == nil {
		left = append(left, k.path(wipedFile))
	}
	for _, path := range left {
		if err := wipeFile(path); err != nil {
			return err
		}
	}
	return nil
}

// openAlone opens the node key with what the machine has: its TPM, or a file with the passphrase.
func (k *nodeKey) openAlone(kept keptKey) error {
	if kept.Protector == cluster.ByTPM {
		return k.openKept(kept, nil)
	}
	if k.cfg.PassphraseFile == "" {
		return errors.New("somebody has to enter the passphrase of the node key")
	}
	passphrase, err := readPassphrase(k.cfg.PassphraseFile)
	if err != nil {
		return err
	}
	defer clear(passphrase)
	if err := k.openKept(kept, passphrase); err != nil {
		return fmt.Errorf("%s: %w", k.cfg.PassphraseFile, err)
	}
	k.asked = false
	return nil
}

// openKept opens the node key and begins to use it.
func (k *nodeKey) openKept(kept keptKey, passphrase []byte) error {
	key, err := kept.open(k.cfg, passphrase)
	if err != nil {
		return err
	}
	if err := k.use(key, kept.Protector); err != nil {
		return err
	}
	k.why = nil
	return nil
}

// use takes a key over.
func (k *nodeKey) use(key []byte, by string) error {
	if len(key) != 32 {
		return fmt.Errorf("node key %s has %d bytes, not 32: it was damaged; restore it from where it was kept", k.path(keyFile), len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	// NewGCMWithRandomNonce also runs where only FIPS 140 modes are allowed.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	k.key, k.aead, k.by = key, aead, by
	return nil
}

func (k *nodeKey) path(name string) string { return filepath.Join(k.dir, name) }

// gcm is the cipher, once the key is open.
func (k *nodeKey) gcm() (cipher.AEAD, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.aead == nil {
		return nil, ErrSealed
	}
	return k.aead, nil
}

func (k *nodeKey) Seal(name string, plain []byte) ([]byte, error) {
	aead, err := k.gcm()
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(name)), nil
}

func (k *nodeKey) Open(name string, sealed []byte) ([]byte, error) {
	aead, err := k.gcm()
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("what is stored as %s does not open with the node key in %s: was the key or the store replaced?", name, k.dir)
	}
	return plain, nil
}

// protector is what the cluster is told.
func (k *nodeKey) protector() string { return k.Where().Protector }

func (k *nodeKey) Where() Sealing {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := Sealing{Protector: k.by}
	switch {
	case k.by == cluster.ByTPM:
		s.Where = "a node key that the TPM of this machine seals"
		s.Risk = "Whoever has only the disk or a copy of it cannot open the slots. Whoever has the whole machine, or is root on it, may."
	case k.by == cluster.ByPassphrase && !k.asked:
		s.Protector = cluster.ByCredential
		s.Where = "a node key that opens with the passphrase in the file " + k.cfg.PassphraseFile
		s.Risk = "It is as safe as that file: whoever has both, or is root on the machine, may be able to open the slots."
	case k.by == cluster.ByPassphrase:
		s.Where = "a node key that opens with a passphrase, which somebody enters after each start"
		s.Risk = "Whoever steals the machine while it is off cannot open the slots. But after each start no slot of the node opens until somebody enters the passphrase."
	default:
		s.Where = "a key in the file " + k.path(keyFile)
		s.Risk = "Whoever gets hold of this machine or its disk may be able to open the slots: the key lies beside the codes. A passphrase or a TPM can protect it better."
	}
	if k.why != nil {
		s.Sealed = k.why.Error()
	}
	return s
}

// tempPattern names files that are being written.
const tempPattern = ".new-*"

// writeFile writes a file whole and durably, or not at all.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), tempPattern) // created with mode 0600
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

// wipeFile overwrites a file once and removes it. File systems and disks may keep older copies of its
// blocks all the same.
func wipeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	noise := make([]byte, 32)
	rand.Read(noise)
	if _, err = f.Write(noise); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Remove(path)
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
