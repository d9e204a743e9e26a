package node

import (
	"context"

	"github.com/keyferry/keyferry/cluster"
)

// Small facts about a node that consoles show and nothing else needs.

// WebURL is the address of the node's WebConf.
func (n *Node) WebURL() string { return n.cfg.WebURL }

// PeerAddress is where other nodes reach the node.
func (n *Node) PeerAddress() string { return n.cfg.PeerAddress }

// AdminModule is the name of the module that holds the node's admin token, or is to hold it.
func (n *Node) AdminModule() string {
	if n.cfg.AdminModule == "" {
		return n.modules[0].Name()
	}
	return n.cfg.AdminModule
}

// Modules are the names of the node's PKCS#11 modules, in the order of its configuration.
func (n *Node) Modules() []string {
	names := make([]string, len(n.modules))
	for i, m := range n.modules {
		names[i] = m.Name()
	}
	return names
}

// ClusterName is the name of the cluster, also before this node has caught up with its state.
func (id *Identity) ClusterName() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.rec.ClusterName
}

// RestartTargets are what root has named in the node's configuration for restarts of applications.
type RestartTargets struct {
	Dir        string // of commands; empty when there is none
	Units      []string
	Codes      string // directory of the files with codes
	Kubernetes []string
	Webhooks   []string
}

// RestartTargets says by which names applications can be restarted on this node.
func (n *Node) RestartTargets() RestartTargets {
	t := RestartTargets{Dir: n.cfg.RestartDir, Units: n.cfg.Units, Codes: n.cfg.CodesDir}
	for _, k := range n.cfg.Kubernetes {
		t.Kubernetes = append(t.Kubernetes, k.Name)
	}
	for _, w := range n.cfg.Webhooks {
		t.Webhooks = append(t.Webhooks, w.Name)
	}
	return t
}

// What forms ask for before they send: the shortest password and the shortest code that people choose,
// in characters.
const (
	MinPassword = minPassword
	MinCode     = minManual
)

// CheckPassword holds a password to the rules, so that a form can say which of its fields is wrong.
func CheckPassword(password string) error { return checkPassword(password) }

// CheckCode holds a code that people chose to the rules that are the same for every token.
func CheckCode(code []byte) error { return checkManual(code, 0, 0) }

// Await returns a job once it has ended, or as it is when ctx ends before. A ctx that has ended already
// asks for the job as it is now.
func (j *Jobs) Await(ctx context.Context, id string) (Job, error) {
	j.mu.Lock()
	job := j.running[id]
	j.mu.Unlock()
	if job == nil { // a job is stored before it leaves the running ones
		return j.Get(id)
	}
	select {
	case <-job.done:
	case <-ctx.Done():
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return *job, nil
}

// Reload starts a module anew, once no call is running in it. Tokens that other programs have made since
// its last start become visible by that (PKCS#11 fixes the list of slots at C_Initialize). Slots that are
// open are open again afterwards.
func (m *Member) Reload(ctx context.Context, actor cluster.Actor, module string) error {
	mod, err := m.node.module(module)
	if err != nil {
		return refusal{&cluster.Error{Code: cluster.NotFound, Message: err.Error()}}
	}
	return m.acts.doLocally(ctx, act{actor, cluster.MayManageSlots, "module.reload", "module/" + module, "node " + m.Name()}, func() error {
		return mod.Restart(ctx)
	})
}

// Withdraw makes a one-time code for a joining node worthless. The code is named by its hash.
func (m *Member) Withdraw(ctx context.Context, actor cluster.Actor, hash string) error {
	_, err := m.Cluster.Apply(ctx, &cluster.RemoveInvite{Hash: hash}, actor)
	return err
}

// Remove takes another node out of the cluster: it gets no packages and no news any more, and its vote, its
// seats and the trust in it are gone. Its HSM is not touched. A node does not remove itself: nobody there
// could see whether it was done. A node with tokens whose code custodians share is refused unless giveUp says
// that the keys in them are lost.
func (m *Member) Remove(ctx context.Context, actor cluster.Actor, node string, giveUp bool) error {
	if node == m.Name() {
		return refuse("%s cannot remove itself: remove it on another node of the cluster", node)
	}
	_, err := m.Cluster.Apply(ctx, &cluster.RemoveNode{Node: node, GiveUp: giveUp}, actor)
	return err
}
