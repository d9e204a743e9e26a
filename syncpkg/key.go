package syncpkg

import (
	"crypto/sha256"
	"encoding/hex"
)

// The classes and types of keys, and the curves of EC keys.
const (
	ClassPrivate = "private" // CKO_PRIVATE_KEY
	ClassSecret  = "secret"  // CKO_SECRET_KEY

	TypeRSA     = "RSA"
	TypeEC      = "EC"
	TypeEd25519 = "Ed25519"
	TypeAES     = "AES"
	TypeGeneric = "generic" // CKK_GENERIC_SECRET

	CurveP256 = "P-256"
	CurveP384 = "P-384"
	CurveP521 = "P-521"
)

// Key is one key, wrapped, with all that its object on the receiver's token needs beside the wrapped bytes, because
// unwrapping gives none of it (PKCS#11 v2.40 base, section 5.13, C_UnwrapKey).
type Key struct {
	Class string `json:"class"`           // ClassPrivate or ClassSecret
	Type  string `json:"type"`            // one of the Type constants
	Bits  int    `json:"bits,omitempty"`  // RSA: of the modulus; secret keys: of the value, or 0 if unknown
	Curve string `json:"curve,omitempty"` // EC: one of the Curve constants

	ID     string `json:"id"`               // CKA_ID, lower-case hexadecimal; may be empty
	Label  string `json:"label"`            // CKA_LABEL
	Public []byte `json:"public,omitempty"` // private keys: SubjectPublicKeyInfo, DER
	Check  []byte `json:"check,omitempty"`  // secret keys: the MAC of CheckText

	Usage       []string `json:"usage,omitempty"`      // true flags, sorted: "sign-recover" is CKA_SIGN_RECOVER
	Mechanisms  []uint32 `json:"mechanisms,omitempty"` // CKA_ALLOWED_MECHANISMS, sorted; none: any mechanism
	Sensitive   bool     `json:"sensitive"`            // CKA_SENSITIVE
	Extractable bool     `json:"extractable"`          // CKA_EXTRACTABLE
	StartDate   string   `json:"startDate,omitempty"`  // CKA_START_DATE, as 2006-01-02
	EndDate     string   `json:"endDate,omitempty"`    // CKA_END_DATE, as 2006-01-02
	Subject     []byte   `json:"subject,omitempty"`    // private keys: CKA_SUBJECT, DER

	PublicObject *PublicObject `json:"publicObject,omitempty"` // private keys: a public key object beside it
	Certificates []Certificate `json:"certificates,omitempty"` // private keys: certificates with the same CKA_ID
	Wrapped      []byte        `json:"wrapped"`                // the key under the package key, RFC 5649
}

// PublicObject says that a public key object with the same CKA_ID and CKA_LABEL stands beside the private key on the
// source, and what it may be used for.
type PublicObject struct {
	Usage []string `json:"usage,omitempty"` // flags that are true, sorted
}

// Certificate is an X.509 certificate object. Its label counts: SunPKCS11 takes it for the alias of the key.
type Certificate struct {
	Label string `json:"label"` // CKA_LABEL
	DER   []byte `json:"der"`   // CKA_VALUE
}

// Fingerprint identifies the key, whatever its id and label are: SHA-256 in lower-case hexadecimal, for private keys
// over Public, for secret keys over "keyferry-secret", the type and Check.
func (k Key) Fingerprint() string {
	sum := sha256.Sum256(k.Public)
	if k.Class == ClassSecret {
		sum = sha256.Sum256(append([]byte("keyferry-secret"+k.Type), k.Check...))
	}
	return hex.EncodeToString(sum[:])
}
