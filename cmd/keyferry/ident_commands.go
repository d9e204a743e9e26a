package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/keyferry/keyferry/identity"
	"github.com/spf13/cobra"
)

const identLong = `Owner and identity of HSMs. A device is an HSM with its admin token. The owner key (POK) on one of them certifies
the identity keys (PIK) of all; the certificates are POC and PIC.

Without --module, "list", "trust", "remove" and "fetch-certs" speak to the daemon, and the devices are the nodes of the cluster.
With --module no daemon and no cluster is needed: the devices are the admin tokens that the PKCS#11 module shows, and
certificates are kept in the directory --store. So an owner key can stay on a machine that is never connected:

  device:  gen-csr, then carry SERIAL.csr to the owner
  owner:   import-csr, sign, export, then carry owner.crt and SERIAL.crt back
  device:  store-poc, store-pic

Devices are named by their number in "list", as sn:SERIAL, several with commas between, or "all". Numbers move when
devices come and go; serial numbers do not. The code of an admin token is asked for on the terminal, or read from
standard input, one to a line, and tried once. Do not use --module on a module that a daemon is running.`

func (a *app) identCommand() *cobra.Command {
	f := &identFlags{}
	c := &cobra.Command{Use: "ident", Short: "Owner and identity of HSMs: make, certify, carry; also offline", Long: identLong}
	p := c.PersistentFlags()
	p.StringVar(&f.module, "module", envOr("KEYFERRY_MODULE", ""), "`path` of a PKCS#11 library to work on without a daemon (also KEYFERRY_MODULE)")
	p.StringVar(&f.initArgs, "module-args", "", "`text` handed to the library when it is initialized; NSS needs one")
	p.StringVar(&f.label, "token", identity.AdminLabel, "`label` of admin tokens")
	p.StringVar(&f.store, "store", envOr("KEYFERRY_STORE", ""), "`directory` with the certificates of this installation (also KEYFERRY_STORE)")
	p.BoolVar(&f.yes, "yes", false, "do not ask before something is replaced or believed")
	c.AddCommand(
		a.identList(f),
		a.identInitToken(f),
		a.identGenOwner(f),
		a.identGenKey(f),
		a.identGenCSR(f),
		a.identImportCSR(f),
		a.identSign(f),
		a.identExport(f),
		a.identStorePOC(f),
		a.identStorePIC(f),
		a.identGenSelfSigned(f),
		a.identFetchCerts(f),
		a.identRenew(f),
		a.identReplaceOwner(f),
		a.identTrust(),
		a.identRemove(f),
	)
	return c
}

// An identListing is what "ident list" prints.
type identListing struct {
	Devices []identity.View     `json:"devices"`
	Next    *identity.Certified `json:"next_owner,omitempty"` // of the cluster, while its owner is replaced
	Awaited []string            `json:"awaited,omitempty"`    // nodes that it has not certified yet
	Owner   *identity.Certified `json:"owner,omitempty"`      // of the certificate store
	Store   []identity.Kept     `json:"store,omitempty"`
}

func (a *app) identList(f *identFlags) *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "list [DEVICES]",
		Short: "Show devices, their keys and certificates, and whom they trust; with --store, the certificate store too",
		Long: `Show the devices of --module, or the nodes of the cluster, with owner key and certificate (POK, POC), identity key and certificate (PIK, PIC) and their states:

  none          there is none
  POC-Pending   the owner key has not certified its own device yet
  PIK-Pending   the identity key waits for its certificate
  valid         expiring: ends within 90 days; expired; not yet valid
  invalid       it is there, but does not hold: it is from another owner

TRUSTS names the nodes from which a node takes key packages. It needs no code: it shows what admin tokens show to
everybody, and what the cluster knows.`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.ident(f, 0, func(ctx context.Context, t *identTool, args []string) error {
			l, err := t.list(ctx, args)
			if err != nil {
				return err
			}
			return a.print(l, func(row func(...any)) { identTable(l, row) })
		}),
	})
}

// list shows the devices of the module, or else the nodes of the cluster. With no device there is still the store.
func (t *identTool) list(ctx context.Context, args []string) (l identListing, err error) {
	which := append(args, "all")[0]
	l.Devices = []identity.View{}
	if t.module == nil {
		if l, err = t.clusterList(ctx, which); err != nil {
			return l, err
		}
	} else {
		devices, err := t.choose(which)
		if err != nil && len(args) > 0 {
			return l, err
		}
		for _, d := range devices {
			l.Devices = append(l.Devices, d.View(ctx, time.Now()))
		}
	}
	if t.store == nil {
		return l, nil
	}
	if l.Store, err = t.store.List(time.Now()); err != nil {
		return l, err
	}
	owner, err := t.store.Owner()
	shown := identity.Show(owner, identity.StateOf(owner, time.Now()))
	l.Owner = &shown
	return l, err
}

func identTable(l identListing, row func(...any)) {
	row("DEVICE", "SERIAL", "NAME", "POK", "POC", "PIK", "PIC", "UNTIL", "TRUSTS", "")
	yes := map[bool]string{true: "yes", false: "-"}
	for _, v := range l.Devices {
		row(v.Number, v.Serial, orDash(v.Name), yes[v.POK], v.POC.State, yes[v.PIK], picText(v), until(v.PIC), orDash(strings.Join(v.Trusts, ",")), v.Problem)
	}
	if len(l.Devices) == 0 {
		row("", "no admin token: \"keyferry ident init-token\" makes one")
	}
	if l.Next != nil {
		row()
		row("The owner is being replaced by", l.Next.Subject, "SHA-256 "+l.Next.Fingerprint)
		row("not certified by it yet", strings.Join(l.Awaited, ", "))
	}
	if l.Owner == nil {
		return
	}
	row("") // the columns begin anew
	row("IN STORE", "NAME", "CERTIFICATE", "UNTIL", "")
	row("owner", orDash(l.Owner.Subject), l.Owner.State, until(*l.Owner))
	for _, k := range l.Store {
		row(k.Serial, orDash(k.Name), k.PIC.State, until(k.PIC), cmp.Or(k.Problem, map[bool]string{true: "a request waits to be signed"}[k.Requested]))
	}
}

func picText(v identity.View) string {
	if v.Renewing {
		return string(v.PIC.State) + ", next " + string(identity.PIKPending)
	}
	return string(v.PIC.State)
}

func until(c identity.Certified) string {
	if c.NotAfter.IsZero() {
		return "-"
	}
	return c.NotAfter.UTC().Format(time.DateOnly)
}

// An outcome is what became of one device. Those that failed say why; the others were finished all the same.
type outcome struct {
	Serial  string `json:"serial"`
	Done    string `json:"done,omitempty"`
	File    string `json:"file,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// each does something to several devices and reports on all. One that fails stops no other.
func (a *app) each(devices []*identity.Device, act func(*identity.Device) (outcome, error)) error {
	var serials []string
	byName := map[string]*identity.Device{}
	for _, d := range devices {
		serials = append(serials, d.Serial)
		byName[d.Serial] = d
	}
	return a.eachSerial(serials, func(serial string) (outcome, error) { return act(byName[serial]) })
}

func (a *app) eachSerial(serials []string, act func(string) (outcome, error)) error {
	var all []outcome
	failed := 0
	for _, s := range serials {
		o, err := act(s)
		o.Serial = s
		if err != nil {
			failed++
			o.Problem = err.Error()
		}
		all = append(all, o)
	}
	err := a.print(all, func(row func(...any)) {
		row("DEVICE", "RESULT", "SHA-256", "FILE")
		for _, o := range all {
			if o.Problem != "" {
				row(o.Serial, "FAILED: "+o.Problem, "", "")
				continue
			}
			row(o.Serial, o.Done, orDash(o.SHA256), orDash(o.File))
		}
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %s failed; see above", failed, count(len(all), "device"))
	}
	return err
}
