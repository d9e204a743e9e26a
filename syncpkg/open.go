package syncpkg

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/hpke"
	"errors"
	"io"
	"slices"
	"time"
)

// Trust decides whether what is signed in the name of a node of a cluster is believed, and returns the identity key
// (EC on P-521) by which the verifier itself knows that node. keyID, the RFC 7638 thumbprint of the key that the
// signature names, is there for choosing among keys and for messages; whatever Trust returns must match it. Its
// arguments are not authentic when it is called. An error refuses, and becomes the cause of ErrUntrusted.
type Trust func(cluster, node, keyID string) (*ecdsa.PublicKey, error)

// Opener is who opens a package.
type Opener struct {
	Receiver string // name of the node
	Now      time.Time
	Trust    Trust
	Private  hpke.PrivateKey // sealing key of the node; the elliptic-curve part may be in an HSM
}

// Package is an opened package: authentic, meant for the opener, within its time, and of valid content.
type Package struct {
	Head    *Head
	Content Content
}

// Open reads a package to its end and opens it. Each check comes before what costs more or risks more, and the private
// key is not used before source, signature, receiver, time and digest are right. FORMAT.md has the order. The body,
// MaxBody bytes at most, is held in memory.
func Open(r io.Reader, o Opener) (*Package, error) {
	br := bufio.NewReader(r)
	head, err := readAuthentic(br, o.Trust)
	if err != nil {
		return nil, err
	}
	h := head.Header
	if !slices.Contains(h.Receivers, o.Receiver) {
		return nil, h.fail(ErrNotReceiver, "it is not for %q, but for %q: upload it there, or let %s make one for this node",
			o.Receiver, h.Receivers, h.Source)
	}
	if err := h.checkWindow(o.Now); err != nil {
		return nil, err
	}
	var body bytes.Buffer
	if err := head.copyBody(&body, br); err != nil {
		return nil, err
	}
	plaintext, err := openBody(h, body.Bytes(), o)
	if err != nil {
		return nil, err
	}
	content, err := decodeContent(h, plaintext)
	if err != nil {
		return nil, err
	}
	return &Package{Head: head, Content: content}, nil
}

// Check reads a package to its end and checks all that can be checked without a private key: form, source, signature,
// time, and the body's size and digest. It holds the head only. For a package whose source is not known here there
// are [ReadHead] and [Head.CheckBody].
func Check(r io.Reader, now time.Time, trust Trust) (*Head, error) {
	br := bufio.NewReader(r)
	head, err := readAuthentic(br, trust)
	if err != nil {
		return nil, err
	}
	if err := head.Header.checkWindow(now); err != nil {
		return nil, err
	}
	if err := head.CheckBody(br); err != nil {
		return nil, err
	}
	return head, nil
}

// readAuthentic reads a head and checks its signature by the key of a trusted source.
func readAuthentic(r *bufio.Reader, trust Trust) (*Head, error) {
	head, err := ReadHead(r)
	if err != nil {
		return nil, err
	}
	h := head.Header
	key, err := trust.key(h.Cluster, h.Source, head.KeyID)
	if err != nil {
		return nil, h.fail(ErrUntrusted, "it is from %s, which is not trusted here: %w", h.Source, err)
	}
	if err := head.Verify(key); err != nil {
		return nil, err
	}
	return head, nil
}

// key asks t, and trusts nobody where there is no t or no key.
func (t Trust) key(cluster, node, keyID string) (*ecdsa.PublicKey, error) {
	if t == nil {
		return nil, errors.New("no trust is configured")
	}
	key, err := t(cluster, node, keyID)
	if err == nil && key == nil {
		err = errors.New("no identity key is known")
	}
	return key, err
}
