package cluster

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A follower tells apart what surely was not done, what may be done, and what was answered.
func TestForwardOverLink(t *testing.T) {
	f := newFabric(t)
	var answer string
	status := http.StatusOK
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != ForwardPath || PeerOf(r) != "node1" {
			t.Errorf("%s %s from %q", r.Method, r.URL, PeerOf(r))
		}
		if strings.HasPrefix(answer, "break") {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	})
	f.serve("node2", f.identity("node2").newLeaf(t, "node2", nil), handler, nil)
	node1 := f.link("node1", f.identity("node1").newLeaf(t, "node1", nil))
	for _, c := range []struct {
		name, node, answer string
		status             int
		want               Code // of Forward itself
		index              uint64
	}{
		{"done", "node2", `{"index":7}`, 200, 0, 7},
		{"refused", "node2", `{"index":7,"error":{"code":4,"message":"x"}}`, 200, 0, 7},
		{"of a newer version", "node2", `{"index":7,"term":3}`, 200, 0, 7},
		{"no such node", "node9", ``, 200, NoLeader, 0},
		{"no answer", "node2", `break`, 200, Uncertain, 0},
		{"no JSON", "node2", `hello`, 200, Uncertain, 0},
		{"endless", "node2", `{"index":7,"x":"` + strings.Repeat("x", maxAnswer) + `"}`, 200, Uncertain, 0},
		{"not admitted", "node2", ``, 403, Denied, 0},
		{"not found", "node2", ``, 404, Internal, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, status = c.answer, c.status
			got, err := node1.Forward(t.Context(), c.node, Request{Kind: "x"})
			if c.want != 0 {
				wantCode(t, err, c.want)
			} else if err != nil || got.Index != c.index {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// The leader's side refuses what is not a request, before it reaches Raft.
func TestServeForward(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.grow(1)
		handler := w.nodes["node1"].Handler()
		before := len(w.nodes["node1"].State().Audit) // not the index: Raft has entries of its own
		for _, c := range []struct {
			name, method, body string
			status             int
			code               Code // in the answer
		}{
			{"get", http.MethodGet, ``, http.StatusMethodNotAllowed, 0},
			{"no JSON", http.MethodPost, `hello`, http.StatusOK, Invalid},
			{"unknown field", http.MethodPost, `{"kind":"app.remove","node":"node2"}`, http.StatusOK, Invalid},
			{"two values", http.MethodPost, `{} {}`, http.StatusOK, Invalid},
			{"too large", http.MethodPost, strings.Repeat(" ", maxForward+1), http.StatusBadRequest, 0},
			{"from nobody", http.MethodPost, `{"kind":"app.remove","actor":{"kind":"console","name":"root"},"data":{"name":"x"}}`, http.StatusOK, Denied},
		} {
			response := httptest.NewRecorder()
			handler.ServeHTTP(response, httptest.NewRequestWithContext(w.t.Context(), c.method, ForwardPath, strings.NewReader(c.body)))
			if response.Code != c.status {
				t.Errorf("%s: status %d", c.name, response.Code)
			}
			if c.code == 0 {
				continue
			}
			var answer Answer
			if err := json.Unmarshal(response.Body.Bytes(), &answer); err != nil || answer.Error == nil || answer.Error.Code != c.code {
				t.Errorf("%s: %s, %v", c.name, response.Body, err)
			}
		}
		if s := w.nodes["node1"].State(); len(s.Audit) != before+1 || s.Audit[before].Result != Refused {
			t.Errorf("the audit trail went from %d to %d entries", before, len(s.Audit))
		}
	})
}
