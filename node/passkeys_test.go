package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// An authenticator is a device with one passkey (WebAuthn, section 6), and what it may get wrong.
type authenticator struct {
	key    *ecdsa.PrivateKey
	id     []byte
	handle []byte // of the person
	count  uint32

	domain, origin string
	flags          byte // user present 1, verified 4
}

// cose is the public key as authenticators send it (RFC 9053, section 7.1).
func (a *authenticator) cose(t *testing.T) []byte {
	t.Helper()
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte{0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32}, point[1:33]...)
	return append(append(b, 0x22, 0x58, 32), point[33:]...)
}

// answer signs the challenge in some options, as navigator.credentials.get and toJSON give it.
func (a *authenticator) answer(t *testing.T, options string) []byte {
	t.Helper()
	var asked struct {
		Challenge        string `json:"challenge"`
		UserVerification string `json:"userVerification"`
	}
	if err := json.Unmarshal([]byte(options), &asked); err != nil || asked.UserVerification != "required" {
		t.Fatalf("the options %s: %v", options, err)
	}
	client, err := json.Marshal(map[string]any{"type": "webauthn.get", "challenge": asked.Challenge, "origin": a.origin, "crossOrigin": false})
	if err != nil {
		t.Fatal(err)
	}
	domain := sha256.Sum256([]byte(a.domain))
	data := binary.BigEndian.AppendUint32(append(domain[:], a.flags), a.count)
	clientHash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), clientHash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	answer, err := json.Marshal(map[string]any{"id": b64(a.id), "rawId": b64(a.id), "type": "public-key", "clientExtensionResults": map[string]any{},
		"response": map[string]string{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature), "userHandle": b64(a.handle)}})
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// TestPasskeys: one logs in without password and code; what is wrong with it is refused and recorded.
func TestPasskeys(t *testing.T) {
	cfg := testConfig(t, t.TempDir(), "node1")
	cfg.WebURL, cfg.PasskeyDomain = "https://console.localhost:1234", "localhost"
	n := open(t, cfg)
	if _, err := n.Found(t.Context(), console, "test"); err != nil {
		t.Fatal(err)
	}
	m, err := n.Member()
	if err != nil {
		t.Fatal(err)
	}
	withAlice(t, m)
	alice := cluster.Actor{Kind: cluster.ByAccount, Name: aliceName}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := authenticator{key: key, id: []byte("a passkey"), handle: m.Passkeys.person(aliceName).WebAuthnID(), count: 5, domain: "localhost", origin: cfg.WebURL, flags: 1 | 4}
	passkey := cluster.Passkey{ID: good.id, Key: good.cose(t), Count: 4, Name: "blue key"}
	if _, err := m.Cluster.Apply(t.Context(), &cluster.AddPasskey{Name: aliceName, Passkey: passkey}, alice); err != nil {
		t.Fatal(err)
	}
	try := func(change func(*authenticator)) error {
		t.Helper()
		c, err := m.Passkeys.BeginLogin()
		if err != nil {
			t.Fatal(err)
		}
		device := good
		change(&device)
		l, err := m.Passkeys.FinishLogin(t.Context(), c, device.answer(t, c.Options), "192.0.2.1")
		if err == nil && (l.Account != aliceName || l.NeedsCode() || l.Method != "passkey") {
			t.Errorf("logged in as %+v", l)
		}
		return err
	}
	stranger, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for name, change := range map[string]func(*authenticator){
		"another key":      func(a *authenticator) { a.key = stranger },
		"unknown passkey":  func(a *authenticator) { a.id = []byte("another") },
		"another person":   func(a *authenticator) { a.handle = m.Passkeys.person("bob").WebAuthnID() },
		"no person":        func(a *authenticator) { a.handle = nil },
		"another domain":   func(a *authenticator) { a.domain = "example.org" },
		"a false page":     func(a *authenticator) { a.origin = "https://console.localhost.evil.example" },
		"another node":     func(a *authenticator) { a.origin = "https://other.localhost:1234" },
		"no finger or PIN": func(a *authenticator) { a.flags = 1 },
		"nobody there":     func(a *authenticator) { a.flags = 4 },
	} {
		if err := try(change); !IsRefusal(err) || !errors.Is(err, errPasskey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, _ := m.Passkeys.BeginLogin()
	answer := good.answer(t, c.Options)
	if _, err := m.Passkeys.FinishLogin(t.Context(), c, answer, "192.0.2.1"); err != nil {
		t.Fatalf("a good passkey: %v", err)
	}
	other, _ := m.Passkeys.BeginLogin()
	if _, err := m.Passkeys.FinishLogin(t.Context(), other, answer, "192.0.2.1"); !errors.Is(err, errPasskey) {
		t.Errorf("an answer to another challenge: %v", err)
	}
	if _, err := m.Passkeys.FinishLogin(t.Context(), nil, answer, "192.0.2.1"); !errors.Is(err, ErrTooLate) {
		t.Errorf("an answer to no challenge: %v", err)
	}
	for _, junk := range []string{"", "{}", "null", "[1]", `{"id":5}`, strings.Repeat("[", 60<<10), "\xff"} {
		if _, err := m.Passkeys.FinishLogin(t.Context(), c, []byte(junk), "192.0.2.1"); !IsRefusal(err) {
			t.Errorf("%.20q: %v", junk, err)
		}
	}
	if err := try(func(a *authenticator) { a.count = 5 }); err == nil || !strings.Contains(err.Error(), "may have been copied") {
		t.Errorf("a counter that stands still: %v", err)
	}
	if err := try(func(a *authenticator) { a.count = 6 }); err != nil {
		t.Errorf("the next: %v", err)
	}
	if got := m.State().Accounts[aliceName].Passkeys[0].Count; got != 6 {
		t.Errorf("the counter is %d", got)
	}
	if _, err := m.Cluster.Apply(t.Context(), &cluster.RemoveFactor{Name: aliceName, Factor: cluster.FactorPasskey, ID: "612070617373" + "6b6579"}, alice); err != nil {
		t.Fatal(err)
	}
	if err := try(func(a *authenticator) { a.count = 7 }); !errors.Is(err, errPasskey) {
		t.Errorf("a removed passkey: %v", err)
	}
}
