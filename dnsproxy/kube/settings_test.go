package kube

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"podnet.dev/dnsproxy"
)

// withPods has a headless Service whose endpoints are pods without hostnames,
// one of them with a name that is no label.
func withPods(t testing.TB, upstream dnsproxy.Exchanger) *Zone {
	z := newZone(t, upstream)
	yes := true
	s := slice("shop", "crew", "v4", map[string]int32{"http": 8080})
	for _, pod := range [][2]string{{"crew-7c9f-x2", "10.244.3.1"}, {"crew-7c9f-B8", "10.244.3.2"}, {"a-name-that-is-longer-than-the-sixty-three-letters-of-a-dns-label", "10.244.3.3"}} {
		e := ep(&yes, "", pod[1])
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: pod[0], Namespace: "shop"}
		s.Endpoints = append(s.Endpoints, e)
	}
	z.index.setService(service("shop", "crew", []string{"None"}, port("http", "TCP", 80)))
	z.index.setSlice(nil, s)
	return z
}

// coreDNS answers what detect asks as CoreDNS does with these settings.
func coreDNS(s settings, asked *int) dnsproxy.Exchanger {
	return dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		*asked++
		m := new(dns.Msg)
		m.SetReply(q)
		a := func(addr string) *dns.Msg {
			rr, _ := dns.NewRR(q.Question[0].Name + " 30 IN A " + addr)
			m.Answer = []dns.RR{rr}
			return m
		}
		switch name := q.Question[0].Name; {
		case name == "cluster.local.":
			m.Answer = []dns.RR{dnsproxy.SOA("cluster.local.", "cluster.local.", 1, s.ttl)}
			return m, nil
		case name == "192-0-2-1.default.pod.cluster.local." && s.echo:
			return a("192.0.2.1"), nil
		case name == "10-244-3-9.shop.pod.cluster.local.":
			return a("10.244.3.9"), nil
		case name == "crew-7c9f-x2.crew.shop.svc.cluster.local." && s.podNames, name == "10-244-3-1.crew.shop.svc.cluster.local." && !s.podNames:
			return a("10.244.3.1"), nil
		}
		m.Rcode = dns.RcodeNameError
		return m, nil
	})
}

func TestSettingsAreDetected(t *testing.T) {
	for _, want := range []settings{
		{echo: true, ttl: 5},
		{podNames: true, ttl: 2},
		{podNames: true, echo: true, ttl: 1},
	} {
		asked := 0
		z := withPods(t, coreDNS(want, &asked))
		got, err := z.detect(t.Context(), z.maker.Load().settings)
		if err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if asked > 10 {
			t.Errorf("asked %d times", asked)
		}
	}
	// kubeadm's TTL is longer than we let laptops keep an answer; 0 is none.
	for _, ttl := range []uint32{0, 30} {
		asked := 0
		z := withPods(t, coreDNS(settings{ttl: ttl}, &asked))
		if got, _ := z.detect(t.Context(), settings{}); got.ttl != min(max(ttl, 1), DefaultTTL) {
			t.Errorf("ttl %d becomes %d", ttl, got.ttl)
		}
	}
}

func TestSettingsStayWhenNobodyTells(t *testing.T) {
	for _, tt := range []struct {
		what   string
		answer func(q *dns.Msg) (*dns.Msg, error)
	}{
		{"down", func(*dns.Msg) (*dns.Msg, error) { return nil, errors.New("down") }},
		{"not synced", func(*dns.Msg) (*dns.Msg, error) { return dnsproxy.Refuse(dns.RcodeServerFailure), nil }},
	} {
		z := withPods(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) { return tt.answer(q) }))
		if _, err := z.detect(t.Context(), settings{}); err == nil {
			t.Errorf("%s: no error", tt.what)
		}
	}
	// A server that knows none of the endpoints does not say how it calls them.
	for _, podNames := range []bool{false, true} {
		asked := 0
		z := newZone(t, coreDNS(settings{podNames: !podNames, ttl: 4}, &asked))
		if got, err := z.detect(t.Context(), settings{podNames: podNames}); err != nil || got.podNames != podNames || got.ttl != 4 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	// Nor does one that does not have the zone say anything.
	was := settings{podNames: true, echo: true, ttl: 3}
	if got, err := withPods(t, exampleOnly).detect(t.Context(), was); err != nil || got != was {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSettingsChangeAnswers(t *testing.T) {
	asked := 0
	z := withPods(t, coreDNS(settings{ttl: 5}, &asked))
	check := func(name string, qtype uint16, rcode int, want ...string) {
		t.Helper()
		m := ask(z, ada, name, qtype)
		if got := text(m.Answer); m.Rcode != rcode || !slices.Equal(got, want) {
			t.Errorf("%s: %s %q, want %s %q", name, dns.RcodeToString[m.Rcode], got, dns.RcodeToString[rcode], want)
		}
	}
	const crew = "crew.shop.svc.cluster.local."
	check("_http._tcp."+crew, dns.TypeSRV, dns.RcodeSuccess,
		"SRV 0 1 8080 10-244-3-1."+crew, "SRV 0 1 8080 10-244-3-2."+crew, "SRV 0 1 8080 10-244-3-3."+crew)
	check("10-244-3-1."+crew, dns.TypeA, dns.RcodeSuccess, "A 10.244.3.1")
	check("crew-7c9f-x2."+crew, dns.TypeA, dns.RcodeNameError)

	z.set(settings{podNames: true, echo: true, ttl: 2})
	check("_http._tcp."+crew, dns.TypeSRV, dns.RcodeSuccess,
		"SRV 0 1 8080 10-244-3-3."+crew, "SRV 0 1 8080 crew-7c9f-b8."+crew, "SRV 0 1 8080 crew-7c9f-x2."+crew)
	check("10-244-3-1."+crew, dns.TypeA, dns.RcodeNameError)
	check("crew-7c9f-x2."+crew, dns.TypeA, dns.RcodeSuccess, "A 10.244.3.1")
	check("1.3.244.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "PTR crew-7c9f-x2."+crew)
	check("db-0.db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "A 10.244.1.10")
	if m := ask(z, ada, crew, dns.TypeA); m.Answer[0].Header().Ttl != 2 {
		t.Errorf("TTL of %v", m.Answer[0])
	}
	if m := ask(z, ada, "nope."+crew, dns.TypeA); m.Ns[0].(*dns.SOA).Minttl != 2 {
		t.Errorf("minimum of %v", m.Ns[0])
	}

	// Where pods are verified or have no names, only the cluster's server knows.
	check("10-244-3-7.shop.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, "A 10.244.3.7")
	z.set(settings{ttl: 5})
	check("10-244-3-7.shop.pod.cluster.local.", dns.TypeA, dns.RcodeNameError)
	check("10-244-3-9.shop.pod.cluster.local.", dns.TypeA, dns.RcodeSuccess, "A 10.244.3.9")
	check("10-244-3-9.pay.pod.cluster.local.", dns.TypeA, dns.RcodeNameError)
	z.cfg.Upstream = dnsproxy.ExchangerFunc(func(context.Context, *dns.Msg) (*dns.Msg, error) { return nil, errors.New("down") })
	check("10-244-3-9.shop.pod.cluster.local.", dns.TypeA, dns.RcodeServerFailure)
	check("nope.shop.svc.cluster.local.", dns.TypeA, dns.RcodeNameError)
}

// Who may see every namespace may also have names that only the cluster's own
// server has, in namespaces that do not exist.
func TestNamespacesOfTheClusterServer(t *testing.T) {
	z := newZone(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		m := new(dns.Msg)
		m.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 30 IN A 192.0.2.82")
		m.Answer = []dns.RR{rr}
		return m, nil
	}))
	z.cfg.Visible = func(peer netip.Addr, ns string) bool { return peer == ada }
	const name = "web.legacy.svc.cluster.local."
	if m := ask(z, ada, name, dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("%v", m)
	}
	if m := ask(z, eve, name, dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
		t.Errorf("%v", m)
	}
	// A namespace that is deleted with its Services is not brought back.
	z.index.deleteService(serviceKey{"shop", "web"})
	z.index.setNamespace("shop", false)
	if m := ask(z, ada, "web.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("%v", m)
	}
}
