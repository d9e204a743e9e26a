package hsm

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"fmt"
	"strings"
	"time"
)

// Info describes a module as it presents itself (PKCS#11 C_GetInfo) and what this program knows of it.
type Info struct {
	Manufacturer string
	Description  string
	Version      string // of the library
	Cryptoki     string // of the interface
	Profile      string // the row of the module table that applies
	Tokens       []TokenInfo
}

// TokenInfo describes one token (PKCS#11 C_GetTokenInfo). Serial is its address in this program:
// slot numbers move when devices come and go, serial numbers do not.
type TokenInfo struct {
	Serial       string
	Label        string
	Manufacturer string
	Model        string
	Hardware     string // version
	Firmware     string // version
	SlotID       uint   // where the module shows the token today; for display only
	Initialized  bool
	CodeSet      bool // the user PIN is initialized
	CodeCountLow bool // a wrong code was tried since the last right one
	CodeFinalTry bool // the next wrong code locks the token
	CodeLocked   bool
	MinCode      int // bytes
	MaxCode      int // bytes
	LoggedIn     bool
}

// Class is what kind of key an object is.
type Class string

// The classes of keys.
const (
	PrivateKey Class = "private"
	SecretKey  Class = "secret"
)

// Usage is the set of operations a key allows (PKCS#11 CKA_SIGN and its siblings).
type Usage uint16

// The single usages.
const (
	UseSign Usage = 1 << iota
	UseSignRecover
	UseVerify
	UseEncrypt
	UseDecrypt
	UseWrap
	UseUnwrap
	UseDerive
)

var usageNames = []string{"sign", "sign-recover", "verify", "encrypt", "decrypt", "wrap", "unwrap", "derive"}

// Names lists the usages in a fixed order.
func (u Usage) Names() []string {
	names := []string{}
	for i, n := range usageNames {
		if u&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

func (u Usage) String() string { return strings.Join(u.Names(), ",") }

// ParseUsage is the inverse of Usage.Names.
func ParseUsage(names []string) (Usage, error) {
	var u Usage
next:
	for _, name := range names {
		for i, n := range usageNames {
			if n == name {
				u |= 1 << i
				continue next
			}
		}
		return 0, fmt.Errorf("%q is not a key usage", name)
	}
	return u, nil
}

// Ref points to an object inside a running child. It is good until the child restarts; then
// operations on it fail with Stale, and the caller lists again.
type Ref struct {
	Epoch  uint64 // which child
	Handle uint   // CK_OBJECT_HANDLE
}

// Key is a private or secret key on a token, together with what the objects beside it tell.
type Key struct {
	Ref   Ref
	Class Class
	Type  string // "RSA", "EC", "Ed25519", "AES", "generic", or "0x…" for a type this program does not handle
	Bits  int    // modulus bits of RSA keys, value bits of secret keys where the token tells
	Curve string // "P-256", "P-384", "P-521", or the hex of other parameters
	ID    []byte // CKA_ID
	Label string // CKA_LABEL
	Alias string // label of a certificate with the same CKA_ID: Java names keys by it
	// Public is the public key (SubjectPublicKeyInfo, DER) of a private key, from the key itself, the
	// public key object or the certificate with the same CKA_ID; nil when the token has none of them.
	Public []byte
	// Check is a check value of a secret key: the MAC of CheckText, equal on every token that holds the
	// same key; nil when the key cannot be used for a MAC.
	Check []byte

	Usage       Usage
	Sensitive   bool
	Extractable bool
	AlwaysAuth  bool // asks for the code at each use (CKA_ALWAYS_AUTHENTICATE)
	WrapTrusted bool // may be wrapped only by a key the device's officer trusts (CKA_WRAP_WITH_TRUSTED)
	Local       bool // made on this token

	// Mechanisms are the only ones the key may be used with (CKA_ALLOWED_MECHANISMS); none means any.
	Mechanisms []uint32

	Start, End   time.Time // validity the application wrote, zero when absent
	Subject      []byte    // DER
	PublicObject bool      // a public key object stands beside it
	PublicUsage  Usage     // of that object
}

// Name is how messages call the key.
func (k Key) Name() string {
	if label := cmp.Or(k.Label, k.Alias); label != "" {
		return fmt.Sprintf("%q (ID %x)", label, k.ID)
	}
	return fmt.Sprintf("ID %x", k.ID)
}

// Kind is the key's type with its size, as people say it: "EC P-384", "RSA 2048", "AES 256".
func (k Key) Kind() string {
	switch {
	case k.Curve != "":
		return k.Type + " " + k.Curve
	case k.Bits != 0:
		return fmt.Sprintf("%s %d", k.Type, k.Bits)
	}
	return k.Type
}

// PublicKey parses Public.
func (k Key) PublicKey() (crypto.PublicKey, error) {
	if len(k.Public) == 0 {
		return nil, &Error{Code: NoPublicKey, Object: "key " + k.Name(),
			Detail: "the token holds neither its public key nor a certificate"}
	}
	return x509.ParsePKIXPublicKey(k.Public)
}

// CheckText is what check values are the MAC of: AES-CMAC (SP 800-38B, 16 bytes) with AES keys,
// HMAC-SHA-256 (32 bytes) with generic secrets.
const CheckText = "keyferry-sync-package/1 check"

// Certificate is an X.509 certificate object on a token.
type Certificate struct {
	Ref   Ref
	ID    []byte
	Label string
	DER   []byte
}

// Objects is what a token holds that concerns this program.
type Objects struct {
	// Generation changes whenever the list does, and with each new child.
	Generation   uint64
	Unchanged    bool // the caller's generation is still right; the lists are left empty
	Keys         []Key
	Certificates []Certificate
	// Loose counts objects that a crash left half made: no class, or a private key without its numbers.
	Loose int
}

// PublicObjects is what a token shows to whoever has not its code: public keys and certificates.
type PublicObjects struct {
	Keys         []PublicKey
	Certificates []Certificate
}

// PublicKey is a public key object on a token.
type PublicKey struct {
	Ref   Ref
	ID    []byte
	Label string
	DER   []byte // SubjectPublicKeyInfo
}

// KeySpec says which key to generate.
type KeySpec struct {
	Type        string // "RSA", "EC" or "AES"
	Bits        int    // RSA: 2048 to 4096; AES: 128, 192, 256
	Curve       string // EC: P-256, P-384, P-521
	ID          []byte
	Label       string
	Usage       Usage
	Extractable bool
}

// Ability is one line of a module's self-test.
type Ability struct {
	Name string // "export and import EC P-384"
	OK   bool
	Note string // why not, in the module's words
}
