package cluster

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func testTOTP() *SetTOTP {
	return &SetTOTP{Name: "anna", Salt: bytes.Repeat([]byte{1}, minSalt), Sealed: bytes.Repeat([]byte{2}, 48), Step: 100}
}

func testPasskey(id string) Passkey {
	return Passkey{ID: []byte(id), Key: []byte("a COSE key"), Count: 7, Synced: true, Name: "blue key"}
}

func testCertificate(n byte) ClientCertificate {
	return ClientCertificate{Fingerprint: strings.Repeat(string("0123456789abcdef"[n]), 64), Subject: "CN=Anna", Issuer: []byte("the issuer"), NotAfter: epoch.AddDate(1, 0, 0), Name: "smart card"}
}

// factorHistory gives anna one of each factor, and a lock.
func factorHistory() []step {
	return []step{
		{"node1", anna, testTOTP()},
		{"node1", anna, &AddPasskey{Name: "anna", Passkey: testPasskey("one")}},
		{"node1", anna, &AddCertificate{Name: "anna", Certificate: testCertificate(1)}},
		{"node1", daemon1, &ReportLock{Name: "anna", Tries: 10, Until: epoch.Add(time.Hour)}},
		{"node1", anna, &EndSessions{Name: "anna"}},
	}
}

// A factor is for its owner, and for whoever manages accounts as far as that person may.
func TestFactors(t *testing.T) {
	s := play(t, new(State), append(founding(), factorHistory()...)...)
	s = play(t, s, person("berta", RoleGrant{Role: SecurityOfficer}), person("carl", RoleGrant{Role: Auditor}))
	for name, c := range map[string]struct {
		step
		code Code
	}{
		"second generator":             {step{"node1", anna, testTOTP()}, Conflict},
		"generator of another":         {step{"node1", as("berta"), testTOTP()}, Denied},
		"generator by the console":     {step{"node1", console, testTOTP()}, Denied},
		"passkey twice":                {step{"node1", anna, &AddPasskey{Name: "anna", Passkey: testPasskey("one")}}, Conflict},
		"passkey of two people":        {step{"node1", as("berta"), &AddPasskey{Name: "berta", Passkey: testPasskey("one")}}, Conflict},
		"passkey for another":          {step{"node1", as("berta"), &AddPasskey{Name: "anna", Passkey: testPasskey("two")}}, Denied},
		"certificate twice":            {step{"node1", anna, &AddCertificate{Name: "anna", Certificate: testCertificate(1)}}, Conflict},
		"certificate of two people":    {step{"node1", as("berta"), &AddCertificate{Name: "berta", Certificate: testCertificate(1)}}, Conflict},
		"certificate for another":      {step{"node1", as("carl"), &AddCertificate{Name: "anna", Certificate: testCertificate(2)}}, Denied},
		"certificate for nobody":       {step{"node1", anna, &AddCertificate{Name: "emil", Certificate: testCertificate(2)}}, NotFound},
		"certificate that ended":       {step{"node1", anna, &AddCertificate{Name: "anna", Certificate: ended(testCertificate(2))}}, Expired},
		"factor of another":            {step{"node1", as("carl"), &RemoveFactor{Name: "anna", Factor: FactorTOTP}}, Denied},
		"factor that is not there":     {step{"node1", as("carl"), &RemoveFactor{Name: "carl", Factor: FactorTOTP}}, NotFound},
		"passkey that is not there":    {step{"node1", anna, &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: "00"}}, NotFound},
		"one-time password again":      {step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorTOTP, Counter: 100}}, Denied},
		"older one-time password":      {step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorTOTP, Counter: 99}}, Denied},
		"one-time password of nobody":  {step{"node1", daemon1, &ReportFactor{Name: "carl", Factor: FactorTOTP, Counter: 99}}, NotFound},
		"counter again":                {step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorPasskey, ID: []byte("one"), Counter: 7}}, Denied},
		"counter to nothing":           {step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorPasskey, ID: []byte("one")}}, Denied},
		"sessions of another":          {step{"node1", as("carl"), &EndSessions{Name: "anna"}}, Denied},
		"own lock":                     {step{"node1", anna, &UnlockAccount{Name: "anna"}}, Conflict},
		"lock lifted by a stranger":    {step{"node1", as("carl"), &UnlockAccount{Name: "anna"}}, Denied},
		"no lock":                      {step{"node1", anna, &UnlockAccount{Name: "carl"}}, NotFound},
		"lock for years":               {step{"node1", daemon1, &ReportLock{Name: "anna", Tries: 10, Until: epoch.AddDate(3, 0, 0)}}, Invalid},
		"password without its secret":  {step{"node1", anna, &SetPassword{Hash: testHash}}, Conflict},
		"password with an old secret":  {step{"node1", anna, &SetPassword{Hash: testHash, TOTP: resealed(3)}}, Conflict},
		"password with another secret": {step{"node1", as("carl"), &SetPassword{Hash: testHash, TOTP: resealed(1)}}, Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			next, err := try(t, s, c.step)
			wantCode(t, err, c.code)
			undone := *next
			undone.Index, undone.Audit, undone.AuditBase = s.Index, s.Audit, s.AuditBase
			if undone.Hash() != s.Hash() {
				t.Error("a refused command changed the state")
			}
		})
	}
}

func ended(c ClientCertificate) ClientCertificate {
	c.NotAfter = epoch
	return c
}

func resealed(before byte) *ResealedTOTP {
	return &ResealedTOTP{Before: bytes.Repeat([]byte{before}, minSalt), Salt: bytes.Repeat([]byte{5}, minSalt), Sealed: bytes.Repeat([]byte{6}, 48)}
}

// What people may do with factors leaves the account as a decoded State would have it.
func TestFactorsComeAndGo(t *testing.T) {
	s := play(t, new(State), append(founding(), factorHistory()...)...)
	s = play(t, s, person("berta", RoleGrant{Role: SecurityOfficer}))
	s = play(t, s, step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorTOTP, Counter: 101}},
		step{"node1", daemon1, &ReportFactor{Name: "anna", Factor: FactorPasskey, ID: []byte("one"), Counter: 9}},
		step{"node1", anna, &SetPassword{Hash: testHash, TOTP: resealed(1)}})
	a := s.Accounts["anna"]
	if a.TOTP.LastStep != 101 || a.Passkeys[0].Count != 9 || a.TOTP.Salt[0] != 5 || a.TOTP.Sealed[0] != 6 || a.TOTP.Created.IsZero() {
		t.Errorf("after use and a new password: %+v", a)
	}
	if s.PasskeyOwner([]byte("one")) != "anna" || s.PasskeyOwner(nil) != "" || s.CertificateOwner(testCertificate(1).Fingerprint) != "anna" || s.CertificateOwner("") != "" {
		t.Error("the owners of factors are not found")
	}
	reset := play(t, s, step{"node1", as("berta"), &ResetPassword{Name: "anna", Hash: testHash}})
	if a := reset.Accounts["anna"]; len(a.TOTP.Sealed) > 0 || len(a.Passkeys) != 1 {
		t.Errorf("after a reset: %+v", a)
	}
	s = play(t, s, step{"node1", as("berta"), &RemoveFactor{Name: "anna", Factor: FactorTOTP}},
		step{"node1", console, &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: "6f6e65"}},
		step{"node1", anna, &RemoveFactor{Name: "anna", Factor: FactorCertificate, ID: testCertificate(1).Fingerprint}},
		step{"node1", as("berta"), &UnlockAccount{Name: "anna"}}, step{"node1", as("berta"), &EndSessions{Name: "anna"}})
	a = s.Accounts["anna"]
	if a.Passkeys != nil || a.Certificates != nil || a.Locks != nil || a.SessionEpoch != 4 || len(a.TOTP.Sealed) > 0 {
		t.Errorf("after all: %+v", a)
	}
}

// A counter that stays at nothing is of an authenticator that has none; one that goes back is a copy.
func TestPasskeyCounter(t *testing.T) {
	for _, c := range []struct {
		before, after uint32
		ok            bool
	}{{0, 0, true}, {0, 1, true}, {1, 0, false}, {7, 7, false}, {7, 6, false}, {7, 8, true}, {1<<32 - 1, 0, false}} {
		if err := (&Passkey{Count: c.before, Name: "x"}).CheckCount(c.after); (err == nil) != c.ok {
			t.Errorf("%d after %d: %v", c.after, c.before, err)
		}
	}
}

// Each node has a lock of its own; ended ones go with the next.
func TestLocks(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	lock := func(node string, after time.Duration) step {
		return step{node, Actor{ByNode, node}, &ReportLock{Name: "anna", Tries: 10, Until: epoch.Add(after)}}
	}
	s = play(t, s, lock("node2", time.Hour), lock("node1", time.Hour), lock("node1", 2*time.Hour))
	locks := s.Accounts["anna"].Locks
	if len(locks) != 2 || locks[0].Node != "node1" || !locks[0].Until.Equal(epoch.Add(2*time.Hour)) || locks[1].Node != "node2" {
		t.Errorf("locks are %+v", locks)
	}
	if e := s.Audit[len(s.Audit)-1]; e.Act != NoteLocked || e.Alert != AlertLockout || !strings.Contains(e.Detail, "10 wrong passwords") {
		t.Errorf("a lock is recorded as %+v", e)
	}
	s.Index += 4000
	s = play(t, s, lock("node1", 3*time.Hour))
	if locks := s.Accounts["anna"].Locks; len(locks) != 1 {
		t.Errorf("an ended lock is still there: %+v", locks)
	}
}

// The shape of factors is checked before they are proposed.
func TestFactorShapes(t *testing.T) {
	long := strings.Repeat("x", maxFactorName+1)
	for i, cmd := range []Command{
		&SetTOTP{Name: "anna", Salt: make([]byte, minSalt-1), Sealed: make([]byte, 48)}, &SetTOTP{Name: "anna", Salt: make([]byte, minSalt), Sealed: make([]byte, maxSealed+1)},
		&SetTOTP{Name: "Anna!", Salt: make([]byte, minSalt), Sealed: make([]byte, 48)}, &SetPassword{Hash: testHash, TOTP: &ResealedTOTP{}},
		&AddPasskey{Name: "anna", Passkey: Passkey{Key: []byte("k"), Name: "x"}}, &AddPasskey{Name: "anna", Passkey: Passkey{ID: make([]byte, maxCredential+1), Key: []byte("k"), Name: "x"}},
		&AddPasskey{Name: "anna", Passkey: Passkey{ID: []byte("i"), Key: make([]byte, maxPublicKey+1), Name: "x"}}, &AddPasskey{Name: "anna", Passkey: Passkey{ID: []byte("i"), Key: []byte("k"), Name: long}},
		&AddPasskey{Name: "anna", Passkey: Passkey{ID: []byte("i"), Key: []byte("k"), Name: "a\xffb"}}, &AddPasskey{Name: "anna", Passkey: Passkey{ID: []byte("i"), Key: []byte("k"), Name: ""}},
		&AddCertificate{Name: "anna", Certificate: ClientCertificate{}}, &AddCertificate{Name: "anna", Certificate: certificateBut(func(c *ClientCertificate) { c.Fingerprint = "ABC" })},
		&AddCertificate{Name: "anna", Certificate: certificateBut(func(c *ClientCertificate) { c.Issuer = nil })}, &AddCertificate{Name: "anna", Certificate: certificateBut(func(c *ClientCertificate) { c.Issuer = make([]byte, maxIssuer+1) })},
		&AddCertificate{Name: "anna", Certificate: certificateBut(func(c *ClientCertificate) { c.NotAfter = time.Time{} })}, &AddCertificate{Name: "anna", Certificate: certificateBut(func(c *ClientCertificate) { c.Subject = "a\x00b" })},
		&RemoveFactor{Name: "anna", Factor: "password"}, &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: "xyz"}, &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: strings.Repeat("00", maxCredential+1)},
		&ReportFactor{Name: "anna", Factor: FactorCertificate}, &ReportFactor{Name: "anna", Factor: FactorPasskey, ID: []byte("x"), Counter: 1 << 32}, &ReportFactor{Name: "", Factor: FactorTOTP},
		&ReportLock{Name: "anna", Tries: 0, Until: epoch}, &ReportLock{Name: "anna", Tries: 1}, &UnlockAccount{Name: "../x"}, &EndSessions{Name: ""},
	} {
		if err := cmd.validate(); !errors.Is(err, Invalid) {
			t.Errorf("%d: %s %+v is valid: %v", i, cmd.Kind(), cmd, err)
		}
	}
}

func certificateBut(f func(*ClientCertificate)) ClientCertificate {
	c := testCertificate(1)
	f(&c)
	return c
}

// There is a bound to how many factors a person has.
func TestManyFactors(t *testing.T) {
	s := play(t, new(State), founding()...)
	for i := range maxFactors {
		s = play(t, s, step{"node1", anna, &AddPasskey{Name: "anna", Passkey: testPasskey(string(rune('a' + i)))}},
			step{"node1", anna, &AddCertificate{Name: "anna", Certificate: testCertificate(byte(i))}})
	}
	_, err := try(t, s, step{"node1", anna, &AddPasskey{Name: "anna", Passkey: testPasskey("more")}})
	wantCode(t, err, Full)
	_, err = try(t, s, step{"node1", anna, &AddCertificate{Name: "anna", Certificate: testCertificate(15)}})
	wantCode(t, err, Full)
}
