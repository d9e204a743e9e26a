package node

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// A Session is one browser in which a person is logged in, on one node. ID names it to people and opens
// nothing.
type Session struct {
	ID      string    `json:"id"`
	Node    string    `json:"node"`
	Account string    `json:"account"`
	Method  string    `json:"method"`
	Address string    `json:"address"`
	Browser string    `json:"browser"` // its family, as it says itself
	Began   time.Time `json:"began"`
	Seen    time.Time `json:"last_seen"`
}

// A SessionKeeper knows the sessions of this node: the console, which has the cookies.
type SessionKeeper interface {
	// Sessions lists those of an account.
	Sessions(account string) []Session
	// EndSession ends one of an account, and tells whether it was there.
	EndSession(account, id string) bool
}

// KeepSessions tells the node who knows its sessions. It is called once, before the console serves.
func (n *Node) KeepSessions(k SessionKeeper) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sessions = k
}

func (n *Node) keeper() SessionKeeper {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions
}

const (
	sessionsPath = "/node/v1/sessions"
	// sessionsTime is how long a page waits for what other nodes say of their sessions.
	sessionsTime = 3 * time.Second
)

// What nodes ask each other about sessions. End is the id of one to end; empty, they are listed. A node
// vouches for the person who asks, as it does for all that people do on it.
type sessionsQuestion struct {
	Account string `json:"account"`
	End     string `json:"end,omitempty"`
}

type sessionsAnswer struct {
	Sessions []Session `json:"sessions"`
	Ended    bool      `json:"ended,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// serveSessions answers another node.
func (n *Node) serveSessions(w http.ResponseWriter, r *http.Request) {
	var q sessionsQuestion
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoinMessage))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		respond(w, http.StatusBadRequest, sessionsAnswer{Error: "the request cannot be read"})
		return
	}
	respond(w, http.StatusOK, n.sessionsHere(q))
}

// sessionsHere answers for this node.
func (n *Node) sessionsHere(q sessionsQuestion) sessionsAnswer {
	k := n.keeper()
	switch {
	case k == nil:
		return sessionsAnswer{}
	case q.End != "":
		return sessionsAnswer{Ended: k.EndSession(q.Account, q.End)}
	}
	return sessionsAnswer{Sessions: k.Sessions(q.Account)}
}

func (a *Accounts) ask(ctx context.Context, node string, q sessionsQuestion) (answer sessionsAnswer, err error) {
	if node == a.m.Name() {
		return a.m.node.sessionsHere(q), nil
	}
	err = a.m.Peers.post(ctx, node, sessionsPath, q, &answer)
	return answer, err
}

// Sessions lists the sessions of an account on all nodes, the newest first. silent are the nodes that did
// not say theirs.
func (a *Accounts) Sessions(ctx context.Context, account string) (list []Session, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, sessionsTime)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for node := range a.m.State().Nodes {
		if !a.m.Peers.Seen(node).Answers {
			mu.Lock()
			silent = append(silent, node)
			mu.Unlock()
			continue
		}
		asked.Go(func() {
			answer, err := a.ask(ctx, node, sessionsQuestion{Account: account})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || answer.Error != "" {
				silent = append(silent, node)
				return
			}
			for _, s := range answer.Sessions {
				if s.Node == node && s.Account == account { // a node speaks for itself
					list = append(list, s)
				}
			}
		})
	}
	asked.Wait()
	slices.Sort(silent)
	slices.SortFunc(list, func(a, b Session) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.ID, b.ID)) })
	return list, silent
}

// EndSession ends one session of an account, on any node: one's own, or, by whoever manages accounts,
// another's.
func (a *Accounts) EndSession(ctx context.Context, actor cluster.Actor, account, node, id string) error {
	permission := cluster.MayManageAccounts
	if actor.Kind == cluster.ByAccount && actor.Name == account {
		permission = cluster.MayKeepAccount
	}
	if _, ok := a.m.State().Nodes[node]; !ok {
		return refuse("there is no node %q in this cluster", node)
	}
	if id == "" {
		return refuse("say which session")
	}
	end := act{actor: actor, permission: permission, name: "session.end", object: "account/" + account, detail: "on node " + node}
	return a.m.acts.doLocally(ctx, end, func() error {
		answer, err := a.ask(ctx, node, sessionsQuestion{Account: account, End: id})
		switch {
		case err != nil:
			return err
		case !answer.Ended:
			return refuse("this session has ended already")
		}
		return nil
	})
}

// EndAllSessions ends the sessions of an account on all nodes, also on those that are away, once they are
// back.
func (a *Accounts) EndAllSessions(ctx context.Context, actor cluster.Actor, account string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.EndSessions{Name: account}, actor)
	return err
}
