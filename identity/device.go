package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
)

// A Device is an HSM with its admin token. Its number is its place in the module's list today; its serial number
// stays.
type Device struct {
	Number int
	Serial string
	token  *hsm.Token
	twin   bool // another token of the module has the same serial number
}

// Devices are the admin tokens of a module: those with the given label.
func Devices(ctx context.Context, m *hsm.Module, label string) ([]*Device, error) {
	info, err := m.Info(ctx)
	if err != nil {
		return nil, err
	}
	return devices(m, info.Tokens, label), nil
}

func devices(m *hsm.Module, tokens []hsm.TokenInfo, label string) []*Device {
	claims := map[string]int{}
	for _, t := range tokens {
		if t.Initialized {
			claims[t.Serial]++
		}
	}
	var all []*Device
	for _, t := range tokens {
		if t.Initialized && t.Label == label {
			all = append(all, &Device{Number: len(all) + 1, Serial: t.Serial, token: m.Token(t.Serial), twin: claims[t.Serial] > 1})
		}
	}
	return all
}

// InitToken makes an admin token in a free slot of the module, with an authentication code that a person chose.
// The officer code is random and forgotten: who could set a new code with it could sign in the owner's name. The
// code is cleared.
func InitToken(ctx context.Context, m *hsm.Module, label string, code []byte) (serial string, err error) {
	officer := make([]byte, 16)
	rand.Read(officer)
	made, err := m.InitToken(ctx, label, fmt.Appendf(nil, "%x", officer), code)
	return made.Serial, err
}

// A Certified is a certificate as it is shown.
type Certified struct {
	State       State     `json:"state"`
	Subject     string    `json:"subject,omitempty"`
	Issuer      string    `json:"issuer,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
}

// Show is a certificate in a state, for people and programs.
func Show(c *x509.Certificate, s State) Certified {
	if c == nil {
		return Certified{State: s}
	}
	return Certified{s, c.Subject.String(), c.Issuer.String(), Fingerprint(c), c.NotBefore.UTC(), c.NotAfter.UTC()}
}

// A View is what a device shows without its code. Public objects tell it, so it is what the token says, not what
// its keys have proved.
type View struct {
	Number int       `json:"number"`
	Serial string    `json:"serial"`
	Name   string    `json:"name,omitempty"`
	POK    bool      `json:"pok"`
	POC    Certified `json:"poc"`
	PIK    bool      `json:"pik"`
	PIC    Certified `json:"pic"`
	// Renewing says that a new identity key waits for its certificate while the old identity holds; of a node of a
	// cluster, that it changes over to a new key.
	Renewing bool     `json:"renewing,omitempty"`
	Trusts   []string `json:"trusts,omitempty"` // nodes of a cluster: from whom they take packages
	Problem  string   `json:"problem,omitempty"`
}

// View reads what the device shows. A device that cannot be read has a problem, so that the others are listed.
func (d *Device) View(ctx context.Context, now time.Time) View {
	v := View{Number: d.Number, Serial: d.Serial, POC: Certified{State: None}, PIC: Certified{State: None}}
	h, err := d.read(ctx)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.POK, v.POC = h.pok != nil || h.pokNew != nil, Show(h.poc, h.ownerState(now))
	v.PIK, v.PIC = h.pik != nil || h.pending != nil, Show(h.pic, h.identityState(now))
	v.Renewing = h.pic != nil && h.pending != nil
	if h.pic != nil {
		v.Name = h.pic.Subject.CommonName
	}
	return v
}

// ownerState is the state of owner key and certificate.
func (h holdings) ownerState(now time.Time) State {
	switch {
	case h.pokPending():
		return POCPending
	case h.poc == nil:
		return None
	case CheckOwner(h.poc, h.poc.NotBefore) != nil:
		return Invalid
	}
	return StateOf(h.poc, now)
}

// pokPending tells whether there is an owner key that has not certified the device it is on.
func (h holdings) pokPending() bool {
	if h.pok == nil {
		return h.pokNew != nil
	}
	return h.pic == nil || h.pic.CheckSignatureFrom(h.poc) != nil
}

// identityState is the state of identity key and certificate.
func (h holdings) identityState(now time.Time) State {
	switch {
	case h.pic == nil && h.pending != nil:
		return PIKPending
	case h.pic == nil:
		return None
	case checkProfile(h.pic) != nil:
		return Invalid
	case h.selfSigned():
		return StateOf(h.pic, now)
	case h.poc == nil || h.pic.CheckSignatureFrom(h.poc) != nil:
		return Invalid
	case !StateOf(h.poc, now).Good():
		return StateOf(h.poc, now)
	}
	return StateOf(h.pic, now)
}

func (h holdings) selfSigned() bool {
	return h.pic != nil && bytes.Equal(h.pic.RawIssuer, h.pic.RawSubject) && h.pic.CheckSignatureFrom(h.pic) == nil
}

// Login opens the device with its code, which is tried once.
func (d *Device) Login(ctx context.Context, code []byte) error {
	if err := d.usable(); err != nil {
		return err
	}
	if err := d.token.Login(ctx, code, false); err != nil {
		return fmt.Errorf("device %s: %w", d.Serial, err)
	}
	return nil
}

// usable refuses a serial number that two tokens claim: the code of one would go to the other.
func (d *Device) usable() error {
	if d.twin {
		return fmt.Errorf("two tokens of the module have the serial number %s, so neither can be told from the other: take one of them away", d.Serial)
	}
	return nil
}

// publicKey is the key of a certificate or a key object, to be compared.
func publicKey(der []byte) crypto.PublicKey {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil
	}
	return k
}
