package webconf

import (
	"fmt"
	"strconv"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// covering finds and verifies the first signature under an entry or a later one.
type covering func(seq uint64) (c cluster.Checkpoint, ok bool, err error)

func (c *call) covering() covering {
	s := c.look().State
	return func(seq uint64) (cluster.Checkpoint, bool, error) { return c.m.Trail.Covering(s, seq) }
}

// A seal is what vouches for an entry of the audit trail.
type seal struct {
	Mark mark
	By   cluster.Checkpoint // the signature; zero: none yet
	Why  string             // why it is not good
}

// newSeal judges an entry: its chain was computed again here, and a signature covers it.
func newSeal(a node.AuditStatus, seq uint64, cover covering) seal {
	c, ok, err := cover(seq)
	switch {
	case a.Damage != "":
		return seal{mark{"bad", "bad", "Not proved"}, c, a.Damage}
	case seq < a.CheckedFrom || seq > a.CheckedTo:
		return seal{mark{"mute", "wait", "Not checked yet"}, cluster.Checkpoint{}, ""}
	case !ok:
		return seal{mark{"mute", "wait", "Not signed yet"}, cluster.Checkpoint{}, ""}
	case err != nil:
		return seal{mark{"bad", "bad", "Signature does not hold"}, c, err.Error()}
	}
	return seal{mark{"ok", "check", "Signed"}, c, ""}
}

type auditEntryView struct {
	auditRow
	Before  string // hash before it
	EndedBy uint64 // entry that ends the act; 0: none
	BegunBy uint64
}

// auditEntryPage shows one entry with all that proves it.
func auditEntryPage(c *call) error {
	seq, err := strconv.ParseUint(c.Param("seq"), 10, 63)
	if err != nil {
		return invalid("%q is not the number of an entry", c.Param("seq"))
	}
	s := c.look()
	v, err := newAuditEntryView(s, seq, c.covering())
	if err != nil {
		return err
	}
	return c.show(page{Name: "auditentry", Title: fmt.Sprintf("Audit entry %d", seq), Nav: "/audit", Crumbs: []crumb{{"Audit log", "/audit"}}, Data: v})
}

func newAuditEntryView(s *situation, seq uint64, cover covering) (auditEntryView, error) {
	e, ok := s.State.EntryAt(seq)
	if !ok {
		return auditEntryView{}, &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no entry %d in the audit log (any more)", seq)}
	}
	v := auditEntryView{auditRow: auditRow{Entry: e, Seal: newSeal(s.Audit, seq, cover)}, Before: s.State.AuditBase}
	if before, ok := s.State.EntryAt(seq - 1); ok {
		v.Before = before.Hash
	}
	if e.ActID != "" {
		for _, other := range s.State.Audit {
			switch {
			case other.ActID != e.ActID || other.Seq == e.Seq:
			case other.Result == cluster.Started:
				v.BegunBy = other.Seq
			default:
				v.EndedBy = other.Seq
			}
		}
	}
	return v, nil
}

// alertWords say why somebody should look at an entry.
var alertWords = map[string]string{
	cluster.AlertDenied:       "Not permitted",
	cluster.AlertLockout:      "Account locked",
	cluster.AlertCodeDiffers:  "Code changed behind our back",
	cluster.AlertTrail:        "Audit trail differs",
	cluster.AlertGap:          "Entries not sent",
	cluster.AlertSelfApproval: "Own request approved",
	cluster.AlertMisuse:       "Approval misused",
}

// alertMark is the alert of an entry.
func alertMark(alert string) mark {
	word := alert
	if w, ok := alertWords[alert]; ok {
		word = w
	}
	return mark{"bad", "alert", word}
}

func auditPath(seq uint64) string { return "/audit/" + strconv.FormatUint(seq, 10) }
