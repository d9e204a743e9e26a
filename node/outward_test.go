package node

import (
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm/hsmtest"
)

// caFile writes the certificate by which a test server is verified.
func caFile(t testing.TB, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A kubeAPI answers like the API of Kubernetes for what a rollout asks. Each look at the workload sees the
// next of its states; the last one stays.
type kubeAPI struct {
	mu     sync.Mutex
	states []string
	patch  string
	seen   []string
}

func (k *kubeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, r.Method+" "+r.URL.Path)
	say := func(code int, text string) {
		w.WriteHeader(code)
		io.WriteString(w, text)
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer token-1":
		say(http.StatusUnauthorized, `{"kind":"Status","message":"Unauthorized"}`)
	case strings.Contains(r.URL.Path, "/secret-"):
		say(http.StatusForbidden, `{"kind":"Status","message":"deployments.apps \"secret-x\" is forbidden"}`)
	case strings.Contains(r.URL.Path, "/elsewhere"):
		http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusTemporaryRedirect)
	case !strings.HasSuffix(r.URL.Path, "/ejbca"):
		say(http.StatusNotFound, `{"kind":"Status","message":"not found"}`)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/strategic-merge-patch+json":
		b, _ := io.ReadAll(r.Body)
		k.patch = string(b)
		io.WriteString(w, `{}`)
	case r.Method == http.MethodGet:
		io.WriteString(w, k.states[0])
		if len(k.states) > 1 {
			k.states = k.states[1:]
		}
	default:
		say(http.StatusBadRequest, `{}`)
	}
}

func rolloutState(generation int, spec, status string) string {
	return fmt.Sprintf(`{"metadata":{"generation":2},"spec":{%s},"status":{"observedGeneration":%d,%s}}`, spec, generation, status)
}

func TestRollOut(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": "token-1\n", "expired": "token-0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	three, ready := `"replicas":3`, `"replicas":3,"updatedReplicas":3,"availableReplicas":3`
	for _, c := range []struct {
		what, target string
		states       []string
		says         string
	}{
		{"a deployment", "prod:pki/deployment/ejbca", []string{rolloutState(1, three, ready), rolloutState(2, three, `"replicas":4,"updatedReplicas":2,"availableReplicas":3`), rolloutState(2, three, ready)}, ""},
		{"old pods stay", "prod:pki/deployment/ejbca", []string{rolloutState(2, three, `"replicas":4,"updatedReplicas":3,"availableReplicas":3`)}, "old pods have not ended"},
		{"not ready", "prod:pki/deployment/ejbca", []string{rolloutState(2, three, `"replicas":3,"updatedReplicas":3,"availableReplicas":1`)}, "of 3 pods, 3 are new and 1 ready"},
		{"given up", "prod:pki/deployment/ejbca", []string{rolloutState(2, three, `"conditions":[{"type":"Progressing","reason":"ProgressDeadlineExceeded"}]`)}, "does not get on"},
		{"one replica by default", "prod:pki/deployment/ejbca", []string{rolloutState(2, "", `"replicas":1,"updatedReplicas":1,"availableReplicas":1`)}, ""},
		{"none at all", "prod:pki/deployment/ejbca", []string{rolloutState(2, `"replicas":0`, `"replicas":0`)}, ""},
		{"a stateful set", "prod:pki/statefulset/ejbca", []string{rolloutState(2, three, `"updatedReplicas":3,"readyReplicas":3,"currentRevision":"b","updateRevision":"b"`)}, ""},
		{"an old revision", "prod:pki/statefulset/ejbca", []string{rolloutState(2, three, `"updatedReplicas":3,"readyReplicas":3,"currentRevision":"a","updateRevision":"b"`)}, "old pods"},
		{"on delete", "prod:pki/statefulset/ejbca", []string{rolloutState(2, `"replicas":3,"updateStrategy":{"type":"OnDelete"}`, `"readyReplicas":3`)}, "OnDelete"},
		{"a daemon set", "prod:pki/daemonset/ejbca", []string{rolloutState(2, "", `"desiredNumberScheduled":2,"updatedNumberScheduled":2,"numberAvailable":2`)}, ""},
		{"part of a daemon set", "prod:pki/daemonset/ejbca", []string{rolloutState(2, "", `"desiredNumberScheduled":2,"updatedNumberScheduled":1,"numberAvailable":2`)}, "1 are new"},
		{"no such workload", "prod:pki/deployment/other", nil, "404 Not Found: not found"},
		{"not permitted", "prod:pki/deployment/secret-x", nil, "is forbidden"},
		{"redirected", "prod:pki/deployment/elsewhere", nil, "307"},
		{"old token", "expired:pki/deployment/ejbca", nil, "401 Unauthorized"},
		{"not the right server", "strange:pki/deployment/ejbca", nil, "certificate"},
		{"no such cluster", "test:pki/deployment/ejbca", nil, `names no [[kubernetes]] "test"`},
		{"not JSON", "prod:pki/deployment/ejbca", []string{"<html>"}, "invalid character"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel() // each waits for seconds
			api := &kubeAPI{states: c.states}
			server := httptest.NewTLSServer(api)
			defer server.Close()
			ca := caFile(t, server)
			a := &Apps{m: &Member{node: &Node{cfg: Config{Name: "node1", Kubernetes: []KubernetesConfig{
				{Name: "prod", Server: server.URL + "/", CAFile: ca, TokenFile: filepath.Join(dir, "token")},
				{Name: "expired", Server: server.URL, CAFile: ca, TokenFile: filepath.Join(dir, "expired")},
				{Name: "strange", Server: server.URL, TokenFile: filepath.Join(dir, "token")},
			}}}}}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := a.rollOut(ctx, c.target)
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "token-") {
				t.Error("the token is in the message")
			}
			if c.states != nil && !strings.Contains(api.patch, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"`) {
				t.Errorf("the patch is %s", api.patch)
			}
		})
	}
}

// TestWebhook has an application restarted by a webhook, and verifies its signature with jose.
func TestWebhook(t *testing.T) {
	jose := hsmtest.Tool(t, "jose")
	type request struct {
		body, signature string
	}
	got := make(chan request, 4)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ok", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{string(b), r.Header.Get(SignatureHeader)}
		w.WriteHeader(http.StatusAccepted)
	})
	mux.Handle("POST /moved", http.RedirectHandler("/ok", http.StatusTemporaryRedirect))
	server := httptest.NewTLSServer(mux)
	defer server.Close()
	ca := caFile(t, server)
	a := newAppNode(t, func(c *Config) {
		for _, name := range []string{"ok", "moved", "absent"} {
			c.Webhooks = append(c.Webhooks, WebhookConfig{Name: name, URL: server.URL + "/" + name, CAFile: ca})
		}
		c.Webhooks = append(c.Webhooks, WebhookConfig{Name: "strange", URL: server.URL + "/ok"})
	})
	restart := func(hook string) error {
		t.Helper()
		app := cluster.App{Name: "signer", Slots: []string{}, Nodes: []string{}, Restart: cluster.Restart{Kind: cluster.RestartWebhook, Target: hook}}
		if err := a.Apps.Put(t.Context(), console, app, nil); err != nil {
			t.Fatal(err)
		}
		_, err := a.Apps.Restart(t.Context(), console, "signer")
		return err
	}
	for hook, says := range map[string]string{"moved": "307", "absent": "404", "strange": "certificate", "unknown": "names no [[webhook]]"} {
		if err := restart(hook); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", hook, err)
		}
	}
	if err := restart("ok"); err != nil {
		t.Fatal(err)
	}
	r := <-got
	var call webhookCall
	if err := json.Unmarshal([]byte(r.body), &call); err != nil {
		t.Fatal(err)
	}
	if call.Event != "application.restart" || call.Node != "node1" || call.Application != "signer" || call.Cluster != a.State().Cluster.ID || call.ID == "" || call.Reason != "asked for by console/root" {
		t.Errorf("the body is %s", r.body)
	}
	// As the guide says: the payload goes between the dots.
	protected, value, ok := strings.Cut(r.signature, "..")
	if !ok {
		t.Fatalf("the signature is %q", r.signature)
	}
	if err := joseVerify(t, jose, a.Member, protected+"."+base64.RawURLEncoding.EncodeToString([]byte(r.body))+"."+value); err != nil {
		t.Error(err)
	}
	other := strings.Replace(r.body, "signer", "singer", 1)
	if err := joseVerify(t, jose, a.Member, protected+"."+base64.RawURLEncoding.EncodeToString([]byte(other))+"."+value); err == nil {
		t.Error("a changed body was verified")
	}
}

// joseVerify verifies a JWS with Debian's jose and the node's identity key.
func joseVerify(t testing.TB, tool string, m *Member, jws string) error {
	t.Helper()
	pik, err := m.Identity.signer()
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := (&jose.JSONWebKey{Key: pik.Public().(*ecdsa.PublicKey), Algorithm: string(jose.ES512)}).MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key.jwk"), filepath.Join(dir, "webhook.jws")
	if err := os.WriteFile(key, jwk, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(jws), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "jws", "ver", "-i", file, "-k", key).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
