package hsm

import (
	"context"
)

// Scheme names how keys are wrapped for the way: an AES-256 package key wraps each key by RFC 5649. For
// each receiver the package key is wrapped under a key that ECDH gives (P-521, ephemeral key of the
// source, static transport key of the receiver), passed through a key derivation inside the token
// (AES-CBC over a 32-byte context). See DESIGN.md.
const Scheme = "ecdh-p521+aes-cbc-kdf+rfc5649"

// Receiver is who an export is for.
type Receiver struct {
	Transport []byte // public transport key, uncompressed P-521 point
	Context   []byte // 32 bytes that bind the derived key to package and receiver
}

// Wrapped is one exported key: a blob, or why there is none.
type Wrapped struct {
	Blob []byte // RFC 5649
	Err  *Error
}

// Incoming is a key to import, with all that the blob does not carry.
type Incoming struct {
	Key                 // Class, Type, Bits, Curve, ID, Label, Public, Check, Usage … as the source told
	Blob         []byte // RFC 5649, under the package key
	Certificates []Certificate
}

// Arrived is what became of an incoming key.
type Arrived struct {
	// Proof of a private key is a signature over the challenge (see VerifyProof), of a secret key its
	// check value. Final says that the object now on the token made it; a key whose usage does not
	// include signing proves itself only before it is put there.
	Proof []byte
	Final bool
	Err   *Error // nothing was left on the token
}

// Export is an export in progress: a fresh package key and a fresh ephemeral key in the source's token.
type Export struct {
	Ephemeral []byte // public, for all receivers: uncompressed P-521 point

	lease   *lease
	session uint64
}

// Export begins an export. Close the result.
func (t *Token) Export(ctx context.Context) (*Export, error) {
	l, err := t.module.enter(ctx)
	if err != nil {
		return nil, err
	}
	r, err := call[ExportReply](ctx, l, OpExport, TokenArgs{t.Serial}, keyDeadline)
	if err != nil {
		l.leave()
		return nil, err
	}
	return &Export{r.Ephemeral, l, r.Session}, nil
}

// Address wraps the package key for a receiver: only its token can derive the key that opens it, and
// only with the same context.
func (e *Export) Address(ctx context.Context, to Receiver) ([]byte, error) {
	r, err := call[BytesReply](ctx, e.lease, OpAddress, AddressArgs{e.session, to}, keyDeadline)
	return r.Bytes, err
}

// Wrap wraps at most MaxBatch keys under the package key. A key that cannot be wrapped says so in its
// own result.
func (e *Export) Wrap(ctx context.Context, keys []Ref) ([]Wrapped, error) {
	if len(keys) > MaxBatch {
		return nil, &Error{Code: BadInput, Detail: "too many keys in one batch"}
	}
	r, err := call[WrapReply](ctx, e.lease, OpWrap, WrapArgs{e.session, keys}, batchDeadline)
	if err == nil && len(r.Keys) != len(keys) {
		err = &Error{Code: Internal, Detail: "the worker answered for another number of keys"}
	}
	return r.Keys, err
}

// Close forgets the package key.
func (e *Export) Close() { e.lease.end(e.session) }

// Envelope is what a receiver needs to open a package key.
type Envelope struct {
	Transport  Ref    // its transport key
	Ephemeral  []byte // the source's, uncompressed P-521 point
	Context    []byte // 32 bytes
	PackageKey []byte // wrapped
}

// Import is an import in progress: an opened package key in the receiver's token.
type Import struct {
	lease   *lease
	session uint64
}

// Import opens the package key inside the token. Close the result.
func (t *Token) Import(ctx context.Context, e Envelope) (*Import, error) {
	l, err := t.module.enter(ctx)
	if err != nil {
		return nil, err
	}
	args := ImportArgs{t.Serial, e.Transport, e.Ephemeral, e.Context, e.PackageKey}
	r, err := call[OpenedReply](ctx, l, OpImport, args, batchDeadline)
	if err != nil {
		l.leave()
		return nil, err
	}
	return &Import{l, r.Session}, nil
}

// Unwrap imports at most MaxBatch keys. Each is unwrapped as a session object and proved there against
// its promised public key (or check value) before it is put on the token, and signs the challenge
// again from there. A key that fails says so in its own result and leaves nothing behind.
func (i *Import) Unwrap(ctx context.Context, challenge []byte, keys []Incoming) ([]Arrived, error) {
	if len(keys) > MaxBatch {
		return nil, &Error{Code: BadInput, Detail: "too many keys in one batch"}
	}
	r, err := call[UnwrapReply](ctx, i.lease, OpUnwrap, UnwrapArgs{i.session, challenge, keys}, batchDeadline)
	if err == nil && len(r.Keys) != len(keys) {
		err = &Error{Code: Internal, Detail: "the worker answered for another number of keys"}
	}
	return r.Keys, err
}

// Close forgets the package key.
func (i *Import) Close() { i.lease.end(i.session) }
