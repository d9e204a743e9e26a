package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

// A client speaks to a daemon over its Unix socket.
type client struct {
	socket string
	http   *http.Client
}

func (a *app) client() *client { return newClient(a.socket) }

func newClient(socket string) *client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := shortPath(socket)
		if err != nil {
			return nil, err
		}
		defer done()
		return (&net.Dialer{}).DialContext(ctx, "unix", short)
	}
	return &client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second}}}
}

// An apiError is a refusal of the daemon.
type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *apiError) Error() string { return e.Message }

// do sends v as JSON, if there is one, and reads the answer into out, if there is one.
func (c *client) do(ctx context.Context, method, path string, v, out any) error {
	var body io.Reader
	if v != nil {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		defer clear(b) // it may carry codes
		body = bytes.NewReader(b)
	}
	return c.send(ctx, method, path, "application/json", body, func(r io.Reader) error {
		if out == nil {
			return nil
		}
		return json.NewDecoder(r).Decode(out)
	})
}

// send sends a body as it is and gives the answer's body to read.
func (c *client) send(ctx context.Context, method, path, contentType string, body io.Reader, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://keyferry/api/v1"+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 {
		return read(resp.Body)
	}
	var refused struct{ Error *apiError }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&refused); err != nil || refused.Error == nil {
		return fmt.Errorf("the daemon answers %s", resp.Status)
	}
	return refused.Error
}

// unreachable says what to do when nobody answers on the socket.
func (c *client) unreachable(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no daemon answers on %s: is \"keyferry serve\" running on this node? (--socket names another one)", c.socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("you may not use the daemon's socket %s: be root, or in the group that it belongs to", c.socket)
	}
	return fmt.Errorf("the daemon on %s: %w", c.socket, err)
}

func get[T any](ctx context.Context, c *client, path string) (T, error) {
	var v T
	err := c.do(ctx, http.MethodGet, path, nil, &v)
	return v, err
}

func post[T any](ctx context.Context, c *client, path string, body any) (T, error) {
	var v T
	err := c.do(ctx, http.MethodPost, path, body, &v)
	return v, err
}

// segment makes a label a path segment.
func segment(s string) string { return url.PathEscape(s) }

func decode(r io.Reader, out any) error { return json.NewDecoder(r).Decode(out) }
