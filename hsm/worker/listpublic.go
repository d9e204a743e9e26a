package worker

import (
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// publicObjects lists what the token shows without its code. The session may be one of an open token, where this
// worker is logged in; so the classes are asked for, not what happens to be visible.
func (w *worker) publicObjects(a hsm.TokenArgs) (hsm.PublicObjects, error) {
	var reply hsm.PublicObjects
	name := "token " + a.Serial
	token, err := w.find(a.Serial)
	if err != nil {
		return reply, err
	}
	s, err := w.newSession(token.SlotID)
	if err != nil {
		return reply, failure(name, err)
	}
	defer w.closeSession(s)
	err = w.reading(func() error {
		handles, err := w.handles(s)
		if err != nil {
			return err
		}
		slices.Sort(handles)
		for _, h := range handles {
			o := w.read(s, h)
			id := o.values[pkcs11.CKA_ID]
			switch {
			case o.loose || o.session:
			case o.class == pkcs11.CKO_CERTIFICATE:
				reply.Certificates = append(reply.Certificates, hsm.Certificate{Ref: w.ref(h), ID: id, Label: label(o), DER: o.values[pkcs11.CKA_VALUE]})
			case o.class == pkcs11.CKO_PUBLIC_KEY:
				if der := publicOf(o); der != nil {
					reply.Keys = append(reply.Keys, hsm.PublicKey{Ref: w.ref(h), ID: id, Label: label(o), DER: der})
				}
			}
		}
		return nil
	})
	return reply, failure(name, err)
}
