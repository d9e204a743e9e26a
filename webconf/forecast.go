package webconf

import (
	"net/http"
	"slices"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

// forecasts tells of each node what happens if it restarts now, this node first.
func (v *situation) forecasts() []node.Forecast {
	around := node.Surroundings{Seen: v.Seen, Voters: v.Status.Voters}
	var list []node.Forecast
	for _, name := range v.names() {
		f := node.NewForecast(v.State, name, around)
		if name == v.Node {
			list = slices.Insert(list, 0, f)
			continue
		}
		list = append(list, f)
	}
	return list
}

type restartView struct {
	Node  string
	Nodes []nodeForecast
}

// A nodeForecast is a forecast as a page shows it.
type nodeForecast struct {
	node.Forecast
	Mark mark
	Here bool
}

func newRestartView(v *situation) restartView {
	r := restartView{Node: v.Node}
	for _, f := range v.forecasts() {
		r.Nodes = append(r.Nodes, nodeForecast{f, forecastMark(f), f.Node == v.Node})
	}
	return r
}

// forecastMark is a forecast in a word.
func forecastMark(f node.Forecast) mark {
	switch {
	case f.Waits != "" || len(f.Stopped()) > 0:
		return mark{"bad", "alert", "Somebody must come"}
	case len(f.Closed()) > 0:
		return mark{"warn", "warn", "Slots stay closed"}
	case f.Doubt != "":
		return mark{"mute", "unknown", "Not certain"}
	}
	return mark{"ok", "ok", "Comes back by itself"}
}

func opensMark(opens bool) mark {
	if opens {
		return mark{"ok", "ok", "Opens by itself"}
	}
	return mark{"warn", "wait", "Stays closed"}
}

func stopsMark(stops bool) mark {
	if stops {
		return mark{"bad", "bad", "Stops"}
	}
	return mark{"ok", "ok", "Comes back"}
}

func restartPage(c *call) error {
	return c.show(page{Name: "restart", Title: "Restart forecast", Nav: "/restart", Data: newRestartView(c.look())})
}

// apiForecast answers for all nodes, or for one.
func apiForecast(c *call) error {
	list := c.m.Forecasts()
	if name := c.QueryParam("node"); name != "" {
		list = slices.DeleteFunc(list, func(f node.Forecast) bool { return f.Node != name })
		if len(list) == 0 {
			return &cluster.Error{Code: cluster.NotFound, Message: "no node of that name is a member of this cluster"}
		}
	}
	return c.JSON(http.StatusOK, whole(list))
}

type custodyView struct {
	Seats []node.HeldCode
	Nodes []custodyNode
}

type custodyNode struct{ Name, URL, Protector string }

func newCustodyView(v *situation) custodyView {
	c := custodyView{Seats: node.CustodyMap(v.State)}
	for _, name := range v.names() {
		n := v.State.Nodes[name]
		c.Nodes = append(c.Nodes, custodyNode{name, n.WebURL + "/protection", protectorWord(n.Protector)})
	}
	return c
}

func custodyPage(c *call) error {
	return c.show(page{Name: "custody", Title: "Who holds which code", Nav: "/custody", Data: newCustodyView(c.look())})
}

func apiCustody(c *call) error { return c.JSON(http.StatusOK, node.CustodyMap(c.m.State())) }
