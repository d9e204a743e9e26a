package webconf

import (
	"cmp"
	"slices"
	"time"

	"github.com/keyferry/keyferry/node"
)

// A sessionKeeper answers the node's questions about the sessions of this console. It shows an account
// those that are its own still: one that began before the account changed has ended, if nobody has
// noticed yet.
type sessionKeeper struct{ srv *Server }

// shownID is how people and other nodes name a session: the beginning of the hash by which it is kept. It
// opens nothing.
func shownID(id string) string { return id[:min(len(id), 16)] }

// Sessions implements node.SessionKeeper.
func (k sessionKeeper) Sessions(account string) []node.Session {
	m, err := k.srv.node.Member()
	if err != nil {
		return nil
	}
	a := m.State().Accounts[account]
	s, now, idle := k.srv.sessions, time.Now(), k.srv.sessionIdle()
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []node.Session{}
	for id, l := range s.live {
		if text(l.values[sessionAccount]) != account || l.ended(now, idle) || !stillValid(a, l.values) {
			continue
		}
		list = append(list, node.Session{ID: shownID(id), Node: m.Name(), Account: account, Method: text(l.values[sessionMethod]),
			Address: text(l.values[sessionAddress]), Browser: text(l.values[sessionBrowser]), Began: l.began.UTC(), Seen: l.seen.UTC()})
	}
	slices.SortFunc(list, func(a, b node.Session) int { return cmp.Or(b.Seen.Compare(a.Seen), cmp.Compare(a.ID, b.ID)) })
	return list
}

// EndSession implements node.SessionKeeper.
func (k sessionKeeper) EndSession(account, shown string) bool {
	s := k.srv.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	found := false
	for id, l := range s.live {
		if shownID(id) == shown && text(l.values[sessionAccount]) == account {
			delete(s.live, id)
			found = true
		}
	}
	return found
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
