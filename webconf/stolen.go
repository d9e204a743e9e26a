package webconf

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type stolenView struct {
	node.Theft
	Path string // of the form
	Here bool
}

func stolenPath(name string) string { return "/cluster/stolen/" + url.PathEscape(name) }

// stolenPage says what a stolen node holds, before it is declared stolen.
func stolenPage(c *call) error { return showStolen(c, newForm("stolen", nil)) }

func showStolen(c *call, f *form) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	v, err := c.m.Theft(name)
	if err != nil {
		return err
	}
	if !v.Member {
		return &cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no node %q in this cluster", name)}
	}
	return c.show(page{Name: "stolen", Title: name + " was stolen", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Form: f, Data: stolenView{v, stolenPath(name), name == c.m.Name()}})
}

// declareStolen wants the name typed: it cannot be taken back.
func declareStolen(c *call) error {
	f, err := c.readForm("stolen")
	if err != nil {
		return err
	}
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	if f.text("name") != name {
		f.fail("name", "Type the name %s to declare the node stolen.", name)
		return showStolen(c, f)
	}
	if err := c.m.DeclareStolen(c.Request().Context(), c.actor, name); err != nil {
		if err := f.blame("name", err); err != nil {
			return err
		}
		return showStolen(c, f)
	}
	return c.done("/cluster/stolen", fmt.Sprintf("%s is out of the cluster and is never let in again. Deal with the keys that it held.", name))
}

// theftsPage lists the keys in strange hands, until they are dealt with.
func theftsPage(c *call) error {
	return c.show(page{Name: "thefts", Title: "Stolen nodes", Nav: "/cluster", Crumbs: []crumb{{"Cluster", "/cluster"}}, Data: c.m.Thefts()})
}

// settleStolen says of one key, or of all of a node, that they are dealt with.
func settleStolen(c *call) error {
	f, err := c.readForm("settle")
	if err != nil {
		return err
	}
	if err := c.m.SettleStolen(c.Request().Context(), c.actor, f.text("record"), f.text("key")); err != nil {
		return err
	}
	return c.done("/cluster/stolen", "Noted: dealt with.")
}

// theftsCSV is the list for spreadsheets.
func theftsCSV(c *call) error {
	c.Response().Header().Set("Content-Type", "text/csv; charset=utf-8")
	c.attach("stolen-keys.csv")
	c.Response().WriteHeader(http.StatusOK)
	return writeThefts(csv.NewWriter(c.Response()), c.m.Thefts())
}

func writeThefts(w *csv.Writer, thefts []node.Theft) error {
	w.Write([]string{"node", "stolen", "slot", "label", "id", "type", "fingerprint", "also_on", "applications", "dealt_with"})
	for _, t := range thefts {
		for _, k := range t.Held {
			dealt := ""
			if !k.Dealt.IsZero() {
				dealt = k.Dealt.UTC().Format(time.RFC3339)
			}
			w.Write([]string{t.Node, t.Since.UTC().Format(time.RFC3339), inert(k.Slot), inert(k.Key.Label), k.Key.ID, k.Key.Type, k.Key.Fingerprint,
				strings.Join(k.Others, " "), inert(strings.Join(k.Apps, " ")), dealt})
		}
	}
	w.Flush()
	return w.Error()
}

func apiTheft(c *call) error {
	name, err := c.segment("node")
	if err != nil {
		return err
	}
	v, err := c.m.Theft(name)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, v)
}

func apiThefts(c *call) error { return c.JSON(http.StatusOK, c.m.Thefts()) }

func apiSettleStolen(c *call) error {
	var q struct {
		Record string `json:"record"`
		Key    string `json:"key,omitempty"`
	}
	if err := c.decode(&q); err != nil {
		return err
	}
	if err := c.m.SettleStolen(c.Request().Context(), c.actor, q.Record, q.Key); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// theftProblems: keys in strange hands are a problem until somebody has dealt with them.
func (v *situation) theftProblems() []problem {
	var list []problem
	for _, r := range v.State.Stolen {
		if n := r.Open(); n > 0 {
			list = append(list, problem{bad, fmt.Sprintf("%s of %s, which was stolen, %s in strange hands.", plural(n, "key"), r.Node, are(n)),
				"Replace them, revoke their certificates, and say on the page Stolen nodes which are dealt with.", "/cluster/stolen", "See the keys"})
		}
	}
	return list
}
