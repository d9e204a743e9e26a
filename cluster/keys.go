package cluster

import (
	"maps"
	"time"
)

// Inventory is what one node holds in one slot.
type Inventory struct {
	Keys     map[string]Held `json:"keys"`              // by fingerprint
	Reported time.Time       `json:"reported,omitzero"` // when the node last said that this is all; zero: never
	Loose    int             `json:"loose"`             // incomplete objects seen: a private key without its public key, ...
}

// Held is one key that a node holds.
type Held struct {
	Fingerprint  string    `json:"fp"`    // the same on every node that holds the key
	Class        string    `json:"class"` // PrivateKey or SecretKey
	Type         string    `json:"type"`  // "EC P-384", "RSA 2048", "AES 256"
	ID           string    `json:"id"`    // CKA_ID, hexadecimal
	Label        string    `json:"label"` // CKA_LABEL
	Extractable  bool      `json:"extractable,omitempty"`
	Sensitive    bool      `json:"sensitive,omitempty"`
	Obstacle     string    `json:"obstacle,omitempty"`     // why it cannot travel; empty when it can
	Certificates int       `json:"certificates,omitempty"` // objects with the same CKA_ID
	Since        time.Time `json:"since"`                  // when the node first reported it
}

// Classes of keys.
const (
	PrivateKey = "private"
	SecretKey  = "secret"
)

func (h *Held) validate() error {
	if err := check(checkToken("key fingerprint", h.Fingerprint), checkOneOf("key class", h.Class, PrivateKey, SecretKey),
		checkLine("key type", h.Type, 64), checkMatch("key id", h.ID, hexPattern, "hexadecimal digits in lower case are needed"),
		checkBlob("key id", h.ID, maxKeyID), checkBlob("key label", h.Label, maxKeyLabel), checkBlob("obstacle", h.Obstacle, maxText),
		checkRange("number of certificates", h.Certificates, 0, 1000)); err != nil {
		return errorf(Invalid, "key %q: %v", clip(h.Fingerprint), err)
	}
	return nil
}

// ReportKeys is what changed in what a node holds in a slot since its last report. A first report of many
// keys goes in parts, the last of them Complete; until then Reported stays as it was, so that nobody
// takes a half for the whole.
type ReportKeys struct {
	Slot     string   `json:"slot"`
	Put      []Held   `json:"put,omitempty"`    // new or changed keys; Since is set by apply
	Remove   []string `json:"remove,omitempty"` // fingerprints of keys that are gone
	Complete bool     `json:"complete"`         // with this, the inventory is what the token holds now
	Loose    int      `json:"loose"`            // counts only when Complete
}

func (c *ReportKeys) Kind() string               { return "keys.report" }
func (c *ReportKeys) describe() (string, string) { return "slot/" + c.Slot, "" }

func (c *ReportKeys) validate() error {
	if n := len(c.Put) + len(c.Remove); n > maxReport {
		return errorf(Invalid, "a report of %d keys is too long: send at most %d at a time", n, maxReport)
	}
	for i := range c.Put {
		if err := c.Put[i].validate(); err != nil {
			return err
		}
	}
	for _, fp := range c.Remove {
		if err := checkToken("key fingerprint", fp); err != nil {
			return err
		}
	}
	return check(checkLabel(c.Slot), checkRange("number of loose objects", c.Loose, 0, 1<<20))
}

func (c *ReportKeys) apply(s *State, m Meta) error {
	if _, _, err := s.seat(c.Slot, m.Node); err != nil {
		return err
	}
	held := s.Keys[c.Slot][m.Node]
	if len(c.Put)+len(c.Remove) > 0 {
		keys := make(map[string]Held, len(held.Keys)+len(c.Put))
		maps.Copy(keys, held.Keys)
		for _, fp := range c.Remove {
			delete(keys, fp)
		}
		for _, h := range c.Put {
			h.Since = m.Time
			if old, ok := held.Keys[h.Fingerprint]; ok {
				h.Since = old.Since
			}
			keys[h.Fingerprint] = h
		}
		if len(keys) > maxKeys {
			return errorf(Full, "slot %q on node %q holds %d keys; at most %d can be listed", c.Slot, m.Node, len(keys), maxKeys)
		}
		held.Keys = keys
	}
	if c.Complete {
		held.Reported, held.Loose = m.Time, c.Loose
	}
	s.Keys = with(s.Keys, c.Slot, with(s.Keys[c.Slot], m.Node, held))
	return nil
}
