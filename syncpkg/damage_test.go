package syncpkg

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// The tests of this file try every position of a package. Up to the body that is Open each time. Within the body, what
// comes before it stays the same, so there it is CheckBody each time and Open now and then.
const openEvery = 64

// TestCutAnywhere cuts a package after each number of bytes.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.small(t)
	head, body := split(t, file)
	o := w.opener("node3")
	_, err := Open(bytes.NewReader(nil), o)
	wantKind(t, err, ErrMalformed) // an empty file is not a short package
	for n := 1; n < len(file); n++ {
		inBody := n - len(head.Raw)
		if inBody >= 0 {
			if err := head.CheckBody(bytes.NewReader(body[:inBody])); !errors.Is(err, ErrTruncated) {
				t.Fatalf("body cut after %d of %d bytes: got %v, want an error of the kind %q", inBody, len(body), err, ErrTruncated)
			}
		}
		if inBody <= 0 || inBody%openEvery == 0 || n == len(file)-1 {
			if _, err := Open(bytes.NewReader(file[:n]), o); !errors.Is(err, ErrTruncated) {
				t.Fatalf("cut after %d of %d bytes: got %v, want an error of the kind %q", n, len(file), err, ErrTruncated)
			}
		}
	}
}

// TestFlipAnywhere flips each bit of a package.
func TestFlipAnywhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.small(t)
	head, body := split(t, file)
	o := w.opener("node3")
	check := func(i, bit int, want []Kind, read func() error) {
		t.Helper()
		file[i] ^= 1 << bit
		defer func() { file[i] ^= 1 << bit }()
		err := read()
		var kind Kind
		if !errors.As(err, &kind) || !slices.Contains(want, kind) {
			t.Fatalf("bit %d of byte %d flipped: got %v (%v)", bit, i, err, kind)
		}
	}
	open := func() error { _, err := Open(bytes.NewReader(file), o); return err }
	checkBody := func() error { return head.CheckBody(bytes.NewReader(body)) } // body is the end of file
	inHead := []Kind{ErrMalformed, ErrTruncated, ErrTooLarge, ErrUnsupported, ErrUntrusted, ErrSignature}
	inBody := []Kind{ErrDigest}
	for i := range file {
		for bit := range 8 {
			switch {
			case i < len(head.Raw):
				check(i, bit, inHead, open)
			default:
				check(i, bit, inBody, checkBody)
				if i%openEvery == 0 && bit == 0 {
					check(i, bit, inBody, open)
				}
			}
		}
	}
	must(t, open()) // so what was tried above was a package that opens
}
