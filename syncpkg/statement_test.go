package syncpkg

import (
	"crypto/hpke"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReceiverKeys(t *testing.T) {
	w := newWorld(t)
	for _, node := range []string{"node2", "node3"} {
		want := w.receiverKeys(node)
		given := want
		given.Created = given.Created.Add(500 * time.Millisecond).In(time.FixedZone("", 3600)) // cut when signed
		got, err := VerifyReceiverKeys(result(SignReceiverKeys(given, w.source))(t), w.trust, testNow)
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got\n%+v\nwant\n%+v", got, want)
		}
		to, err := got.Recipient()
		must(t, err)
		if to.Node != "node1" {
			t.Errorf("the recipient is %q", to.Node)
		}
		sealed, err := hpke.Seal(to.Key, hpke.HKDFSHA512(), hpke.AES256GCM(), nil, []byte("key"))
		must(t, err)
		if _, err := hpke.Open(w.private[node], hpke.HKDFSHA512(), hpke.AES256GCM(), nil, sealed); err != nil {
			t.Errorf("what is sealed to the statement's key does not open: %v", err)
		}
	}
	rk := w.receiverKeys("node2")
	rk.Seal.Public = rk.Seal.Public[:100]
	_, err := rk.Recipient()
	wantKind(t, err, ErrContent)
	_, err = SignReceiverKeys(rk, w.source)
	wantKind(t, err, ErrContent)
	rk.Scheme = "rot13"
	_, err = SignReceiverKeys(rk, w.source)
	wantKind(t, err, ErrUnsupported)
}

func TestReceipt(t *testing.T) {
	w := newWorld(t)
	want := w.receipt(t)
	got, err := VerifyReceipt(result(SignReceipt(want, w.source))(t), w.trust)
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}

	want.Keys[1].Error = strings.Repeat("x", MaxReason+1)
	_, err = SignReceipt(want, w.source)
	wantKind(t, err, ErrContent)
}

// TestReceiptLargest signs as many of the longest lines as a receipt may have.
func TestReceiptLargest(t *testing.T) {
	w := newWorld(t)
	r := w.receipt(t)
	line := KeyResult{
		ID: strings.Repeat("ab", 20), Label: strings.Repeat("l", 64), Result: Imported,
		Proof: &Proof{ProofSignature, true, make([]byte, 32), make([]byte, 512)}, // RSA 4096
	}
	r.Keys = nil
	for i := range MaxKeys {
		line.Fingerprint = fmt.Sprintf("%064x", i)
		r.Keys = append(r.Keys, line)
	}
	jws, err := SignReceipt(r, w.source)
	must(t, err)
	got, err := VerifyReceipt(jws, w.trust)
	must(t, err)
	if len(got.Keys) != MaxKeys {
		t.Errorf("%d keys came back", len(got.Keys))
	}
	r.Keys = append(r.Keys, line)
	_, err = SignReceipt(r, w.source)
	wantKind(t, err, ErrContent)
}

// TestStatementDamage cuts a statement everywhere, and flips a bit of each of its bytes.
func TestStatementDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jws := []byte(result(SignReceiverKeys(w.receiverKeys("node3"), w.source))(t))
	for i := range jws {
		if _, err := VerifyReceiverKeys(string(jws[:i]), w.trust, testNow); err == nil {
			t.Fatalf("cut after %d bytes: it verifies", i)
		}
		jws[i] ^= 1 << (i % 8)
		if _, err := VerifyReceiverKeys(string(jws), w.trust, testNow); err == nil {
			t.Fatalf("byte %d changed: it verifies", i)
		}
		jws[i] ^= 1 << (i % 8)
	}
	_, err := VerifyReceiverKeys(string(jws), w.trust, testNow)
	must(t, err)
}
