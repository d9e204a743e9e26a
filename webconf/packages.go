package webconf

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
)

type packageView struct {
	Node       string
	Row        packageRow
	KeyID      string // of the signature
	FileName   string
	SourceURL  string // of the package's page on the node that made it
	Inspection *node.Inspection
	Preview    *node.Preview
	Problem    string // why there is no preview
	SlotClosed bool   // which is why
	Receipts   []verifiedReceipt
	Expired    bool
}

// A verifiedReceipt is a receipt with what this node makes of its signature.
type verifiedReceipt struct {
	receiptRow
	Verified bool
	Problem  string
	Proved   int // keys whose proof the receipt carries
	Total    int
}

// Complete tells whether the receipt is of a whole import, and believed.
func (r verifiedReceipt) Complete() bool { return r.Verified && r.Failed+r.Conflicts == 0 }

// Done counts the receivers with a verified receipt of a whole import.
func (v packageView) Done() int {
	n := 0
	for _, r := range v.Receipts {
		if r.Complete() {
			n++
		}
	}
	return n
}

// CanImport tells whether the button makes sense.
func (v packageView) CanImport() bool {
	return v.Preview != nil && v.Preview.Problem == "" && v.Preview.New > 0
}

func packagePage(c *call) error { return showPackage(c, nil) }

func showPackage(c *call, f *form) error {
	v, err := newPackageView(c)
	if err != nil {
		return err
	}
	return c.show(page{Name: "package", Title: "Package " + v.Row.ID[:min(8, len(v.Row.ID))] + " of slot " + v.Row.Slot, Nav: "/sync",
		Crumbs: []crumb{{"Key synchronization", "/sync"}}, Form: f, Data: v})
}

func newPackageView(c *call) (packageView, error) {
	digest, err := c.segment("digest")
	if err != nil {
		return packageView{}, err
	}
	s := c.look()
	v := packageView{Node: s.Node}
	staged, err := c.m.Sync.Get(digest)
	if err == nil {
		v.Row = keptRow(s, staged)
	} else if v.Row, err = recorded(s, digest, err); err != nil {
		return v, err
	}
	v.Expired = !s.Now.Before(v.Row.Expires)
	v.Receipts = c.verified(v.Row)
	if n, ok := s.State.Nodes[v.Row.Source]; ok && v.Row.Source != s.Node {
		v.SourceURL = n.WebURL + packagePath(v.Row.ID)
	}
	if !v.Row.Here {
		return v, nil
	}
	v.KeyID, v.FileName = staged.KeyID, staged.Name()
	if f, err := c.m.Sync.File(staged); err == nil {
		defer f.Close()
		if i, err := c.m.Sync.Inspect(f); err == nil {
			v.Inspection = &i
		}
	}
	if v.Row.ForMe && !v.Row.Mine {
		v.preview(c, staged)
	}
	return v, nil
}

// recorded finds a package that only the cluster knows, by its id or its digest; otherwise it returns the
// error that looking here ended with.
func recorded(s *situation, digest string, otherwise error) (packageRow, error) {
	for _, p := range s.State.Packages {
		if p.ID == digest || p.SHA256 == digest {
			return recordedRow(s, p), nil
		}
	}
	return packageRow{}, otherwise
}

// preview opens the package and compares it with the token.
func (v *packageView) preview(c *call, staged node.Staged) {
	p, err := c.m.Sync.Preview(c.Request().Context(), c.actor, staged.SHA256)
	if err != nil {
		v.Problem = sentence(c.settle(err).message)
		return
	}
	v.Preview = &p
	if p.Problem != "" {
		slot, err := c.m.Slots.One(staged.Header.Slot)
		v.SlotClosed = err == nil && slot.State != cluster.Active
	}
}

// verified checks the receipts of a package by what this node knows of the others.
func (c *call) verified(p packageRow) []verifiedReceipt {
	ctx, cancel := context.WithTimeout(c.Request().Context(), peerTime)
	defer cancel()
	var list []verifiedReceipt
	for _, r := range p.Receipts {
		v := verifiedReceipt{receiptRow: r}
		if r.Known {
			receipt, _, err := c.m.Sync.Receipt(ctx, p.ID, r.Node)
			v.Verified, v.Total = err == nil, len(receipt.Keys)
			if err != nil {
				v.Problem = sentence(err.Error())
			}
			for _, k := range receipt.Keys {
				if k.Proof != nil {
					v.Proved++
				}
			}
		}
		list = append(list, v)
	}
	return list
}

// packageFile is the package itself. Its digest goes with it, in the form of RFC 9530.
func packageFile(c *call) error {
	digest, err := c.segment("digest")
	if err != nil {
		return err
	}
	staged, err := c.m.Sync.Get(digest)
	if err != nil {
		return err
	}
	if err := c.authorize(cluster.MaySynchronize, staged.Header.Slot); err != nil { // the address does not tell the slot
		return err
	}
	f, err := c.m.Sync.File(staged)
	if err != nil {
		return fmt.Errorf("the file of package %s: %w", staged.Header.ID, err)
	}
	defer f.Close()
	c.patience(uploadTime)
	h := c.Response().Header()
	h.Set("Content-Type", "application/octet-stream")
	c.attach(staged.Name())
	h.Set("ETag", `"`+staged.SHA256+`"`)
	if sum, err := hex.DecodeString(staged.SHA256); err == nil {
		h.Set("Repr-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum)+":")
	}
	http.ServeContent(c.Response(), c.Request(), "", staged.Kept.Truncate(time.Second), f)
	return nil
}

// importPackage begins the job that imports a package.
func importPackage(c *call) error {
	f, err := c.readForm("import")
	if err != nil {
		return err
	}
	digest, err := c.segment("digest")
	if err != nil {
		return err
	}
	job, err := c.m.Sync.Import(c.Request().Context(), c.actor, digest)
	if err == nil {
		return c.redirect(jobPath(job.ID))
	}
	if err := f.blame("", err); err != nil {
		return err
	}
	return showPackage(c, f)
}
