package webconf

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// A problem is something that does not work as it should, and what to do about it.
type problem struct {
	Severity string `json:"severity"` // bad or warn
	Text     string `json:"text"`
	Remedy   string `json:"remedy"`
	Path     string `json:"-"` // the page where it can be dealt with
	Action   string `json:"-"` // what the link there says
}

// Severities.
const (
	bad  = "bad"  // something fails now, or a key may be lost
	warn = "warn" // something will fail, or fails elsewhere
)

// problems are listed with the most urgent first.
func (v *situation) problems() []problem {
	if !v.Removed.IsZero() { // which is the cause of everything else
		return []problem{{bad, fmt.Sprintf("%s was removed from cluster %s. It does nothing any more.", v.Node, v.State.Cluster.Name),
			"It gets no news and opens no slots, and what this console shows is from before. Its HSM and the keys in it were not touched.", "/removed", "See what to do"}}
	}
	list := slices.Concat(v.quorumProblems(), v.theftProblems(), v.tokenProblems(), v.slotProblems(), v.appProblems(), v.keyProblems(), v.nodeProblems(), v.identityProblems(), v.lockProblems(), v.auditProblems())
	slices.SortStableFunc(list, func(a, b problem) int { return strings.Compare(a.Severity, b.Severity) })
	return list
}

func (v *situation) quorumProblems() []problem {
	if v.Status.Quorum {
		return nil
	}
	voters := v.Status.Voters
	text := "This node sees no majority of the cluster, so nothing can be changed."
	remedy := "Everything can still be looked at, slots can be activated, and applications go on using their keys. " +
		"New packages, imports, codes and accounts wait."
	if n := len(voters); n > 1 {
		remedy += fmt.Sprintf(" At least %d of %s must run and reach one another.", n/2+1, and(voters))
		if silent := v.silent(); len(silent) > 0 {
			remedy += fmt.Sprintf(" Not answering: %s.", and(silent))
		}
	}
	return []problem{{bad, text, remedy, "/cluster", "See the nodes"}}
}

func (v *situation) tokenProblems() []problem {
	var list []problem
	for _, name := range slices.Sorted(maps.Keys(v.Modules)) {
		if m := v.Modules[name]; !m.Up {
			text := fmt.Sprintf("The PKCS#11 module %s does not run on %s.", name, v.Node)
			if m.Err != nil {
				text = fmt.Sprintf("The PKCS#11 module %s does not run on %s: %v.", name, v.Node, m.Err)
			}
			list = append(list, problem{bad, text,
				"Keyferry starts it again by itself. If it stays down, see whether the device is connected and its library is installed; the node's log has more.", "/hsm", "See the HSM"})
		}
	}
	switch {
	case v.AdminRefused != nil:
		list = append(list, problem{bad, fmt.Sprintf("The admin token of %s refuses the code that the node has stored, so the node cannot sign.", v.Node),
			"Another program has changed the token or its code. Packages can be neither made nor imported here until the token is as it was: restore it from the HSM's backup, or remove this node on the page Cluster of another one and let it join anew.", "/hsm", "See the HSM"})
	case !v.AdminOpen && !v.moduleDown():
		list = append(list, problem{bad, fmt.Sprintf("The admin token of %s is not open, so the node cannot sign.", v.Node),
			"The node tries again every minute. Packages can be neither made nor imported here until then.", "/hsm", "See the HSM"})
	}
	if left := v.CertificateEnds.Sub(v.Now); !v.CertificateEnds.IsZero() && left < certificateWarning {
		list = append(list, problem{warn, fmt.Sprintf("The TLS certificate of %s ends %s.", v.Node, relative(v.CertificateEnds, v.Now)),
			"The node renews it by itself as soon as its admin token is open. When it has ended, the other nodes refuse this one.", "/hsm", "See the HSM"})
	}
	return list
}

func (v *situation) moduleDown() bool {
	for _, m := range v.Modules {
		if !m.Up {
			return true
		}
	}
	return false
}

func (v *situation) slotProblems() []problem {
	var waiting, together []string
	var list []problem
	for _, s := range v.Slots {
		switch {
		case s.State == cluster.Active && s.CodeRefused:
			list = append(list, problem{bad, fmt.Sprintf("After the next restart slot %s stays closed on %s: its token does not take the stored code any more.", s.Label, v.Node),
				"Another program has changed the code. It works until then. Enter the code as it is now, so that the node can replace it.", slotPath(s.Label) + "#mend", "Enter the code"})
		case s.Mode == cluster.Shared && s.State == cluster.Down:
			together = append(together, s.Label)
		case s.State == cluster.Active:
		case s.Mode == cluster.Manual && s.State == cluster.Down:
			waiting = append(waiting, s.Label)
		case s.State == cluster.Broken && !v.Modules[s.Module].Up: // said of the module
		default:
			list = append(list, problem{bad, fmt.Sprintf("Slot %s does not work on %s: %s", s.Label, v.Node, stopped(s.Reason)),
				"Applications on this node cannot use its keys until it is open.", slotPath(s.Label), "See the slot"})
		}
	}
	switch len(together) {
	case 0:
	case 1:
		list = append(list, problem{bad, fmt.Sprintf("Slot %s is closed on %s: it waits for its custodians.", together[0], v.Node),
			"Applications on this node may not be able to use its keys until enough custodians have entered their passphrases.", "/activate", "Activate"})
	default:
		list = append(list, problem{bad, fmt.Sprintf("%s are closed on %s: %s wait for their custodians.", plural(len(together), "slot"), v.Node, and(together)),
			"Applications on this node may not be able to use their keys until enough custodians have entered their passphrases.", "/activate", "Activate"})
	}
	switch len(waiting) {
	case 0:
	case 1:
		list = append(list, problem{bad, fmt.Sprintf("Slot %s is closed on %s: it waits for its authentication code.", waiting[0], v.Node),
			"Applications on this node may not be able to use its keys until somebody enters the code." + v.held(waiting), slotPath(waiting[0]) + "#activate", "Activate"})
	default:
		list = append(list, problem{bad, fmt.Sprintf("%s are closed on %s: %s wait for their authentication codes.", plural(len(waiting), "slot"), v.Node, and(waiting)),
			"Applications on this node may not be able to use their keys until somebody enters the codes." + v.held(waiting), "/activate", "Activate"})
	}
	return list
}

// appProblems are applications of this node that did not start. Those that wait for a slot are said with
// the slot.
func (v *situation) appProblems() []problem {
	var list []problem
	for _, name := range slices.Sorted(maps.Keys(v.State.Apps)) {
		a := v.State.Apps[name]
		run, ok := a.Runs[v.Node]
		if !a.On(v.Node) || !ok || run.OK || v.AppWaits[name] != "" || a.Restart.Kind == cluster.RestartNone {
			continue
		}
		remedy := "It is not tried again by itself. Put right what is wrong, then restart it from its page."
		if again, ok := v.AppAgain[name]; ok {
			remedy = fmt.Sprintf("It is tried again by itself %s, as try %d of %d.", relative(again, v.Now), run.Try+1, run.Tries)
		}
		list = append(list, problem{bad, fmt.Sprintf("Application %s was not restarted on %s: %s", name, v.Node, stopped(run.Detail)), remedy, applicationPath(name), "See the application"})
	}
	return list
}

// held says which applications of this node start once slots are open.
func (v *situation) held(labels []string) string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(v.AppWaits)) {
		uses := func(label string) bool { return slices.Contains(v.State.Apps[name].Slots, label) }
		if v.State.Apps[name].Restart.Kind != cluster.RestartNone && slices.ContainsFunc(labels, uses) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" Restarted by Keyferry then: %s.", and(names))
}

func (v *situation) keyProblems() []problem {
	var list []problem
	s := v.Summary
	if s.Gaps > 0 {
		list = append(list, problem{bad, fmt.Sprintf("Failover is not complete: %s not on every node.", gapWords(s)),
			"Applications on a node that lacks a key fail when they try it. Make a synchronization package and import it there." + v.losses(), "/coverage?show=gaps", "See the keys"})
	}
	if s.Gaps == 0 && len(s.Alone) > 0 {
		list = append(list, problem{warn, fmt.Sprintf("As far as is known, %s %s on one node alone.", plural(len(s.Alone), "key"), are(len(s.Alone))),
			"Nodes that do not answer, or whose slots are closed, cannot say." + v.losses(), "/coverage", "See the keys"})
	}
	loose := 0
	for _, slot := range v.Slots {
		loose += slot.Loose
	}
	if loose > 0 {
		list = append(list, problem{warn, fmt.Sprintf("Tokens of %s hold %s.", v.Node, plural(loose, "incomplete object")),
			"Another program made them, or is just making them. They are not synchronized; if they stay, that program can remove them.", "/slots", "See the slots"})
	}
	return list
}

// gapWords counts the keys that some node lacks.
func gapWords(s node.Summary) string {
	if s.Keys == 1 {
		return "the only key is"
	}
	return fmt.Sprintf("%d of %s %s", s.Gaps, plural(s.Keys, "key"), are(s.Gaps))
}

// losses says which keys would go with which node.
func (v *situation) losses() string {
	byNode := alone(v.Coverage)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(byNode)) {
		fmt.Fprintf(&b, " If %s fails now, %s.", name, lostWith(byNode[name]))
	}
	return b.String()
}

// alone lists the keys that a single node holds, by that node.
func alone(list []node.KeyCoverage) map[string][]string {
	byNode := map[string][]string{}
	for _, k := range list {
		if k.Alone {
			byNode[k.Holders[0]] = append(byNode[k.Holders[0]], keyName(k.Key))
		}
	}
	return byNode
}

func lostWith(keys []string) string {
	const most = 3
	named := keys
	if len(keys) > most+1 {
		named = append(slices.Clone(keys[:most]), plural(len(keys)-most, "more key"))
	}
	if len(keys) == 1 {
		return and(named) + " is lost with it"
	}
	return and(named) + " are lost with it"
}

func (v *situation) nodeProblems() []problem {
	var list []problem
	for _, name := range v.silent() {
		text := fmt.Sprintf("Node %s has not answered since this node started.", name)
		if last := v.Seen[name].Last; !last.IsZero() {
			text = fmt.Sprintf("Node %s does not answer; it last did %s.", name, relative(last, v.Now))
		}
		remedy := "What it holds is not known meanwhile. See whether it runs, and whether the nodes reach each other."
		if v.State.Nodes[name].Protector == cluster.ByPassphrase {
			remedy += " Its node key opens with a passphrase: after a start it answers only once somebody has run keyferry unseal on it."
		}
		list = append(list, problem{warn, text, remedy, "/cluster", "See the nodes"})
	}
	for _, name := range v.names() {
		c := v.Seen[name].Clock
		if !c.Past(v.ClockLimit) || !v.Seen[name].Answers {
			continue
		}
		list = append(list, problem{warn, sentence(c.Of(name, v.Node)),
			"No node is let in by it, and from five minutes on packages are refused as not valid yet. Let all nodes use the same time source.", "/cluster", "See the nodes"})
	}
	return list
}

// keyName is how people call a key.
func keyName(k node.KeyName) string {
	switch {
	case k.Label != "":
		return k.Label
	case k.ID != "":
		return "ID " + k.ID
	}
	return "key " + k.Fingerprint[:min(len(k.Fingerprint), 12)]
}

// lockProblems tells of people who cannot log in because of wrong passwords: theirs, or somebody's who
// guesses.
func (v *situation) lockProblems() []problem {
	var list []problem
	for _, name := range slices.Sorted(maps.Keys(v.State.Accounts)) {
		var nodes []string
		for _, l := range v.State.Accounts[name].Locks {
			if v.Now.Before(l.Until) {
				nodes = append(nodes, l.Node)
			}
		}
		if len(nodes) > 0 {
			list = append(list, problem{warn, fmt.Sprintf("Too many wrong passwords for the account %s: it is locked on %s.", name, and(nodes)),
				"Ask the person whether the tries were theirs. The lock ends by itself after an hour; a security officer can lift it.", meansPath(name), "See " + name})
		}
	}
	return list
}
