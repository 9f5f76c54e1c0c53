package forward

import "net/netip"

// Rewrite redirects what the forwarder dials, after the policy has seen it:
// tests have only loopback to listen on.
func (f *Forwarder) Rewrite(to func(netip.AddrPort) netip.AddrPort) {
	f.rewrite = func(_ Proto, a netip.AddrPort) netip.AddrPort { return to(a) }
}
