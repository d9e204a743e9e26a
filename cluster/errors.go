package cluster

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an Error is. A Code is itself an error, so that
// errors.Is(err, cluster.NotFound) works. The numbers travel between nodes of different versions:
// they are never reused. Retired: none. Next: 14.
type Code int

const (
	Internal  Code = 1  // a fault of this program or of its disk
	Invalid   Code = 2  // the command is malformed; it was not proposed
	Denied    Code = 3  // the actor may not do this
	NotFound  Code = 4  // the object is not there
	Conflict  Code = 5  // the object is there already, or something else stands in the way
	Expired   Code = 6  // it came too late
	NoLeader  Code = 7  // not done: no leader could take the command; it is safe to repeat it
	Uncertain Code = 8  // may or may not be done: the command was handed over, and the answer is lost
	Behind    Code = 9  // done, but this node has not seen it yet
	Upgrade   Code = 10 // a node runs a version that is too old for this
	Full      Code = 11 // a limit is reached

	// NeedsApproval: not done. A policy wants other people to approve it; Error.Approval is the request.
	NeedsApproval Code = 12
	// Changed: not done. The object is not as its author saw it.
	Changed Code = 13
)

func (c Code) Error() string {
	switch c {
	case Internal:
		return "internal error"
	case Invalid:
		return "invalid"
	case Denied:
		return "denied"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Expired:
		return "expired"
	case NoLeader:
		return "no leader"
	case Uncertain:
		return "may or may not be done"
	case Behind:
		return "done, but not seen here yet"
	case Upgrade:
		return "upgrade needed"
	case Full:
		return "limit reached"
	case NeedsApproval:
		return "needs approval"
	case Changed:
		return "changed meanwhile"
	}
	return fmt.Sprintf("error code %d", int(c))
}

// Error is what the operations of this package fail with; connections fail with a *DialError or a
// *FingerprintError. It survives the way from the leader back to the node that asked.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // for people: what was wrong, with which object, what to do

	Approval string `json:"approval,omitempty"` // NeedsApproval: the id of the request, where there is one

	alert string // of the audit entry that records it; empty: that of the code
}

func (e *Error) Error() string { return e.Message }

// Unwrap makes errors.Is(err, code) work.
func (e *Error) Unwrap() error { return e.Code }

// errorf makes an Error.
func errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// alerting gives the audit entry that records e an alert of its own.
func (e *Error) alerting(alert string) *Error {
	e.alert = alert
	return e
}

// asError finds the Error in err; any other error becomes an Internal one.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return errorf(Internal, "%v", err)
}
