package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/identity"
	"github.com/spf13/cobra"
)

func (a *app) identStorePOC(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "store-poc FILE DEVICES",
		Short: "Put an owner's certificate on devices and into the certificate store",
		Long: `Put an owner's certificate on devices and into the certificate store. From then on they take identity certificates of
that owner and no other. Compare its SHA-256 with what the owner's administrator says: it is the root of all trust.`,
		Args: cobra.ExactArgs(2),
		RunE: a.ident(f, needModule|needStore, func(ctx context.Context, t *identTool, args []string) error {
			poc, err := identity.ReadCertificate(args[0])
			if err != nil {
				return err
			}
			if err := identity.CheckOwner(poc, time.Now()); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			devices, err := t.choose(args[1])
			if err != nil {
				return err
			}
			if err := t.believe(ctx, poc, devices); err != nil {
				return err
			}
			return a.each(devices, func(d *identity.Device) (outcome, error) {
				if err := t.login(ctx, d); err != nil {
					return outcome{}, err
				}
				o := outcome{Done: "stands under " + poc.Subject.String(), File: t.store.OwnerPath(), SHA256: identity.Fingerprint(poc)}
				if err := d.StoreOwner(ctx, poc, time.Now()); err != nil {
					return outcome{}, err
				}
				return o, t.store.PutOwner(poc) // once a device has taken it, and not before
			})
		}),
	})
}

// believe asks before an owner is believed, and says whom it would replace.
func (t *identTool) believe(ctx context.Context, poc *x509.Certificate, devices []*identity.Device) error {
	question := fmt.Sprintf("Owner certificate %q, SHA-256 %s. Is that what the owner's administrator says?", poc.Subject, identity.Fingerprint(poc))
	kept, err := t.store.Owner()
	if err != nil {
		return err
	}
	if kept != nil && !kept.Equal(poc) {
		question += fmt.Sprintf(" It replaces %q (SHA-256 %s) in the store, whose certificates do not hold any more then.", kept.Subject, identity.Fingerprint(kept))
	}
	for _, d := range devices {
		have, err := d.Owner(ctx)
		if err != nil {
			return err
		}
		if have != nil && !have.Equal(poc) {
			question += fmt.Sprintf(" It replaces the owner of device %s (SHA-256 %s), whose identity does not hold any more then.", d.Serial, identity.Fingerprint(have))
		}
	}
	return t.confirm(t.flags.yes, question)
}

func (a *app) identStorePIC(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "store-pic FILE DEVICE",
		Short: "Put the certificate for its waiting identity key on a device",
		Long: `Put the certificate for its waiting identity key on a device and into the certificate store. It must be for that key
and that device, signed by the owner whose certificate the device has, and valid now.`,
		Args: cobra.ExactArgs(2),
		RunE: a.ident(f, needModule|needStore, func(ctx context.Context, t *identTool, args []string) error {
			pic, err := identity.ReadCertificate(args[0])
			if err != nil {
				return err
			}
			d, err := t.chooseOne(args[1])
			if err != nil {
				return err
			}
			if err := d.Accepts(ctx, pic, time.Now()); err != nil { // before a code is asked for
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if have, err := d.Identity(ctx); err != nil || have == nil || !have.Equal(pic) {
				if err := t.replaceIdentity(ctx, d); err != nil {
					return err
				}
			}
			return a.each([]*identity.Device{d}, func(d *identity.Device) (outcome, error) {
				if err := t.login(ctx, d); err != nil {
					return outcome{}, err
				}
				if err := d.StoreIdentity(ctx, pic, time.Now()); err != nil {
					return outcome{}, err
				}
				o := outcome{Done: "is " + pic.Subject.CommonName + " until " + until(identity.Show(pic, "")), File: t.store.CertificatePath(d.Serial), SHA256: identity.Fingerprint(pic)}
				return o, t.store.PutCertificate(d.Serial, pic)
			})
		}),
	})
}

func (a *app) identFetchCerts(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "fetch-certs DEVICES",
		Short: "Write the certificates of devices into the certificate store",
		Long: `Write the certificates that devices hold, and their owner's, into the certificate store, such as a new one: with --module
those of its devices, otherwise those of the cluster's nodes. It needs no code. Compare the SHA-256 of the owner's
certificate with what its administrator says.`,
		Args: cobra.ExactArgs(1),
		RunE: a.ident(f, needStore, func(ctx context.Context, t *identTool, args []string) error {
			if t.module == nil {
				return a.fetchFromCluster(ctx, t, args[0])
			}
			devices, err := t.choose(args[0])
			if err != nil {
				return err
			}
			return a.each(devices, func(d *identity.Device) (outcome, error) { return t.fetch(ctx, d) })
		}),
	})
}

func (t *identTool) fetch(ctx context.Context, d *identity.Device) (outcome, error) {
	poc, err := d.Owner(ctx)
	if err != nil {
		return outcome{}, err
	}
	pic, err := d.Identity(ctx)
	if err != nil {
		return outcome{}, err
	}
	if pic == nil {
		return outcome{}, fmt.Errorf("device %s has no identity certificate yet", d.Serial)
	}
	if poc != nil && bytes.Equal(pic.RawIssuer, pic.RawSubject) && pic.CheckSignatureFrom(pic) == nil {
		poc = nil
	}
	return t.keep(d.Serial, pic, poc)
}

// keep takes a certificate into the store, and its owner's, nil where it has none. The first owner is asked about.
func (t *identTool) keep(serial string, pic, poc *x509.Certificate) (outcome, error) {
	if pic.Subject.SerialNumber != serial {
		return outcome{}, fmt.Errorf("the identity certificate of device %s names device %q", serial, pic.Subject.SerialNumber)
	}
	if poc != nil {
		if _, err := identity.CheckIdentity(pic, poc, time.Now()); err != nil {
			return outcome{}, err
		}
		if err := t.store.CheckOwner(poc); err != nil {
			return outcome{}, err
		}
		kept, err := t.store.Owner()
		if err != nil {
			return outcome{}, err
		}
		if kept == nil {
			if err := t.confirm(t.flags.yes, fmt.Sprintf("Owner certificate %q, SHA-256 %s. Is that what the owner's administrator says?", poc.Subject, identity.Fingerprint(poc))); err != nil {
				return outcome{}, err
			}
			if err := t.store.PutOwner(poc); err != nil {
				return outcome{}, err
			}
		}
	}
	o := outcome{Done: "written", File: t.store.CertificatePath(serial), SHA256: identity.Fingerprint(pic)}
	return o, t.store.PutCertificate(serial, pic)
}
