package cluster

import (
	"fmt"
	"io"
	"testing"
)

// large makes a State in which node1 and node2 hold n keys each.
func large(b *testing.B, n int) *State {
	s := play(b, new(State), history()...)
	for _, node := range []string{"node1", "node2"} {
		for i := 0; i < n; i += maxReport {
			c := &ReportKeys{Slot: "payments", Complete: i+maxReport >= n}
			for k := i; k < min(i+maxReport, n); k++ {
				c.Put = append(c.Put, testHeld(fmt.Sprintf("%064x", k)))
			}
			s = play(b, s, step{node, Actor{ByNode, node}, c})
		}
	}
	return s
}

// One new key in a slot of 5,000: decode, copy, apply.
func BenchmarkReportOneKey(b *testing.B) {
	s := large(b, 5000)
	entry, err := encodeEntry(&ReportKeys{Slot: "payments", Put: []Held{testHeld("new")}, Complete: true},
		Meta{Time: epoch, Node: "node1", Actor: daemon1})
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

// A snapshot of 10,000 keys.
func BenchmarkSnapshot(b *testing.B) {
	s := large(b, 5000)
	for b.Loop() {
		if err := s.encode(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
