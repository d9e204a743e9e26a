package cluster

import "time"

// Entry is one line of the audit trail. Only apply writes it.
type Entry struct {
	Seq    uint64    `json:"seq"` // counts from 1 without gaps; a trail that begins later was shortened
	Time   time.Time `json:"time"`
	Node   string    `json:"node"` // where the actor was
	Actor  Actor     `json:"actor"`
	Act    string    `json:"act"`    // kind of the command, or the name that BeginAct gave
	Object string    `json:"object"` // "slot/payments", "node/node2"
	Result string    `json:"result"` // Started, Done, Refused or Failed
	Detail string    `json:"detail,omitempty"`
	ActID  string    `json:"act_id,omitempty"` // ties the end of an act to its beginning
	Alert  string    `json:"alert,omitempty"`  // why somebody should look at it: one of the alerts, or nothing
	Hash   string    `json:"hash"`             // of this entry and the one before; see AUDIT.md
}

// Alerts: what breaks a rule, or shows that somebody tried.
const (
	AlertDenied       = "denied"          // somebody did what they may not
	AlertLockout      = "lockout"         // too many wrong attempts to log in
	AlertCodeDiffers  = "code-differs"    // another program changed a code
	AlertTrail        = "trail-differs"   // a node's trail is not the one that it signed
	AlertGap          = "gap"             // entries are gone that should have been sent on
	AlertSelfApproval = "self-approval"   // somebody tried to approve what they had asked for
	AlertMisuse       = "approval-misuse" // an approval was used for something else, or twice
)

var noteAlerts = map[string]string{
	NoteLocked: AlertLockout, NoteCodeDiffers: AlertCodeDiffers, NoteAuditDiffers: AlertTrail, NoteSyslogGap: AlertGap,
}

// Results of an act.
const (
	Started = "started"
	Done    = "done"
	Refused = "refused" // not permitted, or not possible; nothing was changed
	Failed  = "failed"  // tried, and did not work
)

// record appends to the audit trail. The States of one line share the array: see State.next. Before there
// is a cluster there is no trail: its first entry is bound to the cluster's id.
func (s *State) record(m Meta, e Entry) {
	if s.Cluster.ID == "" {
		return
	}
	if len(s.Audit) == 0 {
		s.AuditBase = ChainStart(s.Cluster.ID)
	}
	e.Seq, e.Time, e.Node, e.Actor = lastSeq(s)+1, m.Time, m.Node, m.Actor
	prev := s.AuditBase
	if n := len(s.Audit); n > 0 {
		prev = s.Audit[n-1].Hash
	}
	e.Hash = e.Chained(prev)
	if len(s.Audit) >= maxAudit {
		const gone = maxAudit / 10
		s.AuditBase = s.Audit[gone-1].Hash
		kept := make([]Entry, 0, maxAudit+1)
		s.Audit = append(kept, s.Audit[gone:]...)
	}
	s.Audit = append(s.Audit, e)
}

// Act is an act on an HSM that is under way. It replicates nothing by itself, so the audit trail needs
// to know of it before it begins.
type Act struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Actor   Actor     `json:"actor"`
	Act     string    `json:"act"`
	Object  string    `json:"object"`
	Started time.Time `json:"started"`
}

// BeginAct authorizes and records an act before it runs. The act may run only after Apply returned
// without error.
type BeginAct struct {
	ID         string     `json:"id"`     // NewID
	Act        string     `json:"act"`    // "slot.activate", "key.generate"
	Object     string     `json:"object"` // "slot/payments"
	Detail     string     `json:"detail,omitempty"`
	Permission Permission `json:"permission"`     // what the actor needs
	Slot       string     `json:"slot,omitempty"` // label of the slot that the act is about, if it is about one
	// Digest is the SHA-256 of the whole detail, in hexadecimal, where Detail has only its beginning: an
	// approval is of all of it.
	Digest string `json:"digest,omitempty"`
}

func (c *BeginAct) slot() string               { return c.Slot }
func (c *BeginAct) needs() Permission          { return c.Permission }
func (c *BeginAct) Kind() string               { return "act.begin" }
func (c *BeginAct) describe() (string, string) { return c.Object, c.Detail }

func (c *BeginAct) validate() error {
	if g := grants[c.Permission]; len(g.roles) == 0 && c.Permission != MayKeepAccount || c.Permission == MayCreateCluster || c.Permission == MayEndAct {
		return errorf(Invalid, "permission %q is not one for an act", clip(string(c.Permission)))
	}
	if c.Slot != "" {
		if err := checkLabel(c.Slot); err != nil {
			return err
		}
	}
	if c.Digest != "" {
		if err := checkHash("digest of the detail", c.Digest); err != nil {
			return err
		}
	}
	return check(checkToken("act id", c.ID), checkToken("act", c.Act),
		checkLine("object", c.Object, maxText), checkText("detail", c.Detail, maxText))
}

func (c *BeginAct) apply(s *State, m Meta) error {
	return c.begin(s, m, "")
}

func (c *BeginAct) begin(s *State, m Meta, alert string) error {
	if _, ok := s.Acts[c.ID]; ok {
		return errorf(Conflict, "an act with the id %q is under way already", c.ID)
	}
	if len(s.Acts) >= maxActs {
		return errorf(Full, "%d acts are under way: wait for some to end", len(s.Acts))
	}
	s.Acts = with(s.Acts, c.ID, Act{ID: c.ID, Node: m.Node, Actor: m.Actor, Act: c.Act, Object: c.Object, Started: m.Time})
	s.record(m, Entry{Act: c.Act, Object: c.Object, Result: Started, Detail: c.Detail, ActID: c.ID, Alert: alert})
	return nil
}

// EndAct records how an act ended. It comes from the node that runs the act, in the name of who began it
// or of the node itself (which, after a crash, ends what it finds begun).
type EndAct struct {
	ID     string `json:"id"`
	Result string `json:"result"` // Done, Refused or Failed
	Detail string `json:"detail,omitempty"`
}

func (c *EndAct) Kind() string               { return "act.end" }
func (c *EndAct) describe() (string, string) { return "act/" + c.ID, c.Detail }

func (c *EndAct) validate() error {
	return check(checkToken("act id", c.ID), checkOneOf("result", c.Result, Done, Refused, Failed),
		checkText("detail", c.Detail, maxText))
}

func (c *EndAct) apply(s *State, m Meta) error {
	act, ok := s.Acts[c.ID]
	if !ok {
		return errorf(NotFound, "no act %q is under way", c.ID)
	}
	if m.Node != act.Node || m.Actor != act.Actor && m.Actor.Kind != ByNode {
		return errorf(Denied, "the act %q was begun by %s at node %q: only they can end it", c.ID, act.Actor, act.Node)
	}
	s.Acts = without(s.Acts, c.ID)
	s.record(m, Entry{Act: act.Act, Object: act.Object, Result: c.Result, Detail: c.Detail, ActID: c.ID})
	return nil
}

// RecordAct is a node's word on an act that has begun on it, or ended: what was done without a quorum, and
// how any act ended. It was authorized when it began, so the rights that its actor has now, and policies
// made meanwhile, cannot make it undone: it is recorded as it was, and where the actor may not do it any
// more, marked for people to look at. The node vouches for who it was, as with RecordNote.
type RecordAct struct {
	Actor Actor     `json:"actor"` // whom the entry names
	Begin *BeginAct `json:"begin,omitempty"`
	End   *EndAct   `json:"end,omitempty"` // one of the two
}

func (c *RecordAct) Kind() string { return "act.record" }

func (c *RecordAct) describe() (string, string) {
	if c.Begin != nil {
		return c.Begin.describe()
	}
	if c.End == nil {
		return "act", "" // not valid
	}
	return c.End.describe()
}

func (c *RecordAct) validate() error {
	if (c.Begin == nil) == (c.End == nil) {
		return errorf(Invalid, "a record of an act has its beginning or its end: one of them")
	}
	if c.Begin != nil {
		return check(c.Actor.validate(), c.Begin.validate())
	}
	return check(c.Actor.validate(), c.End.validate())
}

func (c *RecordAct) apply(s *State, m Meta) error {
	if c.Actor.Kind == ByNode && c.Actor.Name != m.Node {
		return errorf(Denied, "node %q cannot speak for node %q", m.Node, c.Actor.Name)
	}
	m.Actor = c.Actor
	if c.End != nil {
		return c.End.apply(s, m)
	}
	alert := ""
	if Authorize(s, c.Actor, m.Node, c.Begin.Permission, c.Begin.Slot) != nil {
		alert = AlertDenied
	}
	return c.Begin.begin(s, m, alert)
}
