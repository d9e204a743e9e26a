package worker

import (
	"bytes"
	"slices"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// sweep removes objects that a crash left half made, and only those that a journal accounts for: their
// ID is one of the given ones, or they have none yet. It looks twice, because another program may be
// in the middle of writing an object, which looks the same.
func (w *worker) sweep(a hsm.SweepArgs) (hsm.SweepReply, error) {
	var reply hsm.SweepReply
	err := w.session(a.Serial, func(t *openToken, s pkcs11.SessionHandle) error {
		t.listing.Lock()
		defer t.listing.Unlock()
		first, err := w.unfinishedObjects(s, a.IDs)
		if err != nil || len(first) == 0 {
			return err
		}
		time.Sleep(a.Settle)
		second, err := w.unfinishedObjects(s, a.IDs)
		if err != nil {
			return err
		}
		for _, h := range second {
			if !slices.Contains(first, h) {
				continue
			}
			if err := w.writing(func() error { return w.ctx.DestroyObject(s, h) }); err != nil {
				return err
			}
			reply.Removed++
		}
		return nil
	})
	return reply, failure("token "+a.Serial, err)
}

func (w *worker) unfinishedObjects(s pkcs11.SessionHandle, ids [][]byte) ([]pkcs11.ObjectHandle, error) {
	var found []pkcs11.ObjectHandle
	err := w.reading(func() error {
		all, err := w.handles(s)
		if err != nil {
			return err
		}
		for _, h := range all {
			o := w.read(s, h)
			id := o.values[pkcs11.CKA_ID]
			ours := len(id) == 0 || slices.ContainsFunc(ids, func(b []byte) bool { return bytes.Equal(b, id) })
			if o.loose && ours {
				found = append(found, h)
			}
		}
		return nil
	})
	return found, err
}
