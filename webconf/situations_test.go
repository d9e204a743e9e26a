package webconf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
)

// evil is what somebody could call a slot, a key or a node in the hope of more.
const evil = `"><script>alert(1)</script>'&{{.}}` + "`"

// plainSituation is a cluster of so many nodes with so many slots and keys, in which all is well.
func plainSituation(nodes, slots, keys int) *situation {
	now := time.Now()
	v := &situation{
		Now: now, Node: "node1", AdminOpen: true, ClockLimit: node.ClockLimit, CertificateEnds: now.Add(25 * 24 * time.Hour),
		State: &cluster.State{Cluster: cluster.Info{ID: "abcdefghij0123456789", Name: "ca-prod", Created: now.Add(-400 * 24 * time.Hour)},
			Nodes: map[string]cluster.Node{}, Slots: map[string]cluster.Slot{}, Keys: map[string]map[string]cluster.Inventory{}, Packages: map[string]cluster.Package{},
			Accounts: map[string]cluster.Account{}, Apps: map[string]cluster.App{}, Approvals: map[string]cluster.Approval{}, Acts: map[string]cluster.Act{}, Invites: map[string]cluster.Invite{}},
		Status:  cluster.Status{Node: "node1", Role: "leader", Leader: "node1", Quorum: true},
		Modules: map[string]node.ModuleHealth{"softhsm": {Up: true, Since: now.Add(-time.Hour)}}, Seen: map[string]node.Seen{}, AppWaits: map[string]string{}, AppAgain: map[string]time.Time{},
	}
	for i := range nodes {
		name := fmt.Sprintf("node%d", i+1)
		v.State.Nodes[name] = cluster.Node{Name: name, Serial: "0123456789abcdef", PeerAddress: name + ".example:8443", WebURL: "https://" + name + ".example:8444",
			Version: "1.0", Protocol: 1, Status: cluster.Connected, Joined: now.Add(-time.Hour),
			Protector: []string{cluster.ByFile, cluster.ByPassphrase, cluster.ByTPM, cluster.ByCredential, ""}[i%5]}
		v.Seen[name] = node.Seen{Answers: true, Last: now, Health: node.Health{Node: name, Version: "1.0", Time: now, Admin: true, HoldsOwner: i == 0}, Clock: node.Clock{Known: true, Ahead: 20 * time.Millisecond}}
		if i < 5 {
			v.Status.Voters = append(v.Status.Voters, name)
		} else {
			v.Status.Standbys = append(v.Status.Standbys, name)
		}
	}
	for i := range slots {
		v.addSlot(fmt.Sprintf("Slot%02d", i+1), now)
	}
	for i := range keys {
		v.addKey(fmt.Sprintf("Slot%02d", i%slots+1), fmt.Sprintf("key-%03d", i+1), now)
	}
	v.Summary = node.Summarize(v.Coverage)
	return v
}

func (v *situation) addSlot(label string, now time.Time) {
	slot := cluster.Slot{Label: label, Created: now, RotateEvery: 45 * (len(v.Slots) % 3), Seats: map[string]cluster.Seat{}}
	for name := range v.State.Nodes {
		slot.Seats[name] = cluster.Seat{Node: name, Module: "softhsm", Serial: "fedcba9876543210", Mode: cluster.Generated, State: cluster.Active, Since: now.Add(-time.Hour), By: "account/alice", MinCode: 4, MaxCode: 255}
	}
	v.State.Slots[label] = slot
	v.Slots = append(v.Slots, node.SlotView{Label: label, Node: v.Node, Module: "softhsm", Serial: "fedcba9876543210", Mode: cluster.Generated, State: cluster.Active, Since: now.Add(-time.Hour), By: "node/node1", Keys: 3, Min: 4, Max: 255,
		Tried: now.Add(-time.Hour), CodeFacts: cluster.CodeFacts{CodeSince: now.Add(-40 * 24 * time.Hour), Opened: now.Add(-time.Hour), OpenedBy: "node/node1"}})
}

func (v *situation) addKey(slot, label string, now time.Time) {
	k := node.KeyCoverage{Slot: slot, Key: node.KeyName{ID: "c0ffee", Label: label, Type: "EC P-384", Class: "private", Fingerprint: fmt.Sprintf("%064x", len(v.Coverage)+1)},
		Nodes: map[string]node.Presence{}, Reasons: map[string]string{}, Since: now.Add(-48 * time.Hour), Certs: 1}
	for name := range v.State.Nodes {
		k.Nodes[name] = node.Present
		k.Holders = append(k.Holders, name)
	}
	slices.Sort(k.Holders)
	v.Coverage = append(v.Coverage, k)
}

// degrade lets go wrong what can.
func (v *situation) degrade() *situation {
	v.Status.Quorum, v.Status.Leader, v.Status.Role = false, "", "follower"
	v.Modules["softhsm"] = node.ModuleHealth{Err: errors.New("its process ended"), Since: v.Now.Add(-time.Minute)}
	v.AdminOpen, v.AdminRefused = false, errors.New("wrong code")
	v.CertificateEnds = v.Now.Add(3 * 24 * time.Hour)
	v.Seen["node2"] = node.Seen{Last: v.Now.Add(-5 * time.Hour), Error: "connection refused"}
	v.Seen["node3"] = node.Seen{Answers: true, Last: v.Now, Health: node.Health{Time: v.Now.Add(-3 * time.Minute), Admin: true, Modules: []string{"luna"}}, Clock: node.Clock{Known: true, Ahead: -3 * time.Minute}}
	for i := range v.Slots {
		s := &v.Slots[i]
		switch i % 3 {
		case 0:
			s.Mode, s.State, s.Reason, s.By = cluster.Manual, cluster.Down, "waits for somebody to enter its code", ""
		case 1:
			s.State, s.Reason = cluster.Broken, "module softhsm does not run: its process ended"
		case 2:
			s.State, s.Reason, s.Loose, s.CodeRefused = cluster.Down, "the token refuses the stored code", 2, true
			s.CodeRefused = true
		}
		seat := v.State.Slots[s.Label].Seats["node3"]
		seat.State, seat.Reason = cluster.Down, "the token refuses the stored code"
		v.State.Slots[s.Label].Seats["node3"] = seat
	}
	all := []node.Presence{node.Missing, node.Differs, node.NotExtractable, node.SlotDown, node.Unknown}
	for i := range v.Coverage {
		k := &v.Coverage[i]
		k.Nodes["node2"], k.Reasons["node2"] = all[i%len(all)], "node2 does not answer; it had the key when it was last seen"
		k.Holders, k.Alone = []string{"node1"}, true
	}
	v.Summary = node.Summarize(v.Coverage)
	return v
}

// custody gives a slot custodians: its tokens have the code, are to take it, and wait in every way there is.
func (v *situation) custody(text string) *situation {
	if len(v.Slots) == 0 {
		return v
	}
	v.State.Custodians = map[string]cluster.Custodian{}
	p := cluster.Split{ID: "s1", Generation: 2, Threshold: 2, Created: v.Now, By: "account/alice"}
	for i, name := range []string{"alice", "bob", "carl"} {
		v.State.Accounts[name] = cluster.Account{Name: name, FullName: text, Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser}}}
		if name != "carl" {
			v.State.Custodians[name] = cluster.Custodian{Key: "k", Created: v.Now, Changed: v.Now}
		}
		p.Shares = append(p.Shares, cluster.Share{Account: name, Index: i + 1, Key: "k"})
	}
	v.State.Accounts["dora"] = cluster.Account{Name: "dora", Roles: []cluster.RoleGrant{{Role: cluster.CryptoUser}}}
	last := &v.Slots[len(v.Slots)-1]
	slot := v.State.Slots[last.Label]
	for name, seat := range slot.Seats {
		p.Nodes = append(p.Nodes, name)
		seat.Mode, seat.State, seat.Generation = cluster.Shared, cluster.Down, 2
		slot.Seats[name] = seat
		s := v.Seen[name]
		s.Health.Needs = []node.ShareNeed{{Slot: last.Label, Purpose: node.ForOpening, Have: 1, Threshold: 2, Until: v.Now.Add(10 * time.Minute)}}
		v.Seen[name] = s
	}
	slices.Sort(p.Nodes)
	slot.Custody = []cluster.Split{p}
	last.Mode, last.State, last.Reason = cluster.Shared, cluster.Down, "waits for its custodians"
	v.State.Slots[last.Label] = slot
	v.Needs = []node.ShareNeed{
		{Slot: last.Label, Purpose: node.ForOpening, Have: 0, Threshold: 2},
		{Slot: last.Label, Purpose: node.ForReplacing, Request: "r1", Have: 1, Threshold: 2, Until: v.Now.Add(time.Minute), Detail: text, By: "account/alice"},
		{Slot: last.Label, Purpose: node.ForSwitching, Threshold: 2},
	}
	return v
}

// history gives a cluster packages, applications, invitations and an audit trail.
func (v *situation) history(count int, text string) *situation {
	for i := range count {
		id := fmt.Sprintf("%032x", i+1)
		p := cluster.Package{ID: id, Slot: "Slot01", Source: "node1", Receivers: []string{"node2"}, Keys: []string{"a", "b"}, SHA256: fmt.Sprintf("%064x", i+1), Size: 8571,
			Created: v.Now.Add(-time.Duration(i) * time.Hour), Expires: v.Now.Add(time.Duration(24-i) * time.Hour), By: "account/alice", Receipts: map[string]cluster.Receipt{}}
		switch i % 3 {
		case 1:
			p.Receipts["node2"] = cluster.Receipt{Node: "node2", Time: v.Now, Imported: 2}
		case 2:
			p.Receipts["node2"] = cluster.Receipt{Node: "node2", Time: v.Now, Imported: 1, Conflicts: 1}
		}
		v.State.Packages[id] = p
		name := fmt.Sprintf("app%d", i+1)
		v.State.Apps[name] = cluster.App{Name: name, Slots: []string{"Slot01"}, Nodes: []string{}, Restart: cluster.Restart{Kind: []string{"none", "command", "systemd", "kubernetes", "webhook"}[i%5], Target: text},
			After: []string{text}, Delivery: []cluster.Delivery{{}, {Kind: cluster.DeliverFile, Owner: text, Group: text, Mode: cluster.ModeGroup, Manual: true}, {Kind: cluster.DeliverStdin}}[i%3],
			Runs: map[string]cluster.Run{"node1": {Time: v.Now, OK: i%2 == 0, Detail: text, Reason: text, Did: text, Took: 700 * i, Try: 1 + i%4, Tries: 4}}}
		if i%3 == 1 {
			v.AppWaits[name], v.AppAgain[name] = text, v.Now.Add(time.Minute)
		}
		v.State.Approvals[id] = cluster.Approval{ID: id, Hash: fmt.Sprintf("%064x", i), Kind: "node.remove", Act: "node.remove", Object: "node/" + text, Node: "node2",
			Data: []byte(`{"node":"node9"}`), Asker: cluster.Actor{Kind: cluster.ByConsole, Name: "root"}, Created: v.Now, Expires: v.Now.Add(time.Hour), State: cluster.ApprovalWaiting}
		v.State.Invites[fmt.Sprintf("%064x", i+1)] = cluster.Invite{Hash: fmt.Sprintf("%064x", i+1), Expires: v.Now.Add(time.Hour), By: "account/alice"}
	}
	v.Audit = node.AuditStatus{First: 1, Last: uint64(12*count - 1), Entries: 12*count - 1, CheckedFrom: 1, CheckedTo: uint64(12*count - 3), Damage: text, SignError: text, Alerts: count,
		Signed: []node.AuditSigned{{Node: "node1", Seq: 7, Time: v.Now}, {Node: "node2"}, {Node: "node3", Seq: 5, Error: text}},
		Syslog: node.SyslogStatus{Address: text, Waiting: count, Since: v.Now, Sent: 7, Error: text, ErrorTime: v.Now}}
	actor := cluster.Actor{Kind: cluster.ByAccount, Name: "alice"}
	for i := range 4 * count {
		act := fmt.Sprintf("act%d", i)
		object := "slot/" + text
		v.audit(cluster.Entry{Actor: actor, Act: "slot.activate", Object: object, Result: cluster.Started, ActID: act})
		v.audit(cluster.Entry{Actor: cluster.Actor{Kind: cluster.ByNode, Name: "node2"}, Act: "something.new", Object: object, Result: cluster.Done, Detail: text})
		if i == 0 {
			v.State.Acts[act] = cluster.Act{ID: act}
			continue
		}
		v.audit(cluster.Entry{Actor: actor, Act: "slot.activate", Object: object, Result: []string{cluster.Done, cluster.Refused, cluster.Failed}[i%3], Detail: text, ActID: act, Alert: []string{"", "", cluster.AlertDenied, text}[i%4]})
	}
	return v
}

func (v *situation) audit(e cluster.Entry) {
	e.Seq, e.Node, e.Time = uint64(len(v.State.Audit)+1), "node1", v.Now.Add(time.Duration(len(v.State.Audit))*time.Minute-10*time.Hour)
	v.State.Audit = append(v.State.Audit, e)
}

// hostile puts a text wherever somebody else has chosen one.
func (v *situation) hostile(text string) *situation {
	v.State.Cluster.Name = text
	for i := range v.Coverage {
		v.Coverage[i].Slot, v.Coverage[i].Key.Label, v.Coverage[i].Key.Type = text, text, text
		v.Coverage[i].Reasons["node1"] = text
	}
	for i := range v.Slots {
		v.Slots[i].Label, v.Slots[i].Reason, v.Slots[i].By, v.Slots[i].Serial, v.Slots[i].Module = text, text, text, text, text
	}
	slots := map[string]cluster.Slot{}
	for _, s := range v.State.Slots {
		s.Label = text
		for name, seat := range s.Seats {
			seat.Serial, seat.Module, seat.Reason = text, text, text
			s.Seats[name] = seat
		}
		slots[text] = s
	}
	v.State.Slots = slots
	for name, n := range v.State.Nodes {
		n.Version, n.PeerAddress = text, text
		v.State.Nodes[name] = n
		s := v.Seen[name]
		s.Error = text
		v.Seen[name] = s
	}
	for id, p := range v.State.Packages {
		p.Slot, p.By = text, text
		v.State.Packages[id] = p
	}
	v.Modules[text] = node.ModuleHealth{Err: errors.New(text)}
	return v
}

func modulesOf(v *situation, text string) []node.ModuleView {
	now := v.Now
	tokens := []node.TokenView{
		{TokenInfo: hsm.TokenInfo{Serial: "1", Label: "keyferry-admin", Model: text, Initialized: true, LoggedIn: true}, Use: node.UseAdmin},
		{TokenInfo: hsm.TokenInfo{Serial: "2", Label: text, Model: "M", Firmware: text, Initialized: true}, Use: node.UseSlot, Slot: text, Problem: text},
		{TokenInfo: hsm.TokenInfo{Serial: text, Label: text, Initialized: true}, Use: node.UseNone},
		{TokenInfo: hsm.TokenInfo{Initialized: true, CodeLocked: true, Label: "locked"}, Use: node.UseNone, Problem: "its user code is locked"},
		{Use: node.UseFree},
	}
	return []node.ModuleView{
		{Name: "softhsm", Path: text, Up: true, Since: now, PID: 17, Info: hsm.Info{Manufacturer: text, Description: text, Version: "2.6", Cryptoki: "2.40", Profile: text}, Tokens: tokens,
			Abilities: []hsm.Ability{{Name: text, OK: true}, {Name: "Ed25519", Note: text}}, Tested: now},
		{Name: "luna", Path: "/usr/lib/luna.so", Since: now, Problem: cmp.Or(text, "it does not start")},
	}
}

func receiptOf(text string) syncpkg.Receipt {
	return syncpkg.Receipt{Package: fmt.Sprintf("%032x", 1), SHA256: fmt.Sprintf("%064x", 1), Node: "node2", Slot: text, Time: time.Now(), Keys: []syncpkg.KeyResult{
		{Fingerprint: fmt.Sprintf("%064x", 1), ID: "01", Label: text, Result: syncpkg.Imported, Proof: &syncpkg.Proof{Kind: syncpkg.ProofSignature, Final: true}},
		{Fingerprint: fmt.Sprintf("%064x", 2), Result: syncpkg.AlreadyThere, Proof: &syncpkg.Proof{Kind: syncpkg.ProofMAC}},
		{Fingerprint: fmt.Sprintf("%064x", 3), ID: "03", Result: syncpkg.Conflict, Error: text},
		{Fingerprint: fmt.Sprintf("%064x", 4), ID: "04", Label: text, Result: syncpkg.Failed, Error: text},
	}}
}

// TestProblems lists what goes wrong, the most urgent first, each with what to do.
func TestProblems(t *testing.T) {
	if p := plainSituation(3, 2, 5).problems(); len(p) > 0 {
		t.Errorf("where all is well there are problems: %+v", p)
	}
	list := plainSituation(3, 3, 10).degrade().problems()
	if len(list) < 8 {
		t.Errorf("only %d problems", len(list))
	}
	urgent := true
	for _, p := range list {
		if p.Text == "" || p.Remedy == "" || p.Path == "" || p.Action == "" {
			t.Errorf("incomplete: %+v", p)
		}
		if p.Severity == bad && !urgent {
			t.Errorf("an urgent problem after one that is not: %s", p.Text)
		}
		urgent = p.Severity == bad
	}
	if list[0].Path != "/cluster" {
		t.Errorf("the missing quorum is not the first: %+v", list[0])
	}
	locked := plainSituation(1, 0, 0)
	locked.State.Accounts["bob"] = cluster.Account{Name: "bob", Locks: []cluster.Lock{{Node: "node1", Until: locked.Now.Add(time.Hour)}}}
	if first, more := banner(locked.problems(), "/people/bob/login"); first != nil || more != 0 || len(locked.problems()) != 1 {
		t.Errorf("the page that lifts a lock tells of it twice: %+v and %d more", first, more)
	}
	first, more := banner(list, "/cluster")
	if first == nil || first.Path == "/cluster" || more == 0 {
		t.Errorf("the banner of the cluster page: %+v and %d more", first, more)
	}
}

// TestSlotsOfAModuleThatIsDown are told once, as the module.
func TestSlotsOfAModuleThatIsDown(t *testing.T) {
	v := plainSituation(1, 2, 0)
	v.Modules["softhsm"] = node.ModuleHealth{Err: errors.New("gone")}
	for i := range v.Slots {
		v.Slots[i].State, v.Slots[i].Reason = cluster.Broken, "module softhsm does not run"
	}
	if list := v.problems(); len(list) != 1 {
		t.Errorf("%d problems: %+v", len(list), list)
	}
}
