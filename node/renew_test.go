package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// TestRenewIdentity certifies nodes anew: by the owner key on another node, on the node itself, and by a
// certificate that is brought. What does not belong to the node is refused.
func TestRenewIdentity(t *testing.T) {
	clock := &wrongClock{}
	members := newCluster(t, 2, func(c *Config) {
		if c.Name == "node2" {
			c.Now = clock.now
		}
	})
	a, b := members[0], members[1]
	uses := func(m *Member, pic []byte) {
		t.Helper()
		eventually(t, m.Name()+" uses the certificate, and the other knows it", func() bool {
			rec, err := get[identityRecord](m.node.store, bucketIdentity, single)
			c, cerr := m.Identity.Certificate()
			return err == nil && cerr == nil && bytes.Equal(rec.Identity, pic) && bytes.Equal(c.Certificate[1], pic) &&
				bytes.Equal(a.State().Nodes[m.Name()].Identity, pic) && bytes.Equal(b.State().Nodes[m.Name()].Identity, pic)
		})
	}
	for _, m := range []*Member{b, a} {
		before := m.Identity.pic
		if err := m.RenewIdentity(t.Context(), console, nil); err != nil {
			t.Fatal(err)
		}
		after := m.Identity.pic
		if cluster.KeyHash(after) != cluster.KeyHash(before) || !after.NotAfter.After(before.NotAfter) {
			t.Errorf("%s: another key, or no longer", m.Name())
		}
		uses(m, after.Raw)
	}
	r, err := b.IdentityRequest()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("a node that asks by itself", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for what, c := range map[string]struct{ name, says string }{"with nobody behind it": {"node2", "nobody has asked on node node2"}, "in another's name": {"node1", "not for the identity key of node node1"}, "as a stranger": {"node9", "not for the identity key"}} {
			if _, err := a.recertify(ctx, c.name, r.Raw); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Run("a node that says that it was asked", func(t *testing.T) {
		begun := &cluster.BeginAct{ID: cluster.NewID(), Act: renewAct, Object: "node/node2", Permission: cluster.MayManageNodes}
		if _, err := b.Cluster.Apply(t.Context(), &cluster.RecordAct{Actor: b.self(), Begin: begun}, b.self()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "node1 knows of the act", func() bool { return a.State().Acts[begun.ID].Act == renewAct })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.recertify(ctx, "node2", r.Raw); err == nil || !strings.Contains(err.Error(), "nobody has asked") {
			t.Errorf("got %v", err)
		}
		if _, err := b.Cluster.Apply(t.Context(), &cluster.RecordAct{Actor: b.self(), End: &cluster.EndAct{ID: begun.ID, Result: cluster.Failed}}, b.self()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a wrong clock", func(t *testing.T) {
		clock.set(45 * time.Second)
		defer clock.set(0)
		eventually(t, "node1 sees it", func() bool { return a.Peers.Seen("node2").Clock.Past(ClockLimit) })
		if err := b.RenewIdentity(t.Context(), console, nil); !IsRefusal(err) || !strings.Contains(err.Error(), "the clock of node2 is 45 s ahead of that of node1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("brought", func(t *testing.T) { renewBrought(t, a, b, r, uses) })
	for _, m := range members {
		eventually(t, m.Name()+" reaches the other", func() bool { return m.Peers.Seen("node1").Answers && m.Peers.Seen("node2").Answers })
	}
	done := 0
	for _, e := range a.State().Audit {
		if e.Act == renewAct && e.Result == cluster.Done {
			done++
		}
	}
	if done != 3 {
		t.Errorf("%d renewals are in the trail, want 3", done)
	}
}

func renewBrought(t *testing.T, a, b *Member, r *x509.CertificateRequest, uses func(*Member, []byte)) {
	made := func(r *x509.CertificateRequest) *x509.Certificate {
		t.Helper()
		der, err := a.Identity.certify(r.Raw, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		pic, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return pic
	}
	otherName, err := identity.Request("node3", r.Subject.SerialNumber, b.Identity.pik)
	if err != nil {
		t.Fatal(err)
	}
	named, err := identity.ParseRequest(otherName)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := a.IdentityRequest()
	if err != nil {
		t.Fatal(err)
	}
	other, now, serial := newP521(t), time.Now(), r.Subject.SerialNumber
	owner := issued(t, "owner", nil, other.Public(), other, now, now.Add(time.Hour))
	foreign := issuedTo(t, "node2", serial, owner, r.PublicKey, other, true)
	plain := issuedTo(t, "node2", serial, a.Identity.Owner(), r.PublicKey, a.Identity.pok, false)
	for says, pic := range map[string]*x509.Certificate{
		"is for device":                     made(mine),
		"names node \"node3\"":              made(named),
		"no later than the present one":     b.Identity.pic,
		"not by the owner of device":        foreign,
		"must be a CA certificate with pat": plain,
	} {
		if err := b.RenewIdentity(t.Context(), console, pic); !IsRefusal(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
	good := made(r)
	if err := b.RenewIdentity(t.Context(), console, good); err != nil {
		t.Fatal(err)
	}
	uses(b, good.Raw)
	// Others have approved it meanwhile: the cluster has it before the node.
	der, err := a.Identity.certify(r.Raw, time.Now().Add(2*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	later, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Cluster.Apply(t.Context(), &cluster.ReplaceIdentity{Identity: later.Raw, Key: cluster.KeyHash(later)}, console); err != nil {
		t.Fatal(err)
	}
	b.changeOver(t.Context())
	uses(b, later.Raw)
}
