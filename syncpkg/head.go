package syncpkg

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const magic = "keyferry-sync-package/"

// Head is what stands before the body of a package. Until Verify has returned nil, it only claims what it says.
type Head struct {
	Header Header
	KeyID  string // RFC 7638 thumbprint of the key that the signature is said to be made with
	Raw    []byte // the bytes of the head, from the first line to the blank line; the body follows them

	text      []byte // the JSON: the payload of the signature
	signature *signature
}

// ReadHead reads the head of a package and leaves r at the first byte of the body. It reads MaxHead bytes at most,
// checks the form and computes nothing: for any trust see [Head.Verify].
func ReadHead(r *bufio.Reader) (*Head, error) {
	l := &lines{r: r}
	if err := l.magic(); err != nil {
		return nil, err
	}
	text, err := l.header()
	if err != nil {
		return nil, err
	}
	h := &Head{text: text}
	if err := decodeJSON(text, &h.Header, "  "); err != nil {
		return nil, fail(kindOf(err, ErrMalformed), "the package's header: %w", err)
	}
	if err := h.Header.validate(); err != nil {
		return nil, err
	}
	if h.signature, err = l.signature(); err != nil {
		return nil, err
	}
	h.KeyID, h.Raw = h.signature.keyID, l.raw
	return h, nil
}

// Verify checks that key is the source's identity key that the head names, and that it signed the header. Whether
// this key is the source's is for the caller to know.
func (h *Head) Verify(key *ecdsa.PublicKey) error {
	if err := h.signature.verify(key, h.text); err != nil {
		return fmt.Errorf("package %s from %s: %w", h.Header.ID, h.Header.Source, err)
	}
	return nil
}

// Digest returns the SHA-256 of the signed header text as lower-case hexadecimal. It identifies the package: the
// text holds the id and the digest of the body. (The whole file would not do, because an ECDSA signature can be
// changed into another valid one by anybody.)
func (h *Head) Digest() string {
	sum := sha256.Sum256(h.text)
	return hex.EncodeToString(sum[:])
}

// CheckBody reads the body from r to its end, without holding it, and compares its size and digest with the header.
func (h *Head) CheckBody(r io.Reader) error { return h.copyBody(io.Discard, r) }

// copyBody copies the body from r to w as it checks it. Nothing is allocated from the size that the header claims.
func (h *Head) copyBody(w io.Writer, r io.Reader) error {
	body := h.Header.Body
	if body.Size > MaxBody {
		return h.Header.fail(ErrTooLarge, "its body is said to have %d bytes, more than the %d allowed",
			body.Size, MaxBody)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(sum, w), io.LimitReader(r, body.Size))
	if err != nil {
		return fmt.Errorf("reading package %s: %w", h.Header.ID, err)
	}
	if n < body.Size {
		return h.Header.fail(ErrTruncated, "it is cut short: its body has %d of %d bytes; copy it again",
			n, body.Size)
	}
	if hex.EncodeToString(sum.Sum(nil)) != body.SHA256 {
		return h.Header.fail(ErrDigest, "its body is not the one that was signed, "+
			"it was damaged or exchanged on the way: copy it again")
	}
	switch _, err := io.ReadFull(r, make([]byte, 1)); {
	case err == nil:
		return h.Header.fail(ErrMalformed, "more bytes follow its %d bytes of body", body.Size)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("reading package %s: %w", h.Header.ID, err)
	}
	return nil
}

// lines reads a head line by line and keeps what it has read.
type lines struct {
	r   *bufio.Reader
	raw []byte
}

// next returns the next line with its newline. It reads until raw has max bytes; at that point it returns what it
// has of the line and io.ErrShortBuffer.
func (l *lines) next(max int) (string, error) {
	start := len(l.raw)
	for len(l.raw) < max {
		b, err := l.r.ReadByte()
		if errors.Is(err, io.EOF) {
			return string(l.raw[start:]), io.EOF
		}
		if err != nil {
			return "", fmt.Errorf("reading the package: %w", err)
		}
		l.raw = append(l.raw, b)
		if b == '\n' {
			return string(l.raw[start:]), nil
		}
	}
	return string(l.raw[start:]), io.ErrShortBuffer
}

// magic reads the first line and refuses, with the fitting sentence, what is not a package of this version.
func (l *lines) magic() error {
	line, err := l.next(maxMagic)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrShortBuffer) {
		return err
	}
	version, isPackage := strings.CutPrefix(line, magic)
	switch {
	case line == "":
		return fail(ErrMalformed, "the file is empty")
	case errors.Is(err, io.EOF) && (isPackage || strings.HasPrefix(magic, line)):
		return fail(ErrTruncated, "the package is cut short in its first line: copy it again")
	case !isPackage:
		return fail(ErrMalformed, "not a key synchronization package: it begins with %.24q, and a package with %q",
			line, magic)
	case strings.HasSuffix(version, "\r\n"):
		return fail(ErrMalformed, "the package's line ends were changed to CRLF on the way: copy it as a binary file")
	case version == strconv.Itoa(FormatVersion)+"\n":
		return nil
	}
	digits := strings.TrimSuffix(version, "\n")
	if n, err := strconv.Atoi(digits); err != nil || strconv.Itoa(n) != digits || n < FormatVersion {
		return fail(ErrMalformed, "the package's first line has %.24q in the place of the format version", digits)
	}
	return fail(ErrUnsupported, "the package has format version %s, made by a newer Keyferry; this one reads version %d: "+
		"update this node first",
		digits, FormatVersion)
}

// header reads the JSON text: up to the line that closes it.
func (l *lines) header() ([]byte, error) {
	start := len(l.raw)
	for {
		line, err := l.headLine("header")
		if err != nil {
			return nil, err
		}
		if len(l.raw)-start == len(line) && line != "{\n" {
			return nil, fail(ErrMalformed, "the package's second line must be a single { and is %.24q", line)
		}
		if line == "}\n" {
			return l.raw[start:len(l.raw):len(l.raw)], nil
		}
	}
}

// signature reads the line with the detached JWS (RFC 7515 Appendix F) and the blank line that ends the head.
func (l *lines) signature() (*signature, error) {
	line, err := l.headLine("signature")
	if err != nil {
		return nil, err
	}
	protected, payload, value, err := splitCompact(strings.TrimSuffix(line, "\n"))
	if err != nil {
		return nil, fmt.Errorf("the package's signature: %w", err)
	}
	if payload != "" {
		return nil, fail(ErrMalformed, "the package's signature has a payload of its own; it must sign the header")
	}
	s, err := parseSignature(protected, value, typePackage)
	if err != nil {
		return nil, fmt.Errorf("the package: %w", err)
	}
	blank, err := l.headLine("head")
	if err != nil {
		return nil, err
	}
	if blank != "\n" {
		return nil, fail(ErrMalformed, "no blank line follows the package's signature")
	}
	return s, nil
}

func (l *lines) headLine(part string) (string, error) {
	line, err := l.next(MaxHead)
	switch {
	case errors.Is(err, io.EOF):
		return "", fail(ErrTruncated, "the package is cut short in its %s: copy it again", part)
	case errors.Is(err, io.ErrShortBuffer):
		return "", fail(ErrTooLarge, "the package's head is longer than the %d bytes allowed", MaxHead)
	}
	return line, err
}
