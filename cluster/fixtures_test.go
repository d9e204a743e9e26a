package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// epoch is when test histories begin; entry i comes i seconds later.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var (
	identitiesMu sync.Mutex
	identities   = make(map[string]*x509.Certificate)
)

// identityOf makes a self-signed P-521 certificate for name, once.
func identityOf(name string) *x509.Certificate {
	identitiesMu.Lock()
	defer identitiesMu.Unlock()
	if cert, ok := identities[name]; ok {
		return cert
	}
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: epoch.AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	identities[name] = cert
	return cert
}

// testNode is a good Node called name.
func testNode(name string) Node {
	cert := identityOf(name)
	return Node{Name: name, Serial: "admin-" + name, PeerAddress: name + ".example:8441", WebURL: "https://" + name + ".example",
		Version: "1.0", Protocol: Protocol, Identity: cert.Raw, Key: KeyHash(cert), Protector: ByTPM}
}

func testSeat(serial string) Seat {
	return Seat{Module: "softhsm2", Serial: serial, Mode: Generated, State: Active, Receiver: "eyJ.x.y", MinCode: 4, MaxCode: 255,
		CodeFacts: CodeFacts{CodeSince: epoch, Opened: epoch.Add(time.Second), OpenedBy: "account/anna"}}
}

func testHeld(fp string) Held {
	return Held{Fingerprint: fp, Class: PrivateKey, Type: "EC P-384", ID: "a1b2", Label: "ca-2026", Extractable: true, Sensitive: true,
		Obstacle: "none, in truth", Certificates: 1}
}

func testPackage(id string, receivers ...string) Package {
	return Package{ID: id, Slot: "payments", Receivers: receivers, Keys: []string{"key-1", "key-2"},
		SHA256: strings.Repeat("ab", 32), Size: 4096, Expires: epoch.Add(24 * time.Hour)}
}

const testHash = "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"

func testInvite(n int) string { return fmt.Sprintf("%064x", n) }

// everyRole is for actors that need them all.
var everyRole = []RoleGrant{{Role: SecurityOfficer}, {Role: CryptoOfficer}}

// paymentsOnly is a role for one slot.
var paymentsOnly = []RoleGrant{{Role: CryptoOfficer, Slots: []string{"payments"}}, {Role: Auditor}}

// Actors of the test histories.
var (
	anna    = Actor{ByAccount, "anna"}
	console = Actor{ByConsole, "root"}
	daemon1 = Actor{ByNode, "node1"}
	daemon2 = Actor{ByNode, "node2"}
)

// step is one entry of a test history.
type step struct {
	node  string
	actor Actor
	cmd   Command
}

// founding makes a cluster of node1, with the account anna.
func founding() []step {
	return []step{
		{"node1", console, &CreateCluster{ID: "c1", Name: "Test", Owner: identityOf("owner").Raw, Node: testNode("node1")}},
		{"node1", console, &PutAccount{Name: "anna", FullName: "Anna Andersson", Hash: testHash, Roles: everyRole, New: true}},
	}
}

// admission lets a node in.
func admission(name string, n int) []step {
	return []step{
		{"node1", anna, &AddInvite{Hash: testInvite(n), Seconds: 3600}},
		{"node1", daemon1, &AdmitNode{Invite: testInvite(n), Node: testNode(name)}},
		{name, Actor{ByNode, name}, &ConnectNode{Status: Connected}},
	}
}

// history makes a State in which every field of every type is set somewhere.
func history() []step {
	steps := founding()
	steps = append(steps, admission("node2", 2)...)
	steps = append(steps, admission("node3", 3)...)
	steps = append(steps, factorHistory()...)
	steps = append(steps,
		step{"node1", anna, &AddInvite{Hash: testInvite(4), Node: "node4", Seconds: 3600}},
		step{"node1", anna, &SetTrust{Trusting: "node3", Trusted: "node2"}},
		step{"node1", anna, &PutSeat{Slot: "payments", Seat: testSeat("100")}},
		step{"node2", anna, &PutSeat{Slot: "payments", Seat: testSeat("200")}},
		step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Broken, Reason: "the module does not answer"}},
		step{"node2", daemon2, &ReportSeat{Slot: "payments", State: Broken, Reason: "the module does not answer", CodeFacts: CodeFacts{CodeSince: epoch, CodeRefused: true}}},
		step{"node1", anna, &SetRotation{Slot: "payments", Days: 90}},
		step{"node1", daemon1, &ReportKeys{Slot: "payments", Put: []Held{testHeld("key-1"), testHeld("key-2")}, Complete: true, Loose: 1}},
		step{"node2", daemon2, &ReportKeys{Slot: "payments", Put: []Held{testHeld("key-1")}}},
		step{"node1", anna, &RecordPackage{Package: testPackage("pkg-1", "node2", "node3")}},
		step{"node2", daemon2, &RecordReceipt{Package: "pkg-1", Receipt: Receipt{Imported: 1, Present: 2, Failed: 3, Conflicts: 4, Statement: "eyJ.r.s"}}},
		step{"node1", anna, &PutApp{App: App{Name: "database", Restart: Restart{Kind: RestartNone}}}},
		step{"node1", anna, &PutApp{App: App{Name: "ejbca", Slots: []string{"payments"}, Nodes: []string{"node1"}, After: []string{"database"}, Restart: Restart{RestartSystemd, "ejbca.service"},
			Delivery: Delivery{Kind: DeliverFile, Owner: "ejbca", Group: "hsm", Mode: ModeGroup, Manual: true}}}},
		step{"node1", daemon1, &ReportRun{App: "ejbca", Run: Run{OK: true, Detail: "in 3 s", Reason: "keys came into slot payments", Did: "systemd unit ejbca.service", Took: 3000, Try: 1, Tries: 4}}},
		step{"node1", anna, &BeginAct{ID: "act-1", Act: "slot.activate", Object: "slot/payments", Slot: "payments", Permission: MayActivate}},
		step{"node1", anna, &PutAccount{Name: "otto", Hash: testHash, Roles: paymentsOnly, New: true, Temporary: true, Disabled: true}},
		person("vera", RoleGrant{Role: Auditor}),
		person("gerd"),
		step{"node1", anna, &SetPolicy{Act: "account.remove", Needs: 1, Role: Auditor}},
		asks("approval-1", "node1", anna, &RemoveAccount{Name: "gerd"}),
		approves("vera", "approval-1", "node1", anna, &RemoveAccount{Name: "gerd"}),
		asks("approval-2", "node1", anna, &RemovePolicy{Act: "account.remove"}),
		approves("vera", "approval-2", "node1", anna, &RemovePolicy{Act: "account.remove"}),
		step{"node1", anna, &SetPolicy{Act: "key.destroy", Needs: 1, Role: Auditor}},
		asks("approval-3", "node1", anna, destroyKey("act-3", "ca-2026")),
		step{"node1", anna, &EndAct{ID: "act-1", Result: Done, Detail: "in 1 s"}},
		step{"node1", anna, &BeginAct{ID: "act-2", Act: "key.generate", Object: "slot/payments", Permission: MayManageKeys}},
		step{"node1", daemon1, &RecordNote{Actor: anna, Act: NoteLocked, Object: "account/anna", Result: Refused, Detail: "5 wrong passwords"}},
		step{"node1", daemon1, &SignAudit{Seq: 1, Hash: firstHash(), Signer: signerOf("node1"), Statement: "eyJ.c.s"}},
	)
	return append(append(steps, sharedHistory()...), settingsHistory()...)
}

// succession replaces owner and identity keys after history: one owner whole, and then of each what is under way.
func succession() []step {
	under := func(node, owner, name string) step {
		return step{node, Actor{ByNode, node}, &CertifyUnder{Owner: CertificateHash(identityOf(owner).Raw), Identity: identityOf(name).Raw, Key: KeyHash(identityOf(name))}}
	}
	return append(theft(), []step{
		{"node1", anna, &ReplaceOwner{Owner: identityOf("owner-2").Raw}},
		under("node1", "owner-2", "node1"), under("node2", "owner-2", "node2"), under("node3", "owner-2", "node3"),
		{"node2", anna, &ReplaceIdentity{Identity: identityOf("node2-new").Raw, Key: KeyHash(identityOf("node2-new"))}},
		{"node1", anna, &ReplaceOwner{Owner: identityOf("owner-3").Raw}},
		under("node1", "owner-3", "node1"),
	}...)
}

// theft lets node4 in, and declares it stolen.
func theft() []step {
	return append(admission("node4", 44),
		step{"node4", anna, &PutSeat{Slot: "payments", Seat: testSeat("400")}},
		step{"node4", Actor{ByNode, "node4"}, &ReportKeys{Slot: "payments", Put: []Held{testHeld("key-1"), testHeld("key-4")}, Complete: true}},
		step{"node1", anna, &RecordPackage{Package: testPackage("pkg-4", "node2", "node4")}},
		step{"node1", anna, &RemoveNode{Node: "node4", Stolen: true}},
		step{"node1", anna, &SettleStolen{Record: testNode("node4").Key, Key: "key-4 payments"}},
		step{"node1", anna, &AddInvite{Hash: testInvite(5), Node: "node5", Seconds: 3600}})
}

// signerOf is the hash of the identity that a node signs the trail with.
func signerOf(node string) string { return CertificateHash(testNode(node).Identity) }

// as makes an actor of an account.
func as(name string) Actor { return Actor{ByAccount, name} }

// person makes an account that is there.
func person(name string, roles ...RoleGrant) step {
	return step{"node1", console, &PutAccount{Name: name, Hash: testHash, Roles: roles, New: true}}
}

// asks requests approval of what an actor wants to do.
func asks(id, node string, actor Actor, cmd Command) step {
	data, err := json.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	return step{node, actor, &RequestApproval{ID: id, Command: cmd.Kind(), Data: data}}
}

// approves is somebody's word on that.
func approves(name, id, node string, actor Actor, cmd Command) step {
	hash, _, err := (&State{Cluster: Info{ID: "c1"}}).actHash(cmd, actor, node)
	if err != nil {
		panic(err)
	}
	return step{"node3", as(name), &Approve{ID: id, Hash: hash}}
}

// destroyKey is an act on an HSM.
func destroyKey(id, key string) *BeginAct {
	return &BeginAct{ID: id, Act: "key.destroy", Object: "slot/payments", Detail: "key " + key, Slot: "payments", Permission: MayManageKeys}
}

// firstHash is the hash of the first entry of history.
func firstHash() string {
	st := founding()[0]
	next, err := new(State).next(1, &entry{Kind: st.cmd.Kind(), Meta: Meta{Time: epoch.Add(time.Second), Node: st.node, Actor: st.actor}, command: st.cmd})
	if err != nil {
		panic(err)
	}
	return next.Audit[0].Hash
}

// play applies steps to s, through the encoding of the log, and wants each to succeed.
func play(t testing.TB, s *State, steps ...step) *State {
	t.Helper()
	for i, st := range steps {
		next, err := try(t, s, st)
		if err != nil {
			t.Fatalf("step %d, %s: %v", i, st.cmd.Kind(), err)
		}
		s = next
	}
	return s
}

// try applies one step to s, through the encoding of the log.
func try(t testing.TB, s *State, st step) (*State, error) {
	t.Helper()
	if err := check(st.actor.validate(), st.cmd.validate()); err != nil {
		t.Fatalf("%s is not valid: %v", st.cmd.Kind(), err)
	}
	index := s.Index + 1
	b, err := encodeEntry(st.cmd, Meta{Time: epoch.Add(time.Duration(index) * time.Second), Node: st.node, Actor: st.actor})
	if err != nil {
		t.Fatal(err)
	}
	e, err := decodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	return s.next(index, e)
}

// wantCode checks that err is an *Error of this code, and says something.
func wantCode(t testing.TB, err error, want Code) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	if e, ok := errors.AsType[*Error](err); !ok || e.Message == "" {
		t.Fatalf("error %#v is not an *Error with a message", err)
	}
}
