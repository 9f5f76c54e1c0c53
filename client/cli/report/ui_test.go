package report_test

import (
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
)

func TestUI(t *testing.T) {
	m := fakemachine.New(t)
	m.Podnet("ui", "-o", "xml").Want(t, exit.Usage, "want table, json, yaml, jsonpath=TEMPLATE or custom-columns=NAME:PATH")
	m.Podnet("ui", "now").Want(t, exit.Usage, "takes no arguments")
	// The machine's daemon, which is started for it, has none.
	m.Podnet("ui").Want(t, exit.Generic, "this daemon has no dashboard")
	if m.Started != 1 {
		t.Errorf("%d daemons were started", m.Started)
	}
}
