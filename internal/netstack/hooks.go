package netstack

import (
	"context"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"podnet.dev/internal/packet"
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Hooks take what peers send to unicast addresses that are not the stack's
// own. SYN and Datagrams run where WireGuard delivers, one call at a time for
// each peer: they must not block. The packets they see live until they return.
type Hooks struct {
	// SYN is asked about each packet that opens a connection; the packet is
	// dropped when it says no. It is asked again when the peer repeats it.
	SYN func(*packet.Packet) bool
	// TCP gets each new connection that SYN let through, in a goroutine of its
	// own. It must end every request by Accept, Reset or Drop.
	TCP func(*TCPRequest)
	// Datagrams gets everything that is not TCP, reassembled, in batches.
	Datagrams func([]packet.Packet)
}

// Forward makes the stack take packets for every address, not only its own.
// Without hooks it stops doing so; connections that exist stay.
func (s *Stack) Forward(h *Hooks) {
	on := h != nil
	s.stack.SetPromiscuousMode(nic, on)
	s.stack.SetSpoofing(nic, on)
	s.hooks.Store(h)
}

// TCPRequest is a connection that a peer wants to open. The peer hears
// nothing until the request ends.
type TCPRequest struct {
	Src, Dst netip.AddrPort

	s *Stack
	r *tcp.ForwarderRequest
}

// handleUnknown sees TCP segments that belong to no connection or listener.
// gVisor resets what it does not handle.
func (s *Stack) handleUnknown(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	if s.hooks.Load() == nil || s.IsLocal(addrPort(id.LocalAddress, 0).Addr()) {
		return false
	}
	return s.tcp.HandlePacket(id, p)
}

func (s *Stack) handleTCP(r *tcp.ForwarderRequest) {
	h := s.hooks.Load()
	if h == nil {
		r.Complete(true)
		return
	}
	id := r.ID()
	h.TCP(&TCPRequest{Src: addrPort(id.RemoteAddress, id.RemotePort), Dst: addrPort(id.LocalAddress, id.LocalPort), s: s, r: r})
}

// Accept completes the handshake: it waits for the peer's answer, or for ctx.
func (r *TCPRequest) Accept(ctx context.Context) (*TCPConn, error) {
	done := make(chan struct{})
	defer context.AfterFunc(ctx, func() { r.s.abortHandshake(r.Src, r.Dst, done) })()
	defer close(done)
	var wq waiter.Queue
	ep, terr := r.r.CreateEndpoint(&wq)
	if terr != nil {
		r.r.Complete(true)
		return nil, opError("accept", r.Dst, r.Src, errno(terr))
	}
	r.r.Complete(false)
	c := r.s.newTCPConn(ep, &wq, r.Dst, r.Src)
	r.s.keepAlive(c)
	return c, nil
}

// abortHandshake ends a handshake that may be about to begin.
func (s *Stack) abortHandshake(src, dst netip.AddrPort, done <-chan struct{}) {
	for {
		if ep := s.find(src, dst); ep != nil {
			ep.Abort()
			return
		}
		select {
		case <-done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Reset refuses the connection.
func (r *TCPRequest) Reset() { r.r.Complete(true) }

// Drop forgets the request without a word.
func (r *TCPRequest) Drop() { r.r.Complete(false) }

// reopen clears the way for a SYN whose ports are those of a connection that
// is over but for waiting. gVisor does so only for listeners; a laptop that
// opens thousands of connections to one Service comes around within seconds.
func (s *Stack) reopen(p *packet.Packet) {
	src, dst, ok := p.Ports()
	if !ok {
		return
	}
	if ep := s.find(src, dst); ep != nil && ep.EndpointState() == tcp.StateTimeWait {
		ep.Abort()
	}
}

// find returns the endpoint that serves the peer src at dst, or nil.
func (s *Stack) find(src, dst netip.AddrPort) *tcp.Endpoint {
	id := stack.TransportEndpointID{
		LocalAddress: tcpip.AddrFromSlice(dst.Addr().AsSlice()), LocalPort: dst.Port(),
		RemoteAddress: tcpip.AddrFromSlice(src.Addr().AsSlice()), RemotePort: src.Port(),
	}
	ep, _ := s.stack.FindTransportEndpoint(protocol(dst.Addr()), tcp.ProtocolNumber, id, nic).(*tcp.Endpoint)
	return ep
}

// keepAlive finds out about peers that vanished: a laptop that was unplugged
// leaves nothing behind after 60 s + 4 * 15 s.
func (s *Stack) keepAlive(c *TCPConn) {
	idle, interval := tcpip.KeepaliveIdleOption(s.keep.Idle), tcpip.KeepaliveIntervalOption(s.keep.Interval)
	c.ep.SetSockOpt(&idle)
	c.ep.SetSockOpt(&interval)
	c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, s.keep.Count)
	c.ep.SocketOptions().SetKeepAlive(true)
}
