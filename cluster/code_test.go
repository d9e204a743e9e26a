package cluster

import (
	"regexp"
	"strings"
	"testing"
)

func TestNewJoinCode(t *testing.T) {
	form := regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{4}-){4}[0-9A-HJKMNP-TV-Z]{4}$`)
	seen := make(map[string]bool)
	symbols := make(map[rune]bool)
	for range 1000 {
		code, hash := NewJoinCode()
		if !form.MatchString(code) || seen[code] {
			t.Fatalf("code %q", code)
		}
		seen[code] = true
		for _, r := range code {
			symbols[r] = true
		}
		if got, err := HashCode(code); err != nil || got != hash {
			t.Fatalf("hash of %q: %s, %v, want %s", code, got, err, hash)
		}
		if err := (&RemoveInvite{Hash: hash}).validate(); err != nil {
			t.Fatal(err)
		}
	}
	if len(symbols) != len(codeAlphabet)+1 { // and the hyphen
		t.Errorf("20,000 symbols are only %d different ones", len(symbols)-1)
	}
}

func TestNormalizeCode(t *testing.T) {
	const want = "0123-4567-89AB-CDEF-1010"
	for _, typed := range []string{want, "01234567 89abcdef 1010", "oi23-4567-89AB-CDEF-LOIO", " 0 1 2 3 4 5 6 7 8 9 a b c d e f 1 0 1 0\n"} {
		if got, err := NormalizeCode(typed); err != nil || got != want {
			t.Errorf("%q: %q, %v", typed, got, err)
		}
	}
	for _, typed := range []string{"", "-", want[1:], want + "0", "U" + want[1:], "Ä" + want[1:], strings.Repeat("0", 1000)} {
		_, err := NormalizeCode(typed)
		wantCode(t, err, Invalid)
	}
	// The hash must never change, or the codes that are waiting become worthless.
	const hash = "03c18f5a42478cc31cbd3b86dd6f12864fe6e1a151e9ab1d8405480e63b4dc5b"
	if got, err := HashCode(want); err != nil || got != hash {
		t.Errorf("hash %s, %v", got, err)
	}
}
