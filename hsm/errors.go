package hsm

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the kind of a failure. The numbers cross the pipe between parent and child; a number that
// is no longer used stays reserved.
type Code int

// The kinds of failure.
const (
	Internal        Code = 1  // a defect in this program
	Device          Code = 2  // the module answered with a code that has no kind of its own
	Down            Code = 3  // the child is not running
	Timeout         Code = 4  // the module did not answer in time; the child was ended. What was asked may have been done
	NoToken         Code = 5  // no token with that serial number
	NoKey           Code = 6  // no such object
	Stale           Code = 7  // the reference is from before a restart
	WrongCode       Code = 8  // the token refused the code
	CodeLocked      Code = 9  // too many wrong codes: the token takes none any more
	CodeLength      Code = 10 // the token allows no code of that length
	CodeNotSet      Code = 11 // the token has no user code yet
	NotLoggedIn     Code = 12 // nobody opened the token
	NotExtractable  Code = 13 // CKA_EXTRACTABLE is false
	Unsupported     Code = 14 // the module cannot do this
	BadInput        Code = 15 // refused before the module was asked
	BadWrapped      Code = 16 // a wrapped key does not open, or opens to another key than promised
	NotProved       Code = 17 // the imported key did not prove itself; it was removed
	NoFreeSlot      Code = 18 // no slot where a token could be initialized
	NoPublicKey     Code = 19 // no public key to be had for a private key
	ModuleNotLoaded Code = 20 // the library cannot be loaded or initialized
)

var codeTexts = map[Code]string{
	Internal:        "internal error",
	Device:          "the PKCS#11 module refused",
	Down:            "the PKCS#11 module is not running",
	Timeout:         "the PKCS#11 module did not answer in time and was restarted; what was asked for may or may not have been done",
	NoToken:         "there is no such token",
	NoKey:           "there is no such object on the token",
	Stale:           "the PKCS#11 module was restarted meanwhile; try again",
	WrongCode:       "the authentication code is wrong; it was tried once",
	CodeLocked:      "the token is locked after too many wrong codes",
	CodeLength:      "the token does not allow a code of that length",
	CodeNotSet:      "the token has no authentication code yet",
	NotLoggedIn:     "the slot is not activated",
	NotExtractable:  "the key was made not extractable, so it cannot leave its token",
	Unsupported:     "the PKCS#11 module cannot do this",
	BadInput:        "invalid request",
	BadWrapped:      "the wrapped key cannot be opened",
	NotProved:       "the imported key failed its proof and was removed",
	NoFreeSlot:      "the module has no free slot for a new token",
	NoPublicKey:     "the public key is not on the token",
	ModuleNotLoaded: "the PKCS#11 module cannot be loaded",
}

func (c Code) String() string {
	if t, ok := codeTexts[c]; ok {
		return t
	}
	return fmt.Sprintf("error %d", int(c))
}

// Error is a failure of an operation on a module. Two errors are errors.Is-equal when their codes are:
// errors.Is(err, hsm.WrongCode) asks for the kind.
type Error struct {
	Code   Code
	Object string // what it concerns: "token 1a2b…", "key \"ca\" (ID 01)"
	Detail string // more, for people
	RV     uint   // CK_RV where the module gave one
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Object != "" {
		b.WriteString(e.Object + ": ")
	}
	b.WriteString(e.Code.String())
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.RV != 0 {
		fmt.Fprintf(&b, " (CKR 0x%X)", e.RV)
	}
	return b.String()
}

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return c.String() }

// Is compares kinds.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return t == e.Code
	case *Error:
		return t.Code == e.Code
	}
	return false
}

// CodeOf returns the kind of err, Internal when it is none of ours, and 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
