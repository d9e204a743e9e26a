package cluster

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every kind is in the table under its own name, and so is the permission it needs.
func TestKinds(t *testing.T) {
	for name, k := range kinds {
		if got := k.make().Kind(); got != name {
			t.Errorf("%q makes a command that calls itself %q", name, got)
		}
		if k.since < 1 || k.since > Protocol {
			t.Errorf("%q is known since protocol %d", name, k.since)
		}
		if _, ok := grants[k.may]; !ok && name != "act.begin" && name != "approval.request" {
			t.Errorf("%q needs the permission %q, which nobody has", name, k.may)
		}
	}
	for p, g := range grants {
		if g.since < 1 || g.since > Protocol || len(g.roles) == 0 && !g.everyone && !g.node {
			t.Errorf("permission %q: %+v", p, g)
		}
	}
}

// Each refusal has its code, changes nothing, and is in the audit trail if the act was an operator's.
func TestRefusals(t *testing.T) {
	base := play(t, new(State), history()...)
	same := func(change func(*Node)) Node { // node4, but
		n := testNode("node4")
		change(&n)
		return n
	}
	admit := func(invite int, n Node) *AdmitNode { return &AdmitNode{Invite: testInvite(invite), Node: n} }
	for name, c := range map[string]struct {
		step
		code   Code
		silent bool // no audit entry
	}{
		"cluster twice":          {step{"node1", console, &CreateCluster{ID: "c2", Name: "Other", Owner: identityOf("owner").Raw, Node: testNode("node1")}}, Conflict, false},
		"invite twice":           {step{"node1", anna, &AddInvite{Hash: testInvite(4), Seconds: 3600}}, Conflict, false},
		"invite for a member":    {step{"node1", anna, &AddInvite{Hash: testInvite(9), Node: "node2", Seconds: 3600}}, Conflict, false},
		"unknown invite removed": {step{"node1", anna, &RemoveInvite{Hash: testInvite(9)}}, NotFound, false},
		"unknown code":           {step{"node1", daemon1, admit(9, testNode("node4"))}, Denied, false},
		"used code":              {step{"node1", daemon1, admit(2, testNode("node4"))}, Denied, false},
		"code for another name":  {step{"node1", daemon1, admit(4, testNode("node5"))}, Denied, false},
		"name taken": {step{"node1", daemon1, admit(3, same(func(n *Node) {
			n.Name, n.Key, n.Identity = "node2", base.Nodes["node3"].Key, base.Nodes["node3"].Identity
		}))}, Conflict, false},
		"address taken":               {step{"node1", daemon1, admit(4, same(func(n *Node) { n.PeerAddress = base.Nodes["node1"].PeerAddress }))}, Conflict, false},
		"identity taken":              {step{"node1", daemon1, admit(4, same(func(n *Node) { n.Key, n.Identity = base.Nodes["node1"].Key, base.Nodes["node1"].Identity }))}, Conflict, false},
		"admin token taken":           {step{"node1", daemon1, admit(4, same(func(n *Node) { n.Serial = base.Nodes["node1"].Serial }))}, Conflict, false},
		"set another node":            {step{"node2", daemon2, &SetNode{Node: testNode("node1")}}, Denied, false},
		"identity by report":          {step{"node2", daemon2, &SetNode{Node: withIdentity(testNode("node2"), "other")}}, Denied, false},
		"identity of another":         {step{"node2", anna, &ReplaceIdentity{Identity: identityOf("node1").Raw, Key: KeyHash(identityOf("node1"))}}, Conflict, false},
		"unknown node removed":        {step{"node1", anna, &RemoveNode{Node: "node9"}}, NotFound, false},
		"trust in an unknown node":    {step{"node1", anna, &SetTrust{Trusting: "node1", Trusted: "node9", Trust: true}}, NotFound, false},
		"trust of an unknown node":    {step{"node1", anna, &SetTrust{Trusting: "node9", Trusted: "node1", Trust: true}}, NotFound, false},
		"no trust to remove":          {step{"node1", anna, &SetTrust{Trusting: "node3", Trusted: "node2"}}, NotFound, false},
		"serial used by another slot": {step{"node1", anna, &PutSeat{Slot: "tls", Seat: testSeat("100")}}, Conflict, false},
		"report without a seat":       {step{"node3", Actor{ByNode, "node3"}, &ReportSeat{Slot: "payments", State: Down}}, NotFound, true},
		"report on an unknown slot":   {step{"node1", daemon1, &ReportSeat{Slot: "tls", State: Down}}, NotFound, true},
		"keys without a seat":         {step{"node3", Actor{ByNode, "node3"}, &ReportKeys{Slot: "payments"}}, NotFound, true},
		"unknown seat removed":        {step{"node1", anna, &RemoveSeat{Slot: "payments", Node: "node3"}}, NotFound, false},
		"unknown slot removed":        {step{"node1", anna, &RemoveSeat{Slot: "tls", Node: "node1"}}, NotFound, false},
		"package twice":               {step{"node1", anna, &RecordPackage{Package: testPackage("pkg-1", "node2")}}, Conflict, false},
		"package without a seat":      {step{"node3", anna, &RecordPackage{Package: testPackage("pkg-2", "node2")}}, NotFound, false},
		"package for a stranger":      {step{"node1", anna, &RecordPackage{Package: testPackage("pkg-2", "node9")}}, NotFound, false},
		"package for oneself":         {step{"node1", anna, &RecordPackage{Package: testPackage("pkg-2", "node1")}}, Invalid, false},
		"receipt of nothing":          {step{"node2", daemon2, &RecordReceipt{Package: "pkg-9"}}, NotFound, false},
		"receipt for another's":       {step{"node1", daemon1, &RecordReceipt{Package: "pkg-1"}}, Denied, false},
		"account twice":               {step{"node1", anna, &PutAccount{Name: "anna", Hash: testHash, Roles: everyRole, New: true}}, Conflict, false},
		"unknown account changed":     {step{"node1", anna, &PutAccount{Name: "berta", Roles: everyRole}}, NotFound, false},
		"unknown account removed":     {step{"node1", anna, &RemoveAccount{Name: "berta"}}, NotFound, false},
		"own account removed":         {step{"node1", anna, &RemoveAccount{Name: "anna"}}, Conflict, false},
		"app with an unknown slot":    {step{"node1", anna, &PutApp{App: App{Name: "nginx", Slots: []string{"tls"}, Restart: Restart{Kind: RestartNone}}}}, NotFound, false},
		"app on an unknown node":      {step{"node1", anna, &PutApp{App: App{Name: "nginx", Nodes: []string{"node9"}, Restart: Restart{Kind: RestartNone}}}}, NotFound, false},
		"unknown app removed":         {step{"node1", anna, &RemoveApp{Name: "nginx"}}, NotFound, false},
		"run of an unknown app":       {step{"node1", daemon1, &ReportRun{App: "nginx", Run: Run{OK: true}}}, NotFound, true},
		"act twice":                   {step{"node1", anna, &BeginAct{ID: "act-2", Act: "x", Object: "y", Permission: MayView}}, Conflict, false},
		"unknown act ended":           {step{"node1", anna, &EndAct{ID: "act-9", Result: Done}}, NotFound, true},
		"act ended elsewhere":         {step{"node2", anna, &EndAct{ID: "act-2", Result: Done}}, Denied, false},
		"trail of another":            {step{"node1", daemon1, &SignAudit{Seq: 2, Hash: testInvite(1), Signer: signerOf("node1"), Statement: "eyJ.c.s"}}, Conflict, true},
		"signed as another":           {step{"node1", daemon1, &SignAudit{Seq: 2, Hash: base.Audit[1].Hash, Signer: signerOf("node2"), Statement: "eyJ.c.s"}}, Conflict, true},
		"signed already":              {step{"node1", daemon1, &SignAudit{Seq: 1, Hash: base.Audit[0].Hash, Signer: signerOf("node1"), Statement: "eyJ.c.s"}}, Conflict, true},
		"signed too early":            {step{"node1", daemon1, &SignAudit{Seq: 1000, Hash: testInvite(1), Signer: signerOf("node1"), Statement: "eyJ.c.s"}}, NotFound, true},
		"note for another node":       {step{"node1", daemon1, &RecordNote{Actor: daemon2, Act: NoteSyslogGap, Object: "node/node2", Result: Failed}}, Denied, false},
		"act of another ended":        {step{"node1", console, &EndAct{ID: "act-2", Result: Done}}, Denied, false},
	} {
		t.Run(name, func(t *testing.T) {
			next, err := try(t, base, c.step)
			wantCode(t, err, c.code)
			if got := len(next.Audit) - len(base.Audit); got != map[bool]int{true: 0, false: 1}[c.silent] {
				t.Errorf("%d audit entries", got)
			}
			if !c.silent {
				e := next.Audit[len(next.Audit)-1]
				if e.Result != Refused || e.Detail == "" || e.Object == "" || e.Act == "" || e.Actor != c.actor || e.Node != c.node {
					t.Errorf("audit entry %+v", e)
				}
			}
			undone := *next
			undone.Index, undone.Audit = base.Index, base.Audit
			if undone.Hash() != base.Hash() {
				t.Error("a refused command changed the state")
			}
		})
	}
}

func withIdentity(n Node, name string) Node {
	n.Identity, n.Key = identityOf(name).Raw, KeyHash(identityOf(name))
	return n
}

// Every kind of command, by every kind of actor.
func TestAuthorization(t *testing.T) {
	base := play(t, new(State), history()...)
	actors := map[string]step{
		"account":            {node: "node1", actor: anna},
		"unknown account":    {node: "node1", actor: Actor{ByAccount, "berta"}},
		"console":            {node: "node1", actor: console},
		"node":               {node: "node1", actor: daemon1},
		"node for another":   {node: "node1", actor: daemon2},
		"account, stranger":  {node: "node9", actor: anna},
		"console, stranger":  {node: "node9", actor: console},
		"stranger node":      {node: "node9", actor: Actor{ByNode, "node9"}},
		"account named node": {node: "node1", actor: Actor{ByAccount, "node1"}},
	}
	operators, nodes := []string{"account", "console"}, []string{"node"}
	both := append(slices.Clone(operators), nodes...)
	cases := map[string]struct {
		cmd Command
		may []string
	}{
		"cluster.create":    {&CreateCluster{ID: "c2", Name: "Other", Owner: identityOf("owner").Raw, Node: testNode("node1")}, []string{"console", "node"}},
		"invite.add":        {&AddInvite{Hash: testInvite(9), Seconds: 3600}, operators},
		"invite.remove":     {&RemoveInvite{Hash: testInvite(4)}, operators},
		"node.admit":        {&AdmitNode{Invite: testInvite(4), Node: testNode("node4")}, nodes},
		"node.set":          {&SetNode{Node: testNode("node1")}, nodes},
		"node.identity":     {&ReplaceIdentity{Identity: identityOf("new").Raw, Key: KeyHash(identityOf("new"))}, operators},
		"node.retire":       {&RetireIdentity{Key: testNode("node1").Key}, nodes},
		"owner.replace":     {&ReplaceOwner{Owner: identityOf("owner-2").Raw}, operators},
		"owner.certified":   {&CertifyUnder{Owner: testInvite(1), Identity: identityOf("node1").Raw, Key: KeyHash(identityOf("node1"))}, nodes},
		"node.connect":      {&ConnectNode{Status: Connected}, nodes},
		"node.remove":       {&RemoveNode{Node: "node2"}, operators},
		"stolen.settle":     {&SettleStolen{Record: testInvite(1)}, operators},
		"lease.take":        {&TakeLease{ID: "lease-9"}, operators},
		"lease.take-over":   {&TakeOverLease{ID: "lease-9", From: "lease-2", Holder: console}, operators},
		"lease.extend":      {&ExtendLease{ID: "lease-2"}, operators},
		"lease.release":     {&ReleaseLease{ID: "lease-2"}, operators},
		"settings.set":      {&SetSettings{Lease: "lease-2"}, operators},
		"trust.set":         {&SetTrust{Trusting: "node3", Trusted: "node2", Trust: true}, operators},
		"seat.put":          {&PutSeat{Slot: "tls", Seat: testSeat("101")}, both},
		"seat.report":       {&ReportSeat{Slot: "payments", State: Down}, nodes},
		"slot.rotation":     {&SetRotation{Slot: "payments", Days: 30}, operators},
		"seat.remove":       {&RemoveSeat{Slot: "payments", Node: "node2"}, operators},
		"keys.report":       {&ReportKeys{Slot: "payments", Complete: true}, nodes},
		"package.record":    {&RecordPackage{Package: testPackage("pkg-2", "node2")}, both},
		"package.receipt":   {&RecordReceipt{Package: "pkg-3"}, both},
		"account.put":       {&PutAccount{Name: "berta", Hash: testHash, Roles: everyRole, New: true}, operators},
		"account.password":  {&SetPassword{Hash: testHash}, []string{"account"}},
		"account.reset":     {&ResetPassword{Name: "otto", Hash: testHash}, operators},
		"account.remove":    {&RemoveAccount{Name: "clara"}, operators},
		"app.put":           {&PutApp{App: App{Name: "nginx", Restart: Restart{Kind: RestartNone}}}, operators},
		"app.remove":        {&RemoveApp{Name: "ejbca"}, operators},
		"app.run":           {&ReportRun{App: "ejbca", Run: Run{OK: true}}, nodes},
		"act.begin":         {&BeginAct{ID: "act-3", Act: "slot.activate", Object: "slot/payments", Permission: MayActivate}, operators},
		"act.end":           {&EndAct{ID: "act-9", Result: Done}, both},
		"act.record":        {&RecordAct{Actor: anna, Begin: &BeginAct{ID: "act-3", Act: "slot.activate", Object: "slot/payments", Permission: MayActivate}}, nodes},
		"audit.sign":        {&SignAudit{Seq: 2, Hash: base.Audit[1].Hash, Signer: signerOf("node1"), Statement: "eyJ.c.s"}, nodes},
		"note":              {&RecordNote{Actor: anna, Act: NoteLogin, Object: "account/anna", Result: Done}, nodes},
		policySet:           {&SetPolicy{Act: "node.remove", Needs: 1, Role: Auditor}, operators},
		"policy.remove":     {&RemovePolicy{Act: "key.destroy"}, operators},
		"approval.request":  {asks("approval-9", "node1", anna, destroyKey("act-9", "ca-2027")).cmd, operators},
		"approval.approve":  {&Approve{ID: "approval-3", Hash: base.Approvals["approval-3"].Hash}, nil}, // anna asked for it
		"approval.reject":   {&Reject{ID: "approval-3"}, nil},
		"approval.withdraw": {&Withdraw{ID: "approval-3"}, []string{"account"}},

		"account.lock":         {&ReportLock{Name: "anna", Tries: 10, Until: epoch.Add(time.Hour)}, nodes},
		"account.unlock":       {&UnlockAccount{Name: "otto"}, operators},
		"account.end-sessions": {&EndSessions{Name: "otto"}, operators},
		"factor.totp":          {&SetTOTP{Name: "anna", Salt: make([]byte, minSalt), Sealed: make([]byte, 48)}, []string{"account"}},
		"factor.passkey":       {&AddPasskey{Name: "anna", Passkey: testPasskey("two")}, []string{"account"}},
		"factor.certificate":   {&AddCertificate{Name: "otto", Certificate: testCertificate(2)}, operators},
		"factor.remove":        {&RemoveFactor{Name: "otto", Factor: FactorTOTP}, operators},
		"factor.used":          {&ReportFactor{Name: "anna", Factor: FactorTOTP, Counter: 101}, nodes},
		"custodian.put":        {&PutCustodian{Account: "anna", Key: "key-9", Public: []byte{4}, Sealed: testSealed}, []string{"account"}},
		"custody.put":          {&PutSplit{Slot: "payments", Base: testSplit(1, 2, "frida", "greta").ID, Split: testSplit(2, 2, "frida", "greta")}, operators},
		"custody.remove":       {&RemoveSplit{Slot: "payments", Split: "split-9"}, operators},
	}
	if got, want := slices.Sorted(maps.Keys(cases)), slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, want) {
		t.Fatalf("cases for %v, kinds are %v", got, want)
	}
	commands := map[string]Command{}
	for kind, c := range cases {
		commands[kind] = c.cmd
	}
	t.Run("roles", func(t *testing.T) { wantPermissions(t, base, commands) })
	for kind, c := range cases {
		for who, st := range actors {
			st.cmd = c.cmd
			next, err := try(t, base, st)
			denied := err != nil && asError(err).Code == Denied
			if denied == slices.Contains(c.may, who) {
				t.Errorf("%s by %s: %v", kind, who, err)
			}
			if denied && next.Audit[len(next.Audit)-1].Result != Refused {
				t.Errorf("%s by %s was denied and not audited", kind, who)
			}
		}
	}
}

// Before there is a cluster, nothing is allowed but making it, on the node itself.
func TestAuthorizeBeforeCluster(t *testing.T) {
	empty := new(State)
	for _, a := range []Actor{console, daemon1} {
		if err := Authorize(empty, a, "node1", MayCreateCluster, ""); err != nil {
			t.Errorf("%s cannot make a cluster: %v", a, err)
		}
		wantCode(t, Authorize(empty, a, "node1", MayView, ""), Denied)
	}
	wantCode(t, Authorize(empty, anna, "node1", MayCreateCluster, ""), Denied)
	wantCode(t, Authorize(empty, daemon2, "node1", MayCreateCluster, ""), Denied)
	wantCode(t, Authorize(play(t, empty, founding()...), console, "node1", "fly", ""), Denied)
}

// An account loses its permissions with the command that removes it, not a moment later.
func TestAuthorizeAtIndex(t *testing.T) {
	s := play(t, new(State), founding()...)
	s = play(t, s,
		step{"node1", anna, &PutAccount{Name: "berta", Hash: testHash, Roles: everyRole, New: true}},
		step{"node1", Actor{ByAccount, "berta"}, &RemoveAccount{Name: "anna"}})
	_, err := try(t, s, step{"node1", anna, &RemoveAccount{Name: "berta"}})
	wantCode(t, err, Denied)
}

// Each operator's act leaves one entry; reports leave one only when something changed that people care about.
func TestAuditTrail(t *testing.T) {
	s := play(t, new(State), history()...)
	var got []string
	for i, e := range s.Audit {
		if e.Seq != uint64(i+1) {
			t.Errorf("entry %d has the number %d", i, e.Seq)
		}
		got = append(got, strings.TrimSpace(strings.Join([]string{e.Actor.String(), e.Act, e.Object, e.Result, e.Detail, e.ActID}, " ")))
	}
	want := []string{
		"console/root cluster.create cluster/c1 done Test",
		"console/root account.put account/anna done new, security-officer; crypto-officer",
		"account/anna invite.add invite/00000000 done",
		"node/node1 node.admit node/node2 done node2.example:8441",
		"node/node2 node.connect node/node2 done connected",
		"account/anna invite.add invite/00000000 done",
		"node/node1 node.admit node/node3 done node3.example:8441",
		"node/node3 node.connect node/node3 done connected",
		"account/anna factor.totp account/anna done one-time passwords added",
		`account/anna factor.passkey account/anna done passkey "blue key" added`,
		`account/anna factor.certificate account/anna done certificate "smart card" added: ` + testCertificate(1).Fingerprint,
		"node/node1 account.locked account/anna done 10 wrong passwords in a row; takes none before 2026-03-01 13:00:00 UTC",
		"account/anna account.end-sessions account/anna done",
		"account/anna invite.add invite/00000000 done node4",
		"account/anna trust.set node/node3 done does not trust node/node2",
		"account/anna seat.put slot/payments done token 100 of softhsm2, mode generated",
		"account/anna seat.put slot/payments done token 200 of softhsm2, mode generated",
		"node/node2 seat.report slot/payments done active to failed: the module does not answer",
		"node/node2 slot.code-differs slot/payments failed the token of node node2 does not take the stored code: another program has changed it; it is not tried again",
		"account/anna slot.rotation slot/payments done every 90 days",
		"account/anna package.record package/pkg-1 done 2 keys of slot/payments for node2, node3",
		"node/node2 package.receipt package/pkg-1 done 1 key imported, 2 keys present already, 3 keys failed, 4 keys in conflict",
		"account/anna app.put app/database done",
		"account/anna app.put app/ejbca done codes go to files of ejbca, group hsm, mode 0440, those that people hold too",
		"account/anna slot.activate slot/payments started  act-1",
		"account/anna account.put account/otto done new, disabled, crypto-officer of payments; auditor",
		"console/root account.put account/vera done new, auditor",
		"console/root account.put account/gerd done new, no role",
		"account/anna policy.set policy/account.remove done needs 1 approval by auditor",
		"account/anna approval.request approval/approval-1 done account.remove account/gerd",
		"account/vera approval.approve approval/approval-1 done hash " + s.Approvals["approval-1"].Hash,
		"account/anna account.remove account/gerd done approved as approval-1",
		"account/anna approval.request approval/approval-2 done policy.remove policy/account.remove",
		"account/vera approval.approve approval/approval-2 done hash " + s.Approvals["approval-2"].Hash,
		"account/anna policy.remove policy/account.remove done approved as approval-2",
		"account/anna policy.set policy/key.destroy done needs 1 approval by auditor",
		"account/anna approval.request approval/approval-3 done key.destroy slot/payments: key ca-2026",
		"account/anna slot.activate slot/payments done in 1 s act-1",
		"account/anna key.generate slot/payments started  act-2",
		"account/anna account.locked account/anna refused 5 wrong passwords",
		"account/anna account.put account/frida done new, crypto-user",
		"account/frida custodian.put account/frida done a new custodian key",
		"account/anna account.put account/greta done new, crypto-user",
		"account/greta custodian.put account/greta done a new custodian key",
		"account/anna custody.put slot/payments done generation 1, 2 of frida, greta",
		"account/anna seat.put slot/payments done token 100 of softhsm2, mode shared",
		"account/anna lease.take settings/cluster done",
		"console/root lease.take-over settings/cluster done from account/anna",
		"console/root lease.extend settings/cluster done",
		"console/root settings.set settings/cluster done clocks may be 60 s apart, idle sessions end after 30 min, packages are good for 48 h, notice: For staff only.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit trail:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A command that a member's program does not know is not proposed.
func TestProtocolGate(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	if err := s.follows(&RemoveApp{}); err != nil {
		t.Errorf("every member speaks protocol %d: %v", Protocol, err)
	}
	old := s.Nodes["node2"]
	old.Protocol = 0
	s.Nodes = with(s.Nodes, "node2", old)
	for _, cmd := range []Command{&RemoveApp{}, &BeginAct{Permission: MayView}} {
		err := s.follows(cmd)
		wantCode(t, err, Upgrade)
		if !strings.Contains(err.Error(), `"node2"`) {
			t.Errorf("the error does not name the node: %v", err)
		}
	}
}

// A node that cannot read the log of this cluster is not let in, and none may step back below it.
func TestOldNode(t *testing.T) {
	s := play(t, new(State), append(founding(), admission("node2", 2)...)...)
	for _, name := range []string{"node1", "node2"} {
		n := s.Nodes[name]
		n.Protocol = 7
		s.Nodes = with(s.Nodes, name, n)
	}
	s = play(t, s, step{"node1", anna, &AddInvite{Hash: testInvite(3), Seconds: 3600}})
	_, err := try(t, s, step{"node1", daemon1, &AdmitNode{Invite: testInvite(3), Node: testNode("node3")}})
	wantCode(t, err, Upgrade)
}
