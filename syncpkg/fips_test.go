package syncpkg

import (
	"crypto/fips140"
	"os"
	"os/exec"
	"testing"
)

// TestFIPS runs the round trip, the statements and the vectors again with nothing but FIPS 140-3 approved algorithms.
// With fips140=only, others fail.
func TestFIPS(t *testing.T) {
	if fips140.Enabled() {
		t.Skip("this is the second run")
	}
	for _, mode := range []string{"on", "only"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^(TestRoundTrip|TestReceiverKeys|TestReceipt|TestVectors)$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140="+mode)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("fips140=%s: %v\n%s", mode, err, out)
		}
	}
}
