package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// MaxCertificate bounds the file of a client certificate, in bytes: one with RSA 8192 has about 3 kB.
const MaxCertificate = 16 << 10

// ReadCertificate reads a certificate as people have it: PEM or DER. A file with a private key in it is
// refused, so that nobody gets into the habit of uploading one.
func ReadCertificate(b []byte) (*x509.Certificate, error) {
	if len(b) == 0 {
		return nil, refuse("choose the file with the certificate")
	}
	if len(b) > MaxCertificate {
		return nil, refuse("the file is larger than a certificate: more than %d bytes", MaxCertificate)
	}
	der, found := b, false
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		switch {
		case block.Type != "CERTIFICATE":
			return nil, refuse("the file contains a %q: it must contain the certificate alone, and no private key", line(block.Type))
		case found:
			return nil, refuse("the file contains several certificates: it must contain yours alone")
		}
		der, found = block.Bytes, true
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse("the file is not an X.509 certificate in PEM or DER")
	}
	return cert, nil
}

// usableForLogin refuses certificates that are not for this.
func usableForLogin(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(cert.NotBefore):
		return refuse("the certificate is not valid before %s", cert.NotBefore.UTC().Format("2006-01-02 15:04 UTC"))
	case !now.Before(cert.NotAfter):
		return refuse("the certificate ended on %s", cert.NotAfter.UTC().Format("2006-01-02 15:04 UTC"))
	case cert.IsCA:
		return refuse("the certificate is that of a certification authority, not of a person")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return refuse("the key usage of the certificate does not allow signatures (RFC 5280, section 4.2.1.3)")
	case len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0 && !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
		!slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny):
		return refuse("the certificate is not for TLS clients (extended key usage, RFC 5280, section 4.2.1.12)")
	}
	return nil
}

// AddCertificate registers a certificate for an account: one's own, or, by whoever manages accounts,
// another's. name is for people; the subject serves where it is empty.
func (a *Accounts) AddCertificate(ctx context.Context, actor cluster.Actor, account, name string, cert *x509.Certificate) error {
	if err := usableForLogin(cert, time.Now()); err != nil {
		return err
	}
	subject := line(cert.Subject.String())
	if name == "" {
		name = clipName(subject)
	}
	c := cluster.ClientCertificate{Fingerprint: fingerprintOf(cert), Subject: subject, Issuer: cert.RawIssuer, NotAfter: cert.NotAfter.UTC(), Name: name}
	_, err := a.m.Cluster.Apply(ctx, &cluster.AddCertificate{Name: account, Certificate: c}, actor)
	return err
}

// clipName makes the name of a factor from a longer text.
func clipName(s string) string {
	const most = 48
	if s == "" {
		return "without a name"
	}
	out := []rune(s)
	for len(string(out)) > most {
		out = out[:len(out)-1]
	}
	for len(out) > 0 && out[len(out)-1] == ' ' {
		out = out[:len(out)-1]
	}
	return string(out)
}

// CertificateAccount is the account that a certificate is registered for; "" when it is for none. That it
// may log in, LoginByCertificate decides.
func (a *Accounts) CertificateAccount(cert *x509.Certificate) string {
	return a.m.State().CertificateOwner(fingerprintOf(cert))
}

// LoginByCertificate logs the holder of a certificate in. The caller got it from a TLS handshake, which
// proves that its private key is there.
func (a *Accounts) LoginByCertificate(ctx context.Context, cert *x509.Certificate, from string) (*Login, error) {
	s := a.m.State()
	account, ok := s.Accounts[s.CertificateOwner(fingerprintOf(cert))]
	if !ok || account.Disabled {
		return nil, refuse("this certificate is not registered for an account that may log in")
	}
	if err := usableForLogin(cert, time.Now()); err != nil {
		a.m.acts.note(ctx, a.m.self(), cluster.NoteLoginRefused, "account/"+account.Name, cluster.Refused, err.Error()+", from "+from)
		return nil, err
	}
	l := newLogin(account, "certificate", from)
	return l, a.opened(ctx, l)
}

// CertificateIssuers are the names of the issuers, in DER, of all certificates that may log in: what a
// browser needs to offer the right ones, and others none. Empty, none is asked for.
func (a *Accounts) CertificateIssuers() [][]byte {
	var list [][]byte
	seen := map[string]bool{}
	for _, account := range a.m.State().Accounts {
		for _, c := range account.Certificates {
			if !account.Disabled && !seen[string(c.Issuer)] {
				seen[string(c.Issuer)] = true
				list = append(list, c.Issuer)
			}
		}
	}
	return list
}
