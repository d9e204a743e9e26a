package syncpkg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// madePackage is a package vector with its file; nil if another vector brings the file.
type madePackage struct {
	packageVector
	data []byte
}

// madePackages makes the packages of the vectors: a good one, and one for each way to be wrong.
func (w *world) madePackages(t testing.TB) []madePackage {
	t.Helper()
	h := w.header()
	both := []string{"node2", "node3"}
	good := result(Seal(h, w.content(t, h, both, w.allKeys(t)...), w.recipients(both...), w.source))(t)
	opened := func(receiver string, now time.Time, want string) madePackage {
		return madePackage{packageVector{"good.package", receiver, now, want}, nil}
	}
	made := []madePackage{
		{packageVector{"good.package", "node2", testNow, "ok"}, good},
		opened("node3", testNow, "ok"),
		opened("node1", testNow, "not for this receiver"),
		opened("node2", h.Expires.Add(-time.Second), "ok"),
		opened("node2", h.Expires, "expired"),
		opened("node2", h.Created.Add(-MaxSkew), "ok"),
		opened("node2", h.Created.Add(-MaxSkew-time.Second), "not yet valid"),
	}
	add := func(name, want string, data []byte) {
		made = append(made, madePackage{packageVector{name + ".package", "node3", testNow, want}, data})
	}
	add("small", "ok", w.forge(t, forgery{}))
	head, one := split(t, w.forge(t, forgery{}))
	_, other := split(t, w.forge(t, forgery{}))
	if len(one) != len(other) {
		t.Fatal("the bodies to swap differ in length")
	}
	add("body-swapped", "body digest mismatch", append(head.Raw, other...))
	for _, f := range w.forgedFiles() {
		add(f.name, f.want, w.forge(t, f.forgery))
	}
	for _, f := range forgedContents() {
		add("content-"+f.name, f.want, w.forge(t, f.forgery))
	}
	add("empty", "malformed", []byte{})
	add("text", "malformed", []byte("Dear colleague,\n\nthe package is attached.\n"))
	add("certificate", "malformed", fmt.Appendf(nil, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))
	add("head-endless", "too large", append([]byte(magic+"1\n{\n"), bytes.Repeat([]byte("  \"id\": \"\",\n"), MaxHead/11)...))
	return made
}

type namedForgery struct {
	name, want string
	forgery
}

// cut shortens a file to the end of the first occurrence of a text.
func cut(after string) func([]byte) []byte {
	return func(b []byte) []byte {
		i := bytes.Index(b, []byte(after))
		if i < 0 {
			panic(after)
		}
		return b[:i+len(after)]
	}
}

// forgedFiles breaks the rules of head and body.
func (w *world) forgedFiles() []namedForgery {
	inFile := func(old, new string) forgery { return forgery{file: swapBytes(old, new)} }
	inText := func(old, new string) forgery { return forgery{text: swap(old, new)} }
	inProtected := func(old, new string) forgery { return forgery{protected: swap(old, new)} }
	inHeader := func(f func(h *Header)) forgery {
		return forgery{header: func(h *Header, _ *Content) { f(h) }}
	}
	inBody := func(f func(b []byte) []byte) forgery { return forgery{body: f} }
	stranger, _ := Thumbprint(&w.stranger.PublicKey)
	source, _ := Thumbprint(&w.source.PublicKey)

	return []namedForgery{
		{"magic-cut", "truncated", forgery{file: cut("keyferry-sy")}},
		{"magic-bom", "malformed", inFile("keyferry", "\ufeffkeyferry")},
		{"magic-crlf", "malformed", inFile("/1\n", "/1\r\n")},
		{"version-2", "unsupported", inFile("/1\n", "/2\n")},
		{"version-01", "malformed", inFile("/1\n", "/01\n")},
		{"version-none", "malformed", inFile("/1\n", "/\n")},

		{"header-cut", "truncated", forgery{file: cut(`"receivers"`)}},
		{"header-crlf", "malformed", forgery{file: func(b []byte) []byte {
			i := bytes.Index(b, []byte("\n}\n"))
			return append([]byte(magic+"1\n"+strings.ReplaceAll(string(b[len(magic)+2:i+3]), "\n", "\r\n")), b[i+3:]...)
		}}},
		{"header-one-line", "malformed", forgery{text: func(s string) string {
			var b bytes.Buffer
			if err := json.Compact(&b, []byte(s)); err != nil {
				panic(err)
			}
			return b.String() + "\n"
		}}},
		{"header-escaped", "malformed", inText("Issuing & <CA>", `Issuing \u0026 <CA>`)},
		{"header-unknown-field", "malformed", inText(`  "suite"`, "  \"priority\": 1,\n  \"suite\"")},
		{"header-duplicate-field", "malformed", inText(`  "slot"`, "  \"slot\": \"Other\",\n  \"slot\"")},
		{"header-other-case", "malformed", inText(`"slot"`, `"Slot"`)},
		{"header-number-form", "malformed", inText(`"keys": 1,`, `"keys": 1.0,`)},
		{"header-receivers-null", "malformed", inHeader(func(h *Header) { h.Receivers = nil })},
		{"header-receivers-unsorted", "malformed", inHeader(func(h *Header) { h.Receivers = []string{"node3", "node2"} })},
		{"header-receivers-twice", "malformed", inHeader(func(h *Header) { h.Receivers = []string{"node3", "node3"} })},
		{"header-receiver-name", "malformed", inHeader(func(h *Header) { h.Receivers = []string{"Node3"} })},
		{"header-receivers-many", "too large", inHeader(func(h *Header) {
			for i := range MaxReceivers {
				h.Receivers = append(h.Receivers, fmt.Sprintf("node9%03d", i))
			}
		})},
		{"header-id", "malformed", inHeader(func(h *Header) { h.ID = strings.ToUpper(h.ID) })},
		{"header-slot-invisible", "malformed", inHeader(func(h *Header) { h.Slot = "CA\u202e" })},
		{"header-fraction", "malformed", inText(`T11:00:00Z`, `T11:00:00.5Z`)},
		{"header-local-time", "malformed", inText(`T11:00:00Z`, `T12:00:00+01:00`)},
		{"header-expires-first", "malformed", inHeader(func(h *Header) { h.Expires = h.Created })},
		{"header-no-keys", "malformed", inHeader(func(h *Header) { h.Keys = 0 })},
		{"header-many-keys", "too large", inHeader(func(h *Header) { h.Keys = MaxKeys + 1 })},
		{"header-suite", "unsupported", inHeader(func(h *Header) { h.Suite = "ES512+HPKE-v2" })},
		{"header-changed", "bad signature", inFile("Issuing & <CA>", "Issuing & <CB>")},
		{"header-source-changed", "untrusted signer", inFile(`"source": "node1"`, `"source": "node9"`)},
		{"header-cluster-changed", "untrusted signer", inFile(`"cluster": "c1"`, `"cluster": "c2"`)},

		{"signature-cut", "truncated", forgery{file: cut("\n}\neyJ")}},
		{"signature-by-stranger", "untrusted signer", forgery{signer: w.stranger}},
		{"signature-other-kid", "untrusted signer", inProtected(source, stranger)},
		{"signature-false-kid", "bad signature", forgery{signer: w.stranger, protected: swap(stranger, source)}},
		{"signature-none", "bad signature", inProtected("ES512", "none")},
		{"signature-hs256", "bad signature", inProtected("ES512", "HS256")},
		{"signature-es256", "bad signature", inProtected("ES512", "ES256")},
		{"signature-type", "bad signature", inProtected(typePackage, typeReceipt)},
		{"signature-header-field", "malformed", inProtected(`{"alg"`, `{"b64":false,"alg"`)},
		{"signature-header-space", "malformed", inProtected(`,"kid"`, `, "kid"`)},
		{"signature-header-order", "malformed", forgery{protected: func(string) string {
			return `{"alg":"ES512","typ":"` + typePackage + `","kid":"` + source + `"}`
		}}},
		{"signature-attached", "malformed", inFile("..", ".e30.")},
		{"signature-zero", "bad signature", forgery{file: func(b []byte) []byte {
			i := bytes.Index(b, []byte("..")) + 2
			return append(append(bytes.Clone(b[:i]), strings.Repeat("A", 176)...), b[i+176:]...)
		}}},
		{"signature-space", "malformed", inFile("..", ". .")},
		{"signature-no-blank-line", "malformed", inFile("\n\n", "\n")},

		{"body-cut", "truncated", forgery{file: func(b []byte) []byte { return b[:len(b)-1] }}},
		{"body-missing", "truncated", forgery{file: cut("\n\n")}},
		{"body-longer", "malformed", forgery{file: func(b []byte) []byte { return append(b, 0) }}},
		{"body-flipped", "body digest mismatch", forgery{file: flip(-1)}},
		{"body-claims-1gib", "too large", forgery{text: func(s string) string {
			i := strings.Index(s, `"size": `) + len(`"size": `)
			return s[:i] + "1073741824" + s[strings.Index(s[i:], ",")+i:]
		}}},
		{"seals-none", "bad content", inBody(func(b []byte) []byte { return bytes.Repeat([]byte{1}, len(b)) })},
		{"seals-null", "bad content", inBody(func(b []byte) []byte { return append([]byte("null"), b[bytes.IndexByte(b, '\n'):]...) })},
		{"seals-space", "bad content", inBody(swapBytes(`[{`, `[ {`))},
		{"seals-receiver", "bad content", inBody(swapBytes(`"node3"`, `"node2"`))},
		{"seals-kem", "unsupported", inBody(swapBytes(`"kem":18`, `"kem":17`))},
		{"seals-other-kem", "bad content", inBody(swapBytes(`"kem":18`, `"kem":81`))},
		{"seals-short", "bad content", inBody(swapBytes(`"seal":"BA`, `"seal":"`))},
		{"seals-moved", "cannot be unsealed", forgery{header: func(h *Header, _ *Content) { h.ID = NewID() }, text: func(s string) string {
			i := strings.Index(s, `"id": "`) + len(`"id": "`)
			return s[:i] + strings.Repeat("0", 32) + s[i+32:]
		}}},
		{"seals-flipped", "cannot be unsealed", inBody(func(b []byte) []byte {
			i := bytes.IndexByte(b, '}') - 10
			b[i] = map[bool]byte{true: 'A', false: 'B'}[b[i] != 'A']
			return b
		})},
		{"ciphertext-flipped", "cannot be unsealed", inBody(flip(-1))},
		{"ciphertext-short", "bad content", inBody(func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1+gcmOverhead-1] })},
	}
}

// forgedContents breaks the rules of the encrypted content.
func forgedContents() []namedForgery {
	inPlaintext := func(old, new string) forgery { return forgery{plaintext: swap(old, new)} }
	inContent := func(f func(c *Content)) forgery {
		return forgery{header: func(_ *Header, c *Content) { f(c) }}
	}
	inKey := func(f func(k *Key)) forgery {
		return inContent(func(c *Content) { f(&c.Keys[0]) })
	}
	const bad = "bad content"
	return []namedForgery{
		{"not-json", bad, forgery{plaintext: func(string) string { return "keys" }}},
		{"no-newline", bad, forgery{plaintext: func(s string) string { return strings.TrimSpace(s) }}},
		{"unknown-field", bad, inPlaintext(`"label"`, `"colour":"red","label"`)},
		{"duplicate-field", bad, inPlaintext(`"label"`, `"label":"x","label"`)},
		{"empty-field", bad, inPlaintext(`"wrapped":`, `"certificates":[],"wrapped":`)},
		{"loose-base64", bad, inPlaintext(`"wrapped":"`, `"wrapped":"\n`)},
		{"scheme", "unsupported", inContent(func(c *Content) { c.Scheme = "rsa-oaep+rfc5649" })},
		{"ephemeral-off-curve", bad, inContent(func(c *Content) { c.Ephemeral = flip(-1)(c.Ephemeral) })},
		{"package-key-missing", bad, inContent(func(c *Content) { c.PackageKeys = nil })},
		{"package-key-other", bad, inContent(func(c *Content) { c.PackageKeys[0].Receiver = "node2" })},
		{"package-key-short", bad, inContent(func(c *Content) { c.PackageKeys[0].Wrapped = make([]byte, 32) })},
		{"key-missing", bad, inContent(func(c *Content) { c.Keys = nil })},
		{"key-twice", bad, forgery{header: func(h *Header, c *Content) { h.Keys, c.Keys = 2, append(c.Keys, c.Keys[0]) }}},
		{"key-label-newline", bad, inKey(func(k *Key) { k.Label = "a\nb" })},
		{"key-public-other-type", bad, inKey(func(k *Key) { k.Type, k.Curve, k.Bits = TypeRSA, "", 2048 })},
		{"key-certificate", bad, inKey(func(k *Key) { k.Certificates = []Certificate{{DER: []byte{0x30, 0x00}}} })},
		{"key-wrapped", bad, inKey(func(k *Key) { k.Wrapped = k.Wrapped[:len(k.Wrapped)-1] })},
	}
}
