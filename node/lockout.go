package node

import (
	"context"
	"fmt"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Wrong passwords in a row, on one node. After freeTries the account has to wait, each time twice as
// long; after lockAfter it is locked for lockTime, which the cluster is told, so that it is seen and can
// be lifted on any node. Each node counts for itself: a stranger at one console must not be able to keep
// people out everywhere. Passkeys and certificates, which nobody can guess, open a locked account.
const (
	freeTries = 5
	firstWait = 30 * time.Second
	lockAfter = 10
	lockTime  = time.Hour

	mostFailures = 10_000 // accounts, or names that are none, that are remembered
)

// failures are the wrong passwords in a row.
type failures struct {
	count int
	until time.Time // no password is looked at before
	told  bool      // the cluster knows of the lock
	hash  string    // of the password that they were not
}

// mayTry counts accounts that there are and accounts that there are not alike.
func (a *Accounts) mayTry(name string) (until time.Time, ok bool) {
	lock, listed := a.lock(name)
	hash := a.m.State().Accounts[name].Hash
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.fails[name]
	if f.told && !listed || f.hash != hash { // somebody has lifted it, or there is another password
		delete(a.fails, name)
		f = failures{}
	}
	until = f.until
	if listed && lock.Until.After(until) { // from before this daemon started
		until = lock.Until
	}
	return until, !time.Now().Before(until)
}

// lock finds this node's lock of an account in the replicated state.
func (a *Accounts) lock(name string) (cluster.Lock, bool) {
	for _, l := range a.m.State().Accounts[name].Locks {
		if l.Node == a.m.Name() {
			return l, true
		}
	}
	return cluster.Lock{}, false
}

// forgive forgets the wrong tries after a right one.
func (a *Accounts) forgive(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.fails, name)
}

// failed counts a wrong password. Of an account that there is, the first after a right one and each lock
// are recorded: an entry for each try would push everything else out of the audit trail. That is done
// later and elsewhere, so that the time an answer takes does not tell which accounts there are; and names
// of no account are recorded nowhere, since people type passwords into the wrong field.
func (a *Accounts) failed(name, from string) {
	account, known := a.m.State().Accounts[name]
	f := a.count(name, account.Hash)
	if !known {
		return
	}
	switch {
	case f.count == 1:
		a.m.tasks.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			a.m.acts.note(ctx, a.m.self(), cluster.NoteLoginRefused, "account/"+name, cluster.Refused, "wrong password or one-time password from "+from)
		})
	case f.count >= lockAfter:
		a.m.tasks.Go(func() { a.tellLock(name, f, from) })
	}
}

// count adds a wrong try; hash is that of the password, "" where there is none. The table is bounded: when
// strangers fill it, those that wait no more go first.
func (a *Accounts) count(name, hash string) failures {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	f := a.fails[name]
	f.count++
	f.told, f.hash = false, hash
	switch over := f.count - freeTries; {
	case f.count >= lockAfter:
		f.until = now.Add(lockTime)
	case over >= 0:
		f.until = now.Add(firstWait << over)
	}
	if len(a.fails) >= mostFailures {
		for n, old := range a.fails {
			if old.until.Before(now) && n != name {
				delete(a.fails, n)
			}
		}
	}
	if len(a.fails) < mostFailures || f.count > 1 {
		a.fails[name] = f
	}
	return f
}

// tellLock makes a lock known to the cluster, or to the audit trail later where there is no quorum now.
func (a *Accounts) tellLock(name string, f failures, from string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	a.m.log.Warn("an account is locked after wrong passwords", "tries", f.count, "from", from)
	if _, err := a.m.Cluster.Apply(ctx, &cluster.ReportLock{Name: name, Tries: f.count, Until: f.until}, a.m.self()); err != nil {
		a.m.acts.note(ctx, a.m.self(), cluster.NoteLocked, "account/"+name, cluster.Done,
			fmt.Sprintf("%d wrong passwords in a row; this node takes none before %s", f.count, f.until.UTC().Format(time.RFC3339)))
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.fails[name]; now.count == f.count {
		now.told = true
		a.fails[name] = now
	}
}

// Unlock lets an account try passwords again, on every node.
func (a *Accounts) Unlock(ctx context.Context, actor cluster.Actor, name string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.UnlockAccount{Name: name}, actor)
	return err
}
