package helper

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A guard is a process that outlives ours by the moment it takes to clean up.
//
//	session alive --- pipe open ------> guard waits
//	killed        --- pipe ends ------> guard takes the lock, cleans up, ends
//	closed        --- farewell, end --> guard ends
//
// The kernel takes the TUN device away with its last file descriptor, and the
// addresses and routes with the device. The guard is for what is left:
// /etc/resolv.conf, a device that another process was given, and one of the kernel's
// WireGuard.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// farewell is what a session that has cleaned up itself says to its guard.
const farewell = "done\n"

// guardTime is how long a guard may take to end.
const guardTime = 10 * time.Second

func startGuard(argv []string) (*guard, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = ownSession()
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &guard{cmd, pipe}, nil
}

// stop lets the guard go and waits for it.
func (g *guard) stop() error {
	t := time.AfterFunc(guardTime, func() { _ = g.cmd.Process.Kill() })
	defer t.Stop()
	_, _ = io.WriteString(g.pipe, farewell) // a guard that is gone needs none
	_ = g.pipe.Close()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("the guard: %w", err)
	}
	return nil
}

// Guard waits until nobody holds the other end of in any more and then cleans
// up. It is the whole of the guard's process.
func Guard(stateDir string, in io.Reader) error {
	said, err := io.ReadAll(io.LimitReader(in, int64(len(farewell))))
	if err != nil {
		return fmt.Errorf("wait for the session: %w", err)
	}
	if string(said) == farewell {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), guardTime)
	defer cancel()
	// The kernel may close a dying process' end of the pipe before it gives the
	// lock back. If it stays taken, a new session has it, and has cleaned up.
	unlock, err := lockState(ctx, stateDir)
	return takeBackUnder(ctx, stateDir, unlock, err)
}
