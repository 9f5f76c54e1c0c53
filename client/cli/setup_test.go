package cli

import (
	"os"
	"testing"
)

func TestSetup(t *testing.T) {
	m := newMachine(t)
	if os.Geteuid() != 0 {
		m.podnet("setup").want(t, exitDaemon, "takes root", "sudo podnet setup")
		return
	}
	m.podnet("setup", "--remove", "--operator", "bob").want(t, exitUsage, "--remove and --operator")
	m.podnet("setup", "bob").want(t, exitUsage, "no arguments")
}
