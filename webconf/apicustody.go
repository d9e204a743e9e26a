package webconf

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// apiActivateAll opens slots on many nodes, and answers with the job that does it.
func apiActivateAll(c *call) error {
	var q struct {
		Codes []struct {
			Slot string `json:"slot"`
			Node string `json:"node"`
			Code []byte `json:"code"`
		} `json:"codes"`
		Nodes      []string `json:"nodes"`
		Account    string   `json:"account"` // of the custodian
		Passphrase []byte   `json:"passphrase"`
		Requests   []string `json:"requests"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	a := node.Activation{Nodes: q.Nodes, Passphrase: q.Passphrase, As: q.Account, Requests: q.Requests}
	for _, code := range q.Codes {
		a.Codes = append(a.Codes, node.CodeFor{Slot: code.Slot, Node: code.Node, Code: code.Code})
	}
	if q.Account != "" && len(a.Codes) > 0 { // codes are given by whoever is at the console
		return invalid("give codes and a custodian's passphrase apart")
	}
	job, err := c.m.Custody.Activate(c.Request().Context(), c.actor, a)
	if err != nil {
		return err
	}
	shown, err := c.m.Jobs.Get(job.ID) // as it is now: the job goes on writing its own
	if err != nil {
		return err
	}
	return c.JSON(http.StatusAccepted, shown)
}

// apiNeeds answers with what every node that answers waits for from custodians.
func apiNeeds(c *call) error {
	v := c.look()
	type need struct {
		Node string `json:"node"`
		node.ShareNeed
	}
	list := []need{}
	for _, name := range v.names() {
		for _, n := range v.needs(name) {
			list = append(list, need{name, n})
		}
	}
	return c.JSON(http.StatusOK, list)
}

// A custodianAnswer is a person who can hold shares.
type custodianAnswer struct {
	Account string   `json:"account"`
	Created string   `json:"created"`
	Changed string   `json:"changed"`
	Slots   []string `json:"slots"` // where they hold a share that can be used
}

func apiCustodians(c *call) error {
	s := c.m.State()
	list := []custodianAnswer{}
	for _, name := range slices.Sorted(maps.Keys(s.Custodians)) {
		k := s.Custodians[name]
		a := custodianAnswer{Account: name, Created: absolute(k.Created), Changed: absolute(k.Changed), Slots: []string{}}
		for _, label := range slices.Sorted(maps.Keys(s.Slots)) {
			if p, ok := s.Slots[label].Newest(); ok && s.Holds(label, name, p) == nil {
				a.Slots = append(a.Slots, label)
			}
		}
		list = append(list, a)
	}
	return c.JSON(http.StatusOK, list)
}

// apiSetPassphrase makes an account a custodian, or changes its passphrase. On the socket everybody is the
// console: the account's password, or its old passphrase, proves who it is.
func apiSetPassphrase(c *call) error {
	name, err := c.segment("name")
	if err != nil {
		return err
	}
	var q struct {
		Password []byte `json:"password"`
		Old      []byte `json:"old"`
		New      []byte `json:"new"`
		Replace  bool   `json:"replace"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	defer clear(q.Password)
	defer clear(q.New)
	ctx, actor := c.Request().Context(), cluster.Actor{Kind: cluster.ByAccount, Name: name}
	if len(q.Old) > 0 {
		err = c.m.Custody.Change(ctx, c.actor, name, q.Old, q.New)
	} else {
		if err := c.m.Accounts.Prove(ctx, name, string(q.Password), "the node's console"); err != nil {
			return err
		}
		err = c.m.Custody.SetUp(ctx, actor, q.New, q.Replace)
	}
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]string{"account": name})
}

// apiSetCustody publishes a new code for custodians or, with replace, asks those there are.
func apiSetCustody(c *call) error {
	var q struct {
		Threshold int      `json:"threshold"`
		Holders   []string `json:"holders"`
		Nodes     []string `json:"nodes"`
		Replace   bool     `json:"replace"`
	}
	return c.custody(&q, func(ctx context.Context, label string) (request string, err error) {
		n := node.NewCustody{Slot: label, Threshold: q.Threshold, Holders: q.Holders, Nodes: q.Nodes}
		if q.Replace {
			return c.m.Custody.Replace(ctx, c.actor, n)
		}
		return "", c.m.Custody.Publish(ctx, c.actor, n)
	})
}

func apiWithdrawCustody(c *call) error {
	return c.custody(&struct{}{}, func(ctx context.Context, label string) (string, error) {
		return "", c.m.Custody.Withdraw(ctx, c.actor, label)
	})
}

func apiLeaveCustody(c *call) error {
	var q struct {
		Mode string `json:"mode"`
		New  []byte `json:"new"`
	}
	return c.custody(&q, func(ctx context.Context, label string) (string, error) {
		return c.m.Custody.Leave(ctx, c.actor, label, q.Mode, q.New)
	})
}

func apiPrepare(c *call) error {
	var q struct {
		Code []byte `json:"code"`
	}
	return c.custody(&q, func(ctx context.Context, label string) (string, error) {
		return "", c.m.Slots.Prepare(ctx, c.actor, label, q.Code)
	})
}

// custody reads a body into v, acts on the custodians of the slot that the address names, and answers with
// who they are, and the id of what they are asked for.
func (c *call) custody(v any, act func(ctx context.Context, label string) (request string, err error)) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	if err := c.decode(v); err != nil {
		return err
	}
	request, err := act(c.Request().Context(), label)
	if err != nil {
		return err
	}
	return c.answerCustody(label, request)
}

func apiCustodiansOf(c *call) error {
	label, err := c.segment("label")
	if err != nil {
		return err
	}
	return c.answerCustody(label, "")
}

func (c *call) answerCustody(label, request string) error {
	slot, ok := c.m.State().Slots[label]
	if !ok {
		return &spoken{http.StatusNotFound, "not_found", errors.New("there is no such slot")}
	}
	type answer struct {
		Slot       string   `json:"slot"`
		Generation int      `json:"generation"`
		Threshold  int      `json:"threshold"`
		Holders    []string `json:"holders"`
		Live       int      `json:"live"` // holders who can still give their share
		Due        []string `json:"due"`  // nodes whose tokens are to take the code
		Request    string   `json:"request,omitempty"`
	}
	p, _ := slot.Newest()
	a := answer{label, p.Generation, p.Threshold, p.Holders(), c.m.State().Live(label, p), []string{}, request}
	for _, name := range slices.Sorted(maps.Keys(slot.Seats)) {
		if slot.Due(name) {
			a.Due = append(a.Due, name)
		}
	}
	return c.JSON(http.StatusOK, a)
}
