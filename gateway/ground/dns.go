package ground

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"podnet.dev/dnsproxy"
)

// ServeDNS answers on port 53 of Service4 and Service6, by UDP and TCP, until ctx ends.
func (g *Ground) ServeDNS(ctx context.Context, dns *dnsproxy.Server) error {
	var packets []net.PacketConn
	var listeners []net.Listener
	for _, a := range []netip.Addr{Service4, Service6} {
		at := netip.AddrPortFrom(a, 53)
		p, err := g.Stack.ListenUDP(at)
		if err != nil {
			return fmt.Errorf("listen for DNS: %w", err)
		}
		l, err := g.Stack.ListenTCP(at)
		if err != nil {
			return fmt.Errorf("listen for DNS: %w", err)
		}
		packets, listeners = append(packets, p), append(listeners, l)
	}
	return dns.Serve(ctx, packets, listeners)
}
