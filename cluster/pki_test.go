package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// signer is a certificate with its key.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate from template, signed by parent (nil: by itself).
func sign(t testing.TB, template *x509.Certificate, curve elliptic.Curve, parent *signer) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	issuer, issuerKey := template, crypto.Signer(key)
	if parent != nil {
		issuer, issuerKey = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

// newOwner makes an owner certificate (POC).
func newOwner(t testing.TB) *signer {
	return sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "owner"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}, elliptic.P521(), nil)
}

// newIdentity makes an identity certificate (PIC).
func (owner *signer) newIdentity(t testing.TB, name string) *signer {
	return sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign}, elliptic.P521(), owner)
}

// newLeaf makes a leaf certificate that names node of cluster c1. change may spoil it.
func (identity *signer) newLeaf(t testing.TB, node string, change func(*x509.Certificate)) *tls.Certificate {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: node},
		URIs:        []*url.URL{NodeURI("c1", node)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	leaf := sign(t, template, elliptic.P256(), identity)
	return &tls.Certificate{Certificate: [][]byte{leaf.cert.Raw, identity.cert.Raw}, PrivateKey: leaf.key, Leaf: leaf.cert}
}
