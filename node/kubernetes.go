package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
)

// rolloutPoll is how often the state of a rollout is looked at.
const rolloutPoll = time.Second

// maxAnswer bounds what is read of an answer of another program's server.
const maxAnswer = 4 << 20

// A workload is what is restarted in Kubernetes, found by "cluster:namespace/kind/name".
type workload struct {
	client *http.Client
	url    string
	token  string
	kind   string
}

// rollOut has Kubernetes start the pods of a workload anew, as "kubectl rollout restart" does, and waits
// until they are ready.
func (a *Apps) rollOut(ctx context.Context, target string) error {
	w, err := a.workload(target)
	if err != nil {
		return err
	}
	if err := w.restart(ctx, time.Now()); err != nil {
		return fmt.Errorf("Kubernetes did not restart %s: %w", target, err)
	}
	for {
		r, err := w.look(ctx)
		if err != nil {
			return fmt.Errorf("Kubernetes does not tell how the rollout of %s goes: %w", target, err)
		}
		done, why := r.done(w.kind)
		if done {
			return nil
		}
		if r.stuck() {
			return fmt.Errorf("the rollout of %s does not get on: %s", target, why)
		}
		select {
		case <-time.After(rolloutPoll):
		case <-ctx.Done():
			return fmt.Errorf("the rollout of %s was begun and has not ended in time: %s", target, why)
		}
	}
}

func (a *Apps) workload(target string) (*workload, error) {
	name, rest, _ := strings.Cut(target, ":")
	parts := strings.Split(rest, "/")
	i := slices.IndexFunc(a.m.node.cfg.Kubernetes, func(k KubernetesConfig) bool { return k.Name == name })
	if i < 0 || len(parts) != 3 {
		return nil, fmt.Errorf("the configuration of node %s names no [[kubernetes]] %q", a.m.Name(), name)
	}
	cfg := a.m.node.cfg.Kubernetes[i]
	token, err := os.ReadFile(cfg.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("the token for Kubernetes %s: %w", name, err)
	}
	client, err := outward(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	path := "/apis/apps/v1/namespaces/" + url.PathEscape(parts[0]) + "/" + parts[1] + "s/" + url.PathEscape(parts[2])
	return &workload{client: client, url: strings.TrimRight(cfg.Server, "/") + path, token: string(bytes.TrimSpace(token)), kind: parts[1]}, nil
}

// outward is a client for a server that the node's configuration names. It follows no redirect: that could
// lead to where root did not point it.
func outward(caFile string) (*http.Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", caFile)
		}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}, nil
}

// restart changes the annotation that kubectl changes. Its value is new, so the pods are too.
func (w *workload) restart(ctx context.Context, now time.Time) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, now.UTC().Format(time.RFC3339Nano))
	_, err := w.ask(ctx, http.MethodPatch, "application/strategic-merge-patch+json", patch)
	return err
}

func (w *workload) look(ctx context.Context) (*rollout, error) {
	b, err := w.ask(ctx, http.MethodGet, "", "")
	if err != nil {
		return nil, err
	}
	var r rollout
	return &r, json.Unmarshal(b, &r)
}

func (w *workload) ask(ctx context.Context, method, contentType, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Accept", "application/json")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var status struct{ Message string } // meta/v1 Status
		if json.Unmarshal(b, &status) == nil && status.Message != "" {
			return nil, fmt.Errorf("%s: %s", resp.Status, status.Message)
		}
		return nil, errors.New(resp.Status)
	}
	return b, nil
}

// rollout is what a Deployment, StatefulSet or DaemonSet tells of its pods (Kubernetes API apps/v1).
type rollout struct {
	Metadata struct {
		Generation int64 `json:"generation"`
	} `json:"metadata"`
	Spec struct {
		Replicas       *int `json:"replicas"`
		UpdateStrategy struct {
			Type string `json:"type"`
		} `json:"updateStrategy"`
	} `json:"spec"`
	Status struct {
		ObservedGeneration int64  `json:"observedGeneration"`
		Replicas           int    `json:"replicas"`
		UpdatedReplicas    int    `json:"updatedReplicas"`
		AvailableReplicas  int    `json:"availableReplicas"`
		ReadyReplicas      int    `json:"readyReplicas"`
		CurrentRevision    string `json:"currentRevision"`
		UpdateRevision     string `json:"updateRevision"`
		Desired            int    `json:"desiredNumberScheduled"`
		Updated            int    `json:"updatedNumberScheduled"`
		Available          int    `json:"numberAvailable"`
		Conditions         []struct {
			Type    string `json:"type"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

// done tells whether all pods are new and ready, by the rules of "kubectl rollout status", or what lacks.
func (r *rollout) done(kind string) (bool, string) {
	s := &r.Status
	if s.ObservedGeneration < r.Metadata.Generation {
		return false, "Kubernetes has not begun with it"
	}
	want := 1
	if r.Spec.Replicas != nil {
		want = *r.Spec.Replicas
	}
	updated, ready := s.UpdatedReplicas, s.AvailableReplicas
	old := s.Replicas > s.UpdatedReplicas
	switch kind {
	case "statefulset":
		ready = s.ReadyReplicas
		old = s.CurrentRevision != s.UpdateRevision
	case "daemonset":
		want, updated, ready, old = s.Desired, s.Updated, s.Available, false
	}
	if r.Spec.UpdateStrategy.Type == "OnDelete" {
		return false, "its update strategy is OnDelete, so Kubernetes waits until somebody deletes the old pods"
	}
	if updated < want || ready < want {
		return false, fmt.Sprintf("of %d pods, %d are new and %d ready", want, updated, ready)
	}
	return !old, "old pods have not ended"
}

// stuck tells whether Kubernetes itself has given up.
func (r *rollout) stuck() bool {
	for _, c := range r.Status.Conditions {
		if c.Type == "Progressing" && c.Reason == "ProgressDeadlineExceeded" {
			return r.Status.ObservedGeneration >= r.Metadata.Generation
		}
	}
	return r.Spec.UpdateStrategy.Type == "OnDelete"
}
