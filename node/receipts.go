package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/syncpkg"
)

// A keptReceipt is a receipt of this node's own.
type keptReceipt struct {
	Package string
	JWS     string
	Receipt cluster.Receipt
	Sent    bool // the cluster has it
}

// maxReplicated bounds the receipts that the cluster carries whole. Longer ones stay on the node that
// made them; the others ask for them there.
const maxReplicated = 60 << 10

// sendReceipt signs what arrived and tells the cluster. Once it is signed it is not lost: what the
// cluster cannot take now it is told later.
func (y *Sync) sendReceipt(ctx context.Context, p *syncpkg.Package, rep *ImportReport) error {
	pik, err := y.m.Identity.signer()
	if err != nil {
		return err
	}
	h := p.Head.Header
	jws, err := syncpkg.SignReceipt(syncpkg.Receipt{
		Cluster: h.Cluster, Package: h.ID, SHA256: p.Head.Digest(), Node: y.m.Name(), Slot: h.Slot, Time: time.Now().UTC(), Keys: rep.Keys,
	}, pik)
	if err != nil {
		return err
	}
	kept := keptReceipt{Package: h.ID, JWS: jws, Receipt: cluster.Receipt{
		Imported: rep.Imported, Present: rep.There, Failed: rep.Failed, Conflicts: rep.Conflicts,
	}}
	if len(jws) <= maxReplicated {
		kept.Receipt.Statement = jws
	}
	if old, err := get[keptReceipt](y.m.node.store, bucketReceipts, h.ID); err == nil && rep.Imported == 0 && old.Receipt.Imported > 0 {
		rep.Receipt = old.Sent // a repeated import changes nothing of what the first one proved
		return nil
	}
	if err := y.m.node.store.put(bucketReceipts, h.ID, kept); err != nil {
		return err
	}
	if err := y.tellReceipt(ctx, kept); err != nil {
		y.m.log.Warn("the cluster does not know a receipt yet", "package", h.ID, "error", err)
		return nil
	}
	rep.Receipt = true
	return nil
}

func (y *Sync) tellReceipt(ctx context.Context, k keptReceipt) error {
	_, err := y.m.Cluster.Apply(ctx, &cluster.RecordReceipt{Package: k.Package, Receipt: k.Receipt}, y.m.self())
	if err != nil && !errors.Is(err, cluster.NotFound) { // not found: the record of the package was forgotten
		return err
	}
	k.Sent = true
	return y.m.node.store.put(bucketReceipts, k.Package, k)
}

// flushReceipts tells the cluster of receipts that it could not take before.
func (y *Sync) flushReceipts(ctx context.Context) error {
	kept, err := all[keptReceipt](y.m.node.store, bucketReceipts)
	for _, k := range kept {
		if err == nil && !k.Sent {
			err = y.tellReceipt(ctx, k)
		}
	}
	return err
}

// Receipt fetches the receipt of a package from a node and verifies it by this node's own state.
func (y *Sync) Receipt(ctx context.Context, id, node string) (syncpkg.Receipt, string, error) {
	r, ok := y.m.State().Packages[id].Receipts[node]
	if !ok {
		return syncpkg.Receipt{}, "", refusal{&cluster.Error{Code: cluster.NotFound, Message: fmt.Sprintf("there is no receipt of node %s for package %s", node, id)}}
	}
	jws := r.Statement
	if jws == "" {
		var err error
		if jws, err = y.fetchReceipt(ctx, id, node); err != nil {
			return syncpkg.Receipt{}, "", err
		}
	}
	receipt, err := syncpkg.VerifyReceipt(jws, y.memberKeys(y.now()))
	if err == nil && (receipt.Package != id || receipt.Node != node) {
		err = fmt.Errorf("the receipt of node %s is for another package", node)
	}
	return receipt, jws, err
}

func (y *Sync) fetchReceipt(ctx context.Context, id, node string) (string, error) {
	if node == y.m.Name() {
		k, err := get[keptReceipt](y.m.node.store, bucketReceipts, id)
		return k.JWS, err
	}
	var jws []byte
	err := y.m.Peers.get(ctx, node, receiptPath+id, func(r io.Reader) (err error) {
		jws, err = io.ReadAll(io.LimitReader(r, syncpkg.MaxReceipt))
		return err
	})
	return string(jws), err
}
