package syncpkg

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// What the HSMs do under SchemeECDHP521, in software: it makes the wrapped keys of the vectors, and shows that
// FORMAT.md says enough to do it.

// kdf is CKM_AES_CBC_ENCRYPT_DATA with a zero IV over the context, under the last 32 bytes of the shared X.
func kdf(t testing.TB, private *ecdh.PrivateKey, public []byte, context [32]byte) []byte {
	t.Helper()
	peer, err := ecdh.P521().NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	x, err := private.ECDH(peer)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(x[len(x)-32:])
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 32)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(key, context[:])
	return key
}

// wrapKWP is RFC 5649 section 4.1.
func wrapKWP(t testing.TB, key, plaintext []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	out := binary.BigEndian.AppendUint32([]byte{0xA6, 0x59, 0x59, 0xA6}, uint32(len(plaintext)))
	out = append(out, plaintext...)
	out = append(out, make([]byte, (8-len(plaintext)%8)%8)...)
	if len(out) == 16 {
		block.Encrypt(out, out)
		return out
	}
	n := len(out)/8 - 1
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out[:8])
			copy(b[8:], out[8*i:])
			block.Encrypt(b[:], b[:])
			a := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(out[:8], a)
			copy(out[8*i:8*i+8], b[8:])
		}
	}
	return out
}

// check returns Key.Check.
func check(t testing.TB, typ string, key []byte) []byte {
	t.Helper()
	if typ == TypeAES {
		return cmac(t, key, []byte(CheckText))
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(CheckText))
	return m.Sum(nil)
}

// cmac is AES-CMAC, NIST SP 800-38B section 6.2.
func cmac(t testing.TB, key, message []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	double := func(b []byte) {
		carry := b[0] >> 7
		for i := range 15 {
			b[i] = b[i]<<1 | b[i+1]>>7
		}
		b[15] = b[15]<<1 ^ carry*0x87
	}
	subkey := make([]byte, 16)
	block.Encrypt(subkey, subkey)
	double(subkey)
	mac := make([]byte, 16)
	for len(message) > 16 {
		for i := range 16 {
			mac[i] ^= message[i]
		}
		block.Encrypt(mac, mac)
		message = message[16:]
	}
	if len(message) < 16 {
		double(subkey)
		message = append(append([]byte{}, message...), 0x80)
	}
	for i, c := range message {
		mac[i] ^= c
	}
	for i, c := range subkey {
		mac[i] ^= c
	}
	block.Encrypt(mac, mac)
	return mac
}

// TestSchemePrimitives holds the functions above against the published examples.
func TestSchemePrimitives(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	kek := unhex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	for _, v := range []struct{ name, got, want string }{
		{"RFC 5649 section 6, 20 octets",
			hex.EncodeToString(wrapKWP(t, kek, unhex("c37b7e6492584340bed12207808941155068f738"))),
			"138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a"},
		{"RFC 5649 section 6, 7 octets",
			hex.EncodeToString(wrapKWP(t, kek, unhex("466f7250617369"))),
			"afbeb0f07dfbf5419200f2ccb50bb24f"},
		{"RFC 4493 section 4, 16 octets",
			hex.EncodeToString(cmac(t, unhex("2b7e151628aed2a6abf7158809cf4f3c"), unhex("6bc1bee22e409f96e93d7e117393172a"))),
			"070a16b46b4d4144f79bdd9dd04a287c"},
		{"RFC 4493 section 4, 40 octets",
			hex.EncodeToString(cmac(t, unhex("2b7e151628aed2a6abf7158809cf4f3c"), unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411"))),
			"dfa66747de9ae63030ca32611497c827"},
	} {
		if v.got != v.want {
			t.Errorf("%s:\ngot  %s\nwant %s", v.name, v.got, v.want)
		}
	}
}
