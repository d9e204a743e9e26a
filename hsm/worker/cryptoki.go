package worker

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// PKCS#11 v2.40 with the layout of Linux LP64: CK_ULONG is an unsigned long, structures are not packed.
typedef unsigned long ulong_t;
typedef struct { ulong_t type; void *value; ulong_t len; } attr_t;
typedef struct { ulong_t mechanism; void *parameter; ulong_t len; } mech_t;
typedef struct { unsigned char iv[16]; void *data; ulong_t len; } cbc_data_t;
typedef struct { unsigned char major, minor; void *call[68]; } list_t;

// Positions in CK_FUNCTION_LIST.
enum { INIT_PIN = 10, SET_PIN = 11, LOGIN = 18, GET_ATTRIBUTES = 24, WRAP_KEY = 60 };

static list_t *functions(const char *path) {
	void *h = dlopen(path, RTLD_NOW | RTLD_NOLOAD); // loaded already
	if (!h) return NULL;
	ulong_t (*get)(list_t **) = (ulong_t (*)(list_t **))dlsym(h, "C_GetFunctionList");
	list_t *l = NULL;
	if (!get || get(&l) != 0) return NULL;
	return l;
}
static ulong_t wrap_key(list_t *l, ulong_t s, ulong_t m, ulong_t kek, ulong_t key, void *out, ulong_t *n) {
	mech_t mech = { m, NULL, 0 };
	return ((ulong_t (*)(ulong_t, mech_t *, ulong_t, ulong_t, void *, ulong_t *))l->call[WRAP_KEY])(s, &mech, kek, key, out, n);
}
static ulong_t get_attributes(list_t *l, ulong_t s, ulong_t o, attr_t *a, ulong_t n) {
	return ((ulong_t (*)(ulong_t, ulong_t, attr_t *, ulong_t))l->call[GET_ATTRIBUTES])(s, o, a, n);
}
static ulong_t login(list_t *l, ulong_t s, ulong_t user, void *pin, ulong_t n) {
	return ((ulong_t (*)(ulong_t, ulong_t, void *, ulong_t))l->call[LOGIN])(s, user, pin, n);
}
static ulong_t init_pin(list_t *l, ulong_t s, void *pin, ulong_t n) {
	return ((ulong_t (*)(ulong_t, void *, ulong_t))l->call[INIT_PIN])(s, pin, n);
}
static ulong_t set_pin(list_t *l, ulong_t s, void *old, ulong_t on, void *pin, ulong_t n) {
	return ((ulong_t (*)(ulong_t, void *, ulong_t, void *, ulong_t))l->call[SET_PIN])(s, old, on, pin, n);
}
*/
import "C"

import (
	"errors"
	"maps"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// cryptoki makes the calls that miekg/pkcs11 cannot make: C_WrapKey in one go (asking for the size
// first doubles the work in SoftHSM and fails in NSS), C_GetAttributeValue that tells which of several
// attributes are there, and the calls with codes, from bytes that can be wiped.
type cryptoki struct{ list *C.list_t }

func loadCryptoki(path string) (*cryptoki, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	l := C.functions(p)
	if l == nil {
		return nil, errors.New("the library has no C_GetFunctionList")
	}
	return &cryptoki{l}, nil
}

func rv(code C.ulong_t) error {
	if code == 0 {
		return nil
	}
	return pkcs11.Error(code)
}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

// cString copies a text to C memory, for good: a module may read its initialization argument later.
func cString(s string) unsafe.Pointer { return unsafe.Pointer(C.CString(s)) }

// wrapKey calls C_WrapKey once with room for size bytes.
func (c *cryptoki) wrapKey(s pkcs11.SessionHandle, mechanism uint, kek, key pkcs11.ObjectHandle, size int) ([]byte, error) {
	out := make([]byte, size)
	n := C.ulong_t(size)
	if err := rv(C.wrap_key(c.list, C.ulong_t(s), C.ulong_t(mechanism), C.ulong_t(kek), C.ulong_t(key), ptr(out), &n)); err != nil {
		return nil, err
	}
	if int(n) > size {
		return nil, pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL)
	}
	return out[:n], nil
}

func (c *cryptoki) login(s pkcs11.SessionHandle, user uint, code []byte) error {
	return rv(C.login(c.list, C.ulong_t(s), C.ulong_t(user), ptr(code), C.ulong_t(len(code))))
}

func (c *cryptoki) initPIN(s pkcs11.SessionHandle, code []byte) error {
	return rv(C.init_pin(c.list, C.ulong_t(s), ptr(code), C.ulong_t(len(code))))
}

func (c *cryptoki) setPIN(s pkcs11.SessionHandle, old, code []byte) error {
	return rv(C.set_pin(c.list, C.ulong_t(s), ptr(old), C.ulong_t(len(old)), ptr(code), C.ulong_t(len(code))))
}

const unavailable = ^C.ulong_t(0) // CK_UNAVAILABLE_INFORMATION

// room is how much is offered for an attribute at first; most fit, and the rest are asked for again.
func room(attribute uint) int {
	switch attribute {
	case pkcs11.CKA_VALUE, pkcs11.CKA_SUBJECT:
		return 4096
	case pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_KEY_INFO:
		return 1100
	case pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_EC_POINT, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_PUBLIC_EXPONENT:
		return 256
	}
	return 32
}

// mostAttribute bounds one attribute value.
const mostAttribute = 64 << 10

// attributes reads several attributes with one call. Those that the object does not have, or does not
// show, are missing from the result.
func (c *cryptoki) attributes(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint) (map[uint][]byte, error) {
	values, short, err := c.read(s, o, types, room)
	if err != nil && len(types) > 1 {
		// One bad attribute spoils the call: SoftHSM 2.6.1 fails on the dates of private objects.
		values = map[uint][]byte{}
		for _, t := range types {
			one, more, err1 := c.read(s, o, []uint{t}, room)
			if err1 == nil {
				err, short = nil, append(short, more...)
				maps.Copy(values, one)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	for _, t := range short { // too long for the first guess, or not there: ask for the size of each
		size := 0
		var a C.attr_t
		a._type = C.ulong_t(t)
		arr := (*C.attr_t)(C.calloc(1, C.size_t(unsafe.Sizeof(a))))
		*arr = a
		code := C.get_attributes(c.list, C.ulong_t(s), C.ulong_t(o), arr, 1)
		if code == 0 && arr.len != unavailable && arr.len <= mostAttribute {
			size = int(arr.len)
		}
		C.free(unsafe.Pointer(arr))
		if size == 0 {
			continue
		}
		more, _, err := c.read(s, o, []uint{t}, func(uint) int { return size })
		if err != nil {
			return nil, err
		}
		if v, ok := more[t]; ok {
			values[t] = v
		}
	}
	return values, nil
}

// read makes one C_GetAttributeValue call (PKCS#11 2.40, 4.6.5: an attribute that is missing, hidden
// or longer than its buffer gets the length CK_UNAVAILABLE_INFORMATION, and the others their values).
func (c *cryptoki) read(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, types []uint, room func(uint) int) (values map[uint][]byte, short []uint, err error) {
	total := 0
	for _, t := range types {
		total += room(t)
	}
	head := C.size_t(len(types)) * C.size_t(unsafe.Sizeof(C.attr_t{}))
	mem := C.calloc(1, head+C.size_t(total))
	defer C.free(mem)
	arr := unsafe.Slice((*C.attr_t)(mem), len(types))
	at := unsafe.Add(mem, head)
	for i, t := range types {
		arr[i]._type, arr[i].value, arr[i].len = C.ulong_t(t), at, C.ulong_t(room(t))
		at = unsafe.Add(at, room(t))
	}
	err = rv(C.get_attributes(c.list, C.ulong_t(s), C.ulong_t(o), &arr[0], C.ulong_t(len(arr))))
	partly := false
	switch err {
	case nil:
	case pkcs11.Error(pkcs11.CKR_BUFFER_TOO_SMALL), pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE), pkcs11.Error(pkcs11.CKR_ATTRIBUTE_TYPE_INVALID):
		partly = true // which error is named is the module's choice when several apply
	default:
		return nil, nil, err
	}
	values = make(map[uint][]byte, len(types))
	for i, t := range types {
		n := arr[i].len
		switch {
		case partly && (n == unavailable || int(n) > room(t)):
			short = append(short, t)
		case n != unavailable && int(n) <= room(t):
			values[t] = C.GoBytes(arr[i].value, C.int(n))
		}
	}
	return values, short, nil
}

// cbcData builds the parameter of CKM_AES_CBC_ENCRYPT_DATA (CK_AES_CBC_ENCRYPT_DATA_PARAMS, PKCS#11
// 2.40, 2.16.1) with an IV of zero. Call free after the PKCS#11 call.
func cbcData(data []byte) (parameter []byte, free func()) {
	p := C.CBytes(data)
	var d C.cbc_data_t
	d.data, d.len = p, C.ulong_t(len(data))
	return C.GoBytes(unsafe.Pointer(&d), C.int(unsafe.Sizeof(d))), func() { C.free(p) }
}

// template builds an attribute whose value is an array of attributes, such as CKA_UNWRAP_TEMPLATE. Call
// free after the PKCS#11 call.
func template(attribute uint, inner []*pkcs11.Attribute) (*pkcs11.Attribute, func()) {
	n := C.size_t(len(inner)) * C.size_t(unsafe.Sizeof(C.attr_t{}))
	mem := C.calloc(1, n)
	arr := unsafe.Slice((*C.attr_t)(mem), len(inner))
	held := []unsafe.Pointer{mem}
	for i, a := range inner {
		v := C.CBytes(a.Value)
		held = append(held, v)
		arr[i]._type, arr[i].value, arr[i].len = C.ulong_t(a.Type), v, C.ulong_t(len(a.Value))
	}
	return &pkcs11.Attribute{Type: attribute, Value: C.GoBytes(mem, C.int(n))}, func() {
		for _, p := range held {
			C.free(p)
		}
	}
}
