package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClockLimit: a mistyped limit is found at once, not when a node joins.
func TestClockLimit(t *testing.T) {
	const rest = `name = "node1"
data_dir = "/var/lib/keyferry"
[peer]
listen = "127.0.0.1:7443"
address = "127.0.0.1:7443"
[webconf]
listen = "127.0.0.1:8443"
url = "https://127.0.0.1:8443"
[[module]]
name = "softhsm"
path = "/usr/lib/softhsm/libsofthsm2.so"
`
	for text, want := range map[string]time.Duration{"": 0, `"1s"`: time.Second, `"2m30s"`: 150 * time.Second, `"5m"`: 5 * time.Minute, `"5m1s"`: -1, `"0s"`: -1, `"-30s"`: -1, `"30"`: -1, `"soon"`: -1, `30`: -1} {
		file := rest
		if text != "" {
			file = "clock_limit = " + text + "\n" + rest
		}
		path := filepath.Join(t.TempDir(), "keyferry.toml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readConfig(path)
		if want < 0 {
			if err == nil || !strings.Contains(err.Error(), "clock_limit") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil || c.node().ClockLimit != want {
			t.Errorf("%s: %v, %v", text, c.node().ClockLimit, err)
		}
	}
}
