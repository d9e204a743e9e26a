package identity

import (
	"crypto/x509"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	zlint "github.com/zmap/zlint/v3/lint"
	_ "github.com/zmap/zlint/v3/lints/rfc" // RFC 5280 and its kin; the rules of browsers' CAs are not ours
)

// lint has zlint judge a certificate by the RFCs. Warnings count too.
func lint(t *testing.T, name string, c *x509.Certificate) {
	t.Helper()
	z, err := zx509.ParseCertificate(c.Raw)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	registry := zlint.GlobalRegistry()
	applied := 0
	for _, l := range registry.CertificateLints().Lints() {
		r := l.Execute(z, registry.GetConfiguration())
		if r.Status == zlint.Pass {
			applied++
		}
		if r.Status > zlint.Pass {
			t.Errorf("zlint, %s: %s: %s: %s %s", name, r.Status, l.Name, l.Description, r.Details)
		}
	}
	if applied < 20 {
		t.Errorf("zlint, %s: only %d rules apply", name, applied)
	}
}
