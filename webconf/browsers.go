package webconf

import "strings"

// origin says where somebody is, for the audit trail: the address of the connection and what kind of
// browser it is.
func (c *call) origin() string { return c.RealIP() + ", " + browserName(c.Request().UserAgent()) }

// browserName is the family of a browser by what it says of itself. It is a word of ours and nothing that
// a stranger wrote, since it goes into the audit trail and onto pages. The order matters: most claim to be
// several others too.
func browserName(agent string) string {
	for _, b := range []struct{ token, name string }{
		{"Firefox/", "Firefox"}, {"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}, {"curl/", "curl"},
	} {
		if strings.Contains(agent, b.token) {
			return b.name
		}
	}
	return "another program"
}
