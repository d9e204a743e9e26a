package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// A node that joins has no identity that the cluster knows, and does not know the cluster's. It checks one
// thing, by the eyes of a person: the fingerprint of the certificate of the member that it talks to. The
// member checks one thing: the one-time code in the request.

// Fingerprint is the SHA-256 of a certificate in DER, as people compare it: "AB:CD:...".
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return formatFingerprint(sum)
}

func formatFingerprint(sum [sha256.Size]byte) string {
	pairs := make([]string, len(sum))
	for i, b := range sum {
		pairs[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(pairs, ":")
}

// ParseFingerprint reads a fingerprint with or without colons, hyphens and spaces, in any case.
func ParseFingerprint(s string) ([sha256.Size]byte, error) {
	var sum [sha256.Size]byte
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(":- \t\r\n", r) {
			return -1
		}
		return r
	}, s)
	if len(digits) != hex.EncodedLen(len(sum)) {
		return sum, errorf(Invalid, "a fingerprint is a SHA-256 hash of 64 hexadecimal digits; this one has %d", len(digits))
	}
	if _, err := hex.Decode(sum[:], []byte(digits)); err != nil {
		return sum, errorf(Invalid, "a fingerprint is made of hexadecimal digits (0-9, A-F): %v", err)
	}
	return sum, nil
}

// FingerprintError says that the other side is not the one whose fingerprint was given: the wrong
// address, a renewed certificate, or somebody in between.
type FingerprintError struct {
	Address string
	Want    string
	Got     string
}

func (e *FingerprintError) Error() string {
	return fmt.Sprintf("the fingerprint of %s is %s, not %s: compare it again with what the cluster shows", e.Address, e.Got, e.Want)
}

// JoinClient returns a client for the join handler of the member at address ("host:port"), whatever the
// host of a URL. It sends nothing unless the member's certificate has the fingerprint; otherwise requests
// fail with a *FingerprintError.
func JoinClient(address, fingerprint string) (*http.Client, error) {
	want, err := ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	if err := checkAddress("address of the member", address); err != nil {
		return nil, err
	}
	verify := func(got [sha256.Size]byte) error {
		if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
			return &FingerprintError{address, formatFingerprint(want), formatFingerprint(got)}
		}
		return nil
	}
	return &http.Client{
		Timeout:       joinTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, errorf(Invalid, "a cluster is joined by https only")
			},
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialJoin(ctx, address, verify)
			},
			IdleConnTimeout:        clientIdle,
			MaxResponseHeaderBytes: maxHeader,
			DisableCompression:     true,
		},
	}, nil
}

// FetchFingerprint asks the member at address for its certificate and returns the fingerprint, for a
// person to compare. It proves nothing by itself.
func FetchFingerprint(ctx context.Context, address string) (string, error) {
	if err := checkAddress("address of the member", address); err != nil {
		return "", err
	}
	var seen string
	c, err := dialJoin(ctx, address, func(got [sha256.Size]byte) error {
		seen = formatFingerprint(got)
		return nil
	})
	if err != nil {
		return "", err
	}
	return seen, c.Close()
}

// dialJoin connects to a member of a cluster that this node does not belong to. verify gets the hash of
// the member's certificate, whose key the handshake has proved by then.
func dialJoin(ctx context.Context, address string, verify func([sha256.Size]byte) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protoJoin},
		InsecureSkipVerify: true, // there is no root to verify against: verify compares the fingerprint
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != protoJoin {
				return errorf(Denied, "%s is not a node of Keyferry", address)
			}
			return verify(sha256.Sum256(cs.PeerCertificates[0].Raw))
		},
	}}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, &DialError{"", address, err}
	}
	return c, nil
}
