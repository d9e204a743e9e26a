package syncpkg

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

func (w *world) receiverKeys(node string) ReceiverKeys {
	return ReceiverKeys{
		Cluster: "c1", Node: "node1", Slot: "Issuing & <CA>", Scheme: SchemeECDHP521,
		Transport: w.transport[node].PublicKey().Bytes(), Seal: NewSealKey(w.private[node].PublicKey()),
		Created: testNow.Add(-time.Hour), NotAfter: testNow.Add(30 * 24 * time.Hour),
	}
}

// receipt is about three keys, one of them with a true signature by the key p256.
func (w *world) receipt(t testing.TB) Receipt {
	t.Helper()
	key := w.privateKey(t, "p256")
	challenge := make([]byte, 32)
	rand.Read(challenge)
	sum := sha256.Sum256(challenge)
	r, s, err := ecdsa.Sign(rand.Reader, w.keys["p256"].(*ecdsa.PrivateKey), sum[:])
	must(t, err)
	value := make([]byte, 64)
	r.FillBytes(value[:32])
	s.FillBytes(value[32:])
	other, third := w.privateKey(t, "p384"), w.secretKey(t, TypeAES, "aes256")
	return Receipt{
		Cluster: "c1", Package: w.header().ID, SHA256: hex.EncodeToString(sum[:]), Node: "node1", Slot: "Issuing & <CA>", Time: testNow,
		Keys: []KeyResult{
			{Fingerprint: key.Fingerprint(), ID: key.ID, Label: key.Label, Result: Imported,
				Proof: &Proof{Kind: ProofSignature, Final: true, Challenge: challenge, Value: value}},
			{Fingerprint: other.Fingerprint(), ID: other.ID, Label: other.Label, Result: Conflict, Error: "another key has the label \"p384\""},
			{Fingerprint: third.Fingerprint(), ID: third.ID, Label: third.Label, Result: AlreadyThere,
				Proof: &Proof{Kind: ProofMAC, Final: true, Value: third.Check}},
		},
	}
}

// forgeStatement signs v, changed, as a statement.
func forgeStatement(t testing.TB, key *ecdsa.PrivateKey, typ string, v any, payload, protected func(string) string) string {
	t.Helper()
	text := string(result(encodeJSON(v, ""))(t))
	if payload != nil {
		text = payload(text)
	}
	header := protectedHeader(typ, result(Thumbprint(&key.PublicKey))(t))
	if protected != nil {
		header = protected(header)
	}
	p, value := signAnything(t, key, header, text)
	return p + "." + encodeBase64([]byte(text)) + "." + value
}

// madeStatements makes the statements of the vectors.
func (w *world) madeStatements(t testing.TB) []statementVector {
	t.Helper()
	var made []statementVector
	add := func(kind, name, want, jws string) {
		made = append(made, statementVector{kind + "/" + name, kind, jws, testNow, want})
	}
	hybrid, classic := w.receiverKeys("node2"), w.receiverKeys("node3")
	add("receiver keys", "good hybrid", "ok", result(SignReceiverKeys(hybrid, w.source))(t))
	add("receiver keys", "good P-521", "ok", result(SignReceiverKeys(classic, w.source))(t))
	receipt := w.receipt(t)
	add("receipt", "good", "ok", result(SignReceipt(receipt, w.source))(t))
	add("receiver keys", "a receipt", "bad signature", result(SignReceipt(receipt, w.source))(t))
	add("receipt", "receiver keys", "bad signature", result(SignReceiverKeys(classic, w.source))(t))

	for _, f := range []struct {
		name, want string
		change     func(*ReceiverKeys)
	}{
		{"expired", "expired", func(r *ReceiverKeys) { r.NotAfter = testNow }},
		{"from the future", "not yet valid", func(r *ReceiverKeys) { r.Created = testNow.Add(MaxSkew + time.Second) }},
		{"ends first", "bad content", func(r *ReceiverKeys) { r.NotAfter = r.Created }},
		{"transport off curve", "bad content", func(r *ReceiverKeys) { r.Transport = flip(-1)(r.Transport) }},
		{"transport empty", "bad content", func(r *ReceiverKeys) { r.Transport = nil }},
		{"scheme", "unsupported", func(r *ReceiverKeys) { r.Scheme = "rsa-oaep+rfc5649" }},
		{"KEM", "unsupported", func(r *ReceiverKeys) { r.Seal.KEM = 0x20 }},
		{"seal key off curve", "bad content", func(r *ReceiverKeys) { r.Seal.Public = flip(-1)(r.Seal.Public) }},
		{"other node", "untrusted signer", func(r *ReceiverKeys) { r.Node = "node2" }},
		{"slot control character", "bad content", func(r *ReceiverKeys) { r.Slot = "a\tb" }},
	} {
		rk := classic
		f.change(&rk)
		add("receiver keys", f.name, f.want, forgeStatement(t, w.source, typeReceiverKeys, rk, nil, nil))
	}
	for _, f := range []struct {
		name, want string
		change     func(*Receipt)
	}{
		{"no keys", "bad content", func(r *Receipt) { r.Keys = nil }},
		{"key twice", "bad content", func(r *Receipt) { r.Keys = append(r.Keys, r.Keys[0]) }},
		{"imported without proof", "bad content", func(r *Receipt) { r.Keys[0].Proof = nil }},
		{"failed without error", "bad content", func(r *Receipt) { r.Keys[1].Error = "" }},
		{"unknown result", "bad content", func(r *Receipt) { r.Keys[2].Result = "maybe" }},
		{"short challenge", "bad content", func(r *Receipt) { r.Keys[0].Proof.Challenge = make([]byte, MinChallenge-1) }},
		{"no signature", "bad content", func(r *Receipt) { r.Keys[0].Proof.Value = nil }},
		{"MAC with a challenge", "bad content", func(r *Receipt) { r.Keys[0].Proof.Kind = ProofMAC }},
		{"unknown proof", "bad content", func(r *Receipt) { r.Keys[0].Proof.Kind = "word of honour" }},
		{"proof of a failure", "bad content", func(r *Receipt) { r.Keys[1].Proof = r.Keys[0].Proof }},
		{"error of a success", "bad content", func(r *Receipt) { r.Keys[2].Error = "oh" }},
		{"fingerprint", "bad content", func(r *Receipt) { r.Keys[2].Fingerprint = "00" }},
		{"other node", "untrusted signer", func(r *Receipt) { r.Node = "node2" }},
	} {
		r := w.receipt(t)
		f.change(&r)
		add("receipt", f.name, f.want, forgeStatement(t, w.source, typeReceipt, r, nil, nil))
	}
	rk := func(payload, protected func(string) string) string {
		return forgeStatement(t, w.source, typeReceiverKeys, classic, payload, protected)
	}
	good := rk(nil, nil)
	add("receiver keys", "empty", "malformed", "")
	add("receiver keys", "two parts", "malformed", good[:strings.LastIndex(good, ".")])
	add("receiver keys", "white space", "malformed", good+"\n")
	add("receiver keys", "too long", "too large", good+strings.Repeat("A", MaxReceiverKeys))
	add("receiver keys", "unknown field", "bad content", rk(swap(`"slot"`, `"colour":"red","slot"`), nil))
	add("receiver keys", "duplicate field", "bad content", rk(swap(`"slot"`, `"slot":"x","slot"`), nil))
	add("receiver keys", "two nodes", "bad content", rk(swap(`"node":"node1"`, `"node":"node2","Node":"node1"`), nil))
	add("receiver keys", "not JSON", "malformed", rk(func(string) string { return "receiver keys" }, nil))
	add("receiver keys", "node name", "malformed", rk(swap(`"node1"`, `"Node 1"`), nil))
	add("receiver keys", "no cluster", "malformed", rk(swap(`"c1"`, `""`), nil))
	add("receiver keys", "many dots", "malformed", strings.Repeat(".", 100))
	add("receiver keys", "algorithm none", "bad signature", rk(nil, swap("ES512", "none")))
	add("receiver keys", "by a stranger", "untrusted signer", forgeStatement(t, w.stranger, typeReceiverKeys, classic, nil, nil))
	i := strings.Index(good, ".") + 1
	j := strings.LastIndex(good, ".")
	changed := swap("Issuing", "issuing")(string(result(decodeBase64(good[i:j]))(t)))
	add("receiver keys", "changed", "bad signature", good[:i]+encodeBase64([]byte(changed))+good[j:])
	return made
}
