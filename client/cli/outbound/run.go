package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"podnet.dev/client/cli/child"
	"podnet.dev/client/cli/exit"
	"podnet.dev/client/cli/session"
	"podnet.dev/client/localapi"
)

// lasting is something that a command needs for as long as it runs.
type lasting struct {
	// begin keeps it until ctx is done, and calls ready once it is there.
	begin func(ctx context.Context, ready func()) error
	// change adapts the command to it, once it is there. nil: nothing to adapt.
	change func(*Command)
	// end ends it, before begin's ctx is done; nil: that is all.
	end func(context.Context) error
	// lost says what it means that it ended before the command, fatal that the
	// command must not go on then.
	lost  string
	fatal bool
}

// during runs the command while something lasts.
func (x *execution) during(ctx context.Context, l lasting, by Runner, command Command) error {
	calls, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	beginning := context.AfterFunc(ctx, hangUp)
	ready, over := make(chan struct{}), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { over <- l.begin(calls, sync.OnceFunc(func() { close(ready) })) })
	defer wg.Wait()
	defer hangUp()
	select {
	case <-ready:
	case err := <-over:
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	beginning() // the command hears of an interrupt itself, and must not lose its ground before
	if l.end != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := l.end(ctx); err != nil && session.NotConnected(err).Code != localapi.CodeNotFound && session.NotConnected(err).Code != localapi.CodeNotConnected {
				fmt.Fprintf(x.env.Err, "warning: what exec began may go on for a while: %v\n", err)
			}
		}()
	}
	if l.change != nil {
		l.change(&command)
	}
	return x.carryOut(ctx, by, command, l.fatal, over, l.lost)
}

// carryOut runs the command and returns its exit status. over gets what ended its ground
// before it, and lost says what that means; if that is fatal the command ends as well.
func (x *execution) carryOut(ctx context.Context, by Runner, command Command, fatal bool, over <-chan error, lost string) error {
	files, copied, err := x.files()
	if err != nil {
		return err
	}
	command.Files = files
	signals := make(chan os.Signal, 16)
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		status, err := by.Run(context.WithoutCancel(ctx), command, signals)
		done <- result{status, err}
	}()
	told, interrupted := (<-chan os.Signal)(nil), ctx.Done()
	if x.env.Signals != nil { // which say more than that ctx is done
		all, stop := x.env.Signals()
		defer stop()
		told, interrupted = all, nil
	}
	var impatience <-chan time.Time
	end := func() {
		signals <- syscall.SIGTERM
		impatience = time.After(child.EndTime)
	}
	ended := false
	for {
		select {
		case sig := <-told:
			if command.Foreground && (sig == os.Interrupt || sig == syscall.SIGQUIT) {
				continue // the terminal has told the command, too
			}
			select {
			case signals <- sig:
			default: // it has had sixteen that it did not take
			}
		case <-interrupted:
			interrupted = nil
			end()
		case <-impatience:
			signals <- syscall.SIGKILL
		case err := <-over:
			over = nil
			if ctx.Err() != nil && x.env.Signals == nil || err == nil && !fatal {
				continue
			}
			fmt.Fprintf(x.env.Err, "warning: %s: %v\n", lost, cmp.Or(err, io.EOF))
			if fatal {
				fmt.Fprintln(x.env.Err, "warning: the command must not go on without it, and is told to end")
				ended = true
				end()
			}
		case r := <-done:
			copied()
			var errno syscall.Errno
			switch {
			case r.err != nil && errors.As(r.err, &errno):
				return exit.With(&localapi.Error{Code: localapi.CodeUsage, Message: "the command does not start: " + errno.Error(), Hint: "-- COMMAND...; a line of shell is -- sh -c '...'"}, notRun(errno))
			case r.err != nil:
				return r.err
			case ended:
				return exit.Status(Failed)
			case r.status == 0:
				return nil
			}
			return exit.Status(r.status)
		}
	}
}

// files are what the command reads and writes: ours, or pipes to what is no file. copied
// closes our ends and waits until all that the command wrote is where it belongs.
func (x *execution) files() (_ [3]*os.File, copied func(), err error) {
	var files, ours [3]*os.File
	var copies sync.WaitGroup
	closeAll := func() {
		for _, f := range ours {
			if f != nil {
				_ = f.Close()
			}
		}
	}
	for i, end := range []any{x.env.In, x.env.Out, x.env.Err} {
		if f, ok := end.(*os.File); ok {
			files[i] = f
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			closeAll()
			return files, nil, err
		}
		if i == 0 {
			files[i], ours[i] = r, r
			go func() { // until the command has ended: it may never read all
				_, _ = io.Copy(w, end.(io.Reader))
				_ = w.Close()
			}()
			continue
		}
		files[i], ours[i] = w, w
		copies.Go(func() {
			_, _ = io.Copy(end.(io.Writer), r)
			_ = r.Close()
		})
	}
	return files, func() { closeAll(); copies.Wait() }, nil
}

// shared is a writer that is no file, for several to write to.
type shared struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *shared) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// here runs commands in this machine's network, as this process's children.
type here struct{}

func (here) Run(_ context.Context, c Command, signals <-chan os.Signal) (int, error) {
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Files[0], Stdout: c.Files[1], Stderr: c.Files[2]}
	if !c.Foreground {
		ownGroup(cmd)
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case sig := <-signals:
			_ = sendSignal(cmd, sig, !c.Foreground)
		case err := <-done:
			var failed *exec.ExitError
			if err != nil && !errors.As(err, &failed) {
				return 0, err
			}
			return statusOf(cmd.ProcessState), nil
		}
	}
}
