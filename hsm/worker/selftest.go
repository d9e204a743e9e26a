package worker

import (
	"bytes"
	"crypto/rand"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// RFC 5649 of a known secret under a known key. SoftHSM and NSS give one mechanism number to different
// algorithms, so the self-test compares bytes.
var (
	kwpKey    = []byte("keyferry self-test key, 32 bytes")
	kwpSecret = []byte("keyferry self-test secret, 32 B.")
	kwpBlob   = []byte{
		0x0f, 0xe6, 0x30, 0x5a, 0x51, 0xd0, 0x99, 0x6c, 0x60, 0x23, 0x1c, 0x31, 0x56, 0x71, 0x0a, 0x99, 0x5e, 0x62, 0x09, 0x7b,
		0x6d, 0x32, 0xf4, 0x1b, 0xba, 0x64, 0x39, 0xea, 0xac, 0x8f, 0x74, 0xaf, 0x5f, 0xf9, 0x3a, 0x61, 0x8a, 0x70, 0x8e, 0x87,
	}
)

// selfTest tries everything that the synchronization of keys needs, with session objects that leave no
// trace on the token.
func (w *worker) selfTest(a hsm.TokenArgs) (hsm.SelfTestReply, error) {
	var reply hsm.SelfTestReply
	note := func(name string, err error) {
		one := hsm.Ability{Name: name, OK: err == nil}
		if err != nil {
			one.Note = failure("", err).(*hsm.Error).Detail
			if one.Note == "" {
				one.Note = err.Error()
			}
		}
		reply.Abilities = append(reply.Abilities, one)
	}
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		note("wrap by RFC 5649", w.testWrapping(s))
		note("agree on keys inside the token", w.testAgreement(s))
		for _, spec := range []hsm.KeySpec{
			{Type: "EC", Curve: "P-256"}, {Type: "EC", Curve: "P-384"}, {Type: "EC", Curve: "P-521"},
			{Type: "RSA", Bits: 2048}, {Type: "Ed25519"}, {Type: "AES", Bits: 256},
		} {
			name := hsm.Key{Type: spec.Type, Curve: spec.Curve, Bits: spec.Bits}.Kind()
			note("export and import "+name, w.testTravel(s, spec))
		}
		return nil
	})
	return reply, failure("token "+a.Serial, err)
}

// testWrapping compares the module's wrapping with RFC 5649, byte for byte.
func (w *worker) testWrapping(s pkcs11.SessionHandle) error {
	return w.writing(func() error {
		plain := func(keyType uint, value []byte, u hsm.Usage, extractable bool) (pkcs11.ObjectHandle, error) {
			return w.ctx.CreateObject(s, sessionSecret(keyType, u, attr(pkcs11.CKA_VALUE, value), attr(pkcs11.CKA_EXTRACTABLE, extractable)))
		}
		kek, err := plain(pkcs11.CKK_AES, kwpKey, hsm.UseWrap, false)
		if err != nil {
			return err
		}
		secret, err := plain(pkcs11.CKK_AES, kwpSecret, 0, true)
		if err != nil {
			return err
		}
		blob, err := w.direct.wrapKey(s, w.profile.kwp, kek, secret, 64)
		if err == nil && !bytes.Equal(blob, kwpBlob) {
			err = &hsm.Error{Code: hsm.Unsupported, Detail: "its wrapping is not RFC 5649"}
		}
		return err
	})
}

// testAgreement derives a package key's wrapping key on both sides and opens with one what the other
// has wrapped.
func (w *worker) testAgreement(s pkcs11.SessionHandle) error {
	return w.writing(func() error {
		tr := &transfer{session: s}
		public, transport, err := w.generateIn(s, hsm.KeySpec{Type: "EC", Curve: "P-521", Usage: hsm.UseDerive}, false)
		if err != nil {
			return err
		}
		o, err := w.numbers(s, public)
		if err != nil {
			return err
		}
		context := bytes.Repeat([]byte{7}, 32)
		ephemeral, err := w.packageKey(tr)
		if err != nil {
			return err
		}
		wrapped, err := w.wrapPackageKey(tr, hsm.Receiver{Transport: point(o.values[pkcs11.CKA_EC_POINT]), Context: context})
		if err != nil {
			return err
		}
		return w.openPackageKey(tr, transport, hsm.ImportArgs{Ephemeral: ephemeral, Context: context, PackageKey: wrapped})
	})
}

// testTravel generates a key, wraps and unwraps it, and lets the result prove itself.
func (w *worker) testTravel(s pkcs11.SessionHandle, spec hsm.KeySpec) error {
	spec.Usage, spec.Extractable = hsm.UseSign, true
	var tr transfer
	var key, opened pkcs11.ObjectHandle
	var k hsm.Incoming
	challenge := make([]byte, 32)
	rand.Read(challenge)
	err := w.writing(func() (err error) {
		tr = transfer{session: s}
		kek, err := w.ctx.GenerateKey(s, mechanism(pkcs11.CKM_AES_KEY_GEN, nil),
			sessionSecret(pkcs11.CKK_AES, hsm.UseWrap|hsm.UseUnwrap, attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_EXTRACTABLE, false)))
		if err != nil {
			return err
		}
		tr.private, tr.secret = kek, kek
		public, made, err := w.generateIn(s, spec, false)
		if err != nil {
			return err
		}
		key = made
		k.Key = hsm.Key{Class: hsm.SecretKey, Type: spec.Type, Curve: spec.Curve, Extractable: true}
		if spec.Type != "AES" {
			o, err := w.numbers(s, public)
			if err != nil {
				return err
			}
			k.Class, k.Public = hsm.PrivateKey, publicOf(o)
		}
		k.Blob, err = w.direct.wrapKey(s, w.profile.kwp, kek, key, hsm.MaxWrapped)
		if err != nil {
			return err
		}
		opened, err = w.openKey(&tr, k, false, hsm.UseSign)
		return err
	})
	if err != nil {
		return err
	}
	if k.Class == hsm.SecretKey {
		if err := w.reading(func() (err error) {
			k.Check, err = w.mac(s, key, keyTypes[spec.Type])
			return err
		}); err != nil {
			return err
		}
	}
	_, err = w.prove(s, opened, k.Key, challenge)
	return err
}
