package syncpkg

import (
	"errors"
	"fmt"
)

// Kind is the class of a failure: what a program needs to know to react to it. A Kind is an error, so that
// errors.Is(err, ErrExpired) works, and a number that stays the same for ever, so that it may be stored and sent.
// An error without a Kind says nothing about the package: reading it failed, or the signer did.
type Kind int

const (
	ErrMalformed   Kind = 1  // not a package or statement, or not in its one valid form
	ErrTruncated   Kind = 2  // it ends too early
	ErrTooLarge    Kind = 3  // a limit of limits.go is passed
	ErrUnsupported Kind = 4  // a newer format version, or an algorithm that this version does not know
	ErrUntrusted   Kind = 5  // the signer is not trusted, or not known by this key
	ErrSignature   Kind = 6  // the signature is not by the key that it names
	ErrDigest      Kind = 7  // the body is not the one that was signed: damaged or swapped
	ErrNotReceiver Kind = 8  // made for other nodes
	ErrExpired     Kind = 9  // its time is over
	ErrNotYetValid Kind = 10 // its time has not come: the clocks differ
	ErrUnseal      Kind = 11 // the private key does not open it
	ErrContent     Kind = 12 // signed and whole, but what it says breaks the rules of the format
)

var kindNames = [...]string{
	ErrMalformed:   "malformed",
	ErrTruncated:   "truncated",
	ErrTooLarge:    "too large",
	ErrUnsupported: "unsupported",
	ErrUntrusted:   "untrusted signer",
	ErrSignature:   "bad signature",
	ErrDigest:      "body digest mismatch",
	ErrNotReceiver: "not for this receiver",
	ErrExpired:     "expired",
	ErrNotYetValid: "not yet valid",
	ErrUnseal:      "cannot be unsealed",
	ErrContent:     "bad content",
}

// Error names the class, as the vectors in testdata do.
func (k Kind) Error() string {
	if k < 1 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindNames[k]
}

// Error is a verdict on a package or statement: a class for programs and a sentence for people.
type Error struct {
	Kind Kind
	Err  error // the sentence, and the cause where there is one
}

func (e *Error) Error() string   { return e.Err.Error() }
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// kindOf returns the class of err, or none if it has none.
func kindOf(err error, none Kind) Kind {
	if kind := none; errors.As(err, &kind) {
		return kind
	}
	return none
}

// fail makes an Error; format may wrap a cause with %w.
func fail(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}
