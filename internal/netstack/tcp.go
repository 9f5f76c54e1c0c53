package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many handshakes a listener may have pending, as Linux's
// somaxconn.
const backlog = 4096

// TCPConn is a TCP connection of the stack. Beside net.Conn it gives access
// to its queues without a buffer in between: Peek and Discard, and Fill.
type TCPConn struct {
	endpoint
	stack         *Stack
	local, remote netip.AddrPort
	part          part
}

var _ net.Conn = (*TCPConn)(nil)

func (s *Stack) newTCPConn(ep tcpip.Endpoint, wq *waiter.Queue, local, remote netip.AddrPort) *TCPConn {
	c := &TCPConn{stack: s, local: local, remote: remote}
	c.init(ep, wq)
	ep.SocketOptions().SetDelayOption(false) // like every Go connection: no Nagle
	return c
}

// reset tells an orderly end from a reset: gVisor says which only to the
// first of reader and writer who asks.
func (c *TCPConn) reset(err error) error {
	if err == io.EOF && tcp.EndpointState(c.ep.State()) == tcp.StateError {
		return syscall.ECONNRESET
	}
	return err
}

func (c *TCPConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.read(b, nil)
	if n > 0 {
		c.received(n)
	}
	if err != nil {
		err = opError("read", c.local, c.remote, c.reset(err))
	}
	return n, err
}

func (c *TCPConn) Write(b []byte) (int, error) {
	n, err := c.write(b, nil, false)
	c.sent(n)
	if err != nil {
		err = opError("write", c.local, c.remote, c.reset(err))
	}
	return n, err
}

// views collects what Peek finds.
type views struct {
	dst   [][]byte
	limit int
}

var errEnough = errors.New("enough")

func (v *views) Write(p []byte) (int, error) {
	if v.limit <= 0 || len(v.dst) == cap(v.dst) {
		return 0, errEnough
	}
	if len(p) > 0 {
		v.dst = append(v.dst, p)
		v.limit -= len(p)
	}
	return len(p), nil
}

// ErrEmpty is returned by Peek when nothing has been received.
var ErrEmpty = errors.New("receive queue is empty")

// Peek appends to dst, up to its capacity, the slices in which data was received,
// about limit bytes. They stay valid until Discard, Close or Reset, and must not
// be written to. It never waits: it returns ErrEmpty when there is nothing yet,
// io.EOF after the peer has closed, ECONNRESET after a reset.
func (c *TCPConn) Peek(dst [][]byte, limit int) ([][]byte, error) {
	if c.closed.Load() {
		return dst, net.ErrClosed
	}
	v := views{dst, limit}
	_, terr := c.ep.Read(&v, tcpip.ReadOptions{Peek: true})
	if len(v.dst) > len(dst) {
		return v.dst, nil
	}
	if _, none := terr.(*tcpip.ErrWouldBlock); none || terr == nil {
		return dst, ErrEmpty
	}
	return dst, c.reset(errno(terr))
}

// WaitData waits until Peek may have something else to say than ErrEmpty. It reports
// false when enough was closed before.
func (c *TCPConn) WaitData(enough <-chan struct{}) bool {
	select {
	case <-c.in.wake:
		return true
	case <-enough:
		return false
	}
}

// Await calls f, once and in a goroutine of its own, when Peek may have something
// else to say than ErrEmpty. A connection on which nothing comes so costs no
// goroutine. Nobody may read meanwhile.
func (c *TCPConn) Await(f func()) {
	c.in.next.Store(&f)
	if c.closed.Load() || c.ep.Readiness(inEvents) != 0 { // no event will tell
		c.in.nudge()
	}
}

// discard swallows n bytes.
type discard int

func (d *discard) Write(p []byte) (int, error) {
	n := min(len(p), int(*d))
	*d -= discard(n)
	if n < len(p) {
		return n, errEnough
	}
	return n, nil
}

// Discard takes n bytes that Peek has shown from the receive queue.
func (c *TCPConn) Discard(n int) {
	d := discard(n)
	c.ep.Read(&d, tcpip.ReadOptions{})
	c.received(n)
}

// filler is the source of one Fill.
type filler struct {
	n    int
	read func([]byte) (int, error)
	err  error
}

func (f *filler) Len() int { return f.n }

func (f *filler) Read(b []byte) (int, error) {
	if f.n == 0 {
		return 0, io.EOF
	}
	n, err := f.read(b[:min(len(b), f.n)])
	f.n -= n
	if err != nil {
		f.err = err
	}
	return n, err
}

// ErrFull is returned by Fill when the send queue has no room.
var ErrFull = errors.New("send queue is full")

// Fill lets read put up to n bytes, which it should have at hand, straight
// into the send queue and sends them. It never waits: when there is no room
// it returns ErrFull before it calls read.
func (c *TCPConn) Fill(n int, read func([]byte) (int, error)) (int, error) {
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	f := filler{n: n, read: read}
	k, terr := c.ep.Write(&f, tcpip.WriteOptions{})
	f.read = nil // gVisor keeps f as long as the endpoint lives
	c.sent(int(k))
	if f.err != nil {
		return int(k), f.err
	}
	if _, ok := terr.(*tcpip.ErrWouldBlock); ok {
		return 0, ErrFull
	}
	return int(k), c.reset(errno(terr))
}

// WaitRoom waits until Fill may find room again.
func (c *TCPConn) WaitRoom() error {
	<-c.out.wake
	if c.closed.Load() {
		return net.ErrClosed
	}
	return nil
}

// CloseWrite sends what is queued and then FIN. Reading goes on.
func (c *TCPConn) CloseWrite() error {
	return errno(c.ep.Shutdown(tcpip.ShutdownWrite))
}

// Interrupt makes Peek, WaitRoom, Read and Write return net.ErrClosed, now
// and from now on, without touching the data that Peek has shown. Who is awaited
// is called.
func (c *TCPConn) Interrupt() { c.interrupt() }

// Close ends the connection in good order: what is queued is still sent.
func (c *TCPConn) Close() error {
	c.close(c.ep.Close)
	c.stack.flights.leave(c)
	return nil
}

// Reset ends the connection at once; the peer gets a RST.
func (c *TCPConn) Reset() {
	c.close(c.ep.Abort)
	c.stack.flights.leave(c)
}

func (c *TCPConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *TCPConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// DialTCP connects to a. Its errors tell ECONNREFUSED, EHOSTUNREACH,
// ENETUNREACH, ETIMEDOUT and ctx's own apart by errors.Is.
func (s *Stack) DialTCP(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	return s.DialTCPFrom(ctx, netip.Addr{}, a)
}

// DialTCPFrom is DialTCP from one of the stack's own addresses, or from the one
// that the stack chooses when from is the zero Addr.
func (s *Stack) DialTCPFrom(ctx context.Context, from netip.Addr, a netip.AddrPort) (net.Conn, error) {
	var wq waiter.Queue
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, protocol(a.Addr()), &wq)
	if terr != nil {
		return nil, opError("dial", netip.AddrPort{}, a, errno(terr))
	}
	if from.IsValid() {
		if terr := ep.Bind(fullAddress(netip.AddrPortFrom(from, 0))); terr != nil {
			ep.Close()
			return nil, opError("dial", netip.AddrPort{}, a, errno(terr))
		}
	}
	c := s.newTCPConn(ep, &wq, netip.AddrPort{}, a)
	if err := c.connect(ctx); err != nil {
		c.Close()
		return nil, opError("dial", netip.AddrPort{}, a, err)
	}
	if at, terr := ep.GetLocalAddress(); terr == nil {
		c.local = addrPort(at.Addr, at.Port)
	}
	s.keepAlive(c)
	return c, nil
}

func (c *TCPConn) connect(ctx context.Context) error {
	terr := c.ep.Connect(fullAddress(c.remote))
	if _, ok := terr.(*tcpip.ErrConnectStarted); !ok {
		return errno(terr)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.out.wake:
		}
		if terr := c.ep.LastError(); terr != nil {
			return errno(terr)
		}
		switch tcp.EndpointState(c.ep.State()) {
		case tcp.StateInitial, tcp.StateBound, tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
		case tcp.StateError, tcp.StateClose:
			return syscall.ECONNREFUSED
		default:
			return nil
		}
	}
}

// listener accepts connections to one of the stack's own addresses.
type listener struct {
	endpoint
	s    *Stack
	addr netip.AddrPort
}

// ListenTCP listens on a, one of the stack's own addresses.
func (s *Stack) ListenTCP(a netip.AddrPort) (net.Listener, error) {
	wq := new(waiter.Queue)
	ep, terr := s.stack.NewEndpoint(tcp.ProtocolNumber, protocol(a.Addr()), wq)
	if terr == nil {
		if terr = ep.Bind(fullAddress(a)); terr == nil {
			terr = ep.Listen(backlog)
		}
		if terr != nil {
			ep.Close()
		}
	}
	if terr != nil {
		return nil, opError("listen", a, netip.AddrPort{}, errno(terr))
	}
	if at, terr := ep.GetLocalAddress(); terr == nil {
		a = netip.AddrPortFrom(a.Addr(), at.Port)
	}
	l := &listener{s: s, addr: a}
	l.init(ep, wq)
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	var ep tcpip.Endpoint
	var wq *waiter.Queue
	var from tcpip.FullAddress
	err := l.try(&l.in, func() (terr tcpip.Error) {
		ep, wq, terr = l.ep.Accept(&from)
		return terr
	})
	if err != nil {
		return nil, opError("accept", l.addr, netip.AddrPort{}, err)
	}
	c := l.s.newTCPConn(ep, wq, l.addr, addrPort(from.Addr, from.Port))
	l.s.keepAlive(c)
	return c, nil
}

func (l *listener) Close() error {
	l.close(l.ep.Close)
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
