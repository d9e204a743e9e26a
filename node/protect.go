package node

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Protect switches what protects this node's key: cluster.ByFile, ByPassphrase (which also gives it
// another passphrase) or ByTPM. The key stays the same, so nothing that is sealed is touched.
func (m *Member) Protect(ctx context.Context, actor cluster.Actor, by string, passphrase []byte) error {
	defer clear(passphrase)
	k := m.node.sealer
	now := k.Where()
	switch by {
	case cluster.ByPassphrase:
		if err := CheckPassphrase(passphrase); err != nil {
			return err
		}
		if err := k.checkFile(passphrase); err != nil {
			return err
		}
	case cluster.ByTPM, cluster.ByFile:
		if now.Protector == by {
			return refuse("the node key of %s is protected so already: %s", m.Name(), now.Where)
		}
	default:
		return refuse("a node key is protected by %q, %q or %q, not %q", cluster.ByFile, cluster.ByPassphrase, cluster.ByTPM, by)
	}
	err := m.acts.do(ctx, act{actor, cluster.MayManageCodes, "node.protect", "node/" + m.Name(), "from " + now.Protector + " to " + by}, func() error {
		return k.protect(by, passphrase, m.node.cfg.Fault)
	})
	if err == nil && !m.toldSelf(ctx, m.State().Nodes[m.Name()]) {
		m.log.Warn("the cluster does not know yet what protects the node key")
	}
	return err
}

// checkFile refuses a passphrase with which the node would not start by itself, where that is meant.
func (k *nodeKey) checkFile(passphrase []byte) error {
	if k.cfg.PassphraseFile == "" {
		return nil
	}
	filed, err := readPassphrase(k.cfg.PassphraseFile)
	if err != nil {
		return refusal{err}
	}
	defer clear(filed)
	if subtle.ConstantTimeCompare(filed, passphrase) != 1 {
		return refuse("the passphrase is not the one in %s, which the configuration names; the next start would wait for somebody", k.cfg.PassphraseFile)
	}
	return nil
}

// protect writes the key in its new form, proves that this opens, and only then lets go of the old one. At
// each moment one form counts, and that one opens.
func (k *nodeKey) protect(by string, passphrase []byte, fault func(string)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil {
		return refusal{ErrSealed}
	}
	if by == cluster.ByFile {
		if err := writeFile(k.path(keyFile), k.key); err != nil { // counts from here on
			return err
		}
		fault("protect: written")
		k.by, k.asked = by, false
		return removeFile(k.path(sealedFile), k.dir)
	}
	kept, err := keep(k.cfg, by, k.key, passphrase)
	if err != nil {
		return refusal{err}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	next := k.path(sealedFile + ".next")
	if err := writeFile(next, b); err != nil {
		return err
	}
	fault("protect: written")
	if err := k.prove(next, passphrase); err != nil {
		os.Remove(next)
		return fmt.Errorf("nothing was changed, because the node key would not open again: %w", err)
	}
	fault("protect: proved")
	if err := os.Rename(next, k.path(sealedFile)); err != nil {
		return err
	}
	fault("protect: renamed")
	if err := syncDir(k.dir); err != nil {
		return err
	}
	if err := os.Rename(k.path(keyFile), k.path(wipedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) { // counts until here
		return err
	}
	if err := syncDir(k.dir); err != nil {
		return err
	}
	k.by, k.asked = by, by == cluster.ByPassphrase && k.cfg.PassphraseFile == ""
	fault("protect: switched")
	return wipeFile(k.path(wipedFile))
}

// prove opens what was written, from the disk.
func (k *nodeKey) prove(path string, passphrase []byte) error {
	kept, err := readKept(path)
	if err != nil {
		return err
	}
	key, err := kept.open(k.cfg, passphrase)
	if err != nil {
		return err
	}
	defer clear(key)
	if !bytes.Equal(key, k.key) {
		return errors.New("it is another key")
	}
	return nil
}

func removeFile(path, dir string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(dir)
}

// mostUnsealWait is how long a node takes no passphrase after several wrong ones.
const mostUnsealWait = time.Minute

// An unsealing counts wrong passphrases.
type unsealing struct {
	wrong int
	until time.Time
}

// wait is how long no passphrase is taken after so many wrong ones: 1 s, 2 s, 4 s and so on.
func (u *unsealing) wait() time.Duration {
	return min(time.Duration(math.Exp2(float64(min(u.wrong, 10)-1))*float64(time.Second)), mostUnsealWait)
}

// MinPassphrase is the shortest passphrase of a node key, in characters.
const MinPassphrase = minPassphrase

// SealConfig is what the configuration names for protecting the node key.
func (n *Node) SealConfig() SealConfig { return n.cfg.Seal }

// Sealing tells what protects the node's key, and whether it is open.
func (n *Node) Sealing() Sealing { return n.sealer.Where() }

// Unseal opens the node key with a passphrase and lets the node take its part in the cluster. Where a TPM
// protects the key, passphrase is not used and the TPM is asked again.
func (n *Node) Unseal(ctx context.Context, passphrase []byte) error {
	defer clear(passphrase)
	n.unsealing.Lock()
	defer n.unsealing.Unlock()
	if n.sealer.Where().Sealed == "" {
		if _, err := n.Member(); err == nil {
			return refuse("node %s is not sealed", n.cfg.Name)
		}
		return n.resume(ctx)
	}
	if left := time.Until(n.tries.until); left > 0 {
		return refuse("too many wrong passphrases: wait %d seconds", int(math.Ceil(left.Seconds())))
	}
	err := n.sealer.unseal(passphrase)
	if errors.Is(err, errPassphrase) {
		n.tries.wrong++
		n.tries.until = time.Now().Add(n.tries.wait())
		n.log.Warn("a wrong passphrase was entered for the node key", "wrong in a row", n.tries.wrong)
		return refusal{err}
	}
	if err != nil {
		return refusal{err}
	}
	n.tries = unsealing{}
	n.log.Info("the node key is open")
	return n.resume(ctx)
}

func (k *nodeKey) unseal(passphrase []byte) error {
	kept, err := readKept(k.path(sealedFile))
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.openKept(kept, passphrase); err != nil {
		return err
	}
	k.asked = kept.Protector == cluster.ByPassphrase
	return nil
}
