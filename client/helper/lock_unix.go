//go:build unix

package helper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTime is how long a new session waits for the guard of a killed one, or
// for a session that is being undone.
const lockTime = 3 * time.Second

// lockState takes the right to change this host, which the kernel gives back
// when we die.
func lockState(ctx context.Context, dir string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	for {
		unlock, err := tryLockState(dir)
		var busy *BusyError
		if !errors.As(err, &busy) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func tryLockState(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, &PrivilegeError{err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &BusyError{path}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}

// ownSession keeps a signal to our process group, Ctrl-C, from the guard.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
