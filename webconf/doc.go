// Package webconf is the console that every node serves, and the JSON API that the command line speaks.
// Both are thin: they read a request, ask package node, and show what it answered. Every rule about
// slots, keys, packages and accounts is in node and cluster.
//
// The console is plain HTML: it needs no script, and its pages are drawn on the server from
// assets/templates. The API is for the daemon's Unix socket, where file permissions decide who may
// connect.
//
// Reading order: routes.go, server.go, call.go, session.go, errors.go, limits.go; then what pages have
// in common: situation.go, problems.go, words.go, times.go, forms.go, render.go, static.go; then the
// pages: enter.go, status.go, hsm.go, slots.go, slotforms.go, coverage.go, sync.go, packages.go,
// upload.go, receipts.go, nodes.go, settings.go, audit.go, auditentry.go, applications.go, jobs.go, account.go; then the API: api.go,
// apicluster.go, apislots.go, apisync.go, apiapps.go, apiaudit.go, and unix.go.
package webconf
