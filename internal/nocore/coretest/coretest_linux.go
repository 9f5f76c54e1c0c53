// Package coretest ends programs as a fault in them would, and looks for the cores that
// they leave.
package coretest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pattern says where this machine writes cores. It is the machine's: tests read it only.
const pattern = "/proc/sys/kernel/core_pattern"

// Needs skips the test on a machine that writes cores elsewhere than into the folder
// where a program is, or none at all.
func Needs(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile(pattern)
	if err != nil {
		t.Skip(err)
	}
	if name := strings.TrimSpace(string(text)); !strings.HasPrefix(name, "core") || strings.Contains(name, "/") {
		t.Skipf("this machine's cores go to %q", name)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil || l.Max == 0 {
		t.Skipf("nothing here may leave a core: %+v, %v", l, err)
	}
}

// Of starts a program in a folder of its own, lets it leave a core, waits until it has
// said that it is ready and ends it by the signal. It returns the cores that it has left.
func Of(t testing.TB, cmd *exec.Cmd, signal syscall.Signal, ready string) [][]byte {
	t.Helper()
	Needs(t)
	allow(t)
	cmd.Dir = t.TempDir()
	cmd.Env = append(cmd.Environ(), "GOTRACEBACK=crash") // else Go exits in place of dying
	said := new(saying)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = said, said, 10*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	for begin := time.Now(); !strings.Contains(said.String(), ready); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("%s does not say %q: %s", cmd, ready, said)
		}
	}
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	over := make(chan error, 1)
	go func() { over <- cmd.Wait() }()
	select {
	case err := <-over:
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
			t.Fatalf("%s did not die of a signal: %v\n%s", cmd, err, said)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s lives on after %v", cmd, signal)
	}
	var cores [][]byte
	files, err := filepath.Glob(filepath.Join(cmd.Dir, "core*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		cores = append(cores, text)
	}
	return cores
}

// allow lets what is started from now on, until the test ends, leave cores of any size.
func allow(t testing.TB) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &was); err != nil {
		t.Fatal(err)
	}
	set := func(l unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: was.Max, Max: was.Max})
	t.Cleanup(func() { set(was) })
}

// Self is this test binary, to be run once more with a variable that says what to be.
func Self(t testing.TB, variable string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), variable)
	return cmd
}

// saying is what a program says.
type saying struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (s *saying) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(b)
}

func (s *saying) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}
