// Package syncpkg reads and writes key synchronization packages: how keys travel from HSM to HSM in one file.
//
// A package has a head that a person can read and public tools can verify (a JSON header and a detached
// ES512 JWS by the source's identity key), and a body that only the receivers named in the head can open
// (AES-256-GCM under a content key that HPKE seals to each receiver). Inside are the keys, each wrapped within
// the source's HSM, so that this package never sees a key in the clear.
//
// It is bytes in, bytes out: no PKCS#11, files, network or clock. An HSM comes in as a [crypto.Signer] or as an
// [crypto/ecdh.KeyExchanger] behind an [hpke.PrivateKey]. Whom to trust is an argument ([Trust]) and never taken
// from what is read. FORMAT.md describes the bytes, DESIGN.md the reasons.
//
// Reading order: open.go, seal.go, header.go, head.go, jws.go, body.go, content.go, key.go, keycheck.go,
// statement.go, receiverkeys.go, receipt.go, audit.go; encoding.go, limits.go and errors.go serve all of them.
package syncpkg

// FormatVersion is the version of the file format that this package reads and writes.
const FormatVersion = 1

// Suite names every algorithm of a version 1 package but the KEMs, which each seal names for itself: the
// signature (RFC 7518), HPKE's KDF and AEAD (RFC 9180), and the cipher of the body.
const Suite = "ES512+HPKE-HKDF-SHA512-A256GCM+A256GCM"

// SchemeECDHP521 names how the keys of a package are wrapped inside the HSMs: a fresh AES-256 package key wraps each
// key (RFC 5649) and is wrapped itself (RFC 5649) for each receiver, under a key from P-521 ECDH between an
// ephemeral key of the source and the receiver's static transport key, the last 32 bytes of the shared X coordinate,
// put through AES-CBC with a zero IV (CKM_AES_CBC_ENCRYPT_DATA) over the 32 bytes of [Header.Context].
const SchemeECDHP521 = "ecdh-p521+aes-cbc-kdf+rfc5649"

// CheckText is what Key.Check is the MAC of: by AES-CMAC (NIST SP 800-38B, 16 bytes) with AES keys, by HMAC-SHA-256
// (32 bytes) with generic secrets.
const CheckText = "keyferry-sync-package/1 check"

// The HPKE KEMs a receiver may offer, by their IANA numbers.
const (
	KEMP521          = 0x0012 // DHKEM(P-521, HKDF-SHA512), RFC 9180 section 7.1
	KEMMLKEM1024P384 = 0x0051 // MLKEM1024-P384, draft-ietf-hpke-pq; preferred: it stays closed if elliptic curves fall
)
