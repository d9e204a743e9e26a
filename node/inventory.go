package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/hsm"
	"github.com/keyferry/keyferry/identity"
	"github.com/keyferry/keyferry/syncpkg"
)

// Keys is which keys this node holds, and which node of the cluster holds which.
type Keys struct {
	m    *Member
	wake chan struct{}

	mu   sync.Mutex
	seen map[string]scan // by slot label
}

// A scan is the last look at a token.
type scan struct {
	serial     string
	generation uint64
	next       time.Time // when to look again
	fresh      time.Time // when to read all attributes again, since other programs may change them
	held       map[string]cluster.Held
	loose      int
}

// How often tokens are looked at. Keys that other programs make shall show up within a second or two.
// While nothing changes, the pause grows with what a look costs, so that all looks together take a small
// part of one core.
const (
	scanPause = time.Second
	scanMost  = 30 * time.Second
	scanShare = 50 // a look of 20 ms that finds nothing new is followed by a pause of 1 s
	scanFresh = time.Minute
	// reportBatch is how many keys go into one replicated command.
	reportBatch = 1000
)

func newKeys(m *Member) *Keys {
	return &Keys{m: m, wake: make(chan struct{}, 1), seen: map[string]scan{}}
}

func (k *Keys) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// watch looks at the open slots of this node again and again, and tells the cluster what changed.
func (k *Keys) watch(ctx context.Context) {
	for {
		next := time.Now().Add(scanPause)
		for _, v := range k.m.Slots.Here() {
			if v.State != cluster.Active {
				continue
			}
			at, err := k.look(ctx, v.Label, false)
			if err != nil {
				k.m.log.Warn("the keys of a slot cannot be listed", "slot", v.Label, "error", err)
				continue
			}
			if at.Before(next) {
				next = at
			}
		}
		select {
		case <-k.wake:
		case <-time.After(max(time.Until(next), scanPause/4)):
		case <-ctx.Done():
			return
		}
	}
}

// Look looks at a slot now, whatever the pause, and returns once the cluster knows what is there.
func (k *Keys) Look(ctx context.Context, label string) error {
	_, err := k.look(ctx, label, true)
	return err
}

// look lists a slot when its time has come, and returns when the next time is.
func (k *Keys) look(ctx context.Context, label string, now bool) (time.Time, error) {
	token, err := k.m.Slots.token(label)
	if err != nil {
		return time.Time{}, err
	}
	k.mu.Lock()
	s := k.seen[label]
	k.mu.Unlock()
	began := time.Now()
	if s.serial != token.Serial {
		s = scan{serial: token.Serial}
	}
	if !now && began.Before(s.next) {
		return s.next, nil
	}
	fresh := began.After(s.fresh)
	objects, err := token.Objects(ctx, s.generation, fresh)
	if err != nil {
		return time.Time{}, err
	}
	if fresh {
		s.fresh = began.Add(scanFresh)
	}
	s.generation = objects.Generation
	pause := scanPause
	if objects.Unchanged {
		pause = min(max(scanPause, scanShare*time.Since(began)), scanMost)
	} else {
		s.held, s.loose = heldKeys(objects), objects.Loose
	}
	s.next = time.Now().Add(pause)
	k.mu.Lock()
	k.seen[label] = s
	k.mu.Unlock()
	return s.next, k.report(ctx, label, s)
}

// report tells the cluster what differs from what it knows of this node.
func (k *Keys) report(ctx context.Context, label string, s scan) error {
	state := k.m.State()
	if _, ok := state.Slots[label].Seats[k.m.Name()]; !ok {
		return nil // the seat is not known yet; the next look will find it
	}
	known := state.Keys[label][k.m.Name()]
	var put []cluster.Held
	var remove []string
	for fp, h := range s.held {
		old, ok := known.Keys[fp]
		h.Since = old.Since
		if !ok || old != h {
			put = append(put, h)
		}
	}
	for fp := range known.Keys {
		if _, ok := s.held[fp]; !ok {
			remove = append(remove, fp)
		}
	}
	if len(put)+len(remove) == 0 && known.Loose == s.loose && !known.Reported.IsZero() {
		return nil
	}
	slices.SortFunc(put, func(a, b cluster.Held) int { return bytes.Compare([]byte(a.Fingerprint), []byte(b.Fingerprint)) })
	for first := true; first || len(put)+len(remove) > 0; first = false {
		p, r := put[:min(len(put), reportBatch)], remove[:min(len(remove), reportBatch)]
		put, remove = put[len(p):], remove[len(r):]
		last := len(put)+len(remove) == 0
		if _, err := k.m.Cluster.Apply(ctx, &cluster.ReportKeys{Slot: label, Put: p, Remove: r, Complete: last, Loose: s.loose}, k.m.self()); err != nil {
			return err
		}
	}
	return nil
}

// heldKeys is what a listing means to the cluster. The node's own keys are left out.
func heldKeys(o hsm.Objects) map[string]cluster.Held {
	certs := map[string]int{}
	for _, c := range o.Certificates {
		certs[string(c.ID)]++
	}
	held := make(map[string]cluster.Held, len(o.Keys))
	for _, key := range o.Keys {
		if identity.IsOwn(key.ID) {
			continue
		}
		h := cluster.Held{
			Fingerprint: fingerprint(key), Class: string(key.Class), Type: key.Kind(), ID: hex.EncodeToString(key.ID), Label: cmp.Or(key.Label, key.Alias),
			Extractable: key.Extractable, Sensitive: key.Sensitive, Obstacle: obstacle(key), Certificates: certs[string(key.ID)],
		}
		if other, twice := held[h.Fingerprint]; twice && other.Obstacle == "" {
			continue // the same key under two IDs: one of them is enough
		}
		held[h.Fingerprint] = h
	}
	return held
}

// fingerprint identifies a key on whichever token it is. A key whose public key or check value cannot
// be had is identified by its names, and has an obstacle.
func fingerprint(k hsm.Key) string {
	if len(k.Public) > 0 || len(k.Check) > 0 {
		return packaged(k).Fingerprint()
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "keyferry-unidentified\x00%s\x00%s\x00%x\x00%s", k.Class, k.Type, k.ID, k.Label))
	return hex.EncodeToString(sum[:])
}

// The obstacles that keep a key on its token, in words for people. Each says what to do.
const (
	obstacleExtractable = "not extractable: it was made so that it can never leave this token. Make such keys with CKA_EXTRACTABLE=true to have them on all nodes"
	obstaclePublic      = "its public key is not on the token, so it could not be recognized or proved elsewhere. Put its public key or its certificate beside it, with the same ID"
	obstacleCheck       = "it allows no MAC, so it could not be recognized or proved elsewhere"
	obstacleTrusted     = "it may be wrapped only by keys that the device's officer has marked as trusted (CKA_WRAP_WITH_TRUSTED)"
	obstacleAlways      = "it asks for its code at each use (CKA_ALWAYS_AUTHENTICATE), so it could not be proved elsewhere"
	obstacleType        = "keys of this kind cannot travel"
)

// obstacle is why a key cannot travel; empty when it can.
func obstacle(k hsm.Key) string {
	p := packaged(k)
	p.Wrapped = make([]byte, 40) // stands in for the blob, which is not made yet
	invalid := p.Validate()
	switch {
	case !k.Extractable:
		return obstacleExtractable
	case k.WrapTrusted:
		return obstacleTrusted
	case k.AlwaysAuth:
		return obstacleAlways
	case k.Class == hsm.PrivateKey && len(k.Public) == 0:
		return obstaclePublic
	case k.Class == hsm.SecretKey && len(k.Check) == 0:
		return obstacleCheck
	case k.Type == "Ed25519":
		return obstacleType
	case invalid != nil:
		return line(obstacleType + ": " + invalid.Error())
	}
	return ""
}

// packaged is a key as packages describe it, without certificates and blob.
func packaged(k hsm.Key) syncpkg.Key {
	p := syncpkg.Key{
		Class: string(k.Class), Type: k.Type, Bits: k.Bits, ID: hex.EncodeToString(k.ID), Label: k.Label, Public: k.Public, Check: k.Check,
		Usage: sortedNames(k.Usage), Mechanisms: k.Mechanisms, Sensitive: k.Sensitive, Extractable: k.Extractable, StartDate: day(k.Start), EndDate: day(k.End),
	}
	if k.Class == hsm.PrivateKey {
		p.Curve, p.Subject = k.Curve, k.Subject
		if k.PublicObject {
			p.PublicObject = &syncpkg.PublicObject{Usage: sortedNames(k.PublicUsage)}
		}
	}
	return p
}

func sortedNames(u hsm.Usage) []string {
	names := u.Names()
	slices.Sort(names)
	return names
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.DateOnly)
}
