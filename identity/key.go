package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/keyferry/keyferry/hsm"
)

// AdminLabel is the label of admin tokens.
const AdminLabel = "keyferry-admin"

// The CKA_IDs of the keys that a node makes for itself. Keys whose ID begins with ownPrefix are never
// counted, exported or overwritten.
const (
	ownPrefix   = "keyferry:"
	OwnerID     = ownPrefix + "owner"     // POK, on the admin token of whoever is the owner
	IdentityID  = ownPrefix + "identity"  // PIK, on the admin token
	SealID      = ownPrefix + "seal"      // P-384 half of the key that packages are sealed to, on the admin token
	TransportID = ownPrefix + "transport" // P-521, on each slot's token
)

// IsOwn tells whether a CKA_ID is that of a key which a node makes for itself.
func IsOwn(id []byte) bool { return bytes.HasPrefix(id, []byte(ownPrefix)) }

// A Key is one of a node's own keys on a token. References to objects end with each restart of a
// module; a Key finds its object again.
type Key struct {
	token  *hsm.Token
	id     string
	public crypto.PublicKey

	mu  sync.Mutex
	key hsm.Key
}

// FindKey looks a key up by its CKA_ID.
func FindKey(ctx context.Context, token *hsm.Token, id string) (hsm.Key, error) {
	objects, err := token.Objects(ctx, 0, false)
	if err != nil {
		return hsm.Key{}, err
	}
	for _, k := range objects.Keys {
		if string(k.ID) == id && k.Class == hsm.PrivateKey {
			return k, nil
		}
	}
	return hsm.Key{}, &hsm.Error{Code: hsm.NoKey, Object: "token " + token.Serial, Detail: "it has no key " + id}
}

// EnsureKey finds one of the node's own keys, or makes it. It never leaves the token.
func EnsureKey(ctx context.Context, token *hsm.Token, id, curve string, usage hsm.Usage) (*Key, error) {
	k, err := FindKey(ctx, token, id)
	if errors.Is(err, hsm.NoKey) {
		k, err = token.Generate(ctx, hsm.KeySpec{Type: "EC", Curve: curve, ID: []byte(id), Label: id, Usage: usage})
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", id, err)
	}
	if k.Curve != curve || k.Public == nil {
		return nil, fmt.Errorf("key %s on token %s is not a key pair on %s", id, token.Serial, curve)
	}
	public, err := k.PublicKey()
	if err != nil {
		return nil, err
	}
	return &Key{token: token, id: id, public: public, key: k}, nil
}

func (h *Key) current() hsm.Key {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.key
}

// use runs f with the key, and once more when the module was restarted meanwhile.
func (h *Key) use(f func(hsm.Key) error) error {
	err := f(h.current())
	if !errors.Is(err, hsm.Stale) {
		return err
	}
	k, err := FindKey(context.Background(), h.token, h.id)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.key = k
	h.mu.Unlock()
	return f(k)
}

// Public implements crypto.Signer.
func (h *Key) Public() crypto.PublicKey { return h.public }

// Sign implements crypto.Signer.
func (h *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	err = h.use(func(k hsm.Key) error {
		s, err := h.token.Signer(k)
		if err != nil {
			return err
		}
		signature, err = s.Sign(rand, digest, opts)
		return err
	})
	return signature, err
}

// An Exchanger is a Key as an ecdh.KeyExchanger.
type Exchanger struct {
	*Key
	public *ecdh.PublicKey
}

// Exchanger returns an EC key for key agreement; see hsm.Token.Agreement for what it must not be used for.
func (h *Key) Exchanger() (*Exchanger, error) {
	e, err := h.token.Agreement(h.current())
	if err != nil {
		return nil, err
	}
	return &Exchanger{h, e.PublicKey()}, nil
}

// PublicKey, Curve and ECDH implement ecdh.KeyExchanger.
func (h *Exchanger) PublicKey() *ecdh.PublicKey { return h.public }
func (h *Exchanger) Curve() ecdh.Curve          { return h.public.Curve() }

func (h *Exchanger) ECDH(peer *ecdh.PublicKey) (secret []byte, err error) {
	err = h.use(func(k hsm.Key) error {
		e, err := h.token.Agreement(k)
		if err != nil {
			return err
		}
		secret, err = e.ECDH(peer)
		return err
	})
	return secret, err
}
