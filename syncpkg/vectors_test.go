package syncpkg

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"
	"time"
)

var update = flag.Bool("update", false, "make testdata/syncpkg anew")

// packageVector is a line of packages.json.
type packageVector struct {
	File     string    `json:"file"`     // beside it
	Receiver string    `json:"receiver"` // who opens it, with the key of that name in keys.json
	Now      time.Time `json:"now"`
	Want     string    `json:"want"` // "ok" or the text of the Kind
}

// statementVector is a line of statements.json.
type statementVector struct {
	Name string    `json:"name"`
	Kind string    `json:"kind"` // "receiver keys" or "receipt"
	JWS  string    `json:"jws"`
	Now  time.Time `json:"now"`
	Want string    `json:"want"`
}

// schemeVector is a line of scheme.json: one receiver's way from the agreement to the wrapped package key.
type schemeVector struct {
	ID        string `json:"id"`
	Cluster   string `json:"cluster"`
	Source    string `json:"source"`
	Slot      string `json:"slot"`
	Receiver  string `json:"receiver"`
	Transport string `json:"transport"` // the receiver's public point; its private key is in keys.json
	Ephemeral string `json:"ephemeral"` // the source's public point; its private key is in keys.json
	Context   string `json:"context"`   // Header.Context
	KEK       string `json:"kek"`       // what the KDF gives
	Wrapped   string `json:"wrapped"`   // packageKey of keys.json under kek
	SealInfo  string `json:"sealInfo"`  // the HPKE info
	BodyData  string `json:"bodyData"`  // the additional data of the body's AES-GCM
}

func readTable[T any](t testing.TB, name string) []T {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, name))
	must(t, err)
	var table []T
	must(t, decodeJSON(data, &table, "  "))
	if len(table) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return table
}

// checkWant compares the outcome of a vector.
func checkWant(t *testing.T, err error, want string) {
	t.Helper()
	if want == "ok" {
		must(t, err)
		return
	}
	for k := range kindNames {
		if kindNames[k] == want && k > 0 {
			wantKind(t, err, Kind(k))
			return
		}
	}
	t.Fatalf("%q is not a kind", want)
}

func TestVectors(t *testing.T) {
	if *update {
		updateVectors(t)
	}
	w := newWorld(t)
	named := map[string]bool{".gitattributes": true, "keys.json": true, "packages.json": true, "statements.json": true, "scheme.json": true}
	for _, v := range readTable[packageVector](t, "packages.json") {
		named[v.File] = true
		t.Run(v.File+"/"+v.Receiver, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(vectorDir, v.File))
			must(t, err)
			o := w.opener(v.Receiver)
			o.Now = v.Now
			_, err = Open(bytes.NewReader(data), o)
			checkWant(t, err, v.Want)
		})
	}
	entries, err := os.ReadDir(vectorDir)
	must(t, err)
	for _, e := range entries {
		if !named[e.Name()] {
			t.Errorf("%s is in no table", e.Name())
		}
	}
	for _, v := range readTable[statementVector](t, "statements.json") {
		t.Run(v.Name, func(t *testing.T) {
			err := verifyAny(v.Kind, v.JWS, w, v.Now)
			checkWant(t, err, v.Want)
		})
	}
	for _, v := range readTable[schemeVector](t, "scheme.json") {
		t.Run("scheme/"+v.Receiver, func(t *testing.T) {
			h := Header{ID: v.ID, Cluster: v.Cluster, Source: v.Source, Slot: v.Slot}
			if got := w.scheme(t, h, v.Receiver); got != v {
				t.Errorf("got  %+v\nwant %+v", got, v)
			}
		})
	}
}

func verifyAny(kind, jws string, w *world, now time.Time) (err error) {
	switch kind {
	case "receiver keys":
		_, err = VerifyReceiverKeys(jws, w.trust, now)
	case "receipt":
		_, err = VerifyReceipt(jws, w.trust)
	default:
		panic(kind)
	}
	return err
}

// scheme computes the vector of a receiver, and checks that both sides agree.
func (w *world) scheme(t testing.TB, h Header, receiver string) schemeVector {
	t.Helper()
	transport, ephemeral := w.transport[receiver].PublicKey().Bytes(), w.ephemeral.PublicKey().Bytes()
	context := h.Context(receiver, transport, ephemeral)
	kek := kdf(t, w.ephemeral, transport, context)
	if !bytes.Equal(kek, kdf(t, w.transport[receiver], ephemeral, context)) {
		t.Error("source and receiver derive different keys")
	}
	return schemeVector{
		ID: h.ID, Cluster: h.Cluster, Source: h.Source, Slot: h.Slot, Receiver: receiver,
		Transport: hex.EncodeToString(transport), Ephemeral: hex.EncodeToString(ephemeral),
		Context: hex.EncodeToString(context[:]), KEK: hex.EncodeToString(kek),
		Wrapped:  hex.EncodeToString(wrapKWP(t, kek, w.packageKey)),
		SealInfo: hex.EncodeToString(h.sealInfo(receiver)), BodyData: hex.EncodeToString(h.bodyData()),
	}
}

// updateVectors makes the whole folder anew. The randomness is seeded, so that a second run changes nothing.
func updateVectors(t *testing.T) {
	cryptotest.SetGlobalRandom(t, 1)
	must(t, os.RemoveAll(vectorDir))
	must(t, os.MkdirAll(vectorDir, 0o755))
	write := func(name string, data []byte) {
		must(t, os.WriteFile(filepath.Join(vectorDir, name), data, 0o644))
	}
	table := func(name string, v any) { write(name, result(encodeJSON(v, "  "))(t)) }
	write(".gitattributes", []byte("*.package -text\n")) // their line ends count
	table("keys.json", makeWorldFile(t))
	w := newWorld(t)

	var packages []packageVector
	for _, m := range w.madePackages(t) {
		if m.data != nil {
			write(m.File, m.data)
		}
		packages = append(packages, m.packageVector)
	}
	table("packages.json", packages)
	table("statements.json", w.madeStatements(t))
	table("scheme.json", []schemeVector{w.scheme(t, w.header(), "node2"), w.scheme(t, w.header(), "node3")})
}
