package kube

import (
	"net"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"podnet.dev/internal/remap"
)

// mapOf is at which addresses a peer reaches the cluster's.
func (z *Zone) mapOf(peer netip.Addr) remap.Map {
	if z.cfg.Map == nil {
		return remap.Map{}
	}
	return z.cfg.Map(peer)
}

// virtual is rrs as a peer with that map may use them: every address that another
// one stands for is replaced. Records are shared by all peers, so what changes is
// copied.
func virtual(rrs []dns.RR, m remap.Map) []dns.RR {
	out, copied := rrs, false
	for i, rr := range rrs {
		v := virtualRecord(rr, m)
		if v == nil {
			continue
		}
		if !copied {
			out, copied = slices.Clone(rrs), true
		}
		out[i] = v
	}
	return out
}

// virtualRecord is the record in place of rr, or nil when it may stay.
func virtualRecord(rr dns.RR, m remap.Map) dns.RR {
	switch rr := rr.(type) {
	case *dns.A:
		if a, ok := virtualIP(rr.A.To4(), m); ok {
			return &dns.A{Hdr: rr.Hdr, A: a}
		}
	case *dns.AAAA:
		if a, ok := virtualIP(rr.AAAA, m); ok {
			return &dns.AAAA{Hdr: rr.Hdr, AAAA: a}
		}
	case *dns.SVCB:
		if mapHints(rr, m, false) {
			c := dns.Copy(rr).(*dns.SVCB)
			mapHints(c, m, true)
			return c
		}
	case *dns.HTTPS:
		if mapHints(&rr.SVCB, m, false) {
			c := dns.Copy(rr).(*dns.HTTPS)
			mapHints(&c.SVCB, m, true)
			return c
		}
	}
	return nil
}

// mapHints reports whether the addresses that a record hints at (RFC 9460, section
// 7.3) are mapped, and maps them if it is to.
func mapHints(rr *dns.SVCB, m remap.Map, write bool) (mapped bool) {
	for _, v := range rr.Value {
		var hints []net.IP
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint:
			hints = v.Hint
		case *dns.SVCBIPv6Hint:
			hints = v.Hint
		}
		for i, ip := range hints {
			if ip4 := ip.To4(); ip4 != nil {
				ip = ip4
			}
			if a, ok := virtualIP(ip, m); ok {
				mapped = true
				if write {
					hints[i] = a
				}
			}
		}
	}
	return mapped
}

func virtualIP(ip net.IP, m remap.Map) (net.IP, bool) {
	a, _ := netip.AddrFromSlice(ip)
	v, ok := m.Virtual(a)
	return v.AsSlice(), ok
}
