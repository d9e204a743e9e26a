package node

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/identity"
)

// An offlineOwner is an owner whose key is on none of the nodes.
type offlineOwner struct {
	key *ecdsa.PrivateKey
	poc *x509.Certificate
}

func newOfflineOwner(t *testing.T) offlineOwner {
	t.Helper()
	key := newP521(t)
	der, err := identity.OwnerCertificate("Elsewhere", key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	poc, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return offlineOwner{key, poc}
}

func (o offlineOwner) certify(t *testing.T, r *x509.CertificateRequest, now time.Time) Certified {
	t.Helper()
	der, err := identity.Certificate(r, o.poc, o.key, now)
	if err != nil {
		t.Fatal(err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return Certified{o.poc, pic}
}

func requestOf(t *testing.T, n *Node) *x509.CertificateRequest {
	t.Helper()
	r, err := n.Request(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOwnerElsewhere founds and joins with certificates of an owner whose key is on no node.
func TestOwnerElsewhere(t *testing.T) {
	owner, other := newOfflineOwner(t), newOfflineOwner(t)
	first, second := open(t, testConfig(t, t.TempDir(), "node1")), open(t, testConfig(t, t.TempDir(), "node2"))
	r1, r2 := requestOf(t, first), requestOf(t, second)
	if again := requestOf(t, first); !again.PublicKey.(*ecdsa.PublicKey).Equal(r1.PublicKey) || r1.Subject.CommonName != "node1" {
		t.Errorf("the second request is for another key, or %v", again.Subject)
	}
	good := owner.certify(t, r1, time.Now())
	for _, c := range []struct {
		name string
		with Certified
		says string
	}{
		{"another node's certificate", owner.certify(t, r2, time.Now()), "is for device"},
		{"another owner's certificate", Certified{other.poc, good.Identity}, "signed by"},
		{"no owner", Certified{good.Identity, good.Identity}, "no owner certificate"},
		{"an owner as identity", Certified{owner.poc, owner.poc}, "is for device"},
		{"a certificate from the future", owner.certify(t, r1, time.Now().Add(time.Hour)), "not valid before"},
		{"a certificate that has ended", owner.certify(t, r1, time.Now().Add(-identity.IdentityLife-time.Hour)), "ended at"},
	} {
		if _, err := first.FoundUnder(t.Context(), console, "test", c.with); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, which does not say %q", c.name, err, c.says)
		}
	}
	if _, err := first.Member(); !errors.Is(err, ErrNotMember) {
		t.Fatalf("after what was refused: %v", err)
	}
	if _, err := first.FoundUnder(t.Context(), console, "test", good); err != nil {
		t.Fatal(err)
	}
	m, err := first.Member()
	if err != nil {
		t.Fatal(err)
	}
	if m.Identity.HoldsOwner() || !m.Identity.Owner().Equal(owner.poc) || m.State().Nodes["node1"].Name == "" {
		t.Errorf("the founded cluster: owner %v, holds it %v", m.Identity.Owner().Subject, m.Identity.HoldsOwner())
	}
	if _, err := first.Request(t.Context()); err == nil {
		t.Error("a member asks for a certificate like a new node")
	}
	inv, err := m.Invite(t.Context(), console, "", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code); err == nil || !strings.Contains(err.Error(), "keyferry join --identity") {
		t.Errorf("joining without a certificate: %v", err)
	}
	if _, err := second.JoinUnder(t.Context(), inv.Address, inv.Fingerprint, inv.Code, other.certify(t, r2, time.Now())); err == nil || !strings.Contains(err.Error(), "signed by") {
		t.Errorf("joining under another owner: %v", err)
	}
	_, err = second.JoinUnder(t.Context(), inv.Address, inv.Fingerprint, inv.Code, owner.certify(t, r2, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.State().Nodes["node2"]; got.Serial != r2.Subject.SerialNumber || !m.State().Trusts("node1", "node2") {
		t.Errorf("node2 joined as %+v", got)
	}
	joined, err := second.Member()
	if err != nil {
		t.Fatal(err)
	}
	before, err := joined.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if after, err := reopen(t, joined).Fingerprint(); after != before || err != nil {
		t.Errorf("after a restart node2 shows the certificate %s, before it %s: %v", after, before, err)
	}
}

// TestOwnerChangesMidway: a start that was interrupted under one owner does not go on under another.
func TestOwnerChangesMidway(t *testing.T) {
	owner, other := newOfflineOwner(t), newOfflineOwner(t)
	n := open(t, testConfig(t, t.TempDir(), "node1"))
	r := requestOf(t, n)
	rec, err := n.fresh()
	if err != nil {
		t.Fatal(err)
	}
	rec.Owner, rec.Elsewhere, rec.ClusterName = owner.poc.Raw, true, "begun"
	if err := n.saveIdentity(&rec); err != nil {
		t.Fatal(err)
	}
	if _, err := n.FoundUnder(t.Context(), console, "test", other.certify(t, r, time.Now())); !IsRefusal(err) || !strings.Contains(err.Error(), "under another owner") {
		t.Errorf("under another owner: %v", err)
	}
}
