package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/client/helper"
	"podnet.dev/client/router"
)

// agentFD is the descriptor of the socket to the parent.
const agentFD = 3

// Interfaces of a sandbox.
const (
	tunnelName  = "podnet0"
	outsideName = "host0"
)

// lookUpTime is how long a name is waited for.
const lookUpTime = 4 * time.Second

// Agent is the process inside. It returns when its parent is gone, or lets go of it.
func Agent() error {
	// What a terminal sends to its group is the commands' to heed. A signal that is
	// caught here is as ever for them, one that is ignored would be ignored.
	deaf := make(chan os.Signal, 1)
	signal.Notify(deaf, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE)
	unix.CloseOnExec(agentFD)
	w, err := wireOf(os.NewFile(agentFD, "parent"))
	if err != nil {
		return err
	}
	defer w.close()
	procs, err := newProcesses()
	if err != nil {
		return err
	}
	defer procs.killAll()
	a := &agent{wire: w, procs: procs}
	for {
		var r request
		if err := w.decoder.Decode(&r); err != nil {
			return nil // nobody is there to be told
		}
		fds, err := w.claim(r.Files)
		if err != nil {
			return err
		}
		a.do(r, fds)
	}
}

// agent does what its parent asks for, one thing at a time but for what takes long.
type agent struct {
	wire   *wire
	procs  *processes
	router router.Router
	resolv *os.File // what is /etc/resolv.conf
}

// answer sends a reply, with the descriptors, which are closed here.
func (a *agent) answer(r reply, err error, fds ...int) {
	if err != nil {
		r.Failure = failureOf(err)
	}
	r.Files = len(fds)
	_ = a.wire.send(r, fds...)
	descriptors(fds).close()
}

func failureOf(err error) *failure {
	f := &failure{Text: err.Error()}
	var known *failure
	if errors.As(err, &known) {
		*f = *known
	}
	errors.As(err, &f.Errno)
	return f
}

func (a *agent) do(r request, fds descriptors) {
	out := reply{ID: r.ID}
	switch {
	case r.Begin != nil:
		tunnel, outside, err := a.begin(*r.Begin)
		if err != nil {
			a.answer(out, err)
			return
		}
		a.answer(out, nil, tunnel, outside)
	case r.Network != nil:
		err := a.router.Set(*r.Network)
		if !errors.As(err, &out.Conflict) {
			out.Conflict = nil
		}
		a.answer(out, err)
	case r.Resolv != nil:
		a.answer(out, rewrite(a.resolv, []byte(*r.Resolv)))
	case r.LookUp != "":
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), lookUpTime)
			defer cancel()
			var err error
			out.Addrs, err = net.DefaultResolver.LookupNetIP(ctx, "ip", r.LookUp)
			a.answer(out, err)
		}()
	case r.Socket != nil:
		fd, err := unix.Socket(r.Socket.Family, r.Socket.Type|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			a.answer(out, os.NewSyscallError("socket", err))
			return
		}
		a.answer(out, nil, fd)
	case r.Reset != nil:
		var err error
		out.Count, err = helper.ResetFlows(r.Reset)
		a.answer(out, err)
	case r.Run != nil:
		defer fds.close()
		if len(fds) != len(r.Run.Files) {
			a.answer(out, errors.New("a command needs three files"))
			return
		}
		ended, err := a.procs.start(r.ID, *r.Run, fds)
		if err != nil {
			a.answer(out, err)
			return
		}
		go func() {
			e := <-ended
			out.Exit = &e
			a.answer(out, nil)
		}()
	case r.Signal != 0:
		a.procs.signal(r.Of, r.Signal)
	default:
		a.answer(out, errors.New("nothing that is known was asked for"))
	}
}

// begin makes the room. Errors are *failure.
func (a *agent) begin(b beginning) (tunnel, outside int, err error) {
	step := func(attempt string, err error) error {
		if err == nil {
			return nil
		}
		f := failureOf(err)
		f.Attempt = attempt
		return f
	}
	if a.router, err = router.New(); err != nil {
		return -1, -1, step("speak to the kernel's network", err)
	}
	if tunnel, err = openTUN(tunnelName); err != nil {
		return -1, -1, step("make a TUN device", err)
	}
	if outside, err = openTUN(outsideName); err == nil {
		err = step("set up the network inside", wireUp(b))
	} else {
		err = step("make a TUN device", err)
	}
	if err == nil {
		a.resolv, err = privateFiles(b)
		err = step("have an /etc/resolv.conf of its own", err)
	}
	if err != nil {
		descriptors{tunnel, outside}.close()
		return -1, -1, err
	}
	likeInAPod()
	return tunnel, outside, nil
}

// rewrite changes what is in a file, for all who have opened it.
func rewrite(f *os.File, content []byte) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(content, 0)
	return err
}
