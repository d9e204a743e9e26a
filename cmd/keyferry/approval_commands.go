package main

import (
	"fmt"
	"net/http"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) approvalsCommand() *cobra.Command {
	c := a.dataFlag(&cobra.Command{
		Use:   "approvals",
		Short: "List requests that wait for the approval of others; show and withdraw them",
		Long: `Where a policy says so, an act waits until other people have approved exactly this act. The request is made by
trying the act. People approve in WebConf, where they are logged in; nobody can approve at a node's console.`,
		Args: cobra.NoArgs,
		RunE: a.listApprovals,
	})
	c.AddCommand(
		a.dataFlag(&cobra.Command{Use: "list", Short: "List requests", Args: cobra.NoArgs, RunE: a.listApprovals}),
		a.dataFlag(&cobra.Command{Use: "show ID", Short: "Show one request and who has approved it", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.showApproval(get[node.ApprovalView](c.Context(), a.client(), "/approvals/"+segment(args[0])))
		}}),
		a.dataFlag(&cobra.Command{Use: "withdraw ID", Short: "Take back a request that was made at this console", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.showApproval(post[node.ApprovalView](c.Context(), a.client(), "/approvals/"+segment(args[0])+"/withdraw", struct{}{}))
		}}))
	return c
}

func (a *app) listApprovals(c *cobra.Command, _ []string) error {
	list, err := get[[]node.ApprovalView](c.Context(), a.client(), "/approvals")
	if err != nil {
		return err
	}
	return a.print(list, func(row func(...any)) {
		row("REQUEST", "ACT", "ABOUT", "ASKED BY", "STATE", "APPROVALS", "GOOD UNTIL")
		for _, v := range list {
			row(v.ID, v.Act, v.Object, v.Asker, v.State, fmt.Sprintf("%d of %d", v.Has, v.Needs), v.Expires.UTC().Format("2006-01-02 15:04 UTC"))
		}
	})
}

func (a *app) showApproval(v node.ApprovalView, err error) error {
	if err != nil {
		return err
	}
	return a.print(v, func(row func(...any)) {
		row("Request", v.ID)
		row("Act", v.Act)
		row("About", v.Object)
		row("Detail", orDash(v.Detail))
		row("Hash", v.Hash)
		row("Asked by", fmt.Sprintf("%s on %s", v.Asker, v.Node))
		row("State", v.State)
		row("Result", orDash(v.Result))
		row("Approvals", fmt.Sprintf("%d of %d", v.Has, v.Needs))
		for _, vote := range v.Votes {
			row("", vote.Account+" on "+vote.Node+", "+vote.Time.UTC().Format("2006-01-02 15:04 UTC"))
		}
	})
}

func (a *app) policiesCommand() *cobra.Command {
	acts := "Acts that a policy can be about:\n"
	for _, p := range cluster.PolicyActs() {
		acts += fmt.Sprintf("  %-18s %s\n", p.Act, p.Words)
	}
	c := a.dataFlag(&cobra.Command{
		Use:   "policies",
		Short: "List policies, which say what needs the approval of others; set and remove them",
		Long:  acts + "\nTo change a policy takes the approvals that it asks for itself.",
		Args:  cobra.NoArgs,
		RunE:  a.listPolicies,
	})
	c.AddCommand(
		a.dataFlag(&cobra.Command{Use: "list", Short: "List policies", Args: cobra.NoArgs, RunE: a.listPolicies}),
		a.policySet(),
		&cobra.Command{Use: "remove ACT", Short: "End a policy: the act needs no approval any more", Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
			return a.client().do(c.Context(), http.MethodDelete, "/policies/"+segment(args[0]), nil, nil)
		}})
	return c
}

func (a *app) listPolicies(c *cobra.Command, _ []string) error {
	list, err := get[[]node.PolicyView](c.Context(), a.client(), "/policies")
	if err != nil {
		return err
	}
	return a.print(list, func(row func(...any)) {
		row("ACT", "NEEDS", "BY ROLE", "COULD APPROVE", "SET")
		for _, p := range list {
			row(p.Act, p.Needs, p.Role, p.Could, ago(p.Set)+" by "+p.By)
		}
	})
}

func (a *app) policySet() *cobra.Command {
	var needs int
	var role string
	c := &cobra.Command{
		Use:   "set ACT --needs N",
		Short: "Say how many people have to approve an act, besides who asks",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.client().do(c.Context(), http.MethodPut, "/policies/"+segment(args[0]), map[string]any{"needs": needs, "role": role}, nil)
		},
	}
	c.Flags().IntVar(&needs, "needs", 1, "`number` of people, 1 to 10")
	c.Flags().StringVar(&role, "role", cluster.SecurityOfficer, "`role` that they must have")
	c.MarkFlagRequired("needs")
	return c
}
