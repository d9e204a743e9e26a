package node

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// Staged is a package file that this node keeps: one that it made, or one that was brought to it and
// passed every check that needs no private key.
type Staged struct {
	SHA256 string         `json:"sha256"` // of the whole file
	Size   int64          `json:"size"`   // bytes
	Header syncpkg.Header `json:"header"`
	KeyID  string         `json:"key_id"` // of the signature
	Kept   time.Time      `json:"kept"`
	Mine   bool           `json:"mine"` // made here
}

// Name is a file name for the package.
func (s Staged) Name() string {
	return fmt.Sprintf("%s_%s_%s.keyferry", safeName(s.Header.Slot), s.Header.Source, s.Header.ID[:8])
}

func safeName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' {
			return r
		}
		return '-'
	}, s)
}

// maxPackageFile bounds a package file as it comes in.
const maxPackageFile = syncpkg.MaxHead + syncpkg.MaxBody

// mostStaged is how many package files are kept; the oldest go first.
const mostStaged = 100

func (y *Sync) path(digest string) string {
	return filepath.Join(y.m.node.cfg.Dir, "packages", digest+".keyferry")
}

// Stage takes in a package file: it reads it once, to disk, and checks form, source, signature, time and
// digest on the way. What fails a check is not kept, and the audit trail tells who brought it.
func (y *Sync) Stage(ctx context.Context, actor cluster.Actor, r io.Reader) (Staged, error) {
	tmp, err := os.CreateTemp(filepath.Join(y.m.node.cfg.Dir, "packages"), ".upload-*")
	if err != nil {
		return Staged{}, fmt.Errorf("the package cannot be kept: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	sum := sha256.New()
	limited := &io.LimitedReader{R: r, N: maxPackageFile + 1}
	head, err := syncpkg.Check(io.TeeReader(limited, io.MultiWriter(tmp, sum)), y.now(), y.trustIn(y.now()))
	if limited.N == 0 {
		err = &syncpkg.Error{Kind: syncpkg.ErrTooLarge, Err: fmt.Errorf("the file is larger than %d MiB, which no package is", maxPackageFile>>20)}
	}
	if err == nil {
		err = y.madeUnder(head.Header)
	}
	if err != nil {
		err = packageError(err)
		y.tellRefusedFile(ctx, actor, tmp, hex.EncodeToString(sum.Sum(nil)), err)
		return Staged{}, err
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if err := y.recorded(head, digest); err != nil {
		return Staged{}, err
	}
	info, err := tmp.Stat()
	if err == nil {
		err = tmp.Sync()
	}
	if err != nil {
		return Staged{}, fmt.Errorf("the package cannot be kept: %w", err)
	}
	return y.keep(tmp.Name(), Staged{SHA256: digest, Size: info.Size(), Header: head.Header, KeyID: head.KeyID})
}

// packageError says of a package that was refused what that means.
func packageError(err error) error {
	if _, ok := errors.AsType[syncpkg.Kind](err); ok && !IsRefusal(err) {
		return refusal{fmt.Errorf("the package is refused: %w", err)}
	}
	return err
}

// keepFile keeps a package that was made here.
func (y *Sync) keepFile(file []byte) (Staged, error) {
	head, err := syncpkg.ReadHead(bufio.NewReader(strings.NewReader(string(file[:min(len(file), syncpkg.MaxHead)]))))
	if err != nil {
		return Staged{}, err
	}
	tmp := filepath.Join(y.m.node.cfg.Dir, "packages", ".made-"+head.Header.ID)
	if err := writeFile(tmp, file); err != nil {
		return Staged{}, fmt.Errorf("the package cannot be kept: %w", err)
	}
	return y.keep(tmp, Staged{SHA256: digestHex(file), Size: int64(len(file)), Header: head.Header, KeyID: head.KeyID, Mine: true})
}

// keep moves a checked file to its place, by its digest, and remembers it.
func (y *Sync) keep(tmp string, s Staged) (Staged, error) {
	if old, err := get[Staged](y.m.node.store, bucketStaged, s.SHA256); err == nil {
		s.Mine = s.Mine || old.Mine
	}
	s.Kept = time.Now().UTC()
	if err := os.Rename(tmp, y.path(s.SHA256)); err != nil {
		return Staged{}, fmt.Errorf("the package cannot be kept: %w", err)
	}
	if err := syncDir(filepath.Dir(tmp)); err != nil {
		return Staged{}, err
	}
	if err := y.m.node.store.put(bucketStaged, s.SHA256, s); err != nil {
		return Staged{}, err
	}
	return s, y.forgetOld()
}

// forgetOld drops the oldest files when there are too many, but none that an import is at.
func (y *Sync) forgetOld() error {
	list, err := y.List()
	if err != nil {
		return err
	}
	for len(list) > mostStaged {
		s := list[len(list)-1]
		list = list[:len(list)-1]
		if y.isOpen(s.Header.ID) {
			continue
		}
		if err := y.m.node.store.drop(bucketStaged, s.SHA256); err != nil {
			return err
		}
		os.Remove(y.path(s.SHA256))
	}
	return nil
}

// List returns the packages that this node keeps, the newest first.
func (y *Sync) List() ([]Staged, error) {
	list, err := all[Staged](y.m.node.store, bucketStaged)
	slices.SortFunc(list, func(a, b Staged) int { return b.Kept.Compare(a.Kept) })
	return list, err
}

// Get finds a package by the digest of its file, or by its id.
func (y *Sync) Get(digest string) (Staged, error) {
	s, err := get[Staged](y.m.node.store, bucketStaged, digest)
	if errors.Is(err, errAbsent) {
		list, err := y.List()
		if err != nil {
			return Staged{}, err
		}
		for _, s := range list {
			if s.Header.ID == digest {
				return s, nil
			}
		}
		return Staged{}, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("node %s keeps no such package; the oldest are forgotten", y.m.Name())}}
	}
	return s, err
}

// File opens a package's file.
func (y *Sync) File(s Staged) (*os.File, error) { return os.Open(y.path(s.SHA256)) }

// Inspection is what can be told of a package file without opening it.
type Inspection struct {
	Header    syncpkg.Header `json:"header"`
	KeyID     string         `json:"key_id"`
	Verified  bool           `json:"verified"` // source, signature, time and body are right, by this node's own state
	Problem   string         `json:"problem,omitempty"`
	Intact    bool           `json:"intact"` // the body is the one that the header names
	ForMe     bool           `json:"for_this_node"`
	Digest    string         `json:"header_sha256"`
	Signature string         `json:"signed_by,omitempty"`
}

// Inspect reads a package file and says what it is, whether or not it can be believed. Only a file that
// is no package at all is an error.
func (y *Sync) Inspect(r io.ReadSeeker) (Inspection, error) {
	head, err := syncpkg.ReadHead(bufio.NewReader(r))
	if err != nil {
		return Inspection{}, packageError(err)
	}
	i := Inspection{Header: head.Header, KeyID: head.KeyID, Digest: head.Digest(), ForMe: slices.Contains(head.Header.Receivers, y.m.Name())}
	if _, err := r.Seek(int64(len(head.Raw)), io.SeekStart); err != nil {
		return i, err
	}
	i.Intact = head.CheckBody(r) == nil
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return i, err
	}
	if _, err = syncpkg.Check(r, y.now(), y.trustIn(y.now())); err == nil {
		err = y.madeUnder(head.Header)
	}
	if i.Verified = err == nil; !i.Verified {
		i.Problem = err.Error()
	} else {
		i.Signature = "identity key of node " + head.Header.Source
	}
	return i, nil
}
