package node

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Certificates and packages are judged by clocks. Nodes compare theirs whenever they ask each other how they
// are, and a node whose clock is far from another's is not certified.

// ClockLimit is how far clocks may be apart where the configuration says nothing.
const ClockLimit = 30 * time.Second

// A Clock is the clock of another node, compared with this one's.
type Clock struct {
	Known  bool
	Ahead  time.Duration // how far it is ahead of this node's; negative: behind
	Within time.Duration // the true difference is no further from Ahead than that
}

// compareClocks makes a Clock from an answer that took so long and says what time it was there meanwhile.
// began is this node's clock when it asked. Half of the way is the best guess, and as much may be wrong.
func compareClocks(began, there time.Time, took time.Duration) Clock {
	return Clock{Known: true, Ahead: there.Sub(began.Add(took / 2)), Within: took / 2}
}

// Past tells whether the clocks are surely further apart than a limit.
func (c Clock) Past(limit time.Duration) bool { return c.Known && c.Ahead.Abs()-c.Within > limit }

// Agrees tells whether no difference can be seen, or none that matters to people.
func (c Clock) Agrees() bool { return c.Known && c.Ahead.Abs() <= max(c.Within, 100*time.Millisecond) }

// String is how people say it: "45 s ahead", "0.3 s behind".
func (c Clock) String() string {
	word := "ahead"
	if c.Ahead < 0 {
		word = "behind"
	}
	d := c.Ahead.Abs()
	switch {
	case !c.Known:
		return "not known"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s %s", d.Seconds(), word)
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s %s", d.Seconds(), word)
	}
	return fmt.Sprintf("%s %s", d.Round(time.Second), word)
}

// Of says of whose clock c is, and what that is compared with.
func (c Clock) Of(name, here string) string {
	what := "ahead of"
	if c.Ahead < 0 {
		what = "behind"
	}
	abs := Clock{Known: c.Known, Ahead: c.Ahead.Abs()}.String()
	return fmt.Sprintf("the clock of %s is %s %s that of %s", name, abs[:len(abs)-len(" ahead")], what, here)
}

// clockRemedy is what to do about clocks that differ.
const clockRemedy = "let both use the same time source (NTP) and try again"

// refuseClock refuses what needs clocks that agree, where that of another node is surely off.
func (n *Node) refuseClock(c Clock, name, here string) error {
	return refusePast(c, n.clockLimit(), name, here)
}

func refusePast(c Clock, limit time.Duration, name, here string) error {
	if !c.Past(limit) {
		return nil
	}
	return refuse("%s, and %s is the most that is allowed: certificates and packages are judged by clocks, so %s", c.Of(name, here), limit, clockRemedy)
}

// clockLimit is the setting of the cluster. A node in none goes by its own configuration.
func (n *Node) clockLimit() time.Duration {
	if m, err := n.Member(); err == nil {
		return m.Settings.ClockLimit()
	}
	return n.cfg.ClockLimit
}

// clockNote is a warning where the clock of a node is off, and empty otherwise.
func (y *Sync) clockNote(name string) string {
	c := y.m.Peers.Seen(name).Clock
	if !c.Past(y.m.Settings.ClockLimit()) {
		return ""
	}
	return c.Of(name, y.m.Name()) + "; whether packages and certificates are in their time is judged by the clock here"
}

// timeHeader carries the clock of a member to a node that wants to join, limitHeader how many seconds the cluster
// lets clocks be apart.
const (
	timeHeader  = "Keyferry-Time"
	limitHeader = "Keyferry-Clock-Limit"
)

// tellTime answers a node that has no identity yet, before it does anything.
func (m *Member) tellTime(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(timeHeader, m.node.cfg.Now().UTC().Format(time.RFC3339Nano))
	w.Header().Set(limitHeader, strconv.Itoa(int(m.Settings.ClockLimit().Seconds())))
	w.WriteHeader(http.StatusNoContent)
}

// askTime asks a member of a cluster for its clock. It also proves that the fingerprint is right and that
// somebody answers. The limit is that of the cluster, or this node's own where the answer has none that can be.
func (n *Node) askTime(client *http.Client, req *http.Request, address string) (c Clock, limit time.Duration, err error) {
	began, start := n.cfg.Now(), time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return Clock{}, 0, joinFailure(address, err)
	}
	resp.Body.Close()
	took := time.Since(start)
	there, err := time.Parse(time.RFC3339Nano, resp.Header.Get(timeHeader))
	if err != nil {
		return Clock{}, 0, fmt.Errorf("the node at %s does not say what time it is there: it has another version of Keyferry, so update one of the two", address)
	}
	limit = n.cfg.ClockLimit
	told := cluster.Settings{}
	if PutSetting(&told, "clock_limit", resp.Header.Get(limitHeader)) == nil && told.ClockLimit > 0 {
		limit = time.Duration(told.ClockLimit) * time.Second
	}
	return compareClocks(began, there, took), limit, nil
}
