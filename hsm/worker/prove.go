package worker

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// prove lets a key prove that it is the one that was promised: a private key by a signature that its
// public key verifies, a secret key by its check value.
func (w *worker) prove(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, k hsm.Key, challenge []byte) ([]byte, error) {
	if k.Class == hsm.SecretKey {
		var check []byte
		err := w.reading(func() (err error) {
			check, err = w.mac(s, h, keyTypes[k.Type])
			return err
		})
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(check, k.Check) {
			return nil, &hsm.Error{Code: hsm.NotProved, Detail: "its check value is not the promised one"}
		}
		return check, nil
	}
	m, data, err := hsm.ProofInput(k, challenge)
	if err != nil {
		return nil, err
	}
	var signature []byte
	if err := w.reading(func() (err error) {
		signature, err = w.signIn(s, h, m, data)
		return err
	}); err != nil {
		return nil, &hsm.Error{Code: hsm.NotProved, Detail: "it does not sign: " + err.Error()}
	}
	return signature, hsm.VerifyProof(k.Public, challenge, signature)
}

// mac computes the check value of a secret key that may sign. The caller holds the lock for reading.
func (w *worker) mac(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, keyType uint) ([]byte, error) {
	return w.signIn(s, h, macMechanism(keyType), []byte(hsm.CheckText))
}

func macMechanism(keyType uint) hsm.Mechanism {
	if keyType == pkcs11.CKK_AES {
		return hsm.CMAC
	}
	return hsm.HMACSHA256
}

// checkValue computes the check value of a token's secret key; nil where the module or the key does
// not allow it. A key that may not sign is copied to the session as one that may: the copy never
// leaves the token and is gone at once.
func (w *worker) checkValue(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, o object) []byte {
	kt, _ := o.ulong(pkcs11.CKA_KEY_TYPE)
	if kt != pkcs11.CKK_AES && kt != pkcs11.CKK_GENERIC_SECRET {
		return nil
	}
	var check []byte
	if o.bool(pkcs11.CKA_SIGN) {
		w.reading(func() (err error) {
			check, err = w.mac(s, h, kt)
			return err
		})
		return check
	}
	w.writing(func() error {
		c, err := w.ctx.CopyObject(s, h, attributes{attr(pkcs11.CKA_TOKEN, false), attr(pkcs11.CKA_SIGN, true)}) // keeps its mechanisms, so the MAC may still be refused
		if err != nil {
			return err
		}
		defer w.ctx.DestroyObject(s, c)
		check, err = w.mac(s, c, kt)
		return err
	})
	return check
}

// serialDER is a certificate's serial number as PKCS#11 wants it: a DER INTEGER.
func serialDER(c *x509.Certificate) []byte {
	der, _ := asn1.Marshal(c.SerialNumber) // a parsed certificate has one
	return der
}
