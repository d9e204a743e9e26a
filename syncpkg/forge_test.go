package syncpkg

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// forgery says how to make a package that breaks a rule, and keeps all others: each function changes one step, and
// what comes after it (digest, signature) is right again.
type forgery struct {
	header    func(h *Header, c *Content) // before sealing; the fields that Seal fills in are filled
	plaintext func(string) string         // before encryption
	body      func([]byte) []byte         // before its digest is taken
	text      func(string) string         // the header's JSON before it is signed
	protected func(string) string         // the JWS header before it is signed
	signer    *ecdsa.PrivateKey           // instead of the source
	file      func([]byte) []byte         // at the end
}

// forge makes a package for node3 with one key.
func (w *world) forge(t testing.TB, f forgery) []byte {
	t.Helper()
	h := w.header()
	c := w.content(t, h, []string{"node3"}, w.privateKey(t, "p256"))
	h.Receivers, h.Keys, h.Suite = []string{"node3"}, 1, Suite
	if f.header != nil {
		f.header(&h, &c)
	}
	plaintext := string(result(encodeJSON(c, ""))(t))
	if f.plaintext != nil {
		plaintext = f.plaintext(plaintext)
	}
	body := result(sealBody(h, []byte(plaintext), w.recipients("node3")))(t)
	if f.body != nil {
		body = f.body(body)
	}
	sum := sha256.Sum256(body)
	h.Body = Body{Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}
	text := string(result(encodeJSON(h, "  "))(t))
	if f.text != nil {
		text = f.text(text)
	}
	signer := w.source
	if f.signer != nil {
		signer = f.signer
	}
	protected := protectedHeader(typePackage, result(Thumbprint(&signer.PublicKey))(t))
	if f.protected != nil {
		protected = f.protected(protected)
	}
	protected, value := signAnything(t, signer, protected, text)
	file := append(fmt.Appendf(nil, "%s1\n%s%s..%s\n\n", magic, text, protected, value), body...)
	if f.file != nil {
		file = f.file(file)
	}
	return file
}

// signAnything signs like ES512, whatever the JWS header says.
func signAnything(t testing.TB, key *ecdsa.PrivateKey, protected, payload string) (p, value string) {
	t.Helper()
	p = encodeBase64([]byte(protected))
	sum := sha512.Sum512([]byte(p + "." + encodeBase64([]byte(payload))))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	must(t, err)
	rs := make([]byte, signatureSize)
	r.FillBytes(rs[:p521Scalar])
	s.FillBytes(rs[p521Scalar:])
	return p, encodeBase64(rs)
}

// split returns the head and the body of a package.
func split(t testing.TB, file []byte) (*Head, []byte) {
	t.Helper()
	head, err := ReadHead(bufio.NewReader(bytes.NewReader(file)))
	must(t, err)
	return head, file[len(head.Raw):]
}

// swap returns a function that replaces one text by another, once; it panics if there is nothing to replace, so that
// a vector cannot silently stop being damaged.
func swap(old, new string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic(fmt.Sprintf("%q is not in %q", old, s))
		}
		return strings.Replace(s, old, new, 1)
	}
}

func swapBytes(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return []byte(swap(old, new)(string(b))) }
}

// flip returns a function that flips the lowest bit of the byte at i, from the end if negative.
func flip(i int) func([]byte) []byte {
	return func(b []byte) []byte {
		b = bytes.Clone(b)
		if i < 0 {
			b[len(b)+i] ^= 1
		} else {
			b[i] ^= 1
		}
		return b
	}
}
