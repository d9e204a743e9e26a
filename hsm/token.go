package hsm

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"time"
)

// Info asks the module who it is and which tokens it shows.
func (m *Module) Info(ctx context.Context) (Info, error) {
	return once[Info](ctx, m, OpInfo, Empty{}, openDeadline)
}

// InitToken initializes a token in a free slot and sets its code. The officer code (SO PIN) and the
// code are wiped. The module is restarted, because modules show a new token only after that; other
// tokens stay open.
func (m *Module) InitToken(ctx context.Context, label string, officerCode, code []byte) (TokenInfo, error) {
	defer clear(officerCode)
	defer clear(code)
	if err := checkLabel(label); err != nil {
		return TokenInfo{}, err
	}
	r, err := once[InitTokenReply](ctx, m, OpInitToken, InitTokenArgs{label, officerCode, code}, makeDeadline)
	if err != nil {
		return TokenInfo{}, err
	}
	if err := m.Restart(ctx); err != nil {
		return r.Token, err
	}
	return r.Token, nil
}

// checkLabel holds labels to CK_TOKEN_INFO: 32 bytes.
func checkLabel(label string) error {
	if label == "" || len(label) > 32 {
		return &Error{Code: BadInput, Object: fmt.Sprintf("token label %q", label), Detail: "a label has 1 to 32 bytes"}
	}
	return nil
}

// Token addresses one token by its serial number.
func (m *Module) Token(serial string) *Token { return &Token{module: m, Serial: serial} }

// Token is one token of a module. Its methods wait while the module's child is being restarted.
type Token struct {
	module *Module
	Serial string
}

func (t *Token) name() string { return "token " + t.Serial }

// Login opens the token and keeps it open, through restarts of the child too, until Logout. The code
// is tried once. A wrong one gives WrongCode, and the token is left as it was.
//
// With fresh, the child is restarted first where the module sees codes that another program changed
// only then; otherwise such a module refuses the right code or takes an old one.
func (t *Token) Login(ctx context.Context, code []byte, fresh bool) error {
	if fresh {
		return t.LoginSince(ctx, code, time.Now().Add(-Recent))
	}
	return t.LoginSince(ctx, code, time.Time{})
}

// Recent is how young a child is that need not be restarted: nobody changes a code with another program and
// enters it here within that.
const Recent = time.Second

// LoginSince is Login with a code that was entered at a time: only a child that has run since before that is
// restarted. So many tokens that are opened at once cost one restart. The zero time is no reason for one.
func (t *Token) LoginSince(ctx context.Context, code []byte, entered time.Time) error {
	if err := checkCode(t.name(), code); err != nil {
		return err
	}
	if held, same := t.module.holds(t.Serial, code); held {
		if same {
			return nil
		}
		return &Error{Code: WrongCode, Object: t.name(), Detail: "it is open already, with another code"}
	}
	if err := t.module.refresh(ctx, entered); err != nil {
		return err
	}
	sent := append([]byte(nil), code...)
	_, err := once[Empty](ctx, t.module, OpLogin, CodeArgs{t.Serial, sent}, codeDeadline)
	clear(sent)
	if err == nil {
		t.module.hold(t.Serial, code)
	}
	return err
}

func (m *Module) holds(serial string, code []byte) (held, same bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, held := m.held[serial]
	return held, held && subtle.ConstantTimeCompare(h, code) == 1
}

// Holds tells whether the token is kept open, and whether with this code. It asks no device.
func (t *Token) Holds(code []byte) (open, same bool) { return t.module.holds(t.Serial, code) }

// TryCode logs in to the token once, in a child that is started for it and ends after it. So it sees the
// code that the token has now, whoever changed it, and touches no session that is open. Nothing is kept.
func (t *Token) TryCode(ctx context.Context, code []byte) error {
	if err := checkCode(t.name(), code); err != nil {
		return err
	}
	cfg := t.module.cfg
	cfg.Lock = "" // the child beside it has that; this one writes nothing
	p, err := startProcess(cfg, 0)
	if err != nil {
		return err
	}
	defer p.end()
	l := &lease{m: t.module, p: p, free: true}
	if _, err := call[Info](ctx, l, OpOpen, OpenArgs{Path: cfg.Path, InitArgs: cfg.InitArgs}, openDeadline); err != nil {
		return err
	}
	sent := append([]byte(nil), code...)
	defer clear(sent)
	_, err = call[Empty](ctx, l, OpLogin, CodeArgs{t.Serial, sent}, codeDeadline)
	return err
}

// Code is a copy of the code that the token was opened with and is held open by. The caller clears it.
func (t *Token) Code() (code []byte, held bool) {
	t.module.mu.Lock()
	defer t.module.mu.Unlock()
	h, held := t.module.held[t.Serial]
	return bytes.Clone(h), held
}

// Forget lets the module's next child start without opening the token. In this one it stays open.
func (t *Token) Forget() { t.module.forget(t.Serial) }

// Logout closes the token for this program. Other programs' sessions are their own.
func (t *Token) Logout(ctx context.Context) error {
	t.module.forget(t.Serial)
	_, err := once[Empty](ctx, t.module, OpLogout, TokenArgs{t.Serial}, codeDeadline)
	return err
}

// SetCode changes the token's code. The old one is tried once in all. The token stays open if it was.
func (t *Token) SetCode(ctx context.Context, old, code []byte) error {
	for _, c := range [][]byte{old, code} {
		if err := checkCode(t.name(), c); err != nil {
			return err
		}
	}
	_, held := t.module.holds(t.Serial, old)
	if err := t.module.refresh(ctx, time.Now().Add(-Recent)); err != nil {
		return err
	}
	if still, _ := t.Holds(old); held && !still { // the new child has tried it
		return &Error{Code: WrongCode, Object: t.name(), Detail: "another program has changed it; it was refused when the module was started anew"}
	}
	args := SetCodeArgs{t.Serial, append([]byte(nil), old...), append([]byte(nil), code...)}
	_, err := once[Empty](ctx, t.module, OpSetCode, args, codeDeadline)
	clear(args.Old)
	clear(args.New)
	if held, _ := t.module.holds(t.Serial, nil); err == nil && held {
		t.module.hold(t.Serial, code)
	}
	return err
}

func checkCode(object string, code []byte) error {
	if len(code) == 0 || len(code) > MaxCode {
		return &Error{Code: CodeLength, Object: object, Detail: fmt.Sprintf("a code has 1 to %d bytes", MaxCode)}
	}
	return nil
}

// refresh restarts a child that has run since before a time, so that it sees what other programs changed in
// tokens and codes.
func (m *Module) refresh(ctx context.Context, since time.Time) error {
	m.mu.Lock()
	young := since.IsZero() || m.up != nil && m.up.began.After(since)
	m.mu.Unlock()
	if young {
		return nil
	}
	return m.Restart(ctx)
}

// Objects lists keys and certificates. Give the generation of the last answer to be told "unchanged"
// cheaply. With fresh every attribute is read again, otherwise only those of objects not seen before.
func (t *Token) Objects(ctx context.Context, generation uint64, fresh bool) (Objects, error) {
	return once[Objects](ctx, t.module, OpObjects, ObjectsArgs{t.Serial, generation, fresh}, listDeadline)
}

// Public lists public keys and certificates. The token need not be open, so nothing here is proved: a public key
// object may stand there without a private key.
func (t *Token) Public(ctx context.Context) (PublicObjects, error) {
	return once[PublicObjects](ctx, t.module, OpPublic, TokenArgs{t.Serial}, listDeadline)
}

// Generate makes a key (or key pair, with its public key object) on the token.
func (t *Token) Generate(ctx context.Context, spec KeySpec) (Key, error) {
	if len(spec.ID) > MaxLabel || len(spec.Label) > MaxLabel {
		return Key{}, &Error{Code: BadInput, Object: t.name(), Detail: "label or ID too long"}
	}
	return once[Key](ctx, t.module, OpGenerate, GenerateArgs{t.Serial, spec}, makeDeadline)
}

// Destroy removes one object.
func (t *Token) Destroy(ctx context.Context, object Ref) error {
	_, err := once[Empty](ctx, t.module, OpDestroy, RefArgs{t.Serial, object}, listDeadline)
	return err
}

// StoreCertificates puts certificates beside keys. Ones that are there already are left alone.
func (t *Token) StoreCertificates(ctx context.Context, certs []Certificate) error {
	for _, c := range certs {
		if len(c.DER) == 0 || len(c.DER) > MaxCertificate || len(c.ID) > MaxLabel || len(c.Label) > MaxLabel {
			return &Error{Code: BadInput, Object: t.name(), Detail: "certificate, label or ID of impossible size"}
		}
	}
	_, err := once[Empty](ctx, t.module, OpStore, StoreArgs{t.Serial, certs}, batchDeadline)
	return err
}

// Sweep removes what a crash left half made: objects that still have no class, or private keys
// without their numbers, when they carry one of the given IDs or none at all. It looks twice, settle
// apart, so that it never takes an object that another program is just writing. It returns how many
// it removed.
func (t *Token) Sweep(ctx context.Context, ids [][]byte, settle time.Duration) (int, error) {
	r, err := once[SweepReply](ctx, t.module, OpSweep, SweepArgs{t.Serial, ids, settle}, listDeadline+settle)
	return r.Removed, err
}

// SelfTest tries with session objects what the module can generate, export, import and use. The token
// must be open.
func (t *Token) SelfTest(ctx context.Context) ([]Ability, error) {
	r, err := once[SelfTestReply](ctx, t.module, OpSelfTest, TokenArgs{t.Serial}, selfDeadline)
	return r.Abilities, err
}
