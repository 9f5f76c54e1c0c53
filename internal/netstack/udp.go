package netstack

import (
	"io"
	"net"
	"net/netip"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// UDPConn is a UDP socket of the stack, connected or not.
type UDPConn struct {
	endpoint
	local, remote netip.AddrPort
}

var (
	_ net.Conn       = (*UDPConn)(nil)
	_ net.PacketConn = (*UDPConn)(nil)
)

// newUDPConn makes a socket that is bound to local and connected to remote, as
// far as they are valid.
func (s *Stack) newUDPConn(local, remote netip.AddrPort) (*UDPConn, error) {
	wq := new(waiter.Queue)
	either := remote
	if !remote.IsValid() {
		either = local
	}
	ep, terr := s.stack.NewEndpoint(udp.ProtocolNumber, protocol(either.Addr()), wq)
	if terr != nil {
		return nil, errno(terr)
	}
	if local.IsValid() {
		terr = ep.Bind(fullAddress(local))
	}
	if terr == nil && remote.IsValid() {
		terr = ep.Connect(fullAddress(remote))
	}
	if terr != nil {
		ep.Close()
		return nil, errno(terr)
	}
	c := &UDPConn{}
	c.init(ep, wq)
	if at, terr := ep.GetLocalAddress(); terr == nil {
		c.local = addrPort(at.Addr, at.Port)
	}
	c.remote = remote
	return c, nil
}

// ListenUDP receives on a, one of the stack's own addresses. ReadFrom returns
// *net.UDPAddr.
func (s *Stack) ListenUDP(a netip.AddrPort) (net.PacketConn, error) {
	c, err := s.newUDPConn(a, netip.AddrPort{})
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(a), Err: err}
	}
	return c, nil
}

// DialUDP connects to a: Read returns ECONNREFUSED when nothing listens
// there.
func (s *Stack) DialUDP(a netip.AddrPort) (net.Conn, error) {
	c, err := s.dialUDP(netip.AddrPort{}, a)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialUDPFrom is DialUDP from one of the stack's own addresses.
func (s *Stack) DialUDPFrom(from netip.Addr, a netip.AddrPort) (*UDPConn, error) {
	return s.dialUDP(netip.AddrPortFrom(from, 0), a)
}

func (s *Stack) dialUDP(from, a netip.AddrPort) (*UDPConn, error) {
	c, err := s.newUDPConn(from, a)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(a), Err: err}
	}
	return c, nil
}

func (c *UDPConn) Read(b []byte) (int, error) {
	n, err := c.read(b, nil)
	return n, c.opError("read", err)
}

func (c *UDPConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var from tcpip.FullAddress
	n, err := c.read(b, &from)
	if err != nil {
		return n, nil, c.opError("read", err)
	}
	return n, net.UDPAddrFromAddrPort(addrPort(from.Addr, from.Port)), nil
}

// ReadTo waits for a datagram and gives it to w, in pieces perhaps: many can wait
// that have no room for one meanwhile.
func (c *UDPConn) ReadTo(w io.Writer) (int, error) {
	n, err := c.readTo(w, nil)
	return n, c.opError("read", err)
}

func (c *UDPConn) Write(b []byte) (int, error) {
	n, err := c.write(b, nil, true)
	return n, c.opError("write", err)
}

func (c *UDPConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", syscall.EAFNOSUPPORT)
	}
	a := u.AddrPort()
	full := fullAddress(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	n, err := c.write(b, &full, true)
	return n, c.opError("write", err)
}

func (c *UDPConn) Close() error {
	c.close(c.ep.Close)
	return nil
}

func (c *UDPConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

func (c *UDPConn) RemoteAddr() net.Addr {
	if !c.remote.IsValid() {
		return nil
	}
	return net.UDPAddrFromAddrPort(c.remote)
}

func (c *UDPConn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
