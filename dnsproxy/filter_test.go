package dnsproxy

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// TestForbiddenAnswers has a hostile cluster tell addresses of the laptop's own, of
// its links and of its networks, in every way that a program may take one from: none
// arrives. An honest one does.
func TestForbiddenAnswers(t *testing.T) {
	const name, honest4, honest6 = "evil.cart.svc.cluster.local.", "10.244.1.2", "fd00:244::2"
	onLink := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
	header := func(owner string, rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: 5}
	}
	address := func(owner string, ip net.IP) dns.RR {
		if ip4 := ip.To4(); ip4 != nil && len(ip) == net.IPv4len {
			return &dns.A{Hdr: header(owner, dns.TypeA), A: ip4}
		}
		return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: ip}
	}
	hint := func(rrtype uint16, ips ...net.IP) dns.SVCB {
		s := dns.SVCB{Hdr: header(name, rrtype), Priority: 1, Target: "."}
		if len(ips[0]) == net.IPv4len {
			s.Value = []dns.SVCBKeyValue{&dns.SVCBAlpn{Alpn: []string{"h2"}}, &dns.SVCBIPv4Hint{Hint: ips}}
		} else {
			s.Value = []dns.SVCBKeyValue{&dns.SVCBIPv6Hint{Hint: ips}}
		}
		return s
	}
	for what, tell := range map[string]func(m *dns.Msg, ip, honest net.IP){
		"an address": func(m *dns.Msg, ip, _ net.IP) { m.Answer = []dns.RR{address(name, ip)} },
		"the end of an alias": func(m *dns.Msg, ip, _ net.IP) {
			m.Answer = []dns.RR{&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: "other.example."}, address("other.example.", ip)}
		},
		"an address that is extra": func(m *dns.Msg, ip, _ net.IP) { m.Extra = []dns.RR{address(name, ip)} },
		"a hint of an SVCB":        func(m *dns.Msg, ip, _ net.IP) { s := hint(dns.TypeSVCB, ip); m.Answer = []dns.RR{&s} },
		"a hint of an HTTPS":       func(m *dns.Msg, ip, _ net.IP) { m.Answer = []dns.RR{&dns.HTTPS{SVCB: hint(dns.TypeHTTPS, ip)}} },
		"a hint behind an honest": func(m *dns.Msg, ip, honest net.IP) {
			m.Answer = []dns.RR{&dns.HTTPS{SVCB: hint(dns.TypeHTTPS, honest, ip)}}
		},
	} {
		for honest, forbidden := range map[string][]string{
			honest4: {"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.251", "239.1.1.1", "255.255.255.255", "192.168.1.1", "192.168.1.254"},
			honest6: {"::1", "::", "fe80::1", "febf::1", "ff02::fb", "2001:db8:1::1", "::ffff:127.0.0.1", "::ffff:192.168.1.1", "::ffff:169.254.169.254"},
		} {
			for _, addr := range append(forbidden, honest) {
				split := NewSplit(SplitConfig{
					Domain: "cluster.local", Namespaces: []string{"cart"},
					Cluster: ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
						m := new(dns.Msg).SetReply(q)
						tell(m, netip.MustParseAddr(addr).AsSlice(), netip.MustParseAddr(honest).AsSlice())
						return m, nil
					}),
					ReverseZones: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/64")},
					Forbid:       func(a netip.Addr) bool { return onLink[0].Contains(a) || onLink[1].Contains(a) },
				})
				m := split.ServeDNS(t.Context(), &Request{Msg: query(name, dns.TypeA)})
				split.Close()
				told := 0
				for _, rr := range append(m.Answer, m.Extra...) {
					told += len(addressesIn(rr))
				}
				if (told > 0) != (addr == honest) {
					t.Errorf("%s, %s: %v", what, addr, m)
				}
			}
		}
	}
}
