package hsm

import "time"

// The operations that a child knows, with what they take and give. They are coarse: one call lists a
// token, one call imports a batch of keys.
const (
	OpOpen      = "open"       // OpenArgs -> Info: load and initialize the module; the first call
	OpInfo      = "info"       // Empty -> Info
	OpInitToken = "init-token" // InitTokenArgs -> InitTokenReply
	OpLogin     = "login"      // CodeArgs -> Empty
	OpLogout    = "logout"     // TokenArgs -> Empty
	OpSetCode   = "set-code"   // SetCodeArgs -> Empty
	OpObjects   = "objects"    // ObjectsArgs -> Objects
	OpPublic    = "public"     // TokenArgs -> PublicObjects: what the token shows without its code
	OpGenerate  = "generate"   // GenerateArgs -> Key
	OpDestroy   = "destroy"    // RefArgs -> Empty
	OpSign      = "sign"       // SignArgs -> BytesReply
	OpAgree     = "agree"      // AgreeArgs -> BytesReply
	OpStore     = "store"      // StoreArgs -> Empty: certificate objects
	OpSweep     = "sweep"      // SweepArgs -> SweepReply
	OpExport    = "export"     // TokenArgs -> ExportReply
	OpAddress   = "address"    // AddressArgs -> BytesReply
	OpWrap      = "wrap"       // WrapArgs -> WrapReply
	OpImport    = "import"     // ImportArgs -> OpenedReply
	OpUnwrap    = "unwrap"     // UnwrapArgs -> UnwrapReply
	OpEnd       = "end"        // EndArgs -> Empty: ends an export or import
	OpSelfTest  = "self-test"  // TokenArgs -> SelfTestReply
)

// Arguments and replies. Bytes named Code are wiped by both sides after use.
type (
	Empty     struct{}
	TokenArgs struct{ Serial string }
	OpenArgs  struct {
		Path     string
		InitArgs string // handed to C_Initialize as its reserved argument (NSS)
		Epoch    uint64
	}
	InitTokenArgs struct {
		Label       string
		OfficerCode []byte
		Code        []byte
	}
	InitTokenReply struct{ Token TokenInfo }
	CodeArgs       struct {
		Serial string
		Code   []byte
	}
	SetCodeArgs struct {
		Serial   string
		Old, New []byte
	}
	ObjectsArgs struct {
		Serial     string
		Generation uint64 // what the caller has; 0 for nothing
		Fresh      bool   // read every attribute again, do not rely on what was read before
	}
	GenerateArgs struct {
		Serial string
		Spec   KeySpec
	}
	RefArgs struct {
		Serial string
		Ref    Ref
	}
	SignArgs struct {
		Serial    string
		Ref       Ref
		Mechanism Mechanism
		Data      []byte
	}
	BytesReply struct{ Bytes []byte }
	AgreeArgs  struct {
		Serial string
		Ref    Ref
		Point  []byte // uncompressed, on the key's curve
	}
	StoreArgs struct {
		Serial       string
		Certificates []Certificate
	}
	SweepArgs struct {
		Serial string
		IDs    [][]byte // CKA_IDs of imports that a journal says were begun and not proved
		Settle time.Duration
	}
	SweepReply  struct{ Removed int }
	ExportReply struct {
		Session   uint64
		Ephemeral []byte
	}
	AddressArgs struct {
		Session  uint64
		Receiver Receiver
	}
	WrapArgs struct {
		Session uint64
		Keys    []Ref
	}
	WrapReply  struct{ Keys []Wrapped }
	ImportArgs struct {
		Serial     string
		Transport  Ref
		Ephemeral  []byte
		Context    []byte
		PackageKey []byte
	}
	OpenedReply struct{ Session uint64 }
	UnwrapArgs  struct {
		Session   uint64
		Challenge []byte
		Keys      []Incoming
	}
	UnwrapReply   struct{ Keys []Arrived }
	EndArgs       struct{ Session uint64 }
	SelfTestReply struct{ Abilities []Ability }
)

// Mechanism names how data is signed, apart from any module's numbers.
type Mechanism string

// The mechanisms that signers and proofs use. Hashes are computed by the caller; the RSA
// ones take the digest (with PSS the salt is as long as the digest).
const (
	ECDSA        Mechanism = "ecdsa"          // data is a digest, the result r||s
	RSAPKCS1     Mechanism = "rsa-pkcs1"      // data is a DigestInfo
	RSAPSSSHA256 Mechanism = "rsa-pss-sha256" // data is a SHA-256 digest
	RSAPSSSHA384 Mechanism = "rsa-pss-sha384" // data is a SHA-384 digest
	RSAPSSSHA512 Mechanism = "rsa-pss-sha512" // data is a SHA-512 digest
	EdDSA        Mechanism = "eddsa"          // data is the message
	CMAC         Mechanism = "cmac"           // AES keys; data is the message
	HMACSHA256   Mechanism = "hmac-sha256"    // generic secrets; data is the message
)
