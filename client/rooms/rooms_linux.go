// Package rooms gives the command line its rooms: a sandbox for commands, a session in
// it that is this process's own, and a process that keeps both for several commands.
package rooms

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/client"
	"podnet.dev/client/cli/outbound"
	"podnet.dev/client/cluster"
	"podnet.dev/client/localapi"
	"podnet.dev/client/osdns"
	"podnet.dev/client/rootless"
	"podnet.dev/client/sandbox"
	"podnet.dev/internal/httpjson"
	"podnet.dev/internal/nocore"
)

// rooms are sandboxes.
type rooms struct{ log *slog.Logger }

// New are the rooms of this system. What goes wrong in one while commands run is told
// to log.
func New(log *slog.Logger) outbound.Rooms { return rooms{log} }

func (rooms) Agent() error { return sandbox.Agent() }

func (r rooms) Open(ctx context.Context, o outbound.RoomOptions) (outbound.Room, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the podnet program: %w", err)
	}
	s, err := sandbox.Open(ctx, sandbox.Options{Agent: []string{exe, "exec-agent"}, Isolate: o.Isolate, Publish: o.Publish, Log: r.log})
	if err != nil {
		return nil, err
	}
	return &room{Sandbox: s, runs: runs{s}, log: r.log}, nil
}

// runner is what runs commands in a sandbox: ours, or another process.
type runner interface {
	Run(ctx context.Context, c sandbox.Command, signals <-chan os.Signal) (sandbox.Exit, error)
}

// runs is a runner, in the words of the command line.
type runs struct{ in runner }

func (r runs) Run(ctx context.Context, c outbound.Command, signals <-chan os.Signal) (int, error) {
	e, err := r.in.Run(ctx, sandbox.Command{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Foreground: c.Foreground, Files: c.Files}, signals)
	return e.Status(), err
}

type room struct {
	*sandbox.Sandbox
	runs
	log *slog.Logger
}

// Run is that of runs: both have one.
func (r *room) Run(ctx context.Context, c outbound.Command, signals <-chan os.Signal) (int, error) {
	return r.runs.Run(ctx, c, signals)
}

// Connect is a session that notes its objects nowhere: others of this user may run
// beside it, and when it is killed its lease ends. Its keys are in this process, which has
// made the sandbox's user namespace by now: one that may leave no core could not.
func (r *room) Connect(ctx context.Context, req localapi.ConnectRequest, events func(localapi.Event), ready func()) error {
	if err := nocore.Forbid(); err != nil {
		r.log.Warn("a crash may leave a core with keys in it", "err", err)
	}
	host := r.Session(osdns.Resolvers(osdns.Options{}))
	return rootless.On(ctx, host, client.Config{
		Request: req, Events: events, Log: r.log,
		OpenCluster: func(kube localapi.Kube) (client.Cluster, error) { return cluster.Open(kube, r.log) },
	}, ready)
}

// roomPath is the socket of a sandbox that is kept.
func roomPath(name string) string { return filepath.Join(localapi.RuntimeDir(), "exec-"+name+".sock") }

type joined struct {
	*sandbox.Joined
	runs
}

func (j joined) Run(ctx context.Context, c outbound.Command, signals <-chan os.Signal) (int, error) {
	return j.runs.Run(ctx, c, signals)
}

func (rooms) Join(name string) (outbound.JoinedRoom, error) {
	j, err := sandbox.Join(roomPath(name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return joined{j, runs{j}}, nil
}

// keepIdle is how long a sandbox is kept in which nothing runs: between two steps of a
// pipeline there may be one that builds something.
const keepIdle = 15 * time.Minute

// kept is one line of the keeper's to who has started it.
type kept struct {
	Event   *localapi.Event `json:"event,omitempty"`
	Ready   bool            `json:"ready,omitempty"`
	Error   *localapi.Error `json:"error,omitempty"`
	Blocked *blockedRoom    `json:"blocked,omitempty"`
}

// blockedRoom is a sandbox.BlockedError on its way.
type blockedRoom struct {
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

func (e *blockedRoom) Error() string { return e.Text }
func (e *blockedRoom) Hint() string  { return e.Advice }
func (e *blockedRoom) Blocked()      {}

func (rooms) Start(ctx context.Context, k outbound.KeptRoom, events func(localapi.Event)) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the podnet program: %w", err)
	}
	cmd := exec.Command(exe, "exec-keep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives our terminal
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the sandbox's keeper: %w", err)
	}
	defer out.Close()
	defer context.AfterFunc(ctx, func() { _ = in.Close(); _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if err := json.NewEncoder(in).Encode(k); err != nil {
		return fmt.Errorf("start the sandbox's keeper: %w", err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var l kept
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("read what the sandbox's keeper says: %w", err)
		}
		switch {
		case l.Event != nil:
			events(*l.Event)
		case l.Blocked != nil:
			return l.Blocked
		case l.Error != nil:
			return l.Error
		case l.Ready:
			return nil
		}
	}
	_ = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("the sandbox's keeper has ended before it was ready")
}

// Keep makes a sandbox as standard input says, tells on standard output how far it is,
// and keeps it. Another keeper of the same name is left alone: it is ready, or will be.
func (r rooms) Keep(ctx context.Context) error {
	var k outbound.KeptRoom
	say := func(l kept) { _ = json.NewEncoder(os.Stdout).Encode(l) }
	if err := json.NewDecoder(os.Stdin).Decode(&k); err != nil {
		return err
	}
	err := r.keep(ctx, k, say)
	var blocked *sandbox.BlockedError
	switch {
	case errors.As(err, &blocked):
		say(kept{Blocked: &blockedRoom{blocked.Error(), blocked.Hint()}})
	case err != nil:
		say(kept{Error: httpjson.FromError(err)})
	}
	return nil
}

func (r rooms) keep(ctx context.Context, k outbound.KeptRoom, say func(kept)) error {
	path := roomPath(k.Name)
	if err := localapi.MakePrivateDir(filepath.Dir(path)); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // while another one begins, or ends
		return err
	}
	if other, err := sandbox.Join(path); err == nil {
		say(kept{Ready: true})
		return other.Close()
	}
	made, err := r.Open(ctx, k.RoomOptions)
	if err != nil {
		return err
	}
	defer made.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ready, over := make(chan struct{}), make(chan error, 1)
	go func() {
		over <- made.Connect(ctx, k.Request, func(e localapi.Event) { say(kept{Event: &e}) }, func() { close(ready) })
		stop()
	}()
	select {
	case <-ready:
	case err := <-over:
		return err
	}
	_ = os.Remove(path)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		stop()
		<-over
		return err
	}
	say(kept{Ready: true})
	_ = os.Stdout.Close()
	_ = unix.Flock(int(lock.Fd()), unix.LOCK_UN)
	err = made.(*room).Keep(ctx, l, keepIdle)
	stop()
	return errors.Join(err, <-over)
}
