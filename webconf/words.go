package webconf

import (
	"strings"

	"github.com/keyferry/keyferry/cluster"
	"github.com/keyferry/keyferry/node"
	"github.com/keyferry/keyferry/syncpkg"
)

// A mark is a state for the eye: a tone, an icon and a word, never the tone alone.
type mark struct {
	Tone string // ok, warn, bad or mute
	Icon string // name in the sprite
	Word string
}

// toneIcon is the icon of a banner.
func toneIcon(tone string) string {
	switch tone {
	case "ok", "warn":
		return tone
	case "bad":
		return "alert"
	}
	return "info"
}

// seatMark is the state of a node's token in a slot.
func seatMark(state cluster.SeatState, mode string) mark {
	switch {
	case state == cluster.Active:
		return mark{"ok", "ok", "Active"}
	case state == cluster.Down && mode == cluster.Manual:
		return mark{"warn", "wait", "Waits for its code"}
	case state == cluster.Down && mode == cluster.Shared:
		return mark{"warn", "wait", "Waits for its custodians"}
	case state == cluster.Down:
		return mark{"bad", "bad", "Closed"}
	}
	return mark{"bad", "bad", "Does not work"}
}

// modeWord is who keeps the code of a slot.
func modeWord(mode string) string {
	switch mode {
	case cluster.Generated:
		return "Generated"
	case cluster.Manual:
		return "Manual"
	case cluster.Shared:
		return "Shared, m of n"
	}
	return mode
}

// roleWord is the name of a role.
func roleWord(role string) string {
	switch role {
	case cluster.SecurityOfficer:
		return "Security Officer"
	case cluster.CryptoOfficer:
		return "Crypto Officer"
	case cluster.CryptoUser:
		return "Crypto User"
	case cluster.Auditor:
		return "Auditor"
	}
	return role
}

// rolesWords are the roles of an account, each with the slots it is for.
func rolesWords(roles []cluster.RoleGrant) []string {
	if len(roles) == 0 {
		return []string{"No role"}
	}
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = roleWord(r.Role)
		if len(r.Slots) > 0 {
			words[i] += " of " + and(r.Slots)
		}
	}
	return words
}

// presenceMark is whether a node has a key.
func presenceMark(p node.Presence) mark {
	switch p {
	case node.Present:
		return mark{"ok", "check", "Present"}
	case node.Missing:
		return mark{"bad", "missing", "Missing"}
	case node.Differs:
		return mark{"bad", "warn", "Differs"}
	case node.NotExtractable:
		return mark{"bad", "none", "Cannot travel"}
	case node.SlotDown:
		return mark{"mute", "slots", "Slot closed"}
	case node.Unknown:
		return mark{"mute", "unknown", "Unknown"}
	}
	return mark{"mute", "unknown", string(p)}
}

// resultMark is how an act in the audit trail ended.
func resultMark(result string) mark {
	switch result {
	case cluster.Done:
		return mark{"ok", "ok", "Done"}
	case cluster.Refused:
		return mark{"warn", "none", "Refused"}
	case cluster.Failed:
		return mark{"bad", "bad", "Failed"}
	case cluster.Started:
		return mark{"mute", "wait", "Under way"}
	}
	return mark{"mute", "unknown", result}
}

func jobMark(state string) mark {
	switch state {
	case node.JobRunning:
		return mark{"mute", "wait", "Running"}
	case node.JobDone:
		return mark{"ok", "ok", "Done"}
	}
	return mark{"bad", "bad", "Failed"}
}

func jobWord(kind string) string {
	switch kind {
	case "build":
		return "Make a package"
	case "import":
		return "Import a package"
	case "activate":
		return "Activate slots"
	case "restart":
		return "Restart an application"
	}
	return kind
}

// jobNoun is what a job counts.
func jobNoun(kind string) string {
	if kind == "activate" {
		return "token"
	}
	return "key"
}

// keyMark is what became of a key of a package.
func keyMark(r syncpkg.Result) mark {
	switch r {
	case syncpkg.Imported:
		return mark{"ok", "ok", "Imported"}
	case syncpkg.AlreadyThere:
		return mark{"mute", "check", "Already there"}
	case syncpkg.Conflict:
		return mark{"warn", "warn", "Conflict"}
	}
	return mark{"bad", "bad", "Failed"}
}

// previewMark is what would become of a key of a package.
func previewMark(action string) mark {
	switch action {
	case node.ActionImport:
		return mark{"ok", "plus", "Import"}
	case node.ActionSkip:
		return mark{"mute", "check", "Already there"}
	}
	return mark{"warn", "warn", "Conflict"}
}

// tokenMark is what a token is used for.
func tokenMark(t node.TokenView) mark {
	switch {
	case t.Use == node.UseSlot && !t.LoggedIn && !t.CodeLocked && !t.CodeFinalTry:
		return mark{"warn", "wait", "Closed"}
	case t.Problem != "":
		return mark{"bad", "alert", "Needs attention"}
	case t.Use == node.UseFree:
		return mark{"mute", "free", "Free"}
	case t.LoggedIn:
		return mark{"ok", "ok", "Open"}
	case t.Use == node.UseNone:
		return mark{"mute", "free", "Not used"}
	}
	return mark{"warn", "wait", "Closed"}
}

// certificateMark is how the certificate of an owner or a node stands.
func certificateMark(s node.CertState) mark {
	switch s {
	case node.CertValid:
		return mark{"ok", "ok", "Valid"}
	case node.CertExpiring:
		return mark{"warn", "wait", "Ends soon"}
	case node.CertExpired:
		return mark{"bad", "bad", "Ended"}
	case node.CertNotYet:
		return mark{"bad", "wait", "Not valid yet"}
	case node.CertForeign:
		return mark{"bad", "alert", "Of another owner"}
	}
	return mark{"bad", "unknown", "None"}
}

// trustMark is whether one node takes packages from another.
func trustMark(c trustCell) mark {
	switch {
	case c.Self:
		return mark{"mute", "minus", "Itself"}
	case c.Holds():
		return mark{"ok", "check", "Trusts"}
	case !c.Edge.Removed.IsZero():
		return mark{"warn", "missing", "Removed"}
	}
	return mark{"warn", "none", "No trust"}
}

func restartMark(ok bool) mark {
	if ok {
		return mark{"ok", "ok", "Restarted"}
	}
	return mark{"bad", "bad", "Not restarted"}
}

func abilityMark(ok bool) mark {
	if ok {
		return mark{"ok", "check", "Yes"}
	}
	return mark{"mute", "missing", "No"}
}

// memberMark is how far a node has come in joining, and whether it answers.
func memberMark(n cluster.Node, seen node.Seen) mark {
	switch {
	case n.Status == cluster.Initializing:
		return mark{"warn", "wait", "Initializing"}
	case n.Status == cluster.Connecting:
		return mark{"warn", "wait", "Connecting"}
	case !seen.Answers:
		return mark{"bad", "bad", "Does not answer"}
	}
	return mark{"ok", "ok", "Answers"}
}

// healthMark is a node as the node switcher shows it.
func (v *situation) healthMark(name string) mark {
	seen := v.Seen[name]
	active, total := v.seats(name)
	switch {
	case !seen.Answers:
		return mark{"bad", "bad", "does not answer"}
	case !seen.Health.Admin || len(seen.Health.Modules) > 0 || active < total:
		return mark{"warn", "warn", "needs attention"}
	}
	return mark{"ok", "ok", "healthy"}
}

// actWords are the acts of the audit trail in words. The object follows in a column of its own.
var actWords = map[string]string{
	"cluster.create":    "Cluster founded",
	"invite.add":        "Invitation made for a new node",
	"invite.remove":     "Invitation withdrawn",
	"node.admit":        "Node admitted",
	"node.set":          "Node changed its description",
	"node.identity":     "Identity of a node replaced",
	"node.connect":      "Node connected",
	"identity.renew":    "Identity of a node certified anew",
	"identity.request":  "Certificate asked for a new identity key",
	"identity.rekey":    "New identity key for a node",
	"node.stolen":       "Node declared stolen",
	"stolen.settle":     "Key of a stolen node dealt with",
	"node.retire":       "Old identity key of a node retired",
	"owner.make":        "New owner for the cluster",
	"owner.replace":     "Change of the owner begun",
	"owner.certified":   "Node certified by the next owner",
	"owner.replaced":    "Owner of the cluster replaced",
	"node.remove":       "Node removed",
	"lease.take":        "Settings of the cluster taken to be changed",
	"lease.take-over":   "Settings of the cluster taken over",
	"lease.extend":      "Time to change the settings extended",
	"lease.release":     "Settings of the cluster let go, unchanged",
	"settings.set":      "Settings of the cluster changed",
	"trust.set":         "Trust between nodes changed",
	"seat.put":          "Token of a slot recorded",
	"seat.report":       "Slot changed its state",
	"seat.remove":       "Token of a slot forgotten",
	"keys.report":       "Keys reported",
	"package.record":    "Package recorded",
	"package.receipt":   "Receipt recorded",
	"policy.set":        "Policy made or changed",
	"policy.remove":     "Policy removed",
	"approval.request":  "Approval asked for",
	"approval.approve":  "Request approved",
	"approval.reject":   "Request rejected",
	"approval.withdraw": "Request withdrawn",
	"account.put":       "Account made or changed",
	"account.password":  "Own password changed",
	"account.reset":     "Temporary password set",
	"account.remove":    "Account removed",
	"app.put":           "Application made or changed",
	"app.remove":        "Application removed",
	"app.run":           "Application restarted",
	"app.restart":       "Restart of an application",
	"app.deliver":       "Code delivered to an application",
	"act.end":           "End of an act recorded",
	"act.record":        "Act of a node recorded",
	"audit.sign":        "Audit trail signed",
	"note":              "Event of a node recorded",
	"module.reload":     "Module started anew",
	"slot.create":       "Slot made",
	"slot.activate":     "Slot activated",
	"slot.deactivate":   "Slot deactivated",
	"slot.change-code":  "Code of a slot changed",
	"slot.share":        "Token took a shared code",
	"slot.prepare":      "Present code entered for custodians",
	"custodian.put":     "Custodian passphrase set",
	"custody.put":       "Custodians of a slot set",
	"custody.remove":    "Custodians of a slot withdrawn",
	"custody.request":   "Custodians asked for a change",
	"share.entered":     "Share entered",
	"share.refused":     "Share or passphrase refused",
	"share.expired":     "Shares expired",
	"slot.set-mode":     "Mode of a slot switched",
	"sync.build":        "Package made",
	"sync.import":       "Package imported",
	"package.refused":   "Package refused",
	"audit.export":      "Audit trail exported",
	"audit.differs":     "Audit trail is not the one that was signed",
	"syslog.gap":        "Entries forgotten before syslog had them",
	"session.begin":     "Logged in",
	"session.end":       "Session ended",
	"session.refused":   "Log-in refused",
	"account.locked":    "Account locked for a while",
	"slot.code-differs": "Code of a token changed by another program",
	"node.protect":      "Protection of stored codes changed",
	"slot.rotate":       "Generated code replaced",
	"slot.try-code":     "Stored code tried",
	"slot.rotation":     "Schedule for new codes set",

	"account.lock":         "Account locked for a while",
	"account.unlock":       "Account unlocked",
	"account.end-sessions": "All sessions ended",
	"factor.totp":          "One-time passwords set up",
	"factor.passkey":       "Passkey added",
	"factor.certificate":   "Certificate registered",
	"factor.remove":        "Way to log in removed",
	"factor.used":          "Way to log in used",
}

func actWord(act string) string {
	if w, ok := actWords[act]; ok {
		return w
	}
	return act
}

// actorWord is who acted.
func actorWord(a cluster.Actor) string {
	switch a.Kind {
	case cluster.ByConsole:
		return a.Name + " (console)"
	case cluster.ByNode:
		return a.Name + " itself"
	}
	return a.Name
}

// byWord is the same for where the trail is only a text: "account/alice".
func byWord(by string) string {
	kind, name, found := strings.Cut(by, "/")
	if !found {
		return by
	}
	return actorWord(cluster.Actor{Kind: kind, Name: name})
}

// deliveryWord is how an application gets the codes of its slots.
func deliveryWord(d cluster.Delivery) string {
	switch d.Kind {
	case cluster.DeliverFile:
		return "in files"
	case cluster.DeliverStdin:
		return "by its command’s input"
	}
	return "not from Keyferry"
}

// runMark is how an application stands on a node.
func runMark(r runRow) mark {
	switch {
	case r.Waits != "":
		return mark{"warn", "wait", "Waits"}
	case r.Time.IsZero():
		return mark{"mute", "free", "Never restarted"}
	}
	return restartMark(r.OK)
}

// restartWord is how an application is restarted.
func restartWord(r cluster.Restart) string {
	switch r.Kind {
	case cluster.RestartCommand:
		return "command " + r.Target
	case cluster.RestartSystemd:
		return "systemd unit " + r.Target
	case cluster.RestartKubernetes:
		return "rollout of " + r.Target
	case cluster.RestartWebhook:
		return "webhook " + r.Target
	}
	return "not restarted by Keyferry"
}
