package node

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
	syslog "github.com/leodido/go-syslog/v4"
	"github.com/leodido/go-syslog/v4/rfc5424"
)

// SyslogFacilities are the facilities that can be configured, by their names in RFC 5424, section 6.2.1.
var SyslogFacilities = map[string]uint8{
	"user": 1, "daemon": 3, "auth": 4, "authpriv": 10, "audit": 13,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// DefaultFacility is for "security/authorization messages" (RFC 5424, table 1).
const DefaultFacility = "authpriv"

// Severities (RFC 5424, table 2).
const (
	severityAlert   = 1 // action must be taken immediately
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6
)

// syslogElement names the structured data. 32473 is the enterprise number for documentation (RFC 5612):
// Keyferry has none of its own.
const syslogElement = "keyferry@32473"

func severityOf(e cluster.Entry) uint8 {
	switch {
	case e.Alert != "":
		return severityAlert
	case e.Result == cluster.Failed:
		return severityError
	case e.Result == cluster.Refused:
		return severityWarning
	}
	return severityInfo
}

// syslogMessage is an entry as RFC 5424 writes it. The library's setters leave out in silence what they do
// not like, so its fields are set; it escapes and writes them, and its parser reads them in the tests.
func syslogMessage(e cluster.Entry, clusterID string, facility uint8) (string, error) {
	priority := facility*8 + severityOf(e)
	at := e.Time.UTC().Truncate(time.Microsecond) // as exact as the format can be
	app := "keyferry"
	kind := e.Act[:min(len(e.Act), 32)] // MSGID has 32 characters
	text := fmt.Sprintf("%s: %s %s %s", e.Actor, e.Act, e.Object, e.Result)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if slices.ContainsFunc([]byte(text), func(b byte) bool { return b > 127 }) {
		text = "\ufeff" + text // which says that it is UTF-8 (section 6.4)
	}
	data := map[string]string{
		"cluster": clusterID, "seq": strconv.FormatUint(e.Seq, 10), "hash": e.Hash, "actorKind": e.Actor.Kind, "actor": e.Actor.Name,
		"act": e.Act, "object": e.Object, "result": e.Result, "detail": e.Detail, "actID": e.ActID, "alert": e.Alert,
	}
	for name, value := range data {
		if value == "" {
			delete(data, name)
		}
	}
	m := rfc5424.SyslogMessage{Base: syslog.Base{Priority: &priority, Timestamp: &at, Hostname: &e.Node, Appname: &app, MsgID: &kind, Message: &text},
		Version: 1, StructuredData: &map[string]map[string]string{syslogElement: data}}
	return m.String()
}

// syslogFrame is a message as RFC 5425, section 4.3, frames it: by its length in octets.
func syslogFrame(message string) []byte {
	return fmt.Appendf(nil, "%d %s", len(message), message)
}
