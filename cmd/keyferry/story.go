package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/keyferry/keyferry/node"
)

// startWithParent starts a process whose parent-death signal is tied to the life of this program, and
// not of the thread that happens to start it.
func startWithParent(c *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread lives as long as this goroutine
		started <- c.Start()
		select {}
	}()
	return <-started
}

// account makes the first administrator by the page that people use.
func (d *demo) account(ctx context.Context) error {
	type firstCode struct{ Code string }
	first := d.nodes[0]
	f, err := post[firstCode](ctx, first.api, "/first-code", struct{}{})
	if api, ok := errors.AsType[*apiError](err); ok && api.Code == "refused" {
		return nil // there is one already
	}
	if err != nil {
		return err
	}
	browser, err := d.browser()
	if err != nil {
		return err
	}
	form := url.Values{"code": {f.Code}, "name": {demoUser}, "password": {d.secrets.Password}, "again": {d.secrets.Password}}
	resp, err := browser.PostForm(first.conf.WebConf.URL+"/setup", form)
	if err != nil {
		return fmt.Errorf("making the administrator: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		return fmt.Errorf("making the administrator: WebConf answers %s", resp.Status)
	}
	return nil
}

func (d *demo) caFile() string { return filepath.Join(d.nodes[0].conf.DataDir, "owner.pem") }

// browser is a client that trusts the cluster's owner certificate only.
func (d *demo) browser() (*http.Client, error) {
	pem, err := os.ReadFile(d.caFile())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// The key of the story.
const (
	storyLabel = "Demo Root CA"
	storyID    = "ca01"
)

// tellStory makes a CA key on node1 with a program that knows nothing of Keyferry.
func (d *demo) tellStory(ctx context.Context) error {
	if !d.story || d.closed[seatOf{demoCA, d.nodes[0].name}] {
		return nil
	}
	tool, err := exec.LookPath("pkcs11-tool")
	if err != nil {
		fmt.Fprintln(d.out, "pkcs11-tool (Debian package opensc) is not installed, so there is no key to look at yet.")
		return nil
	}
	first := d.nodes[0]
	list, err := get[[]node.KeyCoverage](ctx, first.api, "/coverage")
	if err != nil {
		return err
	}
	for _, k := range list {
		if k.Key.Label == storyLabel {
			return nil
		}
	}
	p := &pkcs11Tool{ctx: ctx, path: tool, node: first, pin: d.secrets.PIN}
	if err := p.makeCA(); err != nil {
		return fmt.Errorf("making a key with pkcs11-tool: %w", err)
	}
	return first.await(ctx, "the new key is listed", func() (bool, error) {
		list, err := get[[]node.KeyCoverage](ctx, first.api, "/coverage")
		return err == nil && len(list) > 0, nil
	})
}

// pkcs11Tool runs OpenSC's pkcs11-tool on a node's token. As a crypto.Signer it signs with the story's key.
type pkcs11Tool struct {
	ctx    context.Context
	path   string
	node   *demoNode
	pin    string
	public *ecdsa.PublicKey
}

func (p *pkcs11Tool) run(in []byte, args ...string) ([]byte, error) {
	m := p.node.conf.Modules[0]
	// The code goes by the environment of the child, where other users do not see it.
	args = append([]string{"--module", m.Path, "--token-label", demoCA, "--login", "--pin", "env:KEYFERRY_DEMO_PIN"}, args...)
	cmd := exec.CommandContext(p.ctx, p.path, args...)
	cmd.Env = append(os.Environ(), "KEYFERRY_DEMO_PIN="+p.pin, "SOFTHSM2_CONF="+m.Env["SOFTHSM2_CONF"])
	cmd.Stdin = bytes.NewReader(in)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// makeCA makes a P-384 key pair and a self-signed certificate.
func (p *pkcs11Tool) makeCA() error {
	object := []string{"--label", storyLabel, "--id", storyID}
	if _, err := p.run(nil, append(object, "--keypairgen", "--key-type", "EC:secp384r1", "--usage-sign", "--extractable")...); err != nil {
		return err
	}
	// Not --read-object: OpenSC 0.23 cannot read EC public keys with OpenSSL 3.
	list, err := p.run(nil, "--list-objects", "--type", "pubkey")
	if err != nil {
		return err
	}
	if p.public, err = listedPoint(string(list)); err != nil {
		return err
	}
	now := time.Now()
	t := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: storyLabel, Organization: []string{"Demo"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, t, t, p.public, p)
	if err != nil {
		return err
	}
	_, err = p.run(der, append(object, "--write-object", "/dev/stdin", "--type", "cert")...)
	return err
}

var ecPoint = regexp.MustCompile(`EC_POINT:\s+0461(04[0-9a-f]{192})\s`)

// listedPoint finds a point on P-384 in a listing: an OCTET STRING with the uncompressed point.
func listedPoint(list string) (*ecdsa.PublicKey, error) {
	m := ecPoint.FindStringSubmatch(list)
	if m == nil {
		return nil, fmt.Errorf("no public key on P-384 in this listing:\n%s", list)
	}
	raw, err := hex.DecodeString(m[1])
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P384(), raw)
}

func (p *pkcs11Tool) Public() crypto.PublicKey { return p.public }

// Sign implements crypto.Signer with the token's key.
func (p *pkcs11Tool) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	raw, err := p.run(digest, "--id", storyID, "--sign", "--mechanism", "ECDSA", "--input-file", "/dev/stdin", "--output-file", "/dev/stdout", "--signature-format", "rs")
	if err != nil {
		return nil, err
	}
	if len(raw) != 96 {
		return nil, fmt.Errorf("a signature of %d bytes: %s", len(raw), hex.EncodeToString(raw))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:48]), new(big.Int).SetBytes(raw[48:])})
}

// readyFile is the demo's contract with other programs.
type readyFile struct {
	Nodes  []readyNode `json:"nodes"`
	CAFile string      `json:"ca_file"`
	Admin  readyAdmin  `json:"admin"`
	Slots  []readySlot `json:"slots"`
}

type readyNode struct {
	Name    string            `json:"name"`
	WebConf string            `json:"webconf"`
	Socket  string            `json:"socket"`
	Module  string            `json:"module"`
	Env     map[string]string `json:"env"`
	PID     int               `json:"pid"`
}

type readyAdmin struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

type readySlot struct {
	Label string `json:"label"`
	Mode  string `json:"mode"`
	PIN   string `json:"pin,omitempty"`
}

// writeReady writes the ready file, whole or not at all. It holds the secrets of the demo.
func (d *demo) writeReady() error {
	if d.ready == "" {
		return nil
	}
	r := readyFile{CAFile: d.caFile(), Admin: readyAdmin{demoUser, d.secrets.Password},
		Slots: []readySlot{{demoCA, "manual", d.secrets.PIN}, {Label: demoAuto, Mode: "generated"}}}
	for _, n := range d.nodes {
		m := n.conf.Modules[0]
		r.Nodes = append(r.Nodes, readyNode{n.name, n.conf.WebConf.URL, n.conf.Socket, m.Path, m.Env, n.daemon.Process.Pid})
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.ready + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.ready)
}

// welcome says where to go.
func (d *demo) welcome() {
	n := d.nodes
	fmt.Fprintf(d.out, `
Three nodes are running on SoftHSM2. Open WebConf of node1 in a browser:

    %s          (node2: %s, node3: %s)
    user      %s
    password  %s

The browser does not know the certificate yet: import %s
as an authority, or compare the fingerprint that the browser shows with that of "keyferry status".

The slot %q is open on every node; foreign programs use it with the code %s.
`, n[0].conf.WebConf.URL, n[1].conf.WebConf.URL, n[2].conf.WebConf.URL, demoUser, d.secrets.Password, d.caFile(), demoCA, d.secrets.PIN)
	if d.story {
		fmt.Fprintf(d.out, `
Another program has made the key %q on node1. Look at "Key coverage": node2 and node3 lack it.
Make a package under "Key synchronization", download it, switch to node2, upload it there, look at
what it would do, and import it.
`, storyLabel)
	}
	fmt.Fprintf(d.out, `
The command line does the same, for instance:

    bin/keyferry coverage --socket %s

Ctrl-C stops the demo; the same command goes on where it was.
`, n[0].conf.Socket)
}
