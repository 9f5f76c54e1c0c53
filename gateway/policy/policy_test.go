package policy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

var (
	alice  = ip("198.18.0.2")
	alice6 = ip("fd70:6f64:6e65:7400::2")
	admin  = ip("198.18.0.3")
	nobody = ip("198.18.0.4")
)

func ip(s string) netip.Addr     { return netip.MustParseAddr(s) }
func cidr(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var testConfig = Config{
	DNS:              []netip.Addr{ip("198.18.0.1"), ip("fd70:6f64:6e65:7400::1")},
	Tunnel:           []netip.Prefix{cidr("198.18.0.0/16"), cidr("fd70:6f64:6e65:7400::/64")},
	Self:             []netip.Addr{ip("10.244.0.9")},
	GatewayNamespace: "podnet-system", GatewayService: "podnet-gateway",
}

var http80, http8080 = Port{TCP, 80}, Port{TCP, 8080}

func podsAt(addrs ...string) []Endpoint {
	var eps []Endpoint
	for _, a := range addrs {
		eps = append(eps, Endpoint{Addr: ip(a), Pod: true})
	}
	return eps
}

// shop is a small cluster: alice has the namespace shop, admin has all.
func shop() *Engine {
	e := New(testConfig)
	e.SetNode(Node{Name: "node1", Addrs: []netip.Addr{ip("172.16.0.10")}, PodCIDRs: []netip.Prefix{cidr("10.244.0.0/24"), cidr("fd00:10:244::/64")}})
	e.SetService(Service{Namespace: "shop", Name: "web", ClusterIPs: []netip.Addr{ip("10.96.1.1"), ip("fd00:10:96::1")}, Ports: []Port{http80}, Selector: true})
	e.SetSlice(Slice{Namespace: "shop", Name: "web-4", Service: "web", Managed: true, Endpoints: podsAt("10.244.0.20", "10.244.0.21"), Ports: []Port{http8080}})
	e.SetSlice(Slice{Namespace: "shop", Name: "web-6", Service: "web", Managed: true, Endpoints: podsAt("fd00:10:244::20"), Ports: []Port{http8080}})
	e.SetService(Service{Namespace: "pay", Name: "till", ClusterIPs: []netip.Addr{ip("10.96.2.1")}, Ports: []Port{http80}, Selector: true})
	e.SetSlice(Slice{Namespace: "pay", Name: "till-4", Service: "till", Managed: true, Endpoints: podsAt("10.244.0.30"), Ports: []Port{http8080}})
	e.SetService(Service{Namespace: "default", Name: "kubernetes", ClusterIPs: []netip.Addr{ip("10.96.0.1")}, Ports: []Port{{TCP, 443}}})
	e.SetSlice(Slice{Namespace: "default", Name: "kubernetes", Service: "kubernetes", Endpoints: []Endpoint{{Addr: ip("172.16.0.10")}}, Ports: []Port{{TCP, 6443}}})
	e.SetSlice(Slice{Namespace: "podnet-system", Name: "gw-4", Service: "podnet-gateway", Managed: true, Endpoints: podsAt("10.244.0.9", "10.244.0.10")})
	// ingress runs in its node's network.
	e.SetService(Service{Namespace: "shop", Name: "ingress", ClusterIPs: []netip.Addr{ip("10.96.1.9")}, Ports: []Port{http80}, Selector: true})
	e.SetSlice(Slice{Namespace: "shop", Name: "ingress-4", Service: "ingress", Managed: true, Endpoints: podsAt("172.16.0.10"), Ports: []Port{http80}})
	e.SetGrants([]Grant{
		{Addrs: []netip.Addr{alice, alice6}, Namespaces: []string{"shop"}},
		{Addrs: []netip.Addr{admin}, Cluster: true},
	})
	e.Rebuild()
	return e
}

func TestWhoReachesWhat(t *testing.T) {
	e := shop()
	for _, c := range []struct {
		what         string
		proto        Proto
		dst          string
		alice, admin bool
	}{
		{"a pod of shop", TCP, "10.244.0.20:8080", true, true},
		{"another port of it", TCP, "10.244.0.20:9999", true, true},
		{"metrics-server's own port", TCP, "10.244.0.20:10250", true, true},
		{"UDP to it", UDP, "10.244.0.21:53", true, true},
		{"ping to it", ICMP, "10.244.0.21:0", true, true},
		{"its IPv6 address", TCP, "[fd00:10:244::20]:8080", true, true},
		{"it as an IPv4-mapped address", TCP, "[::ffff:10.244.0.20]:8080", true, true},
		{"shop's Service", TCP, "10.96.1.1:80", true, true},
		{"shop's Service over IPv6", TCP, "[fd00:10:96::1]:80", true, true},
		{"a port that the Service has not", TCP, "10.96.1.1:81", false, false},
		{"the Service's port by another protocol", UDP, "10.96.1.1:80", false, false},
		{"ping to the Service", ICMP, "10.96.1.1:0", true, true},
		{"a pod of pay", TCP, "10.244.0.30:8080", false, true},
		{"ping to a pod of pay", ICMP, "10.244.0.30:0", false, true},
		{"pay's Service", TCP, "10.96.2.1:80", false, true},
		{"a pod behind no Service", TCP, "10.244.0.77:80", false, true},
		{"an IPv6 pod behind no Service", TCP, "[fd00:10:244::77]:80", false, true},
		{"kubelet at an address of the pod range", TCP, "10.244.0.77:10250", false, false},
		{"the node's bridge", TCP, "10.244.0.1:80", false, false},
		{"the node's tunnel device", TCP, "10.244.0.0:80", false, false},
		{"kubelet", TCP, "172.16.0.10:10250", false, false},
		{"ssh on the node", TCP, "172.16.0.10:22", false, false},
		{"ping to the node", ICMP, "172.16.0.10:0", false, false},
		{"the declared port of a pod in the node's network", TCP, "172.16.0.10:80", true, true},
		{"the Service of that pod", TCP, "10.96.1.9:80", true, true},
		{"the API server's Service", TCP, "10.96.0.1:443", false, false},
		{"the API server", TCP, "172.16.0.10:6443", false, false},
		{"the gateway", TCP, "10.244.0.9:8081", false, false},
		{"another gateway", TCP, "10.244.0.10:8081", false, false},
		{"the gateway's loopback", TCP, "127.0.0.1:51821", false, false},
		{"IPv6 loopback", TCP, "[::1]:51821", false, false},
		{"metadata", TCP, "169.254.169.254:80", false, false},
		{"AWS metadata over IPv6", TCP, "[fd00:ec2::254]:80", false, false},
		{"metadata through NAT64", TCP, "[64:ff9b::a9fe:a9fe]:80", false, false},
		{"link-local", TCP, "[fe80::1]:80", false, false},
		{"multicast", UDP, "224.0.0.251:5353", false, false},
		{"broadcast", UDP, "255.255.255.255:67", false, false},
		{"this network", TCP, "0.0.0.0:80", false, false},
		{"another peer", TCP, "198.18.0.3:22", false, false},
		{"another peer over IPv6", TCP, "[fd70:6f64:6e65:7400::3]:22", false, false},
		{"the internet", TCP, "192.0.2.1:443", false, false},
		{"the gateway's DNS", UDP, "198.18.0.1:53", true, true},
		{"the gateway's DNS over IPv6", TCP, "[fd70:6f64:6e65:7400::1]:53", true, true},
		{"ping to the gateway", ICMP, "198.18.0.1:0", true, true},
		{"another port of the gateway", TCP, "198.18.0.1:80", false, false},
	} {
		dst := netip.MustParseAddrPort(c.dst)
		for peer, want := range map[netip.Addr]bool{alice: c.alice, alice6: c.alice, admin: c.admin, nobody: false} {
			if got := e.Allow(peer, c.proto, dst); got != want {
				t.Errorf("%s: Allow(%s, %d, %s) = %v, want %v", c.what, peer, c.proto, c.dst, got, want)
			}
		}
	}
}

// Around a Service that leads where it should not its external IPs are no way either:
// kube-proxy sends what comes for them to its endpoints, whatever else has the address.
func TestExternalIPsOfHandEditedServices(t *testing.T) {
	e := shop()
	e.SetGrants([]Grant{{Addrs: []netip.Addr{alice}, Namespaces: []string{"shop"}, Routes: []netip.Prefix{cidr("192.0.2.0/24")}}, {Addrs: []netip.Addr{admin}, Cluster: true}})
	e.SetRanges([]netip.Prefix{cidr("10.96.0.0/16"), cidr("10.244.0.0/16")})
	external := []netip.Addr{ip("10.244.0.20"), ip("::ffff:10.244.0.77"), ip("172.16.0.10"), ip("192.0.2.7")}
	e.SetService(Service{Namespace: "shop", Name: "bad", ClusterIPs: []netip.Addr{ip("10.96.1.66")}, External: external, Ports: []Port{http80}})
	bad := Slice{Namespace: "shop", Name: "bad-1", Service: "bad", Endpoints: podsAt("172.16.0.10"), Ports: []Port{{TCP, 10250}}}
	check := func(when string, want bool) {
		t.Helper()
		e.Rebuild()
		for _, c := range []struct {
			peer netip.Addr
			dst  string
			want bool
		}{
			{alice, "10.244.0.20:80", want}, {admin, "10.244.0.20:80", want}, {admin, "10.244.0.77:80", want}, {alice, "172.16.0.10:80", want}, {alice, "192.0.2.7:80", want},
			{alice, "10.244.0.20:8080", true}, {alice, "10.244.0.21:80", true}, {alice, "192.0.2.7:443", true}, {alice, "10.244.0.30:80", false}, {alice, "10.96.1.66:80", want},
		} {
			if got := e.Allow(c.peer, TCP, netip.MustParseAddrPort(c.dst)); got != c.want {
				t.Errorf("%s: Allow(%s, %s) = %v", when, c.peer, c.dst, got)
			}
		}
		if got := e.Serves("shop", TCP, netip.MustParseAddrPort("10.244.0.20:80")); got != want {
			t.Errorf("%s: a front may connect: %v", when, got)
		}
		if !e.Allow(alice, ICMP, netip.MustParseAddrPort("10.244.0.20:0")) {
			t.Errorf("%s: no ping", when)
		}
	}
	check("without endpoints", true)
	e.SetSlice(bad)
	check("it leads to kubelet", false)
	bad.Endpoints, bad.Ports = podsAt("10.244.0.20"), []Port{http8080}
	e.SetSlice(bad)
	check("it leads to a pod of its namespace", true)
	bad.Endpoints = podsAt("10.244.0.30")
	e.SetSlice(bad)
	check("it leads to a pod of pay", false)
	e.SetService(Service{Namespace: "shop", Name: "bad", ClusterIPs: []netip.Addr{ip("10.96.1.66")}, Ports: []Port{http80}})
	e.Rebuild()
	if !e.Allow(alice, TCP, netip.MustParseAddrPort("10.244.0.20:80")) {
		t.Error("it has no external IPs any more")
	}
}

// A user who may edit Endpoints must not get anywhere by it.
func TestHandEditedEndpoints(t *testing.T) {
	service := Service{Namespace: "shop", Name: "bad", ClusterIPs: []netip.Addr{ip("10.96.1.66")}, Ports: []Port{http80}, Selector: true}
	for what, s := range map[string]Slice{
		"no pod behind it":                 {Endpoints: []Endpoint{{Addr: ip("192.0.2.1")}}},
		"a name behind it":                 {Opaque: true},
		"kubelet":                          {Endpoints: []Endpoint{{Addr: ip("172.16.0.10")}}, Ports: []Port{{TCP, 10250}}},
		"kubelet, called a pod":            {Endpoints: podsAt("172.16.0.10"), Ports: []Port{{TCP, 10250}}},
		"kubelet, in the controller's way": {Endpoints: podsAt("172.16.0.10"), Ports: []Port{{TCP, 10250}}, Managed: true},
		"ssh on the node, called a pod":    {Endpoints: podsAt("172.16.0.10"), Ports: []Port{{TCP, 22}}},
		"the API server, called a pod":     {Endpoints: podsAt("172.16.0.10"), Ports: []Port{{TCP, 6443}}, Managed: true},
		"pay's Service, called a pod":      {Endpoints: podsAt("10.96.2.1"), Ports: []Port{http80}},
		"the same, as the controller's":    {Endpoints: podsAt("10.96.2.1"), Ports: []Port{http80}, Managed: true},
		"the API server's Service":         {Endpoints: podsAt("10.96.0.1"), Ports: []Port{{TCP, 443}}, Managed: true},
		"a pod of pay, called ours":        {Endpoints: podsAt("10.244.0.30"), Ports: []Port{http8080}},
		"one good and one of pay":          {Endpoints: podsAt("10.244.0.20", "10.244.0.30"), Ports: []Port{http8080}},
		"metadata, called a pod":           {Endpoints: podsAt("169.254.169.254"), Ports: []Port{http80}},
		"EKS's credentials, called a pod":  {Endpoints: podsAt("fd00:ec2::23"), Ports: []Port{http80}},
		"Oracle's metadata over IPv6":      {Endpoints: podsAt("fd00:c1::a9fe:a9fe"), Ports: []Port{http80}},
		"Akamai's":                         {Endpoints: podsAt("fd00:a9fe:a9fe::1"), Ports: []Port{http80}},
		"Scaleway's":                       {Endpoints: podsAt("fd00:42::42"), Ports: []Port{http80}},
		"Alibaba's":                        {Endpoints: podsAt("fd00:100::100:200"), Ports: []Port{http80}},
		"the gateway, called a pod":        {Endpoints: podsAt("10.244.0.9"), Ports: []Port{{TCP, 8081}}},
		"loopback, called a pod":           {Endpoints: podsAt("127.0.0.1"), Ports: []Port{{TCP, 51821}}},
		"another peer, called a pod":       {Endpoints: podsAt("198.18.0.3"), Ports: []Port{{TCP, 22}}},
	} {
		t.Run(what, func(t *testing.T) {
			e := shop()
			s.Namespace, s.Name, s.Service = "shop", "bad-1", "bad"
			e.SetService(service)
			e.SetSlice(s)
			e.Rebuild()
			for _, peer := range []netip.Addr{alice, admin} {
				if e.Allow(peer, TCP, netip.MustParseAddrPort("10.96.1.66:80")) {
					t.Errorf("%s reaches the Service", peer)
				}
			}
			for _, ep := range s.Endpoints {
				for _, p := range s.Ports {
					// A pod of shop and, for nobody, the claimed target.
					if want := ep.Addr == ip("10.244.0.20"); e.Allow(alice, p.Proto, netip.AddrPortFrom(ep.Addr, p.Port)) != want {
						t.Errorf("alice at %s port %d: want %v", ep.Addr, p.Port, want)
					}
				}
			}
			if !e.Allow(admin, TCP, netip.MustParseAddrPort("10.244.0.30:8080")) {
				t.Error("a forged claim took a pod of pay away from those who may reach it")
			}
			if !e.Allow(admin, TCP, netip.MustParseAddrPort("10.96.2.1:80")) {
				t.Error("a forged claim took pay's Service away from those who may reach it")
			}
			if !e.Allow(alice, TCP, netip.MustParseAddrPort("10.96.1.1:80")) {
				t.Error("the good Service beside it is gone")
			}
		})
	}
}

// Two controllers' slices that claim one address for two namespaces: a pod's
// address was handed on and one of them is late. Nobody gets it meanwhile.
func TestAddressChangesHands(t *testing.T) {
	e := shop()
	dst := netip.MustParseAddrPort("10.244.0.20:8080")
	e.SetSlice(Slice{Namespace: "pay", Name: "till-5", Service: "till", Managed: true, Endpoints: podsAt("10.244.0.20")})
	e.Rebuild()
	if e.Allow(alice, TCP, dst) || e.Allow(admin, TCP, dst) {
		t.Error("a disputed address is reachable")
	}
	e.SetSlice(Slice{Namespace: "shop", Name: "web-4", Service: "web", Managed: true, Endpoints: podsAt("10.244.0.21"), Ports: []Port{http8080}})
	e.Rebuild()
	if e.Allow(alice, TCP, dst) {
		t.Error("alice reaches a pod of pay at an address that used to be shop's")
	}
	if !e.Allow(admin, TCP, dst) {
		t.Error("the new owner's pod is not reachable")
	}
}

// The label of the endpointslice controller is worth nothing on a slice that
// the controller does not look after: one of a Service without a selector, or of
// none.
func TestControllersLabelByHand(t *testing.T) {
	e := shop()
	e.SetService(Service{Namespace: "shop", Name: "bare", ClusterIPs: []netip.Addr{ip("10.96.1.77")}, Ports: []Port{http80}})
	for i, service := range []string{"bare", "missing", ""} {
		e.SetSlice(Slice{Namespace: "shop", Name: fmt.Sprint("forged", i), Service: service, Managed: true,
			Endpoints: podsAt("10.244.0.30", "172.16.0.10", "10.9.9.9"), Ports: []Port{{TCP, 22}, {TCP, 10250}, http8080}})
	}
	e.Rebuild()
	for what, c := range map[string]struct {
		dst          string
		alice, admin bool
	}{
		"a pod of pay":                {"10.244.0.30:8080", false, true},
		"pay's Service":               {"10.96.2.1:80", false, true},
		"ssh on the node":             {"172.16.0.10:22", false, false},
		"kubelet":                     {"172.16.0.10:10250", false, false},
		"a Service in front of it":    {"10.96.1.77:80", false, false},
		"an address that is nobody's": {"10.9.9.9:8080", true, true}, // what is left: see the threat model
		"kubelet at such an address":  {"10.9.9.9:10250", false, false},
	} {
		for peer, want := range map[netip.Addr]bool{alice: c.alice, admin: c.admin} {
			if got := e.Allow(peer, TCP, netip.MustParseAddrPort(c.dst)); got != want {
				t.Errorf("%s: %s at %s: %v, want %v", what, peer, c.dst, got, want)
			}
		}
	}
}

func TestVisible(t *testing.T) {
	e := shop()
	for _, c := range []struct {
		peer      netip.Addr
		namespace string
		want      bool
	}{
		{alice, "shop", true}, {alice6, "shop", true}, {alice, "pay", false}, {admin, "pay", true}, {nobody, "shop", false},
		{ip("::ffff:198.18.0.2"), "shop", true},
	} {
		if got := e.Visible(c.peer, c.namespace); got != c.want {
			t.Errorf("Visible(%s, %s) = %v", c.peer, c.namespace, got)
		}
	}
	e.SetGrants(nil)
	if e.Visible(alice, "shop") || e.Allow(alice, TCP, netip.MustParseAddrPort("10.244.0.20:8080")) {
		t.Error("a grant that was taken away still works")
	}
}

func TestSetTellsWhetherAnythingChanged(t *testing.T) {
	e := shop()
	s := Slice{Namespace: "shop", Name: "web-4", Service: "web", Managed: true, Endpoints: podsAt("10.244.0.20", "10.244.0.21"), Ports: []Port{http8080}}
	if e.SetSlice(s) {
		t.Error("the same slice again is a change")
	}
	s.Endpoints = s.Endpoints[:1]
	if !e.SetSlice(s) || !e.DeleteSlice("shop", "web-4") || e.DeleteSlice("shop", "web-4") {
		t.Error("changes are not told right")
	}
	if e.SetNode(Node{Name: "node1", Addrs: []netip.Addr{ip("172.16.0.10")}, PodCIDRs: []netip.Prefix{cidr("10.244.0.0/24"), cidr("fd00:10:244::/64")}}) {
		t.Error("the same node again is a change")
	}
}

// large has 10,000 Services with five endpoints each, in 100 namespaces.
func large() *Engine {
	e := New(testConfig)
	for i := range 10_000 {
		ns, svc := fmt.Sprintf("ns%d", i%100), fmt.Sprintf("svc%d", i)
		e.SetService(Service{Namespace: ns, Name: svc, ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}, Ports: []Port{http80}, Selector: true})
		s := Slice{Namespace: ns, Name: svc + "-1", Service: svc, Managed: true, Ports: []Port{http8080}}
		for j := range 5 {
			n := i*5 + j
			s.Endpoints = append(s.Endpoints, Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(n>>16) + 100, byte(n >> 8), byte(n)}), Pod: true})
		}
		e.SetSlice(s)
	}
	e.SetGrants([]Grant{{Addrs: []netip.Addr{alice}, Namespaces: []string{"ns1", "ns2", "ns3"}}})
	e.Rebuild()
	return e
}

func TestLargeCluster(t *testing.T) {
	e := large()
	e.DeleteSlice("ns7", "svc7-1")
	start := time.Now()
	e.Rebuild()
	t.Logf("a change in a large cluster takes %v to publish (1 s)", time.Since(start))
	if !e.Allow(alice, TCP, netip.MustParseAddrPort("10.96.0.1:80")) || e.Allow(alice, TCP, netip.MustParseAddrPort("10.96.0.4:80")) {
		t.Error("wrong answers in a large cluster")
	}
}

func BenchmarkRebuild(b *testing.B) {
	e := large()
	b.ReportAllocs()
	for b.Loop() {
		e.index.stale.all = true
		e.Rebuild()
	}
}

func BenchmarkChange(b *testing.B) {
	e := large()
	s := *e.index.slices[name{"ns7", "svc7-1"}]
	b.ReportAllocs()
	for b.Loop() {
		s.Opaque = !s.Opaque
		e.SetSlice(s)
		e.Rebuild()
	}
}

func BenchmarkAllow(b *testing.B) {
	e := large()
	dst := netip.MustParseAddrPort("10.96.0.1:80")
	for b.Loop() {
		if !e.Allow(alice, TCP, dst) {
			b.Fatal("denied")
		}
	}
}

// A Service that leads to a gateway stays open to who may reach it, and only if it
// is a front that it leads to.
func TestASteeredServiceStaysInReach(t *testing.T) {
	e := shop()
	web := netip.MustParseAddrPort("10.96.1.1:80")
	e.SetSlice(Slice{Namespace: "shop", Name: "web-4", Service: "web", Managed: true})
	e.SetService(Service{Namespace: "shop", Name: "podnet-web", Selector: true})
	e.SetSlice(Slice{Namespace: "shop", Name: "podnet-web-4", Service: "podnet-web", Managed: true, Endpoints: podsAt("10.244.0.20"), Ports: []Port{http8080}})
	for what, c := range map[string]struct {
		front bool
		at    string
		want  bool
	}{
		"a gateway's front":          {true, "10.244.0.9", true},
		"another gateway's":          {true, "10.244.0.10", true},
		"a gateway's other port":     {false, "10.244.0.9", false},
		"where there is no gateway":  {true, "10.244.0.77", false},
		"the API server":             {true, "172.16.0.10", false},
		"a pod of another namespace": {true, "10.244.0.30", false},
	} {
		e.SetSlice(Slice{Namespace: "shop", Name: "podnet-web-front", Service: "web", Front: c.front, Endpoints: []Endpoint{{Addr: ip(c.at)}}, Ports: []Port{{TCP, 19000}}})
		e.Rebuild()
		if got := e.Allow(alice, TCP, web); got != c.want {
			t.Errorf("%s: alice may reach the Service: %v", what, got)
		}
		if e.Allow(alice, TCP, netip.MustParseAddrPort("10.244.0.9:19000")) {
			t.Errorf("%s: alice may reach the gateway", what)
		}
	}
}

func TestWhereAFrontMayConnect(t *testing.T) {
	e := shop()
	e.SetSlice(Slice{Namespace: "shop", Name: "forged", Service: "web", Endpoints: podsAt("10.244.0.40"), Ports: []Port{http8080}})
	e.SetSlice(Slice{Namespace: "shop", Name: "forged-2", Service: "web", Endpoints: podsAt("10.244.0.30"), Ports: []Port{http8080}})
	e.Rebuild()
	for at, want := range map[string]bool{
		"10.244.0.20:8080":     true,
		"[fd00:10:244::20]:80": true,
		"172.16.0.10:80":       true,  // ingress, in its node's network
		"172.16.0.10:10250":    false, // the node itself
		"10.244.0.40:8080":     false, // by hand
		"10.244.0.30:8080":     false, // till's
		"10.96.1.1:80":         false,
		"10.244.0.9:8080":      false, // a gateway
		"127.0.0.1:80":         false,
		"169.254.169.254:80":   false,
		"10.244.0.99:80":       false,
	} {
		if got := e.Serves("shop", TCP, netip.MustParseAddrPort(at)); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
}
