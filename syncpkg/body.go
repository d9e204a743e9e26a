package syncpkg

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
)

// seal is the content key, sealed to one receiver.
type seal struct {
	Receiver string `json:"receiver"`
	KEM      uint16 `json:"kem"`  // HPKE KEM by its IANA number
	Seal     []byte `json:"seal"` // enc || ciphertext of a single-shot HPKE Seal (RFC 9180 section 6.1)
}

// sealSize returns the bytes of a seal for each KEM that this format allows.
func sealSize(kem uint16) (size int, ok bool) {
	const ciphertext = contentKey + 16
	switch kem {
	case KEMP521:
		return p521Point + ciphertext, true
	case KEMMLKEM1024P384:
		return 1568 + 97 + ciphertext, true // ML-KEM-1024 ciphertext and uncompressed P-384 point
	}
	return 0, false
}

// gcmOverhead is the size of nonce and tag.
const gcmOverhead = 12 + 16

// sealBody encrypts plaintext under a fresh content key and seals that to each receiver; to is in the order of
// h.Receivers.
func sealBody(h Header, plaintext []byte, to []Recipient) ([]byte, error) {
	key := make([]byte, contentKey)
	rand.Read(key)
	defer clear(key)

	seals := make([]seal, 0, len(to))
	for _, r := range to {
		sealed, err := hpke.Seal(r.Key, hpke.HKDFSHA512(), hpke.AES256GCM(), h.sealInfo(r.Node), key)
		if err != nil {
			return nil, fmt.Errorf("sealing package %s to %s: %w", h.ID, r.Node, err)
		}
		seals = append(seals, seal{r.Node, r.Key.KEM().ID(), sealed})
	}
	line, err := encodeJSON(seals, "")
	if err != nil {
		return nil, err
	}
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, len(line)+len(plaintext)+gcmOverhead)
	return aead.Seal(append(body, line...), nil, plaintext, h.bodyData()), nil
}

// newGCM returns AES-256-GCM that puts a random nonce before what it seals, which is the form that FIPS 140-3 allows.
func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// openBody opens what sealBody made. The body must be authentic already: this is where the private key is used.
func openBody(h Header, body []byte, o Opener) ([]byte, error) {
	mine, ciphertext, err := splitBody(h, body, o.Receiver)
	if err != nil {
		return nil, err
	}
	key, err := openSeal(h, mine, o)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(ciphertext[:0], nil, ciphertext, h.bodyData())
	if err != nil {
		return nil, h.fail(ErrUnseal, "the content key does not open the body: %w", err)
	}
	return plaintext, nil
}

// openSeal returns the content key.
func openSeal(h Header, mine seal, o Opener) ([]byte, error) {
	size, ok := sealSize(mine.KEM)
	switch {
	case !ok:
		return nil, h.fail(ErrUnsupported, "it is sealed to %s with KEM %#04x, unknown to this Keyferry: "+
			"update this node first",
			o.Receiver, mine.KEM)
	case len(mine.Seal) != size:
		return nil, h.fail(ErrContent, "the seal for %s has %d bytes and must have %d",
			o.Receiver, len(mine.Seal), size)
	case o.Private == nil:
		return nil, h.fail(ErrUnseal, "there is no private key to open it with")
	case o.Private.KEM().ID() != mine.KEM:
		return nil, h.fail(ErrUnseal, "it is sealed with KEM %#04x, and the sealing key of %s is for KEM %#04x: "+
			"that key was replaced, let %s make a new package", mine.KEM, o.Receiver, o.Private.KEM().ID(), h.Source)
	}
	key, err := hpke.Open(o.Private, hpke.HKDFSHA512(), hpke.AES256GCM(), h.sealInfo(o.Receiver), mine.Seal)
	if err != nil {
		return nil, h.fail(ErrUnseal, "the sealing key of %s does not open it; "+
			"if that key was replaced, let %s make a new package: %w", o.Receiver, h.Source, err)
	}
	return key, nil // of contentKey bytes: the size of the seal leaves no other length
}

// splitBody checks that there is one seal for each receiver, in the header's order, and returns that of one receiver,
// and the ciphertext.
func splitBody(h Header, body []byte, receiver string) (mine seal, ciphertext []byte, err error) {
	end := bytes.IndexByte(body[:min(len(body), MaxSeals)], '\n') + 1
	if end == 0 {
		return seal{}, nil, h.fail(ErrContent, "its body has no line of seals")
	}
	var seals []seal
	if err := decodeJSON(body[:end], &seals, ""); err != nil {
		return seal{}, nil, h.fail(kindOf(err, ErrContent), "its seals: %w", err)
	}
	if len(seals) != len(h.Receivers) {
		return seal{}, nil, h.fail(ErrContent, "it has %d seals for %d receivers", len(seals), len(h.Receivers))
	}
	for i, s := range seals {
		if s.Receiver != h.Receivers[i] {
			return seal{}, nil, h.fail(ErrContent, "seal %d is for %.80q and must be for %q",
				i+1, s.Receiver, h.Receivers[i])
		}
		if s.Receiver == receiver {
			mine = s
		}
	}
	if len(body)-end < gcmOverhead {
		return seal{}, nil, h.fail(ErrContent, "its ciphertext is too short")
	}
	return mine, body[end:], nil
}
