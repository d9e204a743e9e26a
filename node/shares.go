package node

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
	"github.com/keyferry/keyferry/cluster"
)

// Shared codes. The secret of a generation is a random scalar of P-521, split by Shamir's scheme; that
// group only lends its field. What checks shares and secret are hashes, not Feldman's commitments: those
// are points of the curve, which would give the secret away if elliptic curves fell one day.
var shareField = group.P521

// shareSize is the length of a share and of a secret in bytes.
const shareSize = 66

// splitName says which split of which secret a share belongs to. All that is derived or sealed is bound
// to it.
type splitName struct {
	cluster, slot, split string
	generation           int
}

func (n splitName) String() string {
	return fmt.Sprintf("cluster %s, slot %q, generation %d", n.cluster, n.slot, n.generation)
}

// shareInfo binds a sealed share to its split and holder.
func (n splitName) shareInfo(account string, index int) []byte {
	return fmt.Appendf(nil, "keyferry share v1\n%s, split %s, index %d, account %s", n, n.split, index, account)
}

// secretCheck is the check value of a secret. With 521 random bits nobody finds the secret by guessing.
func (n splitName) secretCheck(secret []byte) string {
	return digestHex(fmt.Appendf(nil, "keyferry secret v1\n%s\n%x", n, secret))
}

// shareCheck is the check value of a share: the same for what is of the same split, index and holder.
func (n splitName) shareCheck(account string, index int, share []byte) string {
	return digestHex(fmt.Appendf(nil, "%s\n%x", n.shareInfo(account, index), share))
}

// nodeCode derives the code of a node's token from the secret. Tokens that take fewer than minGenerated
// characters cannot have one.
func (n splitName) nodeCode(secret []byte, node string, minCode, maxCode int) ([]byte, error) {
	size, err := generatedSize(minCode, maxCode)
	if err != nil {
		return nil, err
	}
	code, err := hkdf.Key(sha512.New, secret, nil, fmt.Sprintf("keyferry code v1\n%s, node %s", n, node), size)
	if err != nil {
		return nil, err
	}
	for i := range code {
		code[i] = codeAlphabet[code[i]&31]
	}
	return code, nil
}

// newSecret makes the secret of a generation.
func newSecret() ([]byte, error) { return shareField.RandomNonZeroScalar(rand.Reader).MarshalBinary() }

// A holder is somebody who is to get a share, sealed to their custodian key.
type holder struct {
	account string
	key     string // id
	public  []byte
}

// makeSplit makes a split of a secret and proves it before it counts: from the first m shares, the last m, and
// each window of m in between, the secret comes back.
func (n splitName) makeSplit(secret []byte, threshold int, holders []holder, nodes []string) (cluster.Split, error) {
	s := shareField.NewScalar()
	if err := s.UnmarshalBinary(secret); err != nil || s.IsZero() {
		return cluster.Split{}, errors.New("the secret of a shared code is not one")
	}
	shares := secretsharing.New(rand.Reader, uint(threshold-1), s).Share(uint(len(holders)))
	p := cluster.Split{ID: n.split, Generation: n.generation, Threshold: threshold, Check: n.secretCheck(secret), Nodes: nodes}
	plain := make(map[string][]byte, len(holders))
	defer func() {
		for _, b := range plain {
			clear(b)
		}
	}()
	for i, h := range holders {
		value, err := shares[i].Value.MarshalBinary()
		if err != nil {
			return p, err
		}
		plain[h.account] = value
		index := i + 1
		key, err := hpke.MLKEM1024P384().NewPublicKey(h.public)
		if err != nil {
			return p, fmt.Errorf("the custodian key of %s cannot be read: %w", h.account, err)
		}
		sealed, err := hpke.Seal(key, hpke.HKDFSHA512(), hpke.AES256GCM(), n.shareInfo(h.account, index), value)
		if err != nil {
			return p, err
		}
		p.Shares = append(p.Shares, cluster.Share{Account: h.account, Index: index, Key: h.key, Sealed: sealed, Check: n.shareCheck(h.account, index, value)})
	}
	for i := 0; i+threshold <= len(holders); i++ {
		some := map[string][]byte{}
		for _, h := range holders[i : i+threshold] {
			some[h.account] = plain[h.account]
		}
		again, err := n.combine(p, some)
		if err != nil {
			return p, fmt.Errorf("the split does not give its secret back: %w", err)
		}
		clear(again)
	}
	return p, nil
}

// Errors of shares.
var (
	errTooFew     = errors.New("too few custodians have given their share")
	errOtherSplit = errors.New("the share does not belong to the present custodians of this slot: it was tampered with, or is of another split")
)

// verifyShare tells whether a share is the one that its holder got.
func (n splitName) verifyShare(p cluster.Split, account string, share []byte) error {
	mine, ok := p.Share(account)
	if !ok || len(share) != shareSize || p.ID != n.split {
		return errOtherSplit
	}
	if subtle.ConstantTimeCompare([]byte(mine.Check), []byte(n.shareCheck(account, mine.Index, share))) != 1 {
		return errOtherSplit
	}
	return nil
}

// combine rebuilds the secret from the shares of enough holders, and checks it.
func (n splitName) combine(p cluster.Split, shares map[string][]byte) ([]byte, error) {
	if p.Threshold < 2 || len(shares) < p.Threshold {
		return nil, errTooFew
	}
	list := make([]secretsharing.Share, 0, len(shares))
	for account, value := range shares {
		if err := n.verifyShare(p, account, value); err != nil {
			return nil, fmt.Errorf("%s: %w", account, err)
		}
		mine, _ := p.Share(account)
		v := shareField.NewScalar()
		if err := v.UnmarshalBinary(value); err != nil {
			return nil, errOtherSplit
		}
		list = append(list, secretsharing.Share{ID: shareField.NewScalar().SetUint64(uint64(mine.Index)), Value: v})
	}
	s, err := secretsharing.Recover(uint(p.Threshold-1), list)
	for _, share := range list { // as far as a big.Int can be wiped
		share.Value.SetUint64(0)
	}
	if err != nil {
		return nil, err
	}
	secret, err := s.MarshalBinary()
	s.SetUint64(0)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(p.Check), []byte(n.secretCheck(secret))) != 1 {
		clear(secret)
		return nil, errors.New("the shares fit one by one, and together they give another secret than the one that was split")
	}
	return secret, nil
}

// nameOf is the name of a split of this cluster.
func (m *Member) nameOf(slot string, p cluster.Split) splitName {
	return splitName{m.State().Cluster.ID, slot, p.ID, p.Generation}
}
