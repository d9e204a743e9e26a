package webconf

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// Who holds the shares of a slot's code, and the passphrases that open them.

func custodyPath(label string) string { return slotPath(label) + "/custody" }

type custodiansView struct {
	Label    string
	Node     string
	Newest   cluster.Split
	Some     bool // there are custodians
	Live     int  // holders of the newest split who can still give their share
	Mode     string
	Here     bool // this node has a token in the slot
	Seats    []custodySeat
	People   []custodianRow
	Requests []askedFor
	Prepare  bool // this node's present code is to be entered
	Used     bool // some token has its code from the newest split
	MinCode  int
}

// A custodySeat is how far a node's token is with the shared code.
type custodySeat struct {
	Node       string
	Mode       string
	Mark       mark
	Generation int
	Due        bool
}

// A custodianRow is a person who could hold a share.
type custodianRow struct {
	Name   string
	Full   string
	Ready  bool // has a custodian passphrase
	Holds  bool // a share of the newest split
	Lost   bool // has given up the key that it is sealed to, or may not open the slot any more
	Ticked bool
}

func custodiansPage(c *call) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	return showCustody(c, label, nil)
}

func showCustody(c *call, label string, f *form) error {
	v, err := newCustodiansView(c.look(), label, f)
	if err != nil {
		return err
	}
	if f == nil {
		f = newForm("custody", map[string]string{"threshold": strconv.Itoa(max(2, v.Newest.Threshold))})
	}
	return c.show(page{Name: "custodians", Title: "Custodians of " + label, Nav: "/slots", Form: f, Data: v,
		Crumbs: []crumb{{"PKCS#11 slots", "/slots"}, {"Slot " + label, slotPath(label)}}})
}

func newCustodiansView(s *situation, label string, f *form) (custodiansView, error) {
	slot, ok := s.State.Slots[label]
	if !ok {
		return custodiansView{}, &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no slot %q in this cluster", label)}
	}
	v := custodiansView{Label: label, Node: s.Node, MinCode: node.MinCode}
	v.Newest, v.Some = slot.Newest()
	v.Live = s.State.Live(label, v.Newest)
	for _, name := range slices.Sorted(maps.Keys(slot.Seats)) {
		seat := s.seat(label, name)
		v.Seats = append(v.Seats, custodySeat{name, seat.Mode, seatMark(seat.State, seat.Mode), seat.Generation, slot.Due(name)})
		v.Used = v.Used || v.Some && (seat.Generation == v.Newest.Generation || seat.Next == v.Newest.Generation)
		if name == s.Node {
			v.Here, v.Mode = true, seat.Mode
			v.Prepare = slot.Due(name) && seat.Mode == cluster.Manual && s.need(name, label, node.ForSwitching).Slot == ""
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.State.Accounts)) {
		row := custodianRow{Name: name, Full: s.State.Accounts[name].FullName}
		_, row.Ready = s.State.Custodians[name]
		_, row.Holds = v.Newest.Share(name)
		row.Lost = row.Holds && s.State.Holds(label, name, v.Newest) != nil
		row.Ticked = row.Holds && row.Ready
		if f.Of("custody") != nil {
			row.Ticked = f.Has("holder", name)
		}
		if row.Ready || row.Holds || cluster.Authorize(s.State, cluster.Actor{Kind: cluster.ByAccount, Name: name}, s.Node, cluster.MayActivate, label) == nil {
			v.People = append(v.People, row)
		}
	}
	for _, name := range s.names() {
		for _, n := range s.needs(name) {
			if n.Slot == label && n.Purpose != node.ForOpening {
				v.Requests = append(v.Requests, askedFor{name, n})
			}
		}
	}
	return v, nil
}

// Enough tells whether there are people for at least two shares.
func (v custodiansView) Enough() bool {
	n := 0
	for _, p := range v.People {
		if p.Ready {
			n++
		}
	}
	return n >= 2
}

// ModeWords is who holds the code, in words.
func (v custodiansView) ModeWords() string { return custodyWords(v.Newest) }

// custodyWords is how a shared mode reads.
func custodyWords(p cluster.Split) string {
	return fmt.Sprintf("%d of %d", p.Threshold, len(p.Shares))
}

// custodyForm does what a form of the page asks for.
func custodyForm(c *call, name string, secret []string, act func(context.Context, string, *form) (done string, err error), field string) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	f, err := c.readForm(name, secret...)
	if err != nil {
		return err
	}
	done, err := act(c.Request().Context(), label, f)
	if err != nil {
		if err := f.blame(field, err); err != nil {
			return err
		}
	}
	if !f.ok() {
		return showCustody(c, label, f)
	}
	if err := c.flash(done); err != nil {
		return err
	}
	return c.redirect(custodyPath(label))
}

// setCustody publishes a new code for custodians, or asks those there are to let others take their place.
func setCustody(c *call) error {
	return custodyForm(c, "custody", nil, func(ctx context.Context, label string, f *form) (string, error) {
		threshold, err := strconv.Atoi(f.text("threshold"))
		if err != nil {
			f.fail("threshold", "Enter how many custodians are needed together.")
			return "", nil
		}
		n := node.NewCustody{Slot: label, Threshold: threshold, Holders: f.Values["holder"]}
		if f.text("what") == "replace" {
			_, err := c.m.Custody.Replace(ctx, c.actor, n)
			return "The present custodians are asked. It is done once enough of them have agreed on the page Activation, within an hour.", err
		}
		return "The custodians are set. Each token takes its new code once enough of them have entered their passphrases on the page Activation.", c.m.Custody.Publish(ctx, c.actor, n)
	}, "threshold")
}

func withdrawCustody(c *call) error {
	return custodyForm(c, "withdraw", nil, func(ctx context.Context, label string, _ *form) (string, error) {
		return "The custodians are taken back. All tokens keep the codes that they have.", c.m.Custody.Withdraw(ctx, c.actor, label)
	}, "")
}

func leaveCustody(c *call) error {
	return custodyForm(c, "leave", []string{"code", "again"}, func(ctx context.Context, label string, f *form) (string, error) {
		mode := f.text("mode")
		if mode == cluster.Manual {
			if f.twice("code", "again", "new code"); !f.ok() {
				return "", nil
			}
		}
		_, err := c.m.Custody.Leave(ctx, c.actor, label, mode, f.code("code"))
		return "The custodians are asked. It is done once enough of them have agreed on the page Activation, within an hour.", err
	}, "code")
}

func prepareCode(c *call) error {
	return custodyForm(c, "prepare", []string{"code"}, func(ctx context.Context, label string, f *form) (string, error) {
		return fmt.Sprintf("The present code is right. %s keeps it in memory for an hour, for the custodians to come.", c.m.Name()), c.m.Slots.Prepare(ctx, c.actor, label, f.code("code"))
	}, "code")
}

// setPassphrase makes a person a custodian, or changes the passphrase.
func setPassphrase(c *call) error {
	f, err := c.readForm("custodian", "old", "new", "again", "password")
	if err != nil {
		return err
	}
	if err := node.CheckPassphrase(f.code("new")); err != nil {
		f.fail("new", "%s", sentence(err.Error()))
	}
	if f.twice("new", "again", "new passphrase"); !f.ok() {
		return showAccount(c, f)
	}
	ctx, done := c.Request().Context(), "Your custodian passphrase is set. Shares can be given to you now."
	_, has := c.m.State().Custodians[c.actor.Name]
	switch {
	case has && f.text("what") == "replace":
		if f.text("name") != c.actor.Name {
			f.fail("name", "Enter %s, to confirm that your shares are given up.", c.actor.Name)
			return showAccount(c, f)
		}
		if !c.srv.tries.allow(c.RealIP()) {
			return errTooFast
		}
		// Whoever finds an open session must not be able to give up somebody's shares.
		if err := c.m.Accounts.Confirm(ctx, c.actor, f.secret("password")); err != nil {
			if err := f.blame("password", err); err != nil {
				return err
			}
			return showAccount(c, f)
		}
		err = c.m.Custody.SetUp(ctx, c.actor, f.code("new"), true)
		done = "You have a new custodian key. The shares that you had are given up: somebody has to make you a custodian again."
	case has:
		done, err = "Your custodian passphrase is changed.", c.m.Custody.Change(ctx, c.actor, "", f.code("old"), f.code("new"))
	default:
		err = c.m.Custody.SetUp(ctx, c.actor, f.code("new"), false)
	}
	if err != nil {
		if err := f.blame("old", err); err != nil {
			return err
		}
		return showAccount(c, f)
	}
	if err := c.flash(done); err != nil {
		return err
	}
	return c.redirect("/account")
}

// custodianView is what an account page tells of a person's shares.
type custodianView struct {
	Custodian  bool
	Passphrase cluster.Custodian
	Shares     []heldShare
}

type heldShare struct {
	Label string
	Words string
	Lost  bool
}

func newCustodianView(s *cluster.State, account string) custodianView {
	v := custodianView{}
	v.Passphrase, v.Custodian = s.Custodians[account]
	for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
		if p, ok := s.Slots[label].Newest(); ok {
			if _, holds := p.Share(account); holds {
				v.Shares = append(v.Shares, heldShare{label, custodyWords(p), s.Holds(label, account, p) != nil})
			}
		}
	}
	return v
}
