package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Bounds of what comes from outside.
const (
	maxRequest = 4096 // bytes; a request for a P-521 key has 400
	maxName    = 64   // ub-common-name and ub-serial-number (RFC 5280, A.1)
)

// ParseRequest checks a request: its signature, its curve, that it names a device and its admin token, and that it
// asks for nothing else.
func ParseRequest(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > maxRequest {
		return nil, errors.New("the certificate request is too long")
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	if err := onP521(r.PublicKey); err != nil {
		return nil, err
	}
	if len(r.Extensions) > 0 || len(r.DNSNames)+len(r.IPAddresses)+len(r.URIs)+len(r.EmailAddresses) > 0 {
		return nil, errors.New("the certificate request asks for extensions")
	}
	return r, checkSubject(r)
}

func onP521(public crypto.PublicKey) error {
	if k, ok := public.(*ecdsa.PublicKey); !ok || k.Params().Name != "P-521" {
		return errors.New("an identity key is an EC key on P-521")
	}
	return nil
}

var (
	oidCommonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidSerialNumber = asn1.ObjectIdentifier{2, 5, 4, 5}
)

// checkSubject lets nothing through that the certificate would repeat and a reader could misread: one common name
// and one serial number, printable, and no more.
func checkSubject(r *x509.CertificateRequest) error {
	seen := map[string]bool{}
	for _, n := range r.Subject.Names {
		if !n.Type.Equal(oidCommonName) && !n.Type.Equal(oidSerialNumber) {
			return fmt.Errorf("the subject of the certificate request has a %v: it names the device (CN) and the serial number of its admin token (serialNumber), nothing else", n.Type)
		}
		if seen[n.Type.String()] {
			return errors.New("the subject of the certificate request names two devices")
		}
		seen[n.Type.String()] = true
	}
	if err := CheckName("the common name of the certificate request", r.Subject.CommonName); err != nil {
		return err
	}
	return CheckName("the serial number in the certificate request", r.Subject.SerialNumber)
}

// CheckName holds names in certificates to RFC 5280 (A.1), and to what can be told apart by eye.
func CheckName(what, name string) error {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }
	switch {
	case name == "":
		return fmt.Errorf("%s is missing", what)
	case len(name) > maxName:
		return fmt.Errorf("%s has %d bytes; %d are the most", what, len(name), maxName)
	case strings.ContainsFunc(name, bad) || strings.TrimSpace(name) != name:
		return fmt.Errorf("%s is %q: it has characters that cannot be seen", what, name)
	}
	return nil
}

// CheckOwner tells whether a certificate is one of an owner (POC) and good now: on P-521, signed by its own key, a
// CA for identities.
func CheckOwner(poc *x509.Certificate, now time.Time) error {
	if err := onP521(poc.PublicKey); err != nil {
		return errors.New("the owner key is not an EC key on P-521")
	}
	if !bytes.Equal(poc.RawIssuer, poc.RawSubject) || poc.CheckSignatureFrom(poc) != nil {
		return fmt.Errorf("this is no owner certificate: it is signed by %q, not by its own key", poc.Issuer)
	}
	if !poc.IsCA || poc.KeyUsage&x509.KeyUsageCertSign == 0 || poc.MaxPathLen == 0 {
		return fmt.Errorf("this is no owner certificate: %q may not certify identities", poc.Subject)
	}
	if len(poc.UnhandledCriticalExtensions) > 0 {
		return fmt.Errorf("the owner certificate has a critical extension (%v) that Keyferry does not know", poc.UnhandledCriticalExtensions[0])
	}
	return checkTime("owner certificate", poc, now)
}

// CheckIdentity tells whether a PIC is good now: made by this owner key, for an EC key on P-521. It returns the
// identity key.
func CheckIdentity(pic, poc *x509.Certificate, now time.Time) (*ecdsa.PublicKey, error) {
	roots := x509.NewCertPool()
	roots.AddCert(poc)
	if _, err := pic.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("the identity certificate of %q does not hold: %w", pic.Subject.CommonName, err)
	}
	key, ok := pic.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Params().Name != "P-521" {
		return nil, fmt.Errorf("the identity key of %q is not on P-521", pic.Subject.CommonName)
	}
	return key, nil
}

// checkTime says what to do about a certificate that is not good at an instant: the clock may be what is wrong.
func checkTime(what string, c *x509.Certificate, now time.Time) error {
	const remedy = "if the clock of this machine is wrong (it says %s), set it"
	switch clock := now.UTC().Format(time.RFC3339); {
	case now.Before(c.NotBefore):
		return fmt.Errorf("the %s of %q is not valid before %s: "+remedy, what, c.Subject.CommonName, c.NotBefore.UTC().Format(time.RFC3339), clock)
	case now.After(c.NotAfter):
		return fmt.Errorf("the %s of %q ended at %s: it has to be made anew; "+remedy, what, c.Subject.CommonName, c.NotAfter.UTC().Format(time.RFC3339), clock)
	}
	return nil
}

// CheckFor tells whether a PIC may be put on the device with that serial number: it is for the key that waits
// there, in that device's name, made by the device's own owner, of the right profile, and good now.
func CheckFor(pic, poc *x509.Certificate, serial string, key crypto.PublicKey, now time.Time) error {
	own, ok := pic.PublicKey.(*ecdsa.PublicKey)
	switch {
	case pic.Subject.SerialNumber != serial:
		return fmt.Errorf("the certificate is for device %q (%s), not for %s", pic.Subject.SerialNumber, pic.Subject.CommonName, serial)
	case !ok || !own.Equal(key):
		return fmt.Errorf("the certificate is not for the identity key that device %s waits with: it answers an older request, so send the present one", serial)
	case pic.CheckSignatureFrom(poc) != nil:
		return fmt.Errorf("the certificate is signed by %q, and not by the owner of device %s, %q (SHA-256 %s): have it signed by that owner, or store the other owner's certificate first", pic.Issuer, serial, poc.Subject, Fingerprint(poc))
	case !bytes.Equal(pic.RawIssuer, poc.RawSubject):
		return fmt.Errorf("the certificate names %q as its issuer, but the owner is %q", pic.Issuer, poc.Subject)
	}
	if err := checkProfile(pic); err != nil {
		return err
	}
	if err := checkTime("owner certificate", poc, now); err != nil {
		return err
	}
	return checkTime("identity certificate", pic, now)
}

// checkProfile holds a PIC to PROFILES.md where more would be a power: how far it may certify, and for what.
func checkProfile(pic *x509.Certificate) error {
	switch {
	case !pic.IsCA || !pic.BasicConstraintsValid || !pic.MaxPathLenZero || pic.MaxPathLen != 0:
		return errors.New("the certificate is no identity certificate: it must be a CA certificate with path length 0")
	case pic.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature:
		return errors.New("the certificate is no identity certificate: its key usage must be keyCertSign and digitalSignature")
	case len(pic.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("the certificate has a critical extension (%v) that Keyferry does not know", pic.UnhandledCriticalExtensions[0])
	}
	return nil
}

// Fingerprint is the SHA-256 of a certificate as people compare it, and as "openssl x509 -fingerprint" prints it:
// "3A:91:...".
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}
