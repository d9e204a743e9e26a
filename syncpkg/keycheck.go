package syncpkg

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"
)

// usageFlags gives the flags that PKCS#11 defines for each class of objects.
func usageFlags(class string) []string {
	switch class {
	case ClassPrivate:
		return []string{"decrypt", "derive", "sign", "sign-recover", "unwrap"}
	case ClassSecret:
		return []string{"decrypt", "derive", "encrypt", "sign", "unwrap", "verify", "wrap"}
	default: // public key object
		return []string{"derive", "encrypt", "verify", "verify-recover", "wrap"}
	}
}

// Validate checks the key by the rules of the format. Seal refuses a whole package for one bad key, so a source may
// leave out, with the reason, those that fail here. The error is of the kind ErrContent.
func (k Key) Validate() error {
	for _, check := range []func() error{k.checkNames, k.checkUse, k.checkWrapped, k.checkClass} {
		if err := check(); err != nil {
			return &Error{Kind: ErrContent, Err: err}
		}
	}
	return nil
}

func (k Key) checkNames() error {
	if err := checkText(k.Label, MaxLabel); err != nil {
		return fmt.Errorf("the label %w", err)
	}
	if len(k.ID) > 2*MaxID {
		return fmt.Errorf("the id is longer than %d bytes", MaxID)
	}
	if err := checkHex(k.ID, len(k.ID)/2); err != nil {
		return fmt.Errorf("the id %w", err)
	}
	return nil
}

func (k Key) checkUse() error {
	if err := checkUsage(k.Usage, k.Class); err != nil {
		return err
	}
	if len(k.Mechanisms) > MaxMechanisms || !sortedUnique(k.Mechanisms) {
		return fmt.Errorf("the allowed mechanisms are not sorted and unique, or more than %d", MaxMechanisms)
	}
	for _, date := range []string{k.StartDate, k.EndDate} {
		if _, err := time.Parse(time.DateOnly, date); date != "" && err != nil {
			return fmt.Errorf("%.20q is not a date", date)
		}
	}
	if k.StartDate != "" && k.EndDate != "" && k.EndDate < k.StartDate {
		return fmt.Errorf("the end date %s is before the start date %s", k.EndDate, k.StartDate)
	}
	return nil
}

func checkUsage(usage []string, class string) error {
	if !sortedUnique(usage) {
		return errors.New("the usage flags are not sorted and unique")
	}
	for _, u := range usage {
		if !slices.Contains(usageFlags(class), u) {
			return fmt.Errorf("%.20q is not a usage flag of such a key", u)
		}
	}
	return nil
}

func (k Key) checkWrapped() error {
	if n := len(k.Wrapped); n < MinWrapped || n > MaxWrapped || n%8 != 0 {
		return fmt.Errorf("the wrapped key has %d bytes; RFC 5649 gives multiples of 8, and allowed are %d to %d",
			n, MinWrapped, MaxWrapped)
	}
	return nil
}

func (k Key) checkClass() error {
	switch k.Class {
	case ClassPrivate:
		return k.checkPrivate()
	case ClassSecret:
		return k.checkSecret()
	}
	return fmt.Errorf("%.20q is not a class of keys that travel", k.Class)
}

func (k Key) checkPrivate() error {
	if len(k.Check) > 0 {
		return errors.New("a private key has no check value")
	}
	if err := k.checkPublic(); err != nil {
		return err
	}
	if len(k.Subject) > 0 {
		var name pkix.RDNSequence
		if rest, err := asn1.Unmarshal(k.Subject, &name); err != nil || len(rest) > 0 || len(k.Subject) > MaxSubject {
			return fmt.Errorf("the subject is not the DER of a name, or longer than %d bytes", MaxSubject)
		}
	}
	if k.PublicObject != nil {
		if err := checkUsage(k.PublicObject.Usage, ""); err != nil {
			return fmt.Errorf("the public key object: %w", err)
		}
	}
	if len(k.Certificates) > MaxCertificates {
		return fmt.Errorf("it has %d certificates, more than the %d allowed", len(k.Certificates), MaxCertificates)
	}
	for i, c := range k.Certificates {
		if err := c.validate(); err != nil {
			return fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return nil
}

func (c Certificate) validate() error {
	if err := checkText(c.Label, MaxLabel); err != nil {
		return fmt.Errorf("the label %w", err)
	}
	if len(c.DER) > MaxCertificate {
		return fmt.Errorf("it has %d bytes, more than the %d allowed", len(c.DER), MaxCertificate)
	}
	_, err := x509.ParseCertificate(c.DER)
	return err
}

// checkPublic checks that Public is the one DER encoding of a public key of the stated type and size. Were a second
// encoding let through, the same key could have two fingerprints.
func (k Key) checkPublic() error {
	if len(k.Public) > MaxPublic {
		return fmt.Errorf("the public key has %d bytes, more than the %d allowed", len(k.Public), MaxPublic)
	}
	public, err := x509.ParsePKIXPublicKey(k.Public)
	if err != nil {
		return fmt.Errorf("the public key: %w", err)
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, k.Public) {
		return errors.New("the public key is not in its canonical DER form")
	}
	typ, bits, curve, err := describe(public)
	if err != nil {
		return err
	}
	if typ != k.Type || bits != k.Bits || curve != k.Curve {
		return fmt.Errorf("the public key (type %s, bits %d, curve %q) is not what the key is said to be "+
			"(type %.20s, bits %d, curve %.20q)",
			typ, bits, curve, k.Type, k.Bits, k.Curve)
	}
	return nil
}

// describe returns what the fields Type, Bits and Curve of a private key must say, given its public key.
func describe(public any) (typ string, bits int, curve string, err error) {
	switch p := public.(type) {
	case *rsa.PublicKey:
		bits = p.N.BitLen()
		if bits < MinRSABits || bits > MaxRSABits {
			return "", 0, "", fmt.Errorf("an RSA key of %d bits; allowed are %d to %d", bits, MinRSABits, MaxRSABits)
		}
		return TypeRSA, bits, "", nil
	case *ecdsa.PublicKey:
		curve = p.Curve.Params().Name
		if curve != CurveP256 && curve != CurveP384 && curve != CurveP521 {
			return "", 0, "", fmt.Errorf("an EC key on %s; allowed are P-256, P-384 and P-521", curve)
		}
		return TypeEC, 0, curve, nil
	case ed25519.PublicKey:
		return TypeEd25519, 0, "", nil
	}
	return "", 0, "", fmt.Errorf("a key of the type %T does not travel", public)
}

func (k Key) checkSecret() error {
	switch {
	case len(k.Public) > 0 || len(k.Subject) > 0 || k.PublicObject != nil || len(k.Certificates) > 0 || k.Curve != "":
		return errors.New("a secret key has no public key, subject, certificate or curve")
	case k.Type != TypeAES && k.Type != TypeGeneric:
		return fmt.Errorf("%.20q is not a type of secret keys", k.Type)
	case k.Type == TypeAES && len(k.Check) != cmacSize, k.Type == TypeGeneric && len(k.Check) != hmacSize:
		return fmt.Errorf("the check value of a key of the type %s cannot have %d bytes", k.Type, len(k.Check))
	case bytes.Equal(k.Check, make([]byte, len(k.Check))):
		return errors.New("the check value is all zero, so it was never computed")
	}
	// The value is between size-7 and size bytes long: RFC 5649 fills it up and adds 8.
	size := len(k.Wrapped) - 8
	switch {
	case k.Type == TypeAES && size != 16 && size != 24 && size != 32:
		return fmt.Errorf("no AES key has %d bytes when it is wrapped", len(k.Wrapped))
	case size > MaxSecret:
		return fmt.Errorf("a secret key of more than %d bytes", MaxSecret)
	case k.Bits != 0 && (k.Bits%8 != 0 || k.Bits/8 > size || k.Bits/8 <= size-8):
		return fmt.Errorf("a key of %d bits does not have %d bytes when it is wrapped", k.Bits, len(k.Wrapped))
	case k.Type == TypeAES && k.Bits != 0 && k.Bits/8 != size:
		return fmt.Errorf("an AES key cannot have %d bits", k.Bits)
	}
	return nil
}
