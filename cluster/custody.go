package cluster

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Custodian is an account that can hold shares of codes: the public half of its key, which shares are
// sealed to, and the private half, sealed under a passphrase that only the person has.
type Custodian struct {
	Key     string    `json:"key"`    // id of the key pair; a new pair has a new one
	Public  []byte    `json:"public"` // HPKE key, MLKEM1024-P384
	Sealed  string    `json:"sealed"` // private half: argon2id parameters, salt and AES-256-GCM, in text
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"` // when the passphrase was
}

// A Split is the secret of a generation of a slot's codes, in shares: Threshold of its holders together
// rebuild it, and each node derives the code of its token from it. Nobody else ever has it.
type Split struct {
	ID         string    `json:"id"` // of this splitting; other holders of the same secret make another
	Generation int       `json:"generation"`
	Threshold  int       `json:"threshold"`
	Shares     []Share   `json:"shares"` // by account
	Check      string    `json:"check"`  // hash of the secret, which tells a wrong combination from the right one
	Nodes      []string  `json:"nodes"`  // whose tokens are to take their code from it, sorted
	Created    time.Time `json:"created"`
	By         string    `json:"by"`
}

// A Share is what one custodian has of a Split.
type Share struct {
	Account string `json:"account"`
	Index   int    `json:"index"`
	Key     string `json:"key"`    // of the custodian, that it is sealed to
	Sealed  []byte `json:"sealed"` // HPKE
	Check   string `json:"check"`  // hash of the share, which tells a wrong one before it is combined
}

// Holders are the accounts that have a share, in order.
func (p Split) Holders() []string {
	names := make([]string, len(p.Shares))
	for i, share := range p.Shares {
		names[i] = share.Account
	}
	return names
}

// Share finds what an account has of p.
func (p Split) Share(account string) (Share, bool) {
	for _, share := range p.Shares {
		if share.Account == account {
			return share, true
		}
	}
	return Share{}, false
}

// Newest is the split of the newest generation.
func (s Slot) Newest() (Split, bool) {
	if len(s.Custody) == 0 {
		return Split{}, false
	}
	return s.Custody[len(s.Custody)-1], true
}

// Generation is the split of a generation.
func (s Slot) Generation(n int) (Split, bool) {
	for _, p := range s.Custody {
		if p.Generation == n {
			return p, true
		}
	}
	return Split{}, false
}

// Due tells whether a node's token is to take its code from the newest split, and has not yet.
func (s Slot) Due(node string) bool {
	p, ok := s.Newest()
	seat, here := s.Seats[node]
	return ok && here && slices.Contains(p.Nodes, node) && (seat.Mode != Shared || seat.Generation != p.Generation)
}

// Live is how many holders of p can still give their share: they have their account, the right to open
// the slot, and the key that the share is sealed to.
func (s *State) Live(slot string, p Split) (n int) {
	for _, share := range p.Shares {
		if s.holds(slot, share) == nil {
			n++
		}
	}
	return n
}

// holds tells why the owner of a share cannot give it, nil when they can.
func (s *State) holds(slot string, share Share) error {
	if err := s.mayHold(slot, share.Account); err != nil {
		return err
	}
	if s.Custodians[share.Account].Key != share.Key {
		return errorf(Conflict, "%q has another custodian key than the one that the share is sealed to", share.Account)
	}
	return nil
}

func (s *State) mayHold(slot, account string) error {
	if _, ok := s.Custodians[account]; !ok {
		return errorf(Conflict, "%q has no custodian passphrase yet: they set one on their page \"Your account\"", account)
	}
	for _, node := range sorted(s.Nodes) { // any member will do: roles are the same on all
		return Authorize(s, Actor{ByAccount, account}, node, MayActivate, slot)
	}
	return nil
}

// Holds tells why an account cannot give its share of p, nil when it can.
func (s *State) Holds(slot, account string, p Split) error {
	share, ok := p.Share(account)
	if !ok {
		return errorf(Denied, "%q holds no share of slot %q", account, slot)
	}
	return s.holds(slot, share)
}

var sealedPattern = regexp.MustCompile(`^\$argon2id\$v=19\$m=[0-9]{1,9},t=[0-9]{1,3},p=[0-9]{1,3}\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$`)

// PutCustodian gives the acting account a custodian key (New, or another one), or another passphrase for
// the key that it has. Nobody can do that for somebody else.
type PutCustodian struct {
	Account string `json:"account"`
	Key     string `json:"key"`
	Public  []byte `json:"public,omitempty"` // of a new key; empty: the key stays, and is sealed anew
	Sealed  string `json:"sealed"`
}

func (c *PutCustodian) Kind() string { return "custodian.put" }

func (c *PutCustodian) describe() (string, string) {
	if len(c.Public) > 0 {
		return "account/" + c.Account, "a new custodian key"
	}
	return "account/" + c.Account, "another custodian passphrase"
}

func (c *PutCustodian) validate() error {
	if len(c.Sealed) > maxSealedKey || !sealedPattern.MatchString(c.Sealed) { // it may be anything: not for a message
		return errorf(Invalid, "the custodian key of %q is not sealed in the form that is known", clip(c.Account))
	}
	if len(c.Public) > maxCustodianKey {
		return errorf(Invalid, "the public custodian key is too long: %d bytes, at most %d are allowed", len(c.Public), maxCustodianKey)
	}
	return check(checkAccountName(c.Account), checkToken("key id", c.Key))
}

func (c *PutCustodian) apply(s *State, m Meta) error {
	if _, err := s.personal(c.Account, m); err != nil {
		return err
	}
	old, exists := s.Custodians[c.Account]
	switch {
	case len(c.Public) > 0 && exists && old.Key == c.Key:
		return errorf(Conflict, "the new custodian key has the id of the old one")
	case len(c.Public) > 0:
		old = Custodian{Key: c.Key, Public: c.Public, Created: m.Time}
	case !exists || old.Key != c.Key:
		return errorf(Conflict, "the custodian key was replaced meanwhile")
	}
	old.Sealed, old.Changed = c.Sealed, m.Time
	before := *s
	s.Custodians = with(s.Custodians, c.Account, old)
	return s.keepsCustodians(&before, c.Account) // no custodian alone destroys what others guard with them
}

// PutSplit publishes a split: of a new secret (the next generation), or of the same secret to other
// holders (the same generation). Base names the newest split that it was made for, so that of two people
// who change at once one is refused.
type PutSplit struct {
	Slot  string `json:"slot"`
	Base  string `json:"base,omitempty"` // empty: there is none yet
	Split Split  `json:"split"`          // Created and By are set by apply
}

func (c *PutSplit) Kind() string { return "custody.put" }

func (c *PutSplit) subject() string { return c.Slot }
func (c *PutSplit) describe() (string, string) {
	p := c.Split
	return "slot/" + c.Slot, "generation " + strconv.Itoa(p.Generation) + ", " + strconv.Itoa(p.Threshold) + " of " + strings.Join(p.Holders(), ", ")
}

func (c *PutSplit) validate() error {
	p := &c.Split
	if n := len(p.Shares); n < 2 || n > maxHolders {
		return errorf(Invalid, "%s: a code is shared by 2 to %d people", plural(n, "custodian"), maxHolders)
	}
	if p.Threshold < 2 {
		return errorf(Invalid, "a threshold of %d: at least 2 custodians must be needed, otherwise one person alone opens the slot; use manual mode for that", p.Threshold)
	}
	if p.Threshold > len(p.Shares) {
		return errorf(Invalid, "%d of %d custodians can never come together: the threshold is larger than the number of custodians", p.Threshold, len(p.Shares))
	}
	if err := check(checkLabel(c.Slot), checkToken("split id", p.ID), checkRange("generation", p.Generation, 1, maxGeneration), checkHash("check value", p.Check)); err != nil {
		return err
	}
	if c.Base != "" {
		if err := checkToken("split id", c.Base); err != nil {
			return err
		}
	}
	if len(p.Nodes) == 0 || !slices.IsSorted(p.Nodes) {
		return errorf(Invalid, "the nodes whose tokens take the shared code are missing or not in order")
	}
	return check(checkNames("shared code", p.Nodes, maxNodes), checkShares(p.Shares))
}

func checkShares(shares []Share) error {
	taken := map[int]bool{}
	for i, share := range shares {
		if err := check(checkAccountName(share.Account), checkRange("index of a share", share.Index, 1, maxHolders),
			checkToken("key id", share.Key), checkHash("check value", share.Check)); err != nil {
			return err
		}
		switch {
		case i > 0 && shares[i-1].Account == share.Account:
			return errorf(Invalid, "%q is named twice: each custodian has one share", share.Account)
		case i > 0 && shares[i-1].Account > share.Account:
			return errorf(Invalid, "the shares are not in the order of their holders")
		case taken[share.Index]:
			return errorf(Invalid, "two shares have the index %d", share.Index)
		case len(share.Sealed) == 0 || len(share.Sealed) > maxSealedShare:
			return errorf(Invalid, "the sealed share of %q has %d bytes; it must have 1 to %d", share.Account, len(share.Sealed), maxSealedShare)
		}
		taken[share.Index] = true
	}
	return nil
}

func (c *PutSplit) apply(s *State, m Meta) error {
	slot, err := s.slot(c.Slot)
	if err != nil {
		return err
	}
	newest, some := slot.Newest()
	p := c.Split
	switch {
	case newest.ID != c.Base:
		return errorf(Conflict, "somebody else has changed the custodians of slot %q meanwhile: look at it again", c.Slot)
	case some && p.ID == newest.ID:
		return errorf(Conflict, "the new split has the id of the old one")
	case p.Generation == newest.Generation && p.Check != newest.Check:
		return errorf(Conflict, "the new custodians would have another code than the old ones")
	case p.Generation == newest.Generation && !slices.Equal(p.Nodes, newest.Nodes):
		return errorf(Conflict, "new custodians of the same code cannot change which nodes have it")
	case p.Generation != newest.Generation && p.Generation != newest.Generation+1:
		return errorf(Conflict, "generation %d does not follow %d", p.Generation, newest.Generation)
	}
	for _, node := range p.Nodes {
		if _, ok := slot.Seats[node]; !ok {
			return errorf(NotFound, "node %q has no token in slot %q", node, c.Slot)
		}
	}
	for _, share := range p.Shares {
		if err := s.holds(c.Slot, share); err != nil {
			return err
		}
	}
	p.Created, p.By = m.Time, m.Actor.String()
	slot.Custody = slices.Clone(slot.Custody)
	if some && p.Generation == newest.Generation {
		slot.Custody = slot.Custody[:len(slot.Custody)-1]
	}
	slot.Custody = append(slot.Custody, p)
	if slot.forget(); len(slot.Custody) > maxSplits {
		return errorf(Full, "the tokens of slot %q have %d different codes: let the nodes that were away take the newest one first", c.Slot, len(slot.Custody)-1)
	}
	s.Slots = with(s.Slots, c.Slot, slot)
	return nil
}

// forget drops the generations that no token has any more, and all of them when no node wants the newest.
// It makes a new list.
func (s *Slot) forget() {
	used := map[int]bool{}
	for _, seat := range s.Seats {
		used[seat.Generation], used[seat.Next] = true, true
	}
	if p, ok := s.Newest(); ok && len(p.Nodes) > 0 {
		used[p.Generation] = true
	}
	var kept []Split
	for _, p := range s.Custody {
		if used[p.Generation] {
			kept = append(kept, p)
		}
	}
	s.Custody = kept
}

// leaves takes a node out of the newest split: its token has a code of its own again.
func (s *Slot) leaves(node string) {
	p, ok := s.Newest()
	if !ok || !slices.Contains(p.Nodes, node) {
		return
	}
	p.Nodes = slices.DeleteFunc(slices.Clone(p.Nodes), func(n string) bool { return n == node })
	s.Custody = append(slices.Clone(s.Custody[:len(s.Custody)-1]), p)
}

// keepsShared refuses to forget a node's token while its code is that of custodians: without the split
// nobody could ever rebuild it. giveUp says that its keys are given up.
func (s *State) keepsShared(label, node string, giveUp bool) error {
	seat, ok := s.Slots[label].Seats[node]
	if !ok || giveUp || seat.Mode != Shared && seat.Next == 0 {
		return nil
	}
	return errorf(Conflict, "the token of node %q in slot %q has a code that only its custodians can rebuild, from what the cluster keeps: let it leave shared mode first, or say that the keys in it are given up", node, label)
}

// givenUp is the detail of a removal with giveUp.
func givenUp(giveUp bool) string {
	if giveUp {
		return "codes that custodians share are given up"
	}
	return ""
}

// RemoveSplit takes back the newest split, as long as no token has taken its code from it.
type RemoveSplit struct {
	Slot  string `json:"slot"`
	Split string `json:"split"`
}

func (c *RemoveSplit) Kind() string               { return "custody.remove" }
func (c *RemoveSplit) describe() (string, string) { return "slot/" + c.Slot, "split " + c.Split }
func (c *RemoveSplit) validate() error {
	return check(checkLabel(c.Slot), checkToken("split id", c.Split))
}

func (c *RemoveSplit) apply(s *State, m Meta) error {
	slot, err := s.slot(c.Slot)
	if err != nil {
		return err
	}
	p, ok := slot.Newest()
	if !ok || p.ID != c.Split {
		return errorf(Conflict, "the custodians of slot %q were changed meanwhile, or there are none: look at it again", c.Slot)
	}
	for _, node := range sorted(slot.Seats) {
		if seat := slot.Seats[node]; seat.Generation == p.Generation || seat.Next == p.Generation {
			return errorf(Conflict, "the token of node %q has its code from these custodians already, or may have: switch it to another mode instead", node)
		}
	}
	slot.Custody = slices.Clone(slot.Custody[:len(slot.Custody)-1])
	slot.forget()
	s.Slots = with(s.Slots, c.Slot, slot)
	return nil
}

// keepsCustodians refuses a change of an account after which too few custodians would be left to open some
// slot. before is the state before it.
func (s *State) keepsCustodians(before *State, account string) error {
	for _, label := range sorted(s.Slots) {
		for _, p := range s.Slots[label].Custody {
			if live := s.Live(label, p); live < p.Threshold && before.Live(label, p) >= p.Threshold {
				return errorf(Conflict, "%q is one of %d custodians of slot %q, and %d are needed to open it: a security officer gives the slot other custodians first", account, live+1, label, p.Threshold)
			}
		}
	}
	return nil
}
