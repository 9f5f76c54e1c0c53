// Package testhost makes a host of its own for a test: a network and mount
// namespace with an own /etc, which programs may change as they would a machine.
package testhost

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Host is a network and mount namespace with an /etc of its own.
type Host struct {
	t   *testing.T
	pid int
	// State is a folder outside for what podnet notes.
	State string
}

// New makes one, which ends with the test.
func New(t *testing.T) *Host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network and mount namespaces")
	}
	for _, tool := range []string{"ip", "nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	dir := t.TempDir()
	script := fmt.Sprintf(`set -e
		mount --make-rprivate /
		ip link set lo up
		mkdir -p %[1]s/etc
		printf 'nameserver 192.0.2.53\nsearch home.example\n' > %[1]s/etc/resolv.conf
		echo 'hosts: files dns' > %[1]s/etc/nsswitch.conf
		mount --bind %[1]s/etc /etc
		mount -t tmpfs none /run
		echo ready
		exec sleep 1000`, dir)
	cmd := exec.Command("unshare", "--net", "--mount", "--", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no namespaces: %v", err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Skipf("no namespaces: %v", err)
	}
	return &Host{t, cmd.Process.Pid, filepath.Join(dir, "state")}
}

// Command is one that runs there.
func (h *Host) Command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"-t", fmt.Sprint(h.pid), "-n", "-m", "--"}, args...)...)
}

// Path is where the test finds a file of the host.
func (h *Host) Path(name string) string { return fmt.Sprintf("/proc/%d/root%s", h.pid, name) }

// KillAll kills all that runs there, and waits until it is gone.
func (h *Host) KillAll() {
	h.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		left := h.processes()
		if len(left) == 0 {
			return
		}
		if time.Since(began) > 5*time.Second {
			h.t.Fatalf("processes %v do not end", left)
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// processes are those of the host, but for the one that keeps it.
func (h *Host) processes() (all []int) {
	mounts := func(pid string) string {
		ns, _ := os.Readlink(filepath.Join("/proc", pid, "ns/mnt")) // of one that has ended there is none
		return ns
	}
	own := mounts(strconv.Itoa(h.pid))
	if own == "" || own == mounts("self") {
		h.t.Fatalf("the host's mounts are %q: nobody is to be killed by that", own)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != h.pid && mounts(e.Name()) == own {
			all = append(all, pid)
		}
	}
	return all
}

// Snapshot is all that a session may change.
func (h *Host) Snapshot() string {
	h.t.Helper()
	out, err := h.Command("sh", "-c", "ip route show table all; ip -6 route show table all; ip rule; ip -br link; cat /etc/resolv.conf; ls /etc").CombinedOutput()
	if err != nil {
		h.t.Fatalf("snapshot: %v: %s", err, out)
	}
	return string(out)
}

// Becomes waits until the host is as want says.
func (h *Host) Becomes(want string, limit time.Duration) {
	h.t.Helper()
	start := time.Now()
	got := h.Snapshot()
	for ; got != want && time.Since(start) < limit; got = h.Snapshot() {
		time.Sleep(10 * time.Millisecond)
	}
	if got != want {
		h.t.Errorf("after %v the host is\n%s\nand was\n%s", limit, got, want)
	}
	h.t.Logf("as before after %v", time.Since(start).Round(time.Millisecond))
}
