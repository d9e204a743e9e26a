// Package cluster is the state that all Keyferry nodes share, and the Raft group that replicates it.
//
// State is an immutable value. A Command turns one State into the next; Raft brings the same commands
// in the same order to every node. A Cluster is one node's part in it: it serves State from memory,
// proposes commands (through the leader, wherever that is) and keeps the Raft membership in step with
// the nodes that State names. A Link is the mutual TLS connection between nodes, and the channel by
// which a new node joins.
//
// The package knows no PKCS#11, no package format and no web pages. Key material and authentication
// codes never enter it. DESIGN.md says why it is as it is.
//
// Reading order: state.go, command.go, authorize.go, audit.go; then the nouns with their commands
// (nodes.go, invites.go, trust.go, slots.go, keys.go, packages.go, accounts.go, apps.go, settings.go) with check.go,
// rules.go, id.go and limits.go; then errors.go, cluster.go, recover.go, fsm.go, snapshot.go, apply.go,
// forward.go, members.go, watch.go, status.go and log.go; then link.go, identity.go, listen.go, dial.go,
// stream.go, join.go and code.go.
package cluster
