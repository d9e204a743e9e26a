package identity

import (
	"crypto/x509"
	"time"
)

// A State is how far an owner or an identity is, in the words that people and programs see.
type State string

// The states. A PIK or POK without certificate is pending; so is a POC until its key has certified the device
// that it is on, since only then is it known that the key is there and signs.
const (
	None        State = "none"
	POCPending  State = "POC-Pending"
	PIKPending  State = "PIK-Pending"
	Valid       State = "valid"
	Expiring    State = "expiring" // valid, and ends within ExpiringBefore
	Expired     State = "expired"
	NotYetValid State = "not yet valid"
	Invalid     State = "invalid" // the certificate does not hold: another owner's, or not this device's
	Revoked     State = "revoked" // of an edge of trust: it was there and was removed
)

// ExpiringBefore is how long before its end a certificate counts as expiring: time for an administrator to go to
// an offline owner and come back.
const ExpiringBefore = 90 * 24 * time.Hour

// StateOf is the state of a certificate by its validity alone; None for nil.
func StateOf(c *x509.Certificate, now time.Time) State {
	switch {
	case c == nil:
		return None
	case now.Before(c.NotBefore):
		return NotYetValid
	case now.After(c.NotAfter):
		return Expired
	case now.After(c.NotAfter.Add(-ExpiringBefore)):
		return Expiring
	}
	return Valid
}

// Good tells whether a certificate in this state is accepted.
func (s State) Good() bool { return s == Valid || s == Expiring }
