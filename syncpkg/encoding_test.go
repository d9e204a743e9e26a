package syncpkg

import (
	"crypto/sha256"
	"runtime"
	"strings"
	"testing"
)

// TestBind sees that fields cannot slide into one another.
func TestBind(t *testing.T) {
	seen := map[string][]string{}
	for _, fields := range [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"\x00\x00\x00\x01a"}} {
		b := string(bind("label", fields...))
		if other, twice := seen[b]; twice {
			t.Errorf("%q and %q give the same bytes", fields, other)
		}
		seen[b] = fields
	}
	want := "\x00\x00\x00\x05label\x00\x00\x00\x01a\x00\x00\x00\x00"
	if got := string(bind("label", "a", "")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestContext sees that each argument, and each field of the header that it should, changes the context.
func TestContext(t *testing.T) {
	h := Header{ID: "id", Cluster: "c", Source: "s", Slot: "l"}
	seen := map[[sha256.Size]byte]bool{}
	for i, c := range [][sha256.Size]byte{
		h.Context("r", []byte("t"), []byte("e")),
		h.Context("x", []byte("t"), []byte("e")),
		h.Context("r", []byte("x"), []byte("e")),
		h.Context("r", []byte("t"), []byte("x")),
		h.Context("r", []byte("te"), nil),
		Header{ID: "x", Cluster: "c", Source: "s", Slot: "l"}.Context("r", []byte("t"), []byte("e")),
		Header{ID: "id", Cluster: "x", Source: "s", Slot: "l"}.Context("r", []byte("t"), []byte("e")),
		Header{ID: "id", Cluster: "c", Source: "x", Slot: "l"}.Context("r", []byte("t"), []byte("e")),
		Header{ID: "id", Cluster: "c", Source: "s", Slot: "x"}.Context("r", []byte("t"), []byte("e")),
	} {
		if seen[c] {
			t.Errorf("context %d was there before", i)
		}
		seen[c] = true
	}
	later := h
	later.Keys, later.Suite, later.Receivers = 3, Suite, []string{"r"}
	if later.Context("r", []byte("t"), []byte("e")) != h.Context("r", []byte("t"), []byte("e")) {
		t.Error("what Seal fills in changes the context")
	}
}

func TestCheckValues(t *testing.T) {
	const n = MaxValues
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"as many as allowed":     {"[" + strings.Repeat("0,", n-1) + "0]", true},
		"one more":               {"[" + strings.Repeat("0,", n) + "0]", false},
		"objects":                {strings.Repeat("{", n+1), false},
		"arrays":                 {strings.Repeat("[", n+1), false},
		"commas within a string": {`"` + strings.Repeat(",", n+1) + `"`, true},
		"after an escaped quote": {`"\"` + strings.Repeat(",", n+1) + `"`, true},
		"after a backslash":      {`"\\"` + strings.Repeat(",", n+1), false},
	} {
		err := checkValues([]byte(c.text))
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		wantKind(t, err, ErrTooLarge)
	}
}

// allocated returns the bytes that f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestMemory decodes short texts that would make long ones in memory.
func TestMemory(t *testing.T) {
	w := newWorld(t)
	many := strings.Repeat("{},", 4<<20) // as Key 1.4 GiB, as KeyResult 0.5 GiB
	h := w.header()
	n := allocated(func() {
		_, err := decodeContent(h, []byte(`{"keys":[`+many+`{}]}`))
		wantKind(t, err, ErrTooLarge)
	})
	if n > 64<<20 {
		t.Errorf("a content took %d bytes", n)
	}
	for name, node := range map[string]string{"by a stranger": "node9", "by the source": "node1"} {
		payload := `{"cluster":"c1","node":"` + node + `","keys":[` + many + `{}]}`
		p, value := signAnything(t, w.source, protectedHeader(typeReceipt, result(Thumbprint(&w.source.PublicKey))(t)), payload)
		jws := p + "." + encodeBase64([]byte(payload)) + "." + value
		n := allocated(func() {
			_, err := VerifyReceipt(jws, w.trust)
			wantKind(t, err, map[string]Kind{"node9": ErrUntrusted, "node1": ErrTooLarge}[node])
		})
		if n > 200<<20 {
			t.Errorf("a receipt %s took %d bytes", name, n)
		}
	}
	dots := strings.Repeat(".", MaxReceipt)
	n = allocated(func() {
		_, err := VerifyReceipt(dots, w.trust)
		wantKind(t, err, ErrMalformed)
	})
	if n > 1<<20 {
		t.Errorf("dots took %d bytes", n)
	}
}
