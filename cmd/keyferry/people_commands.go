package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) peopleCommand() *cobra.Command {
	c := a.dataFlag(&cobra.Command{
		Use:   "people",
		Short: "List people; add them, give roles, disable and remove them",
		Long: `People have accounts with which they log in to WebConf on any node, and roles that say what they may do:

  security-officer  people, roles and policies; nodes and trust; who holds the code of a slot
  crypto-officer    slots, keys, packages, applications
  crypto-user       opens slots, restarts applications
  auditor           looks at everything

crypto-officer and crypto-user can be for some slots only: crypto-user=payments,tls`,
		Args: cobra.NoArgs,
		RunE: a.listPeople,
	})
	c.AddCommand(
		a.dataFlag(&cobra.Command{Use: "list", Short: "List people and their roles", Args: cobra.NoArgs, RunE: a.listPeople}),
		a.personAdd(), a.personRoles(),
		a.personSet("disable", "Keep a person out; their sessions end at once", map[string]any{"disabled": true}),
		a.personSet("enable", "Let a person in again", map[string]any{"disabled": false}),
		a.personPassword(), a.personRemove(), a.personSessions(), a.personUnlock(), a.personFactors(), a.personCertificate())
	return c
}

func (a *app) listPeople(c *cobra.Command, _ []string) error {
	list, err := get[[]node.Person](c.Context(), a.client(), "/people")
	if err != nil {
		return err
	}
	return a.print(list, func(row func(...any)) {
		row("ACCOUNT", "NAME", "ROLES", "STATE", "LOGS IN WITH", "LAST LOG IN")
		for _, p := range list {
			last := "-"
			if !p.LastLogin.IsZero() {
				last = ago(p.LastLogin)
			}
			row(p.Name, orDash(p.FullName), rolesText(p.Roles), personState(p), strings.Join(append([]string{"password"}, p.Factors...), ","), last)
		}
	})
}

func personState(p node.Person) string {
	switch {
	case p.Disabled:
		return "disabled"
	case len(p.LockedOn) > 0:
		return "locked on " + strings.Join(p.LockedOn, ",")
	case p.MustChange:
		return "temporary password"
	}
	return "enabled"
}

func rolesText(roles []cluster.RoleGrant) string {
	texts := make([]string, len(roles))
	for i, r := range roles {
		texts[i] = r.Role
		if len(r.Slots) > 0 {
			texts[i] += "=" + strings.Join(r.Slots, ",")
		}
	}
	return orDash(strings.Join(texts, " "))
}

// parseRoles reads roles as they are given on the command line: ROLE or ROLE=SLOT,SLOT.
func parseRoles(texts []string) ([]cluster.RoleGrant, error) {
	roles := []cluster.RoleGrant{}
	for _, text := range texts {
		role, slots, some := strings.Cut(text, "=")
		r := cluster.RoleGrant{Role: role}
		if some {
			for label := range strings.SplitSeq(slots, ",") {
				if label == "" {
					return nil, fmt.Errorf("the role %q names an empty slot: write %s alone for every slot", text, role)
				}
				r.Slots = append(r.Slots, label)
			}
		}
		roles = append(roles, r)
	}
	return roles, nil
}

// withPassword is a person with a temporary password.
type withPassword struct {
	node.Person
	Password string `json:"temporary_password"`
	Waits    string `json:"waits,omitempty"`
}

func (a *app) showPassword(p withPassword, err error) error {
	if err != nil {
		return err
	}
	err = a.print(p, func(row func(...any)) {
		row("Account", p.Name)
		row("Temporary password", p.Password)
		row("", "It is shown only now, and has to be changed at the first log in.")
	})
	if err == nil && p.Waits != "" { // not done yet, so no success
		return errors.New(p.Waits)
	}
	return err
}

func (a *app) personAdd() *cobra.Command {
	var roles []string
	var n node.NewPerson
	c := &cobra.Command{
		Use:   "add NAME --role ROLE",
		Short: "Make an account with a temporary password, which is printed once",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			n.Name = args[0]
			if n.Roles, err = parseRoles(roles); err != nil {
				return err
			}
			return a.showPassword(post[withPassword](c.Context(), a.client(), "/people", n))
		},
	}
	c.Flags().StringVar(&n.FullName, "full-name", "", "the person's `name`")
	c.Flags().StringArrayVar(&roles, "role", nil, "`role`, or role=slot,slot; can be given several times")
	return a.dataFlag(c)
}

func (a *app) personRoles() *cobra.Command {
	var roles []string
	var none bool
	c := &cobra.Command{
		Use:   "roles NAME --role ROLE",
		Short: "Replace all roles of a person",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if none == (len(roles) > 0) {
				return errors.New("give --role for each role that the person shall have, or --none")
			}
			list, err := parseRoles(roles)
			if err != nil {
				return err
			}
			return a.putPerson(c.Context(), args[0], map[string]any{"roles": list})
		},
	}
	c.Flags().StringArrayVar(&roles, "role", nil, "`role`, or role=slot,slot; can be given several times")
	c.Flags().BoolVar(&none, "none", false, "take all roles away")
	return c
}

func (a *app) personSet(name, short string, body map[string]any) *cobra.Command {
	return &cobra.Command{Use: name + " NAME", Short: short, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		return a.putPerson(c.Context(), args[0], body)
	}}
}

func (a *app) putPerson(ctx context.Context, name string, body map[string]any) error {
	return a.client().do(ctx, http.MethodPut, "/people/"+segment(name), body, nil)
}

func (a *app) personPassword() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "password NAME",
		Short: "Set a temporary password, which is printed once",
		Long:  `Set a temporary password. The present one, one-time passwords and all sessions of the person end. The new one is good for choosing another only.`,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.showPassword(post[withPassword](c.Context(), a.client(), "/people/"+segment(args[0])+"/password", struct{}{}))
		},
	})
}

func (a *app) personRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget an account; its name stays in the audit log",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.client().do(c.Context(), http.MethodDelete, "/people/"+segment(args[0]), nil, nil)
		},
	}
}
