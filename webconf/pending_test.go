package webconf

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// TestPending: what was begun is there for a few minutes, once where it is taken, and never for nobody.
func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPending[int](3)
		p.put("a", 1)
		time.Sleep(pendingTime - time.Second)
		if v, ok := p.look("a"); !ok || v != 1 {
			t.Error("it is gone too early")
		}
		if _, ok := p.take("a"); !ok {
			t.Error("looking has taken it")
		}
		if _, ok := p.take("a"); ok {
			t.Error("it is there twice")
		}
		p.put("", 7)
		if _, ok := p.look(""); ok {
			t.Error("there is something for a browser without a cookie")
		}
		p = newPending[int](3)
		for i := range 10 {
			p.put(fmt.Sprint(i), i)
			time.Sleep(time.Second)
		}
		if _, ok := p.look("9"); !ok || len(p.begun) != 3 {
			t.Errorf("%d are kept", len(p.begun))
		}
		time.Sleep(pendingTime)
		if _, ok := p.look("9"); ok {
			t.Error("it is there for ever")
		}
	})
}

// TestBrowserNames are ours, whatever a browser says.
func TestBrowserNames(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                              "Firefox",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36 Edg/156": "Edge",
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36":                   "Chrome",
		"Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15":                       "Safari",
		"": "another program", evil: "another program", "\xff\x00": "another program",
	} {
		if got := browserName(agent); got != want {
			t.Errorf("%q is %s", agent, got)
		}
	}
}

// TestLockProblems: a lock is a problem for as long as it holds.
func TestLockProblems(t *testing.T) {
	v := plainSituation(3, 1, 0)
	v.State.Accounts["bob"] = cluster.Account{Name: "bob", Locks: []cluster.Lock{{Node: "node1", Until: v.Now.Add(-time.Second)}, {Node: "node2", Until: v.Now.Add(time.Minute)}}}
	list := v.problems()
	if len(list) != 1 || list[0].Severity != warn || list[0].Path != meansPath("bob") || list[0].Text != "Too many wrong passwords for the account bob: it is locked on node2." {
		t.Errorf("problems: %+v", list)
	}
}

// TestLoginAPI: sessions, locks and factors as the command line asks for them.
func TestLoginAPI(t *testing.T) {
	a := newCluster(t, 1)[0]
	a.administrator(t)
	b := a.loggedIn(t)
	s := newSocket(t, a.web)
	var sessions sessionsReply
	s.ask(get, "/people/alice/sessions", nil, 200, &sessions)
	if len(sessions.Sessions) != 1 || sessions.Sessions[0].Method != "password" || sessions.Sessions[0].Address != "127.0.0.1" || len(sessions.Silent) > 0 {
		t.Fatalf("sessions: %+v", sessions)
	}
	s.ask(post, "/people/alice/sessions/end", map[string]string{"id": sessions.Sessions[0].ID, "node": "node1"}, 204, nil)
	b.get("/").wants(t, 303)
	b = a.loggedIn(t)
	s.ask(post, "/people/alice/sessions/end", struct{}{}, 204, nil)
	b.get("/").wants(t, 303)

	cert := clientCertificate(t, "Alice", nil)
	s.ask(post, "/people/alice/factors/certificate", map[string]any{"name": "card", "certificate": cert.Certificate[0]}, 204, nil)
	var factors factorsReply
	s.ask(get, "/people/alice/factors", nil, 200, &factors)
	if len(factors.Factors) != 1 || factors.Factors[0].Name != "card" || factors.Factors[0].Subject != "CN=Alice" || len(factors.Locks) > 0 {
		t.Errorf("factors: %+v", factors)
	}
	s.ask(post, "/people/alice/factors/remove", map[string]string{"factor": "certificate"}, 204, nil)
	if _, err := a.Cluster.Apply(t.Context(), &cluster.ReportLock{Name: "alice", Tries: 10, Until: time.Now().Add(time.Hour)}, cluster.Actor{Kind: cluster.ByNode, Name: "node1"}); err != nil {
		t.Fatal(err)
	}
	s.ask(get, "/people/alice/factors", nil, 200, &factors)
	if len(factors.Factors) > 0 || len(factors.Locks) != 1 {
		t.Errorf("factors and locks: %+v", factors)
	}
	s.ask(post, "/people/alice/unlock", nil, 204, nil)
	for path, want := range map[string]int{"/people/alice/unlock": 404, "/people/emil/unlock": 404, "/people/emil/sessions/end": 404, "/people/emil/factors/remove": 404, "/people/emil/factors/certificate": 404} {
		s.refused(s.send(post, path, "application/json", nil), want, "not_found")
	}
	for path, body := range map[string]string{"/people/alice/sessions/end": `{"id":"x"}`, "/people/alice/factors/remove": `{"factor":"password"}`,
		"/people/alice/factors/certificate": `{"certificate":"%%"}`, "/people/alice/unlock": `{"x":1}`} {
		s.refused(s.send(post, path, "application/json", strings.NewReader(body)), 400, "invalid")
	}
}
