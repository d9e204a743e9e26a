package node

import (
	"bytes"
	"encoding/base32"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/pquerna/otp/totp"
)

const (
	aliceName     = "alice"
	alicePassword = "a long way to Tipperary"
)

func withAlice(t *testing.T, m *Member) {
	t.Helper()
	code, err := m.Accounts.NewFirstCode()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Accounts.CreateFirst(t.Context(), code, aliceName, alicePassword); err != nil {
		t.Fatal(err)
	}
}

// TestWaits: the first tries are free, then each wrong one costs twice the time, then an hour.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccounts(nil)
		var waits []time.Duration
		for range 12 {
			f := a.count("x", "")
			waits = append(waits, max(0, time.Until(f.until)))
		}
		want := []time.Duration{0, 0, 0, 0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, time.Hour, time.Hour, time.Hour}
		if !slices.Equal(waits, want) {
			t.Errorf("the waits are %v, want %v", waits, want)
		}
		a.forgive("x")
		if f := a.count("x", ""); f.count != 1 {
			t.Errorf("after a right password %d wrong ones are counted", f.count)
		}
	})
}

// TestManyNames: strangers who guess names cannot fill the memory, nor push out who is made to wait.
func TestManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccounts(nil)
		for range lockAfter {
			a.count("watched", "")
		}
		for i := range 2 * mostFailures {
			a.count(strings.Repeat("n", i%300)+string(rune('a'+i%26))+time.Duration(i).String(), "")
		}
		if len(a.fails) > mostFailures {
			t.Errorf("%d names are remembered", len(a.fails))
		}
		if a.fails["watched"].count != lockAfter {
			t.Error("a locked account is forgotten")
		}
	})
}

// TestLockout: it is the same for names that there are and for others, seen and lifted by the cluster, and
// survives a restart of the node.
func TestLockout(t *testing.T) {
	m := newCluster(t, 1)[0]
	withAlice(t, m)
	a := m.Accounts
	for _, name := range []string{aliceName, "nobody", "tYpEd=my=Password+here"} {
		a.mu.Lock()
		a.fails[name] = failures{count: lockAfter - 1, hash: m.State().Accounts[name].Hash}
		a.mu.Unlock()
		if _, err := a.Login(t.Context(), name, "wrong", "192.0.2.1"); !errors.Is(err, ErrLogin) {
			t.Errorf("%s: %v", name, err)
		}
		wait, ok := errors.AsType[*WaitError](second(a.Login(t.Context(), name, alicePassword, "192.0.2.1")))
		if !ok || time.Until(wait.Until) < lockTime-time.Minute {
			t.Errorf("%s is not locked: %v", name, wait)
		}
	}
	eventually(t, "the lock is in the state, and its node knows", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(m.State().Accounts[aliceName].Locks) == 1 && a.fails[aliceName].told
	})
	audit := m.State().Audit
	locked := slices.IndexFunc(audit, func(e cluster.Entry) bool { return e.Act == cluster.NoteLocked })
	if locked < 0 || audit[locked].Alert != cluster.AlertLockout || audit[locked].Object != "account/"+aliceName {
		t.Error("the lock is not in the audit trail, as an alert")
	}
	for _, e := range audit {
		if strings.Contains(e.Object+e.Detail, "nobody") || strings.Contains(e.Object+e.Detail, "tYpEd") {
			t.Errorf("a name that is none is in the audit trail: %+v", e)
		}
	}
	a.mu.Lock()
	clear(a.fails) // as after a restart
	a.mu.Unlock()
	if _, err := a.Login(t.Context(), aliceName, alicePassword, "192.0.2.1"); err == nil {
		t.Error("a restart has lifted the lock")
	}
	a.mu.Lock()
	a.fails[aliceName] = failures{count: lockAfter, until: time.Now().Add(lockTime), told: true, hash: m.State().Accounts[aliceName].Hash}
	a.mu.Unlock()
	if err := a.Unlock(t.Context(), console, aliceName); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Login(t.Context(), aliceName, alicePassword, "192.0.2.1"); err != nil {
		t.Errorf("after the lock was lifted: %v", err)
	}
}

// TestNewPasswordIsNotLocked: wrong tries of the old password do not keep a person out who was given another,
// whether the cluster knows of the lock or only this node.
func TestNewPasswordIsNotLocked(t *testing.T) {
	m := newCluster(t, 1)[0]
	withAlice(t, m)
	a := m.Accounts
	for _, told := range []bool{true, false} {
		until := time.Now().Add(lockTime)
		if told {
			if _, err := m.Cluster.Apply(t.Context(), &cluster.ReportLock{Name: aliceName, Tries: lockAfter, Until: until}, m.self()); err != nil {
				t.Fatal(err)
			}
		}
		a.mu.Lock()
		a.fails[aliceName] = failures{count: lockAfter, until: until, told: told, hash: m.State().Accounts[aliceName].Hash}
		a.mu.Unlock()
		if _, ok := a.mayTry(aliceName); ok {
			t.Fatal("the account is not locked")
		}
		password, err := a.ResetPassword(t.Context(), console, aliceName)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Login(t.Context(), aliceName, password, "192.0.2.1"); err != nil {
			t.Errorf("told %v: a fresh temporary password: %v", told, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestFirstWrongPasswordIsRecorded, and the next is not; the login is.
func TestFirstWrongPasswordIsRecorded(t *testing.T) {
	m := newCluster(t, 1)[0]
	withAlice(t, m)
	for range 3 {
		m.Accounts.Login(t.Context(), aliceName, "wrong", "192.0.2.1, Firefox")
	}
	if _, err := m.Accounts.Login(t.Context(), aliceName, alicePassword, "192.0.2.1, Firefox"); err != nil {
		t.Fatal(err)
	}
	entries := func(act string) (n int) {
		for _, e := range m.State().Audit {
			if e.Act == act && e.Object == "account/"+aliceName && strings.Contains(e.Detail, "192.0.2.1, Firefox") {
				n++
			}
		}
		return n
	}
	eventually(t, "one refusal and one login are recorded", func() bool {
		return entries(cluster.NoteLoginRefused) == 1 && entries(cluster.NoteLogin) == 1
	})
}

// TestFindStep: the code of now, of one step before and one after, and of no other; as people type it.
func TestFindStep(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, totpSecret)
	now := time.Unix(1_800_000_015, 0)
	code := func(at time.Time) string {
		c, err := totp.GenerateCode(base32.StdEncoding.EncodeToString(secret), at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for offset, want := range map[int]bool{-2: false, -1: true, 0: true, 1: true, 2: false} {
		step, ok := findStep(secret, code(now.Add(time.Duration(offset)*totpPeriod*time.Second)), now)
		if ok != want || ok && step != uint64(1_800_000_015/totpPeriod+offset) {
			t.Errorf("%d steps off: %v, step %d", offset, ok, step)
		}
	}
	right := code(now)
	for typed, want := range map[string]bool{right[:3] + " " + right[3:]: true, " " + right + "\n": true, "": false, right[:5]: false, right + "0": false, "abcdef": false,
		"١٢٣٤٥٦": false, "\xff\xff\xff\xff\xff\xff": false, strings.Repeat(right, 1000): false, "-" + right[1:]: false} {
		if _, ok := findStep(secret, typed, now); ok != want {
			t.Errorf("%.20q: %v", typed, ok)
		}
	}
	// The example of RFC 6238, appendix B, cut to six digits.
	if _, ok := findStep([]byte("12345678901234567890"), "287082", time.Unix(59, 0)); !ok {
		t.Error("the example of the RFC is refused")
	}
}

// TestSealedSecrets open with the account's password and name, and with nothing else.
func TestSealedSecrets(t *testing.T) {
	a := newAccounts(nil)
	salt, sealed, err := a.seal(t.Context(), aliceName, alicePassword, []byte("the secret of alice"))
	if err != nil {
		t.Fatal(err)
	}
	account := cluster.Account{Name: aliceName, Factors: cluster.Factors{TOTP: cluster.TOTP{Salt: salt, Sealed: sealed}}}
	if got, err := a.unseal(t.Context(), account, alicePassword); err != nil || string(got) != "the secret of alice" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.unseal(t.Context(), account, "another"); err == nil {
		t.Error("another password opens it")
	}
	account.Name = "bob"
	if _, err := a.unseal(t.Context(), account, alicePassword); err == nil {
		t.Error("it opens for another account")
	}
	if bytes.Contains(sealed, []byte("alice")) {
		t.Error("it is not sealed")
	}
}

// TestStepsAreUsedOnce, on one node also without the cluster, and on all with it.
func TestStepsAreUsedOnce(t *testing.T) {
	members := newCluster(t, 2)
	withAlice(t, members[0])
	e, err := members[0].Accounts.BeginTOTP(t.Context(), cluster.Actor{Kind: cluster.ByAccount, Name: aliceName}, alicePassword)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	text := base32.StdEncoding.EncodeToString(e.secret)
	first, _ := totp.GenerateCode(text, now)
	if err := members[0].Accounts.FinishTOTP(t.Context(), cluster.Actor{Kind: cluster.ByAccount, Name: aliceName}, e, first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node2 knows", func() bool { return len(members[1].State().Accounts[aliceName].TOTP.Sealed) > 0 })
	step := uint64(now.Unix()) / totpPeriod
	if err := members[1].Accounts.useStep(t.Context(), aliceName, step); !errors.Is(err, ErrCode) {
		t.Errorf("the code that set it up is taken: %v", err)
	}
	if err := members[1].Accounts.useStep(t.Context(), aliceName, step+1); err != nil {
		t.Errorf("the next code: %v", err)
	}
	for _, m := range members {
		if err := m.Accounts.useStep(t.Context(), aliceName, step+1); !errors.Is(err, ErrCode) {
			t.Errorf("%s takes a code twice: %v", m.Name(), err)
		}
	}
}

// TestPasskeyDomain: what browsers would refuse is refused in the configuration.
func TestPasskeyDomain(t *testing.T) {
	for _, c := range []struct {
		domain, url string
		ok          bool
	}{
		{"example.org", "https://node1.example.org:8444", true}, {"node1.example.org", "https://node1.example.org", true}, {"localhost", "https://localhost:1234", true},
		{"example.org", "https://node1.badexample.org", false}, {"127.0.0.1", "https://127.0.0.1:1", false}, {"::1", "https://[::1]:1", false}, {"other.org", "https://node1.example.org", false},
	} {
		if err := CheckPasskeyDomain(c.domain, c.url); (err == nil) != c.ok {
			t.Errorf("%s at %s: %v", c.domain, c.url, err)
		}
	}
}
