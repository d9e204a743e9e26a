package node

import (
	"fmt"
	"maps"
	"slices"

	"github.com/keyferry/keyferry/cluster"
)

// chainCheck follows the chain through a file and says where it is broken, in the words of people: changed,
// missing, swapped, out of place. It looks one entry ahead where one does not come in its turn, and keeps
// nothing else.
type chainCheck struct {
	report func(format string, args ...any)

	next uint64   // whose turn it is
	prev []string // hashes that the next entry may follow; none: not known
	last cluster.Entry

	changed   [2]uint64            // run of entries that do not fit their hash
	line      int                  // where it begins
	held      *heldEntry           // came out of turn; the entry after it tells why
	displaced map[uint64]heldEntry // turn -> what came in it
	unread    *unreadLine          // a line that cannot be read, and may have been an entry
}

type heldEntry struct {
	line  int
	entry cluster.Entry
}

type unreadLine struct {
	line int
	err  error
}

// maxDisplaced bounds what is kept of entries in wrong places.
const maxDisplaced = 1000

func (c *chainCheck) start(first uint64, before string) {
	c.next, c.prev, c.displaced = first, []string{before}, map[uint64]heldEntry{}
	c.last.Seq, c.last.Hash = max(first, 1)-1, before
}

// latest is the entry before the present line.
func (c *chainCheck) latest() cluster.Entry {
	if c.held != nil {
		return c.held.entry
	}
	return c.last
}

// entry takes the next entry of the file.
func (c *chainCheck) entry(line int, e cluster.Entry) {
	if c.held != nil {
		c.settle(line, e)
		return
	}
	if c.unread != nil {
		c.settleUnread(e)
	}
	if e.Seq == c.next {
		c.accept(line, e)
		return
	}
	c.held = &heldEntry{line, e}
}

// settle finds out why the held entry came out of turn.
func (c *chainCheck) settle(line int, e cluster.Entry) {
	h, turn := *c.held, c.next
	c.held = nil
	switch {
	case e.Seq == turn && h.entry.Seq == turn+1:
		c.report("entries %d and %d are swapped (lines %d and %d)", turn, turn+1, h.line, line)
		c.resume(h.entry)
	case e.Seq == turn+1:
		c.misplaced(turn, h)
		c.next, c.prev = turn+1, nil
		c.accept(line, e)
	case h.entry.Seq > turn:
		c.report("%s missing before line %d", entriesAre(turn, h.entry.Seq-1), h.line)
		c.next, c.prev = h.entry.Seq, nil
		c.accept(h.line, h.entry)
		c.entry(line, e)
	default:
		c.report("line %d: entry %d is out of place: it belongs before entry %d", h.line, h.entry.Seq, turn)
		c.entry(line, e)
	}
}

// misplaced remembers an entry that stands where another belongs, and reports two that changed places.
func (c *chainCheck) misplaced(turn uint64, h heldEntry) {
	if other, ok := c.displaced[h.entry.Seq]; ok && other.entry.Seq == turn {
		c.report("entries %d and %d are swapped (lines %d and %d)", h.entry.Seq, turn, other.line, h.line)
		delete(c.displaced, h.entry.Seq)
		return
	}
	if len(c.displaced) < maxDisplaced {
		c.displaced[turn] = h
		return
	}
	c.report("line %d: entry %d stands where entry %d belongs", h.line, h.entry.Seq, turn)
}

// accept computes the hash of an entry in its turn. After one that does not fit, either of its hash as it
// stands and its hash as it should be may have been changed: the next entry fits one of them.
func (c *chainCheck) accept(line int, e cluster.Entry) {
	fits := len(c.prev) == 0
	var computed string
	for _, prev := range c.prev {
		computed = e.Chained(prev)
		if fits = computed == e.Hash; fits {
			break
		}
	}
	c.resume(e)
	if fits {
		c.flush()
		return
	}
	c.prev = append(c.prev, computed)
	if c.changed[0] == 0 {
		c.changed[0], c.line = e.Seq, line
	}
	c.changed[1] = e.Seq
}

func (c *chainCheck) resume(e cluster.Entry) {
	c.last, c.next, c.prev = e, e.Seq+1, []string{e.Hash}
}

// flush reports the entries that did not fit, up to here.
func (c *chainCheck) flush() {
	from, to := c.changed[0], c.changed[1]
	switch {
	case from == 0:
		return
	case from == to:
		c.report("line %d: entry %d was changed", c.line, from)
	default:
		c.report("from line %d on: entries %d to %d were changed, or others put in their place", c.line, from, to)
	}
	c.changed = [2]uint64{}
}

// damaged takes a line that cannot be read.
func (c *chainCheck) damaged(line int, err error) {
	if c.unread != nil {
		c.report("line %d was changed: %v", c.unread.line, c.unread.err)
	}
	c.unread = &unreadLine{line, err}
}

// settleUnread tells by the entry after it what the line was.
func (c *chainCheck) settleUnread(e cluster.Entry) {
	u := c.unread
	c.unread = nil
	if e.Seq != c.next+1 {
		c.report("line %d was changed: %v", u.line, u.err)
		return
	}
	c.report("line %d: entry %d was changed: %v", u.line, c.next, u.err)
	c.next, c.prev = e.Seq, nil
}

// finish takes the end of the file.
func (c *chainCheck) finish() {
	if h := c.held; h != nil {
		c.held = nil
		if h.entry.Seq > c.next {
			c.report("%s missing before line %d", entriesAre(c.next, h.entry.Seq-1), h.line)
			c.resume(h.entry)
		} else {
			c.report("line %d: entry %d is out of place: it belongs before entry %d", h.line, h.entry.Seq, c.next)
		}
	}
	c.flush()
	if c.unread != nil {
		c.report("line %d was changed: %v", c.unread.line, c.unread.err)
	}
	for _, turn := range slices.Sorted(maps.Keys(c.displaced)) {
		h := c.displaced[turn]
		c.report("line %d: entry %d stands where entry %d belongs", h.line, h.entry.Seq, turn)
	}
}

func entriesAre(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("entry %d is", from)
	}
	return fmt.Sprintf("entries %d to %d are", from, to)
}
