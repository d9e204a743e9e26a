package main

import (
	"cmp"
	"context"
	"io"
	"runtime/debug"

	"github.com/keyferry/keyferry/hsm/worker"
	"github.com/spf13/cobra"
)

// An app is the program with the streams it talks to; end-to-end tests make their own.
type app struct {
	in       io.Reader
	out, err io.Writer

	socket string // of the daemon
	format string // "table" or "json"
}

func newApp(in io.Reader, out, err io.Writer) *app { return &app{in: in, out: out, err: err} }

func (a *app) run(ctx context.Context, args []string) error {
	root := a.root()
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

const defaultSocket = "/run/keyferry/keyferry.sock"

// root is the command table: every command of the program, in the order of the help text.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyferry",
		Short: "Keep the keys of a cluster of HSMs the same on every node",
		Long: `Keyferry runs on every node of a cluster of HSMs. It shows which node holds which key, and carries keys
from HSM to HSM in sealed packages, so that no key ever leaves an HSM in plaintext.

Each command speaks to the daemon of the node it runs on, over a Unix socket; who may open the socket
may use it. Codes and passwords are asked for on the terminal, or read from standard input, one to a line.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version(),
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().StringVar(&a.socket, "socket", envOr("KEYFERRY_SOCKET", defaultSocket), "`path` of the daemon's Unix socket (also KEYFERRY_SOCKET)")
	root.AddGroup(&cobra.Group{ID: "node", Title: "This node:"}, &cobra.Group{ID: "keys", Title: "Slots and keys:"}, &cobra.Group{ID: "people", Title: "People:"},
		&cobra.Group{ID: "more", Title: "More:"})
	group(root, "node",
		a.serveCommand(),
		a.initCommand(),
		a.joinCommand(),
		a.statusCommand(),
		a.hsmCommand(),
		a.clusterCommand(),
		a.identCommand(),
		a.firstCodeCommand(),
		a.protectCommand(),
		a.unsealCommand(),
	)
	group(root, "keys",
		a.slotsCommand(),
		a.custodyCommand(),
		a.forecastCommand(),
		a.custodiansCommand(),
		a.coverageCommand(),
		a.syncCommand(),
		a.appsCommand(),
	)
	group(root, "people",
		a.peopleCommand(),
		a.approvalsCommand(),
		a.policiesCommand(),
	)
	group(root, "more",
		a.jobsCommand(),
		a.auditCommand(),
		a.demoCommand(),
	)
	root.AddCommand(workerCommand())
	return root
}

func group(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// workerCommand is the child that holds a PKCS#11 module. Only the daemon starts it.
func workerCommand() *cobra.Command {
	return &cobra.Command{Use: "hsm-worker", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return worker.Main() }}
}

// dataFlag gives a command that prints data its -o flag.
func (a *app) dataFlag(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.format, "output", "o", "table", "print a `format`: table or json")
	return c
}

// built is the commit that the program was built from, set by the Makefile.
var built string

// version is the module's version or, for a program built from a checkout, its commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if v := info.Main.Version; ok && v != "" && v != "(devel)" {
		return v
	}
	return cmp.Or(built, "devel")
}
