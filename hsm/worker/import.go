package worker

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

func (w *worker) importKeys(a hsm.ImportArgs) (hsm.OpenedReply, error) {
	transport, err := w.check(a.Transport)
	if err != nil {
		return hsm.OpenedReply{}, err
	}
	if n := len(a.PackageKey); n == 0 || n > 64 {
		return hsm.OpenedReply{}, &hsm.Error{Code: hsm.BadWrapped, Detail: fmt.Sprintf("package key of %d bytes", n)}
	}
	id, err := w.begin(a.Serial, func(tr *transfer) error {
		if err := w.writing(func() error { return w.openPackageKey(tr, transport, a) }); err != nil {
			return err
		}
		tr.token.listing.Lock()
		defer tr.token.listing.Unlock()
		if err := w.list(tr.token, tr.session, false); err != nil {
			return err
		}
		tr.beside = map[string]bool{}
		for _, o := range tr.token.cache.objects {
			switch o.class {
			case pkcs11.CKO_PUBLIC_KEY:
				tr.beside[besideKey(o.class, o.values[pkcs11.CKA_ID], publicOf(o))] = true
			case pkcs11.CKO_CERTIFICATE:
				tr.beside[besideKey(o.class, o.values[pkcs11.CKA_ID], o.values[pkcs11.CKA_VALUE])] = true
			}
		}
		return nil
	})
	return hsm.OpenedReply{Session: id}, err
}

func besideKey(class uint, id, value []byte) string {
	return fmt.Sprintf("%d/%x/%x", class, id, value)
}

// openPackageKey unwraps the package key twice: once so that it opens private keys only, once for
// secret keys only. The token itself then refuses to open a private key's blob as readable data.
func (w *worker) openPackageKey(tr *transfer, transport pkcs11.ObjectHandle, a hsm.ImportArgs) error {
	kek, err := w.deriveKEK(tr.session, transport, a.Ephemeral, a.Context, hsm.UseUnwrap)
	if err != nil {
		return err
	}
	defer w.ctx.DestroyObject(tr.session, kek)
	open := func(class uint) (pkcs11.ObjectHandle, error) {
		only, free := template(pkcs11.CKA_UNWRAP_TEMPLATE, attributes{attr(pkcs11.CKA_CLASS, class), attr(pkcs11.CKA_SENSITIVE, true)})
		defer free()
		h, err := w.ctx.UnwrapKey(tr.session, mechanism(w.profile.kwp, nil), kek, a.PackageKey,
			sessionSecret(pkcs11.CKK_AES, hsm.UseUnwrap, attr(pkcs11.CKA_EXTRACTABLE, false), only))
		if err != nil {
			return 0, &hsm.Error{Code: hsm.BadWrapped, Object: "package key", Detail: "it is not for this slot's transport key, or was changed on the way: " + err.Error()}
		}
		return h, nil
	}
	if tr.private, err = open(pkcs11.CKO_PRIVATE_KEY); err != nil {
		return err
	}
	tr.secret, err = open(pkcs11.CKO_SECRET_KEY)
	return err
}

func (w *worker) unwrap(a hsm.UnwrapArgs) (hsm.UnwrapReply, error) {
	var reply hsm.UnwrapReply
	tr, err := w.inProgress(a.Session)
	if err != nil {
		return reply, err
	}
	if len(a.Keys) > hsm.MaxBatch || len(a.Challenge) < 16 {
		return reply, &hsm.Error{Code: hsm.BadInput, Detail: "too many keys in one batch, or a challenge that is too short"}
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, k := range a.Keys {
		var one hsm.Arrived
		err := checkIncoming(k)
		if err == nil {
			one, err = w.importOne(tr, k, a.Challenge)
		}
		one.Err, _ = failure("key "+k.Name(), err).(*hsm.Error)
		reply.Keys = append(reply.Keys, one)
	}
	return reply, nil
}

// checkIncoming refuses what a module must never see: miekg/pkcs11 panics on empty input, and modules
// are not all careful with lengths.
func checkIncoming(k hsm.Incoming) error {
	bad := func(what string) error { return &hsm.Error{Code: hsm.BadInput, Detail: what} }
	if n := len(k.Blob); n < 16 || n > hsm.MaxWrapped || n%8 != 0 {
		return &hsm.Error{Code: hsm.BadWrapped, Detail: fmt.Sprintf("%d bytes is no length of an RFC 5649 blob", n)}
	}
	if len(k.Mechanisms) > hsm.MaxMechanisms {
		return bad("too many allowed mechanisms")
	}
	if len(k.ID) > hsm.MaxLabel || len(k.Label) > hsm.MaxLabel || len(k.Subject) > hsm.MaxCertificate {
		return bad("ID, label or subject too long")
	}
	kt, ok := keyTypes[k.Type]
	if !ok || (k.Class == hsm.SecretKey) != (kt == pkcs11.CKK_AES || kt == pkcs11.CKK_GENERIC_SECRET) {
		return &hsm.Error{Code: hsm.Unsupported, Detail: fmt.Sprintf("%s key of type %q", k.Class, k.Type)}
	}
	if k.Class == hsm.PrivateKey && !fits(k.Public, kt, k.Curve) {
		return bad("the public key does not fit the key's type")
	}
	if k.Class == hsm.SecretKey && len(k.Check) == 0 {
		return bad("a secret key without a check value cannot be proved")
	}
	for _, c := range k.Certificates {
		if _, err := x509.ParseCertificate(c.DER); err != nil || len(c.DER) > hsm.MaxCertificate || len(c.ID) > hsm.MaxLabel || len(c.Label) > hsm.MaxLabel {
			return bad("a certificate that does not parse, or is too large")
		}
	}
	return nil
}

var keyTypes = map[string]uint{"RSA": pkcs11.CKK_RSA, "EC": pkcs11.CKK_EC, "Ed25519": keyTypeEdwards, "AES": pkcs11.CKK_AES, "generic": pkcs11.CKK_GENERIC_SECRET}

// importOne proves a key in the session, then puts certificates, public key and, last, the key itself
// on the token, so that nobody finds a key whose companions are missing. On failure it takes back what
// it made.
func (w *worker) importOne(tr *transfer, k hsm.Incoming, challenge []byte) (hsm.Arrived, error) {
	var arrived hsm.Arrived
	var made []pkcs11.ObjectHandle
	undo := func(err error) (hsm.Arrived, error) {
		for _, h := range made {
			w.writing(func() error { return w.ctx.DestroyObject(tr.session, h) })
		}
		return hsm.Arrived{}, err
	}
	var proving pkcs11.ObjectHandle
	if err := w.writing(func() (err error) {
		proving, err = w.openKey(tr, unrestricted(k), false, hsm.UseSign)
		return err
	}); err != nil {
		return undo(err)
	}
	defer w.writing(func() error { return w.ctx.DestroyObject(tr.session, proving) })
	var err error
	if arrived.Proof, err = w.prove(tr.session, proving, k.Key, challenge); err != nil {
		return undo(err)
	}
	beside, err := w.storeBeside(tr, k)
	made = append(made, beside...)
	if err != nil {
		return undo(err)
	}
	final, err := w.persist(tr, k, proving)
	if err != nil {
		return undo(err)
	}
	made = append(made, final)
	if k.Usage&hsm.UseSign != 0 && mayProve(k.Key) {
		if arrived.Proof, err = w.prove(tr.session, final, k.Key, challenge); err != nil {
			return undo(err)
		}
		arrived.Final = true
	}
	return arrived, nil
}

// unrestricted is a key that can prove itself, by whatever mechanism that takes.
func unrestricted(k hsm.Incoming) hsm.Incoming {
	k.Mechanisms = nil
	return k
}

// persist puts a key that has proved itself on the token, with its own usage: as a copy of the session
// object where the module can do that, or unwrapped once more.
func (w *worker) persist(tr *transfer, k hsm.Incoming, proving pkcs11.ObjectHandle) (final pkcs11.ObjectHandle, err error) {
	if len(k.Mechanisms) > 0 && w.profile.noMechanisms {
		return 0, &hsm.Error{Code: hsm.Unsupported, Detail: "it is restricted to some mechanisms (CKA_ALLOWED_MECHANISMS), which this module does not keep"}
	}
	return final, w.writing(func() error {
		if !w.profile.copies {
			final, err = w.openKey(tr, k, true, k.Usage)
			return err
		}
		from := proving
		if len(k.Mechanisms) > 0 { // which a copy cannot be given
			if from, err = w.openKey(tr, k, false, k.Usage); err != nil {
				return err
			}
			defer w.ctx.DestroyObject(tr.session, from)
		}
		final, err = w.ctx.CopyObject(tr.session, from, append(usageOf(classOf(k.Class), k.Usage), attr(pkcs11.CKA_TOKEN, true)))
		return err
	})
}

// openKey unwraps a key with every attribute given, as a session or a token object. The caller holds the
// lock.
func (w *worker) openKey(tr *transfer, k hsm.Incoming, token bool, u hsm.Usage) (pkcs11.ObjectHandle, error) {
	class := classOf(k.Class)
	a := attributes{
		attr(pkcs11.CKA_CLASS, class), attr(pkcs11.CKA_KEY_TYPE, keyTypes[k.Type]), attr(pkcs11.CKA_TOKEN, token),
		attr(pkcs11.CKA_PRIVATE, true), attr(pkcs11.CKA_SENSITIVE, true), attr(pkcs11.CKA_EXTRACTABLE, k.Extractable),
		attr(pkcs11.CKA_ID, k.ID), attr(pkcs11.CKA_LABEL, k.Label),
	}
	a = append(a, purpose(k.Key, u)...)
	for _, d := range []struct {
		attribute uint
		t         time.Time
	}{{pkcs11.CKA_START_DATE, k.Start}, {pkcs11.CKA_END_DATE, k.End}} {
		if !d.t.IsZero() && !w.profile.noDates {
			a = append(a, attr(d.attribute, []byte(d.t.Format("20060102"))))
		}
	}
	kek := tr.secret
	if k.Class == hsm.PrivateKey {
		kek = tr.private
		if len(k.Subject) > 0 {
			a = append(a, attr(pkcs11.CKA_SUBJECT, k.Subject))
		}
		if w.profile.ecPoint != 0 && k.Type == "EC" {
			_, public, err := publicAttributes(k.Public)
			if err != nil {
				return 0, err
			}
			a = append(a, attr(w.profile.ecPoint, public[1].Value))
		}
	}
	h, err := w.ctx.UnwrapKey(tr.session, mechanism(w.profile.kwp, nil), kek, k.Blob, a)
	if err != nil { // modules have many words for a blob that does not open
		return 0, &hsm.Error{Code: hsm.BadWrapped, Detail: err.Error()}
	}
	return h, nil
}

// purpose is what a key may be used for: its usage flags, and the mechanisms it is restricted to.
func purpose(k hsm.Key, u hsm.Usage) attributes {
	a := usageOf(classOf(k.Class), u)
	if len(k.Mechanisms) > 0 {
		var b []byte
		for _, m := range k.Mechanisms {
			b = binary.NativeEndian.AppendUint64(b, uint64(m))
		}
		a = append(a, attr(pkcs11.CKA_ALLOWED_MECHANISMS, b))
	}
	return a
}

// mayProve tells whether a key that may sign may do so by the mechanism of its proof.
func mayProve(k hsm.Key) bool {
	m, _, err := hsm.ProofInput(k, []byte("any"))
	if k.Class == hsm.SecretKey {
		m, err = macMechanism(keyTypes[k.Type]), nil
	}
	return err == nil && (len(k.Mechanisms) == 0 || slices.Contains(k.Mechanisms, uint32(signMechanisms[m]()[0].Mechanism)))
}

func classOf(c hsm.Class) uint {
	if c == hsm.SecretKey {
		return pkcs11.CKO_SECRET_KEY
	}
	return pkcs11.CKO_PRIVATE_KEY
}

// storeBeside makes the certificates and the public key object of a key, unless they are there. It
// returns what it made.
func (w *worker) storeBeside(tr *transfer, k hsm.Incoming) (made []pkcs11.ObjectHandle, err error) {
	for _, c := range k.Certificates {
		h, err := w.storeOne(tr, besideKey(pkcs11.CKO_CERTIFICATE, c.ID, c.DER), certificateAttributes(c))
		made = append(made, h...)
		if err != nil {
			return made, fmt.Errorf("its certificate: %w", err)
		}
	}
	if k.Class == hsm.PrivateKey && k.PublicObject {
		kt, numbers, err := publicAttributes(k.Public)
		if err != nil {
			return made, err
		}
		a := append(attributes{attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attr(pkcs11.CKA_KEY_TYPE, kt), attr(pkcs11.CKA_PRIVATE, false),
			attr(pkcs11.CKA_ID, k.ID), attr(pkcs11.CKA_LABEL, k.Label)}, numbers...)
		a = append(a, usageOf(pkcs11.CKO_PUBLIC_KEY, k.PublicUsage)...)
		h, err := w.storeOne(tr, besideKey(pkcs11.CKO_PUBLIC_KEY, k.ID, k.Public), a)
		made = append(made, h...)
		if err != nil {
			return made, fmt.Errorf("its public key: %w", err)
		}
	}
	return made, nil
}

// storeOne puts one object on the token unless one like it is there.
func (w *worker) storeOne(tr *transfer, key string, a attributes) ([]pkcs11.ObjectHandle, error) {
	if tr.beside[key] {
		return nil, nil
	}
	var h pkcs11.ObjectHandle
	err := w.writing(func() (err error) {
		h, err = w.put(tr.session, a)
		return err
	})
	if err != nil {
		return nil, err
	}
	if tr.beside != nil {
		tr.beside[key] = true
	}
	return []pkcs11.ObjectHandle{h}, nil
}

// put makes a token object, in one write where the module can do that. The caller holds the lock.
func (w *worker) put(s pkcs11.SessionHandle, a attributes) (pkcs11.ObjectHandle, error) {
	if !w.profile.copies {
		return w.ctx.CreateObject(s, append(a, attr(pkcs11.CKA_TOKEN, true)))
	}
	h, err := w.ctx.CreateObject(s, append(a, attr(pkcs11.CKA_TOKEN, false)))
	if err != nil {
		return 0, err
	}
	defer w.ctx.DestroyObject(s, h)
	return w.ctx.CopyObject(s, h, attributes{attr(pkcs11.CKA_TOKEN, true)})
}

func certificateAttributes(c hsm.Certificate) attributes {
	a := attributes{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE), attr(pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKC_X_509), attr(pkcs11.CKA_PRIVATE, false),
		attr(pkcs11.CKA_ID, c.ID), attr(pkcs11.CKA_LABEL, c.Label), attr(pkcs11.CKA_VALUE, c.DER),
	}
	if cert, err := x509.ParseCertificate(c.DER); err == nil { // checked before; modules want these beside the value
		a = append(a, attr(pkcs11.CKA_SUBJECT, cert.RawSubject), attr(pkcs11.CKA_ISSUER, cert.RawIssuer), attr(pkcs11.CKA_SERIAL_NUMBER, serialDER(cert)))
	}
	return a
}

// store puts certificates on the token.
func (w *worker) store(a hsm.StoreArgs) (hsm.Empty, error) {
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		t.listing.Lock()
		defer t.listing.Unlock()
		if err := w.list(t, s, false); err != nil {
			return err
		}
		for _, c := range a.Certificates {
			if _, err := x509.ParseCertificate(c.DER); err != nil {
				return &hsm.Error{Code: hsm.BadInput, Detail: "certificate: " + err.Error()}
			}
			there := false
			for _, have := range t.cache.reply.Certificates {
				there = there || bytes.Equal(have.DER, c.DER) && bytes.Equal(have.ID, c.ID)
			}
			if there {
				continue
			}
			if err := w.writing(func() error { _, err := w.put(s, certificateAttributes(c)); return err }); err != nil {
				return err
			}
		}
		return nil
	})
	return hsm.Empty{}, failure("token "+a.Serial, err)
}
