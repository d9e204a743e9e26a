package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// noKeysInMemory scans the memory of both daemons during an export and an import, and after, for the
// numbers of private keys that the test knows. As a proof that the scan finds what is there, it looks for
// the slot's code too, which a daemon keeps while the slot is open.
func noKeysInMemory(t *testing.T, d *testDemo) {
	needles := plantKeys(t, d, 5)
	scan := func(when string) {
		for i, n := range d.Nodes[:2] {
			if found, err := memoryHas(n.PID, needles); err != nil || found {
				t.Errorf("%s's daemon %s: found %v, %v", d.Nodes[i].Name, when, found, err)
			}
			if found, err := memoryHas(n.PID, [][]byte{[]byte(d.Slots[0].PIN)}); err != nil || !found {
				t.Errorf("%s's daemon %s: the scan does not even find the code that must be there: %v", d.Nodes[i].Name, when, err)
			}
		}
	}
	done, scans := make(chan struct{}), make(chan int)
	go func() {
		count := 0
		for more := true; more; count++ {
			select {
			case <-done:
				more = false
			default:
			}
			scan("during the exchange")
		}
		scans <- count
	}()
	d.carry(t, 0, d.Slots[0].Label, 1)
	close(done)
	t.Logf("%d scans during the exchange", <-scans)
	scan("after the exchange")
}

// plantKeys puts key pairs on node1 whose private numbers the test knows, and returns pieces of those
// as they may stand in memory: in network order, and in the order of big-number libraries.
func plantKeys(t *testing.T, d *testDemo, count int) (needles [][]byte) {
	t.Helper()
	first := foreign{d, 0}
	file := filepath.Join(t.TempDir(), "key.der")
	write := func(der []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(file, der, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range count {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		reversed := bytes.Clone(raw)
		slices.Reverse(reversed)
		needles = append(needles, raw[:16], raw[16:], reversed[:16], reversed[16:])
		label, id := fmt.Sprintf("memory %d", i), fmt.Sprintf("3e%02x", i)
		write(x509.MarshalPKCS8PrivateKey(key))
		first.pkcs11Tool(t, "--write-object", file, "--type", "privkey", "--label", label, "--id", id, "--usage-sign", "--extractable")
		write(x509.MarshalPKIXPublicKey(key.Public()))
		first.pkcs11Tool(t, "--write-object", file, "--type", "pubkey", "--label", label, "--id", id)
	}
	d.waitCoverage(t, 0, fmt.Sprintf("memory %d", count-1), node.Missing, "node2")
	return needles
}

// memoryHas searches all readable memory of a process. It takes root, because daemons do not let others in.
func memoryHas(pid int, needles [][]byte) (bool, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return false, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return false, err
	}
	defer mem.Close()
	scanned := 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil || perms[0] != 'r' {
			continue
		}
		const step = 4 << 20
		buf := make([]byte, step+64)
		for at := from; at < to; at += step {
			n, err := mem.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
			if err != nil && n == 0 {
				break // a reserved range without pages, or the kernel's own
			}
			scanned += n
			for _, needle := range needles {
				if bytes.Contains(buf[:n], needle) {
					return true, nil
				}
			}
		}
	}
	if scanned < 1<<20 {
		return false, fmt.Errorf("only %d bytes of process %d could be read", scanned, pid)
	}
	return false, nil
}

// needRoot is for what only root may look at.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		hsmtest.Missing(t, "the right to read other processes' memory (root)")
	}
}
