package webconf

import (
	"encoding/hex"
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// Sessions of an account, and the nodes that did not say theirs.
type sessionsReply struct {
	Sessions []node.Session `json:"sessions"`
	Silent   []string       `json:"silent"`
}

func apiSessions(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	list, silent := c.m.Accounts.Sessions(c.Request().Context(), a.Name)
	return c.JSON(http.StatusOK, sessionsReply{whole(list), whole(silent)})
}

// apiEndSessions ends one session, or all of an account when none is named.
func apiEndSessions(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	var q struct {
		Node string `json:"node"`
		ID   string `json:"id"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if (q.Node == "") != (q.ID == "") {
		return invalid("a session is named by its node and its id, and all sessions by neither")
	}
	if q.ID == "" {
		err = c.m.Accounts.EndAllSessions(c.Request().Context(), c.actor, a.Name)
	} else {
		err = c.m.Accounts.EndSession(c.Request().Context(), c.actor, a.Name, q.Node, q.ID)
	}
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func apiUnlock(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	if err := c.m.Accounts.Unlock(c.Request().Context(), c.actor, a.Name); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// A factorReply is a way to log in besides the password, without what it is made of.
type factorReply struct {
	Factor  string    `json:"factor"`
	ID      string    `json:"id,omitempty"`
	Name    string    `json:"name,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Created time.Time `json:"created"`
	Ends    time.Time `json:"ends,omitzero"`
}

type factorsReply struct {
	Account string         `json:"account"`
	Factors []factorReply  `json:"factors"`
	Locks   []cluster.Lock `json:"locks"` // that still hold
}

func apiFactors(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	r := factorsReply{Account: a.Name, Factors: []factorReply{}, Locks: []cluster.Lock{}}
	if len(a.TOTP.Sealed) > 0 {
		r.Factors = append(r.Factors, factorReply{Factor: cluster.FactorTOTP, Created: a.TOTP.Created})
	}
	for _, p := range a.Passkeys {
		r.Factors = append(r.Factors, factorReply{Factor: cluster.FactorPasskey, ID: hex.EncodeToString(p.ID), Name: p.Name, Created: p.Created})
	}
	for _, k := range a.Certificates {
		r.Factors = append(r.Factors, factorReply{cluster.FactorCertificate, k.Fingerprint, k.Name, k.Subject, k.Created, k.NotAfter})
	}
	for _, l := range a.Locks {
		if time.Now().Before(l.Until) {
			r.Locks = append(r.Locks, l)
		}
	}
	return c.JSON(http.StatusOK, r)
}

// apiAddCertificate registers a certificate, PEM or DER in base64, for an account.
func apiAddCertificate(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	var q struct {
		Name        string `json:"name"`
		Certificate []byte `json:"certificate"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	cert, err := node.ReadCertificate(q.Certificate)
	if err != nil {
		return err
	}
	if err := c.m.Accounts.AddCertificate(c.Request().Context(), c.actor, a.Name, q.Name, cert); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// apiRemoveFactor removes one factor. The id is not needed where the account has only one of its kind.
func apiRemoveFactor(c *call) error {
	a, err := c.otherAccount()
	if err != nil {
		return err
	}
	var q struct {
		Factor string `json:"factor"`
		ID     string `json:"id"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	id, err := onlyFactor(a, q.Factor, q.ID)
	if err != nil {
		return err
	}
	if err := c.m.Accounts.RemoveFactor(c.Request().Context(), c.actor, a.Name, q.Factor, id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// onlyFactor finds the id of a factor that was not named.
func onlyFactor(a cluster.Account, factor, id string) (string, error) {
	var ids []string
	switch factor {
	case cluster.FactorPasskey:
		for _, p := range a.Passkeys {
			ids = append(ids, hex.EncodeToString(p.ID))
		}
	case cluster.FactorCertificate:
		for _, k := range a.Certificates {
			ids = append(ids, k.Fingerprint)
		}
	}
	switch {
	case id != "" || len(ids) == 0:
		return id, nil
	case len(ids) > 1:
		return "", invalid("the account has %d of these: say which, by its id", len(ids))
	}
	return ids[0], nil
}
