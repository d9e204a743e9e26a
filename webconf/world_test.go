package webconf

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

func TestMain(m *testing.M) { hsmtest.Main(m) }

// What people know in these tests. None of it may show up where it does not belong: see secrets.
const (
	testAccount  = "alice"
	testPassword = "a long way to Tipperary"
	testCode     = "correct horse 1"
)

var root = cluster.Actor{Kind: cluster.ByConsole, Name: "root"}

// An appliance is one node with its console, on a SoftHSM of its own.
type appliance struct {
	*node.Member
	soft hsm.Config
	web  *Server
	site *httptest.Server
	log  *logBuffer
}

// newAppliance starts a node that is not a member yet. Its console answers once it is.
func newAppliance(t testing.TB, name string, change ...func(*node.Config)) (*appliance, *node.Node) {
	t.Helper()
	dir := t.TempDir()
	a := &appliance{soft: hsmtest.SoftHSM(t, filepath.Join(dir, "softhsm")), log: &logBuffer{}}
	console, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer.Close()
	restart := filepath.Join(dir, "restart.d")
	if err := os.Mkdir(restart, 0o755); err != nil {
		t.Fatal(err)
	}
	for command, script := range map[string]string{"restart-ok": "#!/bin/sh\nexit 0\n", "restart-broken": "#!/bin/sh\necho the program is not installed >&2\nexit 3\n"} {
		if err := os.WriteFile(filepath.Join(restart, command), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	codes, err := os.MkdirTemp("/dev/shm", "keyferry-webconf-")
	if err != nil {
		hsmtest.Missing(t, "a tmpfs on /dev/shm")
	}
	t.Cleanup(func() { os.RemoveAll(codes) })
	log := slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := node.Config{
		Name: name, Dir: filepath.Join(dir, "data"), Version: "1.0-test", PeerListen: peer.Addr().String(), PeerAddress: peer.Addr().String(),
		WebURL: "https://" + console.Addr().String(), Modules: []node.ModuleConfig{{Name: "softhsm", Path: a.soft.Path, Env: a.soft.Env}},
		RestartDir: restart, CodesDir: filepath.Join(codes, "codes"), Log: log, WeakHashes: true,
		Kubernetes: []node.KubernetesConfig{{Name: "prod"}}, Webhooks: []node.WebhookConfig{{Name: "deployer"}},
	}
	for _, f := range change {
		f(&cfg)
	}
	n, err := node.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	if a.web, err = New(Config{Node: n, Log: log}); err != nil {
		t.Fatal(err)
	}
	a.site = httptest.NewUnstartedServer(a.web.Handler())
	a.site.Listener.Close()
	a.site.Listener = console
	a.site.EnableHTTP2 = true
	a.site.TLS = a.web.TLS()
	a.site.Config.ConnContext = a.web.ConsoleContext
	a.site.Config.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	a.site.StartTLS()
	t.Cleanup(a.site.Close)
	return a, n
}

// newCluster founds a cluster of so many appliances.
func newCluster(t testing.TB, count int, change ...func(*node.Config)) []*appliance {
	t.Helper()
	var list []*appliance
	for i := range count {
		a, n := newAppliance(t, fmt.Sprintf("node%d", i+1), change...)
		var err error
		if i == 0 {
			if _, err := n.Found(t.Context(), root, "ca-prod"); err != nil {
				t.Fatal(err)
			}
			a.Member, err = n.Member()
		} else {
			inv, ierr := list[0].Invite(t.Context(), root, n.Name(), time.Hour)
			if ierr != nil {
				t.Fatal(ierr)
			}
			a.Member, err = n.Join(t.Context(), inv.Address, inv.Fingerprint, inv.Code)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	for _, a := range list {
		eventually(t, a.Name()+" sees all nodes", func() bool {
			for _, n := range a.State().Nodes {
				if n.Status != cluster.Connected || !a.Peers.Seen(n.Name).Answers {
					return false
				}
			}
			return len(a.State().Nodes) == count
		})
	}
	return list
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not in 30 s: %s", what)
		}
	}
}

// administrator makes the first account, without the page for it.
func (a *appliance) administrator(t testing.TB) {
	t.Helper()
	code, err := a.Accounts.NewFirstCode()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Accounts.CreateFirst(t.Context(), code, testAccount, testPassword); err != nil {
		t.Fatal(err)
	}
}

// slot makes a slot on this node.
func (a *appliance) slot(t testing.TB, label, mode string) {
	t.Helper()
	n := node.NewSlot{Label: label, Mode: mode}
	if mode == cluster.Manual {
		n.Code = []byte(testCode)
	}
	if err := a.Slots.Create(t.Context(), root, n); err != nil {
		t.Fatal(err)
	}
}

// application opens a manual slot as an application does: by a process of its own.
func (a *appliance) application(t testing.TB, label string) *hsm.Token {
	t.Helper()
	slot, err := a.Slots.One(label)
	if err != nil {
		t.Fatal(err)
	}
	cfg := a.soft
	cfg.Name, cfg.Lock = "application", filepath.Join(t.TempDir(), "lock")
	token := hsmtest.Start(t, cfg).Token(slot.Serial)
	if err := token.Login(t.Context(), []byte(testCode), false); err != nil {
		t.Fatal(err)
	}
	return token
}

// ecKey describes a key that can travel.
func ecKey(label string) hsm.KeySpec {
	return hsm.KeySpec{Type: "EC", Curve: "P-256", ID: []byte(label), Label: label, Usage: hsm.UseSign, Extractable: true}
}

func generate(t testing.TB, token *hsm.Token, specs ...hsm.KeySpec) {
	t.Helper()
	for _, s := range specs {
		if _, err := token.Generate(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// sees waits until a node knows of so many keys.
func (a *appliance) sees(t testing.TB, keys int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s knows %d keys", a.Name(), keys), func() bool { return len(a.Keys.Coverage()) == keys })
}

// A browser is a client with cookies, as one person uses it.
type browser struct {
	t      testing.TB
	site   string
	client *http.Client
}

func (a *appliance) browser(t testing.TB) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, site: a.site.URL, client: &http.Client{
		Jar: jar, Timeout: time.Minute,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

// loggedIn is a browser with a session.
func (a *appliance) loggedIn(t testing.TB) *browser {
	t.Helper()
	b := a.browser(t)
	if r := b.post("/login", "name", testAccount, "password", testPassword); r.status != http.StatusSeeOther {
		t.Fatalf("login: %d\n%s", r.status, r.text())
	}
	return b
}

// A reply is an answer, read to its end.
type reply struct {
	status int
	header http.Header
	body   string
}

var tags = regexp.MustCompile(`(?s)<style.*?</style>|<svg.*?</svg>|<[^>]*>`)
var spaces = regexp.MustCompile(`\s+`)

// text is what a person reads.
func (r reply) text() string {
	return strings.TrimSpace(spaces.ReplaceAllString(tags.ReplaceAllString(r.body, " "), " "))
}

func (r reply) location() string { return r.header.Get("Location") }

func (b *browser) do(method, path string, body io.Reader, header ...string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.site+path, body)
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(all)}
}

func (b *browser) get(path string, header ...string) reply {
	b.t.Helper()
	return b.do(http.MethodGet, path, nil, header...)
}

// post sends a form with the given names and values.
func (b *browser) post(path string, fields ...string) reply {
	b.t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	return b.do(http.MethodPost, path, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

// follow goes where a form leads to.
func (b *browser) follow(r reply) reply {
	b.t.Helper()
	if r.status != http.StatusSeeOther {
		b.t.Fatalf("no redirect but %d: %s", r.status, r.text())
	}
	return b.get(r.location())
}

// wants fails unless an answer has the status and contains the texts.
func (r reply) wants(t testing.TB, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("status %d, want %d: %.600s", r.status, status, r.text())
		return
	}
	text := r.text()
	for _, want := range texts {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in: %.1500s", want, text)
		}
	}
}

// A logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
