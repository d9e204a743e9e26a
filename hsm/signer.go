package hsm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// Signer returns key as a crypto.Signer. Signing takes no context in Go's interfaces; each call is
// held to the module's own deadline.
func (t *Token) Signer(key Key) (crypto.Signer, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	return &signer{token: t, key: key, public: public}, nil
}

type signer struct {
	token  *Token
	key    Key
	public crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer for ECDSA (ASN.1 signatures), RSA PKCS #1 v1.5 and PSS, and Ed25519.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	mechanism, data := ECDSA, digest
	switch s.public.(type) {
	case *ecdsa.PublicKey:
	case ed25519.PublicKey:
		mechanism = EdDSA
	case *rsa.PublicKey:
		var err error
		if mechanism, data, err = rsaMechanism(digest, opts); err != nil {
			return nil, err
		}
	default:
		return nil, &Error{Code: Unsupported, Object: "key " + s.key.Name(), Detail: fmt.Sprintf("no signatures with %T", s.public)}
	}
	raw, err := s.token.sign(s.key.Ref, mechanism, data)
	if err != nil || mechanism != ECDSA {
		return raw, err
	}
	return ecdsaASN1(raw)
}

func (t *Token) sign(key Ref, mechanism Mechanism, data []byte) ([]byte, error) {
	if len(data) == 0 || len(data) > MaxSign {
		return nil, &Error{Code: BadInput, Object: t.name(), Detail: "nothing to sign, or too much"}
	}
	r, err := once[BytesReply](context.Background(), t.module, OpSign, SignArgs{t.Serial, key, mechanism, data}, keyDeadline)
	return r.Bytes, err
}

// digestInfos are the algorithm identifiers that PKCS #1 v1.5 puts before a digest (RFC 8017, 9.2).
var digestInfos = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.SHA256: {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384: {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512: {2, 16, 840, 1, 101, 3, 4, 2, 3},
}

func rsaMechanism(digest []byte, opts crypto.SignerOpts) (Mechanism, []byte, error) {
	hash := opts.HashFunc()
	oid, ok := digestInfos[hash]
	if !ok || len(digest) != hash.Size() {
		return "", nil, &Error{Code: Unsupported, Detail: fmt.Sprintf("RSA signatures take SHA-256, SHA-384 or SHA-512 digests, not %v of %d bytes", hash, len(digest))}
	}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		if pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != hash.Size() {
			return "", nil, &Error{Code: Unsupported, Detail: "RSA-PSS takes a salt as long as the digest"}
		}
		return map[crypto.Hash]Mechanism{crypto.SHA256: RSAPSSSHA256, crypto.SHA384: RSAPSSSHA384, crypto.SHA512: RSAPSSSHA512}[hash], digest, nil
	}
	info, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Digest    []byte
	}{pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}, digest})
	return RSAPKCS1, info, err
}

// ecdsaASN1 turns r||s, as PKCS#11 gives signatures, into the ASN.1 that Go and X.509 expect.
func ecdsaASN1(raw []byte) ([]byte, error) {
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, &Error{Code: Device, Detail: fmt.Sprintf("an ECDSA signature of %d bytes", len(raw))}
	}
	half := len(raw) / 2
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// Agreement returns an EC key as the standard library's KeyExchanger: ECDH gives the raw shared
// secret to this process, so it is for keys that protect data here, never for transport keys.
func (t *Token) Agreement(key Key) (ecdh.KeyExchanger, error) {
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	ec, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, &Error{Code: Unsupported, Object: "key " + key.Name(), Detail: "key agreement needs an EC key"}
	}
	p, err := ec.ECDH()
	if err != nil {
		return nil, &Error{Code: Unsupported, Object: "key " + key.Name(), Detail: err.Error()}
	}
	return &exchanger{t, key, p}, nil
}

type exchanger struct {
	token  *Token
	key    Key
	public *ecdh.PublicKey
}

func (e *exchanger) PublicKey() *ecdh.PublicKey { return e.public }
func (e *exchanger) Curve() ecdh.Curve          { return e.public.Curve() }

func (e *exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer.Curve() != e.public.Curve() {
		return nil, errors.New("ECDH: the keys are on different curves")
	}
	r, err := once[BytesReply](context.Background(), e.token.module, OpAgree, AgreeArgs{e.token.Serial, e.key.Ref, peer.Bytes()}, keyDeadline)
	return r.Bytes, err
}
