package main

import (
	"cmp"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

// A status is what the daemon says of itself and its cluster.
type status struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	Member  bool   `json:"member"`
	Cluster struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"cluster"`
	WebConf     string `json:"webconf"`
	Fingerprint string `json:"fingerprint"`
	Quorum      bool   `json:"quorum"`
	Leader      string `json:"leader"`
	Role        string `json:"role"`
	Nodes       []struct {
		Name    string `json:"name"`
		Status  string `json:"status"`
		Answers bool   `json:"answers"`
		WebConf string `json:"webconf"`
		Version string `json:"version"`
		Voter   bool   `json:"voter"`
		Clock   *clock `json:"clock,omitempty"`
	} `json:"nodes"`
	Slots struct {
		Active int `json:"active"`
		Total  int `json:"total"`
	} `json:"slots"`
	Keys     node.Summary `json:"keys"`
	Sealing  node.Sealing `json:"sealing"`
	Problems []struct {
		Severity string `json:"severity"`
		Text     string `json:"text"`
		Remedy   string `json:"remedy"`
	} `json:"problems"`
}

// A clock is how far that of another node is ahead, in seconds.
type clock struct {
	Ahead  float64 `json:"ahead"`
	Within float64 `json:"within"` // the true difference is no further away than that
	Past   bool    `json:"past_limit"`
}

// words are those of the page Cluster.
func (c clock) words() string {
	seconds := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	n := node.Clock{Known: true, Ahead: seconds(c.Ahead), Within: seconds(c.Within)}
	switch {
	case c.Past:
		return "clock " + n.String() + ", which is too far off"
	case n.Agrees():
		return "clock agrees"
	}
	return "clock " + n.String()
}

func (a *app) statusCommand() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "status",
		Short: "Show how this node and its cluster are",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := get[status](c.Context(), a.client(), "/status")
			if err != nil {
				return err
			}
			return a.print(s, func(row func(...any)) {
				row("Node", s.Node+" ("+s.Version+")")
				if s.Sealing.Sealed != "" {
					row("Sealed", s.Sealing.Sealed)
					row("", "no slot is open, and this node takes no part in its cluster: run \"keyferry unseal\" on it")
					return
				}
				row("Stored codes", "sealed by "+s.Sealing.Where)
				if !s.Member {
					row("Cluster", "none yet: run \"keyferry init\" for the first node, \"keyferry join\" for any other")
					return
				}
				row("Cluster", s.Cluster.Name)
				row("WebConf", s.WebConf)
				row("Leader", orDash(s.Leader)+map[bool]string{false: " (no quorum: nothing can be changed now)"}[s.Quorum])
				for _, n := range s.Nodes {
					clock := ""
					if n.Clock != nil && n.Name != s.Node {
						clock = ", " + n.Clock.words()
					}
					row("Node "+n.Name, n.Status+map[bool]string{true: ", answers", false: ", does not answer"}[n.Answers]+clock)
				}
				row("Slots here", fmt.Sprintf("%d of %d active", s.Slots.Active, s.Slots.Total))
				row("Keys", fmt.Sprintf("%d, of which %d everywhere", s.Keys.Keys, s.Keys.Everywhere))
				for _, p := range s.Problems {
					row(cmp.Or(map[string]string{"bad": "Problem", "warn": "Warning"}[p.Severity], "Note"), p.Text+" "+p.Remedy)
				}
			})
		},
	})
}
