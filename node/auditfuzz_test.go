package node

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is in a file, the verdict comes, is of bounded size, and calls nothing whole that has no end.
func FuzzVerifyAudit(f *testing.F) {
	files, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(files) == 0 {
		f.Fatalf("the seed corpus is empty: %v", err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := VerifyAudit(bytes.NewReader(b), nil)
		if err != nil {
			t.Fatalf("reading from memory fails: %v", err)
		}
		if v.Anchored || len(v.Findings) > maxFindings || v.More > 0 && len(v.Findings) < maxFindings {
			t.Errorf("verdict %+v", v)
		}
		if !v.Intact() {
			return
		}
		lines := strings.SplitAfter(string(b), "\n")
		if v.Exporter == "" || !strings.HasPrefix(string(b), `{"header":{"format":"`+auditFileFormat+`"`) || !strings.HasPrefix(lines[len(lines)-2], `{"end":"`) || lines[len(lines)-1] != "" {
			t.Errorf("this counts as whole: %q", b)
		}
		for i := range lines[:len(lines)-1] { // and nothing of it can be left out
			less := strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "")
			if v, err := VerifyAudit(strings.NewReader(less), nil); err != nil || v.Intact() {
				t.Errorf("without line %d it counts as whole, too: %v", i+1, err)
			}
		}
	})
}
