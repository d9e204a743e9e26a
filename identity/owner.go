package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/hsm"
)

// Owner is the certificate of the owner that the device is or stands under, nil when there is none.
func (d *Device) Owner(ctx context.Context) (*x509.Certificate, error) {
	h, err := d.read(ctx)
	return h.poc, err
}

// MakeOwner makes an owner key and its certificate on the open device, replacing what Owner tells. What an
// interrupted run has left is finished. The new certificate is POC-Pending until Certify was used for the device
// itself.
func (d *Device) MakeOwner(ctx context.Context, name string, now time.Time) (*x509.Certificate, error) {
	if err := CheckName("the name of the owner", name); err != nil {
		return nil, err
	}
	h, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	id := nextID(OwnerID, h.owner)
	if h.pokNew != nil {
		id = h.pokNew.id
	}
	pok, err := EnsureKey(ctx, d.token, id, "P-521", hsm.UseSign)
	if err != nil {
		return nil, err
	}
	der, err := OwnerCertificate(name, pok, now)
	if err != nil {
		return nil, fmt.Errorf("owner certificate: %w", err)
	}
	poc, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := CheckOwner(poc, now); err != nil {
		return nil, fmt.Errorf("device %s signs, but what it signed does not hold: %w", d.Serial, err)
	}
	return poc, d.put(ctx, OwnerID, id, poc)
}

// ErrPOCPending refuses a CA that has not certified itself.
var ErrPOCPending = errors.New("its owner certificate is POC-Pending: it has to certify its own device first")

// CheckCA tells whether the device can certify others, or, with itself, at least itself.
func (d *Device) CheckCA(ctx context.Context, itself bool, now time.Time) error {
	h, err := d.read(ctx)
	switch {
	case err != nil:
		return err
	case h.pokNew != nil:
		return fmt.Errorf("device %s has an owner key without a certificate: \"gen-owner\" was interrupted; run it again", d.Serial)
	case h.pok == nil:
		return fmt.Errorf("device %s has no owner key, so it cannot certify: \"gen-owner\" makes one", d.Serial)
	case h.pokPending() && !itself:
		return fmt.Errorf("device %s is not taken as CA for others: %w (\"gen-key %d %d\")", d.Serial, ErrPOCPending, d.Number, d.Number)
	}
	return CheckOwner(h.poc, now)
}

// Certify makes an identity certificate with the owner key of the open device.
func (d *Device) Certify(ctx context.Context, r *x509.CertificateRequest, now time.Time) (*x509.Certificate, error) {
	if err := d.CheckCA(ctx, r.Subject.SerialNumber == d.Serial, now); err != nil {
		return nil, err
	}
	h, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.claims(h, r); err != nil {
		return nil, err
	}
	pok, err := d.held(ctx, h.pok)
	if err != nil {
		return nil, err
	}
	der, err := Certificate(r, h.poc, pok, now)
	if err != nil {
		return nil, fmt.Errorf("identity certificate for %s: %w", r.Subject.SerialNumber, err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return pic, CheckFor(pic, h.poc, r.Subject.SerialNumber, r.PublicKey, now)
}

// Claims refuses a request in the name of a device that is here and did not make it: two devices would have one
// serial number.
func Claims(ctx context.Context, here []*Device, r *x509.CertificateRequest) error {
	for _, d := range here {
		if d.Serial != r.Subject.SerialNumber {
			continue
		}
		h, err := d.read(ctx)
		if err != nil {
			return err
		}
		if err := d.claims(h, r); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) claims(h holdings, r *x509.CertificateRequest) error {
	mine := func(e *entry) bool { return e != nil && SameKey(e.key, r.PublicKey) }
	if r.Subject.SerialNumber == d.Serial && !mine(h.pending) && !mine(h.pik) {
		return fmt.Errorf("two devices claim the serial number %s: this one, and whoever made the request (%q): a module that gives two devices the same number cannot be used for identities", d.Serial, r.Subject.CommonName)
	}
	return nil
}

// held finds the private key of an entry. A token that shows a public key need not have the private one.
func (d *Device) held(ctx context.Context, e *entry) (*Key, error) {
	if _, err := FindKey(ctx, d.token, e.id); err != nil {
		return nil, err
	}
	k, err := EnsureKey(ctx, d.token, e.id, "P-521", hsm.UseSign)
	if err == nil && !SameKey(e.key, k.Public()) {
		err = fmt.Errorf("device %s has two keys %s: remove the one that is not its own", d.Serial, e.id)
	}
	return k, err
}

// StoreOwner puts the certificate of another owner on the open device.
func (d *Device) StoreOwner(ctx context.Context, poc *x509.Certificate, now time.Time) error {
	if err := CheckOwner(poc, now); err != nil {
		return err
	}
	h, err := d.read(ctx)
	switch {
	case err != nil:
		return err
	case h.poc != nil && h.poc.Equal(poc):
		return nil
	case h.pok != nil:
		return fmt.Errorf("device %s holds an owner key itself, so it stands under no other owner: use another device", d.Serial)
	}
	return d.put(ctx, OwnerID, nextID(OwnerID, h.owner), poc)
}
