package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyferry/keyferry/cluster"
)

// A cutOff is a command in the middle of which the daemon is killed, and how its slot is then.
type cutOff struct {
	slot string
	step string
	in   string
	args []string

	mode    string   // which the slot has in the end; "" where it is not there
	codes   []string // that people enter, in the order in which they are told to, until the token takes one
	refused int      // how many codes the token has refused by then
}

// A round is commands on different slots that the same kill cuts off, each at its step.
type round struct {
	name    string
	before  func(n *loneNode) []cutOff // makes what the commands need
	protect string                     // the step of protecting the node key at which the kill comes, after the others
	after   func(n *loneNode)          // what people do when the daemon runs again
}

// Codes that people choose. Each has a name, so that the tables say which is meant.
const (
	firstCode  = "first code of all"
	secondCode = "second code of all"
	thirdCode  = "third code of all"
	lastCode   = "last code of all"
	nodeKey    = "a passphrase of some length"
)

// rounds are all the steps of all the changes of codes, in an order in which each finds what it needs.
// Slots 1 to 3 begin in generated mode, 4 to 6 in manual mode.
func rounds() []round {
	return []round{
		{name: "made", before: making},
		{name: "changed", before: changing, protect: "written"},
		{name: "handed over", before: switching, protect: "proved"},
		{name: "shared", before: sharing, protect: "renamed", after: openShared},
		{name: "shared again or left", before: sharingAgain, protect: "switched", after: openSharedAgain},
		{name: "left", before: leaving, after: openLeft},
	}
}

func making(*loneNode) []cutOff {
	generated := func(slot, step string) cutOff {
		return cutOff{slot: slot, step: "slot: " + step, args: []string{"slots", "create", slot}, mode: cluster.Generated}
	}
	manual := func(slot, step string) cutOff {
		return cutOff{slot: slot, step: "slot: " + step, in: firstCode + "\n", args: []string{"slots", "create", slot, "--mode", cluster.Manual},
			mode: cluster.Manual, codes: []string{firstCode}}
	}
	list := []cutOff{
		generated("1", "recorded"), generated("2", "token made"), generated("3", "stored"),
		manual("4", "recorded"), manual("5", "token made"), manual("6", "stored"),
	}
	list[0].mode, list[3].mode = "", ""
	return list
}

func changing(n *loneNode) []cutOff {
	n.must("", "slots", "create", "1") // the label is free again
	n.must(firstCode+"\n", "slots", "create", "4", "--mode", cluster.Manual)
	rotate := func(slot, step string, refused int) cutOff {
		return cutOff{slot: slot, step: "code: " + step, args: []string{"slots", "rotate", slot}, mode: cluster.Generated, refused: refused}
	}
	change := func(slot, step string, refused int, codes ...string) cutOff {
		return cutOff{slot: slot, step: "code: " + step, in: firstCode + "\n" + secondCode + "\n", args: []string{"slots", "change-code", slot},
			mode: cluster.Manual, codes: codes, refused: refused}
	}
	return []cutOff{
		rotate("1", "pending stored", 1), rotate("2", "set on the token", 0), rotate("3", "stored", 0),
		change("4", "change stored", 1, secondCode, firstCode), change("5", "set on the token", 0, secondCode, firstCode), change("6", "stored", 0, secondCode),
	}
}

func switching(*loneNode) []cutOff {
	manual := func(slot, step, mode string, refused int) cutOff {
		return cutOff{slot: slot, step: "code: " + step, in: thirdCode + "\n", args: []string{"slots", "mode", slot, cluster.Manual},
			mode: mode, codes: []string{thirdCode}, refused: refused}
	}
	generated := func(slot, step, old, mode string, refused int) cutOff {
		return cutOff{slot: slot, step: "code: " + step, in: old + "\n", args: []string{"slots", "mode", slot, cluster.Generated},
			mode: mode, codes: []string{old}, refused: refused}
	}
	return []cutOff{
		manual("1", "leaving stored", cluster.Generated, 0), manual("2", "set on the token", cluster.Manual, 1), manual("3", "stored", cluster.Manual, 0),
		generated("4", "pending stored", firstCode, cluster.Manual, 1), generated("5", "set on the token", secondCode, cluster.Generated, 0),
		generated("6", "stored", secondCode, cluster.Generated, 0),
	}
}

// contribute is the second custodian coming; each time the next slot is cut off.
func contribute(slot, step string, refused int, agree ...string) cutOff {
	args := []string{"slots", "contribute", "--as", twoCustodians[1]}
	for _, id := range agree {
		args = append(args, "--agree", id)
	}
	return cutOff{slot: slot, step: step, in: passphraseOf(twoCustodians[1]), args: args, mode: cluster.Shared, refused: refused}
}

func publish(n *loneNode, slots ...string) {
	n.t.Helper()
	for _, slot := range slots {
		n.must("", "slots", "custody", slot, "--holders", strings.Join(twoCustodians, ","))
	}
}

// sharing gives slots of both modes to custodians: 1, 5 and 6 are generated by now, 2 to 4 manual.
func sharing(n *loneNode) []cutOff {
	n.custodians()
	publish(n, "1", "2", "3", "4", "5", "6")
	for slot, code := range map[string]string{"2": thirdCode, "3": thirdCode, "4": firstCode} {
		n.must(code+"\n", "slots", "prepare", slot)
	}
	n.must(passphraseOf(twoCustodians[0]), "slots", "contribute", "--as", twoCustodians[0])
	return []cutOff{
		contribute("1", "shared: next stored", 0), contribute("2", "shared: next stored", 1), contribute("3", "shared: set on the token", 0),
		contribute("4", "code: stored", 0), contribute("5", "shared: set on the token", 1), contribute("6", "code: stored", 0),
	}
}

// openShared: slot 2 has its old code still, which only people know. The custodians may come first all the
// same, and their code is refused once.
func openShared(n *loneNode) {
	n.t.Helper()
	n.needs("1 switch", "2 open", "3 open", "4 open", "5 open", "6 open")
	if n.come() == nil {
		n.t.Error("the token of slot 2 takes a code that it was never given")
	}
	n.must(thirdCode+"\n", "slots", "activate", "2")
	n.needs("2 switch")
	if err := n.come(); err != nil {
		n.t.Error(err)
	}
}

// leave asks the custodians of slots to let them have another mode, and returns the ids of that.
func leave(n *loneNode, in, mode string, slots ...string) (ids []string) {
	n.t.Helper()
	for _, slot := range slots {
		var asked custodyAnswer
		if err := json.Unmarshal([]byte(n.must(in, "slots", "mode", slot, mode, "-o", "json")), &asked); err != nil || asked.Request == "" {
			n.t.Fatalf("leaving shared mode: %+v, %v", asked, err)
		}
		ids = append(ids, asked.Request)
	}
	n.must(passphraseOf(twoCustodians[0]), "slots", "contribute", "--as", twoCustodians[0], "--agree", strings.Join(ids, ","))
	return ids
}

// sharingAgain changes the shared code of some slots, and gives others to the node.
func sharingAgain(n *loneNode) []cutOff {
	publish(n, "1", "2", "3")
	ids := leave(n, "", cluster.Generated, "4", "5", "6")
	list := []cutOff{
		contribute("1", "shared: next stored", 1, ids...), contribute("2", "shared: set on the token", 0, ids...), contribute("3", "code: stored", 0, ids...),
		contribute("4", "code: pending stored", 1, ids...), contribute("5", "code: set on the token", 0, ids...), contribute("6", "code: stored", 0, ids...),
	}
	list[4].mode, list[5].mode = cluster.Generated, cluster.Generated
	return list
}

func openSharedAgain(n *loneNode) {
	n.t.Helper()
	n.needs("1 open", "2 open", "3 open", "4 open")
	if err := n.come(); err != nil {
		n.t.Error(err)
	}
}

// leaving gives slots to people. Slot 1, which kept the code before, gets the new one on the way.
func leaving(n *loneNode) []cutOff {
	ids := leave(n, lastCode+"\n", cluster.Manual, "2", "3", "4")
	list := []cutOff{
		contribute("2", "code: leaving stored", 1, ids...), contribute("3", "code: set on the token", 0, ids...), contribute("4", "code: stored", 0, ids...),
	}
	list[1].mode, list[2].mode, list[2].codes = cluster.Manual, cluster.Manual, []string{lastCode}
	return list
}

// openLeft: nobody can say whether custodians or people have the code of slots 2 and 3. Both may come.
func openLeft(n *loneNode) {
	n.t.Helper()
	n.needs("1 open", "2 open", "3 open")
	if _, err := n.keyferry(lastCode+"\n", "slots", "activate", "2"); err == nil {
		n.t.Error("the token of slot 2 takes a code that it was never given")
	}
	n.must(lastCode+"\n", "slots", "activate", "3")
	n.needs("1 open", "2 open")
	if err := n.come(); err != nil {
		n.t.Error(err)
	}
}

// TestKilledWhileChangingCodes kills the daemon with SIGKILL between every two steps of what changes a
// code. Nobody is locked out, and each token sees one wrong code at most.
func TestKilledWhileChangingCodes(t *testing.T) {
	n := newLoneNode(t)
	n.start()
	n.must("", "init")
	seen, sealed := 0, false
	for _, r := range rounds() {
		list := r.before(n)
		before := n.refusals()
		n.cut(r, list)
		n.start()
		sealed = sealed || r.protect == "switched"
		n.unseal(sealed, r.name)
		if r.after != nil {
			r.after(n)
		}
		for _, c := range list {
			seen += n.check(r.name, c, before)
		}
	}
	if seen == 0 { // a pending code that the token never got is a wrong one
		t.Error("the spy has seen no refusal at all")
	}
	if files, _ := filepath.Glob(filepath.Join(filepath.Dir(n.conf), "data", "node.key*")); len(files) != 1 || filepath.Base(files[0]) != "node.key.sealed" {
		t.Errorf("the key files are %v", files)
	}
	everyCodeCommand(n)
	n.daemon.stop()
}

// cut runs the commands of a round until each has come to its step. The daemon kills itself with the last.
func (n *loneNode) cut(r round, list []cutOff) {
	n.t.Helper()
	if r.protect != "" {
		list = append(list, cutOff{step: "protect: " + r.protect, in: nodeKey + "\n", args: []string{"protect", "passphrase"}})
	}
	var steps []string
	for _, c := range list {
		steps = append(steps, c.step)
	}
	if err := setSteps(n.conf, steps...); err != nil {
		n.t.Fatal(err)
	}
	ended := make([]chan error, len(list))
	for i, c := range list {
		ended[i] = make(chan error, 1)
		go func() {
			out, err := n.keyferry(c.in, c.args...)
			if err == nil {
				err = fmt.Errorf("it ended well: %s", out)
			}
			ended[i] <- err
		}()
		n.wait(fmt.Sprintf("%s: %v comes to the step %q", r.name, c.args, c.step), func() bool {
			held := len(stepsLeft(n.conf)) == len(list)-1-i
			select {
			case err := <-ended[i]:
				if ended[i] <- err; !held {
					n.t.Fatalf("%s: %v, slot %s, before the step %q: %v", r.name, c.args, c.slot, c.step, err)
				}
			default:
			}
			return held
		})
	}
	if state := n.daemon.wait(); !strings.Contains(state, "killed") {
		n.t.Fatalf("%s: the daemon ended so: %s", r.name, state)
	}
	for i, c := range list {
		if err := <-ended[i]; strings.Contains(err.Error(), "it ended well") {
			n.t.Fatalf("%s: %v, slot %s, %s: %v", r.name, c.args, c.slot, c.step, err)
		}
	}
}

// unseal opens the node key where it should be sealed.
func (n *loneNode) unseal(want bool, round string) {
	n.t.Helper()
	out := n.must("", "status")
	if sealed := strings.Contains(out, "keyferry unseal"); sealed != want {
		n.t.Fatalf("%s: sealed is %t:\n%s", round, sealed, out)
	} else if !sealed {
		return
	}
	if _, err := n.keyferry("another passphrase\n", "unseal"); err == nil || !strings.Contains(err.Error(), "not the passphrase") {
		n.t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := n.keyferry("", "slots"); err == nil || !strings.Contains(err.Error(), "sealed") {
		n.t.Errorf("slots of a sealed node: %v", err)
	}
	n.wait("the node takes the passphrase", func() bool { _, err := n.keyferry(nodeKey+"\n", "unseal"); return err == nil })
}

// check holds a slot to what it must be after the kill, and returns how many codes its token has refused
// since before.
func (n *loneNode) check(round string, c cutOff, before map[uint64]int) int {
	n.t.Helper()
	at := fmt.Sprintf("%s, slot %s, %s", round, c.slot, c.step)
	if c.mode == "" {
		if v := n.slot(c.slot); v.Label != "" {
			n.t.Errorf("%s: it is there: %+v", at, v)
		}
		return 0
	}
	if mode := n.opens(c.slot, c.codes...); mode != c.mode {
		n.t.Errorf("%s: it is in %s mode, want %s", at, mode, c.mode)
	}
	slot := softSlot(n.slot(c.slot).Serial)
	refused := n.refusals()[slot] - before[slot]
	if refused != c.refused {
		n.t.Errorf("%s: the token refused %d codes, want %d", at, refused, c.refused)
	}
	return refused
}
