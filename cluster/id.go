package cluster

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// NewID makes an identifier from 128 random bits, in lower case letters and digits.
func NewID() string { return strings.ToLower(rand.Text()) }

// plural counts things for people.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
