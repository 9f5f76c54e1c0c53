package tray

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"podnet.dev/client/localapi"
)

// Menu is what is to be seen: the icon, the sentence that explains it, and the items
// below. At its top level every Menu has the same items in the same order, some of
// them hidden: hosts follow a change of words more surely than one of shape.
type Menu struct {
	Icon Icon
	// Title is the first line, and the icon's tooltip.
	Title string
	Items []Item
}

// Item is a line of a Menu. One with Items opens them; menus are two levels deep at
// most, as GNOME shows no more.
type Item struct {
	Label    string
	Kind     Kind
	Checked  bool // of a Check
	Disabled bool
	Hidden   bool
	Do       Action
	Items    []Item
}

// Kind is what an Item looks like.
type Kind int

const (
	Plain Kind = iota
	Check
	Separator
)

// Action is what a click asks for.
type Action struct {
	Verb Verb
	// Session is the one that it is about, where it is about one.
	Session string
	// Name is what the verb needs: of a context, a profile, a namespace, a rule, or
	// the text to copy.
	Name string
}

// Verb is a kind of Action.
type Verb string

const (
	Nothing         Verb = ""
	Connect         Verb = "connect"         // to the kubeconfig's current context
	ConnectContext  Verb = "connect-context" // to Name
	ConnectProfile  Verb = "connect-profile" // Name
	Disconnect      Verb = "disconnect"      // Session
	DisconnectAll   Verb = "disconnect-all"
	ListContexts    Verb = "list-contexts"
	SetNamespace    Verb = "namespace" // Name, in Session
	SetPrimary      Verb = "primary"   // Session
	StopRule        Verb = "stop-rule" // Name, in Session
	Copy            Verb = "copy"      // Name
	CopyDiagnostics Verb = "diagnostics"
	OpenDashboard   Verb = "dashboard"
	OpenDocs        Verb = "documentation"
	StartAtLogin    Verb = "start-at-login"
	Notifications   Verb = "notifications"
	Reconnect       Verb = "reconnect"
	Quit            Verb = "quit"
	QuitAll         Verb = "quit-all" // disconnect first
)

// How many lines a submenu has at most; the rest is for a terminal. Taller menus do
// not fit on a small screen.
const (
	maxNamespaces = 15
	maxServices   = 20
	maxContexts   = 25
	maxLabel      = 72 // in characters
	maxTitle      = 200
)

// MenuOf is the menu of a state.
func MenuOf(s State) Menu {
	m := Menu{Icon: iconOf(s), Title: short(title(s), maxTitle)}
	shown := len(s.Status.Connections) > 0
	engaged := shown || len(waiting(s)) > 0
	primary, hasPrimary := s.Primary()
	m.Items = []Item{
		{Label: m.Title, Disabled: true},
		advice(s),
		{Kind: Separator},
		{Label: connectLabel(s), Hidden: shown, Disabled: s.Trying != "", Do: Action{Verb: Connect}},
		disconnect(s),
		{Label: "Connections", Items: connections(s)},
		{Label: "Primary cluster", Hidden: len(s.Status.Connections) < 2, Items: primaries(s)},
		{Label: "Namespace", Hidden: !hasPrimary, Items: namespaces(s, primary)},
		{Label: "Services", Hidden: !hasPrimary, Items: services(s, primary)},
		{Label: fmt.Sprintf("Steering (%d)", len(s.Rules)), Hidden: len(s.Rules) == 0, Items: rules(s)},
		{Kind: Separator},
		{Label: "Status", Hidden: !shown, Items: details(s)},
		{Label: fmt.Sprintf("Warnings (%d)", len(s.Status.Warnings)), Hidden: len(s.Status.Warnings) == 0, Items: warnings(s)},
		{Label: "Copy diagnostics", Disabled: s.Examining, Do: Action{Verb: CopyDiagnostics}},
		{Label: "Open dashboard", Do: Action{Verb: OpenDashboard}},
		{Label: "Preferences", Items: preferences(s)},
		{Kind: Separator},
		{Label: about(s), Disabled: true},
		{Label: "Open documentation", Hidden: s.Docs == "", Do: Action{Verb: OpenDocs}},
		quit(shown),
		{Label: "Disconnect and quit", Hidden: !engaged, Do: Action{Verb: QuitAll}},
	}
	for i := range m.Items {
		tidy(&m.Items[i])
	}
	return m
}

// tidy cuts what is too long.
func tidy(it *Item) {
	it.Label = short(it.Label, maxLabel)
	for i := range it.Items {
		tidy(&it.Items[i])
	}
}

// advice is what to do about the failure that the first line tells, or one that it
// does not tell as there are other sessions.
func advice(s State) Item {
	text := ""
	switch f := s.failure(); {
	case f != nil:
		text = f.Hint
	case s.Failed != nil && s.Trying == "":
		text = "Could not connect: " + s.Failed.Message
	}
	return Item{Label: text, Hidden: text == "", Do: Action{Verb: Copy, Name: text}}
}

func connectLabel(s State) string {
	i := slices.IndexFunc(s.Contexts, func(c localapi.Context) bool { return c.Current })
	if i < 0 {
		return "Connect"
	}
	return "Connect to " + place(s.Contexts[i].Name, s.Contexts[i].Namespace)
}

func disconnect(s State) Item {
	all := s.Status.Connections
	it := Item{Label: "Disconnect", Do: Action{Verb: DisconnectAll}}
	switch {
	case len(all) == 0:
		it.Label, it.Hidden = "Do not connect again", len(waiting(s)) == 0
	case len(all) > 1:
		it.Label = "Disconnect all"
	case len(all) == 1 && all[0].Since == nil:
		it.Label = "Cancel"
	}
	return it
}

// connections are the sessions, the profiles and the contexts of the kubeconfig, each
// once; a click turns one on or off.
func connections(s State) []Item {
	items := []Item{{Label: "List the contexts of the kubeconfig", Hidden: s.ContextsKnown, Do: Action{Verb: ListContexts}}}
	taken := map[string]bool{}
	for _, c := range s.Status.Connections {
		taken[c.Name], taken[c.Context] = true, true
		items = append(items, Item{Kind: Check, Checked: true, Label: place(c.Name, c.Namespace), Do: Action{Verb: Disconnect, Session: c.Name}})
	}
	for _, name := range waiting(s) {
		taken[name] = true
		items = append(items, Item{Kind: Check, Checked: true, Label: name + " (is tried again)", Do: Action{Verb: Disconnect, Session: name}})
	}
	more := 0
	add := func(label, name string, verb Verb) {
		switch {
		case taken[name]:
		case len(items) > maxContexts:
			more++
		default:
			items = append(items, Item{Kind: Check, Label: label, Disabled: s.Trying != "", Do: Action{Verb: verb, Name: name}})
		}
	}
	for _, p := range s.Profiles {
		add(p+" (profile)", p, ConnectProfile)
	}
	for _, c := range s.Contexts {
		add(place(c.Name, c.Namespace), c.Name, ConnectContext)
	}
	if more > 0 {
		items = append(items, Item{Label: fmt.Sprintf("%d more: podnet connect --context NAME", more), Disabled: true})
	}
	return items
}

// waiting are the sessions that have ended by themselves, and are tried again.
func waiting(s State) (names []string) {
	for _, w := range s.Status.Warnings {
		if w.Code == "reconnect" {
			names = append(names, w.Connection)
		}
	}
	return names
}

func primaries(s State) []Item {
	var items []Item
	for _, c := range s.Status.Connections {
		items = append(items, Item{Kind: Check, Checked: c.Primary, Label: c.Name, Do: Action{Verb: SetPrimary, Session: c.Name}})
	}
	return items
}

// namespaces are those whose names can be the short ones.
func namespaces(s State, c localapi.Connection) []Item {
	names := c.Namespaces
	if c.AllNamespaces {
		names = s.Namespaces
	}
	items := []Item{{Label: fmt.Sprintf("%d more: podnet namespace NAME", len(names)-maxNamespaces), Hidden: len(names) <= maxNamespaces, Disabled: true}}
	names = names[:min(len(names), maxNamespaces)]
	if c.Namespace != "" && !slices.Contains(names, c.Namespace) {
		items = append(items, Item{Kind: Check, Checked: true, Label: c.Namespace})
	}
	for _, name := range names {
		items = append(items, Item{Kind: Check, Checked: name == c.Namespace, Label: name, Do: Action{Verb: SetNamespace, Session: c.Name, Name: name}})
	}
	return items
}

// services are the ports of the primary's namespace; a click copies where one is.
func services(s State, c localapi.Connection) []Item {
	var items []Item
	more := 0
	for _, svc := range s.Services {
		for _, p := range svc.Ports {
			if len(items) == maxServices {
				more++
				continue
			}
			where := cmp.Or(p.URL, fmt.Sprintf("%s.%s:%d", svc.Name, svc.Namespace, p.Port))
			items = append(items, Item{Label: where + "   " + address(svc, p), Do: Action{Verb: Copy, Name: where}})
		}
	}
	switch {
	case more > 0:
		items = append(items, Item{Label: fmt.Sprintf("%d more: kubectl get services -n %s", more, c.Namespace), Disabled: true})
	case len(items) == 0:
		items = []Item{{Label: "none in namespace " + c.Namespace, Disabled: true}}
	}
	return items
}

func rules(s State) []Item {
	items := []Item{{Label: "A click gives the requests back:", Disabled: true}}
	for _, r := range s.Rules {
		items = append(items, Item{Label: "Stop " + ruleLine(r.SteerRule), Do: Action{Verb: StopRule, Session: r.Session, Name: r.Name}})
	}
	return items
}

// details are lines about each session; a click copies one.
func details(s State) []Item {
	var items []Item
	several := len(s.Status.Connections) > 1
	for _, c := range s.Status.Connections {
		for _, line := range detailLines(c) {
			if several {
				line = c.Name + ": " + line
			}
			items = append(items, Item{Label: line, Do: Action{Verb: Copy, Name: line}})
		}
	}
	return items
}

// warnings are lines of a warning and of what to do about it; a click copies one.
func warnings(s State) []Item {
	var items []Item
	several := len(s.Status.Connections) > 1
	for _, w := range s.Status.Warnings {
		text := w.Text
		if several && w.Connection != "" {
			text = w.Connection + ": " + text
		}
		items = append(items, Item{Label: text, Do: Action{Verb: Copy, Name: text}})
		if w.Hint != "" {
			items = append(items, Item{Label: "    " + w.Hint, Do: Action{Verb: Copy, Name: w.Hint}})
		}
	}
	return items
}

func preferences(s State) []Item {
	return []Item{
		{Kind: Check, Label: "Start at login", Checked: s.StartsAtLogin, Hidden: !s.CanStartAtLogin, Do: Action{Verb: StartAtLogin}},
		{Kind: Check, Label: "Notifications", Checked: s.Notify, Do: Action{Verb: Notifications}},
		{Kind: Check, Label: "Reconnect automatically", Checked: s.Reconnect, Do: Action{Verb: Reconnect}},
	}
}

func about(s State) string {
	text := "podnet " + s.Version
	if s.DaemonVersion != "" && s.DaemonVersion != s.Version {
		text += ", the running daemon is " + s.DaemonVersion
	}
	return text
}

func quit(connected bool) Item {
	it := Item{Label: "Quit", Do: Action{Verb: Quit}}
	if connected {
		it.Label = "Quit and stay connected"
	}
	return it
}

// place is a session or a context with its namespace.
func place(name, namespace string) string {
	if namespace == "" {
		return name
	}
	return name + " / " + namespace
}

// address is where a port of a Service is, for those who do not go by names.
func address(svc localapi.Service, p localapi.ServicePort) string {
	text := fmt.Sprintf("%s:%d", svc.ClusterIP, p.Port)
	switch {
	case svc.ClusterIP == "" || svc.ClusterIP == "None":
		text = "headless"
	case strings.Contains(svc.ClusterIP, ":"):
		text = fmt.Sprintf("[%s]:%d", svc.ClusterIP, p.Port)
	}
	if p.Protocol != "" && p.Protocol != "TCP" {
		text += " " + strings.ToLower(p.Protocol)
	}
	return text
}
