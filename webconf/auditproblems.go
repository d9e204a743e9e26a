package webconf

import "fmt"

// auditProblems are what the audit trail says, and what is wrong with it.
func (v *situation) auditProblems() []problem {
	var list []problem
	a := v.Audit
	if a.Damage != "" {
		list = append(list, problem{bad, sentence(a.Damage),
			"Somebody may have replaced data of the cluster. Before anything else is done, export the trail on every node, verify the files with \"keyferry audit verify\", and compare them.", "/audit", "See the audit log"})
	}
	if a.Alerts > 0 {
		list = append(list, problem{warn, fmt.Sprintf("%s in the last 24 hours.", plural(a.Alerts, "policy violation")),
			"Somebody tried what they may not do, or something was not as it should be. See who it was, and whether it was a mistake.", "/audit?alerts=1", "See them"})
	}
	if y := a.Syslog; y.Error != "" {
		list = append(list, problem{warn, fmt.Sprintf("The syslog server %s does not take the audit entries of %s: %s", y.Address, v.Node, stopped(y.Error)),
			fmt.Sprintf("Nothing is lost: %s on disk until it does.", kept(y.Waiting)), "/audit#sealed", "See the audit log"})
	}
	return list
}

func kept(n int) string {
	if n == 1 {
		return "one entry waits"
	}
	return fmt.Sprintf("%s wait", plural(n, "entry"))
}
