package tray

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"podnet.dev/client/localapi"
	"podnet.dev/client/words"
)

// State is everything that the menu is made of. The zero State is that of a machine
// on which no daemon runs.
type State struct {
	Status localapi.Status
	// Version is this program's, DaemonVersion the daemon's where one runs.
	Version, DaemonVersion string
	// Docs is the URL of the documentation, where this machine has it.
	Docs string
	// Trying is what is being connected, before the daemon knows of it.
	Trying string
	// Failed is why the last attempt that was made here did not succeed.
	Failed *localapi.Error
	// Known: it has been looked at once whether a daemon runs.
	Known bool
	// Parted are the sessions that somebody has asked to end.
	Parted map[string]bool
	// Examining: the diagnostics are being made.
	Examining bool

	// What a daemon last said of the kubeconfig; ContextsKnown if one ever did.
	Contexts      []localapi.Context
	ContextsKnown bool
	Profiles      []string // the configuration's, by name
	// Namespaces and Services are the primary session's, the latter of its namespace.
	Namespaces []string
	Services   []localapi.Service
	Rules      []Rule

	Notify, Reconnect, StartsAtLogin, CanStartAtLogin bool
}

// Rule is a steering rule of a session.
type Rule struct {
	Session string
	localapi.SteerRule
}

// Primary is the session whose Services and namespaces the menu has: the primary, or
// the only one. It is false before that is ready.
func (s State) Primary() (localapi.Connection, bool) {
	all := s.Status.Connections
	i := slices.IndexFunc(all, func(c localapi.Connection) bool { return c.Primary })
	if i < 0 && len(all) == 1 {
		i = 0
	}
	if i < 0 || all[i].Since == nil {
		return localapi.Connection{}, false
	}
	return all[i], true
}

// failure is why nothing is connected, if that is not what somebody wanted.
func (s State) failure() *localapi.Error {
	switch {
	case len(s.Status.Connections) > 0 || s.Trying != "":
		return nil
	case s.Failed != nil:
		return s.Failed
	}
	return s.Status.LastError
}

// ready counts the sessions that are.
func ready(s localapi.Status) (n int) {
	for _, c := range s.Connections {
		if c.Since != nil {
			n++
		}
	}
	return n
}

func iconOf(s State) Icon {
	switch {
	case s.failure() != nil:
		return IconError
	case len(s.Status.Connections) == 0 && s.Trying == "":
		return IconOff
	case s.Status.State == localapi.Connected && s.Trying == "":
		return IconOn
	case s.Status.State == localapi.Degraded:
		return IconDegraded
	}
	return IconConnecting
}

// title is the state in one line.
func title(s State) string {
	all := s.Status.Connections
	if f := s.failure(); f != nil {
		return "Not connected: " + f.Message
	}
	icon := iconOf(s)
	switch icon {
	case IconOff:
		return "Not connected"
	case IconConnecting:
		return "Connecting to " + attempt(s) + "..."
	}
	c := all[0]
	if p, ok := s.Primary(); ok {
		c = p
	}
	where := place(c.Name, c.Namespace)
	switch n := len(all) - 1; {
	case n == 1:
		where += " and " + other(all, c.Name)
	case n > 1:
		where += fmt.Sprintf(" and %d more", n)
	}
	if icon == IconDegraded {
		return where + " is degraded" + worst(s.Status.Warnings)
	}
	if rtt := roundTrip(c); rtt > 0 {
		where += " - " + words.Milliseconds(rtt)
	}
	return "Connected to " + where
}

// attempt is what is being connected, and how far it is.
func attempt(s State) string {
	for _, c := range s.Status.Connections {
		if c.Since == nil {
			return fmt.Sprintf("%s (%s)", c.Name, c.Phase)
		}
	}
	return s.Trying
}

func other(all []localapi.Connection, name string) string {
	i := slices.IndexFunc(all, func(c localapi.Connection) bool { return c.Name != name })
	return all[i].Name
}

// worst is the first of the warnings that degrade a session.
func worst(all []localapi.Warning) string {
	for _, w := range all {
		if w.Severity == "high" {
			return ": " + w.Text
		}
	}
	return ""
}

func roundTrip(c localapi.Connection) float64 {
	if c.Path.RTTMs > 0 {
		return c.Path.RTTMs
	}
	return c.Tunnel.RTTMs
}

// detailLines are what there is to know of a session at a glance.
func detailLines(c localapi.Connection) []string {
	if c.Since == nil {
		return []string{"connecting: " + string(c.Phase)}
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	path := "none"
	if c.Path.Kind != "" {
		path = c.Path.Kind
	}
	if c.Path.Kind == "udp" && c.Path.Remote != "" {
		path += " to " + c.Path.Remote
	}
	if rtt := roundTrip(c); c.Path.Kind != "" && rtt > 0 {
		path += ", " + words.Milliseconds(rtt)
	}
	say("Path: %s", path)
	handshake := "none yet"
	if c.Tunnel.LastHandshake != "" {
		handshake = c.Tunnel.LastHandshake + " ago"
	}
	say("Handshake: %s", handshake)
	say("Received %s, sent %s", words.Size(c.Tunnel.Rx), words.Size(c.Tunnel.Tx))
	if c.DNS.Healthy {
		say("Names: healthy, by %s", c.DNS.Mode)
	} else {
		say("Names: NOT healthy, by %s", c.DNS.Mode)
	}
	if len(c.Routes) > 0 {
		say("Routes: %s", strings.Join(c.Routes, ", "))
	}
	say("Gateway: %s/%s", c.Gateway.Namespace, c.Gateway.Pod)
	if c.As != nil {
		say("Sending as: %s", c.As.Target)
	}
	if c.Exposing.Count > 0 {
		say("Exposing: %d of %d ready", c.Exposing.Ready, c.Exposing.Count)
	}
	say("Since %s", c.Since.Local().Format(time.DateTime))
	return lines
}

func ruleLine(r localapi.SteerRule) string {
	text := fmt.Sprintf("%s: %s %s to %s", r.Name, r.Target, r.Port, r.Local)
	if r.Mode == "mirror" {
		text += ", copies"
	}
	text += fmt.Sprintf(", %d of %d ready", r.Ready, len(r.Pods))
	if r.Matched > 0 {
		text += fmt.Sprintf(", %d taken", r.Matched)
	}
	return text
}

// short is text on one line, of n characters at most.
func short(text string, n int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if r := []rune(text); len(r) > n {
		return strings.TrimRight(string(r[:n-3]), " ") + "..."
	}
	return text
}
