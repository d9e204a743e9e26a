package webconf

import (
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
)

// All limits of the package, each with its reason.
const (
	// maxForm bounds the body of a form or a JSON document: an application with 1,000 slots is 40 KiB.
	maxForm = 64 << 10

	// maxUpload bounds the body of a package upload. It is streamed to disk, never held in memory; the
	// form around the file takes a little.
	maxUpload = syncpkg.MaxHead + syncpkg.MaxBody + 64<<10

	// uploadTime is how long an upload or a download may take: a package of 64 MiB at 1 Mbit/s.
	uploadTime = 10 * time.Minute

	// maxWait is how long a request may wait for the end of a job.
	maxWait = 60 * time.Second

	// peerTime is how long a page waits for what only another node can tell.
	peerTime = 5 * time.Second

	// lookTime is how long a page waits for a token to list its keys: 5,000 take half a second.
	lookTime = 10 * time.Second

	// sessionIdle ends the session of somebody who went away from a node that is in no cluster, which has settings
	// for that; sessionLife is a working day.
	sessionIdle = 15 * time.Minute
	sessionLife = 8 * time.Hour

	// maxSessions bounds memory: more than 200 accounts with several browsers each. Sessions are made
	// only after a right password, so strangers cannot fill it.
	maxSessions = 1000

	// pendingTime is how long a login may take from its first step to its last.
	pendingTime = node.LoginTime

	// maxCeremonies bounds the challenges for passkeys that wait for an answer. Anybody can ask for one; each
	// takes about 1 kB.
	maxCeremonies = 10_000

	// tryEvery and tryBurst bound guesses of passwords and one-time codes from one address, whatever
	// account they are for: a person who mistypes ten times in a row then gets one try in six seconds.
	tryEvery = 6 * time.Second
	tryBurst = 10

	// maxAddresses bounds the table of addresses that have tried. When it is full of recent ones, all
	// further addresses share one allowance.
	maxAddresses = 10_000

	// Rows of one page: what people scroll through, and what a browser draws at once.
	coverageRows = 100
	auditRows    = 50
	mostPackages = 50
	mostSeats    = 60 // of other nodes: when there are more, only those that are not active are listed
	mostJobs     = 50
	mostJobKeys  = 200 // of one import's report

	// maxAPIEntries bounds one answer of the audit trail.
	maxAPIEntries = 1000

	// maxInviteHours is how long an invitation lasts at most. Package cluster has the rule; asked here, it
	// is refused at the right field.
	maxInviteHours = 24

	// certificateWarning is how long before the end of a certificate people are told. A node renews its
	// TLS certificate 20 days before, so with 10 days left something is wrong.
	certificateWarning = 10 * 24 * time.Hour
)
