package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// needSeeds fails a fuzz target whose seeds have got lost: it would pass without having tested anything.
func needSeeds(f *testing.F) {
	f.Helper()
	files, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(files) == 0 {
		f.Fatalf("the seed corpus is empty: %v", err)
	}
}

// Whatever the log holds, it is refused or applied alike by everybody; it never breaks a replica.
func FuzzLogEntry(f *testing.F) {
	needSeeds(f)
	base := play(f, new(State), history()...)
	hash := base.Hash()
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil || check(e.Meta.Actor.validate(), e.command.validate()) != nil {
			return
		}
		again, err := encodeEntry(e.command, e.Meta)
		if err != nil {
			return // a time that JSON cannot carry, or too long by its escapes
		}
		same, err := decodeEntry(again)
		if err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v", err)
		}
		one, errOne := base.next(base.Index+1, e)
		hashOne := one.Hash() // before the next: both write the same place in the audit trail
		two, errTwo := base.next(base.Index+1, same)
		if (errOne == nil) != (errTwo == nil) || hashOne != two.Hash() {
			t.Errorf("the entry %s has two results: %v, %v", b, errOne, errTwo)
		}
		if base.Hash() != hash {
			t.Fatalf("the entry %s changed the state before it", b)
		}
		var snapshot bytes.Buffer
		if err := two.encode(&snapshot); err != nil {
			t.Fatal(err)
		}
		if restored, err := decodeState(&snapshot); err != nil || restored.Hash() != two.Hash() {
			t.Errorf("after the entry %s a snapshot cannot be restored: %v", b, err)
		}
	})
}

// What a snapshot restores is what it would save.
func FuzzSnapshot(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(bytes.NewReader(b))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := s.encode(&again); err != nil {
			t.Fatal(err)
		}
		same, err := decodeState(&again)
		if err != nil {
			t.Fatalf("what was restored cannot be restored again: %v", err)
		}
		if same.Hash() != s.Hash() {
			t.Error("what was restored is saved as something else")
		}
	})
}

// Every way to type a code comes to one form and one hash.
func FuzzNormalizeCode(f *testing.F) {
	needSeeds(f)
	f.Fuzz(func(t *testing.T, typed string) {
		code, err := NormalizeCode(typed)
		if err != nil {
			wantCode(t, err, Invalid)
			return
		}
		if again, err := NormalizeCode(code); err != nil || again != code {
			t.Errorf("%q becomes %q, that becomes %q, %v", typed, code, again, err)
		}
		hash, err := HashCode(typed)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := HashCode(code); err != nil || same != hash {
			t.Errorf("%q and %q have different hashes", typed, code)
		}
	})
}
