package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/identity"
)

// Limits of what nodes say to each other outside of Raft.
const (
	maxJoinMessage = 64 << 10 // a request with a certificate, or the list of 100 nodes
	joinPath       = "/node/v1/join"
	certifyPath    = "/node/v1/certify"
)

// A joinRequest is what a new node sends to a member.
type joinRequest struct {
	Code    string       `json:"code"`
	Node    cluster.Node `json:"node"`    // without identity
	Request []byte       `json:"request"` // PKCS #10, signed by the identity key
	Time    time.Time    `json:"time"`    // by the clock of the new node, as this is sent
	// Identity is the certificate that an owner elsewhere has made; without it a node with the owner key makes one.
	Identity []byte `json:"identity,omitempty"`
}

// A joinAnswer lets it in.
type joinAnswer struct {
	Cluster  cluster.Info   `json:"cluster"`
	Identity []byte         `json:"identity"` // its identity certificate
	Members  []cluster.Node `json:"members"`
	Error    string         `json:"error,omitempty"`
}

// Join makes this node a member of the cluster that the node at address (host:port) belongs to. The
// fingerprint is that node's TLS certificate's, compared by a person; the code is one that an
// administrator of the cluster made. Join can be repeated with the same code after an interruption.
func (n *Node) Join(ctx context.Context, address, fingerprint, code string) (*Member, error) {
	return n.join(ctx, address, fingerprint, code, nil)
}

// JoinUnder is Join with a certificate that an owner elsewhere has made.
func (n *Node) JoinUnder(ctx context.Context, address, fingerprint, code string, c Certified) (*Member, error) {
	return n.join(ctx, address, fingerprint, code, &c)
}

func (n *Node) join(ctx context.Context, address, fingerprint, code string, c *Certified) (*Member, error) {
	rec, done, err := n.mayEnter()
	if err != nil {
		return nil, err
	}
	defer done()
	if rec.HoldsOwner || rec.Elsewhere {
		return nil, fmt.Errorf("node %s has begun to found the cluster %q: only a node that was never used can join", n.cfg.Name, rec.ClusterName)
	}
	if code, err = cluster.NormalizeCode(code); err != nil {
		return nil, err
	}
	client, err := cluster.JoinClient(address, fingerprint) // before anything is made here
	if err != nil {
		return nil, err
	}
	if err := n.ping(ctx, client, address); err != nil {
		return nil, err
	}
	admin, err := n.openAdmin(ctx, &rec)
	if err != nil {
		return nil, err
	}
	request, err := n.requestIdentity(ctx, admin)
	if err != nil {
		return nil, err
	}
	q := joinRequest{Code: code, Node: n.self(rec, ""), Request: request, Time: n.cfg.Now().UTC()}
	if c != nil {
		if err := n.under(ctx, admin, &rec, *c); err != nil {
			return nil, refusal{err}
		}
		q.Identity = c.Identity.Raw
	}
	answer, err := ask(ctx, client, address, q)
	if err != nil {
		return nil, err
	}
	if c != nil && !bytes.Equal(answer.Cluster.Owner, c.Owner.Raw) {
		return nil, fmt.Errorf("the cluster at %s stands under another owner than the one whose certificate was given", address)
	}
	if err := n.accept(&rec, answer, request); err != nil {
		return nil, err
	}
	if err := n.software(&rec); err != nil {
		return nil, err
	}
	rec.Complete = true
	if err := n.enter(ctx, rec, false); err != nil {
		return nil, err
	}
	return n.Member()
}

// accept checks what a member answered before any of it is kept.
func (n *Node) accept(rec *identityRecord, a joinAnswer, request []byte) error {
	poc, err := x509.ParseCertificate(a.Cluster.Owner)
	if err != nil {
		return fmt.Errorf("the owner certificate that came back cannot be read: %w", err)
	}
	pic, err := x509.ParseCertificate(a.Identity)
	if err != nil {
		return fmt.Errorf("the identity certificate that came back cannot be read: %w", err)
	}
	if _, err := identity.CheckIdentity(pic, poc, n.cfg.Now()); err != nil {
		return err
	}
	r, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return err
	}
	if !bytes.Equal(r.RawSubjectPublicKeyInfo, pic.RawSubjectPublicKeyInfo) || pic.Subject.CommonName != n.cfg.Name {
		return errors.New("the identity certificate that came back is for another node")
	}
	rec.Cluster, rec.ClusterName = a.Cluster.ID, a.Cluster.Name
	rec.Owner, rec.Identity, rec.Members = a.Cluster.Owner, a.Identity, a.Members
	return n.saveIdentity(rec)
}

// ping finds out whether the fingerprint is right and the clocks agree before a token is made.
func (n *Node) ping(ctx context.Context, client *http.Client, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+joinPath, nil)
	if err != nil {
		return err
	}
	clock, limit, err := n.askTime(client, req, address)
	if err != nil {
		return err
	}
	return refusePast(clock, limit, "the node at "+address, "this node, "+n.cfg.Name)
}

func ask(ctx context.Context, client *http.Client, address string, r joinRequest) (joinAnswer, error) {
	var a joinAnswer
	body, err := json.Marshal(r)
	if err != nil {
		return a, err
	}
	defer clear(body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+joinPath, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return a, joinFailure(address, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxJoinMessage*16)).Decode(&a); err != nil {
		return a, fmt.Errorf("the node at %s gave no proper answer (%s)", address, resp.Status)
	}
	if a.Error != "" || resp.StatusCode != http.StatusOK {
		return a, fmt.Errorf("the node at %s does not let this node in: %s", address, a.Error)
	}
	return a, nil
}

func joinFailure(address string, err error) error {
	if fp, ok := errors.AsType[*cluster.FingerprintError](err); ok {
		return fp
	}
	return fmt.Errorf("no connection to %s: %w", address, err)
}

// Invite makes a one-time code that lets one node in, and returns it with the fingerprint that the new
// node's administrator compares. Where others have to approve it first, the invitation comes with the error
// that says so: it is good once they have, and for all of life from then on.
func (m *Member) Invite(ctx context.Context, actor cluster.Actor, node string, life time.Duration) (Invitation, error) {
	code, hash := cluster.NewJoinCode()
	cmd := &cluster.AddInvite{Hash: hash, Node: node, Seconds: int(life / time.Second)}
	_, applied := m.Cluster.Apply(ctx, cmd, actor)
	if applied != nil && !errors.Is(applied, cluster.NeedsApproval) {
		return Invitation{}, applied
	}
	f, err := m.Fingerprint()
	if applied != nil {
		err = applied
	}
	return Invitation{Code: code, Fingerprint: f, Address: m.node.cfg.PeerAddress, Node: node, Expires: m.State().Invites[hash].Expires, Seconds: cmd.Seconds,
		Certified: !m.Identity.HoldsOwner() && m.Peers.ownerHolder() == ""}, err
}

// Invitation is what the administrator of a new node needs.
type Invitation struct {
	Code        string    `json:"code"`
	Fingerprint string    `json:"fingerprint"`
	Address     string    `json:"address"`
	Node        string    `json:"node,omitempty"`
	Expires     time.Time `json:"expires,omitzero"` // not known while others have to approve it
	Seconds     int       `json:"seconds"`          // from the approval on, where it takes one
	// Certified says that the new node brings its certificate: no node with the owner key answers.
	Certified bool `json:"certified,omitempty"`
}

// Command is what the administrator of the new node runs.
func (i Invitation) Command() string {
	c := "keyferry join --address " + i.Address + " --fingerprint " + i.Fingerprint
	if i.Certified {
		c += " --owner owner.crt --identity SERIAL.crt"
	}
	return c
}

// Fingerprint is that of the node's TLS certificate.
func (m *Member) Fingerprint() (string, error) {
	c, err := m.Identity.Certificate()
	if err != nil {
		return "", err
	}
	return cluster.Fingerprint(c.Certificate[0]), nil
}

// joins serves nodes that have no identity yet.
func (m *Member) joins() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+joinPath, m.tellTime)
	mux.HandleFunc("GET "+standingPath, m.serveStanding)
	mux.HandleFunc("POST "+joinPath, func(w http.ResponseWriter, r *http.Request) {
		var q joinRequest
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinMessage))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			respond(w, http.StatusBadRequest, joinAnswer{Error: "the request cannot be read"})
			return
		}
		a, err := m.admit(r.Context(), q)
		if err != nil {
			m.log.Warn("a node was not let in", "node", q.Node.Name, "error", err)
			respond(w, http.StatusForbidden, joinAnswer{Error: err.Error()})
			return
		}
		respond(w, http.StatusOK, a)
	})
	return mux
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// admit lets a node in that knows a one-time code.
func (m *Member) admit(ctx context.Context, q joinRequest) (joinAnswer, error) {
	hash, err := cluster.HashCode(q.Code)
	if err != nil {
		return joinAnswer{}, err
	}
	r, err := identity.ParseRequest(q.Request)
	if err != nil {
		return joinAnswer{}, err
	}
	if r.Subject.CommonName != q.Node.Name || r.Subject.SerialNumber != q.Node.Serial {
		return joinAnswer{}, errors.New("the certificate request names another node than the request to join")
	}
	key := digestHex(r.RawSubjectPublicKeyInfo)
	if err := m.State().CheckInvite(hash, q.Node.Name, key, time.Now()); err != nil {
		return joinAnswer{}, err
	}
	clock := compareClocks(m.node.cfg.Now(), q.Time, 0) // what it was on its way counts as behind
	if err := m.node.refuseClock(clock, "the new node "+q.Node.Name, m.Name()); err != nil {
		return joinAnswer{}, err
	}
	pic := q.Identity
	if pic == nil {
		pic, err = m.certified(ctx, certifyRequest{hash, q.Request, clock.Ahead})
	} else {
		err = m.vouched(pic, r)
	}
	if err != nil {
		return joinAnswer{}, err
	}
	node := q.Node
	node.Identity, node.Key = pic, key
	if _, err := m.Cluster.Apply(ctx, &cluster.AdmitNode{Invite: hash, Node: node}, m.self()); err != nil {
		return joinAnswer{}, err
	}
	s := m.State()
	a := joinAnswer{Cluster: s.Cluster, Identity: pic}
	for _, n := range s.Nodes {
		a.Members = append(a.Members, n)
	}
	return a, nil
}

// vouched checks a certificate that a new node brings: it must be for its key, of this cluster's owner.
func (m *Member) vouched(der []byte, r *x509.CertificateRequest) error {
	pic, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("the identity certificate that the node brings cannot be read: %w", err)
	}
	if pic.Subject.CommonName != r.Subject.CommonName {
		return fmt.Errorf("the identity certificate that the node brings is for %q, and it is %q", pic.Subject.CommonName, r.Subject.CommonName)
	}
	return identity.CheckFor(pic, m.Identity.Owner(), r.Subject.SerialNumber, r.PublicKey, m.node.cfg.Now())
}

// A certifyRequest asks the node with the owner key for an identity certificate.
type certifyRequest struct {
	Invite  string        `json:"invite"` // hash of the one-time code
	Request []byte        `json:"request"`
	Ahead   time.Duration `json:"ahead"` // how far the clock of the new node is ahead of that of the node that asks
}

type certifyAnswer struct {
	Identity []byte `json:"identity"`
	Error    string `json:"error,omitempty"`
}

// certified has the owner key certify a new node's identity, on whichever node that key is.
func (m *Member) certified(ctx context.Context, q certifyRequest) ([]byte, error) {
	if m.Identity.HoldsOwner() {
		return m.certifyHere(m.Name(), q)
	}
	holder := m.Peers.ownerHolder()
	if holder == "" {
		return nil, errors.New("no node with the owner key answers, so no new node can be certified: start the node that founded the cluster; where the owner is offline, the new node brings its certificate (\"keyferry join --identity\")")
	}
	var a certifyAnswer
	if err := m.Peers.post(ctx, holder, certifyPath, q, &a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, fmt.Errorf("node %s does not certify the new node: %s", holder, a.Error)
	}
	return a.Identity, nil
}

// certifyHere signs with the owner key of this node, for an invitation that its own state knows. The validity
// is by the clock here, so that must agree with the one of the new node, by way of the node that asks for it.
func (m *Member) certifyHere(asking string, q certifyRequest) ([]byte, error) {
	r, err := identity.ParseRequest(q.Request)
	if err != nil {
		return nil, err
	}
	name := r.Subject.CommonName
	if err := m.State().CheckInvite(q.Invite, name, digestHex(r.RawSubjectPublicKeyInfo), time.Now()); err != nil {
		return nil, err
	}
	if n, ok := m.State().Nodes[name]; ok && n.Key == digestHex(r.RawSubjectPublicKeyInfo) {
		return n.Identity, nil // a joiner that starts over
	}
	clock := m.Peers.Seen(asking).Clock
	if err := m.node.refuseClock(clock, asking, m.Name()); err != nil {
		return nil, err
	}
	clock.Known, clock.Ahead = true, clock.Ahead+q.Ahead
	if err := m.node.refuseClock(clock, "the new node "+name, m.Name()+", which certifies it"); err != nil {
		return nil, err
	}
	return m.Identity.certify(q.Request, m.node.cfg.Now())
}
