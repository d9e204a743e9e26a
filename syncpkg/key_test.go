package syncpkg

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func TestKeyValidate(t *testing.T) {
	w := newWorld(t)
	keys := map[string]func() Key{
		"RSA":     func() Key { return w.allKeys(t)[0] },
		"EC":      func() Key { return w.privateKey(t, "p384") },
		"Ed25519": func() Key { return w.privateKey(t, "ed25519") },
		"AES":     func() Key { return w.secretKey(t, TypeAES, "aes256") },
		"generic": func() Key { return w.secretKey(t, TypeGeneric, "generic160") },
	}
	for name, key := range keys {
		if err := key().Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := strings.Repeat("x", MaxLabel)
	for _, c := range []struct {
		key, name string
		edit      func(k *Key)
		ok        bool
	}{
		{"EC", "label of the longest", func(k *Key) { k.Label = long }, true},
		{"EC", "label too long", func(k *Key) { k.Label = long + "x" }, false},
		{"EC", "no label", func(k *Key) { k.Label = "" }, true},
		{"EC", "label not UTF-8", func(k *Key) { k.Label = "Schl\xfcssel" }, false},
		{"EC", "label with a control character", func(k *Key) { k.Label = "a\x1b[31m" }, false},
		{"EC", "label with a line separator", func(k *Key) { k.Label = "a\u2028b" }, false},
		{"EC", "no id", func(k *Key) { k.ID = "" }, true},
		{"EC", "id of the longest", func(k *Key) { k.ID = strings.Repeat("ab", MaxID) }, true},
		{"EC", "id too long", func(k *Key) { k.ID = strings.Repeat("ab", MaxID+1) }, false},
		{"EC", "id of odd length", func(k *Key) { k.ID = "abc" }, false},
		{"EC", "id in upper case", func(k *Key) { k.ID = "AB" }, false},
		{"EC", "no usage", func(k *Key) { k.Usage = nil }, true},
		{"EC", "usage unsorted", func(k *Key) { k.Usage = []string{"sign", "derive"} }, false},
		{"EC", "usage twice", func(k *Key) { k.Usage = []string{"sign", "sign"} }, false},
		{"EC", "usage of a public key", func(k *Key) { k.Usage = []string{"verify"} }, false},
		{"EC", "mechanisms", func(k *Key) { k.Mechanisms = []uint32{0x1041, 0x80000001} }, true},
		{"EC", "mechanisms unsorted", func(k *Key) { k.Mechanisms = []uint32{2, 1} }, false},
		{"EC", "too many mechanisms", func(k *Key) {
			for i := range uint32(MaxMechanisms + 1) {
				k.Mechanisms = append(k.Mechanisms, i)
			}
		}, false},
		{"EC", "dates", func(k *Key) { k.StartDate, k.EndDate = "2026-02-28", "2026-02-28" }, true},
		{"EC", "date that is none", func(k *Key) { k.StartDate = "2026-02-29" }, false},
		{"EC", "dates in the wrong order", func(k *Key) { k.StartDate, k.EndDate = "2026-02-28", "2026-02-27" }, false},
		{"EC", "wrapped empty", func(k *Key) { k.Wrapped = nil }, false},
		{"EC", "wrapped too short", func(k *Key) { k.Wrapped = make([]byte, MinWrapped-8) }, false},
		{"EC", "wrapped of the longest", func(k *Key) { k.Wrapped = make([]byte, MaxWrapped) }, true},
		{"EC", "wrapped too long", func(k *Key) { k.Wrapped = make([]byte, MaxWrapped+8) }, false},
		{"EC", "wrapped no multiple of 8", func(k *Key) { k.Wrapped = make([]byte, 84) }, false},
		{"EC", "unknown class", func(k *Key) { k.Class = "public" }, false},
		{"EC", "other curve", func(k *Key) { k.Curve = CurveP256 }, false},
		{"EC", "bits beside the curve", func(k *Key) { k.Bits = 384 }, false},
		{"EC", "other type", func(k *Key) { k.Type = TypeEd25519 }, false},
		{"EC", "no public key", func(k *Key) { k.Public = nil }, false},
		{"EC", "public key off the curve", func(k *Key) { k.Public = flip(-1)(k.Public) }, false},
		{"EC", "bytes behind the public key", func(k *Key) { k.Public = append(k.Public, 0) }, false},
		{"EC", "public key of X25519", func(k *Key) { k.Public = x25519SPKI }, false},
		{"EC", "public key on P-224", func(k *Key) { k.Curve, k.Public = "P-224", p224SPKI(t) }, false},
		{"EC", "check value", func(k *Key) { k.Check = make([]byte, 16) }, false},
		{"RSA", "other size", func(k *Key) { k.Bits = 3072 }, false},
		{"RSA", "too short", func(k *Key) { k.Bits, k.Public = 512, rsa512SPKI }, false},
		{"RSA", "public key in a second encoding", func(k *Key) { k.Public = longLength(k.Public) }, false},
		{"RSA", "subject that is none", func(k *Key) { k.Subject = []byte{0x30} }, false},
		{"RSA", "bytes behind the subject", func(k *Key) { k.Subject = append(k.Subject, 0) }, false},
		{"RSA", "public object with the usage of a private key", func(k *Key) { k.PublicObject.Usage = []string{"sign"} }, false},
		{"RSA", "certificate cut short", func(k *Key) { k.Certificates[0].DER = k.Certificates[0].DER[:100] }, false},
		{"RSA", "certificate too long", func(k *Key) { k.Certificates[0].DER = make([]byte, MaxCertificate+1) }, false},
		{"RSA", "certificate with a bad label", func(k *Key) { k.Certificates[0].Label = "\n" }, false},
		{"RSA", "too many certificates", func(k *Key) {
			for range MaxCertificates {
				k.Certificates = append(k.Certificates, k.Certificates[0])
			}
		}, false},
		{"Ed25519", "with a curve", func(k *Key) { k.Curve = "Ed25519" }, false},
		{"AES", "of 100 bits", func(k *Key) { k.Bits = 100 }, false},
		{"AES", "wrapped in the size of another", func(k *Key) { k.Bits = 128 }, false},
		{"AES", "of unknown bits", func(k *Key) { k.Bits = 0 }, true},
		{"AES", "of 248 bits", func(k *Key) { k.Bits = 248 }, false},
		{"AES", "wrapped like no AES key", func(k *Key) { k.Bits, k.Wrapped = 0, make([]byte, 48) }, false},
		{"AES", "check value of HMAC", func(k *Key) { k.Check = bytes.Repeat([]byte{1}, hmacSize) }, false},
		{"AES", "no check value", func(k *Key) { k.Check = nil }, false},
		{"AES", "check value of zeros", func(k *Key) { k.Check = make([]byte, cmacSize) }, false},
		{"AES", "public key", func(k *Key) { k.Public = x25519SPKI }, false},
		{"AES", "certificate", func(k *Key) { k.Certificates = []Certificate{{}} }, false},
		{"AES", "type of private keys", func(k *Key) { k.Type = TypeEC }, false},
		{"generic", "of unknown bits", func(k *Key) { k.Bits = 0 }, true},
		{"generic", "of 192 bits", func(k *Key) { k.Bits = 192 }, true}, // wrapped like 160
		{"generic", "of 128 bits", func(k *Key) { k.Bits = 128 }, false},
		{"generic", "of 200 bits", func(k *Key) { k.Bits = 200 }, false},
		{"generic", "of 161 bits", func(k *Key) { k.Bits = 161 }, false},
		{"generic", "of negative bits", func(k *Key) { k.Bits = -8 }, false},
		{"generic", "too long", func(k *Key) { k.Bits, k.Wrapped = 0, make([]byte, MaxSecret+16) }, false},
		{"generic", "of the longest", func(k *Key) { k.Bits, k.Wrapped = 8*MaxSecret, make([]byte, MaxSecret+8) }, true},
	} {
		t.Run(c.key+" "+c.name, func(t *testing.T) {
			k := keys[c.key]()
			c.edit(&k)
			err := k.Validate()
			if c.ok {
				must(t, err)
				return
			}
			wantKind(t, err, ErrContent)
		})
	}
}

var (
	x25519SPKI = append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x03, 0x21, 0x00}, make([]byte, 32)...)
	rsa512SPKI = append(append([]byte{0x30, 0x5c, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
		0x03, 0x4b, 0x00, 0x30, 0x48, 0x02, 0x41, 0x00}, bytes.Repeat([]byte{0xab}, 64)...), 0x02, 0x03, 0x01, 0x00, 0x01)
)

// longLength rewrites the outer DER length of two bytes in three, which BER allows.
func longLength(der []byte) []byte {
	return append([]byte{der[0], 0x83, 0x00}, der[2:]...)
}

func TestFingerprint(t *testing.T) {
	w := newWorld(t)
	k := w.privateKey(t, "p256")
	sum := sha256.Sum256(k.Public)
	if got, want := k.Fingerprint(), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("of a private key: got %s, want %s", got, want)
	}
	s := w.secretKey(t, TypeAES, "aes256")
	sum = sha256.Sum256(append([]byte("keyferry-secretAES"), s.Check...))
	if got, want := s.Fingerprint(), hex.EncodeToString(sum[:]); got != want {
		t.Errorf("of a secret key: got %s, want %s", got, want)
	}
	k.ID, k.Label = "00", "other"
	if got := k.Fingerprint(); got != w.privateKey(t, "p256").Fingerprint() {
		t.Errorf("it depends on id or label: %s", got)
	}
}

func TestNodeNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "node1": true, "hsm-a-2": true, "1": true, strings.Repeat("a", MaxNode): true,
		"": false, "Node1": false, "-a": false, "a-": false, "a.b": false, "a_b": false, "a b": false, "nöde": false,
		"a\n": false, strings.Repeat("a", MaxNode+1): false,
	} {
		if err := checkNode(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
