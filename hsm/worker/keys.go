package worker

import (
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

type attributes = []*pkcs11.Attribute

func attr(t uint, v any) *pkcs11.Attribute { return pkcs11.NewAttribute(t, v) }

func mechanism(m uint, parameter any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, parameter)}
}

// usageOf sets each usage of a class explicitly: what is left out gets a default, and the defaults of
// modules allow too much.
func usageOf(class uint, u hsm.Usage) attributes {
	which := hsm.UseSign | hsm.UseSignRecover | hsm.UseDecrypt | hsm.UseUnwrap | hsm.UseDerive
	switch class {
	case pkcs11.CKO_PUBLIC_KEY:
		which = hsm.UseVerify | hsm.UseEncrypt | hsm.UseWrap
	case pkcs11.CKO_SECRET_KEY:
		which = hsm.UseSign | hsm.UseVerify | hsm.UseEncrypt | hsm.UseDecrypt | hsm.UseWrap | hsm.UseUnwrap | hsm.UseDerive
	}
	var a attributes
	for _, n := range usageAttributes {
		if which&n.use != 0 {
			a = append(a, attr(n.attribute, u&n.use != 0))
		}
	}
	return a
}

// sessionSecret is the template of a secret key that lives only in a session and never leaves it in
// plaintext.
func sessionSecret(keyType uint, u hsm.Usage, more ...*pkcs11.Attribute) attributes {
	a := attributes{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, keyType),
		attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true),
	}
	a = append(a, usageOf(pkcs11.CKO_SECRET_KEY, u)...)
	return append(a, more...)
}

func (w *worker) generate(a hsm.GenerateArgs) (hsm.Key, error) {
	var made pkcs11.ObjectHandle
	var key hsm.Key
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		if err := w.writing(func() (err error) {
			_, made, err = w.generateIn(s, a.Spec, true)
			return err
		}); err != nil {
			return err
		}
		var err error
		key, err = w.listed(t, s, made)
		return err
	})
	return key, failure(fmt.Sprintf("new key %q", a.Spec.Label), err)
}

// A key that another program's reading has torn is read again: SoftHSM's processes disturb one another for
// some milliseconds.
const (
	tornTries = 20
	tornPause = 25 * time.Millisecond
)

// listed is a key of the token as the listing has it.
func (w *worker) listed(t *openToken, s pkcs11.SessionHandle, h pkcs11.ObjectHandle) (hsm.Key, error) {
	t.listing.Lock()
	defer t.listing.Unlock()
	for range tornTries {
		if err := w.list(t, s, false); err != nil {
			return hsm.Key{}, err
		}
		for _, k := range t.cache.reply.Keys {
			if k.Ref == w.ref(h) {
				return k, nil
			}
		}
		time.Sleep(tornPause)
	}
	return hsm.Key{}, &hsm.Error{Code: hsm.NoKey, Detail: "the key was made, but the token does not list it"}
}

// generateIn makes a key, on the token or in the session, and its public key object where it has one.
// The caller holds the lock.
func (w *worker) generateIn(s pkcs11.SessionHandle, spec hsm.KeySpec, token bool) (public, key pkcs11.ObjectHandle, err error) {
	common := attributes{attr(pkcs11.CKA_TOKEN, token), attr(pkcs11.CKA_ID, spec.ID), attr(pkcs11.CKA_LABEL, spec.Label)}
	private := append(attributes{attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, spec.Extractable)}, common...)
	if spec.Type == "AES" {
		if spec.Bits != 128 && spec.Bits != 192 && spec.Bits != 256 {
			return 0, 0, &hsm.Error{Code: hsm.BadInput, Detail: "AES keys have 128, 192 or 256 bits"}
		}
		private = append(private, attr(pkcs11.CKA_VALUE_LEN, spec.Bits/8))
		private = append(private, usageOf(pkcs11.CKO_SECRET_KEY, spec.Usage)...)
		key, err = w.ctx.GenerateKey(s, mechanism(pkcs11.CKM_AES_KEY_GEN, nil), private)
		return 0, key, err
	}
	var generator uint
	var shape attributes
	switch spec.Type {
	case "RSA":
		if spec.Bits < 2048 || spec.Bits > 8192 {
			return 0, 0, &hsm.Error{Code: hsm.BadInput, Detail: "RSA keys have 2048 to 8192 bits"}
		}
		generator = pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
		shape = attributes{attr(pkcs11.CKA_MODULUS_BITS, spec.Bits), attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1})}
	case "EC":
		params, ok := curves[spec.Curve]
		if !ok {
			return 0, 0, &hsm.Error{Code: hsm.BadInput, Detail: "EC keys are on P-256, P-384 or P-521"}
		}
		generator = pkcs11.CKM_EC_KEY_PAIR_GEN
		shape = attributes{attr(pkcs11.CKA_EC_PARAMS, params)}
	case "Ed25519":
		generator = mechEdwardsGen
		shape = attributes{attr(pkcs11.CKA_EC_PARAMS, edwards25519)}
	default:
		return 0, 0, &hsm.Error{Code: hsm.BadInput, Detail: fmt.Sprintf("no keys of type %q are made", spec.Type)}
	}
	shape = append(shape, common...)
	shape = append(shape, usageOf(pkcs11.CKO_PUBLIC_KEY, mirror(spec.Usage))...)
	private = append(private, usageOf(pkcs11.CKO_PRIVATE_KEY, spec.Usage)...)
	return w.ctx.GenerateKeyPair(s, mechanism(generator, nil), shape, private)
}

// numbers reads a public key object. The caller holds the lock.
func (w *worker) numbers(s pkcs11.SessionHandle, public pkcs11.ObjectHandle) (object, error) {
	values, err := w.direct.attributes(s, public, readPublic)
	return object{class: pkcs11.CKO_PUBLIC_KEY, values: values}, err
}

// mirror is what a public key may do, given what its private key may.
func mirror(u hsm.Usage) hsm.Usage {
	var m hsm.Usage
	for _, pair := range [][2]hsm.Usage{{hsm.UseSign, hsm.UseVerify}, {hsm.UseDecrypt, hsm.UseEncrypt}, {hsm.UseUnwrap, hsm.UseWrap}} {
		if u&pair[0] != 0 {
			m |= pair[1]
		}
	}
	return m
}

func (w *worker) destroy(a hsm.RefArgs) (hsm.Empty, error) {
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		h, err := w.check(a.Ref)
		if err != nil {
			return err
		}
		return w.writing(func() error { return w.ctx.DestroyObject(s, h) })
	})
	return hsm.Empty{}, failure("token "+a.Serial, err)
}

func (w *worker) sign(a hsm.SignArgs) (hsm.BytesReply, error) {
	var signature []byte
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		h, err := w.check(a.Ref)
		if err != nil {
			return err
		}
		return w.reading(func() (err error) {
			signature, err = w.signIn(s, h, a.Mechanism, a.Data)
			return err
		})
	})
	return hsm.BytesReply{Bytes: signature}, failure("token "+a.Serial, err)
}

// signIn signs with an object of the session or the token. The caller holds the lock for reading.
func (w *worker) signIn(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, m hsm.Mechanism, data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, &hsm.Error{Code: hsm.BadInput, Detail: "nothing to sign"}
	}
	ckm, ok := signMechanisms[m]
	if !ok {
		return nil, &hsm.Error{Code: hsm.Unsupported, Detail: "signing with " + string(m)}
	}
	if err := w.ctx.SignInit(s, ckm(), key); err != nil {
		return nil, err
	}
	return w.ctx.Sign(s, data)
}

var signMechanisms = map[hsm.Mechanism]func() []*pkcs11.Mechanism{
	hsm.ECDSA:        func() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_ECDSA, nil) },
	hsm.EdDSA:        func() []*pkcs11.Mechanism { return mechanism(mechEdDSA, nil) },
	hsm.RSAPKCS1:     func() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_RSA_PKCS, nil) },
	hsm.RSAPSSSHA256: func() []*pkcs11.Mechanism { return pss(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, 32) },
	hsm.RSAPSSSHA384: func() []*pkcs11.Mechanism { return pss(pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384, 48) },
	hsm.RSAPSSSHA512: func() []*pkcs11.Mechanism { return pss(pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512, 64) },
	hsm.CMAC:         func() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_AES_CMAC, nil) },
	hsm.HMACSHA256:   func() []*pkcs11.Mechanism { return mechanism(pkcs11.CKM_SHA256_HMAC, nil) },
}

func pss(hash, mgf, salt uint) []*pkcs11.Mechanism {
	return mechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(hash, mgf, salt))
}

// agree gives the raw ECDH secret, the x-coordinate, to the daemon (CKM_ECDH1_DERIVE with CKD_NULL).
func (w *worker) agree(a hsm.AgreeArgs) (hsm.BytesReply, error) {
	var secret []byte
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		h, err := w.check(a.Ref)
		if err != nil {
			return err
		}
		if len(a.Point) < 65 || len(a.Point) > 133 || a.Point[0] != 4 {
			return &hsm.Error{Code: hsm.BadInput, Detail: "not an uncompressed point"}
		}
		return w.writing(func() error {
			out := attributes{
				attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
				attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_SENSITIVE, false), attr(pkcs11.CKA_EXTRACTABLE, true),
			}
			o, err := w.ctx.DeriveKey(s, mechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, a.Point)), h, out)
			if err != nil {
				return err
			}
			defer w.ctx.DestroyObject(s, o)
			v, err := w.direct.attributes(s, o, []uint{pkcs11.CKA_VALUE})
			if err != nil {
				return err
			}
			secret = v[pkcs11.CKA_VALUE]
			if len(secret) != (len(a.Point)-1)/2 {
				return &hsm.Error{Code: hsm.Unsupported, Detail: fmt.Sprintf("ECDH gave %d bytes", len(secret))}
			}
			return nil
		})
	})
	return hsm.BytesReply{Bytes: secret}, failure("token "+a.Serial, err)
}

// deriveKEK derives the key that wraps a package key: ECDH between an EC key and a point, the shared
// secret kept inside as an AES key (its last 32 bytes), then AES-CBC over the context (IV zero) as the
// key derivation. The caller holds the lock for writing, and destroys the result.
func (w *worker) deriveKEK(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, point, context []byte, u hsm.Usage, more ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := p521(point); err != nil {
		return 0, err
	}
	if len(context) != 32 {
		return 0, &hsm.Error{Code: hsm.BadInput, Detail: "the context has 32 bytes"}
	}
	aes32 := attributes{attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_EXTRACTABLE, false)}
	shared, err := w.ctx.DeriveKey(s, mechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)),
		key, sessionSecret(pkcs11.CKK_AES, hsm.UseDerive, aes32...))
	if err != nil {
		return 0, fmt.Errorf("agreeing on a key: %w", err)
	}
	defer w.ctx.DestroyObject(s, shared)
	parameter, free := cbcData(context)
	defer free()
	kek, err := w.ctx.DeriveKey(s, mechanism(mechCBCEncrypt, parameter), shared, sessionSecret(pkcs11.CKK_AES, u, append(aes32, more...)...))
	if err != nil {
		return 0, fmt.Errorf("deriving a key: %w", err)
	}
	return kek, nil
}
