package syncpkg

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
)

// thousand returns a content of 1,000 EC keys, each with a certificate, for both receivers.
func thousand(b *testing.B, w *world) (Header, Content) {
	b.Helper()
	h := w.header()
	c := w.content(b, h, []string{"node2", "node3"})
	certificate := w.certificate(b, "rsa2048")
	for i := range 1000 {
		k := w.privateKey(b, "p256")
		public := result(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(b).Public()
		k.Public = result(x509.MarshalPKIXPublicKey(public))(b)
		k.ID = fmt.Sprintf("%04x", i)
		k.Certificates = []Certificate{{Label: k.Label, DER: certificate}}
		c.Keys = append(c.Keys, k)
	}
	return h, c
}

func BenchmarkSeal(b *testing.B) {
	w := newWorld(b)
	h, c := thousand(b, w)
	to := w.recipients("node2", "node3")
	b.ReportAllocs()
	for b.Loop() {
		file, err := Seal(h, c, to, w.source)
		must(b, err)
		b.SetBytes(int64(len(file)))
	}
}

func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	h, c := thousand(b, w)
	file := result(Seal(h, c, w.recipients("node2", "node3"), w.source))(b)
	o := w.opener("node2")
	b.ReportAllocs()
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		_, err := Open(bytes.NewReader(file), o)
		must(b, err)
	}
}
