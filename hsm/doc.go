// Package hsm runs PKCS#11 modules, each in a child process of its own, and gives the rest of the
// program coarse operations on their tokens: list, generate, sign, agree, export, import.
//
// Three rules shape it. A module's crash or hang ends only its child, which is started again with the
// same tokens open. No key leaves a token but wrapped by another, so this process never holds one.
// A code (PIN) is tried once, because a device may lock for good after three.
//
// Reading order: hsm.go (the nouns), errors.go, limits.go, module.go (the child's life), token.go
// (what a token can do), transfer.go (export and import), wire.go and ops.go (what parent and child
// say to each other); then hsm/worker for the child's side.
package hsm
