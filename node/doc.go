// Package node is what one appliance does: it holds modules and tokens, opens slots, proves who it is,
// tells the cluster which keys it has, and exchanges key synchronization packages with other nodes.
// It knows no HTTP pages, no PKCS#11 constants and no wire format; it is where the rules are, so that
// pages, JSON API and command line say and do the same.
//
// A Node is the machine with its HSM. It becomes a Member when it founds a cluster or joins one.
//
// Reading order: node.go, store.go, seal.go, keptkey.go, tpm.go, protect.go; entrance.go, found.go, identity.go (and package identity), elsewhere.go, join.go, trust.go, identities.go, severed.go, settings.go, clock.go, renew.go,
// member.go, standing.go, acts.go, peers.go; then what a member does: slots.go, codes.go, activate.go, stored.go, modes.go, rotation.go, inventory.go,
// coverage.go, forecast.go, custodymap.go, build.go, stage.go, refused.go, preview.go, import.go, proved.go, journal.go, resume.go, receipts.go, apps.go, apporder.go,
// runner.go, restart.go, appcodes.go, codefiles.go,
// custodians.go, shares.go, custody.go, collect.go, contribute.go, shared.go, opening.go, handover.go,
// accounts.go, jobs.go; the audit trail: trail.go, auditfile.go, auditverify.go, auditchain.go, syslog.go, syslogqueue.go.
package node
