package syncpkg

import (
	"crypto/ecdh"
	"slices"
)

// Content is the encrypted part of a package. Its version is the version of the file.
type Content struct {
	Scheme      string       `json:"scheme"`      // SchemeECDHP521
	Ephemeral   []byte       `json:"ephemeral"`   // the source's ephemeral P-521 point, uncompressed: 133 bytes
	PackageKeys []PackageKey `json:"packageKeys"` // one for each receiver, in the order of the header
	Keys        []Key        `json:"keys"`        // no two of the same fingerprint
}

// PackageKey is the package key, wrapped for one receiver's HSM.
type PackageKey struct {
	Receiver string `json:"receiver"` // node name
	Wrapped  []byte `json:"wrapped"`  // RFC 5649, 40 bytes
}

// PackageKey returns the wrapped package key for a receiver, or false if there is none.
func (c Content) PackageKey(receiver string) ([]byte, bool) {
	for _, k := range c.PackageKeys {
		if k.Receiver == receiver {
			return k.Wrapped, true
		}
	}
	return nil, false
}

// decodeContent decodes and checks the plaintext of a package with the header h.
func decodeContent(h Header, plaintext []byte) (Content, error) {
	var c Content
	if err := decodeJSON(plaintext, &c, ""); err != nil {
		return Content{}, h.fail(kindOf(err, ErrContent), "its content: %w", err)
	}
	if err := c.validate(h); err != nil {
		return Content{}, err
	}
	return c, nil
}

func (c Content) validate(h Header) error {
	if c.Scheme != SchemeECDHP521 {
		return h.fail(ErrUnsupported, "its keys are wrapped by the scheme %.80q, unknown to this Keyferry: "+
			"update this node first",
			c.Scheme)
	}
	if err := checkPoint(c.Ephemeral); err != nil {
		return h.fail(ErrContent, "its ephemeral key is not a P-521 point: %w", err)
	}
	if !slices.EqualFunc(c.PackageKeys, h.Receivers, func(k PackageKey, r string) bool { return k.Receiver == r }) {
		return h.fail(ErrContent, "its package keys are not for the header's receivers, in their order")
	}
	for _, k := range c.PackageKeys {
		if len(k.Wrapped) != wrappedKey {
			return h.fail(ErrContent, "the package key for %s has %d bytes and must have %d",
				k.Receiver, len(k.Wrapped), wrappedKey)
		}
	}
	if len(c.Keys) > MaxKeys {
		return h.fail(ErrTooLarge, "it has %d keys, more than the %d allowed: split them over several packages",
			len(c.Keys), MaxKeys)
	}
	if len(c.Keys) != h.Keys {
		return h.fail(ErrContent, "it has %d keys, and its header says %d", len(c.Keys), h.Keys)
	}
	return c.validateKeys(h)
}

func (c Content) validateKeys(h Header) error {
	seen := make(map[string]int, len(c.Keys))
	for i, k := range c.Keys {
		if err := k.Validate(); err != nil {
			return h.fail(ErrContent, "key %d (id %.40s, label %.80q): %w", i+1, k.ID, k.Label, err)
		}
		f := k.Fingerprint()
		if j, twice := seen[f]; twice {
			return h.fail(ErrContent, "keys %d and %d are the same key (fingerprint %s)", j, i+1, f)
		}
		seen[f] = i + 1
	}
	return nil
}

// checkPoint checks that p is an uncompressed point on P-521, and not the one at infinity.
func checkPoint(p []byte) error {
	_, err := ecdh.P521().NewPublicKey(p)
	return err
}
