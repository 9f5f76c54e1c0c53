package cli_test

import (
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/cli/outbound"
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
	m := fakemachine.New(t)
	m.Where = clusters
	m.Podnet("primary").Want(t, exit.NotConnected, "nothing is connected")
	m.Podnet("connect", "-n", "shop").Want(t, 0, "kind as alice")
	m.Podnet("connect", "--context", "blue", "-n", "pay").Want(t, 0, "connected   kind as alice, primary", "connected   blue as alice\n")
	if m.Last.Name != "blue" || m.Last.Primary {
		t.Errorf("asked for %+v", m.Last)
	}
	m.Podnet("connect", "--context", "red", "--name", "blue").Want(t, exit.Conflict, "the session blue is with another cluster", "--name")
	m.Podnet("connect", "--context", "red", "--name", "Red Team").Want(t, exit.Usage, "is no name for a session")
	m.Podnet("primary").Want(t, 0, "kind\n")
	m.Podnet("namespace").Want(t, 0, "shop\n")
	m.Podnet("namespace", "--session", "blue").Want(t, 0, "pay\n")
	m.Podnet("dns", "query", "web", "--session", "red").Want(t, exit.NotConnected, "no session is called red", "connected are kind, blue")
	m.Podnet("exec", "--session", "red", "--", "true").Want(t, outbound.Failed, "no session is called red")
	m.Podnet("exec", "--session", "blue", "--", "true").Want(t, 0)
	m.Podnet("exec", "--context", "kind", "--", "true").Want(t, 0)
	m.Podnet("exec", "--context", "red", "--", "true").Want(t, outbound.Failed, "the context red is not connected", "podnet connect --context red")
	m.Environ = []string{"PODNET_SESSION=blue"}
	m.Podnet("namespace").Want(t, 0, "pay\n")
	m.Environ = nil
	m.Podnet("primary", "blue").Want(t, 0, "short names are those of blue")
	m.Podnet("primary").Want(t, 0, "blue\n")
	m.Podnet("namespace").Want(t, 0, "pay\n")
	m.Podnet("primary", "red").Want(t, exit.NotConnected, "no session is called red")
	m.Podnet("primary", "a", "b").Want(t, exit.Usage)
	m.Podnet("connect", "--primary", "-n", "shop").Want(t, 0, "connected   kind as alice, primary")
	m.Podnet("disconnect").Want(t, exit.Usage, "which of the sessions: kind, blue?", "podnet disconnect NAME, or --all")
	m.Podnet("disconnect", "blue", "--all").Want(t, exit.Usage)
	m.Podnet("disconnect", "red").Want(t, exit.NotConnected, "no session is called red")
	m.Podnet("disconnect", "kind").Want(t, 0, "disconnected from kind", "short names are those of blue now")
	m.Podnet("connect", "-n", "shop").Want(t, 0)
	m.Podnet("disconnect", "--all").Want(t, 0, "disconnected from blue, kind")
	m.Podnet("status").Want(t, exit.NotConnected, "not connected")
}
