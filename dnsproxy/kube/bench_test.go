package kube

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"

	"podnet.dev/dnsproxy"
)

// bigZone has n Services, every tenth of them headless, with ten endpoints
// each.
func bigZone(n int) *Zone {
	z := New(Config{Domain: "cluster.local", Visible: everybody})
	yes := true
	for i := range n {
		ns, name := fmt.Sprintf("ns%d", i%50), fmt.Sprintf("svc%d", i)
		z.index.setNamespace(ns, true)
		ip := fmt.Sprintf("10.96.%d.%d", i/250, i%250+1)
		if i%10 == 0 {
			ip = "None"
		}
		z.index.setService(service(ns, name, []string{ip}, port("http", "TCP", 80)))
		s := slice(ns, name, "v4", map[string]int32{"http": 8080})
		for j := range 10 {
			s.Endpoints = append(s.Endpoints, ep(&yes, "", fmt.Sprintf("10.%d.%d.%d", 128+i/2500, i/10%250, i%10*25+j+1)))
		}
		z.index.setSlice(nil, s)
	}
	z.synced.Store(true)
	return z
}

func BenchmarkAnswer(b *testing.B) {
	z := bigZone(5000)
	for _, name := range []string{"svc1.ns1.svc.cluster.local.", "svc10.ns10.svc.cluster.local.", "nope.ns1.svc.cluster.local."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		r := &dnsproxy.Request{Msg: q}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				z.ServeDNS(context.Background(), r)
			}
		})
	}
}

func BenchmarkEvent(b *testing.B) {
	z := bigZone(5000)
	yes := true
	s := slice("ns10", "svc10", "v4", nil, ep(&yes, "", "10.200.0.1"))
	b.ReportAllocs()
	for b.Loop() {
		z.index.setSlice(s, s)
	}
}

// BenchmarkIndex is the whole of a start: 5,000 Services, 50,000 endpoints.
func BenchmarkIndex(b *testing.B) {
	var z *Zone
	for b.Loop() {
		z = bigZone(5000)
	}
	runtime.KeepAlive(z)
}

// 5,000 Services and 50,000 endpoints.
func TestLargeCluster(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	z := bigZone(5000)
	took := time.Since(begin)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	t.Logf("index of %d Services and %d addresses in %v (3 s), %.1f MB with the objects themselves (40 MB on top of what the informers hold anyway)", z.Services(), len(z.index.reverse), took, grown)
	if len(z.index.reverse) < 50000 || z.Services() != 5000 {
		t.Errorf("%d addresses, %d Services", len(z.index.reverse), z.Services())
	}
	for _, name := range []string{"svc4990.ns40.svc.cluster.local.", "svc4999.ns49.svc.cluster.local."} {
		if m := ask(z, netip.Addr{}, name, dns.TypeA); len(m.Answer) == 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
	runtime.KeepAlive(z)
}
