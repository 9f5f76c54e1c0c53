package netstack

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// gsoSize is the largest segment gVisor hands down at once. It adds 161 bytes
// of its own to the payload; what is left is 44 whole segments of the MSS
// that an IPv4 connection with timestamps has at MTU 1420, so that a run of
// them fits into one coalesced UDP send (maxTrain).
const gsoSize = 44*(TunnelMTU-52) + 161

// link is gVisor's side of the device: what the stack sends goes into a
// bounded queue that WireGuard reads.
type link struct {
	mtu        atomic.Uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	out        queue
	acks       acks
}

func newLink(mtu uint32) *link {
	l := &link{}
	l.mtu.Store(mtu)
	l.out.init()
	l.acks.init(func(p *stack.PacketBuffer) { l.put(p, false) })
	return l
}

// WritePackets queues packets for WireGuard. Data waits for room, which holds
// back the connection that sends it. Answers made while a packet is received
// (acknowledgements, resets, ICMP) never wait, or receiving would hang on
// sending: they have a reserve, and beyond it are lost like on any wire.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	n := 0
	for _, p := range pkts.AsSlice() {
		isTCP := p.TransportProtocolNumber == tcp.ProtocolNumber
		wait := isTCP && p.Data().Size() > 0 || p.TransportProtocolNumber == udp.ProtocolNumber
		if isTCP && l.acks.hold(p) || l.put(p.IncRef(), wait) {
			n++
		}
	}
	return n, nil
}

// put queues a packet, whose reference it takes over. It reports whether there was
// room.
func (l *link) put(p *stack.PacketBuffer, wait bool) bool {
	if !l.out.put(outbound{pkt: p}, p.Size(), wait) {
		p.DecRef()
		return false
	}
	return true
}

func (l *link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&d)
}

// deliver hands a received packet to the stack and gives up its reference.
func (l *link) deliver(p *stack.PacketBuffer, six bool) {
	if d := l.dispatcher.Load(); d != nil {
		proto := header.IPv4ProtocolNumber
		if six {
			proto = header.IPv6ProtocolNumber
		}
		(*d).DeliverNetworkPacket(proto, p)
	}
	p.DecRef()
}

func (l *link) IsAttached() bool { return l.dispatcher.Load() != nil }
func (l *link) MTU() uint32      { return l.mtu.Load() }
func (l *link) SetMTU(m uint32)  { l.mtu.Store(m) }

// Capabilities tells gVisor not to verify checksums: WireGuard has
// authenticated every byte. Lengths and flags are still checked.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (l *link) GSOMaxSize() uint32               { return gsoSize }
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

func (l *link) MaxHeaderLength() uint16                 { return 0 }
func (l *link) LinkAddress() tcpip.LinkAddress          { return "" }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (l *link) AddHeader(*stack.PacketBuffer)           {}
func (l *link) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
