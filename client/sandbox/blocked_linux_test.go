package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestConfined has a container's seccomp filter forbid namespaces: an answer at once,
// and what to make of it.
func TestConfined(t *testing.T) {
	openTest(t, Options{}) // else something else forbids them already
	out, err := exec.Command("/proc/self/exe", "confined").CombinedOutput()
	const want = "blocked: make a user, network and mount namespace: operation not permitted (a container's seccomp filter or another policy forbids it here)\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// TestNoNamespaces is told, with what forbids them.
func TestNoNamespaces(t *testing.T) {
	if os.Getenv("PODNET_TEST_FORBIDDEN") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestNoNamespaces$")
		cmd.Env = append(os.Environ(), "PODNET_TEST_FORBIDDEN=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), "TestNoNamespaces") {
			t.Skipf("no user namespace to forbid them in: %v", err)
		}
		if t.Logf("%s", out); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Skipf("cannot forbid them: %v", err)
	}
	_, err := Open(t.Context(), Options{Agent: []string{"/proc/self/exe", "agent"}})
	var b *BlockedError
	if !errors.As(err, &b) || !strings.Contains(b.Error(), "namespace") || !strings.Contains(b.Hint(), "max_user_namespaces") {
		t.Fatalf("%v", err)
	}
}
