package identity

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// A fault lets the nth call that changes a token fail, before or after it was made.
type fault struct {
	at, n int
	after bool
}

var errFault = errors.New("the device is gone")

func (f *fault) around(op string, call func() error) error {
	if f.at == 0 || op != hsm.OpGenerate && op != hsm.OpStore && op != hsm.OpDestroy {
		return call()
	}
	if f.n++; f.n != f.at {
		return call()
	}
	if f.after {
		call()
	}
	return errFault
}

func (f *fault) set(at int, after bool) { f.at, f.n, f.after = at, 0, after }

// newDevice makes an admin token and opens it.
func newDevice(t *testing.T, m *hsm.Module) *Device {
	t.Helper()
	serial, err := InitToken(t.Context(), m, AdminLabel, []byte(hsmtest.Code))
	if err != nil {
		t.Fatal(err)
	}
	all, err := Devices(t.Context(), m, AdminLabel)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Serial == serial {
			if err := d.Login(t.Context(), []byte(hsmtest.Code)); err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatalf("the new admin token %s is not among %d devices", serial, len(all))
	return nil
}

// rekey gives a device a new owner key and an identity under it.
func rekey(t *testing.T, d *Device) error {
	now := time.Now()
	if _, err := d.MakeOwner(t.Context(), "Test", now); err != nil {
		return err
	}
	r, err := d.Ask(t.Context(), "node1")
	if err != nil {
		return err
	}
	pic, err := d.Certify(t.Context(), r, now)
	if err != nil {
		return err
	}
	return d.StoreIdentity(t.Context(), pic, now)
}

// TestInterrupted stops founding and re-keying at each call that changes the token, and looks at what is left and
// whether a second run makes it whole.
func TestInterrupted(t *testing.T) {
	var f fault
	cfg := hsmtest.SoftHSM(t, t.TempDir())
	cfg.Fault = f.around
	m := hsmtest.Start(t, cfg)
	whole := func(d *Device, what string) {
		t.Helper()
		f.set(0, false)
		if err := rekey(t, d); err != nil {
			t.Fatalf("%s: the next run: %v", what, err)
		}
		v := d.View(t.Context(), time.Now())
		if v.POC.State != Valid || v.PIC.State != Valid || v.Renewing {
			t.Fatalf("%s: after the next run: %+v", what, v)
		}
		list, err := d.token.Objects(t.Context(), 0, true)
		if err != nil || len(list.Keys) != 2 || len(list.Certificates) != 2 {
			t.Fatalf("%s: the next run leaves %d keys and %d certificates (%v)", what, len(list.Keys), len(list.Certificates), err)
		}
		public, err := d.token.Public(t.Context())
		if err != nil || len(public.Keys) != 2 {
			t.Fatalf("%s: the next run leaves %d public keys (%v)", what, len(public.Keys), err)
		}
	}
	// A new device makes two keys and stores two certificates.
	fresh := []View{
		{POC: Certified{State: None}, PIC: Certified{State: None}},                                   // before the owner key
		{POK: true, POC: Certified{State: POCPending}, PIC: Certified{State: None}},                  // before its certificate
		{POK: true, POC: Certified{State: POCPending}, PIC: Certified{State: None}},                  // before the identity key
		{POK: true, POC: Certified{State: POCPending}, PIK: true, PIC: Certified{State: PIKPending}}, // before its certificate
		{POK: true, POC: Certified{State: Valid}, PIK: true, PIC: Certified{State: Valid}},
	}
	var d *Device
	for i, want := range fresh {
		d = newDevice(t, m)
		f.set(min(i+1, 4), i == 4) // before each of the four calls, and after the last
		if err := rekey(t, d); !errors.Is(err, errFault) {
			t.Fatalf("call %d: %v", i+1, err)
		}
		v := d.View(t.Context(), time.Now())
		if v.POK != want.POK || v.POC.State != want.POC.State || v.PIK != want.PIK || v.PIC.State != want.PIC.State {
			t.Errorf("call %d: left %+v", i+1, v)
		}
		whole(d, "a new device")
	}
	// A device that has both replaces them, and removes three objects of each.
	for i := range 11 {
		f.set(min(i+1, 10), i == 10)
		if err := rekey(t, d); !errors.Is(err, errFault) {
			t.Fatalf("re-keying, call %d: %v", i+1, err)
		}
		if v := d.View(t.Context(), time.Now()); !v.POK || !v.PIK || v.POC.Fingerprint == "" || v.PIC.Fingerprint == "" {
			t.Errorf("re-keying, call %d: the old is gone before the new is whole: %+v", i+1, v)
		}
		whole(d, "re-keying")
	}
}

// TestTwoDevices is an owner and a device that it certifies, with what is refused on the way.
func TestTwoDevices(t *testing.T) {
	for _, mod := range []struct {
		name  string
		start func(testing.TB, string) hsm.Config
		label string
	}{{"SoftHSM", hsmtest.SoftHSM, AdminLabel}, {"NSS", hsmtest.NSS, "NSS Certificate DB"}} {
		t.Run(mod.name, func(t *testing.T) { twoDevices(t, mod.start, mod.label) })
	}
}

func twoDevices(t *testing.T, start func(testing.TB, string) hsm.Config, label string) {
	device := func() (*hsm.Module, *Device) {
		m := hsmtest.Start(t, start(t, t.TempDir()))
		hsmtest.NewToken(t, m, label)
		all, err := Devices(t.Context(), m, label)
		if err != nil || len(all) != 1 {
			t.Fatalf("%d devices: %v", len(all), err)
		}
		return m, all[0]
	}
	ctx, now := t.Context(), time.Now()
	_, ca := device()
	m, b := device()
	if label != AdminLabel {
		b.Serial += " 2" // two databases of NSS call their token the same
	}

	refused(t, "a CA without owner key", ca.CheckCA(ctx, true, now), "has no owner key")
	poc, err := ca.MakeOwner(ctx, "Test", now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := b.Ask(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if v := b.View(ctx, now); v.PIC.State != PIKPending || v.POC.State != None {
		t.Errorf("after the request: %+v", v)
	}
	if _, err := ca.Certify(ctx, r, now); !errors.Is(err, ErrPOCPending) {
		t.Errorf("a CA with a pending owner certificate: %v", err)
	}
	own, err := ca.Ask(ctx, "ca")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Request("evil", ca.Serial, newKey(t, elliptic.P521()))
	if err != nil {
		t.Fatal(err)
	}
	claim, err := ParseRequest(foreign)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ca.Certify(ctx, claim, now)
	refused(t, "a request in the CA's name", err, "two devices claim")
	refused(t, "a request in a neighbour's name", Claims(ctx, []*Device{b, ca}, claim), "two devices claim")
	pic, err := ca.Certify(ctx, own, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.StoreIdentity(ctx, pic, now); err != nil {
		t.Fatal(err)
	}
	if v := ca.View(ctx, now); v.POC.State != Valid || v.PIC.State != Valid || v.Name != "ca" {
		t.Errorf("the CA: %+v", v)
	}

	answer, err := ca.Certify(ctx, r, now)
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "an identity without owner", b.StoreIdentity(ctx, answer, now), "does not know its owner yet")
	other := newIssuer(t, now)
	if err := b.StoreOwner(ctx, other.poc, now); err != nil {
		t.Fatal(err)
	}
	refused(t, "an identity of another owner", b.StoreIdentity(ctx, answer, now), "and not by the owner of device")
	refused(t, "another owner for an owner", ca.StoreOwner(ctx, other.poc, now), "holds an owner key itself")
	if err := b.StoreOwner(ctx, poc, now); err != nil {
		t.Fatal(err)
	}
	refused(t, "another device's identity", b.Accepts(ctx, pic, now), "is for device")
	refused(t, "an identity from the future", b.Accepts(ctx, answer, now.Add(-time.Hour)), "not valid before")
	if err := b.StoreIdentity(ctx, answer, now); err != nil {
		t.Fatal(err)
	}
	if err := b.StoreIdentity(ctx, answer, now); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if v := b.View(ctx, now); v.PIC.State != Valid || v.POC.State != Valid || v.POK || v.PIC.Fingerprint != Fingerprint(answer) {
		t.Errorf("after a restart: %+v", v)
	}
	for at, want := range map[time.Duration]State{IdentityLife - ExpiringBefore + time.Hour: Expiring, IdentityLife + time.Hour: Expired, -time.Hour: NotYetValid} {
		if v := b.View(ctx, now.Add(at)); v.PIC.State != want {
			t.Errorf("in %s: %s, want %s", at, v.PIC.State, want)
		}
	}
	stored(t, b, answer)
}

// stored looks at the identity key: it signs, and it does nothing else. Then the device makes itself free of the
// owner.
func stored(t *testing.T, d *Device, pic *x509.Certificate) {
	k, err := FindKey(t.Context(), d.token, IdentityID)
	if err != nil {
		t.Fatal(err)
	}
	if keeps := !strings.HasPrefix(d.token.Serial, "label:"); keeps && (k.Extractable || !k.Sensitive || k.Usage != hsm.UseSign || !k.Local) || k.Curve != "P-521" {
		t.Errorf("the identity key: %+v", k)
	}
	if der, err := x509.MarshalPKIXPublicKey(pic.PublicKey); err != nil || !bytes.Equal(der, k.Public) {
		t.Errorf("the certificate is not for the key on the token: %v", err)
	}
	self, err := d.SelfSign(t.Context(), "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if v := d.View(t.Context(), time.Now()); v.PIC.State != Valid || v.PIC.Fingerprint != Fingerprint(self) || v.Name != pic.Subject.CommonName {
		t.Errorf("self-signed: %+v", v)
	}
}
