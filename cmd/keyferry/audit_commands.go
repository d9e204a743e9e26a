package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/spf13/cobra"
)

func (a *app) auditCommand() *cobra.Command {
	var limit int
	var alerts bool
	filter := map[string]*string{"text": nil, "who": nil, "node": nil, "act": nil, "result": nil, "since": nil, "until": nil}
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, when and where, the newest last; export it, verify it",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			for name, value := range filter {
				q.Set(name, *value)
			}
			if alerts {
				q.Set("alerts", "1")
			}
			entries, err := get[[]cluster.Entry](c.Context(), a.client(), "/audit?"+q.Encode())
			if err != nil {
				return err
			}
			return a.print(entries, func(row func(...any)) {
				row("SEQ", "TIME", "NODE", "WHO", "ACT", "OBJECT", "RESULT", "ALERT", "DETAIL")
				for i := len(entries) - 1; i >= 0; i-- {
					e := entries[i]
					row(e.Seq, e.Time.UTC().Format(time.RFC3339), e.Node, e.Actor, e.Act, e.Object, e.Result, orDash(e.Alert), e.Detail)
				}
			})
		},
	}
	for name, usage := range map[string]string{
		"text": "only entries with this `text`", "who": "only of the person or node with this `name`", "node": "only what happened on this `node`", "act": "only this `act`, as the list shows it",
		"result": "only with this `result`: started, done, refused or failed", "since": "only from this `day` or RFC 3339 time on (UTC)", "until": "only until this `day` or RFC 3339 time (UTC)",
	} {
		filter[name] = c.Flags().String(name, "", usage)
	}
	c.Flags().BoolVar(&alerts, "alerts", false, "only entries that somebody should look at")
	c.Flags().IntVar(&limit, "limit", 100, "how many `entries`")
	c.AddCommand(a.auditStatus(), a.auditExport(), a.auditVerify())
	return a.dataFlag(c)
}

func (a *app) auditStatus() *cobra.Command {
	return a.dataFlag(&cobra.Command{
		Use:   "status",
		Short: "Show how far the audit trail is checked and signed",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := get[node.AuditStatus](c.Context(), a.client(), "/audit/status")
			if err != nil {
				return err
			}
			if err := a.print(s, func(row func(...any)) { auditStatusTable(s, row) }); err != nil {
				return err
			}
			if s.Damage != "" {
				return errors.New(s.Damage)
			}
			return nil
		},
	})
}

func auditStatusTable(s node.AuditStatus, row func(...any)) {
	row("Entries kept", fmt.Sprintf("%d, from %d to %d", s.Entries, s.First, s.Last))
	row("Chain checked here", fmt.Sprintf("from %d to %d", s.CheckedFrom, s.CheckedTo))
	row("Alerts in 24 hours", s.Alerts)
	for _, n := range s.Signed {
		switch {
		case n.Seq == 0:
			row("Signed by "+n.Node, "not yet")
		case n.Error != "":
			row("Signed by "+n.Node, "does not hold: "+n.Error)
		default:
			row("Signed by "+n.Node, fmt.Sprintf("up to %d, %s", n.Seq, ago(n.Time)))
		}
	}
	if y := s.Syslog; y.Address != "" {
		row("Syslog", fmt.Sprintf("%s: %d sent since the start, %d waiting", y.Address, y.Sent, y.Waiting))
		if y.Error != "" {
			row("Syslog fails", y.Error)
		}
	}
	if s.SignError != "" {
		row("This node cannot sign", s.SignError)
	}
}

func (a *app) auditExport() *cobra.Command {
	var file, since, until string
	c := &cobra.Command{
		Use:   "export -o FILE",
		Short: "Write the audit trail to a file that can be verified offline",
		Long: `Write the audit trail to a file: JSON lines with the entries, the nodes' signatures under them, and an end that
this node's HSM signs. "keyferry audit verify" checks such a file anywhere, without a daemon. The export is itself
recorded in the trail.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			from, err := node.ParseMoment(since, false)
			if err != nil {
				return err
			}
			to, err := node.ParseMoment(until, true)
			if err != nil {
				return err
			}
			body := strings.NewReader(fmt.Sprintf(`{"since":%q,"until":%q}`, from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano)))
			cl := a.client()
			err = writeWhole(file, func(w io.Writer) error {
				return cl.send(c.Context(), http.MethodPost, "/audit/export", "application/json", body, func(r io.Reader) error {
					_, err := io.Copy(w, r)
					return err
				})
			}, func(r io.Reader) error { // it may have been cut off on the way
				v, err := node.VerifyAudit(r, nil)
				if err == nil && !v.Intact() {
					err = fmt.Errorf("what the daemon exported is not intact: %s", v.Findings[0])
				}
				if err == nil {
					fmt.Fprintf(a.out, "%s: %s of cluster %s\n", file, fmt.Sprintf("%d audit entries", v.Entries), printable(v.Name))
				}
				return err
			})
			return err
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "`file` to write")
	c.Flags().StringVar(&since, "since", "", "only from this `day` or RFC 3339 time on (UTC)")
	c.Flags().StringVar(&until, "until", "", "only until this `day` or RFC 3339 time (UTC)")
	c.MarkFlagRequired("output")
	return c
}

// errNotAnchored is how verifying ends when no owner certificate was given: status 3, so that a script
// does not take it for a proof.
var errNotAnchored = &exitError{3, errors.New("the trail is whole, but nothing shows yet whose it is: compare the fingerprint above with the cluster's, or give its owner certificate with --owner")}

func (a *app) auditVerify() *cobra.Command {
	var owner string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify an exported audit trail, offline",
		Long: `Verify an exported audit trail, without a daemon. Give the cluster's owner certificate (owner.pem in the data
directory of every node) as you got it from somebody you trust, not from where the file came.

Exit status: 0, whole, and signed by nodes of that owner; 1, something is wrong, and the output says where;
3, whole, but no owner certificate was given, so anybody could have made it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			poc, err := readCertificate(owner)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			v, err := node.VerifyAudit(f, poc)
			if err != nil {
				return err
			}
			if err := a.print(v, func(row func(...any)) { auditVerdictTable(v, row) }); err != nil {
				return err
			}
			switch {
			case !v.Intact():
				return fmt.Errorf("%s is not a whole and unchanged audit trail", args[0])
			case !v.Anchored:
				return errNotAnchored
			}
			return nil
		},
	}
	c.Flags().StringVar(&owner, "owner", "", "`file` with the cluster's owner certificate (PEM)")
	return a.dataFlag(c)
}

func auditVerdictTable(v *node.AuditVerdict, row func(...any)) {
	for _, f := range v.Findings {
		row("WRONG", f)
	}
	if v.More > 0 {
		row("WRONG", fmt.Sprintf("and %d more", v.More))
	}
	row("Cluster", v.Name+" ("+v.Cluster+")")
	row("Entries", fmt.Sprintf("%d, from %d to %d", v.Entries, v.First, v.Last))
	row("With an alert", v.Alerts)
	for _, s := range v.Signed {
		row("Signed by "+s.Node, fmt.Sprintf("up to %d at %s (%s)", s.Last, s.Time.Format(time.RFC3339), count(s.Count, "signature")))
	}
	if v.Exporter != "" {
		row("Exported by "+v.Exporter, v.Exported.Format(time.RFC3339))
	}
	anchor := "as given"
	if !v.Anchored {
		anchor = "NOT COMPARED: none was given"
	}
	row("Owner certificate", "SHA-256 "+v.Owner+", "+anchor)
	for _, n := range v.Notes {
		row("Note", n)
	}
}

// readCertificate reads a PEM file with one certificate; nil when there is no file.
func readCertificate(file string) (*x509.Certificate, error) {
	if file == "" {
		return nil, nil
	}
	b, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cert, nil
}

// readSmall reads a file of at most a megabyte.
func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const most = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s is larger than a certificate can be", file)
	}
	return b, err
}
