package webconf

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type peopleView struct {
	People []personRow
}

// A personRow is one account as pages show it.
type personRow struct {
	node.Person
	RoleWords []string
	Me        bool // the account that is logged in
}

func newPersonRow(p node.Person, me string) personRow {
	return personRow{p, rolesWords(p.Roles), p.Name == me}
}

// Ways says how the person logs in.
func (r personRow) Ways() string {
	ways := []string{"password"}
	for _, f := range r.Factors {
		switch f {
		case cluster.FactorTOTP:
			ways[0] = "password with one-time password"
		case cluster.FactorPasskey:
			ways = append(ways, "passkey")
		case cluster.FactorCertificate:
			ways = append(ways, "certificate")
		}
	}
	return strings.Join(ways, ", ")
}

// Pattern matches the name and nothing else, for browsers.
func (r personRow) Pattern() string { return strings.ReplaceAll(r.Name, ".", `\.`) }

// Mark is whether the person can work.
func (r personRow) Mark() mark {
	switch {
	case r.Disabled:
		return mark{"mute", "none", "Disabled"}
	case len(r.LockedOn) > 0:
		return mark{"warn", "wait", "Locked on " + and(r.LockedOn)}
	case r.MustChange:
		return mark{"warn", "wait", "Temporary password"}
	case len(r.Roles) == 0:
		return mark{"warn", "warn", "Without a role"}
	}
	return mark{"ok", "ok", "Enabled"}
}

func personPath(name string) string { return "/people/" + url.PathEscape(name) }

func peoplePage(c *call) error {
	return c.show(page{Name: "people", Title: "People", Nav: "/people", Data: newPeopleView(c.m.Accounts.People(), c.actor.Name)})
}

func newPeopleView(people []node.Person, me string) peopleView {
	var v peopleView
	for _, p := range people {
		v.People = append(v.People, newPersonRow(p, me))
	}
	return v
}

type personView struct {
	Person   *personRow // nil: a new one
	Values   *form      // what the form shows
	Roles    []roleBox
	Password string // temporary, just made, and shown once
	For      string // whose it is
	Approval string // the request that the password waits for
	Waits    string // what that is, in words
}

// A roleBox is one role to tick, with the slots that it can be for.
type roleBox struct {
	Role    string
	What    string // it may do
	PerSlot bool
	Slots   []string
}

// roleWhats say what a role is for, where roles are given.
var roleWhats = map[string]string{
	cluster.SecurityOfficer: "People, roles and policies; nodes and trust; who holds the code of a slot.",
	cluster.CryptoOfficer:   "Slots, keys, packages and applications; opens slots.",
	cluster.CryptoUser:      "Opens and closes slots, restarts applications.",
	cluster.Auditor:         "Looks at everything and changes nothing.",
}

func newPersonView(s *situation, p *node.Person, me string, f *form) personView {
	v := personView{Values: f}
	slots := slices.Sorted(maps.Keys(s.State.Slots))
	if p != nil {
		row := newPersonRow(*p, me)
		v.Person = &row
		if f == nil || f.Name != "person" {
			v.Values = personForm(*p)
		}
	}
	for _, role := range cluster.Roles() {
		box := roleBox{Role: role, What: roleWhats[role]}
		if box.PerSlot = role == cluster.CryptoOfficer || role == cluster.CryptoUser; box.PerSlot {
			box.Slots = slots
		}
		v.Roles = append(v.Roles, box)
	}
	return v
}

// personForm fills the form with what an account is.
func personForm(p node.Person) *form {
	f := newForm("person", map[string]string{"full_name": p.FullName, "version": versionText(p.Version)})
	for _, r := range p.Roles {
		f.Values.Add("role", r.Role)
		f.Values["slots-"+r.Role] = r.Slots
	}
	return f
}

// rolesOf are the roles that a form gives.
func rolesOf(f *form) []cluster.RoleGrant {
	roles := []cluster.RoleGrant{}
	for _, role := range f.Values["role"] {
		roles = append(roles, cluster.RoleGrant{Role: role, Slots: f.Values["slots-"+role]})
	}
	return roles
}

func (c *call) person() (node.Person, error) {
	name, err := c.segment("name")
	if err != nil {
		return node.Person{}, err
	}
	return c.m.Accounts.Person(name)
}

func personPage(c *call) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	return showPerson(c, &p, nil, "")
}

func newPersonPage(c *call) error { return showPerson(c, nil, newForm("person", nil), "") }

func showPerson(c *call, p *node.Person, f *form, password string) error {
	v := newPersonView(c.look(), p, c.actor.Name, f)
	title := "Add a person"
	if p != nil {
		title = "Account " + p.Name
		v.Password, v.For = password, p.Name
	}
	return c.show(page{Name: "person", Title: title, Nav: "/people", Crumbs: []crumb{{"People", "/people"}}, Form: f, Data: v})
}

// showWaitingPassword shows a password that is good once others have approved it. It is kept nowhere, so
// this is the only time.
func showWaitingPassword(c *call, name, password string, err error) error {
	v := personView{Password: password, For: name, Approval: approvalOf(err), Waits: sentence(judge(err).message)}
	return c.show(page{Name: "person", Title: "Account " + name, Nav: "/people", Crumbs: []crumb{{"People", "/people"}}, Data: v})
}

func newPerson(c *call) error {
	f, err := c.readForm("person")
	if err != nil {
		return err
	}
	n := node.NewPerson{Name: f.text("name"), FullName: f.text("full_name"), Roles: rolesOf(f)}
	password, err := c.m.Accounts.Add(c.Request().Context(), c.actor, n)
	if approvalOf(err) != "" {
		return showWaitingPassword(c, n.Name, password, err)
	}
	if err != nil {
		if err := f.blame("name", err); err != nil {
			return err
		}
		return showPerson(c, nil, f, "")
	}
	p, err := c.m.Accounts.Person(n.Name)
	if err != nil {
		return err
	}
	return showPerson(c, &p, nil, password)
}

// personAct does something with an account and goes back to its page.
func personAct(c *call, name string, act func(p node.Person, f *form) (done string, err error)) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	f, err := c.readForm(name)
	if err != nil {
		return err
	}
	done, err := act(p, f)
	switch {
	case f.outdated(err):
		if p, err = c.person(); err != nil {
			return err
		}
		f.Values = personForm(p).Values
	case err != nil:
		if err := f.blame("", err); err != nil {
			return err
		}
	}
	if !f.ok() {
		return showPerson(c, &p, f, "")
	}
	if err := c.flash(done); err != nil {
		return err
	}
	if _, err := c.m.Accounts.Person(p.Name); err != nil {
		return c.redirect("/people")
	}
	return c.redirect(personPath(p.Name))
}

func changePerson(c *call) error {
	return personAct(c, "person", func(p node.Person, f *form) (string, error) {
		version, err := f.version("version")
		if err != nil {
			return "", err
		}
		change := node.PersonChange{FullName: f.text("full_name"), Roles: rolesOf(f), Disabled: p.Disabled, Replaces: version}
		return fmt.Sprintf("Account %s is saved. What changed counts at once, on all nodes.", p.Name), c.m.Accounts.Change(c.Request().Context(), c.actor, p.Name, change)
	})
}

func disablePerson(c *call) error {
	return personAct(c, "disable", func(p node.Person, _ *form) (string, error) {
		return fmt.Sprintf("Account %s is disabled. Its sessions have ended.", p.Name), c.m.Accounts.Disable(c.Request().Context(), c.actor, p.Name, true)
	})
}

func enablePerson(c *call) error {
	return personAct(c, "enable", func(p node.Person, _ *form) (string, error) {
		return fmt.Sprintf("Account %s is enabled again.", p.Name), c.m.Accounts.Disable(c.Request().Context(), c.actor, p.Name, false)
	})
}

// removePerson wants the name typed, so that nobody removes the wrong one.
func removePerson(c *call) error {
	return personAct(c, "remove", func(p node.Person, f *form) (string, error) {
		if f.text("name") != p.Name {
			f.fail("name", "Type the name %s to remove the account.", p.Name)
			return "", nil
		}
		return fmt.Sprintf("Account %s is removed. Its name stays in the audit log.", p.Name), c.m.Accounts.Remove(c.Request().Context(), c.actor, p.Name)
	})
}

func resetPerson(c *call) error {
	p, err := c.person()
	if err != nil {
		return err
	}
	f, err := c.readForm("reset")
	if err != nil {
		return err
	}
	password, err := c.m.Accounts.ResetPassword(c.Request().Context(), c.actor, p.Name)
	if approvalOf(err) != "" {
		return showWaitingPassword(c, p.Name, password, err)
	}
	if err != nil {
		if err := f.blame("", err); err != nil {
			return err
		}
		return showPerson(c, &p, f, "")
	}
	if p, err = c.person(); err != nil {
		return err
	}
	return showPerson(c, &p, nil, password)
}

type rolesView struct {
	Roles  []string
	Rights []rightRow
}

// A rightRow is one line of what each role may do.
type rightRow struct {
	Word    string
	Has     []mark // by role
	Console bool
}

// rightWords are the permissions of people in words.
var rightWords = map[cluster.Permission]string{
	cluster.MayView:           "Look at everything",
	cluster.MayManageAccounts: "Make accounts, give and take roles, set temporary passwords",
	cluster.MayManageNodes:    "Invite and remove nodes",
	cluster.MayManageTrust:    "Decide which node takes packages from which",
	cluster.MayManageCodes:    "Decide who holds the code of a slot",
	cluster.MayManageSlots:    "Make slots, change codes",
	cluster.MayActivate:       "Open and close slots",
	cluster.MayManageKeys:     "Make and destroy keys",
	cluster.MaySynchronize:    "Make packages and import them",
	cluster.MayManageApps:     "Say which applications there are",
	cluster.MayRestartApps:    "Restart applications",
	cluster.MayManagePolicies: "Say which acts need the approval of others",
	cluster.MayApprove:        "Approve what others ask for, where a policy names their role",
	cluster.MayTendCodes:      "Try stored codes and replace generated ones",
	cluster.MayExportAudit:    "Export the audit trail",
	cluster.MayWithdraw:       "Withdraw their own requests for approval",
	cluster.MayKeepAccount:    "Change their own password",
}

func newRolesView() rolesView {
	v := rolesView{Roles: cluster.Roles()}
	for _, r := range cluster.Rights() {
		row := rightRow{Word: rightWords[r.Permission], Console: r.Console}
		if row.Word == "" {
			row.Word = string(r.Permission)
		}
		for _, role := range v.Roles {
			has := abilityMark(r.Everyone || slices.Contains(r.Roles, role))
			if has.Tone == "ok" && r.PerSlot && (role == cluster.CryptoOfficer || role == cluster.CryptoUser) {
				has.Word = "Yes, in their slots"
			}
			row.Has = append(row.Has, has)
		}
		v.Rights = append(v.Rights, row)
	}
	return v
}

func rolesPage(c *call) error {
	return c.show(page{Name: "roles", Title: "What each role may do", Nav: "/people", Crumbs: []crumb{{"People", "/people"}}, Data: newRolesView()})
}
