package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"time"
)

// How long certificates live. Owner and identity are replaced by people; leaves by the daemon.
const (
	OwnerLife    = 20 * 365 * 24 * time.Hour
	IdentityLife = 10 * 365 * 24 * time.Hour
	// LeafLife is how long a node stays in the cluster while its HSM, which signs the next leaf, is down.
	LeafLife  = 30 * 24 * time.Hour
	LeafRenew = 20 * 24 * time.Hour // before its end
	// StartLife is how long a machine may wait for its cluster before its administrator compares anew.
	StartLife  = 365 * 24 * time.Hour
	clockSlack = 5 * time.Minute // certificates are valid from a little before now
)

func serialNumber() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive, and always of the same length (RFC 5280, 4.1.2.2)
	return new(big.Int).SetBytes(b)
}

// OwnerCertificate is the POC: self-signed, the root of all identities of an owner. The name is the owner's,
// for people; in a cluster it is that of the cluster.
func OwnerCertificate(name string, owner crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: "Keyferry owner", Organization: []string{name}},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(OwnerLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
	}
	return x509.CreateCertificate(rand.Reader, t, t, owner.Public(), owner)
}

// Request is what a device says about itself when it asks for its identity certificate (PKCS #10, RFC 2986).
func Request(name, serial string, identity crypto.Signer) ([]byte, error) {
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, SerialNumber: serial}}
	return x509.CreateCertificateRequest(rand.Reader, t, identity)
}

// Certificate is a PIC: it names a device and its admin token, and may certify that device's leaves.
func Certificate(r *x509.CertificateRequest, poc *x509.Certificate, owner crypto.Signer, now time.Time) ([]byte, error) {
	t := identityTemplate(r.Subject.CommonName, r.Subject.SerialNumber, now)
	t.Subject.Organization = poc.Subject.Organization
	t.NotAfter = earlier(t.NotAfter, poc.NotAfter)
	return x509.CreateCertificate(rand.Reader, t, poc, r.PublicKey, owner)
}

// SelfSigned is a PIC that no owner vouches for. Others must compare its fingerprint.
func SelfSigned(name, serial string, identity crypto.Signer, now time.Time) ([]byte, error) {
	t := identityTemplate(name, serial, now)
	return x509.CreateCertificate(rand.Reader, t, t, identity.Public(), identity)
}

func identityTemplate(name, serial string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: name, SerialNumber: serial},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(IdentityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

// Leaf is what a node shows on connections: to other nodes by the URI, to browsers by the host names.
func Leaf(uri *url.URL, name string, hosts []string, public crypto.PublicKey, pic *x509.Certificate, identity crypto.Signer, now time.Time) ([]byte, error) {
	id, err := subjectKeyID(public)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		SubjectKeyId:          id,
		Subject:               pkix.Name{CommonName: name, Organization: pic.Subject.Organization},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              earlier(now.Add(LeafLife), pic.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{uri},
	}
	nameHosts(t, hosts)
	return x509.CreateCertificate(rand.Reader, t, pic, public, identity)
}

// Start is what a node shows to browsers while it belongs to no cluster: self-signed, and compared by a
// person.
func Start(name string, hosts []string, key crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: name, OrganizationalUnit: []string{"Keyferry node without a cluster"}},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(StartLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	nameHosts(t, hosts)
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// nameHosts makes a certificate good for names and addresses.
func nameHosts(t *x509.Certificate, hosts []string) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
}

// subjectKeyID is the first method of RFC 7093: 160 bits of the SHA-256 of the key. The library gives one to CAs only.
func subjectKeyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki.Key.RightAlign())
	return sum[:20], nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
