package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Preview is what an import of a package would do here.
type Preview struct {
	Staged   Staged       `json:"package"`
	Keys     []PreviewKey `json:"keys"`
	New      int          `json:"new"`
	There    int          `json:"already_there"`
	Conflict int          `json:"conflicts"`
	Problem  string       `json:"problem,omitempty"` // why it cannot be imported now
	Imported time.Time    `json:"imported,omitzero"` // when it was imported here before
	Apps     []string     `json:"applications"`      // that would be restarted
	Clock    string       `json:"clock,omitempty"`   // how far that of the source is off, if it is
}

// PreviewKey is one key of a package, and what would become of it.
type PreviewKey struct {
	Key    KeyName `json:"key"`
	Action string  `json:"action"` // ActionImport, ActionSkip or ActionConflict
	Why    string  `json:"why,omitempty"`
	Certs  int     `json:"certificates"`
	Usage  string  `json:"usage"`
}

// What would become of a key.
const (
	ActionImport   = "import"
	ActionSkip     = "already there"
	ActionConflict = "conflict"
)

// open opens a kept package: all its checks again, then its content.
func (y *Sync) open(s Staged) (*syncpkg.Package, error) {
	sealing, err := y.m.Identity.sealing()
	if err != nil {
		return nil, err
	}
	f, err := y.File(s)
	if err != nil {
		return nil, fmt.Errorf("the file of the package is gone: %w", err)
	}
	defer f.Close()
	p, err := syncpkg.Open(f, syncpkg.Opener{Receiver: y.m.Name(), Now: y.now(), Trust: y.trustIn(y.now()), Private: sealing})
	if err != nil {
		return nil, packageError(err)
	}
	if p.Head.Header.Source == y.m.Name() {
		return nil, refuse("this node made the package itself")
	}
	if err := y.madeUnder(p.Head.Header); err != nil {
		return nil, err
	}
	return p, y.recorded(p.Head, s.SHA256)
}

// Preview opens a package and compares it with what is on the token, without changing anything.
func (y *Sync) Preview(ctx context.Context, actor cluster.Actor, digest string) (Preview, error) {
	s, err := y.Get(digest)
	if err != nil {
		return Preview{}, err
	}
	p, err := y.open(s)
	if err != nil {
		y.tellRefusedKept(ctx, actor, "looked at", s, err)
		return Preview{}, err
	}
	v := Preview{Staged: s, Keys: []PreviewKey{}, Apps: y.m.Apps.using(s.Header.Slot), Clock: y.clockNote(s.Header.Source)}
	if r, ok := y.m.State().Packages[s.Header.ID].Receipts[y.m.Name()]; ok {
		v.Imported = r.Time
	}
	objects, err := y.here(ctx, s.Header.Slot)
	if err != nil {
		v.Problem = err.Error()
	}
	beside := y.sourceHolds(s.Header)
	for _, k := range p.Content.Keys {
		name := KeyName{k.ID, packagedLabel(k), packagedKind(k), k.Class, k.Fingerprint()}
		one := PreviewKey{Key: name, Certs: len(k.Certificates), Usage: strings.Join(k.Usage, ", ")}
		one.Action, one.Why = actionFor(k, objects, beside)
		switch one.Action {
		case ActionImport:
			v.New++
		case ActionSkip:
			v.There++
		default:
			v.Conflict++
		}
		v.Keys = append(v.Keys, one)
	}
	slices.SortFunc(v.Keys, func(a, b PreviewKey) int {
		return cmp.Or(cmp.Compare(a.Key.Label, b.Key.Label), cmp.Compare(a.Key.ID, b.Key.ID))
	})
	return v, nil
}

// here lists what is on the token of a slot.
func (y *Sync) here(ctx context.Context, slot string) (hsm.Objects, error) {
	token, err := y.m.Slots.token(slot)
	if err != nil {
		return hsm.Objects{}, err
	}
	return token.Objects(ctx, 0, true)
}

// sourceHolds are the fingerprints that the source of a package holds beside its keys.
func (y *Sync) sourceHolds(h syncpkg.Header) map[string]cluster.Held {
	return y.m.State().Keys[h.Slot][h.Source].Keys
}

// actionFor compares a key with what is on the token. A key with the same ID or label is a conflict,
// unless the source itself holds both side by side.
func actionFor(k syncpkg.Key, o hsm.Objects, beside map[string]cluster.Held) (action, why string) {
	id, _ := hex.DecodeString(k.ID) // checked when the package was opened
	fp := k.Fingerprint()
	action = ActionImport
	for _, have := range o.Keys {
		if identity.IsOwn(have.ID) {
			continue
		}
		there := fingerprint(have)
		if there == fp {
			return ActionSkip, ""
		}
		if _, both := beside[there]; both {
			continue
		}
		switch {
		case len(id) > 0 && bytes.Equal(have.ID, id):
			action, why = ActionConflict, fmt.Sprintf("another key with the ID %s is on the token: %s", k.ID, have.Name())
		case packagedLabel(k) != "" && cmp.Or(have.Label, have.Alias) == packagedLabel(k):
			action, why = ActionConflict, fmt.Sprintf("another key with the label %q is on the token (ID %x)", packagedLabel(k), have.ID)
		}
	}
	return action, why
}

// packagedLabel is what a key is called: its label or, as Java has it, that of its certificate.
func packagedLabel(k syncpkg.Key) string {
	if k.Label == "" && len(k.Certificates) > 0 {
		return k.Certificates[0].Label
	}
	return k.Label
}

func packagedKind(k syncpkg.Key) string {
	return hsm.Key{Type: k.Type, Curve: k.Curve, Bits: k.Bits}.Kind()
}

// incoming is a key of a package as the HSM takes it.
func incoming(k syncpkg.Key) (hsm.Incoming, error) {
	id, err := hex.DecodeString(k.ID)
	if err != nil {
		return hsm.Incoming{}, err
	}
	usage, err := hsm.ParseUsage(k.Usage)
	if err != nil {
		return hsm.Incoming{}, err
	}
	in := hsm.Incoming{Blob: k.Wrapped, Key: hsm.Key{
		Class: hsm.Class(k.Class), Type: k.Type, Bits: k.Bits, Curve: k.Curve, ID: id, Label: k.Label, Public: k.Public, Check: k.Check,
		Usage: usage, Mechanisms: k.Mechanisms, Sensitive: k.Sensitive, Extractable: k.Extractable, Subject: k.Subject,
	}}
	if identity.IsOwn(id) {
		return in, errors.New("its ID is one that nodes keep for their own keys")
	}
	for _, d := range []struct {
		text string
		to   *time.Time
	}{{k.StartDate, &in.Start}, {k.EndDate, &in.End}} {
		if d.text == "" {
			continue
		}
		if *d.to, err = time.Parse(time.DateOnly, d.text); err != nil {
			return in, err
		}
	}
	if k.PublicObject != nil {
		in.PublicObject = true
		if in.PublicUsage, err = hsm.ParseUsage(k.PublicObject.Usage); err != nil {
			return in, err
		}
	}
	for _, c := range k.Certificates {
		in.Certificates = append(in.Certificates, hsm.Certificate{ID: id, Label: c.Label, DER: c.DER})
	}
	return in, nil
}
