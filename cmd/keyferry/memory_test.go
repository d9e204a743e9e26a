package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/hsm/hsmtest"
	"github.com/keyferry/keyferry/node"
)

// noKeysInMemory scans the memory of both daemons during an export and an import, and after, for the
// bytes of a private key that the test knows. As a proof that the scan can find them, it looks into the
// HSM worker too, where they must be.
func noKeysInMemory(t *testing.T, d *testDemo) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.der")
	if err := os.WriteFile(file, der, 0o600); err != nil {
		t.Fatal(err)
	}
	needle := raw[:16]
	first := foreign{d, 0}
	first.pkcs11Tool(t, "--write-object", file, "--type", "privkey", "--label", "memory", "--id", "3e", "--usage-sign", "--extractable")
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, spki, 0o600); err != nil {
		t.Fatal(err)
	}
	first.pkcs11Tool(t, "--write-object", file, "--type", "pubkey", "--label", "memory", "--id", "3e")
	d.waitCoverage(t, 0, "memory", node.Missing, "node2")

	done := make(chan struct{})
	scans := make(chan int)
	go func() { // during
		n := 0
		for {
			select {
			case <-done:
				scans <- n
				return
			default:
			}
			for _, i := range []int{0, 1} {
				if found, err := memoryHas(d.Nodes[i].PID, needle); err != nil || found {
					t.Errorf("%s's daemon during the exchange: found %v, %v", d.Nodes[i].Name, found, err)
				}
			}
			n++
		}
	}()
	d.carry(t, 0, d.Slots[0].Label, 1)
	close(done)
	if n := <-scans; n == 0 {
		t.Error("nothing was scanned during the exchange")
	} else {
		t.Logf("%d scans during the exchange", n)
	}
	for _, i := range []int{0, 1} { // after
		if found, err := memoryHas(d.Nodes[i].PID, needle); err != nil || found {
			t.Errorf("%s's daemon after the exchange: found %v, %v", d.Nodes[i].Name, found, err)
		}
	}
	worker := workerOf(t, d, 1)
	if found, err := memoryHas(worker, needle); err != nil || !found {
		t.Errorf("the scan does not find the key where it must be, in node2's HSM worker (%d): %v, %v", worker, found, err)
	}
}

func workerOf(t testing.TB, d *testDemo, i int) int {
	t.Helper()
	var modules []node.ModuleView
	if err := json.Unmarshal([]byte(d.must(t, i, "", "hsm", "-o", "json")), &modules); err != nil || len(modules) == 0 {
		t.Fatal(err)
	}
	return modules[0].PID
}

// memoryHas searches all readable memory of a process. It takes root, because daemons do not let others in.
func memoryHas(pid int, needle []byte) (bool, error) {
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
			if bytes.Contains(buf[:n], needle) {
				return true, nil
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
