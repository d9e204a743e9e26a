package cluster

import (
	"cmp"
	"regexp"
	"slices"
)

// Delivery is how an application gets the authentication codes of its slots. The codes themselves are
// never here: each node has its own, and hands them out itself.
type Delivery struct {
	Kind  string `json:"kind"`            // DeliverNone, DeliverFile or DeliverStdin; empty: none
	Owner string `json:"owner,omitempty"` // file: user name or number on the node; empty: the user that Keyferry runs as
	Group string `json:"group,omitempty"` // file: group name or number; empty: the owner's
	Mode  string `json:"mode,omitempty"`  // file: ModeOwner or ModeGroup
	// Manual has codes delivered that people hold, too, from the slot's activation until it is closed.
	// Who can read them can then use the slot without those people.
	Manual bool `json:"manual,omitempty"`
}

// Ways to deliver codes.
const (
	DeliverNone  = "none"
	DeliverFile  = "file"  // a file for each slot, on a file system in memory (pin-source of RFC 7512)
	DeliverStdin = "stdin" // lines on the standard input of the restart command
)

// Permissions of a file with a code, in octal digits. There is none for everybody.
const (
	ModeOwner = "0400"
	ModeGroup = "0440"
)

// Delivers tells whether codes are delivered.
func (d Delivery) Delivers() bool { return d.Kind == DeliverFile || d.Kind == DeliverStdin }

// principalPattern is what Debian's adduser takes at most, or a number.
var principalPattern = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,31}|0|[1-9][0-9]{0,8})$`)

func (d Delivery) validate(r Restart) error {
	d = d.filled()
	if err := checkOneOf("delivery", d.Kind, DeliverNone, DeliverFile, DeliverStdin); err != nil {
		return err
	}
	if d.Kind == DeliverStdin && r.Kind != RestartCommand {
		return errorf(Invalid, "codes go to the standard input of a restart command only: choose a command, or files")
	}
	if !d.Delivers() && d.Manual {
		return errorf(Invalid, "codes that people hold cannot be delivered where none are: choose a file or standard input")
	}
	if d.Kind != DeliverFile {
		if d.Owner != "" || d.Group != "" || d.Mode != "" {
			return errorf(Invalid, "owner, group and mode are for codes in files; the delivery is %q", d.Kind)
		}
		return nil
	}
	const rule = "use a user or group name of the node, or a number"
	for what, s := range map[string]string{"owner": d.Owner, "group": d.Group} {
		if s == "" {
			continue
		}
		if err := checkMatch(what+" of the code file", s, principalPattern, rule); err != nil {
			return err
		}
	}
	return checkOneOf("mode of the code file", d.Mode, ModeOwner, ModeGroup)
}

// describe is for the audit trail: who will be able to read codes.
func (d Delivery) describe() string {
	s := ""
	switch d.Kind {
	case DeliverStdin:
		s = "codes go to its restart command"
	case DeliverFile:
		d = d.filled()
		s = "codes go to files of " + cmp.Or(d.Owner, "the daemon's user") + ", group " + cmp.Or(d.Group, "of that user") + ", mode " + d.Mode
	}
	if d.Manual {
		s += ", those that people hold too"
	}
	return s
}

// filled is d with its defaults spelled out.
func (d Delivery) filled() Delivery {
	if d.Kind == "" {
		d.Kind = DeliverNone
	}
	if d.Kind == DeliverFile && d.Mode == "" {
		d.Mode = ModeOwner
	}
	return d
}

func (a *App) validateAfter() error {
	if len(a.After) > maxAfter {
		return errorf(Invalid, "application %q starts after %d others; at most %d are allowed", a.Name, len(a.After), maxAfter)
	}
	for i, name := range a.After {
		if err := checkName("name of the application before it", name); err != nil {
			return err
		}
		if name == a.Name {
			return errorf(Invalid, "application %q cannot start after itself", name)
		}
		if slices.Contains(a.After[:i], name) {
			return errorf(Invalid, "application %q names %q twice", a.Name, name)
		}
	}
	return nil
}

// checkAfter refuses an order that cannot be kept: names that are unknown, and circles.
func (s *State) checkAfter(a App) error {
	seen := map[string]bool{}
	var reaches func(name string) bool
	reaches = func(name string) bool {
		if name == a.Name {
			return true
		}
		if seen[name] {
			return false
		}
		seen[name] = true
		return slices.ContainsFunc(s.Apps[name].After, reaches)
	}
	for _, name := range a.After {
		if _, ok := s.Apps[name]; !ok {
			return errorf(NotFound, "there is no application %q that %q could start after", name, a.Name)
		}
		if reaches(name) {
			return errorf(Conflict, "application %q starts after %q already, so %q cannot start after it: neither would ever start", name, a.Name, a.Name)
		}
	}
	return nil
}
