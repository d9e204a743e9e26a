package webconf

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type approvalsView struct {
	ForMe []node.ApprovalView // wait for the person who looks
	Open  []node.ApprovalView // the others that wait
	Ended []node.ApprovalView
	None  bool // no policy asks for any

	Tight []node.PolicyView // policies with nobody to spare
}

// A requestList is one table of the page, with the id of its heading.
type requestList struct {
	ID   string
	List []node.ApprovalView
}

func newRequestList(id string, list []node.ApprovalView) requestList { return requestList{id, list} }

func approvalPath(id string) string { return "/approvals/" + url.PathEscape(id) }

func approvalsPage(c *call) error {
	v := newApprovalsView(c.m.Approvals.List(c.actor), c.m.Approvals.Policies())
	return c.show(page{Name: "approvals", Title: "Approvals", Nav: "/approvals", Data: v})
}

func newApprovalsView(list []node.ApprovalView, policies []node.PolicyView) approvalsView {
	v := approvalsView{None: len(policies) == 0, Tight: slices.DeleteFunc(slices.Clone(policies), func(p node.PolicyView) bool { return p.Spare() > 0 })}
	for _, a := range list {
		switch {
		case a.State != cluster.ApprovalWaiting:
			v.Ended = append(v.Ended, a)
		case a.MayDecide && !a.Voted && !a.Ready():
			v.ForMe = append(v.ForMe, a)
		default:
			v.Open = append(v.Open, a)
		}
	}
	return v
}

// approvalMark is how far a request has come.
func approvalMark(a node.ApprovalView) mark {
	switch {
	case a.Ready():
		return mark{"ok", "ok", "Approved, to be done again"}
	case a.State == cluster.ApprovalWaiting && a.Needs == 0:
		return mark{"mute", "info", "Needs no approval any more"}
	case a.State == cluster.ApprovalWaiting:
		return mark{"warn", "wait", fmt.Sprintf("Waits: %d of %d", a.Has, a.Needs)}
	case a.State == cluster.ApprovalUsed:
		return mark{"ok", "ok", "Done"}
	case a.State == cluster.ApprovalFailed:
		return mark{"bad", "bad", "Not possible"}
	case a.State == cluster.ApprovalRejected:
		return mark{"bad", "none", "Rejected"}
	case a.State == cluster.ApprovalWithdrawn:
		return mark{"mute", "none", "Withdrawn"}
	}
	return mark{"mute", "wait", "Expired"}
}

// policyWord is an act that a policy can be about, in words.
func policyWord(act string) string {
	if act == "policy.remove" {
		return "Remove a policy"
	}
	for _, p := range cluster.PolicyActs() {
		if p.Act == act {
			return p.Words
		}
	}
	return act
}

func approvalPage(c *call) error { return showApproval(c, nil) }

func showApproval(c *call, f *form) error {
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	a, err := c.m.Approvals.Get(c.actor, id)
	if err != nil {
		return err
	}
	return c.show(page{Name: "approval", Title: policyWord(a.Act), Nav: "/approvals", Crumbs: []crumb{{"Approvals", "/approvals"}}, Form: f, Data: a})
}

// approvalForm does what a form of a request's page asks for.
func approvalForm(c *call, name string, act func(id string, f *form) (done string, err error)) error {
	id, err := c.segment("id")
	if err != nil {
		return err
	}
	f, err := c.readForm(name)
	if err != nil {
		return err
	}
	done, err := act(id, f)
	if err != nil {
		if err := f.blame("", err); err != nil {
			return err
		}
		return showApproval(c, f)
	}
	if err := c.flash(done); err != nil {
		return err
	}
	return c.redirect(approvalPath(id))
}

// approve takes the hash from the form: a person approves what the page showed, and nothing that came in
// its place meanwhile.
func approve(c *call) error {
	return approvalForm(c, "approve", func(id string, f *form) (string, error) {
		return "Your approval is recorded.", c.m.Approvals.Approve(c.Request().Context(), c.actor, id, f.Value("hash"))
	})
}

func rejectApproval(c *call) error {
	return approvalForm(c, "reject", func(id string, f *form) (string, error) {
		return "The request is rejected.", c.m.Approvals.Reject(c.Request().Context(), c.actor, id, f.text("reason"))
	})
}

func withdrawApproval(c *call) error {
	return approvalForm(c, "withdraw", func(id string, _ *form) (string, error) {
		return "The request is withdrawn.", c.m.Approvals.Withdraw(c.Request().Context(), c.actor, id)
	})
}

type policiesView struct {
	Policies []node.PolicyView
	Acts     []cluster.PolicyAct
	Roles    []string
	Act      string // chosen in the form
	Role     string
}

func policiesPage(c *call) error {
	return showPolicies(c, newForm("policy", map[string]string{"needs": "1", "role": cluster.SecurityOfficer}))
}

func showPolicies(c *call, f *form) error {
	return c.show(page{Name: "policies", Title: "What needs the approval of others", Nav: "/approvals", Crumbs: []crumb{{"Approvals", "/approvals"}}, Form: f,
		Data: newPoliciesView(c.m.Approvals.Policies(), f)})
}

func newPoliciesView(list []node.PolicyView, f *form) policiesView {
	return policiesView{Policies: list, Acts: cluster.PolicyActs(), Roles: cluster.Roles(), Act: f.Value("act"), Role: f.Value("role")}
}

func setPolicy(c *call) error {
	f, err := c.readForm("policy")
	if err != nil {
		return err
	}
	needs, err := strconv.Atoi(f.text("needs"))
	if err != nil {
		f.fail("needs", "Enter how many people have to approve: a number from 1 to 10.")
		return showPolicies(c, f)
	}
	act := f.text("act")
	saw, err := f.version("version-" + act)
	if err != nil {
		return err
	}
	if saw == nil {
		saw = new(uint64) // the page showed no policy on it
	}
	if err := c.m.Approvals.SetPolicy(c.Request().Context(), c.actor, act, needs, f.text("role"), saw); f.outdated(err) {
		return showPolicies(c, f)
	} else if err != nil {
		if err := f.blame("needs", err); err != nil {
			return err
		}
		return showPolicies(c, f)
	}
	if err := c.flash(fmt.Sprintf("From now on this needs approval: %s.", policyWord(act))); err != nil {
		return err
	}
	return c.redirect("/policies")
}

func removePolicy(c *call) error {
	f, err := c.readForm("remove")
	if err != nil {
		return err
	}
	act := f.text("act")
	saw, err := f.version("version")
	if err != nil {
		return err
	}
	if err := c.m.Approvals.RemovePolicy(c.Request().Context(), c.actor, act, saw); err != nil {
		if err := f.blame("", err); err != nil {
			return err
		}
		return showPolicies(c, f)
	}
	if err := c.flash(fmt.Sprintf("This needs no approval any more: %s.", policyWord(act))); err != nil {
		return err
	}
	return c.redirect("/policies")
}
