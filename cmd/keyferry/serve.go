package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/webconf"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func (a *app) serveCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon of this node",
		Long: `Run the daemon of this node until it gets SIGTERM or SIGINT.

A new node waits until it is made a member of a cluster: in a browser, for which "keyferry first-code" gives a
one-time code, or with "keyferry init" (the first node of a cluster) or "keyferry join" (any other).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := readConfig(path)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return serve(ctx, cfg, a.err, nil)
		},
	}
	c.Flags().StringVar(&path, "config", "/etc/keyferry/keyferry.toml", "`file` with the configuration")
	return c
}

// serve runs a daemon until ctx ends. It starts what others need first, and stops in the reverse order:
// first nobody new is let in, then the node ends its work, last its modules.
func serve(ctx context.Context, cfg config, logTo io.Writer, fault func(string)) error {
	log, err := newLog(cfg.LogLevel, logTo)
	if err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	// 1. The node: its store, its modules and, if it is a member, its part in the cluster.
	nc := cfg.node()
	nc.Log, nc.Fault = log, fault
	n, err := node.Open(ctx, nc)
	if err != nil {
		return err
	}
	defer n.Close()
	web, err := webconf.New(webconf.Config{Node: n, Log: log})
	if err != nil {
		return err
	}
	// 2. The Unix socket, by which a new node is made a member.
	socket, err := listenUnix(cfg.Socket)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	api := &http.Server{Handler: web.API(), ConnContext: webconf.ConnContext, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	go func() { failed <- api.Serve(socket) }()
	defer shutDown(api)
	log.Info("keyferry runs", "node", n.Name(), "version", n.Version(), "socket", cfg.Socket)
	// 3. WebConf, once there is a certificate to show. A sealed node has none: it is sealed, too.
	select {
	case <-n.Unsealed():
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
	console, err := listenConsole(cfg.WebConf.Listen, web, log)
	if err != nil {
		return err
	}
	go func() { failed <- console.server.ServeTLS(console.listener, "", "") }()
	defer shutDown(console.server)
	log.Info("WebConf is open", "url", cfg.WebConf.URL)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		log.Info("stopping")
		return nil
	}
}

type console struct {
	server   *http.Server
	listener net.Listener
}

func listenConsole(address string, web *webconf.Server, log *slog.Logger) (*console, error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("WebConf cannot listen on %s: %w", address, err)
	}
	return &console{listener: ln, server: &http.Server{
		Handler:           web.Handler(),
		ConnContext:       web.ConsoleContext,
		ReadHeaderTimeout: 10 * time.Second, // slow clients hold a connection, not a handler
		ReadTimeout:       10 * time.Minute, // a package of 64 MiB over a slow line
		WriteTimeout:      10 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // failed handshakes of strangers
		TLSConfig:         web.TLS(),
	}}, nil
}

// shutDown lets requests end, but not for long.
func shutDown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}

// listenUnix takes the socket over from a daemon that has ended; one that runs keeps it.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	short, done, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer done()
	if c, err := net.Dial("unix", short); err == nil {
		c.Close()
		return nil, fmt.Errorf("another daemon answers on the socket %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: %w", err)
	}
	old := unix.Umask(0o117) // owner and group
	ln, err := net.Listen("unix", short)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // the short path is gone by then
	return ln, nil
}

// shortPath gives a socket a name that fits into sockaddr_un (108 bytes), however deep it lies.
func shortPath(path string) (short string, done func(), err error) {
	if len(path) < 100 {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, fmt.Errorf("socket: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)), func() { dir.Close() }, nil
}

// harden keeps the codes in this process's memory out of core files and other users' debuggers.
func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit: %w", err)
	}
	return nil
}

func newLog(level string, to io.Writer) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("log_level %q is none of debug, info, warn, error", level)
		}
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: l})), nil
}
