package node

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// Apps are the programs that use slots, and how they are restarted when their keys change.
type Apps struct{ m *Member }

// RestartResult is what came of restarting one application on this node.
type RestartResult struct {
	App    string `json:"application"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// restartLimit is how long a restart may take.
const restartLimit = 90 * time.Second

// Put makes an application, or changes one.
func (a *Apps) Put(ctx context.Context, actor cluster.Actor, app cluster.App) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.PutApp{App: app}, actor)
	return err
}

// Remove forgets an application. The program itself is not touched.
func (a *Apps) Remove(ctx context.Context, actor cluster.Actor, name string) error {
	_, err := a.m.Cluster.Apply(ctx, &cluster.RemoveApp{Name: name}, actor)
	return err
}

// List returns the applications, by name.
func (a *Apps) List() []cluster.App {
	apps := a.m.State().Apps
	list := make([]cluster.App, 0, len(apps))
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		list = append(list, apps[name])
	}
	return list
}

// codeChanged is told that the code of a slot of this node is another one now.
func (a *Apps) codeChanged(context.Context, string) {}

// using names the applications of this node that use a slot and can be restarted.
func (a *Apps) using(slot string) []string {
	names := []string{}
	for _, app := range a.List() {
		here := len(app.Nodes) == 0 || slices.Contains(app.Nodes, a.m.Name())
		if here && slices.Contains(app.Slots, slot) && app.Restart.Kind != cluster.RestartNone {
			names = append(names, app.Name)
		}
	}
	return names
}

// Restart restarts one application on this node because somebody asked for it.
func (a *Apps) Restart(ctx context.Context, actor cluster.Actor, name string) (RestartResult, error) {
	app, ok := a.m.State().Apps[name]
	if !ok {
		return RestartResult{}, refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no application %q", name)}}
	}
	if app.Restart.Kind == cluster.RestartNone {
		return RestartResult{}, refuse("application %q has no way to be restarted: set a command or a systemd unit", name)
	}
	var r RestartResult
	err := a.m.acts.do(ctx, act{actor, cluster.MayRestartApps, "app.restart", "app/" + name, "node " + a.m.Name()}, func() error {
		r = a.restart(ctx, app)
		if !r.OK {
			return fmt.Errorf("application %q was not restarted: %s", name, r.Detail)
		}
		return nil
	})
	return r, err
}

// restartUsers restarts the applications of this node that use a slot, after keys came into it.
func (a *Apps) restartUsers(ctx context.Context, slot string, pr *progress) []RestartResult {
	results := []RestartResult{}
	for _, name := range a.using(slot) {
		r := a.restart(ctx, a.m.State().Apps[name])
		if r.OK {
			pr.say("application %s was restarted", name)
		} else {
			pr.say("application %s was not restarted: %s", name, r.Detail)
		}
		results = append(results, r)
	}
	return results
}

// restart runs the restart of an application and tells the cluster what came of it.
func (a *Apps) restart(ctx context.Context, app cluster.App) RestartResult {
	ctx, cancel := context.WithTimeout(ctx, restartLimit)
	defer cancel()
	r := RestartResult{App: app.Name}
	cmd, err := a.command(ctx, app.Restart)
	if err == nil {
		err = runQuietly(cmd)
	}
	if r.OK = err == nil; !r.OK {
		r.Detail = line(err.Error())
	}
	if _, err := a.m.Cluster.Apply(ctx, &cluster.ReportRun{App: app.Name, OK: r.OK, Detail: r.Detail}, a.m.self()); err != nil {
		a.m.log.Warn("the cluster does not know of a restart", "application", app.Name, "error", err)
	}
	return r
}

// command builds the command of a restart. A browser never says what is executed: it names a file that
// root has put into the node's restart directory, or a systemd unit.
func (a *Apps) command(ctx context.Context, r cluster.Restart) (*exec.Cmd, error) {
	switch r.Kind {
	case cluster.RestartSystemd:
		return exec.CommandContext(ctx, "systemctl", "restart", "--", r.Target), nil
	case cluster.RestartCommand:
		path := filepath.Join(a.m.node.cfg.RestartDir, filepath.Base(r.Target))
		if a.m.node.cfg.RestartDir == "" {
			return nil, fmt.Errorf("the configuration of node %s names no restart directory (restart_dir)", a.m.Name())
		}
		if err := safeProgram(path); err != nil {
			return nil, err
		}
		return exec.CommandContext(ctx, path), nil
	}
	return nil, fmt.Errorf("there is no restart of the kind %q", r.Kind)
}

// safeProgram refuses files that others than root and the daemon's own user could have put there.
func safeProgram(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("the restart command %s is not there", path)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("the restart command %s is no executable file", path)
	case info.Mode()&0o022 != 0:
		return fmt.Errorf("the restart command %s can be changed by others than its owner; run chmod go-w on it", path)
	case !ok || st.Uid != 0 && int(st.Uid) != os.Getuid():
		return fmt.Errorf("the restart command %s belongs to neither root nor the user that keyferry runs as", path)
	}
	return nil
}

// runQuietly runs a command and keeps the end of what it prints for the case that it fails.
func runQuietly(cmd *exec.Cmd) error {
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = 2 * time.Second // a daemon that it starts may keep its output open
	err := cmd.Run()
	if err == nil || cmd.ProcessState != nil && cmd.ProcessState.Success() {
		return nil
	}
	if last := bytes.TrimSpace(out.b); len(last) > 0 {
		return fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	if over := len(t.b) - 300; over > 0 {
		t.b = t.b[over:]
	}
	return len(b), nil
}
