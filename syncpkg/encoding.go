package syncpkg

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// encodeJSON gives the one encoding of v: its fields in the order of the struct, strings as plain UTF-8, and a
// newline at the end.
func encodeJSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	if err := checkValues(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// checkValues counts the values in a JSON text, by what separates them. To decode {} into a Key takes a hundred times
// the memory that it took to send it.
func checkValues(text []byte) error {
	n, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == '{' || c == '['):
			n++
		}
	}
	if n > MaxValues {
		return fail(ErrTooLarge, "%d values in a JSON text, more than the %d allowed", n, MaxValues)
	}
	return nil
}

// decodeJSON decodes data into v and refuses it unless it is exactly what encodeJSON would write. That shuts out
// all that encoding/json is lenient about: duplicate fields, other letter case, other spacing, text behind the
// value, loose base64.
func decodeJSON(data []byte, v any, indent string) error {
	if err := checkValues(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%.200v", err) // it may quote from data
	}
	again, err := encodeJSON(v, indent)
	if err != nil {
		return err
	}
	if !bytes.Equal(data, again) {
		return fmt.Errorf("the JSON is not in the one form this format allows: it differs from byte %d on",
			difference(data, again))
	}
	return nil
}

func encodeBase64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decodeBase64 decodes the base64url of RFC 7515 section 2. Like decodeJSON it accepts one form only: even a strict
// encoding/base64 would skip line ends.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, err
	}
	if encodeBase64(b) != s {
		return nil, errors.New("the base64 is not in its one form")
	}
	return b, nil
}

// difference returns the position of the first byte in which a and b differ.
func difference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// bind joins a label and fields so that no two lists of fields give the same bytes: each is preceded by its length
// as four bytes, big-endian.
func bind(label string, fields ...string) []byte {
	b := appendField(nil, label)
	for _, f := range fields {
		b = appendField(b, f)
	}
	return b
}

func appendField(b []byte, f string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
	return append(b, f...)
}

// checkText refuses text that is too long, is not UTF-8, or would break lines or escapes wherever it is shown.
func checkText(s string, max int) error {
	if len(s) > max {
		return fmt.Errorf("is longer than %d bytes", max)
	}
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return fmt.Errorf("has the control character %U", r)
		}
	}
	return nil
}

// checkName is checkText for what may not be empty and is read by people who decide: no invisible characters.
func checkName(s string, max int) error {
	if s == "" {
		return errors.New("is empty")
	}
	if err := checkText(s, max); err != nil {
		return err
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("has the invisible character %U", r)
		}
	}
	return nil
}

// checkNode checks a node name: a DNS label of lower-case letters, digits and hyphens.
func checkNode(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > MaxNode {
		return fmt.Errorf("is longer than %d bytes", MaxNode)
	}
	for i := range len(s) {
		c := s[i]
		edge := i == 0 || i == len(s)-1
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' && !edge) {
			return fmt.Errorf("is not a node name (%q): lower-case letters, digits, and hyphens between them", s)
		}
	}
	return nil
}

// checkHex checks lower-case hexadecimal digits for n bytes.
func checkHex(s string, n int) error {
	if len(s) != 2*n {
		return fmt.Errorf("is not %d hexadecimal digits", 2*n)
	}
	for i := range len(s) {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return errors.New("is not lower-case hexadecimal")
		}
	}
	return nil
}

// checkTime checks that t is written in UTC and whole seconds, so that it has one form only.
func checkTime(t time.Time) error {
	if _, offset := t.Zone(); offset != 0 || t.Nanosecond() != 0 {
		return errors.New("is not in UTC and whole seconds")
	}
	return nil
}

// wholeSecond brings t into the form that checkTime wants.
func wholeSecond(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func showTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
