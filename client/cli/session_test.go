package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/localapi"
)

// clusters says that each context is a cluster of its own; kind is current.
func clusters(k localapi.Kube) (context, server string, err error) {
	name := strings.Join(k.Flags["context"], "")
	if name == "" {
		name = "kind"
	}
	return name, "https://" + name, nil
}

func TestADayWithTwoClusters(t *testing.T) {
	m := newMachine(t)
	m.where = clusters
	m.podnet("primary").want(t, exit.NotConnected, "nothing is connected")
	m.podnet("connect", "-n", "shop").want(t, 0, "kind as alice")
	m.podnet("connect", "--context", "blue", "-n", "pay").want(t, 0, "connected   kind as alice, primary", "connected   blue as alice\n")
	if m.last.Name != "blue" || m.last.Primary {
		t.Errorf("asked for %+v", m.last)
	}
	m.podnet("connect", "--context", "red", "--name", "blue").want(t, exit.Conflict, "the session blue is with another cluster", "--name")
	m.podnet("connect", "--context", "red", "--name", "Red Team").want(t, exit.Usage, "is no name for a session")
	m.podnet("primary").want(t, 0, "kind\n")
	m.podnet("namespace").want(t, 0, "shop\n")
	m.podnet("namespace", "--session", "blue").want(t, 0, "pay\n")
	m.podnet("dns", "query", "web", "--session", "red").want(t, exit.NotConnected, "no session is called red", "connected are kind, blue")
	m.podnet("exec", "--session", "red", "--", "true").want(t, exitExec, "no session is called red")
	m.podnet("exec", "--session", "blue", "--", "true").want(t, 0)
	m.podnet("exec", "--context", "kind", "--", "true").want(t, 0)
	m.podnet("exec", "--context", "red", "--", "true").want(t, exitExec, "the context red is not connected", "podnet connect --context red")
	m.environ = []string{"PODNET_SESSION=blue"}
	m.podnet("namespace").want(t, 0, "pay\n")
	m.environ = nil
	m.podnet("primary", "blue").want(t, 0, "short names are those of blue")
	m.podnet("primary").want(t, 0, "blue\n")
	m.podnet("namespace").want(t, 0, "pay\n")
	m.podnet("primary", "red").want(t, exit.NotConnected, "no session is called red")
	m.podnet("primary", "a", "b").want(t, exit.Usage)
	m.podnet("connect", "--primary", "-n", "shop").want(t, 0, "connected   kind as alice, primary")
	m.podnet("disconnect").want(t, exit.Usage, "which of the sessions: kind, blue?", "podnet disconnect NAME, or --all")
	m.podnet("disconnect", "blue", "--all").want(t, exit.Usage)
	m.podnet("disconnect", "red").want(t, exit.NotConnected, "no session is called red")
	m.podnet("disconnect", "kind").want(t, 0, "disconnected from kind", "short names are those of blue now")
	m.podnet("connect", "-n", "shop").want(t, 0)
	m.podnet("disconnect", "--all").want(t, 0, "disconnected from blue, kind")
	m.podnet("status").want(t, exit.NotConnected, "not connected")
}

func TestTwoSessionsInWords(t *testing.T) {
	now := time.Date(2026, 3, 2, 12, 0, 0, 0, time.Local)
	s := full(now)
	s.Connections[0].Primary, s.Connections[0].DNS.Alias, s.Warnings[0].Connection = true, "dev.podnet.internal", "dev"
	blue := full(now).Connections[0]
	blue.Name, blue.DNS.Alias = "blue", "blue.podnet.internal"
	red := localapi.Connection{Name: "red", User: "bob", Phase: localapi.PhaseGateway}
	s.Connections = append(s.Connections, blue, red)
	var out bytes.Buffer
	printStatus(&out, s, now)
	for _, want := range []string{
		"degraded    dev as alice, primary\n", "\n\nconnected   blue as alice\n", "\n\nconnecting  red as bob\nphase       gateway\n", "\n\nwarning  dev: the lease could not be renewed\n",
		"dns         cluster.local, dev.podnet.internal by resolved", "dns         blue.podnet.internal by resolved",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if line := summary(s, now); !strings.Contains(line, "dev: udp") || !strings.Contains(line, "; blue: udp") {
		t.Errorf("summary %s", line)
	}
}
