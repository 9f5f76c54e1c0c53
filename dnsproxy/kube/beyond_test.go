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

// corp is the cluster's own DNS server as it knows a company's names.
var corp = dnsproxy.ExchangerFunc(func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetReply(q)
	texts := map[string][]string{
		"db.corp.internal. AAAA":      {}, // of the plugin hosts: no SOA says for how long
		"db.corp.internal. A":         {"db.corp.internal. 60 IN A 10.20.0.5"},
		"web.corp.internal. A":        {"web.corp.internal. 60 IN CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. 5 IN A 10.96.0.20"},
		"till.corp.internal. A":       {"till.corp.internal. 60 IN CNAME till.pay.svc.cluster.local.", "till.pay.svc.cluster.local. 5 IN A 10.96.0.30"},
		"5.0.20.10.in-addr.arpa. PTR": {"5.0.20.10.in-addr.arpa. 60 IN PTR db.corp.internal."},
	}[q.Question[0].Name+" "+dns.TypeToString[q.Question[0].Qtype]]
	if texts == nil {
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{dnsproxy.SOA("corp.internal.", "corp.internal.", 1, 30)}
	}
	for _, text := range texts {
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		m.Answer = append(m.Answer, rr)
	}
	return m, nil
})

// TestNamesBesideTheCluster are ada's, who may have them, and not bob's.
func TestNamesBesideTheCluster(t *testing.T) {
	z := newZone(t, dnsproxy.NewCache(corp))
	z.cfg.Visible = func(_ netip.Addr, ns string) bool { return ns != "pay" }
	z.cfg.MayAsk = func(p netip.Addr, name string) bool { return p == ada && dnsproxy.Under(name, "corp.internal.") }
	z.cfg.Beside = func(p, a netip.Addr) bool { return p == ada && a == netip.MustParseAddr("10.20.0.5") }
	for _, tt := range []struct {
		name  string
		qtype uint16
		rcode int
		want  []string
	}{
		{"db.corp.internal.", dns.TypeA, dns.RcodeSuccess, []string{"A 10.20.0.5"}},
		{"db.corp.internal.", dns.TypeAAAA, dns.RcodeSuccess, nil},
		{"DB.Corp.Internal.", dns.TypeA, dns.RcodeSuccess, []string{"A 10.20.0.5"}},
		{"none.corp.internal.", dns.TypeA, dns.RcodeNameError, nil},
		{"5.0.20.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, []string{"PTR db.corp.internal."}},
		{"6.0.20.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, nil},
		{"web.corp.internal.", dns.TypeA, dns.RcodeSuccess, []string{"A 10.96.0.20", "CNAME web.shop.svc.cluster.local."}},
		{"till.corp.internal.", dns.TypeA, dns.RcodeSuccess, nil}, // leads where ada may not see
		{"db.other.internal.", dns.TypeA, dns.RcodeRefused, nil},
		{"corp.internal.example.com.", dns.TypeA, dns.RcodeRefused, nil},
	} {
		m := ask(z, ada, tt.name, tt.qtype)
		if got := text(m.Answer); m.Rcode != tt.rcode || !slices.Equal(got, tt.want) {
			t.Errorf("%s: ada is told %s %q, want %s %q", tt.name, dns.RcodeToString[m.Rcode], got, dns.RcodeToString[tt.rcode], tt.want)
		}
		if m.Rcode == dns.RcodeNameError && len(m.Ns) != 1 {
			t.Errorf("%s: for how long, %v", tt.name, m.Ns)
		}
		if wire, err := m.Pack(); err != nil || new(dns.Msg).Unpack(wire) != nil {
			t.Errorf("%s %s: nobody can read the answer, %v", tt.name, dns.TypeToString[tt.qtype], m)
		}
		m = ask(z, bob, tt.name, tt.qtype)
		if len(m.Answer) != 0 || tt.qtype != dns.TypePTR && m.Rcode != dns.RcodeRefused {
			t.Errorf("%s: bob is told %v", tt.name, m)
		}
	}
	z.cfg.Upstream = nil
	if m := ask(z, ada, "db.corp.internal.", dns.TypeA); m.Rcode != dns.RcodeRefused {
		t.Errorf("nobody to ask: %v", m)
	}
}

// TestAddressBesideTheClusterIsVirtual: ada has the database at another address.
func TestAddressBesideTheClusterIsVirtual(t *testing.T) {
	z := newZone(t, dnsproxy.NewCache(corp))
	m, err := remap.Parse([]remap.Pair{{Real: netip.MustParsePrefix("10.20.0.0/16"), Virtual: netip.MustParsePrefix("100.70.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	z.cfg.Map = func(netip.Addr) remap.Map { return m }
	z.cfg.MayAsk = func(_ netip.Addr, name string) bool { return dnsproxy.Under(name, "corp.internal.") }
	z.cfg.Beside = func(p, a netip.Addr) bool { return p == ada && a == netip.MustParseAddr("10.20.0.5") }
	for range 2 { // the second time from what is remembered
		if got := text(ask(z, ada, "db.corp.internal.", dns.TypeA).Answer); !slices.Equal(got, []string{"A 100.70.0.5"}) {
			t.Errorf("the database is at %q", got)
		}
		for _, name := range []string{"5.0.70.100.in-addr.arpa.", "5.0.20.10.in-addr.arpa."} {
			got := ask(z, ada, name, dns.TypePTR).Answer
			if !slices.Equal(text(got), []string{"PTR db.corp.internal."}) || got[0].Header().Name != name {
				t.Errorf("%s: %v", name, got)
			}
			if m := ask(z, bob, name, dns.TypePTR); m.Rcode != dns.RcodeNameError {
				t.Errorf("%s: bob is told %v", name, m)
			}
		}
	}
}
