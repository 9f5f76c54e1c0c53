package kube

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// TestServeNow: what the watch knows is answered at once, and the same; what takes
// another server, or long, is not.
func TestServeNow(t *testing.T) {
	asked := 0
	z := New(Config{Domain: "cluster.local", Visible: everybody, Upstream: dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		asked++
		m := new(dns.Msg)
		return m.SetRcode(q, dns.RcodeNameError), nil
	})})
	z.index.setNamespace("shop", true)
	z.index.setService(service("shop", "web", []string{"10.96.0.20"}, port("http", "TCP", 80)))
	z.index.setService(external("shop", "ext", "example.com"))
	yes := true
	for name, n := range map[string]int{"few": fewRecords, "crowd": fewRecords + 1} {
		z.index.setService(service("shop", name, []string{"None"}))
		s := slice("shop", name, "4", map[string]int32{"http": 80})
		for i := range n {
			s.Endpoints = append(s.Endpoints, ep(&yes, "", fmt.Sprintf("10.244.%d.%d", n, i)))
		}
		z.index.setSlice(nil, s)
	}
	for i := range fewRecords + 1 { // Services with one endpoint in common
		name := fmt.Sprintf("s%d", i)
		z.index.setService(service("shop", name, []string{"None"}))
		z.index.setSlice(nil, slice("shop", name, "4", nil, ep(&yes, "", "10.244.1.1")))
	}
	now := func(name string, qtype uint16) *dns.Msg {
		q := new(dns.Msg)
		q.SetQuestion(name, qtype)
		return z.ServeNow(&dnsproxy.Request{Msg: q})
	}
	if m := now("web.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("before the zone knows: %v", m)
	}
	z.synced.Store(true)
	for _, tt := range []struct {
		name    string
		qtype   uint16
		records int // -1: later
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, 1},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, 0},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, 1},
		{"20.0.96.10.in-addr.arpa.", dns.TypePTR, 1},
		{"few.shop.svc.cluster.local.", dns.TypeA, fewRecords},
		{"crowd.shop.svc.cluster.local.", dns.TypeA, -1},
		{"_http._tcp.crowd.shop.svc.cluster.local.", dns.TypeSRV, -1},
		{"1.1.244.10.in-addr.arpa.", dns.TypePTR, -1},
		{"nope.shop.svc.cluster.local.", dns.TypeA, -1},
		{"ext.shop.svc.cluster.local.", dns.TypeA, -1},
		{"example.org.", dns.TypeA, 0},
	} {
		m := now(tt.name, tt.qtype)
		if m == nil || tt.records < 0 {
			if (m == nil) != (tt.records < 0) {
				t.Errorf("%s: %v", tt.name, m)
			}
			continue
		}
		if want := ask(z, netip.Addr{}, tt.name, tt.qtype); len(m.Answer) != tt.records || len(want.Answer) != tt.records || m.Rcode != want.Rcode {
			t.Errorf("%s: %v\nlater %v", tt.name, m, want)
		}
	}
	if asked != 0 {
		t.Errorf("%d questions to the cluster's server", asked)
	}
}
