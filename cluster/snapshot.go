package cluster

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// The canonical form of a State: one JSON record a line, in a fixed order, maps sorted by key. It is what
// snapshots hold and what Hash hashes. Parent records (slot, inventory, package) come before the
// children that belong to them; the last record counts the others, so that a part is not taken for the
// whole. A program adds record types and fields only together with a new Protocol.
type record struct {
	Type  string `json:"t"`
	Key   string `json:"k,omitempty"` // where the value does not hold its own key
	Node  string `json:"n,omitempty"` // inventory: whose it is
	Value any    `json:"v"`
}

// rawRecord is a record whose value is not decoded yet.
type rawRecord struct {
	Type  string          `json:"t"`
	Key   string          `json:"k"`
	Node  string          `json:"n"`
	Value json.RawMessage `json:"v"`
}

// snapshotFormat is the value of the first record.
const snapshotFormat = "keyferry-state-1"

// recordWriter writes records until one fails.
type recordWriter struct {
	enc   *json.Encoder
	count int
	err   error
}

func (w *recordWriter) put(r record) {
	if w.err == nil {
		w.err = w.enc.Encode(r)
		w.count++
	}
}

// putAll writes one record per entry of m, in the order of its keys.
func putAll[V any](w *recordWriter, kind string, m map[string]V) {
	for _, k := range sorted(m) {
		w.put(record{Type: kind, Key: k, Value: m[k]})
	}
}

// encode writes the canonical form of s.
func (s *State) encode(to io.Writer) error {
	out := bufio.NewWriter(to)
	w := &recordWriter{enc: json.NewEncoder(out)}
	w.put(record{Type: "format", Value: snapshotFormat})
	w.put(record{Type: "index", Value: s.Index})
	w.put(record{Type: "cluster", Value: s.Cluster})
	putAll(w, "node", s.Nodes)
	putAll(w, "trust", s.Trust)
	putAll(w, "invite", s.Invites)
	for _, label := range sorted(s.Slots) {
		slot := s.Slots[label]
		seats := slot.Seats
		slot.Seats = nil
		w.put(record{Type: "slot", Key: label, Value: slot})
		putAll(w, "seat", seats)
	}
	for _, label := range sorted(s.Keys) {
		for _, node := range sorted(s.Keys[label]) {
			inventory := s.Keys[label][node]
			keys := inventory.Keys
			inventory.Keys = nil
			w.put(record{Type: "inventory", Key: label, Node: node, Value: inventory})
			putAll(w, "key", keys)
		}
	}
	for _, id := range sorted(s.Packages) {
		p := s.Packages[id]
		receipts := p.Receipts
		p.Receipts = nil
		w.put(record{Type: "package", Key: id, Value: p})
		putAll(w, "receipt", receipts)
	}
	putAll(w, "account", s.Accounts)
	putAll(w, "custodian", s.Custodians)
	putAll(w, "app", s.Apps)
	putAll(w, "policy", s.Policies)
	putAll(w, "approval", s.Approvals)
	putAll(w, "act", s.Acts)
	w.put(record{Type: "audit-base", Value: s.AuditBase})
	for _, e := range s.Audit {
		w.put(record{Type: "audit", Value: e})
	}
	for _, c := range s.Checkpoints {
		w.put(record{Type: "checkpoint", Value: c})
	}
	putAll(w, "signer", s.Signers)
	w.put(record{Type: "settings", Value: s.Settings})
	w.put(record{Type: "lease", Value: s.Lease})
	for _, key := range sorted(s.Stolen) {
		r := s.Stolen[key]
		keys := r.Keys
		r.Keys = nil
		w.put(record{Type: "stolen", Key: key, Value: r})
		putAll(w, "stolen-key", keys)
	}
	w.put(record{Type: "end", Value: w.count})
	if w.err != nil {
		return w.err
	}
	return out.Flush()
}

// decodeState reads what encode wrote. It takes at most maxSnapshot bytes, and nothing that it does not
// know: a State with something left out would differ from the others'.
func decodeState(from io.Reader) (*State, error) {
	limited := &io.LimitedReader{R: from, N: maxSnapshot}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecord)
	r := reader{state: new(State)}
	for n := 0; lines.Scan(); n++ {
		if r.ended {
			return nil, errorf(Internal, "the snapshot goes on after its end, at record %d", n)
		}
		if err := r.record(n, lines.Bytes()); err != nil {
			return nil, errorf(Internal, "the snapshot is damaged or of a newer version, at record %d: %v", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, errorf(Internal, "the snapshot cannot be read: %v", err)
	}
	if !r.ended {
		return nil, errorf(Internal, "the snapshot is cut off")
	}
	return r.state, nil
}

// reader builds a State from records. It owns the State, so it may change maps in place.
type reader struct {
	state *State
	slot  string // parents of the children to come
	held  string
	node  string
	pkg   string
	thief string
	ended bool
}

// record reads record number n.
func (r *reader) record(n int, line []byte) error {
	var raw rawRecord
	if err := unmarshal(line, &raw); err != nil {
		return err
	}
	if (n == 0) != (raw.Type == "format") {
		return fmt.Errorf("the format comes first, and once")
	}
	s := r.state
	switch raw.Type {
	case "format":
		return expect(raw.Value, snapshotFormat)
	case "index":
		return unmarshal(raw.Value, &s.Index)
	case "cluster":
		return unmarshal(raw.Value, &s.Cluster)
	case "node":
		return set(&s.Nodes, raw.Key, raw.Value)
	case "trust":
		return set(&s.Trust, raw.Key, raw.Value)
	case "invite":
		return set(&s.Invites, raw.Key, raw.Value)
	case "account":
		return set(&s.Accounts, raw.Key, raw.Value)
	case "custodian":
		return set(&s.Custodians, raw.Key, raw.Value)
	case "app":
		return set(&s.Apps, raw.Key, raw.Value)
	case "policy":
		return set(&s.Policies, raw.Key, raw.Value)
	case "approval":
		return set(&s.Approvals, raw.Key, raw.Value)
	case "act":
		return set(&s.Acts, raw.Key, raw.Value)
	case "audit":
		var e Entry
		err := unmarshal(raw.Value, &e)
		s.Audit = append(s.Audit, e)
		return err
	case "audit-base":
		return unmarshal(raw.Value, &s.AuditBase)
	case "checkpoint":
		var c Checkpoint
		err := unmarshal(raw.Value, &c)
		s.Checkpoints = append(s.Checkpoints, c)
		return err
	case "signer":
		return set(&s.Signers, raw.Key, raw.Value)
	case "settings":
		return unmarshal(raw.Value, &s.Settings)
	case "lease":
		return unmarshal(raw.Value, &s.Lease)
	case "end":
		r.ended = true
		return expect(raw.Value, n)
	}
	return r.family(raw)
}

// family reads the records that come as parents and children.
func (r *reader) family(raw rawRecord) error {
	s := r.state
	switch raw.Type {
	case "slot":
		r.slot = raw.Key
		return set(&s.Slots, raw.Key, raw.Value)
	case "seat":
		return within(s.Slots, r.slot, func(slot *Slot) error { return set(&slot.Seats, raw.Key, raw.Value) })
	case "inventory":
		r.held, r.node = raw.Key, raw.Node
		held := s.Keys[raw.Key]
		if err := set(&held, raw.Node, raw.Value); err != nil {
			return err
		}
		s.Keys = with(s.Keys, raw.Key, held)
		return nil
	case "key":
		return within(s.Keys[r.held], r.node, func(i *Inventory) error { return set(&i.Keys, raw.Key, raw.Value) })
	case "package":
		r.pkg = raw.Key
		return set(&s.Packages, raw.Key, raw.Value)
	case "receipt":
		return within(s.Packages, r.pkg, func(p *Package) error { return set(&p.Receipts, raw.Key, raw.Value) })
	case "stolen":
		r.thief = raw.Key
		return set(&s.Stolen, raw.Key, raw.Value)
	case "stolen-key":
		return within(s.Stolen, r.thief, func(t *Stolen) error { return set(&t.Keys, raw.Key, raw.Value) })
	}
	return fmt.Errorf("a record of the unknown type %q", clip(raw.Type))
}

// set decodes value into a new entry of m.
func set[V any](m *map[string]V, k string, value []byte) error {
	var v V
	if _, exists := (*m)[k]; exists || k == "" {
		return fmt.Errorf("the key %q is empty or comes twice", clip(k))
	}
	if err := unmarshal(value, &v); err != nil {
		return err
	}
	if *m == nil {
		*m = make(map[string]V)
	}
	(*m)[k] = v
	return nil
}

// within changes the entry k of m.
func within[V any](m map[string]V, k string, change func(*V) error) error {
	v, ok := m[k]
	if !ok {
		return fmt.Errorf("a child without its parent")
	}
	err := change(&v)
	m[k] = v
	return err
}

// expect wants value to encode want.
func expect(value []byte, want any) error {
	b, err := json.Marshal(want)
	if err == nil && !bytes.Equal(b, value) {
		err = fmt.Errorf("%s where %s was expected", clip(string(value)), b)
	}
	return err
}
