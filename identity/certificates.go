package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// How long certificates live. Owner and identity are replaced by people; leaves by the daemon.
const (
	ownerLife    = 20 * 365 * 24 * time.Hour
	identityLife = 10 * 365 * 24 * time.Hour
	// leafLife is how long a node stays in the cluster while its HSM, which signs the next leaf, is down.
	leafLife   = 30 * 24 * time.Hour
	leafRenew  = 20 * 24 * time.Hour // before its end
	clockSlack = 5 * time.Minute     // certificates are valid from a little before now
)

func serialNumber() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive, and always of the same length (RFC 5280, 4.1.2.2)
	return new(big.Int).SetBytes(b)
}

// ownerCertificate is the POC: self-signed, the root of all identities of a cluster.
func ownerCertificate(clusterName string, owner crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: "Keyferry owner", Organization: []string{clusterName}},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(ownerLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1,
	}
	return x509.CreateCertificate(rand.Reader, t, t, owner.Public(), owner)
}

// identityRequest is what a node says about itself when it asks for its identity certificate.
func identityRequest(name, serial string, identity crypto.Signer) ([]byte, error) {
	t := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name, SerialNumber: serial}}
	return x509.CreateCertificateRequest(rand.Reader, t, identity)
}

// parseRequest checks a request: its signature, its curve, and that it asks for nothing but a name.
func parseRequest(der []byte) (*x509.CertificateRequest, error) {
	if len(der) > 4096 {
		return nil, errors.New("the certificate request is too long")
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate request cannot be read: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the certificate request is not signed by its own key: %w", err)
	}
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); !ok || k.Params().Name != "P-521" {
		return nil, errors.New("an identity key is an EC key on P-521")
	}
	if len(r.Extensions) > 0 || len(r.DNSNames)+len(r.IPAddresses)+len(r.URIs)+len(r.EmailAddresses) > 0 {
		return nil, errors.New("the certificate request asks for extensions")
	}
	return r, nil
}

// identityCertificate is a PIC: it names a node and its admin token, and may certify that node's leaves.
func identityCertificate(r *x509.CertificateRequest, poc *x509.Certificate, owner crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: r.Subject.CommonName, SerialNumber: r.Subject.SerialNumber, Organization: poc.Subject.Organization},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              earlier(now.Add(identityLife), poc.NotAfter),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return x509.CreateCertificate(rand.Reader, t, poc, r.PublicKey, owner)
}

// leafCertificate is what a node shows on connections: to other nodes by the URI, to browsers by the
// host names.
func leafCertificate(clusterID, name string, hosts []string, public crypto.PublicKey, pic *x509.Certificate, identity crypto.Signer, now time.Time) ([]byte, error) {
	t := &x509.Certificate{
		SerialNumber:          serialNumber(),
		Subject:               pkix.Name{CommonName: name, Organization: pic.Subject.Organization},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              earlier(now.Add(leafLife), pic.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{cluster.NodeURI(clusterID, name)},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, t, pic, public, identity)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// checkIdentity tells whether a PIC is good now: made by the cluster's owner key, for an EC key on
// P-521. It returns the identity key.
func checkIdentity(pic, poc *x509.Certificate, now time.Time) (*ecdsa.PublicKey, error) {
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
