package kube

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// TestUnwatched is a zone that knows nothing but what the cluster's DNS server says.
func TestUnwatched(t *testing.T) {
	records := []string{
		"web.shop.svc.cluster.local. 30 IN A 10.96.0.20",
		"_http._tcp.web.shop.svc.cluster.local. 30 IN SRV 0 100 80 web.shop.svc.cluster.local.",
		"db-0.db.shop.svc.cluster.local. 30 IN A 10.244.1.7",
		"10-244-1-7.shop.pod.cluster.local. 30 IN A 10.244.1.7",
		"ext.shop.svc.cluster.local. 30 IN CNAME www.example.org.",
		"leak.shop.svc.cluster.local. 30 IN CNAME till.pay.svc.cluster.local.",
		"till.pay.svc.cluster.local. 30 IN A 10.96.0.30",
		"20.0.96.10.in-addr.arpa. 30 IN PTR web.shop.svc.cluster.local.",
	}
	fail := error(nil)
	rcode := dns.RcodeSuccess
	var asked []string
	upstream := dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		asked = append(asked, q.Question[0].Name)
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeNameError)
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Fatal(err)
			}
			if h := rr.Header(); strings.EqualFold(h.Name, q.Question[0].Name) {
				m.Rcode = dns.RcodeSuccess
				if h.Rrtype == q.Question[0].Qtype || h.Rrtype == dns.TypeCNAME {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		if rcode != dns.RcodeSuccess {
			m.Rcode, m.Answer = rcode, nil
		}
		return m, fail
	})
	z := New(Config{Domain: "cluster.local", Unwatched: true, Upstream: upstream, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
		Visible: func(_ netip.Addr, ns string) bool { return ns == "shop" }, Beside: func(_, a netip.Addr) bool { return a == netip.MustParseAddr("10.96.0.20") }})
	ask := func(name string, qtype uint16) *dns.Msg {
		q := new(dns.Msg)
		q.SetQuestion(name, qtype)
		return z.ServeDNS(t.Context(), &dnsproxy.Request{Msg: q, Client: ada})
	}
	if m := ask("web.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("before it runs: %v", m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- z.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil || z.Synced() {
			t.Errorf("ended with %v, synced %v", err, z.Synced())
		}
	})
	for !z.Synced() {
	}
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		want  string // of the records
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.96.0.20"},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "0 100 80 web.shop.svc.cluster.local."},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.244.1.7"},
		{"10-244-1-7.shop.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.244.1.7"},
		{"ext.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "www.example.org."},
		{"nothing.shop.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"leak.shop.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"till.pay.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"20.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "web.shop.svc.cluster.local."},
		{"30.0.96.10.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, ""},
		{"example.org.", dns.TypeA, dns.RcodeRefused, ""},
	} {
		m := ask(c.name, c.qtype)
		var got []string
		for _, rr := range m.Answer {
			got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		if m.Rcode != c.rcode || strings.Join(got, " ") != c.want {
			t.Errorf("%s %s: %s %q, want %s %q", c.name, dns.TypeToString[c.qtype], dns.RcodeToString[m.Rcode], got, dns.RcodeToString[c.rcode], c.want)
		}
	}
	if slices.Contains(asked, "till.pay.svc.cluster.local.") || slices.Contains(asked, "example.org.") {
		t.Errorf("the cluster's server was asked for what nobody may know: %v", asked)
	}
	// It alone knows: without its word nothing is said not to exist.
	fail = errors.New("silent")
	if m := ask("other.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("while it is silent: %s", dns.RcodeToString[m.Rcode])
	}
	fail, rcode = nil, dns.RcodeServerFailure
	z.accounts = newAccounts(Quota{})
	if m := ask("another.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("while it fails: %s", dns.RcodeToString[m.Rcode])
	}
}
