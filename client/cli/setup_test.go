package cli_test

import (
	"os"
	"testing"

	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/fakemachine"
)

func TestSetup(t *testing.T) {
	m := fakemachine.New(t)
	if os.Geteuid() != 0 {
		m.Podnet("setup").Want(t, exit.Daemon, "takes root", "sudo podnet setup")
		return
	}
	m.Podnet("setup", "--remove", "--operator", "bob").Want(t, exit.Usage, "--remove and --operator")
	m.Podnet("setup", "bob").Want(t, exit.Usage, "no arguments")
}
