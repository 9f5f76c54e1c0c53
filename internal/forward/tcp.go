package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"podnet.dev/internal/netstack"
	"podnet.dev/internal/packet"
	"podnet.dev/internal/splice"
)

// keepAlive finds targets that vanished, as netstack's finds peers: half-open
// connections are gone after two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 60 * time.Second, Interval: 15 * time.Second, Count: 4}

const (
	// chunk is how much one turn moves from a socket into the stack: four of
	// the largest segments that the stack hands down, so that they come out
	// whole.
	chunk = 4 * 44 * (netstack.TunnelMTU - 52)
	// window is how much one turn moves the other way, in up to maxViews pieces.
	window   = 1 << 20
	maxViews = 64
)

// tcpKey names a connection by what the peer sends.
type tcpKey struct{ src, dst netip.AddrPort }

// tcpFlow is one connection. Its life:
//
//	asked --> dialling --target accepted--> accepting --peer answered--> open --both done--> gone
//	  |          |                             |                          |
//	  +--stale   +--refused, silent, cancel----+--peer gone---------------+--error--> reset, gone
//
// It is asked for where packets are received and dialled in a goroutine that
// the stack starts; when the stack knows the connection already, it starts
// none, and what was asked goes stale.
type tcpFlow struct {
	key   tcpKey
	to    netip.AddrPort // the target, where key.dst may stand for it
	since time.Time
	syn   []byte // what an ICMP error has to quote

	mu          sync.Mutex
	dialling    bool
	cancel      context.CancelFunc // ends the dial
	conn        *netstack.TCPConn  // nil before the peer has answered
	sock        net.Conn           // a *net.TCPConn, or an Exit's
	interrupted bool
}

// interrupt makes whoever serves the flow reset it.
func (fl *tcpFlow) interrupt() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.interrupted = true
	if fl.cancel != nil {
		fl.cancel()
	}
	if fl.conn != nil {
		fl.conn.Interrupt()
		fl.sock.SetDeadline(time.Unix(1, 0))
	}
}

// attach gives the flow its two ends. It reports false when it was
// interrupted before.
func (fl *tcpFlow) attach(conn *netstack.TCPConn, sock net.Conn) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.conn, fl.sock = conn, sock
	return !fl.interrupted
}

// tcpTable knows the flows, and how many each peer is opening.
type tcpTable struct {
	mu    sync.Mutex
	flows map[tcpKey]*tcpFlow
	dials map[netip.Addr]int
}

func (t *tcpTable) init() {
	t.flows, t.dials = map[tcpKey]*tcpFlow{}, map[netip.Addr]int{}
}

func (t *tcpTable) all() []*tcpFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*tcpFlow, 0, len(t.flows))
	for _, fl := range t.flows {
		all = append(all, fl)
	}
	return all
}

// ask notes that a peer wants to open a connection to a target. Known ones are
// asked for again when the peer repeats itself. It returns nil when the peer is
// opening too many.
func (t *tcpTable) ask(k tcpKey, to netip.AddrPort, syn []byte) *tcpFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	if fl := t.flows[k]; fl != nil {
		return fl
	}
	peer := k.src.Addr()
	if t.dials[peer] >= maxDials {
		return nil
	}
	t.dials[peer]++
	fl := &tcpFlow{key: k, to: to, since: time.Now(), syn: append([]byte(nil), syn...)}
	t.flows[k] = fl
	return fl
}

func (t *tcpTable) known(k tcpKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flows[k] != nil
}

// take gives what was asked for to the goroutine that dials it.
func (t *tcpTable) take(k tcpKey, cancel context.CancelFunc) *tcpFlow {
	t.mu.Lock()
	defer t.mu.Unlock()
	fl := t.flows[k]
	if fl == nil {
		return nil // gone stale, or over the limit: the peer will repeat it
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.dialling || fl.interrupted {
		return nil
	}
	fl.dialling, fl.cancel = true, cancel
	return fl
}

// sweep forgets what was asked for and never dialled.
func (t *tcpTable) sweep(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, fl := range t.flows {
		fl.mu.Lock()
		stale := !fl.dialling && (fl.interrupted || now.Sub(fl.since) > time.Second)
		fl.mu.Unlock()
		if stale {
			delete(t.flows, k)
			t.dialledLocked(k.src.Addr())
		}
	}
}

// dialled ends the flow's share of its peer's dials.
func (t *tcpTable) dialled(fl *tcpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dialledLocked(fl.key.src.Addr())
}

func (t *tcpTable) dialledLocked(peer netip.Addr) {
	if t.dials[peer]--; t.dials[peer] == 0 {
		delete(t.dials, peer)
	}
}

func (t *tcpTable) remove(fl *tcpFlow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.flows, fl.key)
}

// syn decides about a packet that opens a connection, on the receive path.
func (f *Forwarder) syn(p *packet.Packet) bool {
	src, dst, ok := p.Ports()
	if !ok {
		return false
	}
	k := tcpKey{src, dst}
	if f.tcp.known(k) {
		return true // repeated: the stack knows what to do
	}
	to := f.real(src.Addr(), dst)
	if !f.allow(src.Addr(), TCP, to) {
		f.counters.denied.Add(1)
		f.answer(p.Data, packet.Prohibited)
		return false
	}
	fl := f.tcp.ask(k, to, p.Data[:p.L4+20])
	if fl == nil {
		f.counters.overLimit.Add(1)
		return false
	}
	if f.real(src.Addr(), dst) != fl.to {
		fl.interrupt() // SetMaps came between: the peer will repeat it
		return false
	}
	return true
}

// request opens a connection: target first, then peer. Its goroutine ends
// there, because dialling has grown its stack more than serving ever needs,
// and a flow may live for days.
func (f *Forwarder) request(r *netstack.TCPRequest) {
	if !f.begin() {
		r.Reset()
		return
	}
	ctx, cancel := context.WithTimeout(f.ctx, dialTimeout+acceptTimeout)
	defer cancel()
	fl := f.tcp.take(tcpKey{r.Src, r.Dst}, cancel)
	if fl == nil {
		r.Drop()
		f.wg.Done()
		return
	}
	sock, err := f.dial(ctx, r.Src.Addr(), fl.to)
	if err != nil {
		f.tcp.dialled(fl)
		f.refuse(r, fl, err)
		f.tcp.remove(fl)
		f.wg.Done()
		return
	}
	f.counters.tcp.Add(1)
	fl.syn = nil
	conn, err := r.Accept(ctx)
	f.tcp.dialled(fl)
	switch {
	case err != nil: // the peer went away meanwhile
		splice.Reset(sock)
		f.done(fl)
	case !fl.attach(conn, sock):
		conn.Reset()
		splice.Reset(sock)
		f.done(fl)
	default:
		f.serve(fl, conn, sock)
	}
}

// done forgets a flow whose ends are closed.
func (f *Forwarder) done(fl *tcpFlow) {
	f.tcp.remove(fl)
	f.free()
	f.wg.Done()
}

// errFull is why no socket was opened.
var errFull = errors.New("too many flows")

// dial connects to a target, from here or from where the peer's flows leave.
func (f *Forwarder) dial(ctx context.Context, peer netip.Addr, to netip.AddrPort) (c net.Conn, err error) {
	if !f.reserve() {
		return nil, errFull
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	exit, elsewhere := f.exit(peer)
	switch {
	case !elsewhere:
		d := net.Dialer{KeepAliveConfig: keepAlive}
		c, err = d.DialContext(ctx, "tcp", f.rewrite(TCP, to).String())
	case exit == nil:
		err = errNoExit
	default:
		c, err = exit.DialTCP(ctx, to)
	}
	if err != nil {
		f.free()
		return nil, err
	}
	return c, nil
}

// refuse tells the peer what came of the dial.
func (f *Forwarder) refuse(r *netstack.TCPRequest, fl *tcpFlow, err error) {
	f.log.Debug("flow failed", "peer", r.Src.Addr(), "addr", fl.to, "err", err)
	if why, ok := unreachable(err); ok {
		f.counters.failed.Add(1)
		f.answer(fl.syn, why)
		r.Drop()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
		f.counters.refused.Add(1)
		r.Reset()
		return
	}
	f.counters.failed.Add(1)
	r.Drop()
}

// unreachable translates what the kernel says about a target.
func unreachable(err error) (packet.Unreachable, bool) {
	switch {
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return packet.NoHost, true
	case errors.Is(err, syscall.ENETUNREACH):
		return packet.NoNetwork, true
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return packet.Prohibited, true
	case errors.Is(err, syscall.ENOPROTOOPT):
		return packet.NoProtocol, true
	}
	return 0, false
}

// serve starts to move bytes both ways, until both sides have closed, or one
// has failed, which resets the other.
func (f *Forwarder) serve(fl *tcpFlow, conn *netstack.TCPConn, sock net.Conn) {
	var left atomic.Int32
	var failed atomic.Bool
	left.Store(2)
	run := func(move func() error) {
		if err := move(); err != nil {
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
		go run(func() error { return f.up(conn, s) })
		go run(func() error { return f.down(conn, s) })
		return
	}
	go run(func() error { return carry(sock, conn, &f.counters.up) })
	go run(func() error { return carry(conn, sock, &f.counters.down) })
}

// carry moves bytes to or from a connection that is not the kernel's.
func carry(to, from net.Conn, count *atomic.Uint64) error {
	_, err := splice.Carry(to, from, func(b []byte) { count.Add(uint64(len(b))) })
	return err
}

// up moves what the peer sends: the pieces in which it was received go to the
// kernel as they are, by one writev.
func (f *Forwarder) up(conn *netstack.TCPConn, sock *net.TCPConn) error {
	var few [4][]byte // idle and interactive flows need no more
	room := few[:0]
	for {
		views, err := conn.Peek(room, window)
		if err == io.EOF {
			return sock.CloseWrite()
		}
		if err != nil {
			return err
		}
		if len(views) == cap(room) && cap(room) < maxViews {
			room = make([][]byte, 0, maxViews)
		}
		bufs := net.Buffers(views)
		n, err := bufs.WriteTo(sock)
		if err != nil {
			return err
		}
		conn.Discard(int(n))
		f.counters.up.Add(uint64(n))
	}
}

// down moves what the target sends: the kernel copies it straight into the
// stack's send queue.
func (f *Forwarder) down(conn *netstack.TCPConn, sock *net.TCPConn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	var end error
	var fd int
	read := func(b []byte) (int, error) { return readSocket(fd, b) }
	turn := func(s uintptr) bool {
		fd = int(s)
		var n int
		if n, end = waiting(fd); n == 0 && end == nil {
			return false // wait until the kernel has some
		}
		if end == nil {
			n, end = conn.Fill(min(n, chunk), read)
			f.counters.down.Add(uint64(n))
		}
		return true
	}
	for {
		if err := raw.Read(turn); err != nil {
			return err
		}
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
