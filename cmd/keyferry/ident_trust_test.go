package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// serveSocket serves the API on a Unix socket until it is ended.
func serveSocket(t *testing.T, h http.Handler) (socket string, end func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "k.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go s.Serve(ln)
	end = sync.OnceFunc(func() { s.Close() })
	t.Cleanup(end)
	return socket, end
}

// trusting runs "ident trust all all" and checks that what it says of each edge fits its exit status.
func trusting(t *testing.T, socket string) []edge {
	t.Helper()
	out, err := commandLine(socket, "", "ident", "trust", "all", "all", "-o", "json")
	var edges []edge
	if err := json.Unmarshal([]byte(out), &edges); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	failed := 0
	for _, e := range edges {
		if (e.Done == "") == (e.Problem == "") {
			t.Errorf("%+v is neither done nor failed, or both", e)
		}
		if e.Problem != "" {
			failed++
		}
	}
	if says := fmt.Sprintf("%d of 6 failed", failed); len(edges) != 6 || (failed == 0) != (err == nil) || err != nil && (exitStatus(err) == 0 || !strings.Contains(err.Error(), says)) {
		t.Errorf("%d edges, %d failed: %v", len(edges), failed, err)
	}
	return edges
}

// TestTrustIsCutOff: what becomes of a list of edges when something dies between two of them.
func TestTrustIsCutOff(t *testing.T) {
	const remedy = "not done: no leader answers"
	var end func()
	for _, c := range []struct {
		what    string
		second  func(w http.ResponseWriter) // the answer to the second edge
		problem string                      // of it
		failed  int
	}{
		{"the cluster refuses one", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
			json.NewEncoder(w).Encode(map[string]any{"error": apiError{"no_leader", remedy}})
		}, remedy, 1},
		{"the daemon breaks off one", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, "EOF", 1},
		{"the daemon dies", func(http.ResponseWriter) { end() }, "the daemon on", 5},
	} {
		t.Run(c.what, func(t *testing.T) {
			var mu sync.Mutex
			var put []string
			mux := http.NewServeMux()
			mux.HandleFunc("GET /api/v1/identity", func(w http.ResponseWriter, _ *http.Request) {
				json.NewEncoder(w).Encode(node.Identities{Nodes: []node.NodeIdentity{{Node: "a", Serial: "1"}, {Node: "b", Serial: "2"}, {Node: "c", Serial: "3"}}})
			})
			mux.HandleFunc("PUT /api/v1/identity/trust/{trusting}/{trusted}", func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				pair := r.PathValue("trusting") + r.PathValue("trusted")
				if pair == "ac" { // also when the client asks again
					c.second(w)
					return
				}
				put = append(put, pair)
				w.WriteHeader(http.StatusNoContent)
			})
			var socket string
			socket, end = serveSocket(t, mux)
			edges := trusting(t, socket)
			if !strings.Contains(edges[1].Problem, c.problem) || len(put) != 6-c.failed || edges[0].Problem != "" {
				t.Errorf("%d of 6 were done: %v; %+v", len(put), put, edges)
			}
		})
	}
}

// trustWhileOneDies kills a daemon of the demo between two edges. The trust is the cluster's, so the others go on.
func trustWhileOneDies(t *testing.T, d *testDemo) {
	kill := sync.OnceFunc(func() {
		syscall.Kill(d.Nodes[1].PID, syscall.SIGKILL)
		waitGone(t, d.Nodes[1].PID)
	})
	puts := 0
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "keyferry" },
		Transport: newClient(d.Nodes[0].Socket).http.Transport,
	}
	socket, _ := serveSocket(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			if puts++; puts == 3 {
				kill()
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	for _, e := range trusting(t, socket) { // the one under way is not known where the leader dies with it
		if e.Problem != "" && !strings.Contains(e.Problem, "look before you repeat it") {
			t.Errorf("%+v", e)
		}
	}
	for _, e := range trusting(t, d.Nodes[0].Socket) {
		if e.Problem != "" {
			t.Errorf("again: %+v", e)
		}
	}
	var l identListing
	if err := json.Unmarshal([]byte(d.must(t, 0, "", "ident", "list", "-o", "json")), &l); err != nil {
		t.Fatal(err)
	}
	for _, v := range l.Devices {
		if len(v.Trusts) != 2 || v.PIC.State != identity.Valid {
			t.Errorf("%+v", v)
		}
	}
}
