package webconf

import (
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/node"
)

// A statusAnswer is what the API says of a node. Before the node is a member there are only its first
// fields.
type statusAnswer struct {
	Node        string       `json:"node"`
	Version     string       `json:"version"`
	Member      bool         `json:"member"`
	Cluster     clusterName  `json:"cluster,omitzero"`
	WebConf     string       `json:"webconf,omitempty"`
	Fingerprint string       `json:"fingerprint,omitempty"`
	Removed     time.Time    `json:"removed,omitzero"` // since when the node knows that it was removed from the cluster
	Quorum      bool         `json:"quorum"`
	Leader      string       `json:"leader,omitempty"`
	Role        string       `json:"role,omitempty"`
	Nodes       []nodeAnswer `json:"nodes"`
	Slots       slotCount    `json:"slots"`
	Keys        node.Summary `json:"keys"`
	Sealing     node.Sealing `json:"sealing"` // what protects the stored codes, and why the node is sealed if it is
	Problems    []problem    `json:"problems"`
}

type clusterName struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type nodeAnswer struct {
	Name    string `json:"name"`
	Status  string `json:"status"`
	Answers bool   `json:"answers"`
	WebConf string `json:"webconf"`
	Version string `json:"version"`
	Voter   bool   `json:"voter"`

	Clock *clockAnswer `json:"clock,omitempty"` // missing until the node has answered
}

// A clockAnswer is how far the clock of a node is ahead of that of the node that says so, in seconds.
type clockAnswer struct {
	Ahead  float64 `json:"ahead"`
	Within float64 `json:"within"` // the true difference is no further away than that
	Past   bool    `json:"past_limit"`
}

type slotCount struct {
	Active int `json:"active"`
	Total  int `json:"total"`
}

func apiStatus(c *call) error {
	n := c.srv.node
	a := statusAnswer{Node: n.Name(), Version: n.Version(), Nodes: []nodeAnswer{}, Problems: []problem{}, Keys: node.Summary{Alone: []string{}}, Sealing: n.Sealing()}
	if c.m == nil {
		return c.JSON(http.StatusOK, a)
	}
	v := c.look()
	a.Member, a.Cluster, a.WebConf = true, clusterName{v.State.Cluster.ID, v.State.Cluster.Name}, n.WebURL()
	a.Fingerprint, _ = c.m.Fingerprint() // empty until there is a certificate
	a.Removed = v.Removed
	a.Quorum, a.Leader, a.Role = v.Status.Quorum, v.Status.Leader, v.Status.Role
	a.Slots, a.Keys, a.Problems = slotCount{v.active(), len(v.Slots)}, v.Summary, whole(v.problems())
	for _, name := range v.names() {
		o := v.State.Nodes[name]
		n := nodeAnswer{Name: name, Status: string(o.Status), Answers: v.Seen[name].Answers, WebConf: o.WebURL, Version: o.Version, Voter: slices.Contains(v.Status.Voters, name)}
		if c := v.Seen[name].Clock; c.Known {
			n.Clock = &clockAnswer{c.Ahead.Seconds(), c.Within.Seconds(), c.Past(v.ClockLimit)}
		}
		a.Nodes = append(a.Nodes, n)
	}
	return c.JSON(http.StatusOK, a)
}

func apiInit(c *call) error {
	var q struct {
		Name string `json:"name"`
		certified
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if strings.TrimSpace(q.Name) == "" {
		return invalid("give the cluster a name")
	}
	under, err := q.parse()
	if err != nil {
		return err
	}
	var f node.Founded
	if under != nil {
		f, err = c.srv.node.FoundUnder(c.Request().Context(), c.actor, q.Name, *under)
	} else {
		f, err = c.srv.node.Found(c.Request().Context(), c.actor, q.Name)
	}
	if err != nil {
		return said(err)
	}
	return c.JSON(http.StatusOK, f)
}

// A certified node brings certificates that an owner elsewhere has made, in PEM: both or none.
type certified struct {
	Owner    string `json:"owner,omitempty"`
	Identity string `json:"identity,omitempty"`
}

func (q certified) parse() (*node.Certified, error) {
	if q.Owner == "" && q.Identity == "" {
		return nil, nil
	}
	poc, err := identity.DecodeChain([]byte(q.Owner))
	if err != nil {
		return nil, invalid("the owner's certificate: %v", err)
	}
	pic, err := identity.DecodeChain([]byte(q.Identity))
	if err != nil {
		return nil, invalid("the node's certificate: %v", err)
	}
	return &node.Certified{Owner: poc[0], Identity: pic[0]}, nil
}

// apiRequestIdentity gives the request of a node for its owner, in PEM: of a new one, or of a member that is to be
// certified anew.
func apiRequestIdentity(c *call) error {
	var q struct {
		NewKey bool `json:"new_key,omitempty"` // of a member: for a key that is to replace the present one
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	ask := func() (*x509.CertificateRequest, error) { return c.srv.node.Request(c.Request().Context()) }
	switch {
	case c.m != nil && q.NewKey:
		ask = func() (*x509.CertificateRequest, error) { return c.m.NewKeyRequest(c.Request().Context(), c.actor) }
	case c.m != nil:
		ask = c.m.IdentityRequest
	}
	r, err := ask()
	if err != nil {
		return said(err)
	}
	return c.JSON(http.StatusOK, map[string]string{"request": string(identity.EncodeRequest(r))})
}

func apiJoin(c *call) error {
	var q struct {
		Address     string `json:"address"`
		Fingerprint string `json:"fingerprint"`
		Code        string `json:"code"`
		certified
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	under, err := q.parse()
	if err != nil {
		return err
	}
	var m *node.Member
	if under != nil {
		m, err = c.srv.node.JoinUnder(c.Request().Context(), q.Address, q.Fingerprint, q.Code, *under)
	} else {
		m, err = c.srv.node.Join(c.Request().Context(), q.Address, q.Fingerprint, q.Code)
	}
	if err != nil {
		return said(err)
	}
	fingerprint, err := m.Fingerprint()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{
		"cluster": m.Identity.ClusterName(), "node": m.Name(), "webconf": m.Node().WebURL(), "fingerprint": fingerprint,
	})
}

// An invited answer carries a one-time code, once.
type invited struct {
	node.Invitation
	Waits string `json:"waits,omitempty"` // for whose approval; until then it is good for nothing
}

func apiInvite(c *call) error {
	var q struct {
		Node  string  `json:"node"`
		Hours float64 `json:"hours"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if q.Hours <= 0 || q.Hours > maxInviteHours {
		return invalid("hours must be more than 0 and at most %d", maxInviteHours)
	}
	if q.Hours*3600 < 1 {
		return invalid("an invitation is good for a second at least")
	}
	i, err := c.m.Invite(c.Request().Context(), c.actor, q.Node, time.Duration(q.Hours*float64(time.Hour)))
	if approvalOf(err) != "" {
		return c.JSON(http.StatusAccepted, invited{i, judge(err).message})
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, invited{Invitation: i})
}

func apiRemoveNode(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	if c.QueryParam("stolen") == "true" {
		err = c.m.DeclareStolen(c.Request().Context(), c.actor, name)
	} else {
		err = c.m.Remove(c.Request().Context(), c.actor, name, c.QueryParam("give_up") == "true")
	}
	if err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// apiFirstCode makes a new one-time code: for the first administrator, or on a node that belongs to no
// cluster for a browser that is to change this.
func apiFirstCode(c *call) error {
	if err := c.decode(&struct{}{}); err != nil {
		return err
	}
	if errors.Is(c.alone, node.ErrNotMember) {
		return apiStartCode(c)
	}
	if err := c.authorize(cluster.MayManageAccounts, cluster.AnySlot); err != nil {
		return err
	}
	code, err := c.m.Accounts.NewFirstCode()
	if err != nil {
		return said(err)
	}
	fingerprint, err := c.m.Fingerprint()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, firstCodeAnswer{code, fingerprint, c.m.Node().WebURL(), "administrator"})
}

type firstCodeAnswer struct {
	Code        string `json:"code"`
	Fingerprint string `json:"fingerprint"` // of the certificate that a browser shows
	WebConf     string `json:"webconf"`
	For         string `json:"for"` // "administrator", or "node" where it is to become a member first
}

func apiStartCode(c *call) error {
	e := c.srv.node.Entrance()
	code, err := e.NewCode()
	if err != nil {
		return said(err)
	}
	fingerprint, err := e.Fingerprint()
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, firstCodeAnswer{code, fingerprint, c.srv.node.WebURL(), "node"})
}
