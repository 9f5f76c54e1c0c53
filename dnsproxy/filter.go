package dnsproxy

import (
	"net/netip"

	"github.com/miekg/dns"
)

// filter is what of the cluster's answer a laptop may believe: records on the
// way from the question, none of which point back at the laptop, at its links
// or into a family that is not routed. A shared cluster must not be able to
// send a developer's browser to the developer's own services (rebinding), nor
// to speak for names it was not asked about.
func filter(resp *dns.Msg, target string, v *view, forbid func(netip.Addr) bool) *dns.Msg {
	out := *resp
	chain := chainFrom(resp.Answer, target)
	out.Answer = keep(resp.Answer, func(rr dns.RR) bool {
		return chain[Canonical(rr.Header().Name)] && v.mayPoint(rr, forbid)
	})
	out.Ns = keep(resp.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
	if resp.Rcode == dns.RcodeSuccess && len(out.Answer) == 0 && len(out.Ns) == 0 {
		out.Ns = []dns.RR{SOA(v.zone, v.zone, 1, 5)} // what we left out is NODATA, and for how long
	}
	out.Extra = keep(resp.Extra, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeOPT || Under(Canonical(rr.Header().Name), v.zone) && v.mayPoint(rr, forbid)
	})
	return &out
}

// chainFrom is the set of names from name along the CNAMEs of rrs, of which
// there may be thousands in any order.
func chainFrom(rrs []dns.RR, name string) map[string]bool {
	targets := map[string]string{}
	for _, rr := range rrs {
		c, ok := rr.(*dns.CNAME)
		if !ok {
			continue
		}
		if owner := Canonical(c.Hdr.Name); targets[owner] == "" {
			targets[owner] = Canonical(c.Target)
		}
	}
	chain := map[string]bool{}
	for name != "" && !chain[name] {
		chain[name] = true
		name = targets[name]
	}
	return chain
}

// mayPoint is false for address records that must not pass.
func (v *view) mayPoint(rr dns.RR, forbid func(netip.Addr) bool) bool {
	var a netip.Addr
	switch rr := rr.(type) {
	case *dns.A:
		a, _ = netip.AddrFromSlice(rr.A)
	case *dns.AAAA:
		a, _ = netip.AddrFromSlice(rr.AAAA)
	default:
		return true
	}
	a = a.Unmap()
	switch {
	case !a.IsValid(), a.IsLoopback(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast():
		return false
	case a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return false
	case forbid != nil && forbid(a):
		return false
	}
	return v.familyRouted(a) || !Under(Canonical(rr.Header().Name), v.zone)
}

// familyRouted says whether the tunnel carries a's family. Without any routed
// prefix nothing is known, so everything passes.
func (v *view) familyRouted(a netip.Addr) bool {
	for _, p := range v.reverse {
		if p.Addr().Is4() == a.Is4() {
			return true
		}
	}
	return len(v.reverse) == 0
}

func keep(rrs []dns.RR, want func(dns.RR) bool) []dns.RR {
	var out []dns.RR
	for _, rr := range rrs {
		if want(rr) {
			out = append(out, rr)
		}
	}
	return out
}
