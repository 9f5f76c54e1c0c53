package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Keep lets other processes of this user run commands in the sandbox, by a unix socket,
// until ctx is done, one of them asks for the end, or nobody has run anything for idle.
// It owns l.
func (s *Sandbox) Keep(ctx context.Context, l *net.UnixListener, idle time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	k := &keeper{room: s.caller, stop: stop, idle: idle}
	k.timer = time.AfterFunc(idle, stop)
	defer k.timer.Stop()
	defer k.calls.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close()
			}
			return nil
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE):
			time.Sleep(100 * time.Millisecond) // others will close some
			continue
		case err != nil:
			return err
		}
		if !mine(c) {
			_ = c.Close()
			continue
		}
		k.calls.Go(func() { k.serve(ctx, c) })
	}
}

// mine says whether the process at the other end is this user's.
func mine(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var who *unix.Ucred
	if e := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return false
	}
	return int(who.Uid) == os.Geteuid()
}

// keeper is one Keep.
type keeper struct {
	room  *caller
	stop  context.CancelFunc
	idle  time.Duration
	calls sync.WaitGroup

	mu      sync.Mutex
	running int
	timer   *time.Timer
}

// busy counts the commands that run; the last one's end starts the clock.
func (k *keeper) busy(more int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.running += more; k.running == 0 {
		k.timer.Reset(k.idle)
	} else {
		k.timer.Stop()
	}
}

// serve does what one process asks for, until that is gone, and its commands with it.
func (k *keeper) serve(ctx context.Context, c *net.UnixConn) {
	w := newWire(c)
	var commands sync.WaitGroup
	defer commands.Wait()
	gone, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	defer w.close()
	defer context.AfterFunc(ctx, w.close)()
	signals := map[uint64]chan os.Signal{}
	for {
		var r request
		if w.decoder.Decode(&r) != nil {
			return
		}
		fds, err := w.claim(r.Files)
		if err != nil {
			return
		}
		switch {
		case r.Run != nil && len(fds) == len(r.Run.Files):
			to := make(chan os.Signal, 16)
			signals[r.ID] = to
			files := [3]*os.File{}
			for i, fd := range fds {
				files[i] = os.NewFile(uintptr(fd), fmt.Sprint("file ", i))
			}
			k.busy(1)
			commands.Go(func() {
				defer k.busy(-1)
				defer func() {
					for _, f := range files {
						_ = f.Close()
					}
				}()
				what := *r.Run
				what.Files = files
				defer context.AfterFunc(gone, func() { to <- syscall.SIGKILL })()
				e, err := k.room.Run(context.Background(), what, to)
				out := reply{ID: r.ID}
				if out.Exit = &e; err != nil {
					out.Exit, out.Failure = nil, failureOf(err)
				}
				_ = w.send(out)
			})
			continue
		case r.Signal != 0 && signals[r.Of] != nil:
			select {
			case signals[r.Of] <- r.Signal:
			default: // so many at once say no more than some
			}
		case r.End:
			_ = w.send(reply{ID: r.ID})
			k.stop()
		default:
			_ = w.send(reply{ID: r.ID, Failure: &failure{Text: "nothing that is known was asked for"}})
		}
		fds.close()
	}
}

// Joined is a sandbox that another process keeps.
type Joined struct {
	*caller
	heard sync.WaitGroup
}

// Join finds the sandbox that somebody keeps at a path. The error is fs.ErrNotExist or
// ECONNREFUSED where there is none.
func Join(path string) (*Joined, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if !mine(c) {
		_ = c.Close()
		return nil, fmt.Errorf("%s belongs to somebody else", path)
	}
	j := &Joined{caller: newCaller(newWire(c))}
	j.heard.Go(func() { _ = j.hear() })
	return j, nil
}

// End asks for the end of the sandbox.
func (j *Joined) End(ctx context.Context) error {
	_, err := j.ask(ctx, request{End: true})
	return err
}

// Close leaves the sandbox; commands that still run end.
func (j *Joined) Close() error {
	j.wire.close()
	j.heard.Wait()
	return nil
}
