package cli_test

import (
	"strings"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
	"podnet.dev/client/localapi"
)

// TestMapGivesOut: an address that is asked for may be used, and nothing else.
func TestMapGivesOut(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("connect", "--addresses", "virtual").Want(t, 0)
	for _, asked := range []string{"10.96.1.7", "100.81.1.8", "10.96.0.0/16", "10.96.1.9/32", "", "fd00:10:244::9"} {
		m.Podnet(strings.Fields("map "+asked)...).Want(t, 0)
	}
	if got := strings.Join(m.Names.Opened, " "); got != "100.81.1.7 100.81.1.8" {
		t.Errorf("given out: %s", got)
	}
	m.Podnet("map", "192.0.2.1").Want(t, exit.Generic, "in none of the networks")
	m.Names.Fail = &localapi.Error{Code: localapi.CodeNotConnected, Message: "the session is not ready", Hint: "podnet status"}
	if r := m.Podnet("map", "10.96.1.7"); r.Code == 0 || r.Out != "" {
		t.Errorf("told an address that leads nowhere: exit status %d, %s", r.Code, r.Out)
	}
}
