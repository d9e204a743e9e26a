package cluster

import "slices"

// Acts of notes: what happens on one node and changes nothing that is replicated. The set is closed, so
// that the names in the trail stay few enough to filter and to alert on.
const (
	NoteLogin        = "session.begin"     // a person logged in
	NoteLogout       = "session.end"       // a session ended: by its person, by another, by time
	NoteLoginRefused = "session.refused"   // a wrong password, code or key
	NoteLocked       = "account.locked"    // too many wrong attempts
	NoteShareEntered = "share.entered"     // a custodian gave their part of a code
	NoteShareRefused = "share.refused"     // a wrong passphrase, or a part that does not fit
	NoteShareExpired = "share.expired"     // too few parts came in time
	NoteCodeDiffers  = "slot.code-differs" // another program changed the code of a token
	NoteAuditDiffers = "audit.differs"     // the trail is not the one that this node signed
	NoteSyslogGap    = "syslog.gap"        // entries were forgotten before the sink took them

	NotePackageRefused = "package.refused" // brought, looked at, or to be imported
)

var noteActs = []string{NoteLogin, NoteLogout, NoteLoginRefused, NoteLocked, NoteShareEntered, NoteShareRefused, NoteShareExpired,
	NoteCodeDiffers, NoteAuditDiffers, NoteSyslogGap, NotePackageRefused}

// RecordNote writes an entry about something that happened on the reporting node and that no other
// command tells of. The node vouches for who did it, as it does for the people logged in on it: so a note
// can be made after an account is gone, and about a person who could not log in. It cannot name another
// node. Object and Detail are read by everybody who may view: no secret, and no name that was typed and is
// not that of an account, since people type passwords into the wrong field.
type RecordNote struct {
	Actor  Actor  `json:"actor"` // whom the entry names
	Act    string `json:"act"`   // one of the notes above
	Object string `json:"object"`
	Result string `json:"result"` // Done, Refused or Failed
	Detail string `json:"detail,omitempty"`
}

func (c *RecordNote) Kind() string               { return "note" }
func (c *RecordNote) describe() (string, string) { return c.Object, c.Detail }

func (c *RecordNote) validate() error {
	if !slices.Contains(noteActs, c.Act) {
		return errorf(Invalid, "there is no note %q", clip(c.Act))
	}
	return check(c.Actor.validate(), checkOneOf("result", c.Result, Done, Refused, Failed),
		checkLine("object", c.Object, maxText), checkText("detail", c.Detail, maxText))
}

func (c *RecordNote) apply(s *State, m Meta) error {
	if c.Actor.Kind == ByNode && c.Actor.Name != m.Node {
		return errorf(Denied, "node %q cannot speak for node %q", m.Node, c.Actor.Name)
	}
	m.Actor = c.Actor
	s.record(m, Entry{Act: c.Act, Object: c.Object, Result: c.Result, Detail: c.Detail, Alert: noteAlerts[c.Act]})
	return nil
}
