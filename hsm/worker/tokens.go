package worker

import (
	"fmt"
	"strings"

	"github.com/keyferry/keyferry/hsm"
	"github.com/miekg/pkcs11"
)

// openModule loads and initializes the library. It is the first call, and comes once.
func (w *worker) openModule(a hsm.OpenArgs) (hsm.Info, error) {
	if w.ctx != nil {
		return hsm.Info{}, &hsm.Error{Code: hsm.Internal, Detail: "the module is loaded already"}
	}
	ctx := pkcs11.New(a.Path)
	if ctx == nil {
		return hsm.Info{}, &hsm.Error{Code: hsm.ModuleNotLoaded, Object: a.Path, Detail: "not a PKCS#11 library, or one it depends on is missing"}
	}
	var opts []pkcs11.InitializeOption
	if a.InitArgs != "" {
		opts = append(opts, pkcs11.InitializeWithReserved(cString(a.InitArgs)))
	}
	if err := ctx.Initialize(opts...); err != nil {
		return hsm.Info{}, &hsm.Error{Code: hsm.ModuleNotLoaded, Object: a.Path, Detail: err.Error()}
	}
	direct, err := loadCryptoki(a.Path)
	if err != nil {
		return hsm.Info{}, &hsm.Error{Code: hsm.ModuleNotLoaded, Object: a.Path, Detail: err.Error()}
	}
	info, err := ctx.GetInfo()
	if err != nil {
		return hsm.Info{}, failure(a.Path, err)
	}
	w.epoch, w.ctx, w.direct, w.profile = a.Epoch, ctx, direct, profileFor(info)
	return w.info(hsm.Empty{})
}

// close lets the module write what it holds back. No call is inside it any more.
func (w *worker) close() {
	if w.ctx != nil {
		w.ctx.Finalize()
	}
}

func (w *worker) info(hsm.Empty) (hsm.Info, error) {
	var info hsm.Info
	err := w.reading(func() error {
		i, err := w.ctx.GetInfo()
		if err != nil {
			return err
		}
		info = hsm.Info{
			Manufacturer: clean(i.ManufacturerID),
			Description:  clean(i.LibraryDescription),
			Version:      version(i.LibraryVersion),
			Cryptoki:     version(i.CryptokiVersion),
			Profile:      w.profile.name,
		}
		slots, err := w.ctx.GetSlotList(true)
		if err != nil {
			return err
		}
		for _, slot := range slots {
			if t, err := w.token(slot); err == nil { // a token that went away meanwhile is just not listed
				info.Tokens = append(info.Tokens, t)
			}
		}
		return nil
	})
	return info, failure("module", err)
}

func (w *worker) token(slot uint) (hsm.TokenInfo, error) {
	t, err := w.ctx.GetTokenInfo(slot)
	if err != nil {
		return hsm.TokenInfo{}, err
	}
	initialized := t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0
	info := hsm.TokenInfo{
		Serial:       clean(t.SerialNumber),
		Label:        clean(t.Label),
		Manufacturer: clean(t.ManufacturerID),
		Model:        clean(t.Model),
		Hardware:     version(t.HardwareVersion),
		Firmware:     version(t.FirmwareVersion),
		SlotID:       slot,
		Initialized:  initialized,
		CodeSet:      t.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0,
		MinCode:      int(t.MinPinLen),
		MaxCode:      int(t.MaxPinLen),
	}
	if initialized { // SoftHSM sets these flags on slots without a token too
		info.CodeCountLow = t.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0
		info.CodeFinalTry = t.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0
		info.CodeLocked = t.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0
	}
	if w.profile.oneToken != "" { // its serial number tells nothing
		info.Serial = "label:" + info.Label
		info.Initialized = info.Label == w.profile.oneToken
	}
	w.mu.Lock()
	info.LoggedIn = w.open[info.Serial] != nil
	w.mu.Unlock()
	return info, nil
}

// find looks a token up by serial number, each time anew: a code must never go to a token that has
// taken another's place.
func (w *worker) find(serial string) (hsm.TokenInfo, error) {
	info, err := w.info(hsm.Empty{})
	if err != nil {
		return hsm.TokenInfo{}, err
	}
	for _, t := range info.Tokens {
		if t.Serial == serial && t.Initialized {
			return t, nil
		}
	}
	return hsm.TokenInfo{}, &hsm.Error{Code: hsm.NoToken, Object: "token " + serial, Detail: "the module does not show it; is the device connected?"}
}

func (w *worker) initToken(a hsm.InitTokenArgs) (hsm.InitTokenReply, error) {
	defer clear(a.OfficerCode)
	defer clear(a.Code)
	var none hsm.InitTokenReply
	slot, err := w.freeSlot(a)
	if err != nil {
		return none, err
	}
	var made hsm.TokenInfo
	err = w.writing(func() error {
		if w.profile.oneToken == "" {
			// miekg takes the officer code as a string; it is random and thrown away after this.
			if err := w.ctx.InitToken(slot, string(a.OfficerCode), a.Label); err != nil {
				return err
			}
		} else {
			a.OfficerCode = nil // such a token comes with an empty one
		}
		s, err := w.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		defer w.ctx.CloseSession(s)
		if err := w.direct.login(s, pkcs11.CKU_SO, a.OfficerCode); err != nil {
			return err
		}
		if err := w.direct.initPIN(s, a.Code); err != nil {
			return err
		}
		if err := w.ctx.Logout(s); err != nil {
			return err
		}
		made, err = w.token(slot)
		return err
	})
	return hsm.InitTokenReply{Token: made}, failure("new token "+a.Label, err)
}

// freeSlot finds a slot for a new token, and refuses a code that it would not take before anything is
// initialized.
func (w *worker) freeSlot(a hsm.InitTokenArgs) (uint, error) {
	info, err := w.info(hsm.Empty{})
	if err != nil {
		return 0, err
	}
	for _, t := range info.Tokens {
		free := !t.Initialized
		if w.profile.oneToken != "" {
			free = t.Label == w.profile.oneToken && !t.CodeSet
		}
		if !free {
			continue
		}
		if n := len(a.Code); n < t.MinCode || t.MaxCode > 0 && n > t.MaxCode {
			return 0, &hsm.Error{Code: hsm.CodeLength, Object: "new token " + a.Label, Detail: fmt.Sprintf("it takes %d to %d bytes", t.MinCode, t.MaxCode)}
		}
		return t.SlotID, nil
	}
	return 0, &hsm.Error{Code: hsm.NoFreeSlot}
}

func (w *worker) login(a hsm.CodeArgs) (hsm.Empty, error) {
	defer clear(a.Code)
	name := "token " + a.Serial
	w.mu.Lock()
	already := w.open[a.Serial] != nil
	w.mu.Unlock()
	if already { // a module that is logged in takes any code as right
		return hsm.Empty{}, &hsm.Error{Code: hsm.BadInput, Object: name, Detail: "it is open already"}
	}
	t, err := w.find(a.Serial)
	if err != nil {
		return hsm.Empty{}, err
	}
	if t.CodeLocked {
		return hsm.Empty{}, &hsm.Error{Code: hsm.CodeLocked, Object: name}
	}
	err = w.writing(func() error {
		s, err := w.ctx.OpenSession(t.SlotID, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := w.direct.login(s, pkcs11.CKU_USER, a.Code); err != nil {
			w.ctx.CloseSession(s)
			return err
		}
		w.mu.Lock()
		w.open[a.Serial] = &openToken{slot: t.SlotID, held: s}
		w.mu.Unlock()
		return nil
	})
	return hsm.Empty{}, failure(name, err)
}

func (w *worker) logout(a hsm.TokenArgs) (hsm.Empty, error) {
	w.mu.Lock()
	t := w.open[a.Serial]
	delete(w.open, a.Serial)
	w.mu.Unlock()
	if t == nil {
		return hsm.Empty{}, nil
	}
	err := w.writing(func() error {
		err := w.ctx.Logout(t.held)
		w.ctx.CloseSession(t.held)
		return err
	})
	return hsm.Empty{}, failure("token "+a.Serial, err)
}

// setCode changes the user code. It works on open and closed tokens alike (C_SetPIN, PKCS#11 2.40, 5.5).
func (w *worker) setCode(a hsm.SetCodeArgs) (hsm.Empty, error) {
	defer clear(a.Old)
	defer clear(a.New)
	name := "token " + a.Serial
	t, err := w.find(a.Serial)
	if err != nil {
		return hsm.Empty{}, err
	}
	if n := len(a.New); n < t.MinCode || t.MaxCode > 0 && n > t.MaxCode {
		return hsm.Empty{}, &hsm.Error{Code: hsm.CodeLength, Object: name, Detail: fmt.Sprintf("it takes %d to %d bytes", t.MinCode, t.MaxCode)}
	}
	s, err := w.newSession(t.SlotID)
	if err != nil {
		return hsm.Empty{}, failure(name, err)
	}
	defer w.closeSession(s)
	err = w.writing(func() error { return w.direct.setPIN(s, a.Old, a.New) })
	return hsm.Empty{}, failure(name, err)
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// clean makes a text from a module fit for people: valid UTF-8, no control characters, no padding.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}
