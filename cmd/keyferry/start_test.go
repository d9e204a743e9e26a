package main

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// TestFirstStartOfADaemon makes a cluster by the pages of a real daemon that belongs to none, with the code that
// its command line prints. The listener goes over to the other certificate while the daemon runs.
func TestFirstStartOfADaemon(t *testing.T) {
	n := newLoneNode(t)
	n.start()
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", n.console(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return cluster.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
	}
	var code struct{ Code, Fingerprint, For string }
	if err := json.Unmarshal([]byte(n.must("", "first-code", "-o", "json")), &code); err != nil {
		t.Fatal(err)
	}
	first := shown()
	if code.For != "node" || code.Fingerprint != first {
		t.Errorf("%s, and the browser sees %s", code.Fingerprint, first)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	post := func(path string, form url.Values) {
		t.Helper()
		resp, err := client.PostForm("https://"+n.console()+path, form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("%s: %s", path, resp.Status)
		}
	}
	post("/start", url.Values{"code": {code.Code}})
	const password = "a long way to Tipperary"
	post("/found", url.Values{"cluster": {"test"}, "name": {"alice"}, "password": {password}, "again": {password}})
	n.wait("the first administrator is there", func() bool {
		people, err := n.keyferry("", "people", "list")
		return err == nil && strings.Contains(people, "alice")
	})
	var st status
	if err := json.Unmarshal([]byte(n.must("", "status", "-o", "json")), &st); err != nil {
		t.Fatal(err)
	}
	if now := shown(); !st.Member || st.Cluster.Name != "test" || now != st.Fingerprint || now == first {
		t.Errorf("%+v, and the browser sees %s", st, now)
	}
	if _, err := n.keyferry("", "first-code"); err == nil {
		t.Error("there is a code where there is an administrator")
	}
	var l node.Losses
	if err := json.Unmarshal([]byte(n.must("", "cluster", "losses", st.Node, "-o", "json")), &l); err != nil || !l.Member || !l.Owner {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := n.keyferry("", "cluster", "losses", "nobody"); err == nil || !strings.Contains(err.Error(), "no node") {
		t.Errorf("losses of no node: %v", err)
	}
}
