package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
	toml "github.com/pelletier/go-toml/v2"
)

// pkcs11Engine is where Debian's libengine-pkcs11-openssl has OpenSSL's engine.
const pkcs11Engine = "/usr/lib/*/engines-3/pkcs11.so"

// A webServer is a real nginx whose TLS key is in a slot. Keyferry gives it the slot's code and restarts it.
type webServer struct {
	*testDemo
	conf   string
	prefix string
	listen string
	env    []string
	roots  *x509.CertPool
	show   shownApp
}

// TestNginx has a real nginx serve TLS from a key in a slot. In generated mode it comes back by itself after
// everything was killed; in manual mode it stays down, Keyferry says why, and it comes with the activation.
func TestNginx(t *testing.T) {
	if found, _ := filepath.Glob(pkcs11Engine); len(found) == 0 {
		hsmtest.Missing(t, "OpenSSL's PKCS#11 engine (Debian package libengine-pkcs11-openssl)")
	}
	w := newWebServer(t)
	daemon := startDaemon(t, "serve", "--config", w.conf)
	w.eventually(t, "the daemon answers", func() bool { _, err := w.keyferry(0, "", "status"); return err == nil })
	w.must(t, 0, "", "init")
	w.must(t, 0, "", "slots", "create", "web", "--mode", "generated")
	w.must(t, 0, "", "apps", "add", "nginx", "--slot", "web", "--command", "restart-nginx", "--codes", "file")
	w.eventually(t, "the code is delivered", func() bool { return w.app(t).Files[0].There })
	w.makeKey(t)
	w.must(t, 0, "", "apps", "restart", "nginx")
	w.answers(t)

	w.powerCut(t, daemon)
	daemon = startDaemon(t, "serve", "--config", w.conf)
	w.answers(t)
	w.eventually(t, "Keyferry says why it restarted nginx", func() bool { r := w.app(t).Runs["node1"]; return r.OK && r.Reason == "its slots are open" })

	const code = "entered by people"
	w.must(t, 0, code+"\n", "slots", "mode", "web", "manual")
	w.must(t, 0, "", "apps", "add", "nginx", "--slot", "web", "--command", "restart-nginx", "--codes", "file", "--manual-codes")
	w.powerCut(t, daemon)
	startDaemon(t, "serve", "--config", w.conf)
	w.eventually(t, "Keyferry says what nginx waits for", func() bool {
		return w.app(t).States["node1"].Waits == "slot web, which is not open" && strings.Contains(w.app(t).Files[0].Problem, "not open")
	})
	if out := w.must(t, 0, "", "status", "-o", "json"); !strings.Contains(out, "Restarted by Keyferry then: nginx.") {
		t.Errorf("the status says nothing of nginx: %s", out)
	}
	if _, err := w.get(t); err == nil {
		t.Error("nginx answers, and its slot is closed")
	}
	w.must(t, 0, code+"\n", "slots", "activate", "web")
	w.answers(t)
}

func newWebServer(t *testing.T) *webServer {
	t.Helper()
	dir := t.TempDir()
	base := freeBase(t)
	soft := hsmtest.SoftHSM(t, filepath.Join(dir, "softhsm"))
	codes, err := os.MkdirTemp("/dev/shm", "keyferry-nginx-")
	if err != nil {
		hsmtest.Missing(t, "a tmpfs on /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(codes) })
	c := config{Name: "node1", DataDir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "keyferry.sock"), RestartDir: filepath.Join(dir, "restart.d"), CodesDir: filepath.Join(codes, "codes"),
		Modules: []moduleConfig{{Name: "softhsm", Path: soft.Path, Env: soft.Env}}}
	c.WebConf.Listen = fmt.Sprintf("127.0.0.1:%d", base)
	c.WebConf.URL = "https://" + c.WebConf.Listen
	c.Peer.Listen = fmt.Sprintf("127.0.0.1:%d", base+1)
	c.Peer.Address = c.Peer.Listen
	b, err := toml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	w := &webServer{testDemo: &testDemo{dir: dir}, conf: filepath.Join(dir, "keyferry.toml"), prefix: filepath.Join(dir, "nginx"), listen: fmt.Sprintf("127.0.0.1:%d", base+2),
		env: []string{"SOFTHSM2_CONF=" + soft.Env["SOFTHSM2_CONF"], "PKCS11_MODULE_PATH=" + soft.Path, "OPENSSL_CONF=" + filepath.Join(dir, "nginx", "openssl.cnf")}, roots: x509.NewCertPool()}
	w.Nodes = []readyNode{{Name: "node1", Socket: c.Socket}}
	for _, d := range []string{c.RestartDir, w.prefix} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	uri := "pkcs11:token=web;object=tls;type=private?pin-source=file:" + filepath.Join(c.CodesDir, "nginx", "web")
	w.write(t, w.conf, string(b), 0o600)
	w.write(t, filepath.Join(w.prefix, "openssl.cnf"), fill(t, opensslConf, soft.Path), 0o600)
	w.write(t, filepath.Join(w.prefix, "nginx.conf"), fill(t, nginxConf, map[string]string{"URI": uri, "Listen": w.listen, "Prefix": w.prefix}), 0o600)
	w.write(t, filepath.Join(c.RestartDir, "restart-nginx"), fill(t, nginxRestart, map[string]any{"Nginx": nginxProgram(t), "Prefix": w.prefix, "Env": w.env}), 0o700)
	t.Cleanup(func() {
		if pid := w.pid(); pid > 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if log, _ := os.ReadFile(filepath.Join(w.prefix, "error.log")); t.Failed() {
			t.Logf("nginx said:\n%s", log)
		}
	})
	return w
}

// OpenSSL 3 wants an engine to be ready before nginx asks it for a key.
const opensslConf = `
openssl_conf = init
[init]
engines = engines
[engines]
pkcs11 = pkcs11
[pkcs11]
engine_id = pkcs11
MODULE_PATH = {{.}}
init = 1
`

// The file that an administrator writes: the key is named as Keyferry's page shows it.
const nginxConf = `
env SOFTHSM2_CONF;
user root;
worker_processes 1;
pid {{.Prefix}}/nginx.pid;
error_log {{.Prefix}}/error.log;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path {{.Prefix}}/body; proxy_temp_path {{.Prefix}}/proxy; fastcgi_temp_path {{.Prefix}}/fastcgi; uwsgi_temp_path {{.Prefix}}/uwsgi; scgi_temp_path {{.Prefix}}/scgi;
  server {
    listen {{.Listen}} ssl;
    ssl_certificate {{.Prefix}}/cert.pem;
    ssl_certificate_key "engine:pkcs11:{{.URI}}";
    location / { return 200 "from the slot\n"; }
  }
}
`

const nginxRestart = `#!/bin/sh
set -e
{{range .Env}}export {{.}}
{{end}}
pid=$(cat {{.Prefix}}/nginx.pid 2>/dev/null || true)
if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then
	while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
fi
exec {{.Nginx}} -p {{.Prefix}} -e {{.Prefix}}/error.log -c {{.Prefix}}/nginx.conf
`

func fill(t testing.TB, text string, data any) string {
	t.Helper()
	var b strings.Builder
	if err := template.Must(template.New("").Parse(text)).Execute(&b, data); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func nginxProgram(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat("/usr/sbin/nginx"); err == nil { // not in everybody's PATH
		return "/usr/sbin/nginx"
	}
	return hsmtest.Tool(t, "nginx")
}

func (w *webServer) write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// makeKey makes a key in the slot and a certificate for it, with the programs an administrator would take
// and the code as the application gets it.
func (w *webServer) makeKey(t testing.TB) {
	t.Helper()
	file := w.show.Files[0]
	pin, err := os.ReadFile(file.Path)
	if err != nil {
		t.Fatal(err)
	}
	w.run(t, []string{"PIN=" + string(pin)}, "pkcs11-tool", "--module", strings.TrimPrefix(w.env[1], "PKCS11_MODULE_PATH="), "--token-label", "web", "--login", "--pin", "env:PIN",
		"--keypairgen", "--key-type", "EC:prime256v1", "--label", "tls", "--id", "01", "--usage-sign")
	cert := filepath.Join(w.prefix, "cert.pem")
	key := strings.Replace(file.URI, "?", ";object=tls;type=private?", 1)
	w.run(t, nil, "openssl", "req", "-x509", "-new", "-config", "/etc/ssl/openssl.cnf", "-engine", "pkcs11", "-keyform", "engine", "-key", key, "-sha256", "-days", "2",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", cert)
	pem, err := os.ReadFile(cert)
	if err != nil || !w.roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the certificate: %v", err)
	}
}

func (w *webServer) run(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(hsmtest.Tool(t, name), args...)
	cmd.Env = append(append(os.Environ(), w.env...), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// get asks nginx over TLS, and believes only the certificate whose key is in the slot.
func (w *webServer) get(t testing.TB) (string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.roots}}}
	resp, err := client.Get("https://" + w.listen)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (w *webServer) answers(t testing.TB) {
	t.Helper()
	w.eventually(t, "nginx answers with the key in the slot", func() bool { text, err := w.get(t); return err == nil && text == "from the slot\n" })
}

// powerCut ends the daemon and nginx as a power cut does. The file with the code, which is in memory, goes too.
func (w *webServer) powerCut(t testing.TB, daemon *daemonProcess) {
	t.Helper()
	pid := w.pid()
	daemon.cmd.Process.Kill()
	daemon.wait()
	workers := children(pid)
	syscall.Kill(pid, syscall.SIGKILL) // first, or it starts another worker
	for _, worker := range workers {
		syscall.Kill(worker, syscall.SIGKILL)
	}
	if err := os.RemoveAll(filepath.Dir(filepath.Dir(w.show.Files[0].Path))); err != nil {
		t.Fatal(err)
	}
	w.eventually(t, "nothing listens any more", func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", w.listen)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// children are the processes that a process has started.
func children(pid int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var list []int
	for _, f := range bytes.Fields(b) {
		if n, err := strconv.Atoi(string(f)); err == nil {
			list = append(list, n)
		}
	}
	return list
}

func (w *webServer) pid() int {
	b, _ := os.ReadFile(filepath.Join(w.prefix, "nginx.pid"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// app asks Keyferry how nginx stands.
func (w *webServer) app(t testing.TB) shownApp {
	t.Helper()
	w.show = shownApp{Files: []node.CodeFile{{}}}
	out, err := w.keyferry(0, "", "apps", "show", "nginx", "-o", "json")
	if err != nil { // the daemon is just starting
		return w.show
	}
	if err := json.Unmarshal([]byte(out), &w.show); err != nil {
		t.Fatal(err)
	}
	return w.show
}

func (w *webServer) eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s; the application: %+v", what, w.show)
		}
	}
}
