// Package worker is the child process that holds one PKCS#11 module. It answers the operations of
// package hsm and keeps the rules that real modules need: one lock for the whole process (SoftHSM
// returns torn objects when one thread lists while another writes), one session held open for each
// open token, sessions never shared, a code tried once, every length checked before a C call.
//
// Key bytes are in this process's memory while the module works; that is why it is a process of its
// own, which cannot be traced or dumped and leaves no core file.
//
// Reading order: main.go, profile.go (what modules do differently), worker.go (tokens, sessions, the
// lock), objects.go (listing), keys.go (generate, sign, agree), export.go, import.go, prove.go, sweep.go,
// selftest.go; cryptoki.go and attributes.go are the seam to C.
package worker
