package node

import (
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
)

// Limits of authentication codes.
const (
	minManual    = 8  // characters: what people choose
	maxGenerated = 30 // characters of 5 bits: 150 bits; libp11 (to 0.4.12) reads no more than 31 from a pin-source
	minGenerated = 26 // 130 bits: a token that takes fewer characters gets no generated code
)

// checkManual holds a code that people chose to the rules, before any token sees it.
func checkManual(code []byte, minCode, maxCode int) error {
	if !utf8.Valid(code) {
		return refuse("the authentication code is not valid UTF-8")
	}
	if n := utf8.RuneCount(code); n < minManual {
		return refuse("the authentication code has %d characters; it needs at least %d", n, minManual)
	}
	for _, r := range string(code) {
		if unicode.IsControl(r) {
			return refuse("the authentication code contains a control character")
		}
	}
	if n := len(code); n < minCode || maxCode > 0 && n > maxCode {
		return refuse("the authentication code has %d bytes; this token takes %d to %d", n, minCode, maxCode)
	}
	return nil
}

// generatedCode makes a code for a token with the given limits.
func generatedCode(minCode, maxCode int) ([]byte, error) {
	n, err := generatedSize(minCode, maxCode)
	if err != nil {
		return nil, err
	}
	return newCode(n), nil
}

// generatedSize is how many characters a code that no person chose gets.
func generatedSize(minCode, maxCode int) (int, error) {
	n := maxGenerated
	if maxCode > 0 {
		n = min(n, maxCode)
	}
	if n = max(n, minCode); n < minGenerated {
		return 0, refuse("this token takes codes of at most %d characters, which is too short for a generated one; use manual mode", maxCode)
	}
	return n, nil
}

// A seatRecord is what the node keeps of its token in a slot. Codes of manual slots are never in it.
type seatRecord struct {
	Slot   string
	Module string
	Serial string // empty while the token is being made
	Mode   string // cluster.Generated, cluster.Manual or cluster.Shared
	Code   []byte // sealed; of generated mode
	// Pending is a code that the token may or may not have by now, sealed. It is stored before the token
	// is asked to change its code, so that after a crash one try tells which of them is right.
	Pending []byte
	// Leaving is set while a generated code is being replaced by one that people chose.
	Leaving bool
	// Changing is set while people change the code of a manual slot. No code is stored then, so after a
	// crash all that can be said is that one of the two is right.
	Changing bool
	// Refused is set once the token has refused the stored code: another program has changed it. It is
	// never tried again, also not by the next process, until the code is set anew.
	Refused   bool
	CodeSince time.Time // when Keyferry last set the code
	Opened    time.Time // last activation
	OpenedBy  string
	Tried     time.Time // when the token last took the stored code

	By       cluster.Actor
	Told     bool   // the cluster knows
	Receiver string // signed statement of the keys that receive packages
	MinCode  int
	MaxCode  int

	Generation int // of the shared code that the token has
	// Next is the generation of a shared code that the token may or may not have by now. It is stored
	// before the token is asked, like Pending; only custodians can tell.
	Next int
}

// facts is what the cluster is told about the code.
func (r *seatRecord) facts() cluster.CodeFacts {
	return cluster.CodeFacts{CodeSince: r.CodeSince, CodeRefused: r.Refused, Opened: r.Opened, OpenedBy: r.OpenedBy}
}

// set makes a sealed code the one that counts, or none where people keep it.
func (r *seatRecord) set(mode string, sealed []byte) {
	if r.Mode != mode {
		r.Told = false
	}
	r.Mode, r.Code, r.Pending, r.Leaving, r.Changing, r.Refused = mode, sealed, nil, false, false, false
	r.Generation, r.Next = 0, 0
	r.CodeSince = time.Now().UTC().Round(0)
}

// share makes the shared code of a generation the one that counts.
func (r *seatRecord) share(generation int) {
	r.set(cluster.Shared, nil)
	r.Generation, r.Told = generation, false
}

func (r *seatRecord) sealedName() string { return "code of slot " + r.Slot + " in module " + r.Module }

func (s *Slots) sealCode(r *seatRecord, code []byte) ([]byte, error) {
	return s.m.node.sealer.Seal(r.sealedName(), code)
}

func (s *Slots) unsealCode(r *seatRecord, sealed []byte) ([]byte, error) {
	return s.m.node.sealer.Open(r.sealedName(), sealed)
}

func (s *Slots) save(r seatRecord) error { return s.m.node.store.put(bucketSeats, r.Slot, r) }

// worded puts an error into words for people and keeps what it is.
type worded struct {
	text string
	err  error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.err }

// codeError says in words for people what a token answered to a code.
func codeError(slot string, err error) error {
	text := ""
	switch {
	case errors.Is(err, hsm.WrongCode):
		text = fmt.Sprintf("the authentication code for slot %q is wrong; it was tried once, and tokens may lock after a few wrong ones", slot)
	case errors.Is(err, hsm.CodeLocked):
		text = fmt.Sprintf("the token of slot %q is locked after too many wrong codes; only its security officer can unlock it", slot)
	case errors.Is(err, hsm.CodeLength):
		text = fmt.Sprintf("the token of slot %q does not take a code of that length", slot)
	default:
		return fmt.Errorf("slot %q: %w", slot, err)
	}
	return refusal{worded{text, err}}
}
