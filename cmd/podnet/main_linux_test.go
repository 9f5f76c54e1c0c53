package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"podnet.dev/internal/nocore/coretest"
)

// roleVariable makes the test binary the program itself.
const roleVariable = "PODNET_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "podnet" {
		main()
	}
	os.Exit(m.Run())
}

func TestDaemonLeavesNoCore(t *testing.T) {
	dir := t.TempDir()
	daemon := coretest.Self(t, roleVariable+"=podnet", "daemon", "--socket", filepath.Join(dir, "podnet.sock"))
	daemon.Env = append(daemon.Env, "HOME="+dir, "XDG_STATE_HOME="+dir, "XDG_RUNTIME_DIR="+dir, "PODNET_STATE_DIR="+dir)
	if cores := coretest.Of(t, daemon, syscall.SIGABRT, "daemon started"); len(cores) > 0 {
		t.Errorf("%d cores are left", len(cores))
	}
}
