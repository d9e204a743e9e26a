package syncpkg

import "time"

// All limits, each with its reason. A reader refuses what passes them, a writer refuses to make it.
const (
	MaxHead      = 32 << 10  // bytes up to and with the blank line: MaxReceivers of the longest names take 10 KiB
	MaxBody      = 64 << 20  // bytes: 10,000 keys of the usual 5 KiB (RSA 4096 with a chain); it is held in memory
	MaxSeals     = 512 << 10 // bytes of the seals line: MaxReceivers hybrid seals take 300 KiB
	MaxKeys      = 10_000    // twice the 5,000 keys a slot that Keyferry plans for
	MaxReceivers = 128       // Keyferry plans for 100 nodes

	MaxValues = 1 << 19 // in one JSON text; 10,000 keys have 250,000, and each may take 400 bytes of memory

	MaxReceiverKeys = 8 << 10  // bytes of the JWS: the hybrid public key takes 3 KiB after both base64 layers
	MaxReceipt      = 32 << 20 // bytes of the JWS: MaxKeys proofs by RSA 4096 take 16 MiB

	MaxAuditStatement = 2 << 10 // bytes of the JWS: with the longest names it has 1 KiB

	MaxCluster = 64  // bytes; cluster ids are UUIDs or shorter
	MaxNode    = 63  // bytes; node names are DNS labels (RFC 1035 section 2.3.4)
	MaxSlot    = 32  // bytes; the label in CK_TOKEN_INFO has 32
	MaxLabel   = 255 // bytes; CKA_LABEL has no limit of its own, tokens stop at 255 or before
	MaxID      = 255 // bytes; CKA_ID likewise

	MinWrapped = 16       // bytes; the shortest RFC 5649 ciphertext
	MaxWrapped = 16 << 10 // bytes; RSA 16384, the longest key SoftHSM makes, takes 9.3 KiB
	MinRSABits = 1024     // shorter moduli are refused by Go's crypto/rsa too
	MaxRSABits = 16384    // the longest that the modules known to us make
	MaxSecret  = 4096     // bytes of a generic secret; HMAC keys are far shorter

	MaxPublic       = 4 << 10  // bytes of SPKI: RSA 16384 takes 2.1 KiB
	MaxSubject      = 4 << 10  // bytes of DER name
	MaxCertificate  = 64 << 10 // bytes; certificates with post-quantum keys take 20 KiB and more
	MaxCertificates = 16       // per key: renewals of one CA certificate, a chain
	MaxMechanisms   = 64       // per key

	MinChallenge = 16      // bytes: a signature over it cannot have been kept from another day
	MaxChallenge = 64      // bytes: too short to be a document that somebody wants signed
	MaxProof     = 2 << 10 // bytes: an RSA 16384 signature
	MaxReason    = 1 << 10 // bytes of text for a key that failed

	// MaxSkew is how far ahead the maker's clock may be: less than what NTP would let pass for long, more than an
	// appliance drifts between two looks at its clock.
	MaxSkew = 5 * time.Minute
)

const (
	maxMagic   = 64  // bytes of the first line: enough to tell a package from a file of another kind
	p521Point  = 133 // bytes of an uncompressed P-521 point
	contentKey = 32  // bytes; AES-256
	wrappedKey = 40  // bytes; an AES-256 key under RFC 5649
	cmacSize   = 16  // bytes; AES-CMAC
	hmacSize   = 32  // bytes; HMAC-SHA-256
)
