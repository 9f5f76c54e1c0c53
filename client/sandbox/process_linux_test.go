package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/testpod"
)

// TestCommandKeepsItself: user, files and exit status are as outside, privileges are
// none, and the network is its own.
func TestCommandKeepsItself(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		outside, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		s := openTest(t, Options{})
		out, _ := shell(t, s, "id -u; id -g; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; readlink /proc/self/ns/net; cat /etc/resolv.conf; pwd")
		for _, want := range []string{
			fmt.Sprintf("%d\n%d\n", os.Getuid(), os.Getgid()), "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
			"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "nameserver 198.19.0.3\noptions ndots:5\n", "\n/\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		if strings.Contains(out, outside) {
			t.Error("it has this machine's network")
		}
		if _, e := shell(t, s, "exit 7"); e.Status() != 7 {
			t.Errorf("exit status %d", e.Status())
		}
		if _, e := shell(t, s, "kill -9 $$"); e.Status() != 137 {
			t.Errorf("exit status %d", e.Status())
		}
		dir := t.TempDir()
		file := filepath.Join(dir, "made")
		if out, e := shell(t, s, "echo inside > "+file); e.Status() != 0 {
			t.Error(out)
		}
		if b, err := os.ReadFile(file); string(b) != "inside\n" {
			t.Errorf("%q, %v", b, err)
		}
		out, _ = shell(t, s, "ls /run/systemd/resolve /run/nscd 2>/dev/null; grep ^hosts: /etc/nsswitch.conf; tail -n1 /etc/hosts")
		if !strings.Contains(out, "198.19.0.2 host.podnet.internal") || strings.Contains(out, "io.systemd") || strings.Contains(out, "socket") ||
			strings.Contains(out, "hosts:") && !strings.Contains(out, "hosts: files dns\n") {
			t.Errorf("names are asked for otherwise:\n%s", out)
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		for path, want := range map[string]error{"/nonexistent": unix.ENOENT, "/etc/passwd": unix.EACCES} {
			if _, err := s.Run(t.Context(), Command{Path: path, Args: []string{path}, Files: [3]*os.File{null, null, null}}, nil); !errors.Is(err, want) {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

// TestSignals reach the command, which has a process group of its own, and what it
// leaves behind ends with the sandbox.
func TestSignals(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		s := openTest(t, Options{})
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		signals := make(chan os.Signal, 1)
		go func() {
			b := make([]byte, 16)
			_, _ = r.Read(b) // it is waiting
			signals <- syscall.SIGUSR1
		}()
		e, err := s.Run(t.Context(), Command{Path: "/proc/self/exe", Args: []string{"podnet", "trap"}, Env: os.Environ(), Files: [3]*os.File{null, w, null}}, signals)
		w.Close()
		if e.Status() != 42 || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if e, err := s.Run(ctx, Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, Files: [3]*os.File{null, null, null}}, nil); e.Signal != int(unix.SIGTERM) || err != nil {
			t.Errorf("%+v, %v", e, err)
		}
		out, e := shell(t, s, "sleep 60 >/dev/null 2>&1 & echo $!")
		var left int
		if _, err := fmt.Sscan(out, &left); err != nil || e.Status() != 0 {
			t.Fatalf("%s: %v", out, err)
		}
		if err := unix.Kill(left, 0); err != nil {
			t.Errorf("what runs on in the background has ended with its shell: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(5 * time.Second); unix.Kill(left, 0) == nil; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it outlives the sandbox")
			}
		}
	})
}

// TestTerminal belongs to the command: it reads what is typed, and Ctrl-C is for it.
func TestTerminal(t *testing.T) {
	testpod.AsNobody(t, func(t *testing.T) {
		_ = openTest(t, Options{}).Close()
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no terminal: %v", err)
		}
		defer master.Close()
		number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
		if err == nil {
			err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "terminal")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = slave.Close()
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		seen := ""
		until := func(what string) {
			t.Helper()
			b := make([]byte, 4096)
			for !strings.Contains(seen, what) {
				n, err := master.Read(b)
				if seen += string(b[:max(n, 0)]); err != nil {
					t.Fatalf("%q is not in %q: %v", what, seen, err)
				}
			}
		}
		until("at a terminal")
		_, _ = master.WriteString("hello\n")
		until("got hello")
		_, _ = master.WriteString("\x03")
		until("exit status 9, <nil>")
	})
}
