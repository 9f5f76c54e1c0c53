package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"podnet.dev/internal/key"
	"podnet.dev/internal/nocore/coretest"
)

// roleVariable makes the test binary the program itself.
const roleVariable = "PODNET_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "gateway" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestGatewayLeavesNoCore: its key may be in a file, but in no other.
func TestGatewayLeavesNoCore(t *testing.T) {
	private, err := key.NewPrivate()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "wg.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, "[Interface]\nPrivateKey = %s\nListenPort = %d\n", private.Base64(), port), 0o600); err != nil {
		t.Fatal(err)
	}
	if cores := coretest.Of(t, coretest.Self(t, roleVariable+"=gateway", "--wireguard-config", file), syscall.SIGABRT, "gateway ready"); len(cores) > 0 {
		t.Errorf("%d cores are left", len(cores))
	}
}
