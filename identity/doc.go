// Package identity is who an HSM is, and who says so: owner key and certificate (POK, POC), identity key and
// certificate (PIK, PIC), the profiles of these certificates, what is checked of them, and the acts of an
// administrator with a terminal, with or without a cluster.
//
// A Device is an HSM with its admin token, which holds the keys. It needs a module and nothing else, so an owner
// key can be kept on a machine that is never connected: requests come to it, certificates go back, as files.
//
// Reading order: state.go, certificates.go, check.go, key.go, device.go, token.go, owner.go, certify.go, store.go,
// choose.go. PROFILES.md has the certificates field by field.
package identity
