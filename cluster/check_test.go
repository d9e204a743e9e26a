package cluster

import (
	"strings"
	"testing"
	"time"
)

// What is malformed is refused before it is proposed, with a message that names it.
func TestValidate(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	node := func(change func(*Node)) *SetNode {
		n := testNode("node1")
		change(&n)
		return &SetNode{Node: n}
	}
	seat := func(change func(*Seat)) *PutSeat {
		s := testSeat("100")
		change(&s)
		return &PutSeat{Slot: "payments", Seat: s}
	}
	held := func(change func(*Held)) *ReportKeys {
		h := testHeld("key-1")
		change(&h)
		return &ReportKeys{Slot: "payments", Put: []Held{h}}
	}
	pkg := func(change func(*Package)) *RecordPackage {
		p := testPackage("pkg-1", "node2")
		change(&p)
		return &RecordPackage{Package: p}
	}
	app := func(change func(*App)) *PutApp {
		a := App{Name: "ejbca", Slots: []string{"payments"}, Restart: Restart{RestartSystemd, "ejbca.service"}}
		change(&a)
		return &PutApp{App: a}
	}
	restart := func(kind, target string) *PutApp { return app(func(a *App) { a.Restart = Restart{kind, target} }) }
	deliver := func(d Delivery) *PutApp { return app(func(a *App) { a.Delivery = d }) }
	for name, cmd := range map[string]Command{
		"cluster id":               &CreateCluster{ID: "C 1", Name: "x", Owner: identityOf("owner").Raw, Node: testNode("node1")},
		"cluster without a name":   &CreateCluster{ID: "c1", Owner: identityOf("owner").Raw, Node: testNode("node1")},
		"owner is no certificate":  &CreateCluster{ID: "c1", Name: "x", Owner: []byte("x"), Node: testNode("node1")},
		"owner is long":            &CreateCluster{ID: "c1", Name: "x", Owner: []byte(long), Node: testNode("node1")},
		"node name in capitals":    node(func(n *Node) { n.Name = "Node1" }),
		"node name with a hyphen":  node(func(n *Node) { n.Name = "-node" }),
		"node name is long":        node(func(n *Node) { n.Name = strings.Repeat("n", 64) }),
		"node name is a path":      node(func(n *Node) { n.Name = "../x" }),
		"address without a port":   node(func(n *Node) { n.PeerAddress = "node1" }),
		"address without a host":   node(func(n *Node) { n.PeerAddress = ":8441" }),
		"address with port 0":      node(func(n *Node) { n.PeerAddress = "node1:0" }),
		"address with a line end":  node(func(n *Node) { n.PeerAddress = "node\n1:80" }),
		"console over http":        node(func(n *Node) { n.WebURL = "http://node1" }),
		"console with a password":  node(func(n *Node) { n.WebURL = "https://u:p@node1" }),
		"protocol 0":               node(func(n *Node) { n.Protocol = 0 }),
		"identity is none":         node(func(n *Node) { n.Identity = []byte("x") }),
		"identity is long":         node(func(n *Node) { n.Identity = []byte(long) }),
		"key of another":           node(func(n *Node) { n.Key = testNode("node2").Key }),
		"version with an escape":   node(func(n *Node) { n.Version = "1\x1b[0m" }),
		"invite hash":              &AddInvite{Hash: "abc", Seconds: 3600},
		"invite for no time":       &AddInvite{Hash: testInvite(1)},
		"invite for a week":        &AddInvite{Hash: testInvite(1), Seconds: 7 * 24 * 3600},
		"invite for a bad name":    &AddInvite{Hash: testInvite(1), Node: "A", Seconds: 3600},
		"invite removed":           &RemoveInvite{Hash: "x"},
		"admission":                &AdmitNode{Invite: "x", Node: testNode("node1")},
		"replaced identity":        &ReplaceIdentity{Identity: []byte("x")},
		"status":                   &ConnectNode{Status: "gone"},
		"status not for reports":   &ConnectNode{Status: Initializing},
		"removed node":             &RemoveNode{},
		"trust in oneself":         &SetTrust{Trusting: "node1", Trusted: "node1", Trust: true},
		"trust without a name":     &SetTrust{Trusting: "node1"},
		"label is empty":           &RemoveSeat{Node: "node1"},
		"label is 33 bytes":        &PutSeat{Slot: strings.Repeat("ä", 16) + "x", Seat: testSeat("1")},
		"label ends with a space":  &PutSeat{Slot: "payments ", Seat: testSeat("1")},
		"label is no text":         &PutSeat{Slot: "a\xffb", Seat: testSeat("1")},
		"label has a tab":          &PutSeat{Slot: "a\tb", Seat: testSeat("1")},
		"seat without a serial":    seat(func(s *Seat) { s.Serial = "" }),
		"seat without a module":    seat(func(s *Seat) { s.Module = "" }),
		"seat mode":                seat(func(s *Seat) { s.Mode = "auto" }),
		"seat state":               seat(func(s *Seat) { s.State = "up" }),
		"seat reason":              seat(func(s *Seat) { s.Reason = long }),
		"seat receiver":            seat(func(s *Seat) { s.Receiver = long }),
		"seat code range":          seat(func(s *Seat) { s.MinCode, s.MaxCode = 9, 8 }),
		"seat code below 0":        seat(func(s *Seat) { s.MinCode = -1 }),
		"rotation of 11 years":     &SetRotation{Slot: "payments", Days: 4000},
		"rotation backwards":       &SetRotation{Slot: "payments", Days: -1},
		"protector is unknown":     node(func(n *Node) { n.Protector = "prayer" }),
		"code from the year 1":     &ReportSeat{Slot: "payments", State: Active, CodeFacts: CodeFacts{CodeSince: time.Time{}.Add(time.Hour)}},
		"opened by two lines":      &ReportSeat{Slot: "payments", State: Active, CodeFacts: CodeFacts{OpenedBy: "a\nb"}},
		"reported state":           &ReportSeat{Slot: "payments", State: "up"},
		"key fingerprint":          held(func(h *Held) { h.Fingerprint = "" }),
		"key class":                held(func(h *Held) { h.Class = "public" }),
		"key type":                 held(func(h *Held) { h.Type = "" }),
		"key id":                   held(func(h *Held) { h.ID = "abc" }),
		"key id is long":           held(func(h *Held) { h.ID = strings.Repeat("ab", maxKeyID) }),
		"key label":                held(func(h *Held) { h.Label = long }),
		"key label is no text":     held(func(h *Held) { h.Label = "\xff" }),
		"key certificates":         held(func(h *Held) { h.Certificates = -1 }),
		"too many keys":            &ReportKeys{Slot: "payments", Put: make([]Held, maxReport+1)},
		"removed key":              &ReportKeys{Slot: "payments", Remove: []string{"\n"}},
		"loose objects":            &ReportKeys{Slot: "payments", Loose: -1},
		"package without receiver": pkg(func(p *Package) { p.Receivers = nil }),
		"package receiver twice":   pkg(func(p *Package) { p.Receivers = []string{"node2", "node2"} }),
		"package without keys":     pkg(func(p *Package) { p.Keys = nil }),
		"package of all keys":      pkg(func(p *Package) { p.Keys = make([]string, maxPackageKeys+1) }),
		"package key":              pkg(func(p *Package) { p.Keys = []string{" "} }),
		"package hash":             pkg(func(p *Package) { p.SHA256 = strings.Repeat("AB", 32) }),
		"package size":             pkg(func(p *Package) { p.Size = 0 }),
		"package expiry":           pkg(func(p *Package) { p.Expires = time.Time{} }),
		"package for ever":         pkg(func(p *Package) { p.Expires = epoch.AddDate(8000, 0, 0) }),
		"receipt count":            &RecordReceipt{Package: "pkg-1", Receipt: Receipt{Imported: -1}},
		"receipt statement":        &RecordReceipt{Package: "pkg-1", Receipt: Receipt{Statement: long}},
		"account name":             &PutAccount{Name: "Anna", Hash: testHash, New: true},
		"account role":             &PutAccount{Name: "anna", Hash: testHash, Roles: []RoleGrant{{Role: "administrator"}}, New: true},
		"account with a password":  &PutAccount{Name: "anna", Hash: "secret", New: true},
		"account role twice":       &PutAccount{Name: "anna", Roles: []RoleGrant{{Role: CryptoUser, Slots: []string{"a"}}, {Role: CryptoUser, Slots: []string{"b"}}}},
		"account officer of slots": &PutAccount{Name: "anna", Roles: []RoleGrant{{Role: SecurityOfficer, Slots: []string{"a"}}}},
		"account auditor of slots": &PutAccount{Name: "anna", Roles: []RoleGrant{{Role: Auditor, Slots: []string{"a"}}}},
		"account slot twice":       &PutAccount{Name: "anna", Roles: []RoleGrant{{Role: CryptoUser, Slots: []string{"a", "a"}}}},
		"account slot":             &PutAccount{Name: "anna", Roles: []RoleGrant{{Role: CryptoUser, Slots: []string{AnySlot}}}},
		"account full name":        &PutAccount{Name: "anna", FullName: "Anna\n"},
		"account long name":        &PutAccount{Name: "anna", FullName: strings.Repeat("a", maxFullName+1)},
		"account hash with roles":  &PutAccount{Name: "anna", Hash: testHash},
		"account made temporary":   &PutAccount{Name: "anna", Temporary: true},
		"own password":             &SetPassword{Hash: "secret"},
		"another's password":       &ResetPassword{Name: "anna", Hash: "secret"},
		"another's name":           &ResetPassword{Name: "Anna", Hash: testHash},
		"act slot":                 &BeginAct{ID: "x", Act: "a", Object: "o", Slot: AnySlot, Permission: MayActivate},
		"act by everyone's right":  &BeginAct{ID: "x", Act: "a", Object: "o", Permission: MayEndAct},
		"account with bcrypt":      &PutAccount{Name: "anna", Hash: "$2a$10$abc", New: true},
		"app name":                 app(func(a *App) { a.Name = "EJBCA" }),
		"app slot twice":           app(func(a *App) { a.Slots = []string{"a", "a"} }),
		"app node":                 app(func(a *App) { a.Nodes = []string{"*"} }),
		"restart kind":             restart("shell", "x"),
		"restart without a target": restart(RestartCommand, ""),
		"restart none with one":    restart(RestartNone, "x"),
		"restart by a path":        restart(RestartCommand, "../../bin/sh"),
		"restart with arguments":   restart(RestartCommand, "sh -c"),
		"restart with an option":   restart(RestartSystemd, "--help"),
		"restart of a dot file":    restart(RestartCommand, ".profile"),
		"restart with a line end":  restart(RestartCommand, "ok\n"),
		"restart of a dotted hook": restart(RestartWebhook, "a.b"),
		"restart by a URL":         restart(RestartWebhook, "https://example.com"),
		"workload without a kind":  restart(RestartKubernetes, "prod:pki/ejbca"),
		"workload of a bad kind":   restart(RestartKubernetes, "prod:pki/secret/ejbca"),
		"workload with a path":     restart(RestartKubernetes, "prod:pki/deployment/../x"),
		"workload with a query":    restart(RestartKubernetes, "prod:pki/deployment/a?b"),
		"delivery kind":            deliver(Delivery{Kind: "environment"}),
		"delivery mode":            deliver(Delivery{Kind: DeliverFile, Mode: "0444"}),
		"delivery owner":           deliver(Delivery{Kind: DeliverFile, Owner: "../root"}),
		"delivery group":           deliver(Delivery{Kind: DeliverFile, Group: "a b"}),
		"delivery owner on stdin": app(func(a *App) {
			a.Restart, a.Delivery = Restart{RestartCommand, "x"}, Delivery{Kind: DeliverStdin, Owner: "root"}
		}),
		"delivery to a unit":       deliver(Delivery{Kind: DeliverStdin}),
		"manual code undelivered":  deliver(Delivery{Kind: DeliverNone, Manual: true}),
		"mode without delivery":    deliver(Delivery{Mode: ModeOwner}),
		"after itself":             app(func(a *App) { a.After = []string{"ejbca"} }),
		"after one twice":          app(func(a *App) { a.After = []string{"b", "b"} }),
		"after a bad name":         app(func(a *App) { a.After = []string{"B"} }),
		"after many":               app(func(a *App) { a.After = make([]string, maxAfter+1) }),
		"run reason":               &ReportRun{App: "ejbca", Run: Run{Reason: long}},
		"run of a day and more":    &ReportRun{App: "ejbca", Run: Run{Took: maxRunTook + 1}},
		"run try 5 of 4":           &ReportRun{App: "ejbca", Run: Run{Try: 5, Tries: 4}},
		"run detail":               &ReportRun{App: "ejbca", Run: Run{Detail: long}},
		"act id":                   &BeginAct{Act: "a", Object: "o", Permission: MayView},
		"act without an object":    &BeginAct{ID: "x", Act: "a", Permission: MayView},
		"act by a node's right":    &BeginAct{ID: "x", Act: "a", Object: "o", Permission: MayReport},
		"act to make a cluster":    &BeginAct{ID: "x", Act: "a", Object: "o", Permission: MayCreateCluster},
		"act by no right":          &BeginAct{ID: "x", Act: "a", Object: "o", Permission: "fly"},
		"act that ends as started": &EndAct{ID: "x", Result: Started},
	} {
		t.Run(name, func(t *testing.T) {
			err := cmd.validate()
			wantCode(t, err, Invalid)
			if len(err.Error()) > 600 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
	for _, target := range []string{"restart-ejbca", "ejbca.sh", "_x"} {
		if err := restart(RestartCommand, target).validate(); err != nil {
			t.Errorf("%q is refused: %v", target, err)
		}
	}
	for _, a := range []Actor{{"account", "A"}, {"console", ""}, {"node", "a b"}, {"", "x"}, {"root", "root"}} {
		wantCode(t, a.validate(), Invalid)
	}
}

// A command that is valid in its parts may still be too large for the log.
func TestCommandSize(t *testing.T) {
	c := &ReportKeys{Slot: "payments"}
	for range maxReport {
		h := testHeld(strings.Repeat("f", 128))
		h.Obstacle = strings.Repeat("x", maxText)
		c.Put = append(c.Put, h)
	}
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	_, err := encodeEntry(c, Meta{Time: epoch, Node: "node1", Actor: daemon1})
	wantCode(t, err, Invalid)
}
