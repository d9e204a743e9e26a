package cluster

import "time"

// All limits of the package, each with its reason. The counts are checked when a command is applied, so
// changing one of those needs a new Protocol; the others are checked before a command is proposed.
const (
	// maxCommand bounds one log entry. Raft sends entries and heartbeats over the same connections, and
	// hashicorp/raft warns that entries above 512 KiB may delay heartbeats: 1 MiB leaves room for one
	// large package record and no more.
	maxCommand = 1 << 20

	// maxForward bounds the body of a forwarded command: a command, its envelope and its actor.
	maxForward = maxCommand + 4<<10

	// maxAnswer bounds the leader's answer to a forwarded command: an index and an error message.
	maxAnswer = 64 << 10

	// maxRecord bounds one line of a snapshot. A record comes from one command and a few names.
	maxRecord = 2 * maxCommand

	// maxSnapshot bounds a snapshot. 200 nodes that hold 5,000 keys in each of 4 slots fill about 1 GiB.
	maxSnapshot = 4 << 30

	// maxNodes is twice what the product is planned for (100). It also bounds the edges of trust, with the
	// removed ones: one for each pair of members, of 150 bytes.
	maxNodes = 200

	// maxVoters: a quorum of 3 in 5 survives two failures; more voters only make each commit slower.
	maxVoters = 5

	// maxInvites bounds one-time codes that are waiting for a node. People hand them out one by one.
	maxInvites = 100

	// maxInviteLife: a code that nobody used within a day was forgotten.
	maxInviteLife = 24 * time.Hour

	// maxSlots is ten times what is planned for per node (20), with room for slots that differ by node.
	maxSlots = 1000

	// maxKeys bounds the keys of one slot on one node: four times what is planned for (5,000). Copying
	// the map of that many keys on a report takes about a millisecond.
	maxKeys = 20_000

	// maxReport bounds the keys in one ReportKeys: at the usual 250 bytes a key, half of maxCommand.
	maxReport = 2000

	// maxPackages is how many packages are remembered; the oldest are forgotten first.
	maxPackages = 2000

	// maxPackageKeys bounds the keys of one package: a whole slot as planned for. As hexadecimal SHA-256
	// that is 335 kB of the command.
	maxPackageKeys = 5000

	// maxAccounts and maxApps are far more than one team and one appliance have.
	maxAccounts = 200
	maxApps     = 500

	// maxFullName bounds a person's name: a line in a table.
	maxFullName = 100

	// maxAfter bounds the applications that one waits for. Where more are named, one that comes last will do.
	maxAfter = 20

	// maxRunTook bounds the milliseconds that a restart is said to have taken: a day.
	maxRunTook = 24 * 60 * 60 * 1000

	// maxRunTries bounds how often a restart is said to be tried.
	maxRunTries = 100

	// maxApprovals bounds requests for approval, open and ended; the oldest that has ended is forgotten
	// first. maxAsked bounds the open ones of one person, so that nobody fills the list for the others.
	maxApprovals = 500
	maxAsked     = 20

	// approvalLife: who has not approved within three days will not.
	approvalLife = 3 * 24 * time.Hour

	// maxApprovalData bounds a command that waits for approval: an application with a thousand slots.
	maxApprovalData = 64 << 10

	// maxVotes bounds the people who approved one act: more than any policy asks for.
	maxVotes = 20

	// maxReason bounds why somebody rejected a request; it becomes a part of a line.
	maxReason = 300

	// maxActs bounds acts that have begun and not ended. A node that crashed may leave some behind.
	maxActs = 1000

	// maxAudit is how many audit entries the cluster keeps at hand; when there are more, the oldest
	// tenth is forgotten (Seq goes on, so that the gap shows). Older entries belong in syslog or a file:
	// a trail that fills memory would stop the node some day.
	maxAudit = 100_000

	// maxCheckpoints is how many signatures under the audit trail are kept. They come every ten minutes, or
	// every 500 entries, from each node; at this number half of the older ones go. With 700 bytes each
	// they stay small beside the trail.
	maxCheckpoints = 2000

	// maxCheckpoint bounds one of them: a JWS with a P-521 signature and a payload of 300 bytes has 750.
	maxCheckpoint = 2 << 10

	// maxLabel is the size of CK_TOKEN_INFO.label (PKCS#11 v3.1, section 3.2).
	maxLabel = 32

	// maxSerial is twice the size of CK_TOKEN_INFO.serialNumber, for modules that show more.
	maxSerial = 32

	// maxCode is the largest length of an authentication code that a token may ask for.
	maxCode = 1024

	// maxRotation is ten years, in days: who wants a code to live longer wants no rotation.
	maxRotation = 3650

	// maxText bounds a line that people read: a reason, a detail, a version.
	maxText = 500

	// maxURL bounds an address or URL.
	maxURL = 500

	// maxStatement bounds a signed statement (JWS) that the cluster carries without reading it. A
	// statement with a hybrid post-quantum key is about 5 kB; the proof of a large import is longer.
	maxStatement = 64 << 10

	// maxCertificate bounds a DER certificate. One with a P-521 key and signature has about 700 bytes.
	maxCertificate = 8 << 10

	// maxPast bounds the identity keys before the present one that the cluster knows of a node, and the owners
	// before the present one. With a new key each year it reaches back longer than certificates are good for.
	maxPast = 16

	// maxStolen bounds the stolen nodes that are remembered: as many as there can be nodes.
	maxStolen = maxNodes

	// maxStolenKeys bounds the keys that are listed of one of them: 20 slots as planned for (5,000 keys each).
	maxStolenKeys = 100_000

	// maxStolenSerials bounds the tokens of it that are barred: with 32 bytes each they stay one line of a snapshot.
	maxStolenSerials = 1000

	// LeaseTime is how long one person can change the settings of the cluster without saying that they still do:
	// enough to look something up, and short for others to wait when it is forgotten.
	LeaseTime = 5 * time.Minute

	// maxClockLimit is in seconds: beyond five minutes packages are refused anyway.
	maxClockLimit = 5 * 60

	// maxSessionIdle is in minutes: a session lasts a working day at most.
	maxSessionIdle = 8 * 60

	// maxPackageLife is in hours, 90 days: the keys that packages are sealed to are replaced each year.
	maxPackageLife = 90 * 24

	// maxNotice bounds what stands above the form to log in, in bytes.
	maxNotice = 500

	// maxFactors bounds the passkeys and the certificates of an account, each: more than the devices of one
	// person.
	maxFactors = 10

	// maxCredential bounds the id of a passkey (WebAuthn level 3, section 4: credential id).
	maxCredential = 1023

	// maxPublicKey bounds a COSE_Key: one with RSA 4096 has about 530 bytes.
	maxPublicKey = 1024

	// maxFactorName bounds what people call a passkey or a certificate.
	maxFactorName = 64

	// maxIssuer bounds the name of an issuer in DER: its parts have at most 64 characters each (RFC 5280,
	// appendix A), and some have twenty.
	maxIssuer = 2 << 10

	// Sizes of the salt and the sealed secret of one-time passwords: a secret of 20 bytes, the nonce and the
	// tag make 48.
	minSalt, maxSalt     = 16, 64
	minSealed, maxSealed = 32, 128

	// maxLock bounds how long a node can lock an account: its clock may be wrong.
	maxLock = 24 * time.Hour

	// maxHash bounds an encoded password hash; argon2id with default sizes has about 100 bytes.
	maxHash = 256

	// maxHolders bounds the custodians of one slot. A share is sealed to each, at 2.4 kB in a record of
	// the snapshot; more people than that do not meet after a power cut.
	maxHolders = 20

	// maxSplits bounds the generations of a slot's shared code that are remembered. There are as many as
	// tokens that differ: a node that was away keeps the old code until its custodians come again.
	maxSplits = 8

	// maxGeneration bounds how often a shared code is changed.
	maxGeneration = 1_000_000

	// maxSealedShare bounds a share as HPKE seals it: a key encapsulation of 1,665 bytes and 82 more.
	maxSealedShare = 4 << 10

	// maxCustodianKey bounds the public half of a custodian's key: 1,665 bytes.
	maxCustodianKey = 4 << 10

	// maxSealedKey bounds a custodian's private half, sealed and in text; it has about 150 bytes.
	maxSealedKey = 512

	// maxKeyID is the hexadecimal form of a 256 byte CKA_ID; modules in use make 4 to 64 bytes.
	maxKeyID = 512

	// maxKeyLabel bounds CKA_LABEL, which PKCS#11 does not bound.
	maxKeyLabel = 255
)

// Limits of the link between nodes.
const (
	// maxHandshakes bounds TLS handshakes under way. A handshake takes milliseconds; half-open
	// connections of a stranger must not use up the daemon's file descriptors.
	maxHandshakes = 64

	// maxJoins bounds connections without client certificate. One node joins at a time; the rest are
	// people who compare fingerprints.
	maxJoins = 8

	// handshakeTimeout is long for a slow link and short for a stranger who sends nothing.
	handshakeTimeout = 5 * time.Second

	// headerTimeout bounds reading the head of a request, and all of one from a joining node.
	headerTimeout = 10 * time.Second

	// joinTimeout bounds the answer to a joining node. It has an HSM sign a certificate, which a slow
	// HSM does in seconds.
	joinTimeout = 2 * time.Minute

	// serverIdle is how long a server keeps a connection that nobody uses; clientIdle is shorter, so
	// that a client does not send into a connection that the server is just closing.
	serverIdle = 2 * time.Minute
	clientIdle = 30 * time.Second

	// maxJoinBody bounds the request of a joining node: two certificates and a few names.
	maxJoinBody = 64 << 10

	// maxHeader bounds the head of a request between nodes: there are no cookies here.
	maxHeader = 16 << 10

	// maxChain bounds the certificates a peer sends: leaf, identity, owner.
	maxChain = 3

	// recheckInterval is how long a connection can outlive its certificate or its node's membership.
	recheckInterval = time.Minute
)
