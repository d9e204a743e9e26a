package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
)

// Identity is the identity certificate of the device, nil when there is none.
func (d *Device) Identity(ctx context.Context) (*x509.Certificate, error) {
	h, err := d.read(ctx)
	return h.pic, err
}

// Ask makes an identity key on the open device, unless one waits already, and asks for a certificate for it. An
// identity that the device has holds until StoreIdentity replaces it. Without a name the device keeps the one it
// has, or gets one from its serial number.
func (d *Device) Ask(ctx context.Context, name string) (*x509.CertificateRequest, error) {
	h, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	pik, err := d.pendingKey(ctx, h)
	if err != nil {
		return nil, err
	}
	der, err := Request(d.nameOr(name, h), d.Serial, pik)
	if err != nil {
		return nil, fmt.Errorf("certificate request of device %s: %w", d.Serial, err)
	}
	return ParseRequest(der)
}

func (d *Device) nameOr(name string, h holdings) string {
	switch {
	case name != "":
		return name
	case h.pic != nil:
		return h.pic.Subject.CommonName
	}
	return "HSM " + d.Serial
}

func (d *Device) pendingKey(ctx context.Context, h holdings) (*Key, error) {
	if h.pending != nil {
		return d.held(ctx, h.pending)
	}
	return EnsureKey(ctx, d.token, nextID(IdentityID, h.identity), "P-521", hsm.UseSign)
}

// Accepts tells, without the device's code, whether StoreIdentity would take a certificate: see CheckFor.
func (d *Device) Accepts(ctx context.Context, pic *x509.Certificate, now time.Time) error {
	_, err := d.awaited(ctx, pic, now)
	return err
}

// awaited finds the key that a certificate is for.
func (d *Device) awaited(ctx context.Context, pic *x509.Certificate, now time.Time) (*entry, error) {
	h, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	if h.poc == nil {
		return nil, fmt.Errorf("device %s does not know its owner yet: store the owner's certificate first (\"store-poc\")", d.Serial)
	}
	waits := h.pending
	if waits == nil && h.pik != nil && SameKey(h.pik.key, pic.PublicKey) {
		waits = h.pik // the certificate that is there, or a new one for the same key
	}
	if waits == nil {
		return nil, fmt.Errorf("device %s waits for no certificate: \"gen-csr\" makes a key and a request", d.Serial)
	}
	return waits, CheckFor(pic, h.poc, d.Serial, waits.key, now)
}

// StoreIdentity puts the certificate for the waiting identity key on the open device, and removes the identity
// that it replaces.
func (d *Device) StoreIdentity(ctx context.Context, pic *x509.Certificate, now time.Time) error {
	waits, err := d.awaited(ctx, pic, now)
	if err != nil {
		return err
	}
	if _, err := d.held(ctx, waits); err != nil { // a certificate without its private key is no identity
		return err
	}
	return d.put(ctx, IdentityID, waits.id, pic)
}

// SelfSign gives the open device an identity key with a certificate that it signs itself.
func (d *Device) SelfSign(ctx context.Context, name string, now time.Time) (*x509.Certificate, error) {
	h, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	name = d.nameOr(name, h)
	if err := CheckName("the name of the device", name); err != nil {
		return nil, err
	}
	pik, err := d.pendingKey(ctx, h)
	if err != nil {
		return nil, err
	}
	der, err := SelfSigned(name, d.Serial, pik, now)
	if err != nil {
		return nil, fmt.Errorf("self-signed certificate of device %s: %w", d.Serial, err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := pic.CheckSignatureFrom(pic); err != nil {
		return nil, fmt.Errorf("device %s signs, but what it signed does not hold: %w", d.Serial, err)
	}
	return pic, d.put(ctx, IdentityID, pik.id, pic)
}
