package cluster

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fabric is a set of links on loopback, under one owner.
type fabric struct {
	t          *testing.T
	owner      *signer
	next       *signer // another owner, nil while there is none
	mu         sync.Mutex
	addresses  map[string]string
	identities map[string]*signer
	banned     map[string]bool
}

func newFabric(t *testing.T) *fabric {
	return &fabric{t: t, owner: newOwner(t), addresses: make(map[string]string), identities: make(map[string]*signer), banned: make(map[string]bool)}
}

// identity makes the identity certificate of a member, once.
func (f *fabric) identity(name string) *signer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.identities[name] == nil {
		f.identities[name] = f.owner.newIdentity(f.t, name)
	}
	return f.identities[name]
}

func (f *fabric) address(node string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if address, ok := f.addresses[node]; ok {
		return address, nil
	}
	return "", errorf(NotFound, "no address of node %q is known", node)
}

func (f *fabric) admit(node string, identity *x509.Certificate) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if member := f.identities[node]; member == nil || !member.cert.Equal(identity) || f.banned[node] {
		return errorf(Denied, "it is no member")
	}
	return nil
}

func (f *fabric) ban(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.banned[node] = true
}

// link makes a link for node that presents leaf.
func (f *fabric) link(node string, leaf *tls.Certificate) *Link {
	f.t.Helper()
	l, err := NewLink(LinkConfig{
		Cluster: "c1", Node: node, Owners: f.owners,
		Certificate: func() (*tls.Certificate, error) { return leaf, nil },
		Address:     f.address,
		Admit:       f.admit,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
	return l
}

// serve runs a link for node on loopback.
func (f *fabric) serve(node string, leaf *tls.Certificate, peers, joins http.Handler) *Link {
	f.t.Helper()
	l := f.link(node, leaf)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.addresses[node] = ln.Addr().String()
	f.mu.Unlock()
	var served sync.WaitGroup
	served.Go(func() {
		if err := l.Serve(ln, peers, joins); err != nil {
			f.t.Errorf("serve: %v", err)
		}
	})
	f.t.Cleanup(func() { l.Close(); served.Wait() })
	return l
}

// whoami answers with the name of the peer.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "peer %q", PeerOf(r)) })

func get(client *http.Client, url string) (string, error) {
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status)
	}
	return string(b), err
}

func TestLinkBetweenMembers(t *testing.T) {
	f := newFabric(t)
	f.serve("node2", f.identity("node2").newLeaf(t, "node2", nil), whoami, nil)
	node1 := f.link("node1", f.identity("node1").newLeaf(t, "node1", nil))
	for range 2 { // the second goes over the same connection
		if got, err := get(node1.Client(), "https://node2/"); err != nil || got != `peer "node1"` {
			t.Errorf("%q, %v", got, err)
		}
	}
	if n := len(node1.open()); n != 1 {
		t.Errorf("%d connections", n)
	}
	for _, url := range []string{"https://node9/", "http://node2/"} {
		if _, err := get(node1.Client(), url); err == nil {
			t.Errorf("%s worked", url)
		}
	}
	_, err := get(node1.Client(), "https://node9/")
	if dial, ok := errors.AsType[*DialError](err); !ok || dial.Node != "node9" || !errors.Is(err, NotFound) {
		t.Errorf("error %v", err)
	}
}

// A server refuses every client that is not an admitted node, whatever it presents.
func TestLinkRefusesClients(t *testing.T) {
	f := newFabric(t)
	var served atomic.Int32
	count := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) })
	f.serve("node1", f.identity("node1").newLeaf(t, "node1", nil), count, count)
	node2, node3 := f.identity("node2"), f.identity("node3")
	good := node2.newLeaf(t, "node2", nil)
	leaf := func(change func(*x509.Certificate)) *tls.Certificate { return node2.newLeaf(t, "node2", change) }
	stranger := newOwner(t).newIdentity(t, "node2")

	for name, c := range map[string]struct {
		cert   *tls.Certificate
		change func(*tls.Config)
		ok     bool
	}{
		"good":                   {good, nil, true},
		"another owner":          {stranger.newLeaf(t, "node2", nil), nil, false},
		"no certificate":         {nil, nil, false},
		"name of another member": {node3.newLeaf(t, "node2", nil), nil, false},
		"no member":              {f.owner.newIdentity(t, "node9").newLeaf(t, "node9", nil), nil, false},
		"another cluster":        {leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{NodeURI("c2", "node2")} }), nil, false},
		"no name":                {leaf(func(c *x509.Certificate) { c.URIs = nil }), nil, false},
		"two names":              {leaf(func(c *x509.Certificate) { c.URIs = append(c.URIs, NodeURI("c1", "node3")) }), nil, false},
		"name with a query":      {leaf(func(c *x509.Certificate) { c.URIs[0].RawQuery = "x" }), nil, false},
		"name with a user":       {leaf(func(c *x509.Certificate) { c.URIs[0].Opaque = "x@c1/node2" }), nil, false},
		"name in capitals":       {leaf(func(c *x509.Certificate) { c.URIs[0].Opaque = "c1/NODE2" }), nil, false},
		"name with a host":       {leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "keyferry", Host: "c1", Path: "/node2"}} }), nil, false},
		"name with a step more":  {leaf(func(c *x509.Certificate) { c.URIs[0].Opaque = "c1/c1/node2" }), nil, false},
		"DNS name only":          {leaf(func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"node2"} }), nil, false},
		"expired": {leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), nil, false},
		"not yet valid": {leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}), nil, false},
		"for servers only":         {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), nil, false},
		"identity as leaf":         {identityAsLeaf(t, f.owner), nil, false},
		"owner as leaf":            {&tls.Certificate{Certificate: [][]byte{f.owner.cert.Raw, f.owner.cert.Raw}, PrivateKey: f.owner.key}, nil, false},
		"leaf of a leaf":           {leafOfLeaf(t, node2), nil, false},
		"without the identity":     {&tls.Certificate{Certificate: good.Certificate[:1], PrivateKey: good.PrivateKey}, nil, false},
		"with too many":            {&tls.Certificate{Certificate: append(good.Certificate[:2:2], good.Certificate...), PrivateKey: good.PrivateKey}, nil, false},
		"TLS 1.2":                  {good, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, false},
		"no purpose":               {good, func(c *tls.Config) { c.NextProtos = nil }, false},
		"unknown purpose":          {good, func(c *tls.Config) { c.NextProtos = []string{"h2"} }, false},
		"no certificate, for raft": {nil, func(c *tls.Config) { c.NextProtos = []string{protoRaft} }, false},
		"joining, without more":    {nil, func(c *tls.Config) { c.NextProtos = []string{protoHTTP, protoJoin} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protoHTTP}}
			if c.cert != nil {
				config.Certificates = []tls.Certificate{*c.cert}
			}
			if c.change != nil {
				c.change(config)
			}
			before := served.Load()
			err := request(f, "node1", config)
			if (err == nil) != c.ok || (served.Load() > before) != c.ok {
				t.Errorf("error %v, %d requests were served", err, served.Load()-before)
			}
		})
	}
}

// request makes one HTTP request to node with a TLS configuration of its own.
func request(f *fabric, node string, config *tls.Config) error {
	address, err := f.address(node)
	if err != nil {
		return err
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", node)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// identityAsLeaf is an identity key that presents its own certificate, with a node's name in it.
func identityAsLeaf(t *testing.T, owner *signer) *tls.Certificate {
	c := sign(t, &x509.Certificate{URIs: []*url.URL{NodeURI("c1", "node2")}, IsCA: true, BasicConstraintsValid: true}, owner.key.Curve, owner)
	return &tls.Certificate{Certificate: [][]byte{c.cert.Raw, owner.cert.Raw}, PrivateKey: c.key}
}

// leafOfLeaf is signed by a certificate that the identity made, one step too far down.
func leafOfLeaf(t *testing.T, identity *signer) *tls.Certificate {
	middle := sign(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true}, identity.key.Curve, identity)
	leaf := middle.newLeaf(t, "node2", nil)
	leaf.Certificate = append(leaf.Certificate, identity.cert.Raw)
	return leaf
}

// A client refuses every server that is not the admitted node it wants.
func TestLinkRefusesServers(t *testing.T) {
	f := newFabric(t)
	node1, node3 := f.identity("node1"), f.identity("node3")
	for name, leaf := range map[string]*tls.Certificate{
		"another owner": newOwner(t).newIdentity(t, "node1").newLeaf(t, "node1", nil),
		"another node":  node3.newLeaf(t, "node3", nil),
		"name of node1": node3.newLeaf(t, "node1", nil),
		"expired": node1.newLeaf(t, "node1", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
		"for clients only": node1.newLeaf(t, "node1", func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }),
	} {
		t.Run(name, func(t *testing.T) {
			f.t = t
			f.serve("node1", leaf, whoami, nil)
			node2 := f.link("node2", f.identity("node2").newLeaf(t, "node2", nil))
			_, err := get(node2.Client(), "https://node1/")
			if dial, ok := errors.AsType[*DialError](err); !ok || dial.Node != "node1" {
				t.Errorf("error %v", err)
			}
		})
	}
}

// A node that is removed is not heard any more: not on a connection it has, and not on a new one.
func TestLinkOfRemovedNode(t *testing.T) {
	f := newFabric(t)
	server := f.serve("node1", f.identity("node1").newLeaf(t, "node1", nil), whoami, nil)
	node2 := f.link("node2", f.identity("node2").newLeaf(t, "node2", nil))
	raft, err := node2.dial(t.Context(), "node1", protoRaft)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := get(node2.Client(), "https://node1/"); err != nil {
		t.Fatal(err)
	}
	f.ban("node2")
	if _, err := get(node2.Client(), "https://node1/"); err == nil || err.Error() != "403 Forbidden" {
		t.Errorf("on its old connection: %v", err)
	}
	server.Recheck()
	raft.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := raft.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection for Raft is still open: %v", err)
	}
	if _, err := get(node2.Client(), "https://node1/"); err == nil {
		t.Error("a new connection works")
	}
}

func (f *fabric) owners() []*x509.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		return []*x509.Certificate{f.owner.cert}
	}
	return []*x509.Certificate{f.owner.cert, f.next.cert}
}

// While the owner is replaced, identities of both are believed.
func TestLinkOfTwoOwners(t *testing.T) {
	f := newFabric(t)
	f.serve("node1", f.identity("node1").newLeaf(t, "node1", nil), whoami, nil)
	next := newOwner(t)
	moved := next.newIdentity(t, "node2")
	f.identities["node2"] = moved
	node2 := f.link("node2", moved.newLeaf(t, "node2", nil))
	if _, err := get(node2.Client(), "https://node1/"); err == nil {
		t.Fatal("an owner that is not known is believed")
	}
	f.mu.Lock()
	f.next = next
	f.mu.Unlock()
	if _, err := get(node2.Client(), "https://node1/"); err != nil {
		t.Error(err)
	}
}

// A node that changes over to another identity lets requests that are under way end, and makes the next ones with it.
func TestLinkRenew(t *testing.T) {
	f := newFabric(t)
	waits, release := make(chan struct{}), make(chan struct{})
	f.serve("node1", f.identity("node1").newLeaf(t, "node1", nil), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(waits)
			<-release
		}
		p := r.Context().Value(peerKey{}).(peer)
		io.WriteString(w, KeyHash(p.identity))
	}), nil)
	old, next := f.identity("node2"), f.owner.newIdentity(t, "node2")
	node2 := f.link("node2", old.newLeaf(t, "node2", nil))
	var own atomic.Pointer[tls.Certificate]
	own.Store(old.newLeaf(t, "node2", nil))
	node2.cfg.Certificate = func() (*tls.Certificate, error) { return own.Load(), nil }
	before, after := KeyHash(old.cert), KeyHash(next.cert)
	slow := make(chan string, 1)
	go func() {
		got, err := get(node2.Client(), "https://node1/slow")
		slow <- fmt.Sprint(got, err)
	}()
	<-waits
	if n := node2.Outdated(before); n != 0 {
		t.Errorf("%d connections are outdated before", n)
	}
	f.mu.Lock()
	f.identities["node2"] = next // not the one that the slow request came with: that is under way
	f.mu.Unlock()
	own.Store(next.newLeaf(t, "node2", nil))
	node2.Renew()
	if got, err := get(node2.Client(), "https://node1/"); err != nil || got != after {
		t.Errorf("the next request comes with %s: %v", got, err)
	}
	if n := node2.Outdated(after); n != 1 {
		t.Errorf("%d connections are outdated while a request is under way", n)
	}
	close(release)
	if got := <-slow; got != before+"<nil>" {
		t.Errorf("the request that was under way: %s", got)
	}
	for node2.Outdated(after) > 0 { // until the connection has ended
		runtime.Gosched()
	}
}

// A connection does not outlive the certificate that it was made with.
func TestLinkExpires(t *testing.T) {
	f := newFabric(t)
	l := f.link("node1", f.identity("node1").newLeaf(t, "node1", nil))
	p := peer{"node2", f.identity("node2").cert, time.Now().Add(time.Hour)}
	if err := l.stillGood(p); err != nil {
		t.Error(err)
	}
	p.expires = time.Now().Add(-time.Second)
	wantCode(t, l.stillGood(p), Expired)
}

func TestNewLinkNeedsAll(t *testing.T) {
	f := newFabric(t)
	leaf := f.identity("node1").newLeaf(t, "node1", nil)
	good := LinkConfig{Cluster: "c1", Node: "node1", Owners: f.owners,
		Certificate: func() (*tls.Certificate, error) { return leaf, nil }, Address: f.address, Admit: f.admit}
	for _, spoil := range []func(*LinkConfig){
		func(c *LinkConfig) { c.Cluster = "" },
		func(c *LinkConfig) { c.Node = "NODE" },
		func(c *LinkConfig) { c.Owners = nil },
		func(c *LinkConfig) { c.Certificate = nil },
		func(c *LinkConfig) { c.Address = nil },
		func(c *LinkConfig) { c.Admit = nil },
	} {
		bad := good
		spoil(&bad)
		_, err := NewLink(bad)
		wantCode(t, err, Invalid)
	}
}

// One host cannot take all places, and each place is given back.
func TestGate(t *testing.T) {
	g := newGate(4)
	enter := func(host string, want bool) {
		t.Helper()
		if got := g.enter(host); got != want {
			t.Errorf("enter %s: %v", host, got)
		}
	}
	enter("a", true)
	enter("a", true)
	enter("a", false)
	enter("b", true)
	enter("c", true)
	enter("d", false)
	g.leave("a")
	enter("d", true)
	for _, host := range []string{"a", "b", "c", "d"} {
		g.leave(host)
	}
	if g.total != 0 || len(g.hosts) != 0 {
		t.Errorf("left behind: %+v", g)
	}
}

// Strangers who open connections and say nothing do not get all places.
func TestLinkShedsIdleStrangers(t *testing.T) {
	f := newFabric(t)
	f.serve("node1", f.identity("node1").newLeaf(t, "node1", nil), whoami, nil)
	address, err := f.address("node1")
	if err != nil {
		t.Fatal(err)
	}
	const share = maxHandshakes / 2
	start := time.Now()
	closed := make(chan time.Duration, share+1)
	for range share + 1 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			c.Read(make([]byte, 1))
			closed <- time.Since(start)
		}()
	}
	if took := <-closed; took >= handshakeTimeout {
		t.Errorf("%d silent connections from one host were all kept for %v", share+1, took)
	}
}
