package worker

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// A listing is what is known of a token's objects. Attributes of an object are read once, because
// reading them costs far more than finding the object; a fresh listing reads them all again.
type listing struct {
	generation uint64
	objects    map[pkcs11.ObjectHandle]object
	reply      hsm.Objects
}

// An object is one object's attributes, as bytes.
type object struct {
	class   uint
	values  map[uint][]byte
	check   []byte    // of secret keys
	loose   bool      // half made
	again   time.Time // from when on it is read once more, because another program was perhaps still writing it
	session bool      // of an export or import, here or nowhere; concerns nobody else. Read each time: it is quick, and torn readings look so
}

// settling is longer than a module takes to write an object, also on a machine that is busy.
const settling = time.Second

func (o object) due(now time.Time) bool { return !o.again.IsZero() && now.After(o.again) }

// equal tells whether two readings of an object say the same.
func (o object) equal(other object) bool {
	return o.class == other.class && o.loose == other.loose && maps.EqualFunc(o.values, other.values, bytes.Equal)
}

func (o object) bool(attribute uint) bool {
	v := o.values[attribute]
	return len(v) == 1 && v[0] != 0
}

func (o object) ulong(attribute uint) (uint, bool) {
	v := o.values[attribute]
	if len(v) != 8 {
		return 0, false
	}
	return uint(binary.NativeEndian.Uint64(v)), true
}

// What is read of each class.
var (
	readKey = []uint{pkcs11.CKA_KEY_TYPE, pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE,
		pkcs11.CKA_LOCAL, pkcs11.CKA_WRAP_WITH_TRUSTED, pkcs11.CKA_START_DATE, pkcs11.CKA_END_DATE,
		pkcs11.CKA_ALLOWED_MECHANISMS, pkcs11.CKA_SIGN, pkcs11.CKA_DECRYPT, pkcs11.CKA_UNWRAP, pkcs11.CKA_DERIVE}
	readPrivate = append(slices.Clip(readKey), pkcs11.CKA_SIGN_RECOVER, pkcs11.CKA_ALWAYS_AUTHENTICATE, pkcs11.CKA_SUBJECT,
		pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_EC_PARAMS)
	readSecret = append(slices.Clip(readKey), pkcs11.CKA_VERIFY, pkcs11.CKA_ENCRYPT, pkcs11.CKA_WRAP, pkcs11.CKA_VALUE_LEN)
	readPublic = []uint{pkcs11.CKA_KEY_TYPE, pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_VERIFY, pkcs11.CKA_ENCRYPT, pkcs11.CKA_WRAP,
		pkcs11.CKA_DERIVE, pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT}
	readCertificate = []uint{pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKA_VALUE}
)

func (w *worker) objects(a hsm.ObjectsArgs) (hsm.Objects, error) {
	var reply hsm.Objects
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		t.listing.Lock() // one listing of a token at a time; others wait rather than do the same work
		defer t.listing.Unlock()
		if err := w.list(t, s, a.Fresh); err != nil {
			return err
		}
		reply = t.cache.reply
		if a.Generation == reply.Generation {
			reply = hsm.Objects{Generation: reply.Generation, Unchanged: true}
		}
		return nil
	})
	return reply, failure("token "+a.Serial, err)
}

// list brings the cache of a token up to date.
func (w *worker) list(t *openToken, s pkcs11.SessionHandle, fresh bool) error {
	c := &t.cache
	old, now := c.objects, time.Now()
	var changed bool
	err := w.reading(func() error {
		handles, err := w.handles(s)
		if err != nil {
			return err
		}
		c.objects = make(map[pkcs11.ObjectHandle]object, len(handles))
		for _, h := range handles {
			was, known := old[h]
			o := was
			if fresh || !known || was.loose || was.session || was.due(now) {
				o = w.read(s, h)
				if known && !fresh && o.equal(was) {
					o.check = was.check
				}
				if old != nil && !known && !o.session { // what a first listing finds was there before
					o.again = now.Add(settling)
				}
				changed = changed || !o.session && (!known || !o.equal(was))
			}
			c.objects[h] = o
		}
		for h, o := range old {
			_, there := c.objects[h]
			changed = changed || !there && !o.session
		}
		return nil
	})
	if err != nil {
		c.objects = old // what was known before stays known
		return err
	}
	if !changed && !fresh && c.generation != 0 {
		return nil
	}
	for h, o := range c.objects { // outside the reading, because it may need to make a session object
		if o.class == pkcs11.CKO_SECRET_KEY && !o.loose && o.check == nil {
			o.check = w.checkValue(s, h, o)
			c.objects[h] = o
		}
	}
	c.generation++
	c.reply = w.assemble(c.objects)
	c.reply.Generation = w.epoch<<32 | c.generation // generations of different children differ
	return nil
}

// handles lists the handles of all objects. Objects of sessions are among them: a template that asks
// for token objects would miss those that a crash left without attributes.
func (w *worker) handles(s pkcs11.SessionHandle) ([]pkcs11.ObjectHandle, error) {
	if err := w.ctx.FindObjectsInit(s, nil); err != nil {
		return nil, err
	}
	defer w.ctx.FindObjectsFinal(s)
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := w.ctx.FindObjects(s, 1000)
		if err != nil {
			return nil, err
		}
		if len(some) == 0 {
			return all, nil
		}
		all = append(all, some...)
	}
}

// read reads one object. What cannot be read counts as loose: a crash, or another program that is
// just writing it.
func (w *worker) read(s pkcs11.SessionHandle, h pkcs11.ObjectHandle) object {
	first, err := w.direct.attributes(s, h, []uint{pkcs11.CKA_CLASS, pkcs11.CKA_TOKEN})
	o := object{values: first}
	class, ok := o.ulong(pkcs11.CKA_CLASS)
	if err != nil || !ok {
		return object{loose: true}
	}
	o.class = class
	if len(o.values[pkcs11.CKA_TOKEN]) != 1 { // torn
		return object{class: class, loose: true}
	}
	if !o.bool(pkcs11.CKA_TOKEN) {
		return object{session: true}
	}
	var types []uint
	switch class {
	case pkcs11.CKO_PRIVATE_KEY:
		types = readPrivate
	case pkcs11.CKO_SECRET_KEY:
		types = readSecret
	case pkcs11.CKO_PUBLIC_KEY:
		types = readPublic
	case pkcs11.CKO_CERTIFICATE:
		types = readCertificate
	default:
		return o
	}
	if o.values, err = w.direct.attributes(s, h, types); err != nil {
		return object{class: class, loose: true}
	}
	o.loose = unfinished(o)
	return o
}

// unfinished tells an object without its numbers from a whole one. Modules write them last, so an object
// that has them has the rest too; one that another program is just writing has not.
func unfinished(o object) bool {
	kt, ok := o.ulong(pkcs11.CKA_KEY_TYPE)
	switch {
	case o.class == pkcs11.CKO_CERTIFICATE:
		return len(o.values[pkcs11.CKA_VALUE]) == 0
	case !ok:
		return true
	case o.class == pkcs11.CKO_SECRET_KEY:
		return false
	case kt == pkcs11.CKK_RSA:
		return len(o.values[pkcs11.CKA_MODULUS]) == 0
	case kt == pkcs11.CKK_EC || kt == keyTypeEdwards:
		return len(o.values[pkcs11.CKA_EC_PARAMS]) == 0 || o.class == pkcs11.CKO_PUBLIC_KEY && len(o.values[pkcs11.CKA_EC_POINT]) == 0
	}
	return false
}

// assemble pairs private keys with the public keys and certificates that share their CKA_ID.
func (w *worker) assemble(objects map[pkcs11.ObjectHandle]object) hsm.Objects {
	var reply hsm.Objects
	public := map[string][]object{}
	certs := map[string][]object{}
	for h, o := range objects {
		id := string(o.values[pkcs11.CKA_ID])
		switch {
		case o.session:
		case o.loose:
			reply.Loose++
		case o.class == pkcs11.CKO_PUBLIC_KEY:
			public[id] = append(public[id], o)
		case o.class == pkcs11.CKO_CERTIFICATE && len(o.values[pkcs11.CKA_VALUE]) > 0:
			certs[id] = append(certs[id], o)
			reply.Certificates = append(reply.Certificates, hsm.Certificate{
				Ref: w.ref(h), ID: []byte(id), Label: label(o), DER: o.values[pkcs11.CKA_VALUE]})
		}
	}
	for h, o := range objects {
		if o.loose || o.session || o.class != pkcs11.CKO_PRIVATE_KEY && o.class != pkcs11.CKO_SECRET_KEY {
			continue
		}
		id := string(o.values[pkcs11.CKA_ID])
		reply.Keys = append(reply.Keys, w.key(h, o, public[id], certs[id]))
	}
	slices.SortFunc(reply.Keys, func(a, b hsm.Key) int { return int(a.Ref.Handle) - int(b.Ref.Handle) })
	slices.SortFunc(reply.Certificates, func(a, b hsm.Certificate) int { return int(a.Ref.Handle) - int(b.Ref.Handle) })
	return reply
}

func (w *worker) key(h pkcs11.ObjectHandle, o object, public, certs []object) hsm.Key {
	k := hsm.Key{
		Ref: w.ref(h), Class: hsm.PrivateKey, ID: o.values[pkcs11.CKA_ID], Label: label(o), Check: o.check,
		Usage: usage(o), Sensitive: o.bool(pkcs11.CKA_SENSITIVE), Extractable: o.bool(pkcs11.CKA_EXTRACTABLE),
		AlwaysAuth: o.bool(pkcs11.CKA_ALWAYS_AUTHENTICATE), WrapTrusted: o.bool(pkcs11.CKA_WRAP_WITH_TRUSTED),
		Local: o.bool(pkcs11.CKA_LOCAL), Subject: o.values[pkcs11.CKA_SUBJECT],
		Start: date(o.values[pkcs11.CKA_START_DATE]), End: date(o.values[pkcs11.CKA_END_DATE]),
		Mechanisms: mechanisms(o.values[pkcs11.CKA_ALLOWED_MECHANISMS]),
	}
	kt, _ := o.ulong(pkcs11.CKA_KEY_TYPE)
	k.Type = typeName(kt)
	if o.class == pkcs11.CKO_SECRET_KEY {
		k.Class = hsm.SecretKey
		if n, ok := o.ulong(pkcs11.CKA_VALUE_LEN); ok {
			k.Bits = int(8 * n)
		}
		return k
	}
	if kt == pkcs11.CKK_EC {
		k.Curve = curveName(o.values[pkcs11.CKA_EC_PARAMS])
	}
	k.Public = publicOf(o)
	for _, p := range public {
		pt, _ := p.ulong(pkcs11.CKA_KEY_TYPE)
		der := publicOf(p)
		if pt != kt || der == nil || k.Public != nil && !bytes.Equal(k.Public, der) {
			continue
		}
		k.Public, k.PublicObject, k.PublicUsage = der, true, usage(p)
	}
	for _, c := range certs {
		k.Alias = cmp.Or(k.Alias, label(c))
		if k.Public != nil {
			continue
		}
		if cert, err := x509.ParseCertificate(c.values[pkcs11.CKA_VALUE]); err == nil && fits(cert.RawSubjectPublicKeyInfo, kt, k.Curve) {
			k.Public = cert.RawSubjectPublicKeyInfo
		}
	}
	if len(o.values[pkcs11.CKA_MODULUS]) > 0 {
		k.Bits = new(big.Int).SetBytes(o.values[pkcs11.CKA_MODULUS]).BitLen()
	}
	return k
}

func label(o object) string { return clean(string(o.values[pkcs11.CKA_LABEL])) }

var usageAttributes = []struct {
	use       hsm.Usage
	attribute uint
}{
	{hsm.UseSign, pkcs11.CKA_SIGN}, {hsm.UseSignRecover, pkcs11.CKA_SIGN_RECOVER}, {hsm.UseVerify, pkcs11.CKA_VERIFY},
	{hsm.UseEncrypt, pkcs11.CKA_ENCRYPT}, {hsm.UseDecrypt, pkcs11.CKA_DECRYPT}, {hsm.UseWrap, pkcs11.CKA_WRAP},
	{hsm.UseUnwrap, pkcs11.CKA_UNWRAP}, {hsm.UseDerive, pkcs11.CKA_DERIVE},
}

func usage(o object) hsm.Usage {
	var u hsm.Usage
	for _, a := range usageAttributes {
		if o.bool(a.attribute) {
			u |= a.use
		}
	}
	return u
}

func typeName(kt uint) string {
	switch kt {
	case pkcs11.CKK_RSA:
		return "RSA"
	case pkcs11.CKK_EC:
		return "EC"
	case keyTypeEdwards:
		return "Ed25519"
	case pkcs11.CKK_AES:
		return "AES"
	case pkcs11.CKK_GENERIC_SECRET:
		return "generic"
	}
	return fmt.Sprintf("0x%X", kt)
}

func curveName(params []byte) string {
	for name, der := range curves {
		if bytes.Equal(params, der) {
			return name
		}
	}
	return hex.EncodeToString(params)
}

// mechanisms reads an array of CK_MECHANISM_TYPE, sorted.
func mechanisms(b []byte) []uint32 {
	var list []uint32
	for ; len(b) >= 8; b = b[8:] {
		if m := binary.NativeEndian.Uint64(b); m <= math.MaxUint32 {
			list = append(list, uint32(m))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// date reads a CK_DATE: eight digits. Anything else counts as absent.
func date(b []byte) time.Time {
	t, err := time.Parse("20060102", string(b))
	if err != nil {
		return time.Time{}
	}
	return t
}
