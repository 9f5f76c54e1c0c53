package cli

import (
	"testing"

	"podnet.dev/client/cli/exit"
)

func TestUI(t *testing.T) {
	m := newMachine(t)
	m.podnet("ui", "-o", "xml").want(t, exit.Usage, "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH")
	m.podnet("ui", "now").want(t, exit.Usage, "takes no arguments")
	// The machine's daemon, which is started for it, has none.
	m.podnet("ui").want(t, exit.Generic, "this daemon has no dashboard")
	if m.started != 1 {
		t.Errorf("%d daemons were started", m.started)
	}
}
