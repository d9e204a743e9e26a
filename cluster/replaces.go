package cluster

import (
	"slices"
	"strings"
)

// replacing is a command that takes the place of a whole object as it was shown to its author. What others
// changed meanwhile must not be undone by somebody who has not seen it.
type replacing interface {
	// versions are the one that the author saw, nil where they did not look, and the one there is now. A
	// version is the index of the log entry that made it; 0 means that there is no such object.
	versions(s *State) (saw *uint64, now uint64)
}

func (c *PutAccount) versions(s *State) (*uint64, uint64) {
	return c.Replaces, s.Accounts[c.Name].Version
}
func (c *PutApp) versions(s *State) (*uint64, uint64) { return c.Replaces, s.Apps[c.App.Name].Version }
func (c *SetPolicy) versions(s *State) (*uint64, uint64) {
	return c.Replaces, s.Policies[c.Act].Version
}
func (c *RemovePolicy) versions(s *State) (*uint64, uint64) {
	return c.Replaces, s.Policies[c.Act].Version
}

// unchanged refuses a command whose author saw another version of the object than there is now.
func (s *State) unchanged(cmd Command) error {
	c, ok := cmd.(replacing)
	if !ok {
		return nil
	}
	saw, now := c.versions(s)
	if saw == nil || *saw == now {
		return nil
	}
	object, _ := cmd.describe()
	noun, name, _ := strings.Cut(object, "/")
	if noun == "app" {
		noun = "application"
	}
	did := "changed"
	switch {
	case now == 0:
		did = "removed"
	case *saw == 0:
		did = "made"
	}
	return errorf(Changed, "the %s %q was %s meanwhile%s, so nothing was done: look at it as it is now", noun, name, did, s.changedBy(cmd.Kind(), object))
}

// changedBy says who changed an object last, as far as the audit trail tells.
func (s *State) changedBy(kind, object string) string {
	family, _, _ := strings.Cut(kind, ".")
	for _, e := range slices.Backward(s.Audit) {
		if e.Object == object && e.Result == Done && (e.Act == family+".put" || e.Act == family+".set" || e.Act == family+".remove") {
			return " by " + e.Actor.Name
		}
	}
	return ""
}
