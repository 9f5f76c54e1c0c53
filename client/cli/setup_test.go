package cli

import (
	"os"
	"testing"

	"podnet.dev/client/cli/exit"
)

func TestSetup(t *testing.T) {
	m := newMachine(t)
	if os.Geteuid() != 0 {
		m.podnet("setup").want(t, exit.Daemon, "takes root", "sudo podnet setup")
		return
	}
	m.podnet("setup", "--remove", "--operator", "bob").want(t, exit.Usage, "--remove and --operator")
	m.podnet("setup", "bob").want(t, exit.Usage, "no arguments")
}
