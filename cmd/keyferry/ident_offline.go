package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/identity"
	"github.com/spf13/cobra"
)

func (a *app) identGenCSR(f *identFlags) *cobra.Command {
	var name string
	var newKey bool
	c := &cobra.Command{
		Use:   "gen-csr [DEVICES]",
		Short: "Make identity keys on devices, and requests to carry to the owner",
		Long: `Make an identity key on each device, and a certificate request for it in the certificate store (SERIAL.csr, PKCS #10).
The key is PIK-Pending until "store-pic" brings its certificate; until then an identity that the device has holds.
Run again, it makes a request for the same key. Tell the owner's administrator the SHA-256 of the key.

Without --module the device is the node of this daemon. While it belongs to no cluster, "keyferry init" and "keyferry join" take
the certificate. The node of a cluster is asked for a certificate for the key that it has, or with --new-key for one that is to
replace it; "keyferry ident renew" takes it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.ident(f, needStore, func(ctx context.Context, t *identTool, args []string) error {
			switch {
			case t.module == nil && len(args) == 0:
				return t.requestOfNode(ctx, newKey)
			case t.module == nil:
				return errNoModule
			case len(args) == 0:
				return errors.New("name the devices: \"keyferry ident list\" shows them; or \"all\"")
			}
			devices, err := t.chooseNamed(args[0], name)
			if err != nil {
				return err
			}
			return a.each(devices, func(d *identity.Device) (outcome, error) {
				if err := t.login(ctx, d); err != nil {
					return outcome{}, err
				}
				r, err := d.Ask(ctx, name)
				if err != nil {
					return outcome{}, err
				}
				o := outcome{Done: "requested as " + r.Subject.CommonName, File: t.store.RequestPath(d.Serial), SHA256: keyPrint(r)}
				return o, t.store.PutRequest(r)
			})
		}),
	}
	nameFlag(c, &name)
	c.Flags().BoolVar(&newKey, "new-key", false, "of the node of a cluster: for a new identity key")
	return a.dataFlag(c)
}

// requestOfNode keeps the request of this daemon's node.
func (t *identTool) requestOfNode(ctx context.Context, newKey bool) error {
	answer, err := post[struct{ Request string }](ctx, t.client(), "/identity/request", map[string]bool{"new_key": newKey})
	if err != nil {
		return err
	}
	r, err := identity.DecodeRequest([]byte(answer.Request))
	if err != nil {
		return err
	}
	serial := r.Subject.SerialNumber
	return t.eachSerial([]string{serial}, func(string) (outcome, error) {
		return outcome{Done: "requested as " + r.Subject.CommonName, File: t.store.RequestPath(serial), SHA256: keyPrint(r)}, t.store.PutRequest(r)
	})
}

func (a *app) identImportCSR(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "import-csr FILE...",
		Short: "Take certificate requests of other installations into the certificate store",
		Long: `Check certificate requests and take them into the certificate store, to be signed. Compare the SHA-256 of each key with
what the administrator of the device says. Nothing is taken unless all files are good.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.ident(f, needStore, func(ctx context.Context, t *identTool, args []string) error {
			requests := map[string]*x509.CertificateRequest{}
			var serials []string
			for _, file := range args {
				r, err := identity.ReadRequest(file)
				if err != nil {
					return err
				}
				serial := r.Subject.SerialNumber
				if requests[serial] != nil {
					return fmt.Errorf("two devices claim the serial number %s: the files hold two requests for it", serial)
				}
				if err := t.checkClaims(ctx, r); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				requests[serial] = r
				serials = append(serials, serial)
			}
			return a.eachSerial(serials, func(serial string) (outcome, error) {
				r := requests[serial]
				o := outcome{Done: "taken as " + r.Subject.CommonName, File: t.store.RequestPath(serial), SHA256: keyPrint(r)}
				return o, t.store.PutRequest(r)
			})
		}),
	})
}

// checkClaims looks whether a serial number belongs to another key already: of a device here, or in the store.
func (t *identTool) checkClaims(ctx context.Context, r *x509.CertificateRequest) error {
	if err := identity.Claims(ctx, t.devices, r); err != nil {
		return err
	}
	serial := r.Subject.SerialNumber
	pic, err := t.store.Certificate(serial)
	if err != nil {
		return err
	}
	waiting, err := t.store.Request(serial)
	if err != nil {
		return err
	}
	what := ""
	switch {
	case pic != nil && !identity.SameKey(pic.PublicKey, r.PublicKey):
		what = fmt.Sprintf("a certificate for another key, as %q", pic.Subject.CommonName)
	case waiting != nil && !identity.SameKey(waiting.PublicKey, r.PublicKey):
		what = fmt.Sprintf("a request with another key, as %q", waiting.Subject.CommonName)
	default:
		return nil
	}
	return t.confirm(t.flags.yes, fmt.Sprintf("The store has %s for serial number %s. Either that device gets a new identity, as %q with key %s, or two devices claim the number. Take the new one?",
		what, serial, r.Subject.CommonName, keyPrint(r)))
}

func (a *app) identSign(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "sign CA DEVICES",
		Short: "Sign imported requests with the owner key of a device",
		Long:  `Sign requests of the certificate store with the owner key on device CA: sn:SERIAL, several with commas between, or "all".`,
		Args:  cobra.ExactArgs(2),
		RunE: a.identCA(f, func(ctx context.Context, t *identTool, ca *identity.Device, rest []string) error {
			serials, err := t.chooseKept(rest[0], "request", func(k identity.Kept) bool { return k.Requested })
			if err != nil {
				return err
			}
			if _, err := t.prepareCA(ctx, ca, len(serials) == 1 && serials[0] == ca.Serial); err != nil {
				return err
			}
			if err := t.login(ctx, ca); err != nil {
				return err
			}
			return a.eachSerial(serials, func(serial string) (outcome, error) { return t.sign(ctx, ca, serial) })
		}),
	})
}

func (t *identTool) sign(ctx context.Context, ca *identity.Device, serial string) (outcome, error) {
	r, err := t.store.Request(serial)
	if err != nil {
		return outcome{}, err
	}
	if r == nil || r.Subject.SerialNumber != serial {
		return outcome{}, fmt.Errorf("%s holds no request of that device", t.store.RequestPath(serial))
	}
	if err := identity.Claims(ctx, t.devices, r); err != nil {
		return outcome{}, err
	}
	pic, err := ca.Certify(ctx, r, time.Now())
	if err != nil {
		return outcome{}, err
	}
	o := outcome{Done: "certified " + r.Subject.CommonName + " until " + until(identity.Show(pic, "")), File: t.store.CertificatePath(serial), SHA256: identity.Fingerprint(pic)}
	return o, t.store.PutCertificate(serial, pic)
}

// chooseKept chooses among what the certificate store has.
func (t *identTool) chooseKept(list, what string, which func(identity.Kept) bool) ([]string, error) {
	kept, err := t.store.List(time.Now())
	if err != nil {
		return nil, err
	}
	var among []identity.Choice
	for _, k := range kept {
		if which(k) {
			among = append(among, identity.Choice{Number: len(among) + 1, Serial: k.Serial})
		}
	}
	if len(among) == 0 {
		return nil, fmt.Errorf("the certificate store has no %s", what)
	}
	indexes, err := identity.Choose(list, among)
	var serials []string
	for _, i := range indexes {
		serials = append(serials, among[i].Serial)
	}
	return serials, err
}

func (a *app) identExport(f *identFlags) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use:   "export DEVICES --to DIR",
		Short: "Write signed certificates and the owner's to a directory, such as a stick",
		Args:  cobra.ExactArgs(1),
		RunE: a.ident(f, needStore|noDevices, func(ctx context.Context, t *identTool, args []string) error {
			poc, err := t.store.Owner()
			if err != nil {
				return err
			}
			if poc == nil {
				return errors.New("the certificate store has no owner.crt: \"gen-owner\" or \"fetch-certs\" writes it")
			}
			serials, err := t.chooseKept(args[0], "signed certificate", func(k identity.Kept) bool { return k.PIC.State.Good() })
			if err != nil {
				return err
			}
			stick, err := identity.OpenStore(to)
			if err != nil {
				return err
			}
			if err := stick.CheckOwner(poc); err != nil {
				return err
			}
			if err := stick.PutOwner(poc); err != nil {
				return err
			}
			return a.eachSerial(serials, func(serial string) (outcome, error) {
				pic, err := t.store.Certificate(serial)
				if err != nil {
					return outcome{}, err
				}
				o := outcome{Done: "written", File: stick.CertificatePath(serial), SHA256: identity.Fingerprint(pic)}
				return o, identity.WriteCertificates(o.File, pic)
			})
		}),
	}
	c.Flags().StringVar(&to, "to", "", "`directory` to write to")
	c.MarkFlagRequired("to")
	return a.dataFlag(c)
}
