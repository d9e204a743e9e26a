package webconf

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A socket speaks to the API as the command line does: over a Unix socket.
type socket struct {
	t      testing.TB
	client *http.Client
}

func newSocket(t testing.TB, web *Server) *socket {
	t.Helper()
	return newSocketFor(t, web.API())
}

func newSocketFor(t testing.TB, api http.Handler) *socket {
	t.Helper()
	dir, err := os.MkdirTemp("", "kf") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: api, ConnContext: ConnContext, ReadHeaderTimeout: time.Minute}
	go server.Serve(ln)
	t.Cleanup(func() { server.Close() })
	return &socket{t, &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}}
}

// send sends a body of a type; an empty type means that there is no body.
func (s *socket) send(method, path, kind string, body io.Reader) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://keyferry/api/v1"+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(all)}
}

// ask sends v as JSON, unless it is nil, and reads the answer into out.
func (s *socket) ask(method, path string, v any, status int, out any) {
	s.t.Helper()
	var body io.Reader
	kind := ""
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			s.t.Fatal(err)
		}
		body, kind = bytes.NewReader(b), "application/json"
	}
	r := s.send(method, path, kind, body)
	if r.status != status {
		s.t.Fatalf("%s %s: %d %s", method, path, r.status, r.body)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(r.body), out); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, r.body)
	}
}

// refused wants an error with a code, and with text that says more than the code.
func (s *socket) refused(r reply, status int, code string) string {
	s.t.Helper()
	var e struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.status != status || e.Error.Code != code || len(e.Error.Message) < 10 {
		s.t.Errorf("want %d %s: got %d %s", status, code, r.status, r.body)
	}
	return e.Error.Message
}
