package cluster

import (
	"testing"
	"time"
)

// reset is anna after a security officer gave her a temporary password. She had one of each factor, a
// custodian key, and a lock.
func reset(t *testing.T) *State {
	t.Helper()
	s := play(t, new(State), append(founding(), factorHistory()...)...)
	return play(t, s, person("berta", RoleGrant{Role: SecurityOfficer}),
		step{"node1", anna, &PutCustodian{Account: "anna", Key: "key-1", Public: []byte{4}, Sealed: testSealed}},
		step{"node1", as("berta"), &ResetPassword{Name: "anna", Hash: testHash}})
}

// Whoever made a temporary password knows it. Nothing that is done with it may outlast it, in either
// direction: another way in, or one less.
func TestTemporaryPasswordKeepsNothing(t *testing.T) {
	s := reset(t)
	left := map[string]step{
		"generator":           {"node1", anna, testTOTP()},
		"passkey":             {"node1", anna, &AddPasskey{Name: "anna", Passkey: testPasskey("two")}},
		"certificate":         {"node1", anna, &AddCertificate{Name: "anna", Certificate: testCertificate(2)}},
		"removed passkey":     {"node1", anna, &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: "6f6e65"}},
		"removed certificate": {"node1", anna, &RemoveFactor{Name: "anna", Factor: FactorCertificate, ID: testCertificate(1).Fingerprint}},
		"new custodian key":   {"node1", anna, &PutCustodian{Account: "anna", Key: "key-2", Public: []byte{5}, Sealed: testSealed}},
		"other passphrase":    {"node1", anna, &PutCustodian{Account: "anna", Key: "key-1", Sealed: testSealed}},
	}
	for name, c := range left {
		next, err := try(t, s, c)
		wantCode(t, err, Denied)
		undone := *next
		undone.Index, undone.Audit, undone.AuditBase = s.Index, s.Audit, s.AuditBase
		if undone.Hash() != s.Hash() {
			t.Errorf("%s: a refused command changed the state", name)
		}
	}
	play(t, s, step{"node1", anna, &EndSessions{Name: "anna"}}) // leaves nothing
	play(t, s, step{"node1", as("berta"), &RemoveFactor{Name: "anna", Factor: FactorPasskey, ID: "6f6e65"}},
		step{"node1", as("berta"), &AddCertificate{Name: "anna", Certificate: testCertificate(2)}})
	s = play(t, s, step{"node1", anna, &SetPassword{Hash: testHash}})
	for name, c := range left {
		if _, err := try(t, s, c); err != nil {
			t.Errorf("%s, with a password of her own: %v", name, err)
		}
	}
}

// A first password is as temporary as a later one.
func TestFirstPasswordKeepsNothing(t *testing.T) {
	s := play(t, new(State), append(founding(), step{"node1", anna, &PutAccount{Name: "new", Hash: testHash, New: true, Temporary: true}})...)
	_, err := try(t, s, step{"node1", as("new"), &AddPasskey{Name: "new", Passkey: testPasskey("new")}})
	wantCode(t, err, Denied)
}

// Guesses at the old password are none at the new one; and a lock after that counts.
func TestResetLiftsLocks(t *testing.T) {
	s := reset(t)
	if a := s.Accounts["anna"]; a.Locks != nil || !a.MustChange {
		t.Errorf("after a reset: %+v", a)
	}
	s = play(t, s, step{"node1", daemon1, &ReportLock{Name: "anna", Tries: 10, Until: epoch.Add(time.Hour)}})
	if len(s.Accounts["anna"].Locks) != 1 {
		t.Error("wrong temporary passwords do not lock")
	}
}
