package syncpkg

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Recipient is a node that a package is sealed to. Its key must come from a verified [ReceiverKeys] statement.
type Recipient struct {
	Node string
	Key  hpke.PublicKey // MLKEM1024-P384 or DHKEM(P-521)
}

// Seal makes a package. Of the header, ID (see [NewID]), Cluster, Source, Slot, Created and Expires are the caller's;
// Seal fills in the rest and cuts the times to whole seconds. The package keys of c may come in any order. signer is
// the source's identity key, an EC key on P-521 that may be in an HSM; it signs once.
//
// An error of a [Kind] says what is wrong with header, content or recipients, in the words that a reader of such a
// package would get.
func Seal(h Header, c Content, to []Recipient, signer crypto.Signer) ([]byte, error) {
	to = slices.Clone(to)
	slices.SortFunc(to, func(a, b Recipient) int { return strings.Compare(a.Node, b.Node) })
	c.PackageKeys = slices.Clone(c.PackageKeys)
	slices.SortFunc(c.PackageKeys, func(a, b PackageKey) int { return strings.Compare(a.Receiver, b.Receiver) })

	h.Suite, h.Keys = Suite, len(c.Keys)
	h.Created, h.Expires = wholeSecond(h.Created), wholeSecond(h.Expires)
	h.Receivers = make([]string, 0, len(to))
	for _, r := range to {
		if r.Key == nil {
			return nil, fail(ErrContent, "there is no sealing key for %s: it has not offered one", r.Node)
		}
		if _, ok := sealSize(r.Key.KEM().ID()); !ok {
			return nil, fail(ErrUnsupported, "the sealing key of %s is for KEM %#04x, unknown to this Keyferry",
				r.Node, r.Key.KEM().ID())
		}
		h.Receivers = append(h.Receivers, r.Node)
	}
	if err := c.validate(h); err != nil {
		return nil, err
	}
	plaintext, err := encodeJSON(c, "")
	if err != nil {
		return nil, err
	}
	body, err := sealBody(h, plaintext, to)
	if err != nil {
		return nil, err
	}
	if len(body) > MaxBody {
		return nil, h.fail(ErrTooLarge, "its body has %d bytes, more than the %d allowed: split the keys over several packages",
			len(body), MaxBody)
	}
	head, err := makeHead(h, body, signer)
	if err != nil {
		return nil, err
	}
	return append(head, body...), nil
}

// makeHead writes and signs the head for a body, and reads it back as a receiver will, so that nothing is handed
// out that would be refused.
func makeHead(h Header, body []byte, signer crypto.Signer) ([]byte, error) {
	sum := sha256.Sum256(body)
	h.Body = Body{Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}
	if err := h.validate(); err != nil {
		return nil, err
	}
	text, err := encodeJSON(h, "  ")
	if err != nil {
		return nil, err
	}
	protected, value, err := sign(signer, typePackage, text)
	if err != nil {
		return nil, fmt.Errorf("package %s: %w", h.ID, err)
	}
	head := fmt.Appendf(nil, "%s%d\n%s%s..%s\n\n", magic, FormatVersion, text, protected, value)
	if _, err := ReadHead(bufio.NewReader(bytes.NewReader(head))); err != nil {
		return nil, err
	}
	return head, nil
}
