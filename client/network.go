package client

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"podnet.dev/api/v1alpha1"
	"podnet.dev/client/helper/wire"
	"podnet.dev/internal/key"
	"podnet.dev/internal/remap"
)

// network is what Peer.status says, as addresses.
type network struct {
	own      []netip.Addr   // ours in the tunnel
	prefixes []netip.Prefix // pods and Services
	virtual  remap.Map      // what stands for them, as the gateways map it
	dns      []netip.Addr   // who answers DNS in the tunnel
	domain   string
	also     []string // domains beside the cluster that its DNS is asked for
}

func (n network) equal(o network) bool {
	return n.domain == o.domain && slices.Equal(n.own, o.own) && slices.Equal(n.prefixes, o.prefixes) && n.virtual.Equal(o.virtual) && slices.Equal(n.dns, o.dns) && slices.Equal(n.also, o.also)
}

// tunnel4 is the IPv4 range of all tunnel addresses, gateways' and laptops'; that of IPv6
// is key.Prefix6.
var tunnel4 = netip.MustParsePrefix("198.18.0.0/16")

// tunnelAddress reads an address in the tunnel. Any other that the gateway made ours, or
// had us route, would take from this machine what it has there: its router, its resolver.
func tunnelAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	return a, err == nil && (tunnel4.Contains(a) || key.Prefix6.Contains(a))
}

// parseNetwork reads the gateway's word. It is another program's, so nothing in
// it is taken for granted.
func parseNetwork(p *v1alpha1.Peer) (network, error) {
	var n network
	for _, text := range []string{p.Status.Address4, p.Status.Address6} {
		if text == "" {
			continue
		}
		a, ok := tunnelAddress(text)
		if !ok {
			return n, fmt.Errorf("the gateway gave us the address %q, which is not the tunnel's", text)
		}
		n.own = append(n.own, a)
	}
	if len(n.own) == 0 {
		return n, fmt.Errorf("the gateway gave us no address")
	}
	w := p.Status.Network
	if w == nil {
		return n, fmt.Errorf("the gateway did not say which networks the cluster has")
	}
	n.also = p.Spec.AlsoDomains
	for _, text := range slices.Concat(w.PodCIDRs, w.ServiceCIDRs, p.Spec.AlsoRoutes) {
		c, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("the gateway published the network %q", text)
		}
		n.prefixes = append(n.prefixes, c.Masked())
	}
	n.prefixes = compactPrefixes(n.prefixes)
	var err error
	if n.virtual, err = parseVirtual(p.Status.Virtual); err != nil {
		return n, fmt.Errorf("the gateway maps addresses: %w", err)
	}
	for _, text := range w.DNSAddresses {
		a, ok := tunnelAddress(text)
		if !ok {
			return n, fmt.Errorf("the gateway published the DNS address %q, which is not the tunnel's", text)
		}
		n.dns = append(n.dns, a)
	}
	if len(n.dns) == 0 {
		return n, fmt.Errorf("the gateway did not say who answers DNS")
	}
	if n.domain = strings.ToLower(strings.TrimSuffix(w.DNSDomain, ".")); w.DNSDomain == "" {
		n.domain = "cluster.local"
	}
	// Whoever changes the host: all names in there are asked of the gateway, and the
	// name itself comes into files and onto terminals.
	if wire.Domain(n.domain) != nil {
		return n, fmt.Errorf("the gateway published the DNS domain %q, which is no cluster's", w.DNSDomain)
	}
	return n, nil
}

// without is n with some prefixes kept out of the tunnel.
func (n network) without(never []netip.Prefix) network {
	for _, q := range never {
		var left []netip.Prefix
		for _, p := range n.prefixes {
			left = append(left, outside(p, q)...)
		}
		n.prefixes = left
	}
	return n
}

// outside is what of p lies outside of q.
func outside(p, q netip.Prefix) []netip.Prefix {
	switch {
	case !p.Overlaps(q):
		return []netip.Prefix{p}
	case q.Bits() <= p.Bits():
		return nil
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	high := p.Addr().AsSlice()
	high[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	top, _ := netip.AddrFromSlice(high) // as long as it was
	return append(outside(low, q), outside(netip.PrefixFrom(top, low.Bits()), q)...)
}

// compactPrefixes drops those that lie in others: WireGuard would not mind, but
// a route more is a route more.
func compactPrefixes(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for i, p := range ps {
		covered := slices.ContainsFunc(ps, func(o netip.Prefix) bool { return o != p && o.Bits() <= p.Bits() && o.Contains(p.Addr()) })
		if !covered && !slices.Contains(ps[:i], p) {
			out = append(out, p)
		}
	}
	return out
}

// inside is everything behind the tunnel: WireGuard's allowed IPs of the gateway.
func (n network) inside() []netip.Prefix { return slices.Concat(n.routed(), n.shared()) }

// shared are the gateway's own addresses, which are the same in every cluster.
func (n network) shared() []netip.Prefix {
	var all []netip.Prefix
	for _, a := range n.dns {
		if !key.Prefix6.Contains(a) {
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return append(all, key.Prefix6)
}
