package webconf

import (
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// A situation is what this node knows at one moment: what pages, banner and the API's status are made
// of. It is plain data, so that tests can make any.
type situation struct {
	Now     time.Time
	Node    string
	State   *cluster.State
	Status  cluster.Status
	Slots   []node.SlotView
	Modules map[string]node.ModuleHealth
	Seen    map[string]node.Seen // by node
	Needs   []node.ShareNeed     // of this node

	Audit node.AuditStatus

	Removed         time.Time // since when this node knows that it was removed; zero: it is a member
	AdminOpen       bool
	AdminRefused    error         // why the admin token does not take the stored code
	ClockLimit      time.Duration // how far clocks may be apart
	CertificateEnds time.Time     // of this node's TLS certificate
	OwnerEnds       time.Time
	IdentityEnds    map[string]time.Time // by node

	AppWaits map[string]string    // application -> what it waits for on this node
	AppAgain map[string]time.Time // when a restart that failed is tried again on this node

	Coverage []node.KeyCoverage
	Summary  node.Summary
}

// look gathers the situation. It asks no HSM and no other node.
func (s *Server) look(m *node.Member) *situation {
	list, summary := s.coverage.get(m)
	v := &situation{
		Now: time.Now(), Node: m.Name(), State: m.State(), Status: m.Cluster.Status(), Slots: m.Slots.Here(), Needs: m.Custody.Needs(),
		Modules: m.Node().ModuleHealth(), Seen: map[string]node.Seen{}, AdminOpen: m.Identity.Open(), Removed: m.Removed(), AdminRefused: m.Identity.Refused(),
		Coverage: list, Summary: summary, Audit: m.Trail.Status(), AppWaits: map[string]string{}, AppAgain: map[string]time.Time{}, IdentityEnds: map[string]time.Time{}, ClockLimit: m.Settings.ClockLimit(),
	}
	for name, a := range v.State.Apps {
		if !a.On(v.Node) {
			continue
		}
		if why := m.Apps.Waits(name, v.Node); why != "" {
			v.AppWaits[name] = why
		}
		if again := m.Apps.Again(name); !again.IsZero() {
			v.AppAgain[name] = again
		}
	}
	v.OwnerEnds = m.Identity.Owner().NotAfter
	for name, n := range v.State.Nodes {
		v.Seen[name] = m.Peers.Seen(name)
		if pic, err := x509.ParseCertificate(n.Identity); err == nil {
			v.IdentityEnds[name] = pic.NotAfter
		}
	}
	if c, err := m.Identity.Certificate(); err == nil {
		v.CertificateEnds = c.Leaf.NotAfter
	}
	return v
}

// names are the nodes of the cluster, in order.
func (v *situation) names() []string { return slices.Sorted(maps.Keys(v.State.Nodes)) }

// silent are the nodes that do not answer, in order.
func (v *situation) silent() []string {
	return slices.DeleteFunc(v.names(), func(n string) bool { return v.Seen[n].Answers })
}

// active counts the open slots of this node.
func (v *situation) active() int {
	n := 0
	for _, s := range v.Slots {
		if s.State == cluster.Active {
			n++
		}
	}
	return n
}

// seats counts the open slots of any node, and all of its slots.
func (v *situation) seats(name string) (active, total int) {
	if name == v.Node { // known better here than by the cluster
		return v.active(), len(v.Slots)
	}
	for _, slot := range v.State.Slots {
		seat, ok := slot.Seats[name]
		if !ok {
			continue
		}
		total++
		if seat.State == cluster.Active {
			active++
		}
	}
	return active, total
}

// A coverageCache keeps the comparison of all keys for as long as nothing in it can have changed: with
// many keys it takes longer than everything else on a page, and each page shows its count.
type coverageCache struct {
	mu      sync.Mutex
	state   *cluster.State
	answers string
	list    []node.KeyCoverage
	summary node.Summary
}

func (c *coverageCache) get(m *node.Member) ([]node.KeyCoverage, node.Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := m.State() // before the comparison: what comes after it makes the next one
	var answering []string
	for name := range state.Nodes {
		if m.Peers.Seen(name).Answers {
			answering = append(answering, name)
		}
	}
	slices.Sort(answering)
	answers := strings.Join(answering, " ")
	if state != c.state || answers != c.answers {
		c.list = m.Keys.Coverage()
		c.state, c.answers, c.summary = state, answers, node.Summarize(c.list)
	}
	return c.list, c.summary
}
