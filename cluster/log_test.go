package cluster

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// What Raft logs arrives in slog, with its level and its values.
func TestRaftLogger(t *testing.T) {
	var out bytes.Buffer
	log := raftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.With("id", 7).Named("net").Warn("failed to contact", "server-id", "node2", "servers", hclog.Fmt("%+v", []int{1, 2}))
	log.Debug("not at this level")
	for _, want := range []string{"level=WARN", `msg="failed to contact"`, "part=raft.net", "id=7", "server-id=node2", `servers="[1 2]"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s is not in %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "not at this level") {
		t.Error("a message below the level is there")
	}
}
