package node

import (
	"maps"
	"slices"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// AuditStatus is how the audit trail is, as this node sees it.
type AuditStatus struct {
	First       uint64        `json:"first"` // oldest entry that is kept; 0: there is none
	Last        uint64        `json:"last"`
	Entries     int           `json:"entries"`
	CheckedFrom uint64        `json:"checked_from"` // the chain was computed again from here
	CheckedTo   uint64        `json:"checked_to"`   // up to here
	Damage      string        `json:"damage"`       // what is wrong with the trail; empty: nothing
	Signed      []AuditSigned `json:"signed"`       // the newest signature of each node
	SignError   string        `json:"sign_error"`   // why this node could not sign at its last attempt
	Alerts      int           `json:"alerts"`       // in the last AlertWindow
	Syslog      SyslogStatus  `json:"syslog"`
}

// AuditSigned is the newest signature of a node.
type AuditSigned struct {
	Node  string    `json:"node"`
	Seq   uint64    `json:"seq"` // 0: it has not signed
	Time  time.Time `json:"time,omitzero"`
	Error string    `json:"error,omitempty"` // why the signature does not hold
}

// AlertWindow is how long an alert counts as news.
const AlertWindow = 24 * time.Hour

// Status describes the trail.
func (t *Trail) Status() AuditStatus {
	s := t.m.State()
	st := AuditStatus{Last: lastEntry(s).Seq, Entries: len(s.Audit), Damage: t.Damage(), Signed: []AuditSigned{}, Alerts: RecentAlerts(s, time.Now()), Syslog: t.m.Syslog.Status()}
	if len(s.Audit) > 0 {
		st.First = s.Audit[0].Seq
	}
	st.CheckedFrom, st.CheckedTo = t.Checked()
	if err := t.SignError(); err != nil {
		st.SignError = err.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		c := newest(s, name)
		signed := AuditSigned{Node: name, Seq: c.Seq, Time: c.Time}
		if c.Seq > 0 && c.Seq >= st.First {
			if err := t.Verify(s, c); err != nil {
				signed.Error = err.Error()
			}
		}
		st.Signed = append(st.Signed, signed)
	}
	return st
}

// RecentAlerts counts the entries with an alert in the AlertWindow before now.
func RecentAlerts(s *cluster.State, now time.Time) int {
	n := 0
	for i := len(s.Audit) - 1; i >= 0 && now.Sub(s.Audit[i].Time) < AlertWindow; i-- {
		if s.Audit[i].Alert != "" {
			n++
		}
	}
	return n
}
