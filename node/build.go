package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Sync exchanges key synchronization packages with other nodes.
type Sync struct {
	m *Member
	importing
	refusals refusals
}

func (y *Sync) now() time.Time { return y.m.node.cfg.Now() }

// A Plan is what a package would hold, and why it would not hold more.
type Plan struct {
	Slot      string       `json:"slot"`
	Receivers []Receiver   `json:"receivers"`
	Keys      []PlannedKey `json:"keys"`
}

// Receiver is a node that a package could be for.
type Receiver struct {
	Node    string `json:"node"`
	Lacks   int    `json:"lacks"`             // keys of this node that it does not have
	Problem string `json:"problem,omitempty"` // why it cannot receive a package now

	keys syncpkg.ReceiverKeys
}

// PlannedKey is a key that some receiver lacks.
type PlannedKey struct {
	Key     KeyName  `json:"key"`
	For     []string `json:"for"`               // receivers that lack it
	Problem string   `json:"problem,omitempty"` // why it cannot travel
}

// Plan looks at what the other nodes lack in a slot of this node. With names, only those are looked at.
func (y *Sync) Plan(slot string, to []string) (Plan, error) {
	s := y.m.State()
	me := y.m.Name()
	if _, ok := s.Slots[slot].Seats[me]; !ok {
		return Plan{}, y.m.Slots.absent(slot)
	}
	p := Plan{Slot: slot, Receivers: []Receiver{}, Keys: []PlannedKey{}}
	names := to
	if len(names) == 0 {
		names = slices.DeleteFunc(slices.Sorted(maps.Keys(s.Nodes)), func(n string) bool { return n == me })
	}
	lacking := map[string][]string{}
	for _, name := range names {
		if _, ok := s.Nodes[name]; !ok || name == me {
			return Plan{}, refuse("%q is not another node of this cluster", name)
		}
		r := Receiver{Node: name}
		r.keys, r.Problem = y.receiver(s, slot, name)
		for fp := range s.Keys[slot][me].Keys {
			if _, has := s.Keys[slot][name].Keys[fp]; !has {
				lacking[fp] = append(lacking[fp], name)
				r.Lacks++
			}
		}
		p.Receivers = append(p.Receivers, r)
	}
	for fp, names := range lacking {
		h := s.Keys[slot][me].Keys[fp]
		p.Keys = append(p.Keys, PlannedKey{KeyName{h.ID, h.Label, h.Type, h.Class, fp}, names, h.Obstacle})
	}
	slices.SortFunc(p.Keys, func(a, b PlannedKey) int {
		return cmp.Or(cmp.Compare(a.Key.Label, b.Key.Label), cmp.Compare(a.Key.ID, b.Key.ID))
	})
	return p, nil
}

// receiver finds out whether a node can receive packages for a slot, and with which keys.
func (y *Sync) receiver(s *cluster.State, slot, name string) (syncpkg.ReceiverKeys, string) {
	seat, ok := s.Slots[slot].Seats[name]
	switch {
	case !ok:
		return syncpkg.ReceiverKeys{}, fmt.Sprintf("it has no slot %q; make it there first", slot)
	case seat.Receiver == "":
		return syncpkg.ReceiverKeys{}, "its slot has not been open yet, so it has no key to receive packages with; activate it there"
	case !s.Trusts(name, y.m.Name()):
		return syncpkg.ReceiverKeys{}, fmt.Sprintf("it does not trust %s: see the page Identity and trust", y.m.Name())
	}
	keys, err := syncpkg.VerifyReceiverKeys(seat.Receiver, y.memberKeys(y.now()), y.now())
	if err != nil {
		return keys, "its receiver keys are not to be trusted: " + err.Error()
	}
	if keys.Node != name || keys.Slot != slot || keys.Scheme != syncpkg.SchemeECDHP521 {
		return keys, "its receiver keys are for another node, slot or scheme"
	}
	return keys, ""
}

// Build makes a package with what the named nodes lack; all nodes that can receive one when none is
// named. The package is kept on this node and recorded in the cluster.
func (y *Sync) Build(ctx context.Context, actor cluster.Actor, slot string, to []string) (*Job, error) {
	if err := y.m.Keys.Look(ctx, slot); err != nil { // what was made a moment ago counts
		return nil, err
	}
	p, err := y.Plan(slot, to)
	if err != nil {
		return nil, err
	}
	receivers, keys, err := choose(p, len(to) > 0)
	if err != nil {
		return nil, err
	}
	detail := plural(len(keys), "key") + " for " + names(receivers)
	if y.m.State().CoveredAct(buildAct) { // an approval is of exactly these keys for exactly these receivers
		detail += ", digest " + digestOfPlan(receivers, keys)
	}
	build := act{actor, cluster.MaySynchronize, buildAct, "slot/" + slot, detail}
	if err := y.m.acts.ask(ctx, build); err != nil {
		return nil, err
	}
	return y.m.Jobs.start("build", "slot/"+slot, actor, func(ctx context.Context, pr *progress) error {
		return y.m.acts.do(ctx, build, func() error {
			return y.build(ctx, actor, slot, receivers, keys, pr)
		})
	}), nil
}

// choose takes the receivers and keys of a plan that can travel.
func choose(p Plan, named bool) (receivers []Receiver, keys []string, err error) {
	var problems []string
	for _, r := range p.Receivers {
		switch {
		case r.Problem != "":
			problems = append(problems, r.Node+": "+r.Problem)
		case r.Lacks > 0:
			receivers = append(receivers, r)
		}
	}
	if named && len(problems) > 0 || len(receivers) == 0 && len(problems) > 0 {
		return nil, nil, refuse("no package can be made for %s", strings.Join(problems, "; "))
	}
	if len(receivers) == 0 {
		return nil, nil, refuse("the receivers have every key of slot %q already: there is nothing to send", p.Slot)
	}
	for _, k := range p.Keys {
		wanted := slices.ContainsFunc(receivers, func(r Receiver) bool { return slices.Contains(k.For, r.Node) })
		switch {
		case !wanted:
		case k.Problem != "":
			problems = append(problems, fmt.Sprintf("key %q: %s", cmp.Or(k.Key.Label, k.Key.ID), k.Problem))
		default:
			keys = append(keys, k.Key.Fingerprint)
		}
	}
	if len(keys) == 0 {
		return nil, nil, refuse("none of the missing keys of slot %q can travel: %s", p.Slot, strings.Join(problems, "; "))
	}
	if len(keys) > maxPackaged {
		keys = keys[:maxPackaged]
	}
	return receivers, keys, nil
}

// maxPackaged bounds the keys of one package; what is left goes into the next.
const maxPackaged = 5000

// buildAct is what the audit trail and policies call the making of a package.
const buildAct = "sync.build"

// digestOfPlan binds an approval to exactly these keys and to the keys of exactly these receivers.
func digestOfPlan(receivers []Receiver, keys []string) string {
	h := sha256.New()
	for _, r := range receivers {
		fmt.Fprintf(h, "to %q %x %d %x\n", r.Node, r.keys.Transport, r.keys.Seal.KEM, r.keys.Seal.Public)
	}
	for _, k := range slices.Sorted(slices.Values(keys)) {
		fmt.Fprintf(h, "key %q\n", k)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func names(receivers []Receiver) string {
	var list []string
	for _, r := range receivers {
		list = append(list, r.Node)
	}
	return strings.Join(list, ", ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// build exports the keys, seals and signs the package, keeps it and records it.
func (y *Sync) build(ctx context.Context, actor cluster.Actor, slot string, receivers []Receiver, wanted []string, pr *progress) error {
	now := y.now().UTC()
	h := syncpkg.Header{ID: syncpkg.NewID(), Cluster: y.m.State().Cluster.ID, Source: y.m.Name(), Slot: slot, Created: now, Expires: now.Add(y.m.Settings.PackageLife())}
	content, err := y.exportKeys(ctx, h, receivers, wanted, pr)
	if err != nil {
		return err
	}
	y.m.node.cfg.Fault("build: exported")
	for _, r := range receivers { // trust that was removed meanwhile stops it here
		if !y.m.State().Trusts(r.Node, y.m.Name()) {
			return refuse("no package is made: node %s does not trust node %s any more", r.Node, y.m.Name())
		}
	}
	var to []syncpkg.Recipient
	for _, r := range receivers {
		recipient, err := r.keys.Recipient()
		if err != nil {
			return err
		}
		to = append(to, recipient)
	}
	pik, err := y.m.Identity.signer()
	if err != nil {
		return err
	}
	file, err := syncpkg.Seal(h, content, to, pik)
	if err != nil {
		return fmt.Errorf("sealing the package: %w", err)
	}
	staged, err := y.keepFile(file)
	if err != nil {
		return err
	}
	var prints, nodes []string
	for _, k := range content.Keys {
		prints = append(prints, k.Fingerprint())
	}
	for _, r := range receivers {
		nodes = append(nodes, r.Node)
	}
	_, err = y.m.Cluster.Apply(ctx, &cluster.RecordPackage{Package: cluster.Package{
		ID: h.ID, Slot: slot, Receivers: nodes, Keys: prints, SHA256: staged.SHA256, Size: staged.Size, Expires: h.Expires,
	}}, actor)
	if err != nil {
		return fmt.Errorf("recording the package: %w", err)
	}
	pr.result(staged.SHA256)
	pr.say("package %s: %s for %s, %d bytes", h.ID, plural(len(content.Keys), "key"), strings.Join(nodes, ", "), staged.Size)
	return nil
}

// exportKeys wraps the wanted keys inside the token, for the receivers' tokens.
func (y *Sync) exportKeys(ctx context.Context, h syncpkg.Header, receivers []Receiver, wanted []string, pr *progress) (syncpkg.Content, error) {
	var content syncpkg.Content
	token, err := y.m.Slots.token(h.Slot)
	if err != nil {
		return content, err
	}
	objects, err := token.Objects(ctx, 0, false) // read at most a minute ago
	if err != nil {
		return content, err
	}
	chosen := chosenKeys(objects, wanted)
	if len(chosen) == 0 {
		return content, refuse("the keys have left slot %q meanwhile", h.Slot)
	}
	ephemeral, err := y.bindReceivers(ctx, token, h, receivers, &content)
	if err != nil {
		return content, err
	}
	defer ephemeral.Close()
	for done := 0; done < len(chosen); {
		batch := chosen[done:min(done+hsm.MaxBatch, len(chosen))]
		refs := make([]hsm.Ref, len(batch))
		for i, k := range batch {
			refs[i] = k.Ref
		}
		wrapped, err := ephemeral.Wrap(ctx, refs)
		if err != nil {
			return content, err
		}
		for i, w := range wrapped {
			key, err := wrappedKey(batch[i], w, objects.Certificates)
			if err != nil {
				pr.say("key %s stays here: %v", batch[i].Name(), err)
				continue
			}
			content.Keys = append(content.Keys, key)
		}
		done += len(batch)
		pr.at(done, len(chosen))
	}
	if len(content.Keys) == 0 {
		return content, errors.New("no key could be exported; the job's log says why for each")
	}
	return content, nil
}

// bindReceivers makes the package key and binds it to the package and each receiver. The context that
// does so contains the ephemeral key, which the token makes: so it is made first, with the receivers'
// contexts given as a function of it.
func (y *Sync) bindReceivers(ctx context.Context, token *hsm.Token, h syncpkg.Header, receivers []Receiver, content *syncpkg.Content) (*hsm.Export, error) {
	exp, err := token.Export(ctx)
	if err != nil {
		return nil, err
	}
	content.Scheme, content.Ephemeral = syncpkg.SchemeECDHP521, exp.Ephemeral
	for _, r := range receivers {
		c := h.Context(r.Node, r.keys.Transport, exp.Ephemeral)
		wrapped, err := exp.Address(ctx, hsm.Receiver{Transport: r.keys.Transport, Context: c[:]})
		if err != nil {
			exp.Close()
			return nil, fmt.Errorf("addressing the package to %s: %w", r.Node, err)
		}
		content.PackageKeys = append(content.PackageKeys, syncpkg.PackageKey{Receiver: r.Node, Wrapped: wrapped})
	}
	return exp, nil
}

func chosenKeys(o hsm.Objects, wanted []string) []hsm.Key {
	want := make(map[string]bool, len(wanted))
	for _, fp := range wanted {
		want[fp] = true
	}
	var chosen []hsm.Key
	for _, k := range o.Keys {
		if fp := fingerprint(k); want[fp] && !identity.IsOwn(k.ID) && obstacle(k) == "" {
			chosen = append(chosen, k)
			delete(want, fp)
		}
	}
	return chosen
}

// wrappedKey describes an exported key as packages do, with the certificates that stand beside it.
func wrappedKey(k hsm.Key, w hsm.Wrapped, certs []hsm.Certificate) (syncpkg.Key, error) {
	if w.Err != nil {
		return syncpkg.Key{}, w.Err
	}
	p := packaged(k)
	p.Wrapped = w.Blob
	if p.Type == syncpkg.TypeAES && p.Bits == 0 { // the token does not tell; RFC 5649 adds eight bytes
		p.Bits = 8 * (len(w.Blob) - 8)
	}
	for _, c := range certs {
		if k.Class == hsm.PrivateKey && hex.EncodeToString(c.ID) == p.ID && len(p.Certificates) < syncpkg.MaxCertificates {
			p.Certificates = append(p.Certificates, syncpkg.Certificate{Label: c.Label, DER: c.DER})
		}
	}
	return p, p.Validate()
}
