package worker

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// A worker holds one module.
type worker struct {
	epoch   uint64
	ctx     *pkcs11.Ctx
	direct  *cryptoki
	profile profile

	// lock is held for reading while calls find, read or use objects, and for writing while they make,
	// change or remove them, log in or change codes. SoftHSM 2.6.1 hands out torn objects otherwise.
	lock sync.RWMutex

	mu       sync.Mutex
	open     map[string]*openToken // by serial
	transfer map[uint64]*transfer  // exports and imports in progress
	last     uint64
}

// An openToken is a token that somebody logged in to. Its one session is kept so that the login lasts.
type openToken struct {
	slot    uint
	held    pkcs11.SessionHandle
	listing sync.Mutex // guards cache
	cache   listing
}

func newWorker() *worker {
	return &worker{open: map[string]*openToken{}, transfer: map[uint64]*transfer{}}
}

// handle dispatches one call of the daemon.
func (w *worker) handle(op string, decode func(any) error) (any, error) {
	f, ok := operations[op]
	if !ok {
		return nil, &hsm.Error{Code: hsm.Internal, Detail: "unknown operation " + op}
	}
	if w.ctx == nil && op != hsm.OpOpen {
		return nil, &hsm.Error{Code: hsm.Down, Detail: "no module is loaded"}
	}
	return f(w, decode)
}

var operations = map[string]func(*worker, func(any) error) (any, error){
	hsm.OpOpen:      operation((*worker).openModule),
	hsm.OpInfo:      operation((*worker).info),
	hsm.OpInitToken: operation((*worker).initToken),
	hsm.OpLogin:     operation((*worker).login),
	hsm.OpLogout:    operation((*worker).logout),
	hsm.OpSetCode:   operation((*worker).setCode),
	hsm.OpObjects:   operation((*worker).objects),
	hsm.OpPublic:    operation((*worker).publicObjects),
	hsm.OpGenerate:  operation((*worker).generate),
	hsm.OpDestroy:   operation((*worker).destroy),
	hsm.OpSign:      operation((*worker).sign),
	hsm.OpAgree:     operation((*worker).agree),
	hsm.OpStore:     operation((*worker).store),
	hsm.OpSweep:     operation((*worker).sweep),
	hsm.OpExport:    operation((*worker).export),
	hsm.OpAddress:   operation((*worker).address),
	hsm.OpWrap:      operation((*worker).wrap),
	hsm.OpImport:    operation((*worker).importKeys),
	hsm.OpUnwrap:    operation((*worker).unwrap),
	hsm.OpEnd:       operation((*worker).end),
	hsm.OpSelfTest:  operation((*worker).selfTest),
}

func operation[A, R any](f func(*worker, A) (R, error)) func(*worker, func(any) error) (any, error) {
	return func(w *worker, decode func(any) error) (any, error) {
		var args A
		if err := decode(&args); err != nil {
			return nil, err
		}
		reply, err := f(w, args)
		if err != nil {
			return nil, err
		}
		return reply, nil
	}
}

// session runs f in a session of its own on an open token.
func (w *worker) session(serial string, f func(*openToken, pkcs11.SessionHandle) error) error {
	w.mu.Lock()
	t := w.open[serial]
	w.mu.Unlock()
	if t == nil {
		return &hsm.Error{Code: hsm.NotLoggedIn, Object: "token " + serial}
	}
	s, err := w.newSession(t.slot)
	if err != nil {
		return failure("token "+serial, err)
	}
	defer w.closeSession(s)
	return f(t, s)
}

func (w *worker) newSession(slot uint) (pkcs11.SessionHandle, error) {
	w.lock.RLock()
	defer w.lock.RUnlock()
	return w.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// closeSession removes the session's objects with it, so it writes.
func (w *worker) closeSession(s pkcs11.SessionHandle) {
	w.lock.Lock()
	defer w.lock.Unlock()
	w.ctx.CloseSession(s)
}

// reading and writing run one PKCS#11 call, or a few that belong together, under the lock.
func (w *worker) reading(f func() error) error {
	w.lock.RLock()
	defer w.lock.RUnlock()
	return f()
}

func (w *worker) writing(f func() error) error {
	w.lock.Lock()
	defer w.lock.Unlock()
	return f()
}

// check refuses references from before a restart.
func (w *worker) check(r hsm.Ref) (pkcs11.ObjectHandle, error) {
	if r.Epoch != w.epoch {
		return 0, &hsm.Error{Code: hsm.Stale}
	}
	return pkcs11.ObjectHandle(r.Handle), nil
}

func (w *worker) ref(h pkcs11.ObjectHandle) hsm.Ref { return hsm.Ref{Epoch: w.epoch, Handle: uint(h)} }

// kinds maps PKCS#11 return values to kinds of failure; all others are hsm.Device.
var kinds = map[pkcs11.Error]hsm.Code{
	pkcs11.CKR_PIN_INCORRECT:            hsm.WrongCode,
	pkcs11.CKR_PIN_INVALID:              hsm.CodeLength,
	pkcs11.CKR_PIN_LEN_RANGE:            hsm.CodeLength,
	pkcs11.CKR_PIN_LOCKED:               hsm.CodeLocked,
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: hsm.CodeNotSet,
	pkcs11.CKR_USER_NOT_LOGGED_IN:       hsm.NotLoggedIn,
	pkcs11.CKR_KEY_UNEXTRACTABLE:        hsm.NotExtractable,
	pkcs11.CKR_KEY_NOT_WRAPPABLE:        hsm.Unsupported,
	pkcs11.CKR_MECHANISM_INVALID:        hsm.Unsupported,
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:   hsm.Unsupported,
	pkcs11.CKR_WRAPPED_KEY_INVALID:      hsm.BadWrapped,
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE:    hsm.BadWrapped,
	pkcs11.CKR_KEY_HANDLE_INVALID:       hsm.NoKey,
	pkcs11.CKR_OBJECT_HANDLE_INVALID:    hsm.NoKey,
	pkcs11.CKR_TOKEN_NOT_PRESENT:        hsm.NoToken,
	pkcs11.CKR_DEVICE_REMOVED:           hsm.NoToken,
	pkcs11.CKR_SLOT_ID_INVALID:          hsm.NoToken,
}

// failure turns an error of the module into one for the daemon.
func failure(object string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*hsm.Error](err); ok {
		if e.Object == "" {
			e.Object = object
		}
		return e
	}
	code, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return &hsm.Error{Code: hsm.Internal, Object: object, Detail: err.Error()}
	}
	kind, known := kinds[code]
	if !known {
		kind = hsm.Device
	}
	return &hsm.Error{Code: kind, Object: object, Detail: nameOf(code), RV: uint(code)}
}

// nameOf is the CKR_ name of a return value.
func nameOf(code pkcs11.Error) string {
	text := code.Error() // "pkcs11: 0x5: CKR_GENERAL_ERROR"
	if i := strings.LastIndex(text, "CKR_"); i >= 0 {
		return text[i:]
	}
	return fmt.Sprintf("CKR 0x%X", uint(code))
}
