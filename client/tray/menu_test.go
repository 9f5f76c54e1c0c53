package tray

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"podnet.dev/client/localapi"
	"podnet.dev/client/tray/fakedaemon"
)

var update = flag.Bool("update", false, "write the golden file anew")

// moment is a state that a menu is made of.
type moment struct {
	name  string
	state State
}

// connected is one session, as status says it.
func connected(state localapi.State, all ...localapi.Connection) localapi.Status {
	s := localapi.NewStatus()
	s.State, s.Connections = state, all
	return s
}

func contexts() []localapi.Context {
	return []localapi.Context{{Name: "kind_dev", Namespace: "default"}, {Name: "staging", Namespace: "shop", Current: true}, {Name: "blue"}}
}

// moments are those that look different.
func moments() []moment {
	base := State{Version: "0.1", Docs: "file:///usr/share/doc/podnet/html/index.html", Known: true, Notify: true, CanStartAtLogin: true}
	idle := base
	idle.DaemonVersion, idle.Contexts, idle.ContextsKnown = "0.1", contexts(), true
	idle.Profiles = []string{"pay", "staging"}

	trying := idle
	trying.Trying = "staging"

	handshake := idle
	c := fakedaemon.Ready("staging", "shop")
	c.Since, c.Phase, c.Primary = nil, localapi.PhaseHandshake, true
	handshake.Status = connected(localapi.Connecting, c)

	on := idle
	c = fakedaemon.Ready("staging", "shop")
	c.Primary, c.Namespaces = true, []string{"shop", "pay"}
	c.Exposing = localapi.Tally{Count: 2, Ready: 1}
	on.Status = connected(localapi.Connected, c)
	on.Services = []localapi.Service{
		{Namespace: "shop", Name: "web", ClusterIP: "10.96.0.10", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 80, URL: "http://web.shop"}, {Protocol: "UDP", Port: 5353}}},
		{Namespace: "shop", Name: "db", ClusterIP: "None", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 5432}}},
		{Namespace: "shop", Name: "six", ClusterIP: "fd00::7", Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 8080, URL: "http://six.shop:8080"}}},
	}
	on.Rules = []Rule{{"staging", localapi.SteerRule{Name: "web-8080", Namespace: "shop", Target: "deploy/web", Port: "8080", Local: "127.0.0.1:3000",
		Ready: 1, Pods: make([]localapi.SteerPod, 2), Matched: 14}}}
	on.StartsAtLogin = true

	degraded := on
	degraded.Status.State = localapi.Degraded
	degraded.Status.Warnings = []localapi.Warning{
		{Connection: "staging", Code: "dns-trampled", Severity: "medium", Text: "/etc/resolv.conf overwritten"},
		{Connection: "staging", Code: "gateway", Severity: "high", Text: "the gateway does not answer: apiserver: dial tcp 192.0.2.1:6443: i/o timeout, after a long time", Hint: "podnet doctor"},
	}

	two := on
	blue := fakedaemon.Ready("blue", "default")
	blue.AllNamespaces, blue.Namespaces = true, nil
	blue.Path = localapi.Path{Kind: "apiserver"}
	blue.As = &localapi.Identity{Target: "deploy/web"}
	blue.DNS.Healthy = false
	blue.Tunnel.LastHandshake = ""
	blue.Primary, c.Primary = true, false
	two.Status = connected(localapi.Connected, c, blue)
	two.Rules, two.Services = nil, nil
	for i := range 18 {
		two.Namespaces = append(two.Namespaces, fmt.Sprintf("team-%02d", i))
		two.Services = append(two.Services, localapi.Service{Namespace: "default", Name: fmt.Sprintf("s%02d", i), ClusterIP: "10.0.0.9",
			Ports: []localapi.ServicePort{{Protocol: "TCP", Port: 80}, {Protocol: "TCP", Port: 443}}})
	}

	third := two
	late := fakedaemon.Ready("kind_dev", "")
	late.Since, late.Phase = nil, localapi.PhaseAuth
	third.Status = connected(localapi.Connected, c, blue, late)

	refused := on
	refused.Failed = &localapi.Error{Message: "the session blue is with another cluster"}

	failed := idle
	failed.Failed = &localapi.Error{Code: localapi.CodeForbidden, Message: "you may not create pods/portforward in namespace shop", Hint: "ask for the role podnet-connect"}
	failed.DaemonVersion = "0.0.9"

	ended := idle
	ended.Status = localapi.NewStatus()
	ended.Status.State, ended.Status.LastError = localapi.Failed, &localapi.Error{Message: "the permission for namespace shop\nis gone"}
	ended.Examining = true

	again := ended
	again.Status.Warnings = []localapi.Warning{{Connection: "staging", Code: "reconnect", Severity: "medium",
		Text: "staging is not connected: the network is away; tried again at 12:00:05", Hint: "podnet disconnect staging gives it up"}}

	many := idle
	many.Contexts = nil
	for i := range 40 {
		many.Contexts = append(many.Contexts, localapi.Context{Name: fmt.Sprintf("ctx-%02d", i)})
	}
	return []moment{{"no daemon", base}, {"daemon with nothing to do", idle}, {"asked to connect", trying}, {"handshake", handshake}, {"connected", on}, {"degraded", degraded},
		{"two sessions, the second is primary", two}, {"a third on its way", third}, {"another could not connect", refused}, {"could not connect", failed}, {"session ended", ended}, {"session ended and is tried again", again}, {"many contexts", many}}
}

func TestMenus(t *testing.T) {
	was := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = was })
	var all strings.Builder
	for _, m := range moments() {
		fmt.Fprintf(&all, "== %s\n", m.name)
		menu := MenuOf(m.state)
		fmt.Fprintf(&all, "icon %s, %s\n", menu.Icon, menu.Title)
		print(&all, menu.Items, "")
	}
	file := filepath.Join("testdata", "menus.txt")
	if *update {
		if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if all.String() != string(want) {
		t.Errorf("%s is not what comes out:\n%s", file, all.String())
	}
}

// print writes what is to be seen.
func print(w *strings.Builder, items []Item, indent string) {
	for _, it := range items {
		label := it.Label
		switch {
		case it.Hidden:
			continue
		case it.Kind == Separator:
			label = "---"
		case it.Kind == Check && it.Checked:
			label = "[x] " + label
		case it.Kind == Check:
			label = "[ ] " + label
		}
		if it.Disabled {
			label = "(" + label + ")"
		}
		fmt.Fprintf(w, "%s%s", indent, label)
		if it.Do.Verb != Nothing && !it.Disabled {
			w.WriteString("   =>")
			for _, part := range []string{string(it.Do.Verb), it.Do.Session, it.Do.Name} {
				if part != "" {
					w.WriteString(" " + part)
				}
			}
		}
		w.WriteByte('\n')
		print(w, it.Items, indent+"    ")
	}
}

// TestMenusKeepTheirShape, as hosts need it: the top is the same in every state, menus
// are two levels deep, none is empty, every line that can be clicked does something.
func TestMenusKeepTheirShape(t *testing.T) {
	var top []Kind
	for _, m := range moments() {
		menu := MenuOf(m.state)
		var kinds []Kind
		for _, it := range menu.Items {
			kinds = append(kinds, it.Kind)
		}
		if top == nil {
			top = kinds
		}
		if fmt.Sprint(kinds) != fmt.Sprint(top) {
			t.Errorf("%s: the top is %v, and was %v", m.name, kinds, top)
		}
		for _, it := range menu.Items {
			lines := []Item{it}
			if it.Items != nil {
				lines = it.Items
				shown := 0
				for _, below := range it.Items {
					if !below.Hidden {
						shown++
					}
				}
				if shown == 0 && !it.Hidden {
					t.Errorf("%s: nothing below %s", m.name, it.Label)
				}
			}
			for _, line := range lines {
				switch {
				case line.Kind == Separator || line.Hidden || it.Hidden:
				case line.Label == "" || utf8.RuneCountInString(line.Label) > maxLabel || strings.ContainsAny(line.Label, "\n\t"):
					t.Errorf("%s: label %q", m.name, line.Label)
				case line.Do.Verb == Nothing && !line.Disabled && !line.Checked:
					t.Errorf("%s: a click on %q does nothing", m.name, line.Label)
				case it.Items != nil && line.Items != nil:
					t.Errorf("%s: %q is a third level", m.name, line.Label)
				}
			}
		}
	}
}
