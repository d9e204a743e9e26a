package cluster

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"time"
)

// Command is one act that changes the State. The set is closed; kinds lists it.
//
// How commands evolve: a kind never changes what it means and its fields never change at all. A new
// meaning is a new kind with a higher since, which the leader proposes only once every member knows it.
// apply must do the same on every node for all time: it uses nothing but the State and the Meta, and no
// clock, randomness, file, map order, or library whose verdict may differ between versions.
type Command interface {
	// Kind is the name of the command in the log.
	Kind() string
	// validate checks the shape, without any State, before the command is proposed.
	validate() error
	// apply makes the change in s, a shallow copy that it may change but whose maps and slices it must
	// not. After an error, the copy is thrown away.
	apply(s *State, m Meta) error
	// describe names the object that the audit trail mentions, with a detail where one helps.
	describe() (object, detail string)
}

// Meta says who proposed a command, and when. The leader makes it: Time is the leader's clock and Node
// is the node that the forwarding TLS connection proved, so no other node can write history.
type Meta struct {
	Time  time.Time `json:"time"`
	Node  string    `json:"node"`
	Actor Actor     `json:"actor"`
}

// kind is what the package knows about one kind of command.
type kind struct {
	make  func() Command
	since int        // first Protocol that knows the kind
	may   Permission // what its actor needs; for acts, the command itself says more
	quiet bool       // apply writes the audit entries of success itself, if any
}

// kinds is the table of all commands. Retired names are never reused; none is retired so far.
var kinds = map[string]kind{
	"cluster.create":  {func() Command { return new(CreateCluster) }, 1, MayCreateCluster, false},
	"invite.add":      {func() Command { return new(AddInvite) }, 1, MayManageNodes, false},
	"invite.remove":   {func() Command { return new(RemoveInvite) }, 1, MayManageNodes, false},
	"node.admit":      {func() Command { return new(AdmitNode) }, 1, MayAdmit, false},
	"node.set":        {func() Command { return new(SetNode) }, 1, MayReport, true},
	"node.identity":   {func() Command { return new(ReplaceIdentity) }, 1, MayManageNodes, false},
	"node.retire":     {func() Command { return new(RetireIdentity) }, 1, MayReport, true},
	"owner.replace":   {func() Command { return new(ReplaceOwner) }, 1, MayManageNodes, false},
	"owner.certified": {func() Command { return new(CertifyUnder) }, 1, MayReport, true},
	"node.connect":    {func() Command { return new(ConnectNode) }, 1, MayReport, true},
	"node.remove":     {func() Command { return new(RemoveNode) }, 1, MayManageNodes, false},
	"stolen.settle":   {func() Command { return new(SettleStolen) }, 1, MayManageNodes, false},
	"lease.take":      {func() Command { return new(TakeLease) }, 1, MayManageNodes, false},
	"lease.take-over": {func() Command { return new(TakeOverLease) }, 1, MayManageNodes, false},
	"lease.extend":    {func() Command { return new(ExtendLease) }, 1, MayManageNodes, false},
	"lease.release":   {func() Command { return new(ReleaseLease) }, 1, MayManageNodes, false},
	"settings.set":    {func() Command { return new(SetSettings) }, 1, MayManageNodes, false},
	"trust.set":       {func() Command { return new(SetTrust) }, 1, MayManageTrust, false},
	"seat.put":        {func() Command { return new(PutSeat) }, 1, MayTellSeat, false},
	"seat.report":     {func() Command { return new(ReportSeat) }, 1, MayReport, true},
	"seat.remove":     {func() Command { return new(RemoveSeat) }, 1, MayManageSlots, false},
	"slot.rotation":   {func() Command { return new(SetRotation) }, 1, MayManageCodes, false},
	"keys.report":     {func() Command { return new(ReportKeys) }, 1, MayReport, true},
	"package.record":  {func() Command { return new(RecordPackage) }, 1, MaySynchronize, false},
	"package.receipt": {func() Command { return new(RecordReceipt) }, 1, MaySynchronize, false},
	"custodian.put":   {func() Command { return new(PutCustodian) }, 1, MayKeepAccount, false},
	"custody.put":     {func() Command { return new(PutSplit) }, 1, MayManageCodes, false},
	"custody.remove":  {func() Command { return new(RemoveSplit) }, 1, MayManageCodes, false},
	"app.put":         {func() Command { return new(PutApp) }, 1, MayManageApps, false},
	"app.remove":      {func() Command { return new(RemoveApp) }, 1, MayManageApps, false},
	"app.run":         {func() Command { return new(ReportRun) }, 1, MayReport, true},
	"act.begin":       {func() Command { return new(BeginAct) }, 1, "", true},
	"act.end":         {func() Command { return new(EndAct) }, 1, MayEndAct, true},
	"act.record":      {func() Command { return new(RecordAct) }, 1, MayReport, true},
	"audit.sign":      {func() Command { return new(SignAudit) }, 1, MayReport, true},
	"note":            {func() Command { return new(RecordNote) }, 1, MayReport, true},

	policySet:           {func() Command { return new(SetPolicy) }, 1, MayManagePolicies, false},
	"policy.remove":     {func() Command { return new(RemovePolicy) }, 1, MayManagePolicies, false},
	"approval.request":  {func() Command { return new(RequestApproval) }, 1, "", false},
	"approval.approve":  {func() Command { return new(Approve) }, 1, MayApprove, false},
	"approval.reject":   {func() Command { return new(Reject) }, 1, MayApprove, false},
	"approval.withdraw": {func() Command { return new(Withdraw) }, 1, MayWithdraw, false},

	"account.put":      {func() Command { return new(PutAccount) }, 1, MayManageAccounts, false},
	"account.password": {func() Command { return new(SetPassword) }, 1, MayKeepAccount, false},
	"account.reset":    {func() Command { return new(ResetPassword) }, 1, MayManageAccounts, false},
	"account.remove":   {func() Command { return new(RemoveAccount) }, 1, MayManageAccounts, false},

	"account.lock":         {func() Command { return new(ReportLock) }, 1, MayReport, true},
	"account.unlock":       {func() Command { return new(UnlockAccount) }, 1, MayManageAccounts, false},
	"account.end-sessions": {func() Command { return new(EndSessions) }, 1, MayKeepAccount, false},
	"factor.totp":          {func() Command { return new(SetTOTP) }, 1, MayKeepAccount, false},
	"factor.passkey":       {func() Command { return new(AddPasskey) }, 1, MayKeepAccount, false},
	"factor.certificate":   {func() Command { return new(AddCertificate) }, 1, MayKeepAccount, false},
	"factor.remove":        {func() Command { return new(RemoveFactor) }, 1, MayKeepAccount, false},
	"factor.used":          {func() Command { return new(ReportFactor) }, 1, MayReport, true},
}

// TrailActs lists what apply can write as the act of an audit entry by itself: the kinds of commands, of which
// the quiet ones stand there when they are denied, the end of what takes several, a theft, and those of notes. Acts on an HSM are named by BeginAct.
func TrailActs() []string {
	acts := slices.DeleteFunc(sorted(kinds), func(kind string) bool { return kind == kindBeginAct }) // it stands under the act's name
	return append(append(acts, ownerReplaced, actStolen), noteActs...)
}

// permission is what the actor of cmd needs.
func permission(cmd Command) Permission {
	if c, ok := cmd.(needs); ok {
		return c.needs()
	}
	return kinds[cmd.Kind()].may
}

// aboutSlot is a command that is about one slot: a role for that slot is enough for it.
type aboutSlot interface{ slot() string }

// slotOf is the label of the slot that cmd is about, "" where it is not about one.
func slotOf(cmd Command) string {
	if about, ok := cmd.(aboutSlot); ok {
		return about.slot()
	}
	return ""
}

// guarded is a command that takes more than its permission, depending on what it changes.
type guarded interface {
	allowed(s *State, m Meta) error
}

// authorize tells whether the actor of a command may do it, and knows what it replaces, before policies are asked.
func (s *State) authorize(cmd Command, m Meta) error {
	if err := Authorize(s, m.Actor, m.Node, permission(cmd), slotOf(cmd)); err != nil {
		return err
	}
	if c, ok := cmd.(guarded); ok {
		if err := c.allowed(s, m); err != nil {
			return err
		}
	}
	return s.unchanged(cmd)
}

// protocol is the lowest Protocol that follows cmd.
func protocol(cmd Command) int {
	return max(kinds[cmd.Kind()].since, grants[permission(cmd)].since)
}

// follower is a command with consequences of their own, which come after it in the audit trail.
type follower interface {
	after(s *State, m Meta)
}

// next returns the State after the entry at index. It returns a new State also when the command is
// refused: Index moves on, and the audit trail says what was refused and why.
//
// States must be made one from the other, in a line: the audit trail of all of them shares one array.
func (s *State) next(index uint64, e *entry) (*State, error) {
	next := *s
	next.Index = index
	object, detail := e.command.describe()
	err := s.authorize(e.command, e.Meta)
	if err == nil {
		err = next.passPolicies(e.command, e.Meta)
	}
	if err == nil {
		err = e.command.apply(&next, e.Meta)
	}
	if err != nil {
		next = *s
		next.Index = index
		refusal := asError(err)
		alert := refusal.alert
		if alert == "" && refusal.Code == Denied {
			alert = AlertDenied
		}
		if act, begins := e.command.(*BeginAct); begins {
			next.record(e.Meta, Entry{Act: act.Act, Object: object, Result: Refused, Detail: refusal.Message, ActID: act.ID, Alert: alert})
		} else if !kinds[e.Kind].quiet || refusal.Code == Denied {
			next.record(e.Meta, Entry{Act: e.Kind, Object: object, Result: Refused, Detail: refusal.Message, Alert: alert})
		}
		return &next, refusal
	}
	if !kinds[e.Kind].quiet {
		next.record(e.Meta, Entry{Act: e.Kind, Object: object, Result: Done, Detail: detail})
	}
	if c, ok := e.command.(follower); ok {
		c.after(&next, e.Meta)
	}
	return &next, nil
}

// entry is one entry of the replicated log.
type entry struct {
	Kind string          `json:"kind"`
	Meta Meta            `json:"meta"`
	Data json.RawMessage `json:"data"`

	command Command
}

// encodeEntry makes the log entry for cmd.
func encodeEntry(cmd Command, m Meta) ([]byte, error) {
	data, err := json.Marshal(cmd)
	if err != nil {
		return nil, errorf(Invalid, "%s cannot be encoded: %v", cmd.Kind(), err)
	}
	b, err := json.Marshal(entry{Kind: cmd.Kind(), Meta: m, Data: data})
	if err != nil {
		return nil, errorf(Internal, "%s cannot be encoded: %v", cmd.Kind(), err)
	}
	if len(b) > maxCommand {
		return nil, errorf(Invalid, "%s is too large: %d bytes, at most %d are allowed; send it in parts", cmd.Kind(), len(b), maxCommand)
	}
	return b, nil
}

// decodeEntry reads a log entry. An error means that this replica cannot follow the log.
func decodeEntry(b []byte) (*entry, error) {
	if len(b) > maxCommand {
		return nil, errorf(Internal, "a log entry of %d bytes", len(b))
	}
	var e entry
	if err := unmarshal(b, &e); err != nil {
		return nil, errorf(Internal, "a log entry that cannot be read: %v", err)
	}
	var err error
	e.command, err = decodeCommand(e.Kind, e.Data)
	return &e, err
}

// decodeCommand reads a command of the kind named. It does not validate it.
func decodeCommand(name string, data []byte) (Command, error) {
	k, ok := kinds[name]
	if !ok {
		return nil, errorf(Upgrade, "this version of Keyferry (protocol %d) does not know the command %q: upgrade this node", Protocol, clip(name))
	}
	cmd := k.make()
	if err := unmarshal(data, cmd); err != nil {
		return nil, errorf(Invalid, "%s cannot be read: %v", name, err)
	}
	return cmd, nil
}

// unmarshal decodes exactly one JSON value, without unknown fields.
func unmarshal(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errorf(Invalid, "there is something after the end of the value")
	}
	return nil
}
