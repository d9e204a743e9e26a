package worker

import (
	"fmt"
	"sync"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// A transfer is an export or import in progress: a session with a package key in it.
type transfer struct {
	mu      sync.Mutex // one batch at a time
	serial  string
	token   *openToken
	session pkcs11.SessionHandle
	private pkcs11.ObjectHandle // the package key; on import the one that opens private keys only
	secret  pkcs11.ObjectHandle // on import: the one that opens secret keys only
	ours    pkcs11.ObjectHandle // on export: the ephemeral private key
	beside  map[string]bool     // on import: public keys and certificates that are on the token already
}

// begin opens a session for a transfer and fills it; on failure nothing stays.
func (w *worker) begin(serial string, fill func(*transfer) error) (uint64, error) {
	w.mu.Lock()
	t := w.open[serial]
	w.mu.Unlock()
	if t == nil {
		return 0, &hsm.Error{Code: hsm.NotLoggedIn, Object: "token " + serial}
	}
	s, err := w.newSession(t.slot)
	if err != nil {
		return 0, failure("token "+serial, err)
	}
	tr := &transfer{serial: serial, token: t, session: s}
	if err := fill(tr); err != nil {
		w.closeSession(s)
		return 0, failure("token "+serial, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.transfer[w.last] = tr
	return w.last, nil
}

func (w *worker) inProgress(session uint64) (*transfer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tr := w.transfer[session]
	if tr == nil {
		return nil, &hsm.Error{Code: hsm.Stale, Detail: "the transfer is over"}
	}
	return tr, nil
}

func (w *worker) end(a hsm.EndArgs) (hsm.Empty, error) {
	w.mu.Lock()
	tr := w.transfer[a.Session]
	delete(w.transfer, a.Session)
	w.mu.Unlock()
	if tr != nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		w.closeSession(tr.session) // its package key goes with it
	}
	return hsm.Empty{}, nil
}

func (w *worker) export(a hsm.TokenArgs) (hsm.ExportReply, error) {
	var reply hsm.ExportReply
	id, err := w.begin(a.Serial, func(tr *transfer) error {
		return w.writing(func() (err error) {
			reply.Ephemeral, err = w.packageKey(tr)
			return err
		})
	})
	reply.Session = id
	return reply, err
}

// packageKey makes the package key and the ephemeral key of an export, and returns the latter's point.
// The caller holds the lock.
func (w *worker) packageKey(tr *transfer) (ephemeral []byte, err error) {
	s := tr.session
	var public pkcs11.ObjectHandle
	public, tr.ours, err = w.generateIn(s, hsm.KeySpec{Type: "EC", Curve: "P-521", Usage: hsm.UseDerive}, false)
	if err != nil {
		return nil, fmt.Errorf("ephemeral key: %w", err)
	}
	o, err := w.numbers(s, public)
	if err != nil {
		return nil, fmt.Errorf("ephemeral key: %w", err)
	}
	ephemeral = point(o.values[pkcs11.CKA_EC_POINT])
	if err := p521(ephemeral); err != nil {
		return nil, err
	}
	// Extractable, because it must leave wrapped for each receiver; it may do nothing but wrap.
	tr.private, err = w.ctx.GenerateKey(s, mechanism(pkcs11.CKM_AES_KEY_GEN, nil),
		sessionSecret(pkcs11.CKK_AES, hsm.UseWrap, attr(pkcs11.CKA_VALUE_LEN, 32), attr(pkcs11.CKA_EXTRACTABLE, true)))
	if err != nil {
		return nil, fmt.Errorf("package key: %w", err)
	}
	return ephemeral, nil
}

func (w *worker) address(a hsm.AddressArgs) (hsm.BytesReply, error) {
	tr, err := w.inProgress(a.Session)
	if err != nil {
		return hsm.BytesReply{}, err
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var blob []byte
	err = w.writing(func() (err error) {
		blob, err = w.wrapPackageKey(tr, a.Receiver)
		return err
	})
	return hsm.BytesReply{Bytes: blob}, failure("package key", err)
}

// wrapPackageKey wraps the package key under a key that only the receiver's token can derive. The
// caller holds the lock.
func (w *worker) wrapPackageKey(tr *transfer, to hsm.Receiver) ([]byte, error) {
	kek, err := w.deriveKEK(tr.session, tr.ours, to.Transport, to.Context, hsm.UseWrap)
	if err != nil {
		return nil, err
	}
	defer w.ctx.DestroyObject(tr.session, kek)
	blob, err := w.direct.wrapKey(tr.session, w.profile.kwp, kek, tr.private, 64)
	if err != nil {
		return nil, fmt.Errorf("wrapping the package key: %w", err)
	}
	return blob, nil
}

func (w *worker) wrap(a hsm.WrapArgs) (hsm.WrapReply, error) {
	var reply hsm.WrapReply
	tr, err := w.inProgress(a.Session)
	if err != nil {
		return reply, err
	}
	if len(a.Keys) > hsm.MaxBatch {
		return reply, &hsm.Error{Code: hsm.BadInput, Detail: "too many keys in one batch"}
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, r := range a.Keys {
		var one hsm.Wrapped
		h, err := w.check(r)
		if err == nil {
			err = w.reading(func() error {
				one.Blob, err = w.direct.wrapKey(tr.session, w.profile.kwp, tr.private, h, hsm.MaxWrapped)
				return err
			})
		}
		one.Err, _ = failure("", err).(*hsm.Error)
		reply.Keys = append(reply.Keys, one)
	}
	return reply, nil
}
