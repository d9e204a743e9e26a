package node

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"
)

// A syslogSink is a TLS server that takes messages, as badly as it is told to.
type syslogSink struct {
	t       testing.TB
	address string
	ca, key string // files
	cfg     *tls.Config

	mu   sync.Mutex
	seqs []uint64 // of the messages taken, in order
	seen map[uint64]bool
}

// newSyslogSink makes the certificate; serve makes it answer.
func newSyslogSink(t testing.TB) *syslogSink {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sink"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	s := &syslogSink{t: t, address: freeAddress(t), ca: filepath.Join(t.TempDir(), "ca.pem"), seen: map[uint64]bool{},
		cfg: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.key = filepath.Join(filepath.Dir(s.ca), "key.pem")
	if err := os.WriteFile(s.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// serve answers connections with behave, one at a time, until the function that it returns is called.
func (s *syslogSink) serve(behave func(n int, c net.Conn)) (stop func()) {
	s.t.Helper()
	ln, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	tasks.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			end := context.AfterFunc(ctx, func() { c.Close() })
			behave(n, tls.Server(c, s.cfg))
			end()
			c.Close()
		}
	})
	return sync.OnceFunc(func() { ln.Close(); cancel(); tasks.Wait() })
}

// take reads up to n messages (n < 0: all).
func (s *syslogSink) take(c net.Conn, n int) {
	r := bufio.NewReader(c)
	for ; n != 0; n-- {
		length, err := r.ReadString(' ')
		if err != nil {
			return
		}
		size, err := strconv.Atoi(strings.TrimSuffix(length, " "))
		if err != nil || size > 8192 {
			s.t.Errorf("a frame of %q octets", length)
			return
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		m, err := rfc5424.NewParser().Parse(b)
		if err != nil {
			s.t.Errorf("%q is no message: %v", b, err)
			return
		}
		seq, err := strconv.ParseUint((*m.(*rfc5424.SyslogMessage).StructuredData)[syslogElement]["seq"], 10, 64)
		if err != nil {
			s.t.Errorf("%q has no number", b)
		}
		s.mu.Lock()
		if !s.seen[seq] {
			s.seqs, s.seen[seq] = append(s.seqs, seq), true
		}
		s.mu.Unlock()
	}
}
