package daemon

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/client/localapi"
)

// somebody is a user who is not the daemon's.
const somebody = 65534

// asSomebody does something as another user, on a thread that is thrown away after
// it: on Linux each thread has its own.
func asSomebody(t *testing.T, do func() (string, error)) (string, error) {
	t.Helper()
	type result struct {
		text string
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with this
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), somebody, ^uintptr(0)); errno != 0 {
			done <- result{"", errno}
			return
		}
		text, err := do()
		done <- result{text, err}
	}()
	r := <-done
	return r.text, r.err
}

// asks sends a request over a socket of its own, all on the thread that calls.
func asks(socket string) func() (string, error) {
	return func() (string, error) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		f := os.NewFile(uintptr(fd), socket)
		defer f.Close()
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
			return "", err
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return "", err
		}
		if _, err := f.WriteString("GET /v1/status HTTP/1.1\r\nHost: " + localapi.Host + "\r\nConnection: close\r\n\r\n"); err != nil {
			return "", err
		}
		return bufio.NewReader(f).ReadString('\n')
	}
}

// TestOtherUsersAreRefused by the folder, by the socket itself, and where both were
// opened wide by the daemon, which asks the kernel who is there.
func TestOtherUsersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	_, socket, _ := start(t, &fakeHost{}, nil)
	for dir := filepath.Dir(filepath.Dir(socket)); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the test's own folders are not the point
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if answer, err := asSomebody(t, asks(socket)); !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %q, %v", what, answer, err)
		}
	}
	refused("a private folder")
	if err := os.Chmod(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	refused("a private socket")
	if err := os.Chmod(socket, 0o666); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if answer, err := asSomebody(t, asks(socket)); err == nil || answer != "" || time.Since(began) > 4*time.Second {
		t.Errorf("an open socket: %q, %v after %v", answer, err, time.Since(began))
	}
	if answer, err := asks(socket)(); err != nil || !strings.Contains(answer, "200 OK") {
		t.Errorf("the owner: %q, %v", answer, err)
	}
}
