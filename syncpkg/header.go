package syncpkg

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Header is the readable part of a package. It is covered by the source's signature.
type Header struct {
	ID        string    `json:"id"`        // 32 hexadecimal digits at random, see NewID
	Cluster   string    `json:"cluster"`   // cluster id
	Source    string    `json:"source"`    // name of the node that made the package and signs it
	Slot      string    `json:"slot"`      // label of the slot whose keys travel
	Receivers []string  `json:"receivers"` // names of the nodes that can open it, sorted
	Keys      int       `json:"keys"`      // how many keys are inside
	Created   time.Time `json:"created"`   // UTC, whole seconds
	Expires   time.Time `json:"expires"`   // UTC, whole seconds; from this instant on it is refused
	Suite     string    `json:"suite"`     // Suite
	Body      Body      `json:"body"`
}

// Body says which bytes follow the head.
type Body struct {
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // lower-case hexadecimal
}

// NewID returns a fresh package id: 128 random bits as lower-case hexadecimal digits.
func NewID() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}

// Context returns the 32 bytes that both HSMs feed to the in-token KDF of SchemeECDHP521. They bind the wrapped
// package key to this package, its source and slot, one receiver, and the two P-521 public keys (uncompressed
// points, 133 bytes each). Of the header only ID, Cluster, Source and Slot are used, so it can be called before
// Seal.
func (h Header) Context(receiver string, transport, ephemeral []byte) [32]byte {
	return sha256.Sum256(bind("keyferry-sync-package/1 context", SchemeECDHP521,
		h.ID, h.Cluster, h.Source, h.Slot, receiver, string(transport), string(ephemeral)))
}

// sealInfo is the HPKE info of one receiver's seal (RFC 9180 section 5.1). A seal that somebody moved to a package
// of their own does not open.
func (h Header) sealInfo(receiver string) []byte {
	return bind("keyferry-sync-package/1 seal", h.ID, h.Cluster, h.Source, h.Slot, receiver)
}

// bodyData is the additional data of the body's AES-GCM.
func (h Header) bodyData() []byte {
	return bind("keyferry-sync-package/1 body", h.ID, h.Cluster, h.Source, h.Slot)
}

// fail makes an Error about the package.
func (h Header) fail(kind Kind, format string, args ...any) error {
	return fail(kind, "package %s: %w", h.ID, fmt.Errorf(format, args...))
}

func (h Header) validate() error {
	checks := []struct {
		field string
		err   error
	}{
		{"id", checkHex(h.ID, 16)},
		{"cluster", checkName(h.Cluster, MaxCluster)},
		{"source", checkNode(h.Source)},
		{"slot", checkName(h.Slot, MaxSlot)},
		{"created", checkTime(h.Created)},
		{"expires", checkTime(h.Expires)},
		{"body.sha256", checkHex(h.Body.SHA256, sha256.Size)},
	}
	for _, c := range checks {
		if c.err != nil {
			return fail(ErrMalformed, "the package's header: %s %w", c.field, c.err)
		}
	}
	if err := h.validateReceivers(); err != nil {
		return err
	}
	switch {
	case h.Keys < 1 || h.Body.Size < 1:
		return fail(ErrMalformed, "the package's header: keys and body.size must be positive numbers")
	case h.Keys > MaxKeys:
		return fail(ErrTooLarge, "the package has %d keys, more than the %d allowed: split them over several packages",
			h.Keys, MaxKeys)
	case !h.Expires.After(h.Created):
		return fail(ErrMalformed, "the package's header: it expires before it was created")
	case h.Suite != Suite:
		return fail(ErrUnsupported, "the package uses the cipher suite %.80q, unknown to this Keyferry (%q): update this node first",
			h.Suite, Suite)
	}
	return nil
}

func (h Header) validateReceivers() error {
	if len(h.Receivers) == 0 {
		return fail(ErrMalformed, "the package's header names no receiver")
	}
	if len(h.Receivers) > MaxReceivers {
		return fail(ErrTooLarge, "the package has %d receivers, more than the %d allowed",
			len(h.Receivers), MaxReceivers)
	}
	for i, r := range h.Receivers {
		if err := checkNode(r); err != nil {
			return fail(ErrMalformed, "the package's header: receiver %d %w", i+1, err)
		}
	}
	if !sortedUnique(h.Receivers) {
		return fail(ErrMalformed, "the package's header: the receivers are not sorted and unique")
	}
	return nil
}

// checkWindow checks that now lies in the package's time, with MaxSkew for a source whose clock is ahead.
func (h Header) checkWindow(now time.Time) error {
	return checkWindow("package "+h.ID+" from "+h.Source, h.Created, h.Expires, now)
}

func checkWindow(what string, from, to, now time.Time) error {
	if from.After(now.Add(MaxSkew)) {
		return fail(ErrNotYetValid, "%s was made at %s, but it is %s here: compare the clocks of both nodes",
			what, showTime(from), showTime(now))
	}
	if !now.Before(to) {
		return fail(ErrExpired, "%s expired at %s and it is %s here: make a new one",
			what, showTime(to), showTime(now))
	}
	return nil
}

func sortedUnique[S ~[]E, E string | uint32](s S) bool {
	return slices.IsSorted(s) && len(slices.Compact(slices.Clone(s))) == len(s)
}
