package worker

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// curves are the named curves this program handles, as CKA_EC_PARAMS (RFC 5480 OIDs).
var curves = map[string][]byte{
	"P-256": {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
	"P-384": {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22},
	"P-521": {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23},
}

var ellipticCurves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

// edwards25519 is CKA_EC_PARAMS of Ed25519 keys: the curve's name as a PrintableString.
var edwards25519 = append([]byte{0x13, 12}, "edwards25519"...)

// publicOf gives the SubjectPublicKeyInfo of a public or private key object, nil when it has not all of it.
func publicOf(o object) []byte {
	var key any
	kt, _ := o.ulong(pkcs11.CKA_KEY_TYPE)
	switch kt {
	case pkcs11.CKK_RSA:
		n, e := new(big.Int).SetBytes(o.values[pkcs11.CKA_MODULUS]), new(big.Int).SetBytes(o.values[pkcs11.CKA_PUBLIC_EXPONENT])
		if n.Sign() == 0 || e.Sign() == 0 || !e.IsInt64() || e.Int64() > 1<<31-1 {
			return nil
		}
		key = &rsa.PublicKey{N: n, E: int(e.Int64())}
	case pkcs11.CKK_EC:
		curve, ok := ellipticCurves[curveName(o.values[pkcs11.CKA_EC_PARAMS])]
		if !ok {
			return nil
		}
		k, err := ecdsa.ParseUncompressedPublicKey(curve, point(o.values[pkcs11.CKA_EC_POINT]))
		if err != nil {
			return nil
		}
		key = k
	case keyTypeEdwards:
		p := point(o.values[pkcs11.CKA_EC_POINT])
		if len(p) != ed25519.PublicKeySize {
			return nil
		}
		key = ed25519.PublicKey(p)
	default:
		return nil
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil
	}
	return der
}

// point takes the point out of the OCTET STRING that CKA_EC_POINT is (PKCS#11 2.40, 2.3.3); some
// modules give it bare.
func point(b []byte) []byte {
	var inner []byte
	if rest, err := asn1.Unmarshal(b, &inner); err == nil && len(rest) == 0 {
		return inner
	}
	return b
}

// fits tells whether a public key can belong to a private key of that type.
func fits(spki []byte, kt uint, curve string) bool {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return false
	}
	switch p := public.(type) {
	case *rsa.PublicKey:
		return kt == pkcs11.CKK_RSA
	case *ecdsa.PublicKey:
		return kt == pkcs11.CKK_EC && p.Params().Name == curve
	case ed25519.PublicKey:
		return kt == keyTypeEdwards
	}
	return false
}

// publicAttributes are the attributes of a public key object that carry its numbers.
func publicAttributes(spki []byte) (keyType uint, attributes []*pkcs11.Attribute, err error) {
	public, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return 0, nil, &hsm.Error{Code: hsm.BadInput, Detail: "public key: " + err.Error()}
	}
	switch p := public.(type) {
	case *rsa.PublicKey:
		return pkcs11.CKK_RSA, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_MODULUS, p.N.Bytes()),
			pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(p.E)).Bytes()),
		}, nil
	case *ecdsa.PublicKey:
		params, ok := curves[p.Params().Name]
		if !ok {
			break
		}
		raw, err := p.Bytes()
		if err != nil {
			return 0, nil, err
		}
		return pkcs11.CKK_EC, ecAttributes(params, raw), nil
	case ed25519.PublicKey:
		return keyTypeEdwards, ecAttributes(edwards25519, p), nil
	}
	return 0, nil, &hsm.Error{Code: hsm.Unsupported, Detail: "public keys of this kind"}
}

func ecAttributes(params, point []byte) []*pkcs11.Attribute {
	der, _ := asn1.Marshal(point) // a byte slice always marshals
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, bytes.Clone(params)),
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, der),
	}
}

// p521 checks a point of an ephemeral or transport key before a module sees it.
func p521(b []byte) error {
	if _, err := ecdh.P521().NewPublicKey(b); err != nil {
		return &hsm.Error{Code: hsm.BadInput, Detail: "not a point on P-521"}
	}
	return nil
}
