package kube

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
	"podnet.dev/internal/remap"
)

// mapped makes a Map of the cluster's prefixes.
func mapped(t *testing.T) remap.Map {
	t.Helper()
	m, err := remap.Parse([]remap.Pair{
		{Real: netip.MustParsePrefix("10.244.0.0/16"), Virtual: netip.MustParsePrefix("100.64.0.0/16")},
		{Real: netip.MustParsePrefix("10.96.0.0/12"), Virtual: netip.MustParsePrefix("172.16.0.0/12")},
		{Real: netip.MustParsePrefix("fd00:244::/64"), Virtual: netip.MustParsePrefix("fdaa:bb::/64")},
		{Real: netip.MustParsePrefix("fd00:10:96::/112"), Virtual: netip.MustParsePrefix("fdaa:cc::/112")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bob sees what ada sees, at the cluster's own addresses.
var bob = netip.MustParseAddr("198.18.0.9")

// insideToo is exampleOnly with names that only the cluster's own server has, of
// addresses of the cluster's.
var insideToo = dnsproxy.ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	records := map[string]string{
		"stub.cluster.local. A":     "stub.cluster.local. 60 IN A 10.96.0.99",
		"stub.cluster.local. HTTPS": `stub.cluster.local. 60 IN HTTPS 1 . alpn="h2" ipv4hint="10.96.0.99,192.0.2.9" ipv6hint="fd00:244::9"`,
		"example.com. A":            "example.com. 60 IN A 10.244.9.9",
	}
	text, ok := records[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]]
	if !ok {
		return exampleOnly.Exchange(ctx, q)
	}
	rr, err := dns.NewRR(text)
	m := new(dns.Msg)
	m.SetReply(q)
	m.Answer = []dns.RR{rr}
	return m, err
})

// mappedZone is the cluster of TestSpecification, which ada reaches at virtual
// addresses and bob at the real ones.
func mappedZone(t *testing.T, upstream dnsproxy.Exchanger) *Zone {
	m := mapped(t)
	z := newZone(t, upstream)
	z.cfg.Visible = func(p netip.Addr, ns string) bool { return (p == ada || p == bob) && ns != "pay" }
	z.cfg.Map = func(p netip.Addr) remap.Map {
		if p == ada {
			return m
		}
		return remap.Map{}
	}
	return z
}

func TestVirtualAnswers(t *testing.T) {
	z := mappedZone(t, dnsproxy.NewCache(insideToo))
	one := func(s ...string) []string { return s }
	for _, tt := range []struct {
		what  string
		name  string
		qtype uint16
		ada   []string // at virtual addresses
		bob   []string // and at real ones
	}{
		{"a Service", "web.shop.svc.cluster.local.", dns.TypeA, one("A 172.16.0.20"), one("A 10.96.0.20")},
		{"a Service, IPv6", "web.shop.svc.cluster.local.", dns.TypeAAAA, one("AAAA fdaa:cc::20"), one("AAAA fd00:10:96::20")},
		{"a headless Service", "db.shop.svc.cluster.local.", dns.TypeA, one("A 100.64.1.10", "A 100.64.2.11"), one("A 10.244.1.10", "A 10.244.2.11")},
		{"a member", "db-1.db.shop.svc.cluster.local.", dns.TypeA, one("A 100.64.2.11"), one("A 10.244.2.11")},
		{"a member, IPv6", "db-0.db.shop.svc.cluster.local.", dns.TypeAAAA, one("AAAA fdaa:bb::10"), one("AAAA fd00:244::10")},
		{"a nameless member", "10-244-1-20.bare.shop.svc.cluster.local.", dns.TypeA, one("A 100.64.1.20"), one("A 10.244.1.20")},
		{"SRV goes by names", "_pg._tcp.db.shop.svc.cluster.local.", dns.TypeSRV,
			one("SRV 0 1 5432 db-0.db.shop.svc.cluster.local.", "SRV 0 1 5432 db-1.db.shop.svc.cluster.local."),
			one("SRV 0 1 5432 db-0.db.shop.svc.cluster.local.", "SRV 0 1 5432 db-1.db.shop.svc.cluster.local.")},
		{"a pod by its address", "10-244-1-100.shop.pod.cluster.local.", dns.TypeA, one("A 100.64.1.100"), one("A 10.244.1.100")},
		{"a CNAME into the zone", "alias.shop.svc.cluster.local.", dns.TypeA, one("A 172.16.0.20", "CNAME web.shop.svc.cluster.local."), one("A 10.96.0.20", "CNAME web.shop.svc.cluster.local.")},
		{"a CNAME out of the zone", "ext.shop.svc.cluster.local.", dns.TypeA, one("A 100.64.9.9", "CNAME example.com."), one("A 10.244.9.9", "CNAME example.com.")},
		{"the cluster's own server", "stub.cluster.local.", dns.TypeA, one("A 172.16.0.99"), one("A 10.96.0.99")},
		{"and its hints", "stub.cluster.local.", dns.TypeHTTPS,
			one(`HTTPS 1 . alpn="h2" ipv4hint="172.16.0.99,192.0.2.9" ipv6hint="fdaa:bb::9"`), one(`HTTPS 1 . alpn="h2" ipv4hint="10.96.0.99,192.0.2.9" ipv6hint="fd00:244::9"`)},
		{"what is not the cluster's", "rewritten.cluster.local.", dns.TypeA, one("A 192.0.2.81"), one("A 192.0.2.81")},
		{"the gateway itself", "ns.dns.cluster.local.", dns.TypeA, one("A 198.18.0.1"), one("A 198.18.0.1")},

		{"PTR of a real address", "20.0.96.10.in-addr.arpa.", dns.TypePTR, one("PTR web.shop.svc.cluster.local."), one("PTR web.shop.svc.cluster.local.")},
		{"PTR of a virtual one", "20.0.16.172.in-addr.arpa.", dns.TypePTR, one("PTR web.shop.svc.cluster.local."), nil},
		{"PTR of a member", "10.1.64.100.in-addr.arpa.", dns.TypePTR, one("PTR db-0.db.shop.svc.cluster.local."), nil},
		{"PTR, IPv6", "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.b.0.0.a.a.d.f.ip6.arpa.", dns.TypePTR, one("PTR db-0.db.shop.svc.cluster.local."), nil},
		{"PTR of what ada may not see", "30.0.16.172.in-addr.arpa.", dns.TypePTR, nil, nil},
		{"PTR of nobody", "99.99.16.172.in-addr.arpa.", dns.TypePTR, nil, nil},
	} {
		// In turns, and each twice: what one is told must not change what is shared.
		for range 2 {
			for who, c := range map[string]struct {
				peer netip.Addr
				want []string
			}{"ada": {ada, tt.ada}, "bob": {bob, tt.bob}} {
				m := ask(z, c.peer, tt.name, tt.qtype)
				if got := text(m.Answer); !slices.Equal(got, c.want) {
					t.Errorf("%s: %s is told %q, want %q", tt.what, who, got, c.want)
				}
				for _, rr := range m.Answer {
					if tt.qtype == dns.TypePTR && rr.Header().Name != tt.name {
						t.Errorf("%s: the answer is about %s", tt.what, rr.Header().Name)
					}
				}
				if len(c.want) == 0 && (m.Rcode != dns.RcodeNameError || len(m.Ns) != 1) {
					t.Errorf("%s: %s is told %v", tt.what, who, m)
				}
			}
		}
	}
}

// TestVirtualGlue: SRV goes by names, and what is added saves a question.
func TestVirtualGlue(t *testing.T) {
	z := mappedZone(t, nil)
	for _, c := range []struct {
		peer netip.Addr
		want []string
	}{
		{ada, []string{"A 100.64.1.10", "A 100.64.2.11", "AAAA fdaa:bb::10"}},
		{bob, []string{"A 10.244.1.10", "A 10.244.2.11", "AAAA fd00:244::10"}},
		{ada, []string{"A 100.64.1.10", "A 100.64.2.11", "AAAA fdaa:bb::10"}},
	} {
		m := ask(z, c.peer, "_pg._tcp.db.shop.svc.cluster.local.", dns.TypeSRV)
		if got := text(m.Extra); !slices.Equal(got, c.want) {
			t.Errorf("%s is told %q besides, want %q", c.peer, got, c.want)
		}
	}
}

// TestVirtualPTRLeadsBack: each address that ada is told has the name she asked
// about, or a member's.
func TestVirtualPTRLeadsBack(t *testing.T) {
	z := mappedZone(t, nil)
	for _, name := range []string{"web.shop.svc.cluster.local.", "db-0.db.shop.svc.cluster.local.", "six.shop.svc.cluster.local.", "twin.twins.shop.svc.cluster.local."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, rr := range ask(z, ada, name, qtype).Answer {
				var ip string
				switch rr := rr.(type) {
				case *dns.A:
					ip = rr.A.String()
				case *dns.AAAA:
					ip = rr.AAAA.String()
				}
				back, err := dns.ReverseAddr(ip)
				if err != nil {
					t.Fatal(err)
				}
				if got := text(ask(z, ada, back, dns.TypePTR).Answer); !slices.Contains(got, "PTR "+name) {
					t.Errorf("%s of %s is %q", ip, name, got)
				}
			}
		}
	}
}
