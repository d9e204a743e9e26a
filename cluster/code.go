package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// A one-time code is 20 symbols of Crockford's base 32 (no I, L, O, U): 100 random bits, in groups that a
// person can read aloud.
const (
	codeAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	codeLength   = 20
	codeGroup    = 4
)

// NewJoinCode makes a one-time code, "XXXX-XXXX-XXXX-XXXX-XXXX", and its hash for AddInvite.
func NewJoinCode() (code, hash string) {
	symbols := make([]byte, codeLength)
	rand.Read(symbols)
	for i, b := range symbols {
		symbols[i] = codeAlphabet[b%32] // 256 is a multiple of 32: no symbol is likelier
	}
	return formatCode(string(symbols)), hashSymbols(string(symbols))
}

// NormalizeCode reads a one-time code as people type it: in any case, with or without hyphens and spaces,
// with O for 0 and I or L for 1. It returns the form that NewJoinCode makes.
func NormalizeCode(typed string) (string, error) {
	var symbols strings.Builder
	for _, r := range strings.ToUpper(typed) {
		switch r {
		case '-', ' ', '\t', '\r', '\n':
			continue
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		if !strings.ContainsRune(codeAlphabet, r) {
			return "", errorf(Invalid, "a one-time code does not contain the character %q", r)
		}
		if symbols.Len() == codeLength {
			return "", errorf(Invalid, "a one-time code has %d letters and digits; this one has more", codeLength)
		}
		symbols.WriteRune(r)
	}
	if n := symbols.Len(); n < codeLength {
		return "", errorf(Invalid, "a one-time code has %d letters and digits; this one has %d", codeLength, n)
	}
	return formatCode(symbols.String()), nil
}

// HashCode returns the hash under which the cluster knows a one-time code, however it was typed.
func HashCode(typed string) (string, error) {
	code, err := NormalizeCode(typed)
	if err != nil {
		return "", err
	}
	return hashSymbols(strings.ReplaceAll(code, "-", "")), nil
}

func hashSymbols(symbols string) string {
	sum := sha256.Sum256([]byte("keyferry join code\x00" + symbols))
	return hex.EncodeToString(sum[:])
}

func formatCode(symbols string) string {
	var groups []string
	for i := 0; i < len(symbols); i += codeGroup {
		groups = append(groups, symbols[i:i+codeGroup])
	}
	return strings.Join(groups, "-")
}
