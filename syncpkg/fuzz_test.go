package syncpkg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// packageSeeds returns the packages of the vectors.
func packageSeeds(f *testing.F) [][]byte {
	f.Helper()
	files, err := filepath.Glob(filepath.Join(vectorDir, "*.package"))
	must(f, err)
	var seeds [][]byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(f, err)
		seeds = append(seeds, data)
	}
	if len(seeds) == 0 {
		f.Fatal("there are no seeds in " + vectorDir)
	}
	return seeds
}

// statementSeeds returns the statements of one kind, and how many of them are good.
func statementSeeds(f *testing.F, kind string) (seeds []string, good map[string]bool) {
	f.Helper()
	good = map[string]bool{}
	for _, v := range readTable[statementVector](f, "statements.json") {
		if v.Kind != kind {
			continue
		}
		if len(v.JWS) < MaxReceiverKeys {
			seeds = append(seeds, v.JWS)
		}
		good[v.JWS] = v.Want == "ok"
	}
	if len(seeds) == 0 {
		f.Fatal("there are no seeds of the kind " + kind)
	}
	return seeds, good
}

// FuzzOpen: nothing opens but what the source signed.
func FuzzOpen(f *testing.F) {
	w := newWorld(f)
	good := map[string]bool{}
	for _, v := range readTable[packageVector](f, "packages.json") {
		if v.Want == "ok" {
			data, err := os.ReadFile(filepath.Join(vectorDir, v.File))
			must(f, err)
			good[string(data)] = true
		}
	}
	for _, seed := range packageSeeds(f) {
		f.Add(seed)
	}
	o := w.opener("node3")
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Open(bytes.NewReader(data), o)
		if (err == nil) != (p != nil) {
			t.Fatalf("both or neither of package and error: %v", err)
		}
		if err == nil && !good[string(data)] {
			t.Fatal("a package opens that was not signed")
		}
		head, err := Check(bytes.NewReader(data), testNow, w.trust)
		if p != nil && (err != nil || head.Digest() != p.Head.Digest()) {
			t.Fatalf("it opens, and Check says %v", err)
		}
	})
}

// FuzzReadHead: a head that is read has one form, and Raw is what was read.
func FuzzReadHead(f *testing.F) {
	for _, seed := range packageSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		head, err := ReadHead(r)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, head.Raw) || len(head.Raw) > MaxHead {
			t.Fatalf("Raw is not the beginning of the data, or has %d bytes", len(head.Raw))
		}
		if r.Buffered() != min(4096, len(data))-len(head.Raw) && len(data) <= 4096 {
			t.Fatal("the reader does not stand at the body")
		}
		s := head.signature
		again := magic + "1\n" + string(result(encodeJSON(head.Header, "  "))(t)) +
			encodeBase64([]byte(protectedHeader(typePackage, head.KeyID))) + ".." + encodeBase64(s.value) + "\n\n"
		if again != string(head.Raw) {
			t.Fatalf("a second form of the head\n%s\n%s", head.Raw, again)
		}
	})
}

// FuzzContent: a content that is accepted has one form and keeps the rules.
func FuzzContent(f *testing.F) {
	w := newWorld(f)
	h := w.header()
	h.Receivers = []string{"node2", "node3"}
	seeds := 0
	for _, v := range w.madePackages(f) {
		head, err := ReadHead(bufio.NewReader(bytes.NewReader(v.data)))
		if err != nil || head.Header.Body.Size > int64(len(v.data)) {
			continue
		}
		if plaintext, err := openBody(head.Header, v.data[len(head.Raw):], w.opener("node3")); err == nil {
			f.Add(bytes.Clone(plaintext))
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatal("there are no seeds")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var form Content
		if json.Unmarshal(data, &form) == nil {
			h.Keys = len(form.Keys) // or no change of it could pass
			h.Receivers = nil
			for _, k := range form.PackageKeys {
				h.Receivers = append(h.Receivers, k.Receiver)
			}
		}
		c, err := decodeContent(h, data)
		if err != nil {
			return
		}
		if again := result(encodeJSON(c, ""))(t); !bytes.Equal(again, data) {
			t.Fatalf("a second form of the content\n%s\n%s", data, again)
		}
		for _, k := range c.Keys {
			if checkHex(k.Fingerprint(), 32) != nil || k.Class == ClassPrivate && len(k.Public) == 0 {
				t.Fatalf("a key that breaks the rules: %+v", k)
			}
		}
	})
}

// fuzzStatement fuzzes the outside of a statement, and its payload as if it were signed.
func fuzzStatement[S any, P interface {
	*S
	statement
}](f *testing.F, kind string) {
	w := newWorld(f)
	seeds, good := statementSeeds(f, kind)
	for _, seed := range seeds {
		var payload []byte
		if _, encoded, _, err := splitCompact(seed); err == nil {
			payload, _ = decodeBase64(encoded)
		}
		f.Add(seed, payload)
	}
	f.Fuzz(func(t *testing.T, jws string, payload []byte) {
		if err := verifyAny(kind, jws, w, testNow); err == nil && !good[jws] {
			t.Fatal("a statement verifies that was not signed")
		}
		s := P(new(S))
		if decodeJSON(payload, s, "") != nil || s.validate() != nil {
			return
		}
		if again := result(encodeJSON(s, ""))(t); !bytes.Equal(again, payload) {
			t.Fatalf("a second form of the statement\n%s\n%s", payload, again)
		}
	})
}

func FuzzReceiverKeys(f *testing.F) { fuzzStatement[ReceiverKeys](f, "receiver keys") }
func FuzzReceipt(f *testing.F)      { fuzzStatement[Receipt](f, "receipt") }
