package syncpkg

import (
	"strings"
	"testing"
	"time"
)

func (w *world) checkpoint() AuditCheckpoint {
	return AuditCheckpoint{Cluster: "c1", Node: "node1", Seq: 1250, Hash: strings.Repeat("ab", 32), Time: testNow}
}

func (w *world) auditEnd() AuditEnd {
	return AuditEnd{Cluster: "c1", Node: "node1", First: 1, Last: 1250, Checkpoints: 3, Hash: strings.Repeat("ab", 32), SHA256: strings.Repeat("cd", 32), Time: testNow}
}

func TestAuditStatements(t *testing.T) {
	w := newWorld(t)
	given := w.checkpoint()
	given.Time = given.Time.Add(time.Millisecond).In(time.FixedZone("", 3600)) // cut when signed
	checkpoint := result(SignAuditCheckpoint(given, w.source))(t)
	if got, err := VerifyAuditCheckpoint(checkpoint, w.trust); err != nil || got != w.checkpoint() {
		t.Errorf("got %+v, %v", got, err)
	}
	end := result(SignAuditEnd(w.auditEnd(), w.source))(t)
	if got, err := VerifyAuditEnd(end, w.trust); err != nil || got != w.auditEnd() {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err := VerifyAuditEnd(checkpoint, w.trust)
	wantKind(t, err, ErrSignature)
	_, err = VerifyAuditCheckpoint(end, w.trust)
	wantKind(t, err, ErrSignature)
	stranger := result(SignAuditCheckpoint(w.checkpoint(), w.stranger))(t)
	_, err = VerifyAuditCheckpoint(stranger, w.trust)
	wantKind(t, err, ErrUntrusted)
	other := w.checkpoint()
	other.Node = "node2"
	_, err = VerifyAuditCheckpoint(result(SignAuditCheckpoint(other, w.source))(t), w.trust)
	wantKind(t, err, ErrUntrusted)
	largest := w.auditEnd()
	largest.Cluster, largest.Node = strings.Repeat("c", MaxCluster), strings.Repeat("n", MaxNode)
	largest.First, largest.Last, largest.Checkpoints = 1<<63, 1<<63+1, 1<<62
	result(SignAuditEnd(largest, w.source))(t)
}

func TestAuditStatementContent(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*AuditCheckpoint){
		"no entry":    func(c *AuditCheckpoint) { c.Seq = 0 },
		"short hash":  func(c *AuditCheckpoint) { c.Hash = c.Hash[2:] },
		"other case":  func(c *AuditCheckpoint) { c.Hash = strings.ToUpper(c.Hash) },
		"nanoseconds": func(c *AuditCheckpoint) { c.Time = c.Time.Add(1) },
	} {
		t.Run("checkpoint/"+name, func(t *testing.T) {
			c := w.checkpoint()
			change(&c)
			_, err := VerifyAuditCheckpoint(forgeStatement(t, w.source, typeAuditCheckpoint, c, nil, nil), w.trust)
			wantKind(t, err, ErrContent)
		})
	}
	for name, change := range map[string]func(*AuditEnd){
		"ends before it begins": func(e *AuditEnd) { e.Last = 0 },
		"begins at no entry":    func(e *AuditEnd) { e.First = 0 },
		"less than nothing":     func(e *AuditEnd) { e.Checkpoints = -1 },
		"no digest":             func(e *AuditEnd) { e.SHA256 = "" },
		"hash":                  func(e *AuditEnd) { e.Hash = "x" },
	} {
		t.Run("end/"+name, func(t *testing.T) {
			e := w.auditEnd()
			change(&e)
			_, err := VerifyAuditEnd(forgeStatement(t, w.source, typeAuditEnd, e, nil, nil), w.trust)
			wantKind(t, err, ErrContent)
			if _, err := SignAuditEnd(e, w.source); err == nil {
				t.Error("it is signed")
			}
		})
	}
}
