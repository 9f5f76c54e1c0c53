package kube

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

func TestDashed(t *testing.T) {
	for addr, want := range map[string]string{
		"10.244.1.20":       "10-244-1-20",
		"fd00:244::40":      "fd00-244--40",
		"fd00:244::":        "fd00-244--0",
		"fd00:244:1::":      "fd00-244-1--0",
		"2001:db8:1:2::5:6": "2001-db8-1-2--5-6",
	} {
		a := netip.MustParseAddr(addr)
		if got := dashed(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
		if back, ok := parseDashed(want); !ok || back != a {
			t.Errorf("%s: %v %v", want, back, ok)
		}
	}
	for _, s := range []string{"", "-", "web-0", "10-244-1", "10-244-1-300", "fe80--1%eth0", "10-244-1-20-5"} {
		if a, ok := parseDashed(s); ok {
			t.Errorf("%q is %v", s, a)
		}
	}
}

// FuzzZone asks for arbitrary names and types, in the zone and beside the cluster:
// there is always one answer that can be read, and a hidden namespace is never in it.
func FuzzZone(f *testing.F) {
	for _, s := range []string{
		"web.shop.svc", "_http._tcp.web.shop.svc", "db-0.db.shop.svc", "10-244-1-1.shop.pod", "ledger.pay.svc",
		"dns-version", "", "a.b.c.d.e", "_._.web.shop.svc", "fd00--1.shop.pod", "spy.shop.svc",
	} {
		f.Add(s, dns.TypeA)
		f.Add(s, dns.TypeSRV)
	}
	f.Add("db.corp.internal.", dns.TypeAAAA)
	f.Add("5.0.20.10.in-addr.arpa.", dns.TypePTR)
	z := newZone(f, exampleOnly)
	z.cfg.MayAsk = func(netip.Addr, string) bool { return true }
	z.cfg.Beside = func(_, a netip.Addr) bool { return a.As16()[15]%2 == 1 }
	f.Fuzz(func(t *testing.T, prefix string, qtype uint16) {
		name := prefix
		if !dns.IsFqdn(name) {
			name = strings.TrimPrefix(prefix+".cluster.local.", ".")
		}
		if _, ok := dns.IsDomainName(name); !ok {
			t.Skip()
		}
		m := ask(z, ada, name, qtype)
		m.Question = []dns.Question{{Name: name, Qtype: qtype, Qclass: dns.ClassINET}}
		wire, err := m.Pack()
		if err == nil {
			err = new(dns.Msg).Unpack(wire)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !dnsproxy.Under(dnsproxy.Canonical(name), z.zone) {
			return
		}
		q := parse(trimZone(dnsproxy.Canonical(name), z.zone))
		if q.namespace == "pay" && (m.Rcode != dns.RcodeNameError || len(m.Answer) > 0) {
			t.Errorf("%s: %v", name, m)
		}
		if len(m.Answer) == 0 && m.Rcode != dns.RcodeServerFailure && len(m.Ns) != 1 {
			t.Errorf("%s: no SOA in %v", name, m)
		}
	})
}
