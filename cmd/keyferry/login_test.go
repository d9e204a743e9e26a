package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// personCard makes a client certificate, writes it to a file, and gives it with its key.
func personCard(t *testing.T, file string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Carol"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestLoginCommands registers a card for somebody at the command line, logs in with it at the real console,
// and sees and ends that.
func TestLoginCommands(t *testing.T) {
	n := newLoneNode(t)
	n.start()
	n.must("", "init", "--name", "test")
	n.must("", "people", "add", "carol", "--role", "auditor")
	file := filepath.Join(t.TempDir(), "carol.pem")
	card := personCard(t, file)

	asked := false
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &card, nil
		}}, DisableKeepAlives: true}}
	login := func() int {
		t.Helper()
		resp, err := client.PostForm("https://"+n.console()+"/login/certificate", url.Values{"next": {"/"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	n.wait("the console answers", func() bool {
		resp, err := client.Get("https://" + n.console() + "/login")
		return err == nil && resp.Body.Close() == nil
	})
	if status := login(); status == http.StatusSeeOther || asked {
		t.Errorf("before the card is registered: %d, asked for one: %v", status, asked)
	}
	n.must("", "people", "certificate", "carol", file, "--name", "card")
	if status := login(); status != http.StatusSeeOther || !asked {
		t.Errorf("with the card: %d, asked for one: %v", status, asked)
	}

	var sessions sessionsOf
	list := func() {
		t.Helper()
		sessions = sessionsOf{}
		if err := json.Unmarshal([]byte(n.must("", "people", "sessions", "carol", "-o", "json")), &sessions); err != nil {
			t.Fatal(err)
		}
	}
	if list(); len(sessions.Sessions) != 1 || sessions.Sessions[0].Method != "certificate" {
		t.Fatalf("sessions: %+v", sessions)
	}
	n.must("", "people", "sessions", "carol", "--end", sessions.Sessions[0].ID, "--node", "node1")
	login()
	n.must("", "people", "sessions", "carol", "--end-all")
	if list(); len(sessions.Sessions) != 0 {
		t.Errorf("after their end: %+v", sessions)
	}
	if out := n.must("", "people", "factors", "carol"); !strings.Contains(out, "certificate") || !strings.Contains(out, "card") {
		t.Errorf("factors: %s", out)
	}
	n.must("", "people", "factors", "carol", "--remove", "certificate")
	if status := login(); status == http.StatusSeeOther {
		t.Error("a removed card logs in")
	}
	for _, wrong := range [][]string{
		{"people", "unlock", "carol"}, {"people", "unlock", "nobody"}, {"people", "unlock"}, {"people", "sessions", "nobody"}, {"people", "sessions", "carol", "--end", "x"},
		{"people", "sessions", "carol", "--end", "x", "--node", "node1", "--end-all"}, {"people", "sessions", "carol", "--end", "x", "--node", "node9"},
		{"people", "factors", "carol", "--remove", "password"}, {"people", "factors", "carol", "--remove", "totp"}, {"people", "factors", "carol", "--id", "00"},
		{"people", "certificate", "carol", n.conf}, {"people", "certificate", "carol", "/nowhere"}, {"people", "certificate", "nobody", file},
	} {
		if out, err := n.keyferry("", wrong...); err == nil {
			t.Errorf("keyferry %v succeeds: %s", wrong, out)
		}
	}
}

// console is the address of the node's console.
func (n *loneNode) console() string {
	n.t.Helper()
	c, err := readConfig(n.conf)
	if err != nil {
		n.t.Fatal(err)
	}
	return c.WebConf.Listen
}
