package cli_test

import (
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
)

func TestAutostart(t *testing.T) {
	m := fakemachine.New(t)
	for _, want := range []string{"off", "on", "off"} {
		m.Podnet("autostart", want).Want(t, exit.OK)
		if r := m.Podnet("autostart"); r.Out != want+"\n" {
			t.Errorf("autostart says %q, want %s", r.Out, want)
		}
	}
	m.Podnet("autostart", "perhaps").Want(t, exit.Usage, "want on or off")
}
