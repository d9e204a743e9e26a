package bench

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
	"github.com/miekg/pkcs11"
)

// Slots and rounds of BenchmarkActivate: 1,000 activations.
const (
	activateSlots  = 20
	activateRounds = 50
)

// BenchmarkActivate opens 20 slots of a node 50 times over, as the activation page does: a job that gives
// each token its code, with two records in the audit trail for each, and the receiver keys looked after.
// Closing them again is not measured. The floor is C_Login and C_Logout, as often, on the same tokens.
func BenchmarkActivate(b *testing.B) {
	dir := b.TempDir()
	soft := hsmtest.SoftHSM(b, dir)
	address := free(b)
	n, err := node.Open(b.Context(), node.Config{
		Name: "node1", Dir: filepath.Join(dir, "data"), Version: "bench", PeerListen: address, PeerAddress: address, WebURL: "https://" + free(b),
		Modules: []node.ModuleConfig{{Name: "softhsm", Path: soft.Path, Env: soft.Env}},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(n.Close)
	c := &benchCluster{}
	c.join(b, n)
	m := c.nodes[0]
	var labels []string
	for i := range activateSlots {
		labels = append(labels, fmt.Sprintf("slot %02d", i))
		if err := m.Slots.Create(b.Context(), console, node.NewSlot{Label: labels[i], Mode: cluster.Manual, Code: []byte(code)}); err != nil {
			b.Fatal(err)
		}
	}
	bare, err := OpenBare(soft.Path, soft.Env["SOFTHSM2_CONF"], dir)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var floor, product time.Duration
		for range activateRounds { // in turns, so that a machine that slows down slows both
			began := time.Now()
			if err := bare.LoginAll(labels, code); err != nil {
				b.Fatal(err)
			}
			floor += time.Since(began)
			product += activateAll(b, m, labels)
		}
		calls := float64(activateSlots * activateRounds)
		b.ReportMetric(floor.Seconds()*1e3/calls, "floor-ms/slot")
		b.ReportMetric(product.Seconds()*1e3/calls, "ms/slot")
		b.ReportMetric(product.Seconds()/floor.Seconds(), "ratio")
	}
}

// activateAll closes the slots, and measures how long it takes to open them.
func activateAll(b *testing.B, m *node.Member, labels []string) time.Duration {
	a := node.Activation{}
	for _, label := range labels {
		if err := m.Slots.Deactivate(b.Context(), console, label); err != nil {
			b.Fatal(err)
		}
		a.Codes = append(a.Codes, node.CodeFor{Slot: label, Code: []byte(code)})
	}
	began := time.Now()
	job, err := m.Custody.Activate(b.Context(), console, a)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := m.Jobs.Wait(b.Context(), job); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// LoginAll logs in to each token and out again.
func (b *Bare) LoginAll(labels []string, pin string) error {
	slots, err := b.ctx.GetSlotList(true)
	if err != nil {
		return err
	}
	byLabel := map[string]uint{}
	for _, slot := range slots {
		if t, err := b.ctx.GetTokenInfo(slot); err == nil {
			byLabel[t.Label] = slot
		}
	}
	for _, label := range labels {
		s, err := b.ctx.OpenSession(byLabel[label], pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return err
		}
		if err := b.ctx.Login(s, pkcs11.CKU_USER, pin); err != nil {
			return err
		}
		if err := b.ctx.Logout(s); err != nil {
			return err
		}
		if err := b.ctx.CloseSession(s); err != nil {
			return err
		}
	}
	return nil
}
