package node

import (
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// TestVerifyAuditRenewedIdentity: what a node signed under its old certificate and what it signs under a later
// one for the same key both hold; what it signed while it had none does not.
func TestVerifyAuditRenewedIdentity(t *testing.T) {
	w := newSignedTrail(t, 10)
	later := trailEpoch.AddDate(11, 0, 0) // the first certificate has ended by then
	for i := 5; i < 10; i++ {
		w.state.Audit[i].Time = later.Add(time.Duration(i) * time.Second)
	}
	w.chain()
	w.state.Checkpoints = nil
	w.sign(t, "node2", 5)
	w.sign(t, "node2", 10)
	if v := verify(t, w.export(t), w.poc); len(v.Findings) != 1 || !strings.Contains(v.Findings[0], "no valid identity certificate") {
		t.Errorf("signed after the end of the certificate: %q", v.Findings)
	}
	pic := w.identity(t, "node2", w.keys["node2"], later)
	n := w.state.Nodes["node2"]
	n.Identity = pic.Raw
	w.state.Nodes["node2"] = n
	w.state.Signers[cluster.CertificateHash(pic.Raw)] = cluster.Signer{Node: "node2", Identity: pic.Raw}
	if v := verify(t, w.export(t), w.poc); !v.Intact() || len(v.Signed) != 1 || v.Signed[0].Count != 2 {
		t.Errorf("with both certificates: %q, %+v", v.Findings, v.Signed)
	}
}
