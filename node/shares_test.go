package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crypto/hpke"

	"github.com/keyferry/keyferry/cluster"
)

var testName = splitName{"c1", "payments", "s1", 1}

// testHolders makes custodians with keys.
func testHolders(t testing.TB, n int) ([]holder, map[string][]byte) {
	t.Helper()
	var list []holder
	seeds := map[string][]byte{}
	for i := range n {
		key, err := hpke.MLKEM1024P384().GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("person%02d", i)
		if seeds[name], err = key.Bytes(); err != nil {
			t.Fatal(err)
		}
		list = append(list, holder{name, "key-" + name, key.PublicKey().Bytes()})
	}
	return list, seeds
}

func openAll(t testing.TB, n splitName, p cluster.Split, seeds map[string][]byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, share := range p.Shares {
		b, err := n.openShare(share.Account, share, seeds[share.Account])
		if err != nil {
			t.Fatal(err)
		}
		all[share.Account] = b
	}
	return all
}

// Every m of n give the secret back, and no m-1 give anything.
func TestEverySubset(t *testing.T) {
	holders, seeds := testHolders(t, 5)
	for _, c := range []struct{ m, n int }{{2, 2}, {2, 3}, {3, 3}, {3, 5}, {5, 5}} {
		secret, err := newSecret()
		if err != nil {
			t.Fatal(err)
		}
		p, err := testName.makeSplit(secret, c.m, holders[:c.n], []string{"node1"})
		if err != nil {
			t.Fatal(err)
		}
		all := openAll(t, testName, p, seeds)
		for mask := range 1 << c.n {
			some := map[string][]byte{}
			for i := range c.n {
				if mask>>i&1 == 1 {
					some[holders[i].account] = all[holders[i].account]
				}
			}
			got, err := testName.combine(p, some)
			if enough := len(some) >= c.m; enough != (err == nil) || enough && !bytes.Equal(got, secret) || !enough && !errors.Is(err, errTooFew) {
				t.Errorf("%d of %d, with %d: %v", c.m, c.n, len(some), err)
			}
		}
	}
}

func TestCombineRefuses(t *testing.T) {
	holders, seeds := testHolders(t, 3)
	secret, _ := newSecret()
	p, err := testName.makeSplit(secret, 2, holders, []string{"node1"})
	if err != nil {
		t.Fatal(err)
	}
	other := testName
	other.split = "s2"
	q, err := other.makeSplit(secret, 2, holders, []string{"node1"})
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := openAll(t, testName, p, seeds), openAll(t, other, q, seeds)
	a, b, c := holders[0].account, holders[1].account, holders[2].account
	flipped := bytes.Clone(mine[b])
	flipped[40] ^= 1
	for name, shares := range map[string]map[string][]byte{
		"of two splits":       {a: mine[a], b: theirs[b]},
		"changed":             {a: mine[a], b: flipped},
		"the same twice":      {a: mine[a], b: mine[a]},
		"too short":           {a: mine[a], b: mine[b][:65]},
		"too long":            {a: mine[a], b: append(bytes.Clone(mine[b]), 0)},
		"empty":               {a: mine[a], b: nil},
		"of nobody":           {a: mine[a], "mallory": mine[b]},
		"swapped":             {a: mine[b], b: mine[a]},
		"larger than a field": {a: mine[a], b: bytes.Repeat([]byte{255}, shareSize)},
		"one wrong of three":  {a: mine[a], c: mine[c], b: flipped},
	} {
		if _, err := testName.combine(p, shares); !errors.Is(err, errOtherSplit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wrong := p
	wrong.Check = strings.Repeat("0", 64)
	if _, err := testName.combine(wrong, mine); err == nil {
		t.Error("a secret with another check value was taken")
	}
	one := p
	one.Threshold = 1
	if _, err := testName.combine(one, map[string][]byte{a: mine[a]}); err == nil {
		t.Error("one of one was taken")
	}
}

// A sealed share opens for its holder in its place, and nowhere else.
func TestSealedShare(t *testing.T) {
	holders, seeds := testHolders(t, 2)
	secret, _ := newSecret()
	p, err := testName.makeSplit(secret, 2, holders, []string{"node1"})
	if err != nil {
		t.Fatal(err)
	}
	share := p.Shares[0]
	tampered := share
	tampered.Sealed = bytes.Clone(share.Sealed)
	tampered.Sealed[len(tampered.Sealed)-1] ^= 1
	index := share
	index.Index = 2
	for name, try := range map[string]func() error{
		"tampered": func() error { _, err := testName.openShare(share.Account, tampered, seeds[share.Account]); return err },
		"another person": func() error {
			_, err := testName.openShare(share.Account, share, seeds[p.Shares[1].Account])
			return err
		},
		"another account": func() error {
			_, err := testName.openShare(p.Shares[1].Account, share, seeds[share.Account])
			return err
		},
		"another index": func() error { _, err := testName.openShare(share.Account, index, seeds[share.Account]); return err },
		"empty": func() error {
			_, err := testName.openShare(share.Account, cluster.Share{Index: 1}, seeds[share.Account])
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for _, n := range []splitName{{"c2", "payments", "s1", 1}, {"c1", "tls", "s1", 1}, {"c1", "payments", "s2", 1}, {"c1", "payments", "s1", 2}} {
		if _, err := n.openShare(share.Account, share, seeds[share.Account]); err == nil {
			t.Errorf("opened as %v", n)
		}
	}
}

// Codes differ by node, slot and generation, are long, and fit the token.
func TestNodeCodes(t *testing.T) {
	secret, _ := newSecret()
	seen := map[string]bool{}
	for _, n := range []splitName{testName, {"c2", "payments", "s1", 1}, {"c1", "tls", "s1", 1}, {"c1", "payments", "s1", 2}} {
		for _, node := range []string{"node1", "node2"} {
			code, err := n.nodeCode(secret, node, 4, 255)
			if err != nil || len(code) != maxGenerated || checkManual(code, 4, 255) != nil {
				t.Errorf("%q, %v", code, err)
			}
			seen[string(code)] = true
		}
	}
	if len(seen) != 8 {
		t.Errorf("%d codes differ of 8", len(seen))
	}
	again := testName
	again.split = "other holders"
	one, _ := testName.nodeCode(secret, "node1", 4, 255)
	if two, _ := again.nodeCode(secret, "node1", 4, 255); !bytes.Equal(one, two) {
		t.Error("other holders have another code")
	}
	if code, err := testName.nodeCode(secret, "node1", 4, 28); err != nil || len(code) != 28 {
		t.Errorf("28 characters: %q, %v", code, err)
	}
	if _, err := testName.nodeCode(secret, "node1", 4, 16); !IsRefusal(err) {
		t.Errorf("a token that takes 16 characters: %v", err)
	}
}

// Shares are wiped when the time is over, and it is told once.
func TestSharesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var expired []needKey
		c := newCollecting()
		c.expired = func(k needKey) { expired = append(expired, k) }
		k := needKey{slot: "payments", purpose: ForOpening}
		share := []byte{1, 2, 3}
		if c.put(k, "s1", "anna", share) || !c.put(k, "s1", "anna", share) {
			t.Error("the same holder twice")
		}
		kept := c.piles[k].shares["s1"]["anna"]
		any := func(string) bool { return true }
		time.Sleep(shareLife - time.Second)
		c.put(k, "s1", "berta", share) // does not lengthen the time
		if n, _ := c.have(k, "s1", any); n != 2 {
			t.Errorf("%d before the end", n)
		}
		if n, _ := c.have(k, "s1", func(a string) bool { return a != "anna" }); n != 1 {
			t.Errorf("%d without anna, who was removed", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n, _ := c.have(k, "s1", any); n != 0 || !bytes.Equal(kept, make([]byte, 3)) || !slices.Equal(expired, []needKey{k}) {
			t.Errorf("after the end: %d, %v, %v", n, kept, expired)
		}
		c.put(k, "s1", "anna", share)
		if _, ok := c.take(k, func(map[string]map[string][]byte) bool { return true }); !ok {
			t.Error("nothing to take")
		}
		time.Sleep(2 * shareLife)
		if len(expired) != 1 {
			t.Error("what was taken expired")
		}
	})
}

func FuzzShares(f *testing.F) {
	f.Add([]byte(`[{"Slot":"a","Purpose":"open","Split":"s","Share":"AAAA"}]`))
	f.Add([]byte(`[]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		given, err := readShares(b)
		if err != nil {
			return
		}
		for _, g := range given {
			if len(g.Share) != shareSize {
				t.Errorf("a share of %d bytes", len(g.Share))
			}
		}
	})
}
