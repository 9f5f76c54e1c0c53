package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/client/proxy"
	"podnet.dev/client/userspace"
)

// Options of Open.
type Options struct {
	// Agent is the command that calls Agent in a process of its own.
	Agent []string
	// Isolate keeps the internet and this machine out of reach: there is the cluster,
	// and whoever answers DNS.
	Isolate bool
	// Publish are ports of this machine that lead to programs inside.
	Publish []proxy.Forward
	Log     *slog.Logger
}

// Sandbox is a room that is there until Close.
type Sandbox struct {
	*caller // of the agent
	opts    Options
	cmd     *exec.Cmd
	dns     *userspace.DNS
	outside *outside
	stop    context.CancelFunc
	serves  sync.WaitGroup
	ports   []proxy.Forward

	closing sync.Once

	mu      sync.Mutex
	servers []netip.Addr // whom programs ask, as the session calls them
	tunnel  int          // the descriptor of podnet0 until a session takes it, -1 after
}

// beginTime is how long the agent may take to make the room: 20 ms are usual.
const beginTime = 10 * time.Second

// Open makes a Sandbox. A *BlockedError says that there is none to be had here.
func Open(ctx context.Context, o Options) (_ *Sandbox, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ports, err := open(ctx, o.Publish)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{opts: o, dns: userspace.NewDNS(), tunnel: -1}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	begun := false
	defer func() {
		if err == nil {
			return
		}
		s.stop()
		if begun {
			_ = s.Close()
		}
		for _, p := range ports {
			_ = p.Close()
		}
	}()
	if err := s.begin(); err != nil {
		return nil, err
	}
	begun = true
	out, err := s.ask(ctx, request{Begin: &beginning{Isolate: o.Isolate, Six: hasSix()}})
	if err != nil {
		return nil, blocked(err)
	}
	s.tunnel = out.fds[0]
	if s.outside, err = openOutside(out.fds[1], s.rewrite, o); err != nil {
		return nil, err
	}
	s.serves.Go(func() { s.outside.run(ctx) })
	for _, p := range ports {
		s.ports = append(s.ports, p.Forward)
		s.serves.Go(func() {
			if err := p.Serve(ctx, s.DialInside, o.Log); err != nil {
				o.Log.Error("published port failed", "addr", p.Listen, "err", err)
			}
		})
	}
	return s, nil
}

// open takes the ports that are to be published.
func open(ctx context.Context, all []proxy.Forward) (ports []*proxy.Forwarding, err error) {
	for _, f := range all {
		p, err := f.Open(ctx)
		if err != nil {
			for _, p := range ports {
				_ = p.Close()
			}
			return nil, &PortError{f, err}
		}
		ports = append(ports, p)
	}
	return ports, nil
}

// PortError says that a port of this machine is not to be had.
type PortError struct {
	Port proxy.Forward
	Err  error
}

func (e *PortError) Error() string { return fmt.Sprintf("publish %s: %v", e.Port.Listen, e.Err) }
func (e *PortError) Unwrap() error { return e.Err }
func (e *PortError) Code() string  { return "conflict" }
func (e *PortError) Hint() string {
	_, port, _ := strings.Cut(e.Port.To, ":")
	return "--publish 0:" + port + " takes any free port"
}

// begin starts the agent in its namespaces.
func (s *Sandbox) begin() error {
	w, far, err := socketPair()
	if err != nil {
		return err
	}
	defer far.Close()
	own := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}
	}
	s.cmd = exec.Command(s.opts.Agent[0], s.opts.Agent[1:]...)
	s.cmd.Dir, s.cmd.Stderr, s.cmd.ExtraFiles = "/", os.Stderr, []*os.File{far}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: own(os.Geteuid()), GidMappings: own(os.Getegid()),
		// Whoever is not root keeps none but these through execve: for the network, and
		// to mount.
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_SYS_ADMIN},
	}
	if err := s.cmd.Start(); err != nil {
		w.close()
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return blocked(&failure{Attempt: "make a user, network and mount namespace", Text: err.Error(), Errno: errnoOf(err)})
	}
	s.caller = newCaller(w)
	s.serves.Go(func() {
		if err := s.hear(); err != nil {
			s.opts.Log.Error("sandbox agent", "err", err)
		}
		_ = s.cmd.Wait()
	})
	return nil
}

func errnoOf(err error) (e syscall.Errno) {
	errors.As(err, &e)
	return e
}

// Published are the ports of this machine that lead inside.
func (s *Sandbox) Published() []proxy.Forward { return s.ports }

// Close ends all that runs inside, and gives everything back.
func (s *Sandbox) Close() error {
	s.closing.Do(func() {
		s.stop()
		s.wire.close() // which the agent hears
		s.serves.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.tunnel >= 0 {
			_ = unix.Close(s.tunnel)
			s.tunnel = -1
		}
	})
	return nil
}

// hasSix says whether this machine has a way to the internet by IPv6. Nothing is sent.
func hasSix() bool {
	c, err := net.Dial("udp6", "[2001:4860:4860::8888]:53")
	if err != nil {
		return false
	}
	return c.Close() == nil
}
