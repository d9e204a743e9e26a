package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
	"github.com/spf13/cobra"
)

func (a *app) syncCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sync",
		Short: "Make, look at and import key synchronization packages",
		Long: `A key synchronization package carries keys from the HSM of one node to the HSMs of others. It holds only what
the receivers lack, is sealed to them, and is signed by the sender's HSM.`,
	}
	c.AddCommand(a.syncBuild(), a.syncInspect(), a.syncImport(), a.syncList())
	return c
}

func (a *app) syncBuild() *cobra.Command {
	var slot, file string
	var to []string
	c := &cobra.Command{
		Use:   "build --slot LABEL -o FILE",
		Short: "Make a package with the keys that other nodes lack",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cl := a.client()
			job, err := post[node.Job](c.Context(), cl, "/sync/packages", map[string]any{"slot": slot, "to": to})
			if err != nil {
				return err
			}
			if job, err = a.wait(c.Context(), cl, job); err != nil {
				return err
			}
			if err := download(c.Context(), cl, "/sync/packages/"+job.Result+"/file", file); err != nil {
				return err
			}
			s, err := get[node.Staged](c.Context(), cl, "/sync/packages/"+job.Result)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: %s for %s, expires %s\nSHA-256 %s\n", file, count(s.Header.Keys, "key"), strings.Join(s.Header.Receivers, ", "), s.Header.Expires.UTC().Format(time.RFC3339), s.SHA256)
			return nil
		},
	}
	c.Flags().StringVar(&slot, "slot", "", "`label` of the slot whose keys travel")
	c.Flags().StringSliceVar(&to, "to", nil, "`nodes` that receive the package; all that lack a key when empty")
	c.Flags().StringVarP(&file, "output", "o", "", "`file` to write")
	c.MarkFlagRequired("slot")
	c.MarkFlagRequired("output")
	return c
}

// wait follows a job to its end. Progress goes to standard error.
func (a *app) wait(ctx context.Context, c *client, job node.Job) (node.Job, error) {
	told := 0
	for {
		for _, l := range job.Log[min(told, len(job.Log)):] {
			fmt.Fprintln(a.err, printable(l.Text))
		}
		told = len(job.Log)
		if job.State != node.JobRunning {
			break
		}
		next, err := get[node.Job](ctx, c, "/jobs/"+job.ID+"?wait=5")
		if err != nil {
			return job, err
		}
		job = next
	}
	if job.State == node.JobFailed {
		return job, errors.New(job.Error)
	}
	return job, nil
}

// download writes a package to a file, whole or not at all.
func download(ctx context.Context, c *client, path, file string) error {
	return writeWhole(file, func(w io.Writer) error {
		return c.send(ctx, http.MethodGet, path, "", nil, func(r io.Reader) error {
			_, err := io.Copy(w, r)
			return err
		})
	}, nil)
}

// writeWhole writes a file and checks it, if there is a check, before it has its name.
func writeWhole(file string, write func(io.Writer) error, check func(io.Reader) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".keyferry-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = write(tmp)
	if err == nil && check != nil {
		if _, err = tmp.Seek(0, io.SeekStart); err == nil {
			err = check(tmp)
		}
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

func (a *app) syncInspect() *cobra.Command {
	var offline bool
	c := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a package is, and whether it can be believed",
		Long: `Show what a package is: who made it, for whom, and until when it can be imported. The node says whether it was
signed by the node that it names, by what the cluster knows. With --offline no daemon is asked, and the signature is not checked.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := a.inspect(c.Context(), args[0], offline)
			if err != nil {
				return err
			}
			if err := a.print(i, func(row func(...any)) { inspectionTable(i, offline, row) }); err != nil {
				return err
			}
			if !i.Intact {
				return fmt.Errorf("%s is damaged", args[0])
			}
			if !offline && !i.Verified {
				return errors.New(i.Problem)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&offline, "offline", false, "ask no daemon; the signature is not checked")
	return a.dataFlag(c)
}

func (a *app) inspect(ctx context.Context, path string, offline bool) (node.Inspection, error) {
	var i node.Inspection
	f, err := os.Open(path)
	if err != nil {
		return i, err
	}
	defer f.Close()
	if !offline {
		err = upload(ctx, a.client(), "/sync/inspect", f, &i)
		return i, err
	}
	head, err := syncpkg.ReadHead(bufio.NewReader(f))
	if err != nil {
		return i, err
	}
	if _, err := f.Seek(int64(len(head.Raw)), io.SeekStart); err != nil {
		return i, err
	}
	return node.Inspection{Header: head.Header, KeyID: head.KeyID, Digest: head.Digest(), Intact: head.CheckBody(f) == nil,
		Problem: "the signature was not checked"}, nil
}

func inspectionTable(i node.Inspection, offline bool, row func(...any)) {
	h := i.Header
	row("Package", h.ID)
	row("Slot", h.Slot)
	row("Made by", h.Source+", "+h.Created.UTC().Format(time.RFC3339))
	row("For", strings.Join(h.Receivers, ", "))
	row("Keys", h.Keys)
	row("Expires", h.Expires.UTC().Format(time.RFC3339))
	row("Body", map[bool]string{true: "intact", false: "damaged"}[i.Intact])
	switch {
	case offline:
		row("Signature", "not checked; signed with the key "+i.KeyID)
	case i.Verified:
		row("Signature", "good: "+i.Signature)
	default:
		row("Signature", "not accepted: "+i.Problem)
	}
}

// upload streams a file to the daemon.
func upload(ctx context.Context, c *client, path string, f io.Reader, out any) error {
	return c.send(ctx, http.MethodPost, path, "application/octet-stream", f, func(r io.Reader) error { return decode(r, out) })
}

func (a *app) syncImport() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Put the keys of a package on this node's token",
		Long: `Put the keys of a package on this node's token. Keys that are there already are skipped, and nothing is ever
overwritten, so an import can be repeated. --dry-run only says what it would do.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			cl := a.client()
			var s node.Staged
			if err := upload(c.Context(), cl, "/sync/uploads", f, &s); err != nil {
				return err
			}
			if dryRun {
				return a.dryRun(c.Context(), cl, s)
			}
			job, err := post[node.Job](c.Context(), cl, "/sync/packages/"+s.SHA256+"/import", struct{}{})
			if err != nil {
				return err
			}
			job, err = a.wait(c.Context(), cl, job)
			if job.Report == nil {
				return err
			}
			if perr := a.print(job.Report, func(row func(...any)) { reportTable(job.Report, row) }); perr != nil {
				return perr
			}
			return err
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what the import would do, and do nothing")
	return a.dataFlag(c)
}

func (a *app) dryRun(ctx context.Context, c *client, s node.Staged) error {
	p, err := get[node.Preview](ctx, c, "/sync/packages/"+s.SHA256+"/preview")
	if err != nil {
		return err
	}
	if err := a.print(p, func(row func(...any)) {
		row("KEY", "TYPE", "FINGERPRINT", "WOULD BE", "")
		for _, k := range p.Keys {
			row(k.Key.Label, k.Key.Type, fmt.Sprintf("%.16s", k.Key.Fingerprint), map[string]string{node.ActionImport: "imported", node.ActionSkip: "skipped: already there", node.ActionConflict: "refused: conflict"}[k.Action], k.Why)
		}
	}); err != nil {
		return err
	}
	if p.Problem != "" {
		return errors.New(p.Problem)
	}
	return nil
}

func reportTable(r *node.ImportReport, row func(...any)) {
	row("KEY", "RESULT", "PROOF", "")
	for _, k := range r.Keys {
		proof := "-"
		if k.Proof != nil {
			proof = k.Proof.Kind
		}
		row(k.Label, k.Result, proof, k.Error)
	}
	row("")
	row("Imported", r.Imported)
	row("Already there", r.There)
	row("Conflicts", r.Conflicts)
	row("Failed", r.Failed)
	row("Receipt", map[bool]string{true: "signed, and known to the cluster", false: "signed; the cluster will know it later"}[r.Receipt])
	for _, x := range r.Restarts {
		row("Application "+x.App, map[bool]string{true: "restarted", false: "not restarted: " + x.Detail}[x.OK])
	}
}

func (a *app) syncList() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "list",
		Short: "List the packages that this node keeps",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := get[[]node.Staged](c.Context(), a.client(), "/sync/packages")
			if err != nil {
				return err
			}
			return a.print(list, func(row func(...any)) {
				row("PACKAGE", "SLOT", "FROM", "FOR", "KEYS", "KEPT", "EXPIRES")
				for _, s := range list {
					h := s.Header
					row(h.ID, h.Slot, h.Source, strings.Join(h.Receivers, ","), h.Keys, ago(s.Kept), h.Expires.UTC().Format(time.RFC3339))
				}
			})
		},
	})
}
