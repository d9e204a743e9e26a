package node

import (
	"strings"
	"testing"
)

// TestPasswordCost: a node that is not told otherwise spends what RFC 9106 asks for on machines with little
// memory (section 4), and takes no stored hash that is cheaper than argon2id can be or dearer than it can pay.
func TestPasswordCost(t *testing.T) {
	a := newAccounts(&Member{node: &Node{}})
	hash, err := a.hash(t.Context(), "correct horse battery staple")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Fatalf("a password is stored as %s, %v", hash, err)
	}
	for password, want := range map[string]bool{"correct horse battery staple": true, "correct horse battery stable": false} {
		if ok, err := a.verify(t.Context(), hash, password); ok != want || err != nil {
			t.Errorf("%q: %v, %v", password, ok, err)
		}
	}
	for _, terms := range []string{"m=7,t=1,p=1", "m=262145,t=1,p=1", "m=64,t=0,p=1", "m=64,t=17,p=1", "m=64,t=1,p=0", "m=64,t=1,p=9", "m=-1,t=1,p=1"} {
		if ok, err := a.verify(t.Context(), strings.Replace(hash, "m=65536,t=3,p=1", terms, 1), "correct horse battery staple"); ok || err == nil {
			t.Errorf("%s is taken: %v, %v", terms, ok, err)
		}
	}
}
