package identity

import (
	"crypto/elliptic"
	"encoding/pem"
	"testing"
)

// FuzzDecode: whatever somebody brings on a stick, it is refused or holds what the rest relies on.
func FuzzDecode(f *testing.F) {
	owner, key := newIssuer(f, epoch), newKey(f, elliptic.P521())
	der, err := Request("node1", "01", key)
	if err != nil {
		f.Fatal(err)
	}
	request := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	poc := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: owner.poc.Raw})
	pic := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: owner.identity(f, "node1", "01", key, epoch).Raw})
	for _, seed := range [][]byte{nil, request, poc, append(pic, poc...), append(poc, pic...), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := DecodeRequest(text); err == nil {
			if onP521(r.PublicKey) != nil || CheckName("name", r.Subject.CommonName) != nil || CheckName("serial", r.Subject.SerialNumber) != nil {
				t.Errorf("taken: %v", r.Subject)
			}
		}
		chain, err := DecodeChain(text)
		if err == nil && (len(chain) == 0 || len(chain) > 2) {
			t.Errorf("a chain of %d", len(chain))
		}
		for _, c := range chain {
			CheckOwner(c, epoch)
			CheckFor(c, owner.poc, "01", key.Public(), epoch)
			stateUnder(c, owner.poc, epoch)
		}
	})
}
