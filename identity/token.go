package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"

	"github.com/keyferry/keyferry/hsm"
)

// The admin token is the journal of what is done to it. A key comes first, under an ID with a number higher than
// any before; its certificate is put beside it under the same ID; then what has lower numbers is removed. So the
// old holds until the new is whole, and whoever runs the same act again finds where it stopped.

// An entry is what a token has under one ID of a role: a key, its certificate, or both. An owner's certificate on
// another's device has no key.
type entry struct {
	id     string
	number int
	key    crypto.PublicKey
	cert   *x509.Certificate
}

// holdings are the keys and certificates of a device.
type holdings struct {
	owner, identity []entry // by falling number

	pok     *entry // the owner key in use
	poc     *x509.Certificate
	pokNew  *entry // an owner key that an interrupted act has left without a certificate
	pik     *entry // the identity key in use
	pic     *x509.Certificate
	pending *entry // the identity key that waits for its certificate
}

// read reads what the token shows without its code.
func (d *Device) read(ctx context.Context) (holdings, error) {
	var h holdings
	if err := d.usable(); err != nil {
		return h, err
	}
	o, err := d.token.Public(ctx)
	if err != nil {
		return h, err
	}
	h.owner, h.identity = entries(o, OwnerID), entries(o, IdentityID)
	for i, e := range h.owner {
		if e.cert != nil {
			h.poc = e.cert
			if e.key != nil {
				h.pok = &h.owner[i]
			}
			break
		}
		if h.pokNew == nil {
			h.pokNew = &h.owner[i]
		}
	}
	for i, e := range h.identity {
		if e.cert != nil && e.key != nil {
			h.pik, h.pic = &h.identity[i], e.cert
			break
		}
		if e.key != nil && h.pending == nil {
			h.pending = &h.identity[i]
		}
	}
	return h, nil
}

// entries sorts what a token shows under a role's IDs. A certificate that is not for the key beside it is not
// taken for that key's.
func entries(o hsm.PublicObjects, role string) []entry {
	byNumber := map[int]*entry{}
	at := func(id []byte) *entry {
		n, ok := numberOf(string(id), role)
		if !ok {
			return nil
		}
		if byNumber[n] == nil {
			byNumber[n] = &entry{id: string(id), number: n}
		}
		return byNumber[n]
	}
	for _, k := range o.Keys {
		if e, public := at(k.ID), publicKey(k.DER); e != nil && onP521(public) == nil {
			e.key = public
		}
	}
	for _, c := range o.Certificates {
		e := at(c.ID)
		cert, err := x509.ParseCertificate(c.DER)
		if e == nil || err != nil {
			continue
		}
		newer := e.cert == nil || cert.NotBefore.After(e.cert.NotBefore)
		if newer && (e.key == nil || SameKey(e.key, cert.PublicKey)) {
			e.cert = cert
		}
	}
	var all []entry
	for len(byNumber) > 0 {
		highest := 0
		for n := range byNumber {
			highest = max(highest, n)
		}
		all = append(all, *byNumber[highest])
		delete(byNumber, highest)
	}
	return all
}

// numberOf reads the number of an ID: "keyferry:owner" is the first, "keyferry:owner-2" the second.
func numberOf(id, role string) (int, bool) {
	if id == role {
		return 1, true
	}
	text, ok := strings.CutPrefix(id, role+"-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n > 1 && strconv.Itoa(n) == text
}

// nextID is an ID that nothing on the token has.
func nextID(role string, have []entry) string {
	if len(have) == 0 {
		return role
	}
	return fmt.Sprintf("%s-%d", role, have[0].number+1)
}

// SameKey tells whether two public keys are one.
func SameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// put puts a certificate on the token, proves that it is there, and removes what it replaces: all of the role with
// lower numbers.
func (d *Device) put(ctx context.Context, role, id string, cert *x509.Certificate) error {
	beside := hsm.Certificate{ID: []byte(id), Label: id, DER: cert.Raw}
	if err := d.token.StoreCertificates(ctx, []hsm.Certificate{beside}); err != nil {
		return fmt.Errorf("certificate on device %s: %w", d.Serial, err)
	}
	o, err := d.token.Public(ctx)
	if err != nil {
		return err
	}
	there := false
	for _, c := range o.Certificates {
		there = there || string(c.ID) == id && bytes.Equal(c.DER, cert.Raw)
	}
	if !there {
		return fmt.Errorf("device %s took the certificate but does not show it; what it had before is left as it was", d.Serial)
	}
	n, _ := numberOf(id, role)
	return d.sweep(ctx, o, role, func(id string, der []byte) bool {
		m, ok := numberOf(id, role)
		return ok && (m < n || m == n && der != nil && !bytes.Equal(der, cert.Raw))
	})
}

// sweep removes objects of a role. Where it is interrupted, what is left has a lower number than what is in use: it
// is not looked at, and the next sweep finds it.
func (d *Device) sweep(ctx context.Context, o hsm.PublicObjects, role string, old func(id string, der []byte) bool) error {
	list, err := d.token.Objects(ctx, 0, true)
	if err != nil {
		return err
	}
	var refs []hsm.Ref
	for _, c := range o.Certificates {
		if old(string(c.ID), c.DER) {
			refs = append(refs, c.Ref)
		}
	}
	for _, k := range list.Keys {
		if old(string(k.ID), nil) {
			refs = append(refs, k.Ref)
		}
	}
	for _, k := range o.Keys {
		if old(string(k.ID), nil) {
			refs = append(refs, k.Ref)
		}
	}
	for _, r := range refs {
		if err := d.token.Destroy(ctx, r); err != nil {
			return fmt.Errorf("the new %s is on device %s, but the old one could not be removed: %w", strings.TrimPrefix(role, ownPrefix), d.Serial, err)
		}
	}
	return nil
}

// Next is the CKA_ID that follows id in its role.
func Next(id string) string {
	for _, role := range []string{OwnerID, IdentityID} {
		if n, ok := numberOf(id, role); ok {
			return fmt.Sprintf("%s-%d", role, n+1)
		}
	}
	return id
}

// Keep puts the certificates of a node beside its keys, so that its admin token tells who it is without the node's
// daemon. Those that are there are left alone. The owner's certificate has ownerID, the other one the identity key's.
func Keep(ctx context.Context, token *hsm.Token, ownerID string, poc *x509.Certificate, identityID string, pic *x509.Certificate) error {
	return token.StoreCertificates(ctx, []hsm.Certificate{{ID: []byte(ownerID), Label: ownerID, DER: poc.Raw}, {ID: []byte(identityID), Label: identityID, DER: pic.Raw}})
}

// Settle is Keep, and then removes what these replace for good: keys and certificates with lower numbers, and other
// certificates of the same.
func Settle(ctx context.Context, token *hsm.Token, ownerID string, poc *x509.Certificate, identityID string, pic *x509.Certificate) error {
	d := &Device{Serial: token.Serial, token: token}
	if err := d.put(ctx, OwnerID, ownerID, poc); err != nil {
		return err
	}
	return d.put(ctx, IdentityID, identityID, pic)
}
