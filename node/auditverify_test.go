package node

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// A signedTrail is a cluster's audit trail with keys that are in no HSM.
type signedTrail struct {
	state *cluster.State
	poc   *x509.Certificate
	owner *ecdsa.PrivateKey
	keys  map[string]*ecdsa.PrivateKey
}

var trailEpoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newSignedTrail makes a trail of n entries, with a signature of node1 or node2 under every fifth.
func newSignedTrail(t testing.TB, n int) *signedTrail {
	t.Helper()
	w := &signedTrail{keys: map[string]*ecdsa.PrivateKey{}, owner: newP521(t)}
	der, err := identity.OwnerCertificate("Test", w.owner, trailEpoch)
	if err != nil {
		t.Fatal(err)
	}
	if w.poc, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	w.state = &cluster.State{Cluster: cluster.Info{ID: "c1", Name: "Test", Owner: der}, Nodes: map[string]cluster.Node{}, Signers: map[string]cluster.Signer{}}
	for _, name := range []string{"node1", "node2"} {
		w.keys[name] = newP521(t)
		pic := w.identity(t, name, w.keys[name], trailEpoch)
		w.state.Nodes[name] = cluster.Node{Name: name, Key: cluster.KeyHash(pic), Identity: pic.Raw}
		w.state.Signers[cluster.CertificateHash(pic.Raw)] = cluster.Signer{Node: name, Identity: pic.Raw}
	}
	w.state.AuditBase = cluster.ChainStart("c1")
	for i := range n {
		w.state.Audit = append(w.state.Audit, cluster.Entry{Seq: uint64(i + 1), Time: trailEpoch.Add(time.Duration(i) * time.Second), Node: "node1",
			Actor: cluster.Actor{Kind: cluster.ByAccount, Name: "anna"}, Act: "slot.activate", Object: "slot/payments <&>", Result: cluster.Done, Detail: fmt.Sprintf("in %d s, Grüße", i)})
	}
	w.chain()
	for i := 5; i <= n; i += 5 {
		w.sign(t, []string{"node1", "node2"}[i/5%2], uint64(i))
	}
	return w
}

func newP521(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w *signedTrail) identity(t testing.TB, name string, key *ecdsa.PrivateKey, made time.Time) *x509.Certificate {
	t.Helper()
	csr, err := identity.Request(name, "serial", key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := identity.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	der, err := identity.Certificate(r, w.poc, w.owner, made)
	if err != nil {
		t.Fatal(err)
	}
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return pic
}

// chain computes all hashes anew.
func (w *signedTrail) chain() {
	prev := w.state.AuditBase
	for i := range w.state.Audit {
		w.state.Audit[i].Hash = w.state.Audit[i].Chained(prev)
		prev = w.state.Audit[i].Hash
	}
}

func (w *signedTrail) sign(t testing.TB, node string, seq uint64) {
	t.Helper()
	e, ok := w.state.EntryAt(seq)
	if !ok {
		t.Fatalf("no entry %d", seq)
	}
	jws, err := syncpkg.SignAuditCheckpoint(syncpkg.AuditCheckpoint{Cluster: "c1", Node: node, Seq: seq, Hash: e.Hash, Time: e.Time.Add(time.Minute)}, w.keys[node])
	if err != nil {
		t.Fatal(err)
	}
	w.state.Checkpoints = append(w.state.Checkpoints, cluster.Checkpoint{Node: node, Seq: seq, Hash: e.Hash, Time: e.Time, Signer: cluster.CertificateHash(w.state.Nodes[node].Identity), Statement: jws})
}

// export writes the trail as node1 exports it, in lines with their newlines.
func (w *signedTrail) export(t testing.TB) []string {
	t.Helper()
	var b bytes.Buffer
	if err := writeTrail(t.Context(), &b, w.state, w.state.Audit, "node1", w.state.Nodes["node1"].Identity, w.keys["node1"]); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(strings.Lines(b.String()))
}

func verify(t testing.TB, lines []string, owner *x509.Certificate) *AuditVerdict {
	t.Helper()
	v, err := VerifyAudit(strings.NewReader(strings.Join(lines, "")), owner)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// entryLine is the index of the line with an entry.
func entryLine(t testing.TB, lines []string, seq int) int {
	t.Helper()
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, fmt.Sprintf(`{"entry":{"seq":%d,`, seq)) })
	if i < 0 {
		t.Fatalf("entry %d is not in the file", seq)
	}
	return i
}

func TestVerifyAudit(t *testing.T) {
	w := newSignedTrail(t, 23)
	v := verify(t, w.export(t), w.poc)
	if !v.Intact() || !v.Anchored || v.First != 1 || v.Last != 23 || v.Entries != 23 || v.Exporter != "node1" || v.Cluster != "c1" || v.Name != "Test" {
		t.Errorf("verdict %+v", v)
	}
	if len(v.Signed) != 2 || v.Signed[0].Node != "node1" || v.Signed[0].Last != 20 || v.Signed[0].Count != 2 || v.Signed[1].Last != 15 || v.Signed[1].Count != 2 {
		t.Errorf("signatures %+v", v.Signed)
	}
	if got := strings.Join(v.Notes, "\n"); got != "the entries after 20 are vouched for by the end line of node1 alone" {
		t.Errorf("notes:\n%s", got)
	}
	if v := verify(t, w.export(t), nil); !v.Intact() || v.Anchored || v.Owner != fingerprintOf(w.poc) {
		t.Errorf("without an owner certificate: %+v", v)
	}
	w.state.AuditBase, w.state.Audit = w.state.Audit[6].Hash, w.state.Audit[7:] // the oldest were forgotten
	if v := verify(t, w.export(t), w.poc); !v.Intact() || v.First != 8 || v.Entries != 16 || len(v.Signed) != 2 {
		t.Errorf("a shortened trail: %+v", v)
	}
	w.state.Audit = nil
	if v := verify(t, w.export(t), w.poc); !v.Intact() || v.Entries != 0 || v.Last != 0 {
		t.Errorf("an empty trail: %+v", v)
	}
}

// TestVerifyAuditDamage damages a file in every way that people think of, and wants to be told where.
func TestVerifyAuditDamage(t *testing.T) {
	w := newSignedTrail(t, 23)
	good := w.export(t)
	at := func(seq int) int { return entryLine(t, good, seq) }
	drop := func(i, n int) []string { return slices.Delete(slices.Clone(good), i, i+n) }
	swap := func(i, j int) []string {
		l := slices.Clone(good)
		l[i], l[j] = l[j], l[i]
		return l
	}
	edit := func(i int, old, new string) []string {
		l := slices.Clone(good)
		l[i] = strings.Replace(l[i], old, new, 1)
		return l
	}
	move := func(from, to int) []string { // to: index after the removal
		l := slices.Delete(slices.Clone(good), from, from+1)
		return slices.Insert(l, to, good[from])
	}
	signature := at(5) + 1
	last := len(good) - 1
	for name, c := range map[string]struct {
		lines []string
		want  string // all findings
	}{
		"detail changed":       {edit(at(7), "in 6 s", "in 9 s"), "line 9: entry 7 was changed"},
		"actor changed":        {edit(at(23), "anna", "Anna"), "line 28: entry 23 was changed"},
		"hash changed":         {edit(at(7), `"hash":"`+w.state.Audit[6].Hash[:1], `"hash":"`+flipHex(w.state.Audit[6].Hash[:1])), "line 9: entry 7 was changed"},
		"alert taken out":      {edit(at(7), `"hash"`, `"alert":"denied","hash"`), "line 9: entry 7 was changed"},
		"two changed":          {edit(at(7), "in 6 s", "in 9 s"), "line 9: entry 7 was changed"},
		"not JSON":             {edit(at(7), `{"entry"`, `{entry`), "line 9: entry 7 was changed: invalid character"},
		"other spacing":        {edit(at(7), `"seq":7,`, `"seq": 7,`), "line 9: entry 7 was changed: it is not in the one form"},
		"field twice":          {edit(at(7), `"seq":7,`, `"seq":1,"seq":7,`), "line 9: entry 7 was changed: it is not in the one form"},
		"unknown field":        {edit(at(7), `"seq":7,`, `"seq":7,"x":1,`), "line 9: entry 7 was changed: json: unknown field"},
		"bad UTF-8":            {edit(at(7), "Grüße", "Gr\xffe"), "line 9: entry 7 was changed: it is not in the one form"},
		"null byte":            {edit(at(7), "Grüße", "\x00"), "line 9: entry 7 was changed: invalid character"},
		"huge line":            {edit(at(7), "Grüße", strings.Repeat("x", maxAuditLine)), "line 9: entry 7 was changed: it is longer than"},
		"empty line":           {edit(at(7), good[at(7)], "\n"), "line 9: entry 7 was changed: EOF"},
		"first dropped":        {drop(at(1), 1), "entry 1 is missing before line 2"},
		"middle dropped":       {drop(at(8), 1), "entry 8 is missing before line 10"},
		"three dropped":        {drop(at(7), 3), "entries 7 to 9 are missing before line 9"},
		"last dropped":         {drop(at(23), 1), "entry 23 is missing at the end, before line 28"},
		"signature dropped":    {drop(signature, 1), "1 signature of nodes under the trail, which node1 had exported, are missing"},
		"end line dropped":     {drop(last, 1), "the end is cut off after entry 23: there is no end line"},
		"end cut":              {good[:at(18)+1], "the end is cut off after entry 18"},
		"end cut in a line":    {append(slices.Clone(good[:at(18)]), good[at(18)][:50]), "line 22 was changed: unexpected EOF\nthe end is cut off after entry 17"},
		"newline at end":       {append(slices.Clone(good[:last]), strings.TrimSuffix(good[last], "\n")), "the end is cut off"},
		"neighbours swapped":   {swap(at(7), at(8)), "entries 7 and 8 are swapped (lines 9 and 10)"},
		"far swapped":          {swap(at(7), at(19)), "entries 7 and 19 are swapped (lines 9 and 23)"},
		"one apart swapped":    {swap(at(7), at(9)), "entries 7 and 9 are swapped (lines 9 and 11)"},
		"moved back":           {move(at(3), at(13)-1), "entry 3 is missing before line 4\nline 15: entry 3 is out of place"},
		"twice":                {slices.Insert(slices.Clone(good), at(9), good[at(7)]), "line 11: entry 7 is out of place"},
		"header dropped":       {good[1:], "line 1: this is not an exported audit trail"},
		"header twice":         {slices.Insert(slices.Clone(good), 5, good[0]), "line 6: a second header"},
		"nothing":              {nil, "the file is empty"},
		"something behind":     {append(slices.Clone(good), good[1]), "something follows after the end line"},
		"other file":           {[]string{"-----BEGIN CERTIFICATE-----\n"}, "line 1: this is not an exported audit trail"},
		"first by the header":  {edit(0, `"first":1,`, `"first":2,`), "line 2: entry 1 is out of place"},
		"base changed":         {edit(0, `"before":"`+w.state.AuditBase[:1], `"before":"`+flipHex(w.state.AuditBase[:1])), "line 1: the chain does not begin as that of cluster c1 must\nline 2: entry 1 was changed"},
		"cluster changed":      {edit(0, `"cluster":"c1"`, `"cluster":"c2"`), "line 1: the chain does not begin as that of cluster c2 must"},
		"name changed":         {edit(0, `"name":"Test"`, `"name":"Best"`), "something in the file was changed after node1 exported it"},
		"signature elsewhere":  {move(signature, signature+1), "node2's signature under entry 5 stands after entry 6"},
		"entries made up":      {edit(at(23), `"seq":23,`, `"seq":24,`), "entry 23 is missing before line 28"},
		"beginning cut, fixed": {fixed(t, good, 10), "the file begins with entry 11 by its header, and with entry 1 by its end line"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verify(t, c.lines, w.poc)
			got := strings.Join(v.Findings, "\n")
			for _, want := range strings.Split(c.want, "\n") {
				if !strings.Contains(got, want) {
					t.Errorf("findings:\n%s\nwant:\n%s", got, c.want)
				}
			}
			if len(v.Findings) > len(strings.Split(c.want, "\n"))+5 {
				t.Errorf("too many findings:\n%s", got)
			}
		})
	}
}

func flipHex(s string) string { return map[bool]string{true: "1", false: "0"}[s == "0"] }

// fixed takes n entries from the beginning and mends the header, which nobody signs by itself.
func fixed(t *testing.T, good []string, n int) []string {
	cut := entryLine(t, good, n+1)
	l, err := decodeLine([]byte(good[0]))
	if err != nil {
		t.Fatal(err)
	}
	before, err := decodeLine([]byte(good[entryLine(t, good, n)]))
	if err != nil {
		t.Fatal(err)
	}
	l.Header.First, l.Header.Before = uint64(n+1), before.Entry.Hash
	b, err := encodeLine(l)
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{string(b)}, good[cut:]...)
}

// TestVerifyAuditForged lets an attacker compute the chain anew, with and without keys.
func TestVerifyAuditForged(t *testing.T) {
	w := newSignedTrail(t, 23)
	good := w.export(t)
	check := func(name string, lines []string, wants ...string) {
		t.Helper()
		v := verify(t, lines, w.poc)
		for _, want := range wants {
			if !slices.ContainsFunc(v.Findings, func(f string) bool { return strings.Contains(f, want) }) {
				t.Errorf("%s: no finding %q in:\n%s", name, want, strings.Join(v.Findings, "\n"))
			}
		}
	}
	// Entry 12 is changed and the chain computed anew; signatures and end line stay.
	forged := *w
	state := *w.state
	forged.state = &state
	state.Audit = slices.Clone(state.Audit)
	state.Audit[11].Detail = "nothing happened"
	forged.chain()
	var lines []string
	for _, l := range good {
		if decoded, err := decodeLine([]byte(l)); err == nil && decoded.Entry != nil {
			b, _ := encodeLine(auditLine{Entry: &state.Audit[decoded.Entry.Seq-1]})
			l = string(b)
		}
		lines = append(lines, l)
	}
	check("computed anew", lines, "node2's signature at 15 does not fit: an entry from 11 to 15 was changed", "node1's signature at 20 does not fit")
	// Without the signatures that contradict it, the end line still does.
	without := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, `{"signature"`) })
	check("signatures taken out", without, "4 signatures of nodes under the trail", "entry 23 is not the one that node1 exported")

	// A stranger signs all of it, with an owner certificate of his own.
	stranger := newSignedTrail(t, 23)
	made := stranger.export(t)
	check("another cluster's owner", made, "the file names another owner certificate", "the owner certificate does not vouch for a signer", "the end line does not hold")
	if v := verify(t, made, nil); !v.Intact() || v.Anchored || v.Owner == fingerprintOf(w.poc) {
		t.Errorf("without an owner certificate a whole file passes, with another fingerprint: %+v", v)
	}
	check("certificates replaced", append([]string{made[0]}, good[1:]...), "the file names another owner certificate", "does not hold")
	check("signature of a stranger", append(append(slices.Clone(good[:6]), made[6]), good[7:]...), "line 7: the signature under entry 5 does not hold")
	check("end of a stranger", append(slices.Clone(good[:len(good)-1]), made[len(made)-1]), "the end line does not hold")

	// node2's key signs in the name of node1.
	forged.keys = map[string]*ecdsa.PrivateKey{"node1": w.keys["node2"]}
	check("another node's key", forged.export(t), "the end line does not hold")
}

// TestVerifyAuditTakenOverNode shows the limit: a member that signs a trail of its own passes, and the
// verdict says that nobody else vouches for it.
func TestVerifyAuditTakenOverNode(t *testing.T) {
	w := newSignedTrail(t, 9)
	w.state.Checkpoints = nil
	w.state.Audit[3].Detail = "nothing happened"
	w.chain()
	w.sign(t, "node1", 8)
	v := verify(t, w.export(t), w.poc)
	if notes := strings.Join(v.Notes, "\n"); !v.Intact() || !strings.Contains(notes, "no signature of node2") || !strings.Contains(notes, "all signatures are of node1") {
		t.Errorf("verdict %+v", v)
	}
}

// TestVerifyAuditBytes changes a byte at many places of each kind of line.
func TestVerifyAuditBytes(t *testing.T) {
	w := newSignedTrail(t, 6)
	good := w.export(t)
	entry := entryLine(t, good, 3)
	for _, c := range []struct{ line, step int }{{0, 37}, {entry, 5}, {entryLine(t, good, 5) + 1, 29}, {len(good) - 1, 29}} {
		for i := 0; i < len(good[c.line]); i += c.step {
			lines := slices.Clone(good)
			b := []byte(lines[c.line])
			b[i] ^= 1 << (i % 7)
			lines[c.line] = string(b)
			v := verify(t, lines, w.poc)
			if v.Intact() {
				t.Fatalf("line %d, byte %d of %q: not noticed", c.line+1, i, good[c.line])
			}
			if c.line == entry && !strings.HasPrefix(v.Findings[0], fmt.Sprintf("line %d: entry 3 was changed", entry+1)) && !bytes.Contains(b[:20], []byte{'\n'}) && i > 20 && i < len(b)-1 {
				t.Errorf("byte %d: %v", i, v.Findings)
			}
		}
	}
}

// Two exports of the same trail agree in all but their end.
func TestExportsAgree(t *testing.T) {
	w := newSignedTrail(t, 12)
	one, two := w.export(t), w.export(t)
	if !slices.Equal(one[:len(one)-1], two[:len(two)-1]) {
		t.Error("two exports of one trail differ")
	}
}

// Findings stay few, however much is wrong.
func TestVerifyAuditFindingsAreBounded(t *testing.T) {
	w := newSignedTrail(t, 400)
	var lines []string
	for i, l := range w.export(t) {
		if i%3 == 1 {
			continue
		}
		lines = append(lines, l)
	}
	if v := verify(t, lines, w.poc); len(v.Findings) != maxFindings || v.More == 0 {
		t.Errorf("%d findings and %d more", len(v.Findings), v.More)
	}
}

func TestBetween(t *testing.T) {
	w := newSignedTrail(t, 10)
	at := func(i int) time.Time { return w.state.Audit[i].Time }
	for _, c := range []struct {
		since, until time.Time
		first, last  uint64
	}{
		{time.Time{}, time.Time{}, 1, 10}, {at(3), time.Time{}, 4, 10}, {time.Time{}, at(3), 1, 4}, {at(3), at(5), 4, 6},
		{at(3).Add(1), at(3).Add(2), 0, 0}, {at(9).Add(1), time.Time{}, 0, 0}, {time.Time{}, at(0).Add(-1), 0, 0},
	} {
		got := between(w.state.Audit, c.since, c.until)
		if c.first == 0 && len(got) == 0 {
			continue
		}
		if len(got) == 0 || got[0].Seq != c.first || got[len(got)-1].Seq != c.last {
			t.Errorf("from %v until %v: %+v", c.since, c.until, got)
		}
	}
}
