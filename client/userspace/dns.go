package userspace

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"podnet.dev/client/helper"
)

// DNS are sockets of a session's DNS proxy that call themselves port 53 of addresses
// which this machine does not have. They are on its loopback, and At knows the way.
type DNS struct {
	mu    sync.Mutex
	ports map[place]netip.AddrPort
}

// place is port 53 of an address, for "udp" or "tcp".
type place struct {
	network string
	addr    netip.Addr
}

// NewDNS has no sockets yet.
func NewDNS() *DNS { return &DNS{ports: map[place]netip.AddrPort{}} }

// Listen opens sockets for addrs; see helper.Session.ListenDNS.
func (d *DNS) Listen(ctx context.Context, addrs []netip.Addr) (_ []net.PacketConn, _ []net.Listener, err error) {
	var open helper.Sockets
	defer func() {
		if err != nil {
			open.Close()
		}
	}()
	var lc net.ListenConfig
	for _, a := range addrs {
		p, err := lc.ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("answer DNS: %w", err)
		}
		open.Packets = append(open.Packets, port53{p, a})
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, fmt.Errorf("answer DNS: %w", err)
		}
		open.Streams = append(open.Streams, l)
		d.mu.Lock()
		d.ports[place{"udp", a}] = p.LocalAddr().(*net.UDPAddr).AddrPort()
		d.ports[place{"tcp", a}] = l.Addr().(*net.TCPAddr).AddrPort()
		d.mu.Unlock()
	}
	return open.Packets, open.Streams, nil
}

// At is where the socket is that calls itself port 53 of an address; the zero AddrPort:
// there is none. network is "udp" or "tcp".
func (d *DNS) At(network string, a netip.Addr) netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ports[place{network, a}]
}

// port53 is a socket under an assumed address.
type port53 struct {
	net.PacketConn
	addr netip.Addr
}

func (p port53) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.addr, 53)) }
