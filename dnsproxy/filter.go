package dnsproxy

import (
	"cmp"
	"fmt"
	"net"
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
	left := "" // why an address is left out
	out.Answer = keep(resp.Answer, func(rr dns.RR) bool {
		if !chain[Canonical(rr.Header().Name)] {
			return false
		}
		why := v.mayNot(rr, forbid)
		left = cmp.Or(left, why)
		return why == ""
	})
	out.Ns = keep(resp.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA })
	if resp.Rcode == dns.RcodeSuccess && len(out.Answer) == 0 && len(out.Ns) == 0 {
		out.Ns = []dns.RR{SOA(v.zone, v.zone, 1, 5)} // what we left out is NODATA, and for how long
	}
	out.Extra = keep(resp.Extra, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeOPT || Under(Canonical(rr.Header().Name), v.zone) && v.mayNot(rr, forbid) == ""
	})
	if left != "" {
		out.Extra = withoutOPT(out.Extra)
		return Explain(&out, dns.ExtendedErrorCodeFiltered, left)
	}
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

// mayNot says why a record must not pass, "" if it may: an address that it names, or
// hints at, is none for a laptop.
func (v *view) mayNot(rr dns.RR, forbid func(netip.Addr) bool) string {
	for _, ip := range addressesIn(rr) {
		a, _ := netip.AddrFromSlice(ip)
		a = a.Unmap()
		switch {
		case !a.IsValid():
			return "an address was left out: it is none"
		case a.IsLoopback(), a.IsUnspecified(), a.IsMulticast(), a.IsLinkLocalUnicast(),
			a.Is4() && (a.As4()[0] == 0 || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
			return fmt.Sprintf("%s was left out: it never leaves a machine or a link", a)
		case forbid != nil && forbid(a):
			return fmt.Sprintf("%s was left out: on this machine something else has it", a)
		case !v.familyRouted(a) && Under(Canonical(rr.Header().Name), v.zone):
			return fmt.Sprintf("%s was left out: the tunnel does not carry its family", a)
		}
	}
	return ""
}

// addressesIn are what a program may connect to because of rr. Browsers go by the
// hints of HTTPS and SVCB records (RFC 9460 section 7.3) as by A and AAAA.
func addressesIn(rr dns.RR) []net.IP {
	switch rr := rr.(type) {
	case *dns.A:
		return []net.IP{rr.A}
	case *dns.AAAA:
		return []net.IP{rr.AAAA}
	case *dns.SVCB:
		return hints(rr)
	case *dns.HTTPS:
		return hints(&rr.SVCB)
	}
	return nil
}

func hints(rr *dns.SVCB) []net.IP {
	var all []net.IP
	for _, v := range rr.Value {
		switch v := v.(type) {
		case *dns.SVCBIPv4Hint:
			all = append(all, v.Hint...)
		case *dns.SVCBIPv6Hint:
			all = append(all, v.Hint...)
		}
	}
	return all
}

// give tells which addresses an answer of the cluster's to a question for target gives
// out. A pod's name by its address (10-244-1-7.shop.pod) gives none: whoever knows the
// address could have made up the name.
func (s *Split) give(v *view, target string, m *dns.Msg) {
	if s.cfg.Given == nil || Under(target, "pod."+v.zone) {
		return
	}
	s.cfg.Given(func(yield func(netip.Addr) bool) {
		for _, rrs := range [...][]dns.RR{m.Answer, m.Extra} {
			for _, rr := range rrs {
				for _, ip := range addressesIn(rr) {
					if a, ok := netip.AddrFromSlice(ip); ok && !yield(a.Unmap()) {
						return
					}
				}
			}
		}
	})
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
