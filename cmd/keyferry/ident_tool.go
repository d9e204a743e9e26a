package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/spf13/cobra"
)

type identFlags struct {
	module, initArgs, label, store string
	yes                            bool
}

// What a command of "ident" needs.
const (
	needModule = 1 << iota
	needStore
	noDevices // not those of --module either
)

var errNoModule = errors.New("name the PKCS#11 library of the HSM with --module PATH (or KEYFERRY_MODULE): this works without a daemon")

// An identTool is the machine of an administrator with a terminal: a module with devices, and a certificate store.
type identTool struct {
	*app
	flags   *identFlags
	module  *hsm.Module
	devices []*identity.Device
	store   *identity.Store // nil without --store
	open    map[string]bool // serials that are logged in
}

// ident runs a command with what it needs, and closes that.
func (a *app) ident(f *identFlags, need int, run func(ctx context.Context, t *identTool, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		t, err := a.openIdent(c.Context(), f, need)
		if err != nil {
			return err
		}
		defer t.close()
		return run(c.Context(), t, args)
	}
}

// identCA runs a command whose first argument is the device with the owner key.
func (a *app) identCA(f *identFlags, run func(ctx context.Context, t *identTool, ca *identity.Device, rest []string) error) func(*cobra.Command, []string) error {
	return a.ident(f, needModule|needStore, func(ctx context.Context, t *identTool, args []string) error {
		ca, err := t.chooseOne(args[0])
		if err != nil {
			return err
		}
		return run(ctx, t, ca, args[1:])
	})
}

// openIdent starts the module and finds the devices. The caller closes what it returns.
func (a *app) openIdent(ctx context.Context, f *identFlags, need int) (*identTool, error) {
	t := &identTool{app: a, flags: f, open: map[string]bool{}}
	if need&needModule != 0 && f.module == "" {
		return nil, errNoModule
	}
	if need&needStore != 0 && f.store == "" {
		return nil, errors.New("name the directory for certificates with --store DIR (or KEYFERRY_STORE)")
	}
	var err error
	if f.store != "" {
		if t.store, err = identity.OpenStore(f.store); err != nil {
			return nil, err
		}
	}
	if f.module != "" && need&noDevices == 0 {
		t.module = hsm.Start(hsm.Config{Name: "of this machine", Path: f.module, InitArgs: f.initArgs})
		if t.devices, err = identity.Devices(ctx, t.module, f.label); err != nil {
			t.close()
			return nil, err
		}
	}
	return t, nil
}

func (t *identTool) close() {
	if t.module != nil {
		t.module.Close()
	}
}

func (t *identTool) choose(list string) ([]*identity.Device, error) {
	var among []identity.Choice
	for _, d := range t.devices {
		among = append(among, identity.Choice{Number: d.Number, Serial: d.Serial})
	}
	if len(among) == 0 {
		return nil, fmt.Errorf("the module has no token %q: \"keyferry ident init-token\" makes one, --token names another label", t.flags.label)
	}
	indexes, err := identity.Choose(list, among)
	var chosen []*identity.Device
	for _, i := range indexes {
		chosen = append(chosen, t.devices[i])
	}
	return chosen, err
}

func (t *identTool) chooseOne(list string) (*identity.Device, error) {
	all, err := t.choose(list)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%q are %d devices; this takes one", list, len(all))
	}
	return all[0], nil
}

// login opens a device, with a code that is asked for once. A code that was refused is not asked for again.
func (t *identTool) login(ctx context.Context, d *identity.Device) error {
	if t.open[d.Serial] {
		return nil
	}
	s, err := t.secrets("Authentication code of device " + d.Serial)
	if err != nil {
		return err
	}
	defer clear(s[0])
	if err := d.Login(ctx, s[0]); err != nil {
		return err
	}
	t.open[d.Serial] = true
	return nil
}

// replaceIdentity asks before the identity of a device is replaced.
func (t *identTool) replaceIdentity(ctx context.Context, d *identity.Device) error {
	pic, err := d.Identity(ctx)
	if err != nil || pic == nil {
		return err
	}
	return t.confirm(t.flags.yes, fmt.Sprintf("Device %s has an identity already: %q until %s (SHA-256 %s). It would be replaced for good, and whoever trusts it would have to be told.",
		d.Serial, pic.Subject.CommonName, until(identity.Show(pic, "")), identity.Fingerprint(pic)))
}

// putOwner keeps the owner's certificate in the store, which is not another owner's: that was checked before.
func (t *identTool) putOwner(poc *x509.Certificate) error {
	have, err := t.store.Owner()
	if err != nil || have != nil && have.Equal(poc) {
		return err
	}
	return t.store.PutOwner(poc)
}

// keyPrint is the SHA-256 of a request's public key, which people compare before they sign.
func keyPrint(r *x509.CertificateRequest) string {
	return fmt.Sprintf("%x", sha256.Sum256(r.RawSubjectPublicKeyInfo))
}
