package node

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Presence is whether a node has a key.
type Presence string

// What can be said of a key on a node.
const (
	Present        Presence = "present"
	Missing        Presence = "missing"
	Differs        Presence = "differs"         // another key has its ID or its label there
	NotExtractable Presence = "not extractable" // it is missing there, and can never come
	SlotDown       Presence = "slot down"       // the slot is closed there, or not there at all
	Unknown        Presence = "unknown"         // the node does not answer, or has not listed its keys yet
)

// KeyCoverage is one key of a slot, and which nodes have it.
type KeyCoverage struct {
	Slot    string              `json:"slot"`
	Key     KeyName             `json:"key"`
	Nodes   map[string]Presence `json:"nodes"`
	Reasons map[string]string   `json:"reasons,omitempty"` // by node: why it is not present, and what to do
	Since   time.Time           `json:"since"`             // when the first node reported it
	Holders []string            `json:"holders"`
	Alone   bool                `json:"alone,omitempty"` // no other node holds it
	Certs   int                 `json:"certificates"`
}

// KeyName says which key it is.
type KeyName struct {
	ID          string `json:"id"`
	Label       string `json:"label"`
	Type        string `json:"type"`
	Class       string `json:"class"`
	Fingerprint string `json:"fingerprint"`
}

// Complete tells whether every node has the key.
func (k KeyCoverage) Complete() bool {
	for _, p := range k.Nodes {
		if p != Present {
			return false
		}
	}
	return true
}

// Coverage compares what all nodes hold, slot by slot, as this node knows it.
func (k *Keys) Coverage() []KeyCoverage {
	return coverage(k.m.State(), k.m.Peers.Seen)
}

// coverage is a pure function of the replicated state and of which nodes answer. Its cost is linear in
// keys times nodes.
func coverage(s *cluster.State, seen func(string) Seen) []KeyCoverage {
	answers := map[string]Seen{}
	for name := range s.Nodes {
		answers[name] = seen(name)
	}
	list := []KeyCoverage{}
	for label, slot := range s.Slots {
		list = append(list, slotCoverage(s, slot, s.Keys[label], answers)...)
	}
	slices.SortFunc(list, func(a, b KeyCoverage) int {
		return cmp.Or(cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Key.Label, b.Key.Label), cmp.Compare(a.Key.ID, b.Key.ID), cmp.Compare(a.Key.Fingerprint, b.Key.Fingerprint))
	})
	return list
}

func slotCoverage(s *cluster.State, slot cluster.Slot, held map[string]cluster.Inventory, answers map[string]Seen) []KeyCoverage {
	keys := map[string]*KeyCoverage{}
	for _, node := range slices.Sorted(maps.Keys(held)) {
		for fp, h := range held[node].Keys {
			c := keys[fp]
			if c == nil {
				c = &KeyCoverage{Slot: slot.Label, Since: h.Since, Nodes: map[string]Presence{}, Reasons: map[string]string{},
					Key: KeyName{ID: h.ID, Label: h.Label, Type: h.Type, Class: h.Class, Fingerprint: fp}}
				keys[fp] = c
			}
			c.Holders = append(c.Holders, node)
			c.Certs = max(c.Certs, h.Certificates)
			if h.Since.Before(c.Since) {
				c.Since = h.Since
			}
			if len(h.Type) > len(c.Key.Type) { // a token may not tell the size of an imported key
				c.Key.Type = h.Type
			}
		}
	}
	names := indexNames(held)
	list := make([]KeyCoverage, 0, len(keys))
	for _, c := range keys {
		c.Alone = len(c.Holders) == 1 && len(s.Nodes) > 1
		for node := range s.Nodes {
			p, why := presence(c, slot, node, held, names[node], answers[node])
			if p == Missing && obstacleOf(c, held) == "" && !slices.ContainsFunc(c.Holders, func(h string) bool { return s.Trusts(node, h) }) {
				why = fmt.Sprintf("%s takes no packages from %s: make that trust first, on the page Identity and trust", node, strings.Join(c.Holders, " or "))
			}
			c.Nodes[node] = p
			if why != "" {
				c.Reasons[node] = why
			}
		}
		list = append(list, *c)
	}
	return list
}

// indexNames lists the fingerprints behind each ID and label, by node.
func indexNames(held map[string]cluster.Inventory) map[string]map[string][]string {
	index := map[string]map[string][]string{}
	for node, inv := range held {
		names := map[string][]string{}
		for fp, h := range inv.Keys {
			if h.ID != "" {
				names["id/"+h.ID] = append(names["id/"+h.ID], fp)
			}
			if h.Label != "" {
				names["label/"+h.Label] = append(names["label/"+h.Label], fp)
			}
		}
		index[node] = names
	}
	return index
}

func presence(c *KeyCoverage, slot cluster.Slot, node string, held map[string]cluster.Inventory, names map[string][]string, seen Seen) (Presence, string) {
	seat, ok := slot.Seats[node]
	inv := held[node]
	_, has := inv.Keys[c.Key.Fingerprint]
	was := "it did not have the key when it was last seen"
	if has {
		was = "it had the key when it was last seen"
	}
	switch {
	case !ok:
		return SlotDown, fmt.Sprintf("%s has no slot %q; make it there first", node, slot.Label)
	case !seen.Answers:
		return Unknown, fmt.Sprintf("%s does not answer; %s", node, was)
	case seat.State != cluster.Active:
		return SlotDown, fmt.Sprintf("the slot is closed on %s: %s; %s", node, cmp.Or(seat.Reason, string(seat.State)), was)
	case inv.Reported.IsZero():
		return Unknown, fmt.Sprintf("%s has not listed its keys yet", node)
	case has:
		return Present, ""
	}
	if other, what := conflict(c.Key, c.Holders, inv, names, held); other != "" {
		return Differs, fmt.Sprintf("%s has another key with the same %s (fingerprint %s); keys are never overwritten: rename or remove one of them", node, what, short(other))
	}
	obstacle := obstacleOf(c, held)
	switch {
	case obstacle == "":
		return Missing, fmt.Sprintf("send a key synchronization package to %s", node)
	case obstacle == obstacleExtractable:
		return NotExtractable, obstacle
	}
	return Missing, obstacle
}

// conflict finds a key that has the ID or the label of another key and is not it. Two keys that some
// node holds side by side are no conflict: whoever made them wanted both.
func conflict(k KeyName, holders []string, inv cluster.Inventory, names map[string][]string, held map[string]cluster.Inventory) (fingerprint, what string) {
	for _, n := range []struct{ what, key string }{{"ID", "id/" + k.ID}, {"label", "label/" + k.Label}} {
		if strings.HasSuffix(n.key, "/") {
			continue
		}
		for _, other := range names[n.key] {
			beside := slices.ContainsFunc(holders, func(h string) bool { _, ok := held[h].Keys[other]; return ok })
			if other != k.Fingerprint && !beside {
				return other, n.what
			}
		}
	}
	return "", ""
}

// obstacleOf is why no holder can send the key; empty when one can.
func obstacleOf(c *KeyCoverage, held map[string]cluster.Inventory) string {
	obstacle := ""
	for _, node := range c.Holders {
		h := held[node].Keys[c.Key.Fingerprint]
		if h.Obstacle == "" {
			return ""
		}
		obstacle = h.Obstacle
	}
	return obstacle
}

// short is a fingerprint cut for people.
func short(fp string) string {
	if len(fp) > 16 {
		fp = fp[:16]
	}
	return fp
}

// Summary counts a coverage.
type Summary struct {
	Keys       int      `json:"keys"`
	Everywhere int      `json:"everywhere"` // present on every node
	Gaps       int      `json:"gaps"`       // missing or differing somewhere
	Unknown    int      `json:"unknown"`    // complete as far as nodes answer
	Alone      []string `json:"alone"`      // labels of keys that one node alone holds
}

// Summarize counts a coverage.
func Summarize(list []KeyCoverage) Summary {
	s := Summary{Keys: len(list), Alone: []string{}}
	for _, k := range list {
		gap, unknown := false, false
		for _, p := range k.Nodes {
			gap = gap || p == Missing || p == Differs || p == NotExtractable
			unknown = unknown || p == Unknown || p == SlotDown
		}
		switch {
		case gap:
			s.Gaps++
		case unknown:
			s.Unknown++
		default:
			s.Everywhere++
		}
		if k.Alone {
			s.Alone = append(s.Alone, cmp.Or(k.Key.Label, k.Key.ID))
		}
	}
	return s
}
