package gateway

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"podnet.dev/dnsproxy"
	"podnet.dev/internal/netstack"
)

// ServeDNS answers on port 53 of Service4 and Service6 in a gateway's stack, by UDP
// and TCP, until ctx ends.
func ServeDNS(ctx context.Context, s *netstack.Stack, dns *dnsproxy.Server) error {
	var packets []net.PacketConn
	var listeners []net.Listener
	for _, a := range []netip.Addr{Service4, Service6} {
		at := netip.AddrPortFrom(a, 53)
		p, err := s.ListenUDP(at)
		if err != nil {
			return fmt.Errorf("listen for DNS: %w", err)
		}
		l, err := s.ListenTCP(at)
		if err != nil {
			return fmt.Errorf("listen for DNS: %w", err)
		}
		packets, listeners = append(packets, p), append(listeners, l)
	}
	return dns.Serve(ctx, packets, listeners)
}
