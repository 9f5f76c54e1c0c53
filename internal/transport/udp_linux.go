package transport

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"

	"podnet.dev/internal/paths"
)

// udpRoute is what the sockets have learned about the way to an endpoint.
type udpRoute struct {
	// gsoLimit is the smallest segment size that the kernel refused to
	// segment (it exceeds the path's MTU); 0: none yet.
	gsoLimit atomic.Uint32
}

// linuxSockets are one IPv4 and one IPv6 socket on the same port, read and
// written many datagrams per system call.
type linuxSockets struct {
	b *Bind

	mu     sync.RWMutex
	v4, v6 *udpSocket // nil: not open, or the host lacks the protocol
}

func newUDP(b *Bind) udpSockets { return &linuxSockets{b: b} }

// portTries is how often a random port is drawn that is free for both
// protocols.
const portTries = 100

func (s *linuxSockets) open(port uint16) (fns []conn.ReceiveFunc, actual uint16, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for try := 1; ; try++ {
		s.v4, s.v6, actual, err = s.openBoth(port)
		if port != 0 || !errors.Is(err, unix.EADDRINUSE) || try == portTries {
			break
		}
	}
	if err != nil {
		return nil, 0, err
	}
	if s.v4 != nil {
		fns = append(fns, s.v4.receiveIPv4)
	}
	if s.v6 != nil {
		fns = append(fns, s.v6.receiveIPv6)
	}
	return fns, actual, nil
}

// openBoth opens what the host has. IPv6 may be compiled out (EAFNOSUPPORT) or
// switched off (EADDRNOTAVAIL); a port in use is an error always.
func (s *linuxSockets) openBoth(port uint16) (v4, v6 *udpSocket, actual uint16, err error) {
	v4, err = newUDPSocket(s.b, "udp4", port)
	if err != nil && errors.Is(err, unix.EADDRINUSE) {
		return nil, nil, 0, err
	}
	actual = port
	if v4 != nil {
		actual = v4.port
	}
	v6, err6 := newUDPSocket(s.b, "udp6", actual)
	switch {
	case err6 == nil:
		return v4, v6, v6.port, nil
	case v4 == nil:
		return nil, nil, 0, errors.Join(err, err6)
	case errors.Is(err6, unix.EADDRINUSE):
		v4.close()
		return nil, nil, 0, err6
	}
	s.b.opt.Log.Debug("no IPv6", "err", err6)
	return v4, nil, actual, nil
}

func (s *linuxSockets) close() error {
	s.mu.Lock()
	v4, v6 := s.v4, s.v6
	s.v4, s.v6 = nil, nil
	s.mu.Unlock()
	var err error
	for _, u := range []*udpSocket{v4, v6} {
		if u != nil {
			err = errors.Join(err, u.close())
		}
	}
	return err
}

func (s *linuxSockets) send(bufs [][]byte, ep *udpEndpoint) error {
	u := s.socket(ep)
	if u == nil {
		return unix.EAFNOSUPPORT
	}
	return u.send(bufs, ep)
}

func (s *linuxSockets) probe(m []byte, ep *udpEndpoint) error {
	u := s.socket(ep)
	if u == nil {
		return unix.EAFNOSUPPORT
	}
	return u.probe(m, ep)
}

// socket is the one that reaches ep; nil: there is none.
func (s *linuxSockets) socket(ep *udpEndpoint) *udpSocket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ep.dst.Addr().Is4() {
		return s.v4
	}
	return s.v6
}

func (s *linuxSockets) setMark(mark uint32) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var err error
	for _, u := range []*udpSocket{s.v4, s.v6} {
		if u != nil {
			cerr := u.rc.Control(func(fd uintptr) {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
			})
			err = errors.Join(err, cerr)
		}
	}
	return err
}

// rxBatch is how many datagrams are given out at once: what one coalesced message
// holds at most (gsoSegments). It is also how many buffers the device keeps for each
// receiver; see netstack's readBatch for what that costs.
const rxBatch = 64

func (s *linuxSockets) batchSize() int { return rxBatch }

// udpSocket is one socket with its receiver's state.
type udpSocket struct {
	b    *Bind
	c    *net.UDPConn
	rc   syscall.RawConn
	port uint16
	v6   bool
	gso  atomic.Bool // the kernel segments what we send

	dontFragment sync.Mutex // held while what is sent must not be fragmented

	rxMu sync.Mutex // held by a receive, so that close can free rx
	rx   *receiver  // nil: closed
}

func newUDPSocket(b *Bind, network string, port uint16) (*udpSocket, error) {
	u := &udpSocket{b: b, v6: network == "udp6"}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = u.configure(int(fd)) })
		return errors.Join(cerr, err)
	}}
	pc, err := lc.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	u.c = pc.(*net.UDPConn)
	u.port = u.c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	if u.rc, err = u.c.SyscallConn(); err == nil {
		u.rx, err = newReceiver(u)
	}
	if err != nil {
		u.c.Close()
		return nil, err
	}
	return u, nil
}

// configure sets what must be there before the first datagram. Only the lack of
// what is needed to answer from the right address is an error.
func (u *udpSocket) configure(fd int) error {
	opt := u.b.opt
	// Up to net.core.{r,w}mem_max for all, beyond with CAP_NET_ADMIN.
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, opt.RecvBuffer)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, opt.RecvBuffer)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, opt.SendBuffer)
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, opt.SendBuffer)
	unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	u.gso.Store(err == nil)
	if u.v6 {
		return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
}

// close wakes the receiver and frees its memory once it is out.
func (u *udpSocket) close() error {
	err := u.c.Close()
	u.rxMu.Lock()
	defer u.rxMu.Unlock()
	if u.rx != nil {
		u.rx.free()
		u.rx = nil
	}
	return err
}

// The device's logs name a receive function by its suffix.
func (u *udpSocket) receiveIPv4(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	return u.receive(bufs, sizes, eps)
}

func (u *udpSocket) receiveIPv6(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	return u.receive(bufs, sizes, eps)
}

func (u *udpSocket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	u.rxMu.Lock()
	defer u.rxMu.Unlock()
	for {
		if u.rx == nil {
			return 0, net.ErrClosed
		}
		if n := u.rx.drain(bufs, sizes, eps); n > 0 {
			return n, nil
		}
		if err := u.rx.fill(bufs); err != nil {
			return 0, err
		}
	}
}

// sendErrors that mean a full queue somewhere on this host: the datagrams are
// lost, as on a wire, and the device need not know.
func isCongestion(err syscall.Errno) bool {
	return err == unix.ENOBUFS || err == unix.ENOMEM
}

// isBadSource are the answers of the kernel to a source address that the host
// has lost, or that has no route to the destination.
func isBadSource(err syscall.Errno) bool {
	return err == unix.EINVAL || err == unix.EADDRNOTAVAIL || err == unix.ENETUNREACH || err == unix.ENODEV
}

// send sends bufs to ep, segmented by the kernel where it can be.
func (u *udpSocket) send(bufs [][]byte, ep *udpEndpoint) error {
	st := senders.Get().(*sender)
	defer senders.Put(st)
	defer st.forget()
	for next := 0; next < len(bufs); {
		built := st.build(bufs[next:], ep, u.gso.Load())
		sent, errno, err := st.flush(u.rc)
		if err != nil {
			return err
		}
		if errno == 0 {
			next += built
			continue
		}
		next += st.first[sent] // of the message that failed
		segments := st.segments(sent)
		switch {
		case segments > 1 && errno == unix.EIO:
			// The device has no checksum offload, which segmenting needs.
			u.gso.Store(false)
			u.b.opt.Log.Debug("UDP segmentation switched off", slog.Int("port", int(u.port)))
		case segments > 1 && (errno == unix.EMSGSIZE || errno == unix.EINVAL):
			// A segment exceeds the path's MTU; alone it may be fragmented.
			ep.gsoLimit.Store(uint32(len(bufs[next])))
		case ep.SrcIP().IsValid() && isBadSource(errno):
			ep.ClearSrc()
		case isCongestion(errno):
			next += segments
		default:
			return errno
		}
	}
	return nil
}

// probe sends m to ep, or fails, without waiting. A long one goes out whole or
// not at all, whatever the kernel has heard about the path: it is to find out.
func (u *udpSocket) probe(m []byte, ep *udpEndpoint) error {
	st := senders.Get().(*sender)
	defer senders.Put(st)
	defer st.forget()
	st.hasty = true
	defer func() { st.hasty = false }()
	for range 2 {
		st.build([][]byte{m}, ep, false)
		if len(m) > paths.MinDatagram {
			u.dontFragment.Lock()
			u.discover(unix.IP_PMTUDISC_PROBE)
		}
		_, errno, err := st.flush(u.rc)
		if len(m) > paths.MinDatagram {
			u.discover(unix.IP_PMTUDISC_WANT) // the kernel's default
			u.dontFragment.Unlock()
		}
		switch {
		case err != nil:
			return err
		case errno == 0:
			return nil
		case ep.SrcIP().IsValid() && isBadSource(errno):
			ep.ClearSrc()
		default:
			return errno
		}
	}
	return unix.EADDRNOTAVAIL
}

// discover sets how the socket deals with paths' MTUs. What others send in the
// same microsecond is treated likewise: at worst, a datagram that needs
// fragments is lost.
func (u *udpSocket) discover(how int) {
	u.rc.Control(func(fd uintptr) {
		if u.v6 {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, how)
		} else {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how)
		}
	})
}

// zoneIndex is the interface of a link-local address's zone.
func zoneIndex(a netip.Addr) uint32 {
	z := a.Zone()
	if z == "" {
		return 0
	}
	if n, err := strconv.ParseUint(z, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(z); err == nil {
		return uint32(i.Index)
	}
	return 0
}
