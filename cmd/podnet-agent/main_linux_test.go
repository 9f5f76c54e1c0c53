package main

import (
	"os"
	"syscall"
	"testing"

	"podnet.dev/internal/key"
	"podnet.dev/internal/nocore/coretest"
)

// roleVariable makes the test binary the program itself.
const roleVariable = "PODNET_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "agent" {
		main()
	}
	os.Exit(m.Run())
}

// TestAgentLeavesNoCore: the parent has the key as well as its worker.
func TestAgentLeavesNoCore(t *testing.T) {
	gateway, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	agent := coretest.Self(t, roleVariable+"=agent", "--no-redirect", "--pod-uid", "1", "--gateway", gateway.Public().String()+"@127.0.0.1:9")
	if cores := coretest.Of(t, agent, syscall.SIGABRT, `"podUID":"1"`); len(cores) > 0 {
		t.Errorf("%d cores are left", len(cores))
	}
}
