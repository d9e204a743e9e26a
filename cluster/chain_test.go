package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// checkChain computes the chain of s again.
func checkChain(t testing.TB, s *State) {
	t.Helper()
	prev := s.AuditBase
	for i, e := range s.Audit {
		if want := e.Chained(prev); e.Hash != want || e.Seq != s.Audit[0].Seq+uint64(i) {
			t.Fatalf("entry %d: hash %s, want %s", e.Seq, e.Hash, want)
		}
		prev = e.Hash
	}
}

func TestChain(t *testing.T) {
	s := play(t, new(State), history()...)
	checkChain(t, s)
	if s.AuditBase != ChainStart("c1") || s.AuditBase == ChainStart("c2") {
		t.Errorf("the chain of cluster c1 starts with %s", s.AuditBase)
	}
	if a, b := s.Audit[3], s.Audit[4]; a.Chained(b.Hash) == a.Chained(a.Hash) {
		t.Error("the hash does not depend on what was before")
	}
	for _, seq := range []uint64{0, uint64(len(s.Audit)) + 1} {
		if _, ok := s.EntryAt(seq); ok {
			t.Errorf("there is an entry %d", seq)
		}
	}
	if e, ok := s.EntryAt(3); !ok || e.Seq != 3 {
		t.Errorf("entry 3 is %+v, %v", e, ok)
	}
}

// The bytes are those of AUDIT.md: written down here by hand.
func TestChainBytes(t *testing.T) {
	e := Entry{Seq: 7, Time: time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.FixedZone("", 3600)), Node: "n", Actor: Actor{ByNode, "n"},
		Act: "a", Object: "o/é", Result: Done, Alert: AlertDenied, Hash: "not this"}
	prefix := "\x00\x00\x00\x10keyferry-audit-1\x00\x00\x00\x05"
	for _, c := range []struct{ got, bytes string }{
		{ChainStart("c1"), prefix + "start\x00\x00\x00\x02c1"},
		{e.Chained("ab"), prefix + "entry\x00\x00\x00\x02ab\x00\x00\x00\x017\x00\x00\x00\x172026-03-01T11:00:00.25Z\x00\x00\x00\x01n\x00\x00\x00\x04node\x00\x00\x00\x01n" +
			"\x00\x00\x00\x01a\x00\x00\x00\x04o/é\x00\x00\x00\x04done\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x06denied"},
	} {
		sum := sha256.Sum256([]byte(c.bytes))
		if want := hex.EncodeToString(sum[:]); c.got != want {
			t.Errorf("hash %s, want %s", c.got, want)
		}
	}
}

// Every field of an entry but Hash is covered by it: a new one must be, too.
func TestChainCoversEveryField(t *testing.T) {
	var e Entry
	plain := e.Chained("")
	v := reflect.ValueOf(&e).Elem()
	var vary func(path string, f reflect.Value)
	vary = func(path string, f reflect.Value) {
		old := f.Interface()
		switch p := f.Addr().Interface().(type) {
		case *uint64:
			*p = 1
		case *string:
			*p = "x"
		case *time.Time:
			*p = epoch
		case *Actor:
			for i := range f.NumField() {
				vary(path+"."+f.Type().Field(i).Name, f.Field(i))
			}
			return
		default:
			t.Fatalf("no value for %s of type %s", path, f.Type())
		}
		if e.Chained("") == plain {
			t.Errorf("the hash does not cover %s", path)
		}
		f.Set(reflect.ValueOf(old))
	}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "Hash" {
			vary(name, v.Field(i))
		}
	}
}

func TestAlerts(t *testing.T) {
	s := play(t, new(State), history()...)
	note := func(act string) step {
		return step{"node2", daemon2, &RecordNote{Actor: daemon2, Act: act, Object: "slot/payments", Result: Failed}}
	}
	for want, st := range map[string]step{
		AlertDenied:      {"node1", Actor{ByAccount, "berta"}, &RemoveNode{Node: "node2"}},
		AlertLockout:     note(NoteLocked),
		AlertCodeDiffers: note(NoteCodeDiffers),
		AlertTrail:       note(NoteAuditDiffers),
		AlertGap:         note(NoteSyslogGap),
	} {
		next, _ := try(t, s, st)
		if e := next.Audit[len(next.Audit)-1]; e.Alert != want {
			t.Errorf("%s: entry %+v, want the alert %s", st.cmd.Kind(), e, want)
		}
		checkChain(t, next)
	}
	waiting := asked(t)
	for want, st := range map[string]step{AlertSelfApproval: vote("anna"), AlertMisuse: {"node1", Actor{ByAccount, "heidi"}, &Approve{ID: "a", Hash: testInvite(1)}}} {
		next, err := try(t, waiting, st)
		if e := next.Audit[len(next.Audit)-1]; err == nil || e.Alert != want {
			t.Errorf("%v: entry %+v, want the alert %s", err, e, want)
		}
	}
	for _, st := range []step{note(NoteLogin), {"node1", anna, &RemoveApp{Name: "ejbca"}}, {"node1", anna, &RemoveApp{Name: "none"}}} {
		next, _ := try(t, s, st)
		if e := next.Audit[len(next.Audit)-1]; e.Alert != "" {
			t.Errorf("%s: entry %+v has an alert", st.cmd.Kind(), e)
		}
	}
}

// A signature outlives the identity that made it, and the node.
func TestSignersAreKept(t *testing.T) {
	s := play(t, new(State), history()...)
	old := CertificateHash(s.Nodes["node1"].Identity)
	other := identityOf("other")
	s = play(t, s, step{"node1", anna, &ReplaceIdentity{Identity: other.Raw, Key: KeyHash(other)}},
		step{"node1", daemon1, &SignAudit{Seq: 2, Hash: s.Audit[1].Hash, Signer: CertificateHash(other.Raw), Statement: "eyJ.c.t"}})
	_, err := try(t, s, step{"node1", daemon1, &SignAudit{Seq: 3, Hash: s.Audit[2].Hash, Signer: old, Statement: "eyJ.c.t"}})
	wantCode(t, err, Conflict)
	if len(s.Signers) != 2 || s.Signers[old].Node != "node1" || s.Signers[CertificateHash(other.Raw)].Node != "node1" || s.Checkpoints[1].Signer != CertificateHash(other.Raw) {
		t.Errorf("signers %v, checkpoints %+v", s.Signers, s.Checkpoints)
	}
}

// The signatures stay bounded; the newest of each node stays, and so does what signed it.
func TestCheckpointsAreBounded(t *testing.T) {
	s := play(t, new(State), history()...)
	m := Meta{Time: epoch, Node: "node1", Actor: console}
	for range 3 * maxCheckpoints {
		s.record(m, Entry{Act: "x"})
	}
	sign := func(node string, seq uint64) error {
		c := SignAudit{Seq: seq, Hash: s.Audit[seq-1].Hash, Signer: signerOf(node), Statement: "eyJ.c.s"}
		return c.apply(s, Meta{Time: epoch, Node: node, Actor: Actor{ByNode, node}})
	}
	if err := sign("node2", 5); err != nil {
		t.Fatal(err)
	}
	before := *s
	for seq := uint64(6); seq < 2*maxCheckpoints; seq++ {
		if err := sign("node3", seq); err != nil {
			t.Fatal(err)
		}
		if len(s.Checkpoints) > maxCheckpoints {
			t.Fatalf("%d checkpoints", len(s.Checkpoints))
		}
	}
	newest := map[string]uint64{}
	for _, c := range s.Checkpoints {
		newest[c.Node] = max(newest[c.Node], c.Seq)
	}
	if got := fmt.Sprint(newest); got != fmt.Sprint(map[string]uint64{"node1": 1, "node2": 5, "node3": 2*maxCheckpoints - 1}) {
		t.Errorf("the newest checkpoints are %s", got)
	}
	if len(s.Signers) != 3 || len(before.Checkpoints) != 2 || before.Checkpoints[1].Node != "node2" {
		t.Errorf("%d signers; a state that was read before has %+v", len(s.Signers), before.Checkpoints)
	}
	s.Audit = s.Audit[len(s.Audit)-100:] // what a forgotten entry needed goes first
	s.thinCheckpoints()
	if len(s.Checkpoints) != 3 {
		t.Errorf("%d checkpoints, and no entry for them", len(s.Checkpoints))
	}
}

// What the chain costs an entry. BenchmarkAuditedCommand is the whole of a command.
func BenchmarkChained(b *testing.B) {
	e := Entry{Seq: 7, Time: epoch, Node: "node1", Actor: anna, Act: "trust.set", Object: "node/node1", Result: Done, Detail: "trusts node/node2"}
	prev := ChainStart("c1")
	for b.Loop() {
		e.Hash = e.Chained(prev)
	}
}

// An act as the log brings it: decode, authorize, apply, record.
func BenchmarkAuditedCommand(b *testing.B) {
	s := play(b, new(State), history()...)
	entry, err := encodeEntry(&SetTrust{Trusting: "node1", Trusted: "node2", Trust: true}, Meta{Time: epoch, Node: "node1", Actor: anna})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		e, err := decodeEntry(entry)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.next(s.Index+1, e); err != nil {
			b.Fatal(err)
		}
	}
}
