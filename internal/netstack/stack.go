// Package netstack is a TCP/IP stack inside the process with a WireGuard
// tun.Device as its only link. It is the one door to gVisor.
//
// A stack has addresses of its own, on which it listens and from which it
// dials. With Forward it also takes what is sent to every other address: TCP
// connections as requests to accept or refuse, everything else as whole
// packets. With Relay it lets chosen packets pass from one peer to another.
//
// The package knows no policy and no sockets of the host.
package netstack

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"golang.zx2c4.com/wireguard/tun"

	"podnet.dev/internal/packet"
)

const (
	// TunnelMTU is the inner packet size that fits into every tunnel: 1500 less
	// 80 for IPv6, UDP and WireGuard. Whatever is not TCP is fragmented to it,
	// because only TCP tells its peer how much it takes.
	TunnelMTU = 1420

	// DefaultMTU is the MTU of a stack that says none.
	DefaultMTU = TunnelMTU

	// maxMTU leaves room for the headers of WireGuard in its largest datagram.
	maxMTU = 65000

	nic = 1

	// Buffer limits, as the kernel's tcp_rmem and tcp_wmem: enough for
	// 500 Mbit/s over 100 ms. They are limits; auto-tuning starts low.
	minBuffer, startBuffer    = 4 << 10, 1 << 20
	maxReceiveBuf, maxSendBuf = 8 << 20, 6 << 20
	timeWait                  = time.Second // WireGuard drops old duplicates itself
	maxSynInFlight            = 1 << 16     // the forwarder counts per peer

	// maxRTO bounds the time between two retransmissions, 120 s by RFC 6298's
	// custom: a laptop that was away for two minutes shall not wait for another
	// one until its download goes on.
	maxRTO = 5 * time.Second
)

// keepAlive is how peers that vanished are found unless Config says otherwise.
// The last of them is given up after 108 s: within two minutes, with room for a busy machine.
var keepAlive = net.KeepAliveConfig{Idle: 60 * time.Second, Interval: 12 * time.Second, Count: 4}

// Config shapes a Stack. The zero value works.
type Config struct {
	// MTU is the largest inner packet, 1280 to 65000; 0 means DefaultMTU. It
	// bounds TCP's segments; see TunnelMTU for the others.
	MTU int
	// KeepAlive is when a TCP connection counts as dead: it is asked for a sign
	// of life after Idle of silence, every Interval, Count times, and data is
	// sent again for as long as all that takes. Zero fields mean 60 s, 12 s, 4.
	KeepAlive net.KeepAliveConfig
	Log       *slog.Logger
}

// Stack is a TCP/IP stack. Its methods are safe for concurrent use.
type Stack struct {
	log    *slog.Logger
	keep   net.KeepAliveConfig
	stack  *stack.Stack
	link   *link
	device *device
	tcp    *tcp.Forwarder

	flights flights

	hooks atomic.Pointer[Hooks]
	relay atomic.Pointer[func(*packet.Packet) bool]
	local atomic.Pointer[map[netip.Addr]struct{}] // replaced under mu, never changed

	mu     sync.Mutex
	closed bool
}

// New makes a Stack with no addresses.
func New(c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < 1280 || c.MTU > maxMTU {
		return nil, fmt.Errorf("make network stack: MTU %d is not within 1280 to %d", c.MTU, maxMTU)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Stack{log: c.Log, link: newLink(uint32(c.MTU)), keep: net.KeepAliveConfig{
		Idle: cmp.Or(c.KeepAlive.Idle, keepAlive.Idle), Interval: cmp.Or(c.KeepAlive.Interval, keepAlive.Interval), Count: cmp.Or(c.KeepAlive.Count, keepAlive.Count),
	}}
	s.flights.to = map[netip.Addr]*flight{}
	s.local.Store(&map[netip.Addr]struct{}{})
	s.device = newDevice(s, c.MTU)
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := s.configure(); err != nil {
		s.Close()
		return nil, fmt.Errorf("make network stack: %w", err)
	}
	s.tcp = tcp.NewForwarder(s.stack, 0, maxSynInFlight, s.handleTCP)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, s.handleUnknown)
	return s, nil
}

func (s *Stack) configure() error {
	sack := tcpip.TCPSACKEnabled(true)
	// gVisor's cubic cuts its window down to whole segments at each
	// acknowledgement, so a small window hardly grows: at 150 ms and 2 % loss it
	// has 60 % of what Linux has on the same wire, reno as much as Linux.
	cc := tcpip.CongestionControlOption("reno")
	// Not RACK: with it gVisor, once it has run into a retransmission timeout,
	// counts what it sent before as still on its way and sends two segments per
	// timeout, 13 KB/s, until all of a lost window is through. Classic SACK
	// recovery is as fast where single packets are lost.
	recovery := tcpip.TCPRecovery(0)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: startBuffer, Max: maxReceiveBuf}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: startBuffer, Max: maxSendBuf}
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	rto := tcpip.TCPMaxRTOOption(maxRTO)
	tries := tcpip.TCPMaxRetriesOption(retries(s.keep.Idle + time.Duration(s.keep.Count)*s.keep.Interval))
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &cc, &recovery, &receive, &send, &moderate, &wait, &rto, &tries} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %s", o, err)
		}
	}
	if err := s.stack.CreateNIC(nic, s.link); err != nil {
		return fmt.Errorf("create interface: %s", err)
	}
	s.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return nil
}

// retries is how many retransmissions a peer may miss in the time d, where it
// is near.
func retries(d time.Duration) (n uint64) {
	for rto := tcp.MinRTO; d > 0; n++ {
		d -= rto
		rto = min(2*rto, maxRTO)
	}
	return n
}

// Device is the stack's end for WireGuard. It is always the same one; closing
// it drops all packets, closing the Stack closes it.
func (s *Stack) Device() tun.Device { return s.device }

// AddAddress makes a one of the stack's own addresses: it answers ping there,
// and listeners may bind it. Adding it again does nothing.
func (s *Stack) AddAddress(a netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := *s.local.Load()
	if _, ok := have[a]; ok {
		return nil
	}
	err := s.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          protocol(a),
		AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("add address %s: %s", a, err)
	}
	next := maps.Clone(have)
	next[a] = struct{}{}
	s.local.Store(&next)
	return nil
}

// RemoveAddress takes an address back. Connections that have it stay and hear
// nothing any more. Removing it again does nothing.
func (s *Stack) RemoveAddress(a netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := *s.local.Load()
	if _, ok := have[a]; !ok {
		return nil
	}
	if err := s.stack.RemoveAddress(nic, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
		return fmt.Errorf("remove address %s: %s", a, err)
	}
	next := maps.Clone(have)
	delete(next, a)
	s.local.Store(&next)
	return nil
}

// IsLocal reports whether a is one of the stack's own addresses.
func (s *Stack) IsLocal(a netip.Addr) bool {
	_, ok := (*s.local.Load())[a]
	return ok
}

// Flush waits until WireGuard has taken what is queued, and a moment for it to
// send that, at most d. Whoever is about to close the device calls it so that
// the last words get out.
func (s *Stack) Flush(d time.Duration) {
	s.link.acks.flush()
	for end := time.Now().Add(d); s.link.out.len() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(min(d, 20*time.Millisecond))
}

// Close resets every connection, closes the device and waits. Whoever peeks
// at a connection's data must have stopped before.
func (s *Stack) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.hooks.Store(nil)
	s.relay.Store(nil)
	s.device.Close()
	s.stack.Destroy()
	return nil
}

func protocol(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	ip, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(ip, port)
}
