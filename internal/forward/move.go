package forward

import (
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/splice"
)

const (
	// chunk is how much one turn moves from a socket into the stack: four of
	// the largest segments that the stack hands down, so that they come out
	// whole.
	chunk = 4 * 44 * (netstack.TunnelMTU - 52)
	// window is how much one turn moves the other way, in up to maxViews pieces.
	window   = 1 << 20
	maxViews = 64
)

// serve starts to move bytes both ways, until both sides have closed, or one
// has failed, which resets the other.
func (f *Forwarder) serve(fl *tcpFlow, conn *netstack.TCPConn, sock net.Conn) {
	var left atomic.Int32
	var failed atomic.Bool
	left.Store(2)
	over := func(err error) { // of one direction
		if err != nil {
			if !failed.Swap(true) {
				f.log.Debug("flow reset", "peer", fl.key.src.Addr(), "addr", fl.to, "err", err)
			}
			fl.interrupt()
		}
		if left.Add(-1) > 0 {
			return
		}
		if failed.Load() {
			conn.Reset()
			splice.Reset(sock)
		} else {
			conn.Close()
			sock.Close()
		}
		f.done(fl)
	}
	if s, ok := sock.(*net.TCPConn); ok {
		go func() { over(f.down(fl, conn, s)) }()
		f.upward(fl, conn, s, over)
		return
	}
	go func() { over(carry(sock, conn, func(n int) { f.movedUp(fl, n) })) }()
	go func() { over(carry(conn, sock, func(n int) { f.movedDown(fl, n) })) }()
}

// upward moves what the peer sends, whenever it sends something, until there is an
// end to it, which over hears of. Most flows are silent most of the time: a
// goroutine that waits, and its stack, are a quarter of what they cost. So who was
// silent at a tick has none until something comes; to start one for each message
// would cost some 3 us.
func (f *Forwarder) upward(fl *tcpFlow, conn *netstack.TCPConn, sock *net.TCPConn, over func(error)) {
	var turn func()
	turn = func() {
		if err := f.up(fl, conn, sock); err != netstack.ErrEmpty {
			over(err)
			return
		}
		conn.Await(turn)
	}
	conn.Await(turn)
}

// movedUp and movedDown account for payload that went from and to the peer, and
// wait where it came too fast.
func (f *Forwarder) movedUp(fl *tcpFlow, n int) {
	f.counters.up.Add(uint64(n))
	moved(&fl.acct.up, fl.acct.upward, n, fl.gone)
}

func (f *Forwarder) movedDown(fl *tcpFlow, n int) {
	f.counters.down.Add(uint64(n))
	moved(&fl.acct.down, fl.acct.downward, n, fl.gone)
}

// carry moves bytes to or from a connection that is not the kernel's.
func carry(to, from net.Conn, moved func(n int)) error {
	_, err := splice.Carry(to, from, func(b []byte) { moved(len(b)) })
	return err
}

// rooms are for the pieces that one turn moves from the stack into a socket.
var rooms = sync.Pool{New: func() any { return new([maxViews][]byte) }}

// up moves what the peer sends, until there is none for a while: the pieces in which
// it was received go to the kernel as they are, by one writev.
func (f *Forwarder) up(fl *tcpFlow, conn *netstack.TCPConn, sock *net.TCPConn) error {
	room := rooms.Get().(*[maxViews][]byte)
	defer func() {
		clear(room[:])
		rooms.Put(room)
	}()
	for {
		views, err := conn.Peek(room[:0], window)
		if err == netstack.ErrEmpty && conn.WaitData(*f.tick.Load()) {
			continue
		}
		if err == io.EOF {
			return sock.CloseWrite()
		}
		if err != nil {
			return err
		}
		bufs := net.Buffers(views)
		n, err := bufs.WriteTo(sock)
		if err != nil {
			return err
		}
		conn.Discard(int(n))
		f.movedUp(fl, int(n))
	}
}

// down moves what the target sends: the kernel copies it straight into the
// stack's send queue.
func (f *Forwarder) down(fl *tcpFlow, conn *netstack.TCPConn, sock *net.TCPConn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var end error
	var fd, filled int
	read := func(b []byte) (int, error) { return readSocket(fd, b) }
	turn := func(s uintptr) bool {
		fd = int(s)
		var n int
		if n, end = waiting(fd); n == 0 && end == nil {
			return false // wait until the kernel has some
		}
		if end == nil {
			filled, end = conn.Fill(min(n, chunk), read)
		}
		return true
	}
	for {
		filled = 0
		if err := raw.Read(turn); err != nil {
			return err
		}
		f.movedDown(fl, filled)
		switch {
		case end == io.EOF:
			return conn.CloseWrite()
		case end == netstack.ErrFull:
			if err := conn.WaitRoom(); err != nil {
				return err
			}
		case end != nil:
			return end
		}
	}
}

// waiting is how many bytes the kernel has for the socket: 0 means none yet,
// io.EOF none any more.
func waiting(fd int) (int, error) {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || n > 0 {
		return n, err
	}
	var one [1]byte
	n, _, err = unix.Recvfrom(fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return unix.IoctlGetInt(fd, unix.TIOCINQ)
}

func readSocket(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}
