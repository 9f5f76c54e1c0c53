package tray

import (
	"slices"

	"podnet.dev/client/localapi"
)

// Note is a desktop notification. Urgent ones stay until they are seen.
type Note struct {
	Title, Text string
	Urgent      bool
}

// notes is what a user should hear of who did not look at the menu: how the sessions
// have changed from one state to the next.
func notes(before, after State) []Note {
	var out []Note
	say := func(title, text string, urgent bool) { out = append(out, Note{title, text, urgent}) }
	if f := after.Failed; f != nil && (before.Failed == nil || *before.Failed != *f) {
		say("Could not connect", sentence(f), true)
	}
	if !before.Known {
		return out // that is how it was all along
	}
	for _, c := range after.Status.Connections {
		old, known := named(before.Status.Connections, c.Name)
		was, is := before.Status.Of(old), after.Status.Of(c)
		switch {
		case c.Since == nil:
		case !known || old.Since == nil:
			say("Connected to "+place(c.Name, c.Namespace), detailLines(c)[0], false)
		case was != localapi.Degraded && is == localapi.Degraded:
			say(c.Name+" is degraded", warningOf(after.Status, c.Name), true)
		case was == localapi.Degraded && is == localapi.Connected:
			say(c.Name+" works again", detailLines(c)[0], false)
		}
	}
	for _, c := range before.Status.Connections {
		if _, still := named(after.Status.Connections, c.Name); still || c.Since == nil {
			continue
		}
		e := after.Status.LastError
		switch {
		case after.Parted[c.Name]:
			say("Disconnected from "+c.Name, "", false)
		case e != nil:
			say("The session "+c.Name+" has ended", sentence(e), true)
		case after.DaemonVersion == "":
			say("The session "+c.Name+" has ended", "the podnet daemon is not running any more", true)
		default:
			say("Disconnected from "+c.Name, "", false)
		}
	}
	return out
}

func named(all []localapi.Connection, name string) (localapi.Connection, bool) {
	i := slices.IndexFunc(all, func(c localapi.Connection) bool { return c.Name == name })
	if i < 0 {
		return localapi.Connection{}, false
	}
	return all[i], true
}

// warningOf is the first that degrades a session, with what to do about it.
func warningOf(s localapi.Status, name string) string {
	for _, w := range s.Warnings {
		if w.Connection == name && w.Severity == "high" {
			return sentence(&localapi.Error{Message: w.Text, Hint: w.Hint})
		}
	}
	return ""
}

// sentence is an error with its hint on a line of its own.
func sentence(e *localapi.Error) string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + "\n" + e.Hint
}
