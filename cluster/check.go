package cluster

import (
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Checks of the shape of a command, made before it is proposed. Apply does not repeat them: a replica
// must not come to another result because its version checks more.

var (
	namePattern    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	accountPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?$`)
	tokenPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:+/=._-]{0,127}$`)
	hashPattern    = regexp.MustCompile(`^[0-9a-f]{64}$`)
	hexPattern     = regexp.MustCompile(`^([0-9a-f]{2})*$`)
	argon2Pattern  = regexp.MustCompile(`^\$argon2id\$v=19\$m=[0-9]+,t=[0-9]+,p=[0-9]+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$`)
)

// check runs its arguments in order and returns the first error.
func check(checks ...error) error {
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMatch wants s to match pattern; rule says in words what that means.
func checkMatch(what, s string, pattern *regexp.Regexp, rule string) error {
	if !pattern.MatchString(s) {
		return errorf(Invalid, "%s %q is not valid: %s", what, clip(s), rule)
	}
	return nil
}

// checkName wants the name of a node or an application: it is also a DNS label and a path segment.
func checkName(what, s string) error {
	return checkMatch(what, s, namePattern, "use 1 to 63 letters a-z, digits and hyphens, with no hyphen at either end")
}

func checkAccountName(s string) error {
	return checkMatch("account name", s, accountPattern,
		"use 1 to 63 letters a-z, digits, hyphens, dots, underscores and @, with a letter or digit at either end")
}

// checkToken wants an identifier that some other part made: a package id, a key fingerprint.
func checkToken(what, s string) error {
	return checkMatch(what, s, tokenPattern, "use 1 to 128 letters, digits and :+/=._-, starting with a letter or digit")
}

func checkHash(what, s string) error {
	return checkMatch(what, s, hashPattern, "a SHA-256 hash as 64 hexadecimal digits in lower case is needed")
}

// checkText wants one line of printable text of at most limit bytes. It may be empty.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return errorf(Invalid, "%s is too long: %d bytes, at most %d are allowed", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return errorf(Invalid, "%s is not valid UTF-8", what)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return errorf(Invalid, "%s contains a character that cannot be printed, at byte %d", what, i)
	}
	return nil
}

// checkLine wants text that is not empty and has no space at its ends.
func checkLine(what, s string, limit int) error {
	if s == "" {
		return errorf(Invalid, "%s is missing", what)
	}
	if strings.TrimSpace(s) != s {
		return errorf(Invalid, "%s %q begins or ends with a space", what, clip(s))
	}
	return checkText(what, s, limit)
}

// checkLabel wants a slot's label, which is the label of a token in every HSM that has a seat in it.
func checkLabel(s string) error { return checkLine("slot label", s, maxLabel) }

// checkBlob wants bytes of another party that are carried unread. They may be empty.
func checkBlob(what, s string, limit int) error {
	if len(s) > limit {
		return errorf(Invalid, "%s is too long: %d bytes, at most %d are allowed", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return errorf(Invalid, "%s is not valid UTF-8", what)
	}
	return nil
}

func checkOneOf(what, s string, allowed ...string) error {
	if !slices.Contains(allowed, s) {
		return errorf(Invalid, "%s %q is not known: it must be one of %s", what, clip(s), strings.Join(allowed, ", "))
	}
	return nil
}

func checkRange(what string, n, low, high int) error {
	if n < low || n > high {
		return errorf(Invalid, "%s is %d; it must be between %d and %d", what, n, low, high)
	}
	return nil
}

// checkTime wants an instant that JSON can carry and that is not a clock at its zero.
func checkTime(what string, t time.Time) error {
	if t.Year() < 2000 || t.Year() > 2200 {
		return errorf(Invalid, "%s is in the year %d: check the clock", what, t.Year())
	}
	return nil
}

// checkAddress wants "host:port" as other nodes are to dial it.
func checkAddress(what, s string) error {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || n < 1 || n > 65535 || len(s) > maxURL {
		return errorf(Invalid, "%s %q is not of the form host:port", what, clip(s))
	}
	return checkText(what, s, maxURL)
}

// checkWebURL wants an https URL, or nothing.
func checkWebURL(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(s) > maxURL {
		return errorf(Invalid, "the address of the console, %q, is not an https URL", clip(s))
	}
	return checkText("the address of the console", s, maxURL)
}

// checkNames wants a list of node names without repetition.
func checkNames(what string, names []string, limit int) error {
	if len(names) > limit {
		return errorf(Invalid, "%s names %d nodes; at most %d are allowed", what, len(names), limit)
	}
	for i, name := range names {
		if err := checkName("node name", name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return errorf(Invalid, "%s names node %q twice", what, name)
		}
	}
	return nil
}

// clip shortens what a stranger sent, for an error message.
func clip(s string) string { return clipTo(s, 80) }

// clipTo shortens s to about most bytes.
func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
