package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// SignatureHeader carries a webhook's signature: a detached JWS (RFC 7515, appendix F) by the node's
// identity key over the body, byte by byte.
const SignatureHeader = "Keyferry-Signature"

// A webhookCall is the body of a webhook.
type webhookCall struct {
	Event       string    `json:"event"` // always "application.restart" so far
	ID          string    `json:"id"`    // of this call: whoever has seen it need not do it again
	Time        time.Time `json:"time"`
	Cluster     string    `json:"cluster"`
	Node        string    `json:"node"`
	Application string    `json:"application"`
	Slots       []string  `json:"slots"`
	Reason      string    `json:"reason"`
}

// callWebhook asks another program to restart an application.
func (a *Apps) callWebhook(ctx context.Context, app cluster.App, reason string) error {
	name := app.Restart.Target
	i := slices.IndexFunc(a.m.node.cfg.Webhooks, func(w WebhookConfig) bool { return w.Name == name })
	if i < 0 {
		return fmt.Errorf("the configuration of node %s names no [[webhook]] %q", a.m.Name(), name)
	}
	cfg := a.m.node.cfg.Webhooks[i]
	client, err := outward(cfg.CAFile)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", name, err)
	}
	body, err := json.Marshal(webhookCall{Event: "application.restart", ID: cluster.NewID(), Time: time.Now().UTC().Truncate(time.Second),
		Cluster: a.m.State().Cluster.ID, Node: a.m.Name(), Application: app.Name, Slots: app.Slots, Reason: reason})
	if err != nil {
		return err
	}
	pik, err := a.m.Identity.signer()
	if err != nil {
		return fmt.Errorf("webhook %s: it cannot be signed: %w", name, err)
	}
	signature, err := syncpkg.SignWebhook(body, pik)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", name, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(SignatureHeader, signature)
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", name, err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("webhook %s answered %s", name, resp.Status)
	}
	return nil
}
