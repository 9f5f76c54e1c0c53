package kube

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/dnsproxy"
)

var (
	ada = netip.MustParseAddr("198.18.0.7") // sees everything but pay
	eve = netip.MustParseAddr("198.18.0.8") // sees nothing
)

func service(ns, name string, ips []string, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	s.Spec.Type = corev1.ServiceTypeClusterIP
	s.Spec.ClusterIPs = ips
	s.Spec.ClusterIP = ips[0]
	s.Spec.Ports = ports
	return s
}

func external(ns, name, target string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	s.Spec.Type = corev1.ServiceTypeExternalName
	s.Spec.ExternalName = target
	return s
}

func port(name string, proto corev1.Protocol, n int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: proto, Port: n}
}

func slice(ns, svc, suffix string, ports map[string]int32, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: ns, Name: svc + "-" + suffix, Labels: map[string]string{discoveryv1.LabelServiceName: svc},
	}, Endpoints: eps}
	for name, n := range ports {
		proto := corev1.ProtocolTCP
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &proto})
	}
	slices.SortFunc(s.Ports, func(a, b discoveryv1.EndpointPort) int { return cmp.Compare(*a.Name, *b.Name) })
	return s
}

func ep(ready *bool, hostname string, addrs ...string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: addrs, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	if hostname != "" {
		e.Hostname = &hostname
	}
	return e
}

// newZone is a zone with the cluster of the table below in its index.
func newZone(t testing.TB, upstream dnsproxy.Exchanger) *Zone {
	t.Helper()
	z := New(Config{
		Domain:    "cluster.local",
		Visible:   func(p netip.Addr, ns string) bool { return p == ada && ns != "pay" },
		Upstream:  upstream,
		Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.1")},
	})
	yes, no := true, false
	// Published before it is ready: the controller says ready all the same.
	early := ep(&yes, "early-0", "10.244.1.62")
	early.Conditions.Serving, early.Conditions.Terminating = &no, &yes
	for _, ns := range []string{"default", "shop", "pay"} {
		z.index.setNamespace(ns, true)
	}
	for _, s := range []*corev1.Service{
		service("default", "kubernetes", []string{"10.96.0.1"}, port("https", "TCP", 443)),
		service("shop", "web", []string{"10.96.0.20", "fd00:10:96::20"}, port("http", "TCP", 80), port("dns", "UDP", 53)),
		service("shop", "anon", []string{"10.96.0.21"}, port("", "TCP", 8080)),
		service("shop", "db", []string{"None"}, port("pg", "TCP", 5432)),
		service("shop", "bare", []string{"None"}, port("http", "TCP", 80)),
		service("shop", "idle", []string{"None"}, port("http", "TCP", 80)),
		service("shop", "idle-ip", []string{"10.96.0.22"}, port("http", "TCP", 80)),
		service("pay", "ledger", []string{"10.96.0.30"}, port("http", "TCP", 80)),
		external("shop", "ext", "example.com"),
		external("shop", "alias", "web.shop.svc.cluster.local"),
		external("shop", "spy", "ledger.pay.svc.cluster.local"),
		external("shop", "loop", "loop2.shop.svc.cluster.local."),
		external("shop", "loop2", "loop.shop.svc.cluster.local."),
		external("shop", "digits", "192.0.2.1"),
		external("shop", "dangling", "gone.shop.svc.cluster.local"),
		external("shop", "far", "gone.example.org"),
		service("shop", "six", []string{"fd00:10:96::21"}, port("http", "TCP", 80)),
		service("shop", "twins", []string{"None"}, port("http", "TCP", 80)),
		service("shop", "early", []string{"None"}, port("http", "TCP", 80)),
		service("shop", "portless", []string{"None"}),
	} {
		z.index.setService(s)
	}
	pg := map[string]int32{"pg": 5432, "metrics": 9187}
	for _, s := range []*discoveryv1.EndpointSlice{
		slice("shop", "db", "v4", pg, ep(&yes, "db-0", "10.244.1.10"), ep(nil, "db-1", "10.244.2.11"), ep(&no, "db-2", "10.244.2.12")),
		slice("shop", "db", "v6", pg, ep(&yes, "db-0", "fd00:244::10")),
		slice("shop", "bare", "v4", nil, ep(&yes, "", "10.244.1.20")),
		slice("shop", "bare", "v6", nil, ep(&yes, "", "fd00:244::")),
		slice("shop", "idle", "v4", nil, ep(&no, "", "10.244.1.30")),
		slice("shop", "twins", "v4", map[string]int32{"http": 8080, "admin": 8081}, ep(&yes, "twin", "10.244.1.60"), ep(&yes, "twin", "10.244.2.60"), ep(&yes, "other", "10.244.2.61")),
		slice("shop", "twins", "v6", map[string]int32{"http": 8080, "admin": 8081}, ep(&yes, "twin", "fd00:244:1::60")),
		slice("shop", "early", "v4", map[string]int32{"http": 8080}, early),
		slice("shop", "portless", "v4", nil, ep(&yes, "p-0", "10.244.1.63")),
		slice("shop", "web", "v4", map[string]int32{"http": 8080}, ep(&yes, "", "10.244.1.40"), ep(&yes, "", "10.244.2.41")),
		slice("pay", "ledger", "v4", nil, ep(&yes, "", "10.244.2.50")),
	} {
		z.index.setSlice(nil, s)
	}
	z.synced.Store(true)
	return z
}

func ask(z *Zone, peer netip.Addr, name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	return z.ServeDNS(context.Background(), &dnsproxy.Request{Msg: q, Client: peer})
}

// text is the answer section's data in the order of text, as "A 10.0.0.1".
func text(rrs []dns.RR) []string {
	var out []string
	for _, rr := range rrs {
		f := strings.Fields(rr.String())
		out = append(out, strings.Join(f[3:], " "))
	}
	slices.Sort(out)
	return out
}

// exampleOnly is a cluster DNS server that knows one name outside the zone
// and one rewrite inside.
var exampleOnly = dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetReply(q)
	switch question := q.Question[0]; {
	case question.Name == "example.com." && question.Qtype == dns.TypeA:
		rr, _ := dns.NewRR("example.com. 60 IN A 192.0.2.80")
		m.Answer = []dns.RR{rr}
	case question.Name == "example.com.":
	case question.Name == "gone.example.org.":
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{dnsproxy.SOA("example.org.", "example.org.", 1, 5)}
	case question.Name == "rewritten.cluster.local.":
		rr, _ := dns.NewRR("rewritten.cluster.local. 60 IN A 192.0.2.81")
		m.Answer = []dns.RR{rr}
	case question.Name == "sly.cluster.local.":
		rr, _ := dns.NewRR("sly.cluster.local. 60 IN CNAME ledger.pay.svc.cluster.local.")
		m.Answer = []dns.RR{rr}
	default:
		m.Rcode = dns.RcodeNameError
	}
	return m, nil
})

func TestSpecification(t *testing.T) {
	const (
		ok = dns.RcodeSuccess
		nx = dns.RcodeNameError
	)
	one := func(s ...string) []string { return s }
	db := one("A 10.244.1.10", "A 10.244.2.11")
	tests := []struct {
		what  string
		name  string
		qtype uint16
		rcode int
		want  []string // sorted; empty with ok means NODATA
	}{
		{"2.2 version", "dns-version.cluster.local.", dns.TypeTXT, ok, one(`TXT "1.1.0"`)},
		{"2.2 version, other type", "dns-version.cluster.local.", dns.TypeA, ok, nil},

		{"2.3.1 A", "kubernetes.default.svc.cluster.local.", dns.TypeA, ok, one("A 10.96.0.1")},
		{"2.3.1 any letters' case", "KuberNetes.Default.SVC.cluster.LOCAL.", dns.TypeA, ok, one("A 10.96.0.1")},
		{"2.3.1 single stack AAAA is NODATA", "kubernetes.default.svc.cluster.local.", dns.TypeAAAA, ok, nil},
		{"2.3.1 dual stack A", "web.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.96.0.20")},
		{"2.3.1 dual stack AAAA", "web.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:10:96::20")},
		{"2.3.1 no endpoints, still there", "idle-ip.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.96.0.22")},
		{"other types of a Service", "web.shop.svc.cluster.local.", dns.TypeTXT, ok, nil},
		{"HTTPS of a Service", "web.shop.svc.cluster.local.", dns.TypeHTTPS, ok, nil},
		{"MX of a Service", "web.shop.svc.cluster.local.", dns.TypeMX, ok, nil},
		{"SRV of a bare Service is NODATA", "web.shop.svc.cluster.local.", dns.TypeSRV, ok, nil},

		{"2.3.2 SRV", "_https._tcp.kubernetes.default.svc.cluster.local.", dns.TypeSRV, ok, one("SRV 0 1 443 kubernetes.default.svc.cluster.local.")},
		{"2.3.2 SRV dual stack is one record", "_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, ok, one("SRV 0 1 80 web.shop.svc.cluster.local.")},
		{"2.3.2 SRV UDP", "_dns._udp.web.shop.svc.cluster.local.", dns.TypeSRV, ok, one("SRV 0 1 53 web.shop.svc.cluster.local.")},
		{"2.3.2 wrong protocol", "_dns._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"2.3.2 unknown port", "_nope._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"2.3.2 unnamed port", "_8080._tcp.anon.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"A of a port name is NODATA", "_http._tcp.web.shop.svc.cluster.local.", dns.TypeA, ok, nil},
		{"a protocol is an empty non-terminal", "_tcp.web.shop.svc.cluster.local.", dns.TypeSRV, ok, nil},
		{"a protocol without named ports", "_sctp.web.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"a protocol of unnamed ports", "_tcp.anon.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},

		{"2.3.3 PTR", "1.0.96.10.in-addr.arpa.", dns.TypePTR, ok, one("PTR kubernetes.default.svc.cluster.local.")},
		{"2.3.3 PTR IPv6", "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, ok, one("PTR web.shop.svc.cluster.local.")},
		{"A of a reverse name is NODATA", "1.0.96.10.in-addr.arpa.", dns.TypeA, ok, nil},
		{"PTR of nobody", "9.9.96.10.in-addr.arpa.", dns.TypePTR, nx, nil},
		{"PTR of half an address", "96.10.in-addr.arpa.", dns.TypePTR, ok, nil},
		{"PTR of no address", "1.0.96.300.in-addr.arpa.", dns.TypePTR, nx, nil},

		{"2.4.1 headless A, nil is ready", "db.shop.svc.cluster.local.", dns.TypeA, ok, db},
		{"2.4.1 headless AAAA", "db.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:244::10")},
		{"2.4.1 headless host", "db-0.db.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.10")},
		{"2.4.1 headless host AAAA", "db-0.db.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:244::10")},
		{"2.4.1 host of the other family", "db-1.db.shop.svc.cluster.local.", dns.TypeAAAA, ok, nil},
		{"2.4.1 host that is not ready", "db-2.db.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.4.1 unknown host", "db-9.db.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.4.1 dashed name", "10-244-1-20.bare.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.20")},
		{"2.4.1 dashed IPv6 name gets a zero", "fd00-244--0.bare.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:244::")},
		{"2.4.1 no ready endpoint", "idle.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.4.1 no ready endpoint, same for every type", "idle.shop.svc.cluster.local.", dns.TypeTXT, nx, nil},

		{"2.4.2 SRV per endpoint", "_pg._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, ok,
			one("SRV 0 1 5432 db-0.db.shop.svc.cluster.local.", "SRV 0 1 5432 db-1.db.shop.svc.cluster.local.")},
		{"2.4.2 ports are those of the endpoints", "_metrics._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, ok,
			one("SRV 0 1 9187 db-0.db.shop.svc.cluster.local.", "SRV 0 1 9187 db-1.db.shop.svc.cluster.local.")},
		{"2.4.2 no ready endpoint", "_http._tcp.idle.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},

		{"2.4.3 PTR of an endpoint", "10.1.244.10.in-addr.arpa.", dns.TypePTR, ok, one("PTR db-0.db.shop.svc.cluster.local.")},
		{"2.4.3 PTR of a dashed one", "20.1.244.10.in-addr.arpa.", dns.TypePTR, ok, one("PTR 10-244-1-20.bare.shop.svc.cluster.local.")},
		{"2.4.3 PTR of one that is not ready", "12.2.244.10.in-addr.arpa.", dns.TypePTR, nx, nil},

		{"2.5 CNAME alone", "ext.shop.svc.cluster.local.", dns.TypeCNAME, ok, one("CNAME example.com.")},
		{"2.5 CNAME and target", "ext.shop.svc.cluster.local.", dns.TypeA, ok, one("A 192.0.2.80", "CNAME example.com.")},
		{"2.5 target without the type", "ext.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("CNAME example.com.")},
		{"2.5 target in the zone", "alias.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.96.0.20", "CNAME web.shop.svc.cluster.local.")},
		{"2.5 any type is the CNAME", "alias.shop.svc.cluster.local.", dns.TypeANY, ok, one("CNAME web.shop.svc.cluster.local.")},
		{"2.5 target in the zone, AAAA", "alias.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:10:96::20", "CNAME web.shop.svc.cluster.local.")},
		{"2.5 target in the zone is not there", "dangling.shop.svc.cluster.local.", dns.TypeA, nx, one("CNAME gone.shop.svc.cluster.local.")},
		{"2.5 target outside is not there", "far.shop.svc.cluster.local.", dns.TypeA, nx, one("CNAME gone.example.org.")},
		{"2.5 nothing below", "a.ext.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.5 no ports", "_http._tcp.ext.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"2.5 an address is no name", "digits.shop.svc.cluster.local.", dns.TypeA, nx, nil},

		{"2.3.1 IPv6 only", "six.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:10:96::21")},
		{"2.3.1 IPv6 only, A is NODATA", "six.shop.svc.cluster.local.", dns.TypeA, ok, nil},
		{"2.3.1 endpoints have names here too", "10-244-1-40.web.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.40")},
		{"2.3.2 IPv6 only", "_http._tcp.six.shop.svc.cluster.local.", dns.TypeSRV, ok, one("SRV 0 1 80 six.shop.svc.cluster.local.")},
		{"2.3.2 letters' case of ports", "_HTTP._TCP.web.shop.svc.cluster.local.", dns.TypeSRV, ok, one("SRV 0 1 80 web.shop.svc.cluster.local.")},
		{"2.3.2 a port without underscores", "http.tcp.web.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"2.3.2 a protocol without underscore", "_http.tcp.web.shop.svc.cluster.local.", dns.TypeSRV, nx, nil},
		{"2.4.1 several addresses with one hostname", "twin.twins.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.60", "A 10.244.2.60")},
		{"2.4.1 several addresses with one hostname, AAAA", "twin.twins.shop.svc.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:244:1::60")},
		{"2.4.1 a hostname takes the dashed name's place", "10-244-1-60.twins.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.4.1 published before it is ready", "early-0.early.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.62")},
		{"2.4.1 without ports", "portless.shop.svc.cluster.local.", dns.TypeA, ok, one("A 10.244.1.63")},
		{"2.4.1 below an endpoint", "a.db-0.db.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"2.4.2 endpoints x ports, one record per hostname", "_http._tcp.twins.shop.svc.cluster.local.", dns.TypeSRV, ok,
			one("SRV 0 1 8080 other.twins.shop.svc.cluster.local.", "SRV 0 1 8080 twin.twins.shop.svc.cluster.local.")},
		{"2.4.2 the other port", "_admin._tcp.twins.shop.svc.cluster.local.", dns.TypeSRV, ok,
			one("SRV 0 1 8081 other.twins.shop.svc.cluster.local.", "SRV 0 1 8081 twin.twins.shop.svc.cluster.local.")},
		{"2.4.3 PTR IPv6", "0.6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.", dns.TypePTR, ok, one("PTR twin.twins.shop.svc.cluster.local.")},
		{"2.4.3 PTR of an endpoint of a Service with an address", "40.1.244.10.in-addr.arpa.", dns.TypePTR, ok, one("PTR 10-244-1-40.web.shop.svc.cluster.local.")},

		{"below a pod", "a.10-244-1-100.shop.pod.cluster.local.", dns.TypeA, nx, nil},
		{"pod", "10-244-1-100.shop.pod.cluster.local.", dns.TypeA, ok, one("A 10.244.1.100")},
		{"pod IPv6", "fd00-244--64.shop.pod.cluster.local.", dns.TypeAAAA, ok, one("AAAA fd00:244::64")},
		{"pod of the other family", "10-244-1-100.shop.pod.cluster.local.", dns.TypeAAAA, ok, nil},
		{"pod that is no address", "web-0.shop.pod.cluster.local.", dns.TypeA, nx, nil},
		{"pod in an unknown namespace", "10-244-1-100.nope.pod.cluster.local.", dns.TypeA, nx, nil},

		{"empty non-terminal svc", "svc.cluster.local.", dns.TypeA, ok, nil},
		{"empty non-terminal pod", "pod.cluster.local.", dns.TypeA, ok, nil},
		{"namespace", "shop.svc.cluster.local.", dns.TypeA, ok, nil},
		{"namespace of pods", "shop.pod.cluster.local.", dns.TypeAAAA, ok, nil},
		{"unknown namespace", "nope.svc.cluster.local.", dns.TypeA, nx, nil},
		{"unknown Service", "nope.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"unknown Service, AAAA", "nope.shop.svc.cluster.local.", dns.TypeAAAA, nx, nil},
		{"Service in an unknown namespace", "web.nope.svc.cluster.local.", dns.TypeA, nx, nil},
		{"too many labels", "a.b.web.shop.svc.cluster.local.", dns.TypeA, nx, nil},
		{"not in the zone's tree", "nope.cluster.local.", dns.TypeA, nx, nil},
		{"below the version", "x.dns-version.cluster.local.", dns.TypeTXT, nx, nil},
		{"TXT of an empty non-terminal", "svc.cluster.local.", dns.TypeTXT, ok, nil},
		{"TXT of a namespace", "shop.svc.cluster.local.", dns.TypeTXT, ok, nil},
		{"any type of a Service", "web.shop.svc.cluster.local.", dns.TypeANY, ok, nil},
		{"SOA of a Service is NODATA", "web.shop.svc.cluster.local.", dns.TypeSOA, ok, nil},
		{"SOA of nothing", "nope.shop.svc.cluster.local.", dns.TypeSOA, nx, nil},
		{"name server, AAAA", "ns.dns.cluster.local.", dns.TypeAAAA, ok, nil},
		{"above the name server", "dns.cluster.local.", dns.TypeA, ok, nil},
		{"a label that is none of the tree", "web.shop.cluster.local.", dns.TypeA, nx, nil},
		{"svc twice", "web.shop.svc.svc.cluster.local.", dns.TypeA, nx, nil},
		{"apex", "cluster.local.", dns.TypeA, ok, nil},
		{"apex NS", "cluster.local.", dns.TypeNS, ok, one("NS ns.dns.cluster.local.")},
		{"name server", "ns.dns.cluster.local.", dns.TypeA, ok, one("A 198.18.0.1")},

		{"only the cluster's own server knows", "rewritten.cluster.local.", dns.TypeA, ok, one("A 192.0.2.81")},
		{"its answers do not lead where the peer may not see", "sly.cluster.local.", dns.TypeA, nx, nil},
		{"a Service in a hidden namespace", "ledger.pay.svc.cluster.local.", dns.TypeA, nx, nil},
		{"a hidden namespace", "pay.svc.cluster.local.", dns.TypeA, nx, nil},
		{"a pod in a hidden namespace", "10-244-2-50.pay.pod.cluster.local.", dns.TypeA, nx, nil},
		{"PTR into a hidden namespace", "30.0.96.10.in-addr.arpa.", dns.TypePTR, nx, nil},
		{"PTR of a hidden endpoint", "50.2.244.10.in-addr.arpa.", dns.TypePTR, nx, nil},
		{"CNAME into a hidden namespace", "spy.shop.svc.cluster.local.", dns.TypeA, nx, one("CNAME ledger.pay.svc.cluster.local.")},

		{"CNAME loop", "loop.shop.svc.cluster.local.", dns.TypeA, dns.RcodeServerFailure, nil},
		{"somebody else's zone", "example.com.", dns.TypeA, dns.RcodeRefused, nil},
		{"looks like the zone", "evilcluster.local.", dns.TypeA, dns.RcodeRefused, nil},
	}
	z := newZone(t, exampleOnly)
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			m := ask(z, ada, tt.name, tt.qtype)
			if m.Rcode != tt.rcode {
				t.Errorf("rcode %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[tt.rcode])
			}
			if got := text(m.Answer); !slices.Equal(got, tt.want) {
				t.Errorf("answer %q, want %q", got, tt.want)
			}
			negative := m.Rcode == nx || (m.Rcode == ok && len(m.Answer) == 0)
			if negative {
				if len(m.Ns) != 1 {
					t.Fatalf("authority %v, want one SOA", m.Ns)
				}
				soa, is := m.Ns[0].(*dns.SOA)
				below := tt.name // of which the SOA tells
				if cname, alias := last(m.Answer).(*dns.CNAME); alias {
					below = cname.Target
				}
				if !is || soa.Minttl != 5 || soa.Hdr.Ttl != 5 || !dns.IsSubDomain(soa.Hdr.Name, strings.ToLower(below)) {
					t.Errorf("authority %v", m.Ns[0])
				}
			} else if len(m.Ns) != 0 {
				t.Errorf("authority %v, want none", m.Ns)
			}
			for _, rr := range m.Answer {
				if h := rr.Header(); h.Ttl != 5 && h.Rrtype != dns.TypeTXT && !strings.HasPrefix(rr.(interface{ String() string }).String(), "example.com.") && h.Name != "rewritten.cluster.local." {
					t.Errorf("TTL of %v", rr)
				}
			}
		})
	}
}

func last(rrs []dns.RR) dns.RR {
	if len(rrs) == 0 {
		return nil
	}
	return rrs[len(rrs)-1]
}

// The start of authority is CoreDNS's: name server, mailbox and times; the
// serial number grows with every change.
func TestStartOfAuthority(t *testing.T) {
	z := newZone(t, nil)
	start := func(name string, qtype uint16) *dns.SOA {
		m := ask(z, ada, name, qtype)
		soa, ok := last(append(m.Ns, m.Answer...)).(*dns.SOA)
		if !ok {
			t.Fatalf("%s: %v", name, m)
		}
		return soa
	}
	soa := start("cluster.local.", dns.TypeSOA)
	if got := text([]dns.RR{soa})[0]; !regexp.MustCompile(`^SOA ns\.dns\.cluster\.local\. hostmaster\.cluster\.local\. \d+ 7200 1800 86400 5$`).MatchString(got) {
		t.Error(got)
	}
	if got := start("9.9.96.10.in-addr.arpa.", dns.TypePTR); got.Hdr.Name != "in-addr.arpa." || got.Ns != "ns.dns.in-addr.arpa." {
		t.Error(got)
	}
	z.index.setNamespace("new", true)
	if now := start("nope.shop.svc.cluster.local.", dns.TypeA); now.Serial <= soa.Serial {
		t.Errorf("serial %d after %d", now.Serial, soa.Serial)
	}
}

// CoreDNS can answer for a Service's endpoints in one of the cluster's zones.
// The watch does not build these names; what else is too deep it denies.
func TestZonalNamesAreForwarded(t *testing.T) {
	var asked []string
	z := newZone(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		asked = append(asked, q.Question[0].Name)
		m := new(dns.Msg)
		m.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 5 IN A 10.244.1.10")
		m.Answer = []dns.RR{rr}
		return m, nil
	}))
	const zonal = "eu-1.pin._zone.db.shop.svc.cluster.local."
	if m := ask(z, ada, zonal, dns.TypeA); len(m.Answer) != 1 || !slices.Equal(asked, []string{zonal}) {
		t.Errorf("%v after asking %q", m, asked)
	}
	for _, name := range []string{"a.b.db.shop.svc.cluster.local.", "eu-1.pin._zone.ledger.pay.svc.cluster.local.", "_zone.db.shop.svc.cluster.local."} {
		if m := ask(z, ada, name, dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
	if len(asked) != 1 {
		t.Errorf("asked %q", asked)
	}
}

func TestStrangerSeesNothing(t *testing.T) {
	z := newZone(t, exampleOnly)
	for _, name := range []string{"web.shop.svc.cluster.local.", "shop.svc.cluster.local.", "20.0.96.10.in-addr.arpa."} {
		if m := ask(z, eve, name, dns.TypeA); m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestHiddenNamesNeverReachTheClusterServer(t *testing.T) {
	z := newZone(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		t.Errorf("asked for %s", q.Question[0].Name)
		return nil, errors.New("no")
	}))
	for _, name := range []string{
		"ledger.pay.svc.cluster.local.", "nope.pay.svc.cluster.local.", "a.b.c.d.pay.svc.cluster.local.",
		"web.shop.svc.cluster.local.", "nope.web.shop.svc.cluster.local.", "idle.shop.svc.cluster.local.",
	} {
		ask(z, ada, name, dns.TypeA)
	}
}

func TestServerFailureUntilSynced(t *testing.T) {
	z := newZone(t, nil)
	z.synced.Store(false)
	for _, name := range []string{"web.shop.svc.cluster.local.", "nope.cluster.local.", "1.0.96.10.in-addr.arpa."} {
		if m := ask(z, ada, name, dns.TypeA); m.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %s before sync", name, dns.RcodeToString[m.Rcode])
		}
	}
}

// The cluster's own server keeps answers for 30 s. It must not bring a
// deleted Service back.
func TestDeletedServiceIsGoneAtOnce(t *testing.T) {
	z := newZone(t, dnsproxy.ExchangerFunc(func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		m := new(dns.Msg)
		m.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 30 IN A 10.96.0.20")
		m.Answer = []dns.RR{rr}
		return m, nil
	}))
	z.index.deleteService(serviceKey{"shop", "web"})
	for _, name := range []string{"web.shop.svc.cluster.local.", "20.0.96.10.in-addr.arpa."} {
		if m := ask(z, ada, name, dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("%s: %v", name, m)
		}
	}
	now := z.index.now()
	z.index.now = func() time.Time { return now.Add(remember) }
	if m := ask(z, ada, "web.shop.svc.cluster.local.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("after the cluster's server has forgotten it too: %v", m)
	}
}

func TestClusterServerThatIsDownCostsLittle(t *testing.T) {
	asked := 0
	z := newZone(t, dnsproxy.ExchangerFunc(func(context.Context, *dns.Msg) (*dns.Msg, error) {
		asked++
		return nil, errors.New("down")
	}))
	for range 5 {
		if m := ask(z, ada, "nope.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("%v", m)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
	if m := ask(z, ada, "ext.shop.svc.cluster.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("target of an ExternalName: %v, want SERVFAIL", m)
	}
}
