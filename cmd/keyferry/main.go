// Keyferry keeps the keys of a cluster of HSMs the same on every node. This program is all of it: the
// daemon of a node, the child process that holds its PKCS#11 module, the command line, and a demo.
//
// Reading order: main.go, commands.go (the command table), serve.go (the daemon: what starts and stops in
// which order), config.go, client.go, then the commands; demo.go and story.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := newApp(os.Stdin, os.Stdout, os.Stderr).run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keyferry:", err)
		os.Exit(exitStatus(err))
	}
}

// An exitError is an error with an exit status of its own.
type exitError struct {
	status int
	error
}

func exitStatus(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.status
	}
	return 1
}
