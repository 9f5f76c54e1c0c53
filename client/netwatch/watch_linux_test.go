package netwatch

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKernelTells runs itself in a user and network namespace of its own, where
// it may change what it likes and needs no privilege.
func TestKernelTells(t *testing.T) {
	if os.Getenv("PODNET_TEST_ROLE") != "netns" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run=^TestKernelTells$", "-test.v")
		cmd.Env = append(os.Environ(), "PODNET_TEST_ROLE=netns")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Skipf("no user and network namespace: %v", err)
		}
		if err != nil || strings.Contains(string(out), "--- SKIP") {
			t.Logf("%s", out)
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	ip("link set lo up")
	ip("link add home0 type veth peer name home1")
	ip("link set home1 up")
	ctx, cancel := context.WithCancel(t.Context())
	events := Watch(ctx, slog.New(slog.DiscardHandler))
	told := func(want string) {
		t.Helper()
		deadline := time.After(5 * time.Second)
		var got []string
		for {
			select {
			case e := <-events:
				if got = append(got, e.Text); strings.Contains(e.Text, want) {
					return
				}
			case <-deadline:
				t.Fatalf("told %q, want %q", got, want)
			}
		}
	}
	ip("addr add 192.0.2.7/24 dev home0")
	ip("link set home0 up")
	told("new: home0 192.0.2.7/24")
	ip("route add default via 192.0.2.1 dev home0")
	told("new: default via 192.0.2.1 dev home0")
	ip("link add podnet0 type veth peer name podnet1")
	ip("link set podnet1 up")
	ip("link set podnet0 up")
	ip("addr add 198.18.0.5/32 dev podnet0")
	ip("route add 10.96.0.0/16 dev podnet0")
	ip("addr replace 192.0.2.8/24 dev home0")
	told("new: home0 192.0.2.8/24")
	ip("link set home1 down") // the cable is pulled
	told("gone: ")
	cancel()
	for e := range events {
		t.Errorf("left over: %+v", e)
	}
}

func TestUptimeGoesOn(t *testing.T) {
	a := Uptime()
	time.Sleep(time.Millisecond)
	if d := Uptime() - a; d < time.Millisecond || d > time.Minute {
		t.Errorf("%v", d)
	}
}
