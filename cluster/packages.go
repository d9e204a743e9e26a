package cluster

import (
	"slices"
	"strings"
	"time"
)

// Package is the record of a key synchronization package. Its body is not here: nodes keep that in their
// own stores and fetch it by SHA256.
type Package struct {
	ID        string             `json:"id"`
	Slot      string             `json:"slot"`
	Source    string             `json:"source"`
	Receivers []string           `json:"receivers"` // nodes
	Keys      []string           `json:"keys"`      // fingerprints
	SHA256    string             `json:"sha256"`    // of the package file, hexadecimal
	Size      int64              `json:"size"`      // bytes
	Created   time.Time          `json:"created"`
	Expires   time.Time          `json:"expires"`
	By        string             `json:"by"`
	Receipts  map[string]Receipt `json:"receipts,omitempty"` // by node
}

// Receipt is what came of a package on one node.
type Receipt struct {
	Node      string    `json:"node"`
	Time      time.Time `json:"time"`
	Imported  int       `json:"imported"`
	Present   int       `json:"present"` // were there already
	Failed    int       `json:"failed"`
	Conflicts int       `json:"conflicts"` // another key has the same id or label
	Statement string    `json:"statement"` // signed by the node's identity key (JWS), carried unread
}

// RecordPackage says that the node where the actor works made a package. When there are too many
// records, the oldest is forgotten.
type RecordPackage struct {
	Package Package `json:"package"` // Source, Created, By and Receipts are set by apply
}

func (c *RecordPackage) slot() string { return c.Package.Slot }
func (c *RecordPackage) Kind() string { return "package.record" }

func (c *RecordPackage) describe() (string, string) {
	p := &c.Package
	to := strings.Join(p.Receivers, ", ")
	if len(p.Receivers) > 5 {
		to = plural(len(p.Receivers), "node")
	}
	return "package/" + p.ID, plural(len(p.Keys), "key") + " of slot/" + p.Slot + " for " + to
}

func (c *RecordPackage) validate() error {
	p := &c.Package
	if len(p.Receivers) == 0 || len(p.Keys) == 0 {
		return errorf(Invalid, "a package needs at least one receiver and one key")
	}
	if len(p.Keys) > maxPackageKeys {
		return errorf(Invalid, "a package of %d keys is too large: at most %d are allowed", len(p.Keys), maxPackageKeys)
	}
	for _, fp := range p.Keys {
		if err := checkToken("key fingerprint", fp); err != nil {
			return err
		}
	}
	if p.Size < 1 {
		return errorf(Invalid, "the size of the package is %d bytes", p.Size)
	}
	return check(checkToken("package id", p.ID), checkLabel(p.Slot), checkNames("the package", p.Receivers, maxNodes),
		checkHash("SHA-256 of the package", p.SHA256), checkTime("expiry of the package", p.Expires))
}

func (c *RecordPackage) apply(s *State, m Meta) error {
	p := c.Package
	if _, ok := s.Packages[p.ID]; ok {
		return errorf(Conflict, "package %q is recorded already", p.ID)
	}
	if _, _, err := s.seat(p.Slot, m.Node); err != nil {
		return err
	}
	for _, name := range p.Receivers {
		if _, err := s.node(name); err != nil {
			return err
		}
	}
	if slices.Contains(p.Receivers, m.Node) {
		return errorf(Invalid, "package %q is for the node that made it, %q", p.ID, m.Node)
	}
	if !m.Time.Before(p.Expires) {
		return errorf(Expired, "package %q would expire before it begins: check the clocks", p.ID)
	}
	p.Source, p.Created, p.By, p.Receipts = m.Node, m.Time, m.Actor.String(), nil
	if len(s.Packages) >= maxPackages {
		s.forgetPackage()
	}
	s.Packages = with(s.Packages, p.ID, p)
	return nil
}

// forgetPackage drops the oldest record.
func (s *State) forgetPackage() {
	ids := sorted(s.Packages)
	oldest := slices.MinFunc(ids, func(a, b string) int { return s.Packages[a].Created.Compare(s.Packages[b].Created) })
	s.Packages = without(s.Packages, oldest)
}

// RecordReceipt says what came of a package on the node where the actor works. A later receipt replaces
// an earlier one.
type RecordReceipt struct {
	Package string  `json:"package"` // id
	Receipt Receipt `json:"receipt"` // Node and Time are set by apply
}

func (c *RecordReceipt) Kind() string { return "package.receipt" }
func (c *RecordReceipt) describe() (string, string) {
	return "package/" + c.Package, c.Receipt.summary()
}

func (r Receipt) summary() string {
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{r.Imported, "imported"}, {r.Present, "present already"}, {r.Failed, "failed"}, {r.Conflicts, "in conflict"}} {
		if part.n > 0 {
			parts = append(parts, plural(part.n, "key")+" "+part.what)
		}
	}
	return strings.Join(parts, ", ")
}

func (c *RecordReceipt) validate() error {
	r := &c.Receipt
	for _, n := range []int{r.Imported, r.Present, r.Failed, r.Conflicts} {
		if err := checkRange("number of keys", n, 0, maxPackageKeys); err != nil {
			return err
		}
	}
	return check(checkToken("package id", c.Package), checkBlob("receipt", r.Statement, maxStatement))
}

func (c *RecordReceipt) apply(s *State, m Meta) error {
	p, ok := s.Packages[c.Package]
	if !ok {
		return errorf(NotFound, "no package %q is recorded", c.Package)
	}
	if !slices.Contains(p.Receivers, m.Node) {
		return errorf(Denied, "package %q is not for node %q", p.ID, m.Node)
	}
	r := c.Receipt
	r.Node, r.Time = m.Node, m.Time
	p.Receipts = with(p.Receipts, m.Node, r)
	s.Packages = with(s.Packages, p.ID, p)
	return nil
}
