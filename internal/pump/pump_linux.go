package pump

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// readSize is how much is read at once, and how much may wait in each direction
	// for who does not take it.
	readSize = 32 << 10
	// turns is how often a pump looks for what is ready before it lets Go's scheduler
	// look for what other goroutines wait for: that one does not ask the network as
	// long as there is somebody who wants to run.
	turns = 16
	// few are so few connections in a turn that it is not worth to look for more at
	// once.
	few = 2
	// maxEvents is how many connections are taken up in a turn.
	maxEvents = 128
	// edges is what is asked for of each connection, once and for all.
	edges = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	// unusual is what says that there may be more behind a short read: the end, an
	// error, or urgent data, at which a read stops.
	unusual = unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

// Pump carries flows.
type Pump struct {
	fd    int // the epoll instance, in which all connections are
	file  *os.File
	ready syscall.RawConn // of file: Go's scheduler wakes Run when something is ready
	wake  int             // an eventfd among the connections

	mu       sync.Mutex
	closed   bool
	arrivals []*pair

	// Of Run.
	ends   []*end // by file descriptor
	unread []*end // that may have something to read
	spare  []*end // of the turn before
	events [maxEvents]unix.EpollEvent
	buf    []byte
}

// pair is a flow and its two connections. It leaves when something is held of it
// and nothing waits, and ends when both connections have.
type pair struct {
	client, app end
	flow        Flow
	told        bool // the app knows that the client sends no more
	over        bool // it has left, or ended
}

// end is one of the connections of a pair.
type end struct {
	*pair
	peer    *end
	fd      int
	queued  bool   // it is in unread
	unread  bool   // there may be something to read
	unusual bool   // and one read may not be all of it
	eof     bool   // it sends no more
	held    bool   // it is not read any more, as the pair has to leave
	rest    []byte // what was read of it and is not passed on
	waiting []byte // what is to be written to it
}

// New returns a Pump that carries nothing before Run.
func New() (*Pump, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or os would not wait for it
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	p := &Pump{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), buf: make([]byte, readSize)}
	if p.ready, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		p.file.Close()
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := p.watch(p.wake, unix.EPOLLIN|unix.EPOLLET); err != nil {
		p.file.Close()
		unix.Close(p.wake)
		return nil, err
	}
	return p, nil
}

func (p *Pump) watch(fd int, events uint32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}))
}

// Add has a flow carried. first is passed on to the app before anything else: it was
// read of the client before, and the flow has seen it. With an error Add has done
// nothing, else both connections are the Pump's.
func (p *Pump) Add(client, app *net.TCPConn, first []byte, flow Flow) error {
	f := &pair{flow: flow}
	f.client = end{pair: f, peer: &f.app}
	f.app = end{pair: f, peer: &f.client, waiting: bytes.Clone(first)}
	var err error
	if f.client.fd, err = take(client); err != nil {
		return err
	}
	if f.app.fd, err = take(app); err != nil {
		unix.Close(f.client.fd)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		unix.Close(f.client.fd)
		unix.Close(f.app.fd)
		return ErrClosed
	}
	client.Close()
	app.Close()
	p.arrivals = append(p.arrivals, f)
	p.wakeUpLocked()
	return nil
}

// take returns a descriptor of our own of a connection: that of package net, once
// it is closed, is not waited for by Go's scheduler any more.
func take(c *net.TCPConn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = errors.Join(raw.Control(func(of uintptr) {
		fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0)
	}), err)
	return fd, os.NewSyscallError("dup", err)
}

func (p *Pump) wakeUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wakeUpLocked()
}

// wakeUpLocked ends a wait of Run. The eventfd is never read: each write is an edge.
func (p *Pump) wakeUpLocked() {
	if !p.closed { // or the descriptor may be somebody else's
		unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Run carries flows until ctx ends, and then closes those that are left.
func (p *Pump) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.wakeUp)
	defer func() {
		stop()
		p.close()
	}()
	var failed error
	// One Read for all: between two of them what is ready would be forgotten.
	waited := p.ready.Read(func(uintptr) (over bool) {
		over, failed = p.carryReady(ctx)
		return over
	})
	return errors.Join(failed, waited)
}

// carryReady carries what is ready, until nothing is or others have to have their
// turn. It reports true when Run is over.
func (p *Pump) carryReady(ctx context.Context) (over bool, err error) {
	for range turns {
		n, err := p.poll()
		if ctx.Err() != nil || err != nil {
			return true, err
		}
		p.note(p.events[:n])
		p.arrive()
		p.carryAll()
		if n < few && len(p.unread) == 0 {
			return false, nil
		}
	}
	p.wakeUp() // or what is ready now would wait for what will be
	return false, nil
}

// note takes up what is ready.
func (p *Pump) note(events []unix.EpollEvent) {
	for _, ev := range events {
		if int(ev.Fd) >= len(p.ends) || p.ends[ev.Fd] == nil {
			continue // the eventfd, or what ended in this very turn
		}
		e := p.ends[ev.Fd]
		if ev.Events&(unix.EPOLLIN|unusual) != 0 {
			e.unread = true
			e.unusual = e.unusual || ev.Events&unusual != 0
			p.queue(e)
		}
		if ev.Events&unix.EPOLLOUT != 0 && len(e.waiting) > 0 {
			p.flush(e)
		}
	}
}

// queue has an end read from in this turn, or in the next one.
func (p *Pump) queue(e *end) {
	if !e.queued {
		e.queued = true
		p.unread = append(p.unread, e)
	}
}

// arrive takes up new flows.
func (p *Pump) arrive() {
	p.mu.Lock()
	arrivals := p.arrivals
	p.arrivals = nil
	p.mu.Unlock()
	for _, f := range arrivals {
		for _, e := range []*end{&f.client, &f.app} {
			p.ends = append(p.ends, make([]*end, max(0, e.fd+1-len(p.ends)))...)
			p.ends[e.fd] = e
		}
		if err := errors.Join(p.watch(f.client.fd, edges), p.watch(f.app.fd, edges)); err != nil {
			p.fail(f, err)
			continue
		}
		p.flush(&f.app)
	}
}

// carryAll reads once from each connection that may have something.
func (p *Pump) carryAll() {
	all := p.unread
	p.unread = p.spare[:0]
	for i, e := range all {
		all[i] = nil
		e.queued = false
		if e.unread && !e.over && !e.eof && !e.held && len(e.peer.waiting) == 0 {
			p.carry(e)
		}
	}
	p.spare = all
}

// carry reads once, and passes on what there is.
func (p *Pump) carry(e *end) {
	n, err := call(unix.SYS_READ, e.fd, p.buf)
	switch {
	case err == unix.EAGAIN:
		e.unread, e.unusual = false, false
	case err != 0:
		p.fail(e.pair, os.NewSyscallError("read", err))
	case n == 0 && e == &e.app && !e.client.eof:
		e.held = true
	case n == 0:
		e.eof = true
	default:
		// What comes behind a short read is an edge (epoll(7)).
		if e.unread = n == len(p.buf) || e.unusual; e.unread {
			p.queue(e)
		}
		p.pass(e, p.buf[:n])
	}
	p.settle(e.pair)
}

// pass passes on what the flow wants to be passed on of what was read from e.
func (p *Pump) pass(e *end, b []byte) {
	see := e.flow.FromClient
	if e == &e.app {
		see = e.flow.FromApp
	}
	n := see(b)
	if n < len(b) {
		e.held, e.rest = true, bytes.Clone(b[n:])
	}
	e.peer.waiting = p.write(e.peer, b[:n])
}

// flush writes what waits.
func (p *Pump) flush(e *end) {
	e.waiting = p.write(e, e.waiting)
	if len(e.waiting) == 0 && e.peer.unread {
		p.queue(e.peer)
	}
	p.settle(e.pair)
}

// write writes what e takes now, and returns a copy of the rest.
func (p *Pump) write(e *end, b []byte) (rest []byte) {
	if len(b) == 0 || e.over {
		return nil
	}
	n, err := call(unix.SYS_WRITE, e.fd, b)
	switch {
	case err == unix.EAGAIN:
		return bytes.Clone(b)
	case err == 0 && n < len(b):
		return bytes.Clone(b[n:])
	case err != 0 && e == &e.app:
		e.client.held, e.app.held = true, true // it may have answered before
	case err != 0:
		p.fail(e.pair, os.NewSyscallError("write", err))
	}
	return nil
}

// settle does what had to wait until all was written.
func (p *Pump) settle(f *pair) {
	written := len(f.client.waiting) == 0 && len(f.app.waiting) == 0
	switch {
	case f.over:
	case f.client.held || f.app.held:
		if written {
			p.leave(f)
		}
	case f.client.eof && f.app.eof:
		if written {
			p.finish(f, nil)
		}
	case f.client.eof && !f.told && len(f.app.waiting) == 0:
		f.told = true
		unix.Shutdown(f.app.fd, unix.SHUT_WR) // where that fails, reading does too
	}
}

// leave hands a pair over.
func (p *Pump) leave(f *pair) {
	var conns [2]*net.TCPConn
	for i, e := range []*end{&f.client, &f.app} {
		conn, err := p.give(e.fd)
		if err != nil {
			p.fail(f, err)
			if conns[0] != nil {
				conns[0].Close()
			}
			return
		}
		conns[i] = conn
	}
	for _, e := range []*end{&f.client, &f.app} {
		// What is open elsewhere stays in epoll(7).
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, e.fd, nil)
	}
	p.drop(f)
	f.flow.Left(conns[0], conns[1], f.client.rest, f.app.rest)
}

// give returns a connection of package net; fd is still to be closed.
func (p *Pump) give(fd int) (*net.TCPConn, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	file := os.NewFile(uintptr(own), "tcp")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// fail ends a flow so that both connections know that it was not in order.
func (p *Pump) fail(f *pair, err error) {
	if f.over {
		return
	}
	for _, e := range []*end{&f.client, &f.app} {
		_ = unix.SetsockoptLinger(e.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	p.finish(f, err)
}

// finish ends a flow.
func (p *Pump) finish(f *pair, err error) {
	p.drop(f)
	f.flow.Ended(err)
}

// drop closes the descriptors of a pair.
func (p *Pump) drop(f *pair) {
	f.over = true
	for _, e := range []*end{&f.client, &f.app} {
		p.ends[e.fd] = nil
		unix.Close(e.fd)
	}
}

// close ends all flows.
func (p *Pump) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.arrive()
	for _, e := range p.ends {
		if e != nil && !e.over {
			p.finish(e.pair, ErrClosed)
		}
	}
	p.file.Close()
	unix.Close(p.wake)
}

// poll puts what is ready now into events. Neither it nor call waits, so Go's
// scheduler need not know of them.
func (p *Pump) poll() (int, error) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
		switch err {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, os.NewSyscallError("epoll_pwait", err)
		}
	}
}

// call reads into or writes from b, which is not empty.
func call(number uintptr, fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if err != unix.EINTR {
			return int(n), err
		}
	}
}
