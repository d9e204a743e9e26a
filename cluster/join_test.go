package cluster

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFingerprint(t *testing.T) {
	const want = "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55" // SHA-256 of nothing
	if got := Fingerprint(nil); got != want {
		t.Errorf("fingerprint %s", got)
	}
	for _, typed := range []string{want, strings.ToLower(want), strings.ReplaceAll(want, ":", ""), strings.ReplaceAll(want, ":", " "),
		" " + strings.ReplaceAll(want, ":", "-") + "\n"} {
		if sum, err := ParseFingerprint(typed); err != nil || formatFingerprint(sum) != want {
			t.Errorf("%q: %v", typed, err)
		}
	}
	for _, typed := range []string{"", want[3:], want + ":00", "G" + want[1:], "Ä" + want[1:], strings.Repeat(":", 95)} {
		_, err := ParseFingerprint(typed)
		wantCode(t, err, Invalid)
	}
}

// joinable runs node1 with a join handler, and returns its address and fingerprint.
func joinable(t *testing.T, joins http.Handler) (address, fingerprint string) {
	f := newFabric(t)
	leaf := f.identity("node1").newLeaf(t, "node1", nil)
	f.serve("node1", leaf, whoami, joins)
	address, err := f.address("node1")
	if err != nil {
		t.Fatal(err)
	}
	return address, Fingerprint(leaf.Certificate[0])
}

func TestJoin(t *testing.T) {
	address, want := joinable(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if PeerOf(r) != "" {
			t.Errorf("a joining node is taken for %q", PeerOf(r))
		}
		io.WriteString(w, "welcome to "+r.URL.Path)
	}))
	got, err := FetchFingerprint(t.Context(), address)
	if err != nil || got != want {
		t.Fatalf("fingerprint %s, %v, want %s", got, err, want)
	}
	client, err := JoinClient(address, strings.ToLower(got))
	if err != nil {
		t.Fatal(err)
	}
	for range maxJoins + 1 { // each request gives its place back
		if body, err := get(client, "https://member/join"); err != nil || body != "welcome to /join" {
			t.Fatalf("%q, %v", body, err)
		}
	}
}

// With the wrong fingerprint nothing is sent, and the error shows both.
func TestJoinWrongFingerprint(t *testing.T) {
	address, right := joinable(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request came through") }))
	wrong := Fingerprint([]byte("another certificate"))
	client, err := JoinClient(address, wrong)
	if err != nil {
		t.Fatal(err)
	}
	_, err = get(client, "https://member/join")
	mismatch, ok := errors.AsType[*FingerprintError](err)
	if !ok || mismatch.Want != wrong || mismatch.Got != right || mismatch.Address != address {
		t.Fatalf("error %v", err)
	}
	if text := mismatch.Error(); !strings.Contains(text, wrong) || !strings.Contains(text, right) {
		t.Errorf("the error does not show both: %s", text)
	}
}

func TestJoinClientChecksItsArguments(t *testing.T) {
	_, err := JoinClient("node1:8441", "AB:CD")
	wantCode(t, err, Invalid)
	_, err = JoinClient("node1", Fingerprint(nil))
	wantCode(t, err, Invalid)
	_, err = FetchFingerprint(t.Context(), "node1")
	wantCode(t, err, Invalid)
	client, err := JoinClient("127.0.0.1:1", Fingerprint(nil))
	if err != nil {
		t.Fatal(err)
	}
	_, err = get(client, "https://member/")
	if dial, ok := errors.AsType[*DialError](err); !ok || dial.Address != "127.0.0.1:1" {
		t.Errorf("error %v", err)
	}
	if _, err := get(client, "http://member/"); err == nil {
		t.Error("plain http works")
	}
}

func TestJoinBodyIsBounded(t *testing.T) {
	address, fingerprint := joinable(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "too much", http.StatusRequestEntityTooLarge)
		}
	}))
	client, err := JoinClient(address, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]int{maxJoinBody: http.StatusOK, maxJoinBody + 1: http.StatusRequestEntityTooLarge} {
		response, err := client.Post("https://member/join", "text/plain", strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%d bytes: %s", size, response.Status)
		}
	}
}

// A code is good for one node. (The handler belongs to the caller; the rule belongs to the state.)
func TestJoinWithUsedCode(t *testing.T) {
	code, hash := NewJoinCode()
	s := play(t, new(State), append(founding(), step{"node1", anna, &AddInvite{Hash: hash, Seconds: 3600}})...)
	joins := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hash, err := HashCode(r.FormValue("code"))
		n := testNode(r.FormValue("node"))
		if err := check(err, s.CheckInvite(hash, n.Name, n.Key, epoch.Add(time.Minute))); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		s = play(t, s, step{"node1", daemon1, &AdmitNode{Invite: hash, Node: n}})
	})
	address, fingerprint := joinable(t, joins)
	client, err := JoinClient(address, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct {
		node, code string
		ok         bool
	}{
		{"node2", "0000-0000-0000-0000-0000", false},
		{"node2", strings.ToLower(code), true},
		{"node2", code, true}, // the same node once more
		{"node3", code, false},
	} {
		body, err := get(client, "https://member/join?node="+try.node+"&code="+try.code)
		if (err == nil) != try.ok {
			t.Errorf("%s with %s: %q, %v", try.node, try.code, body, err)
		}
	}
	if len(s.Nodes) != 2 {
		t.Errorf("members are %v", sorted(s.Nodes))
	}
}
