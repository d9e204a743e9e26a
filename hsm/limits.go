package hsm

import "time"

// Sizes that parent and child hold each other to. Each is far above what real tokens hold and far
// below what would hurt.
const (
	// MaxFrame bounds one message between parent and child: a listing of 5,000 keys with their public
	// keys takes 4 MiB.
	MaxFrame = 64 << 20
	// MaxWrapped bounds one wrapped key: RSA 16384 in PKCS#8 is 9.3 KiB.
	MaxWrapped = 16 << 10
	// MaxBatch bounds the keys of one export or import call, so that a call ends well within its deadline.
	MaxBatch = 64
	// MaxLabel bounds labels and IDs: PKCS#11 sets no limit, modules keep at least 255 bytes.
	MaxLabel = 255
	// MaxCertificate bounds one certificate object.
	MaxCertificate = 64 << 10
	// MaxCode bounds a code before it is handed to a module: SoftHSM takes 255 bytes, NSS 500.
	MaxCode = 512
	// MaxMechanisms bounds CKA_ALLOWED_MECHANISMS: SoftHSM knows 70.
	MaxMechanisms = 64
	// MaxSign bounds what is signed in one call; callers sign digests.
	MaxSign = 64 << 10
)

// Deadlines after which a module counts as hung and its child is ended. A network HSM under load may
// take seconds; a person waits for most of these.
const (
	openDeadline   = 60 * time.Second // loading a library, finding its tokens
	listDeadline   = 60 * time.Second // 5,000 objects take SoftHSM 2 s
	codeDeadline   = 30 * time.Second // logging in, changing a code: slow hash on purpose
	keyDeadline    = 30 * time.Second // one signature, one derivation
	makeDeadline   = 5 * time.Minute  // RSA 4096 on a smart card
	batchDeadline  = 3 * time.Minute  // MaxBatch keys at 2 s each
	selfDeadline   = 5 * time.Minute
	drainDeadline  = 20 * time.Second // waiting for calls to end before a restart
	restartBackoff = 100 * time.Millisecond
	restartMost    = 10 * time.Second
)
