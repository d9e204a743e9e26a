// Package bench measures Keyferry beside the bare PKCS#11 calls that it cannot do without, in one run on
// the same machine, so that its figures are ratios and not a machine's.
//
// bare.go is the floor, sync_test.go the measurement; "make bench" runs it.
package bench

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stddef.h>
typedef unsigned long ulong_t;
typedef struct { ulong_t mechanism; void *parameter; ulong_t len; } mech_t;

// One C_WrapKey call with a buffer that is large enough. miekg/pkcs11 asks for the size first, which makes
// SoftHSM do all the work twice.
static ulong_t wrap(const char *path, ulong_t s, ulong_t kek, ulong_t key, void *out, ulong_t *n) {
	void *h = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
	ulong_t (*f)(ulong_t, mech_t *, ulong_t, ulong_t, void *, ulong_t *) = h ? dlsym(h, "C_WrapKey") : NULL;
	mech_t mech = { 0x210A, NULL, 0 };
	return f ? f(s, &mech, kek, key, out, n) : 1;
}
*/
import "C"

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// Bare is a SoftHSM used directly, by a program that does nothing else.
type Bare struct {
	path string
	conf string
	ctx  *pkcs11.Ctx
}

// OpenBare loads SoftHSM with a configuration of its own, from a copy of the library in dir: a library is
// one instance in a process, its copy another.
func OpenBare(path, conf, dir string) (*Bare, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	path = filepath.Join(dir, "softhsm-bare.so")
	if err := os.WriteFile(path, b, 0o700); err != nil {
		return nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, err
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, errors.New("SoftHSM cannot be loaded")
	}
	return &Bare{path, conf, ctx}, ctx.Initialize()
}

// Reload initializes SoftHSM anew, so that it sees new tokens. Sessions end.
func (b *Bare) Reload() error {
	if err := b.ctx.Finalize(); err != nil {
		return err
	}
	if err := os.Setenv("SOFTHSM2_CONF", b.conf); err != nil {
		return err
	}
	return b.ctx.Initialize()
}

// Token is a session on one token, logged in.
type Token struct {
	bare *Bare
	s    pkcs11.SessionHandle
	kek  pkcs11.ObjectHandle
}

func attr(t uint, v any) *pkcs11.Attribute { return pkcs11.NewAttribute(t, v) }

// Open logs in to the token with a label. Every token gets the same wrapping key, as a session object.
func (b *Bare) Open(label, pin string) (*Token, error) {
	slots, err := b.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, slot := range slots {
		if t, err := b.ctx.GetTokenInfo(slot); err != nil || t.Label != label {
			continue
		}
		s, err := b.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return nil, err
		}
		if err := b.ctx.Login(s, pkcs11.CKU_USER, pin); err != nil {
			return nil, err
		}
		kek, err := b.ctx.CreateObject(s, []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_VALUE, []byte("a wrapping key for benchmarks 32")), attr(pkcs11.CKA_WRAP, true), attr(pkcs11.CKA_UNWRAP, true),
		})
		return &Token{b, s, kek}, err
	}
	return nil, fmt.Errorf("no token %q", label)
}

var p256 = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}

func privateTemplate(keyType uint, token bool, id []byte, label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attr(pkcs11.CKA_KEY_TYPE, keyType), attr(pkcs11.CKA_TOKEN, token), attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, true), attr(pkcs11.CKA_SIGN, true), attr(pkcs11.CKA_DECRYPT, false),
		attr(pkcs11.CKA_UNWRAP, false), attr(pkcs11.CKA_SIGN_RECOVER, false), attr(pkcs11.CKA_DERIVE, false), attr(pkcs11.CKA_ID, id), attr(pkcs11.CKA_LABEL, label),
	}
}

// GenerateEC makes a P-256 key pair on the token.
func (t *Token) GenerateEC(id []byte, label string) (pkcs11.ObjectHandle, error) {
	_, key, err := t.bare.ctx.GenerateKeyPair(t.s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_EC_PARAMS, p256), attr(pkcs11.CKA_ID, id), attr(pkcs11.CKA_LABEL, label), attr(pkcs11.CKA_VERIFY, true)},
		privateTemplate(pkcs11.CKK_EC, true, id, label)[2:])
	return key, err
}

// CreateRSA puts an RSA key pair on the token.
func (t *Token) CreateRSA(k *rsa.PrivateKey, id []byte, label string) (pkcs11.ObjectHandle, error) {
	_, err := t.bare.ctx.CreateObject(t.s, []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA), attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id), attr(pkcs11.CKA_LABEL, label),
		attr(pkcs11.CKA_VERIFY, true), attr(pkcs11.CKA_MODULUS, k.N.Bytes()), attr(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E)).Bytes())})
	if err != nil {
		return 0, err
	}
	return t.bare.ctx.CreateObject(t.s, append(privateTemplate(pkcs11.CKK_RSA, true, id, label),
		attr(pkcs11.CKA_MODULUS, k.N.Bytes()), attr(pkcs11.CKA_PUBLIC_EXPONENT, big.NewInt(int64(k.E)).Bytes()), attr(pkcs11.CKA_PRIVATE_EXPONENT, k.D.Bytes()),
		attr(pkcs11.CKA_PRIME_1, k.Primes[0].Bytes()), attr(pkcs11.CKA_PRIME_2, k.Primes[1].Bytes()), attr(pkcs11.CKA_EXPONENT_1, k.Precomputed.Dp.Bytes()),
		attr(pkcs11.CKA_EXPONENT_2, k.Precomputed.Dq.Bytes()), attr(pkcs11.CKA_COEFFICIENT, k.Precomputed.Qinv.Bytes())))
}

// Wrap calls C_WrapKey once for each key.
func (t *Token) Wrap(keys []pkcs11.ObjectHandle) ([][]byte, error) {
	path := C.CString(t.bare.path) // a few bytes, once per run
	blobs := make([][]byte, 0, len(keys))
	for _, k := range keys {
		out := make([]byte, 16<<10)
		n := C.ulong_t(len(out))
		if rv := C.wrap(path, C.ulong_t(t.s), C.ulong_t(t.kek), C.ulong_t(k), unsafe.Pointer(&out[0]), &n); rv != 0 {
			return nil, pkcs11.Error(rv)
		}
		blobs = append(blobs, out[:n])
	}
	return blobs, nil
}

// Unwrap calls C_UnwrapKey once for each blob, to the token.
func (t *Token) Unwrap(blobs [][]byte, keyType uint) error {
	for i, b := range blobs {
		_, err := t.bare.ctx.UnwrapKey(t.s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, t.kek, b,
			privateTemplate(keyType, true, fmt.Appendf(nil, "key %04d", i), fmt.Sprintf("key %04d", i)))
		if err != nil {
			return err
		}
	}
	return nil
}
