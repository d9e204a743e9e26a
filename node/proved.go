package node

import (
	"crypto/rand"
	"errors"
	"slices"

	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/syncpkg"
)

// What became of the keys of an import, and how they prove themselves.

// judge verifies with this process's own eyes what the worker says of an imported key.
func judge(k syncpkg.Key, challenge []byte, a hsm.Arrived) syncpkg.KeyResult {
	if a.Err != nil {
		return result(k, syncpkg.Failed, nil, a.Err)
	}
	if k.Class == syncpkg.ClassSecret {
		if !slices.Equal(a.Proof, k.Check) {
			return result(k, syncpkg.Failed, nil, errors.New("its check value is not the promised one"))
		}
		return result(k, syncpkg.Imported, &syncpkg.Proof{Kind: syncpkg.ProofMAC, Final: a.Final, Value: a.Proof}, nil)
	}
	if err := hsm.VerifyProof(k.Public, challenge, a.Proof); err != nil {
		return result(k, syncpkg.Failed, nil, err)
	}
	return result(k, syncpkg.Imported, &syncpkg.Proof{Kind: syncpkg.ProofSignature, Final: a.Final, Challenge: challenge, Value: a.Proof}, nil)
}

// prove lets a key that an interrupted run had put on the token prove itself.
func (r *importRun) prove(k syncpkg.Key, o hsm.Objects) syncpkg.KeyResult {
	challenge := make([]byte, 32)
	rand.Read(challenge)
	for _, have := range o.Keys {
		if fingerprint(have) != k.Fingerprint() {
			continue
		}
		if k.Class == syncpkg.ClassSecret { // its check value is what identified it
			return result(k, syncpkg.Imported, &syncpkg.Proof{Kind: syncpkg.ProofMAC, Final: true, Value: have.Check}, nil)
		}
		proof, err := r.token.Prove(have, challenge)
		if err != nil {
			return result(k, syncpkg.AlreadyThere, nil, nil) // it may not sign; it was proved before it was put there
		}
		return result(k, syncpkg.Imported, &syncpkg.Proof{Kind: syncpkg.ProofSignature, Final: true, Challenge: challenge, Value: proof}, nil)
	}
	return result(k, syncpkg.Failed, nil, errors.New("it is not on the token"))
}

func result(k syncpkg.Key, res syncpkg.Result, proof *syncpkg.Proof, err error) syncpkg.KeyResult {
	out := syncpkg.KeyResult{Fingerprint: k.Fingerprint(), ID: k.ID, Label: packagedLabel(k), Result: res, Proof: proof}
	if err != nil {
		out.Error = line(err.Error())
	}
	return out
}
