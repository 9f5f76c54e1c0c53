package config

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSomebodyElsesHome: who has another user's HOME, as under sudo -u, and may not
// look into it has no configuration.
func TestSomebodyElsesHome(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	s := Store{User: put(t, filepath.Join(t.TempDir(), "private", "config.yaml"), head+"defaults: {path: udp}\n")}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread, which is somebody else from here on, ends with this
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); errno != 0 {
			done <- errno
			return
		}
		c, err := s.Load()
		if c.Flag("path") != "" {
			t.Error("it was read all the same")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
