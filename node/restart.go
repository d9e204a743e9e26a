package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/cluster"
)

// How long a restart may take.
const (
	restartLimit = 90 * time.Second
	rolloutLimit = 5 * time.Minute // pods are started one after the other
)

// restartWord says how an application is restarted.
func restartWord(r cluster.Restart) string {
	switch r.Kind {
	case cluster.RestartSystemd:
		return "systemd unit " + r.Target
	case cluster.RestartKubernetes:
		return "rollout of " + r.Target
	}
	return r.Kind + " " + r.Target
}

// restartBy hands an application the codes of its slots and restarts it in its way.
func (a *Apps) restartBy(ctx context.Context, app cluster.App, reason string) error {
	limit := restartLimit
	if app.Restart.Kind == cluster.RestartKubernetes {
		limit = rolloutLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if app.Delivery.Kind == cluster.DeliverFile {
		a.deliver(ctx)
		if err := a.fileProblem(app); err != nil {
			return err
		}
	}
	switch app.Restart.Kind {
	case cluster.RestartCommand:
		return a.runCommand(ctx, app)
	case cluster.RestartSystemd:
		if !slices.Contains(a.m.node.cfg.Units, app.Restart.Target) {
			return fmt.Errorf("the configuration of node %s does not let unit %s be restarted: root has to add it to restart_units there", a.m.Name(), app.Restart.Target)
		}
		return restartUnit(ctx, app.Restart.Target)
	case cluster.RestartKubernetes:
		return a.rollOut(ctx, app.Restart.Target)
	case cluster.RestartWebhook:
		return a.callWebhook(ctx, app, reason)
	}
	return fmt.Errorf("there is no restart of the kind %q", app.Restart.Kind)
}

// runCommand runs a file that root has put into the node's restart directory. A browser never says what is
// executed: it names one of these files.
func (a *Apps) runCommand(ctx context.Context, app cluster.App) error {
	dir := a.m.node.cfg.RestartDir
	if dir == "" {
		return fmt.Errorf("the configuration of node %s names no restart directory (restart_dir)", a.m.Name())
	}
	path := filepath.Join(dir, filepath.Base(app.Restart.Target))
	if err := safeProgram(path); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path)
	if app.Delivery.Kind == cluster.DeliverStdin {
		lines, err := a.lines(app)
		if err != nil {
			return err
		}
		defer clear(lines)
		cmd.Stdin = bytes.NewReader(lines)
	}
	return runQuietly(cmd)
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
