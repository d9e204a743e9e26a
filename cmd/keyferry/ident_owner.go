package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyferry/keyferry/identity"
	"github.com/spf13/cobra"
)

func (a *app) identInitToken(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "init-token",
		Short: "Make an admin token in a free slot of the module",
		Long: `Make an admin token in a free slot of the module. Its authentication code is yours to choose and to keep: nobody can
reset it, and without it owner key and identity are lost.`,
		Args: cobra.NoArgs,
		RunE: a.ident(f, needModule, func(ctx context.Context, t *identTool, _ []string) error {
			if n := len(t.devices); n > 0 {
				if err := a.confirm(f.yes, fmt.Sprintf("The module shows %s already. This makes one more; none is changed.", count(n, "admin token"))); err != nil {
					return err
				}
			}
			code, err := a.newSecret("New authentication code of the admin token")
			if err != nil {
				return err
			}
			serial, err := identity.InitToken(ctx, t.module, f.label, code)
			if err != nil {
				return err
			}
			return a.print(outcome{Serial: serial, Done: "made"}, func(row func(...any)) { row("Admin token", serial) })
		}),
	})
}

func (a *app) identGenOwner(f *identFlags) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "gen-owner CA",
		Short: "Make an owner key with its certificate on a device",
		Long: `Make an owner key (EC P-521, never leaves the device) and its self-signed certificate. The certificate is written to
the certificate store as owner.crt. It is POC-Pending until the owner key has certified its own device:
"keyferry ident gen-key CA CA".`,
		Args: cobra.ExactArgs(1),
		RunE: a.identCA(f, func(ctx context.Context, t *identTool, d *identity.Device, _ []string) error {
			poc, err := t.genOwner(ctx, d, name)
			if err != nil {
				return err
			}
			shown := d.View(ctx, time.Now()).POC
			return a.print(shown, func(row func(...any)) {
				row("Owner certificate", t.store.OwnerPath())
				row("Subject", poc.Subject)
				row("SHA-256", shown.Fingerprint)
				row("Valid until", until(shown))
				if shown.State == identity.POCPending {
					row("State", fmt.Sprintf("%s: next is \"keyferry ident gen-key %d %d\"", shown.State, d.Number, d.Number))
				}
			})
		}),
	}
	c.Flags().StringVar(&name, "name", "keyferry", "`name` of the owner, for people")
	return a.dataFlag(c)
}

// genOwner makes an owner, or finishes what an interrupted run has begun.
func (t *identTool) genOwner(ctx context.Context, d *identity.Device, name string) (*x509.Certificate, error) {
	if err := identity.CheckName("--name", name); err != nil {
		return nil, err
	}
	have, err := d.Owner(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := t.store.Owner()
	if err != nil {
		return nil, err
	}
	v := d.View(ctx, time.Now())
	if have != nil && v.POK && v.POC.State == identity.POCPending && (kept == nil || !kept.Equal(have)) { // it did not come to the file
		if kept != nil {
			if err := t.confirm(t.flags.yes, fmt.Sprintf("The store belongs to the owner with SHA-256 %s. Device %s has a pending owner with SHA-256 %s, which would take its place.",
				identity.Fingerprint(kept), d.Serial, identity.Fingerprint(have))); err != nil {
				return nil, err
			}
		}
		return have, t.store.PutOwner(have)
	}
	if kept != nil && (have == nil || !kept.Equal(have)) {
		return nil, t.store.CheckOwner(have)
	}
	if have != nil {
		if err := t.confirm(t.flags.yes, fmt.Sprintf("Device %s has an owner already: %q (SHA-256 %s). With a new one every certificate that it signed is worthless.",
			d.Serial, have.Subject, identity.Fingerprint(have))); err != nil {
			return nil, err
		}
	}
	if err := t.login(ctx, d); err != nil {
		return nil, err
	}
	poc, err := d.MakeOwner(ctx, name, time.Now())
	if err != nil {
		return nil, err
	}
	return poc, t.store.PutOwner(poc)
}

func (a *app) identGenKey(f *identFlags) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "gen-key CA DEVICES",
		Short: "Make identity keys on devices, certified by the owner key of one of them",
		Long: `Make an identity key on each device, and have the owner key on device CA certify it. A CA whose owner certificate is
POC-Pending certifies itself first, so it must be among the devices.`,
		Args: cobra.ExactArgs(2),
		RunE: a.identCA(f, func(ctx context.Context, t *identTool, ca *identity.Device, rest []string) error {
			devices, err := t.chooseNamed(rest[0], name)
			if err != nil {
				return err
			}
			if i := slices.Index(devices, ca); i > 0 { // its own certificate ends POC-Pending
				devices = slices.Insert(slices.Delete(devices, i, i+1), 0, ca)
			}
			poc, err := t.prepareCA(ctx, ca, slices.Contains(devices, ca))
			if err != nil {
				return err
			}
			for _, d := range devices {
				if err := t.replaceIdentity(ctx, d); err != nil {
					return err
				}
			}
			if err := t.login(ctx, ca); err != nil {
				return err
			}
			return a.each(devices, func(d *identity.Device) (outcome, error) { return t.genKey(ctx, ca, d, poc, name) })
		}),
	}
	nameFlag(c, &name)
	return a.dataFlag(c)
}

func nameFlag(c *cobra.Command, name *string) {
	c.Flags().StringVar(name, "name", "", "`name` in the certificate, such as the node's; only with one device")
}

// chooseNamed is choose, where a name is for one device only.
func (t *identTool) chooseNamed(list, name string) ([]*identity.Device, error) {
	devices, err := t.choose(list)
	if err == nil && name != "" && len(devices) > 1 {
		err = fmt.Errorf("--name is the name of one device, and %q are %d", list, len(devices))
	}
	if err == nil && name != "" {
		err = identity.CheckName("--name", name)
	}
	return devices, err
}

// prepareCA checks a CA before any code is asked for.
func (t *identTool) prepareCA(ctx context.Context, ca *identity.Device, itself bool) (*x509.Certificate, error) {
	if err := ca.CheckCA(ctx, itself, time.Now()); err != nil {
		return nil, err
	}
	poc, err := ca.Owner(ctx)
	if err != nil {
		return nil, err
	}
	return poc, t.store.CheckOwner(poc)
}

func (t *identTool) genKey(ctx context.Context, ca, d *identity.Device, poc *x509.Certificate, name string) (outcome, error) {
	var o outcome
	if err := t.login(ctx, d); err != nil {
		return o, err
	}
	r, err := d.Ask(ctx, name)
	if err != nil {
		return o, err
	}
	pic, err := ca.Certify(ctx, r, time.Now())
	if err != nil {
		return o, err
	}
	if err := d.StoreOwner(ctx, poc, time.Now()); err != nil {
		return o, err
	}
	if err := d.StoreIdentity(ctx, pic, time.Now()); err != nil {
		return o, err
	}
	if err := t.putOwner(poc); err != nil {
		return o, err
	}
	o = outcome{Done: "certified until " + until(identity.Show(pic, "")), File: t.store.CertificatePath(d.Serial), SHA256: identity.Fingerprint(pic)}
	return o, t.store.PutCertificate(d.Serial, pic)
}

func (a *app) identGenSelfSigned(f *identFlags) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "gen-selfsigned DEVICES",
		Short: "Make identity keys with certificates that they sign themselves, without an owner",
		Long: `Make an identity key on each device, with a certificate that it signs itself. No owner vouches for such a device: whoever
is to trust it must compare the fingerprint.`,
		Args: cobra.ExactArgs(1),
		RunE: a.ident(f, needModule|needStore, func(ctx context.Context, t *identTool, args []string) error {
			devices, err := t.chooseNamed(args[0], name)
			if err != nil {
				return err
			}
			for _, d := range devices {
				if err := t.replaceIdentity(ctx, d); err != nil {
					return err
				}
			}
			return a.each(devices, func(d *identity.Device) (outcome, error) {
				if err := t.login(ctx, d); err != nil {
					return outcome{}, err
				}
				pic, err := d.SelfSign(ctx, name, time.Now())
				if err != nil {
					return outcome{}, err
				}
				o := outcome{Done: "signed by itself until " + until(identity.Show(pic, "")), File: t.store.CertificatePath(d.Serial), SHA256: identity.Fingerprint(pic)}
				return o, t.store.PutCertificate(d.Serial, pic)
			})
		}),
	}
	nameFlag(c, &name)
	return a.dataFlag(c)
}
