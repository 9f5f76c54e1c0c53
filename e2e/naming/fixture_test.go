package naming

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// fixture is a cluster with every kind of record that Kubernetes' DNS
// specification knows, in the namespaces shop and pay.
type fixture struct{ objects []client.Object }

func newFixture() *fixture {
	f := new(fixture)
	for _, ns := range []string{"shop", "pay"} {
		f.add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}})
	}
	yes, no := true, false
	http, pg := port("http", "TCP", 80), port("pg", "TCP", 5432)

	// Cluster addresses: both families, each alone, several ports, none ready.
	f.service("shop", "web", ips("10.96.0.20", "fd00:10:96::20"), http, port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("assoc", "SCTP", 9000))
	f.slice("shop", "web", "4", ports(http), at("10.244.1.40").pod("web-7c9f-x2"), at("10.244.2.41").pod("web-7c9f-b8"))
	f.slice("shop", "web", "6", ports(http), at("fd00:244:1::40").pod("web-7c9f-x2"), at("fd00:244:2::41").pod("web-7c9f-b8"))
	f.service("shop", "six", ips("fd00:10:96::21"), http)
	f.slice("shop", "six", "6", ports(http), at("fd00:244:1::50").host("six-0"))
	f.service("shop", "anon", ips("10.96.0.22"), port("", "TCP", 8080))
	f.slice("shop", "anon", "4", ports(port("", "TCP", 8080)), at("10.244.1.42"))
	f.service("shop", "idle-ip", ips("10.96.0.23"), http)
	f.slice("shop", "idle-ip", "4", ports(http), at("10.244.1.43").ready(&no))
	f.service("shop", "nothing", ips("10.96.0.24"), http)
	f.service("shop", "node-port", ips("10.96.0.25"), http).Spec.Type = corev1.ServiceTypeNodePort
	f.service("shop", "balanced", ips("10.96.0.26"), http).Spec.Type = corev1.ServiceTypeLoadBalancer
	f.service("shop", strings.Repeat("l", 63), ips("10.96.0.27"), port("a-port-of-15-le", "TCP", 80))
	f.service("pay", "web", ips("10.96.0.30"), http)
	f.service("pay", "ledger", ips("10.96.0.31"), http)

	// A StatefulSet: hostnames, ready, not ready, and nobody knows.
	metrics := port("metrics", "TCP", 9187)
	f.service("shop", "db", headless, pg)
	f.slice("shop", "db", "4", ports(pg, metrics), at("10.244.1.10").host("db-0").ready(&yes), at("10.244.2.11").host("db-1"), at("10.244.2.12").host("db-2").ready(&no))
	f.slice("shop", "db", "6", ports(pg, metrics), at("fd00:244:1::10").host("db-0").ready(&yes), at("fd00:244:2::11").host("db-1"))
	// Endpoints without hostnames, and how an address is spelt as a name.
	f.service("shop", "bare", headless, http)
	f.slice("shop", "bare", "4", ports(http), at("10.244.1.20"), at("10.244.1.21").pod("bare-x2"), at("10.244.1.22").pod(strings.Repeat("p", 64)))
	f.slice("shop", "bare", "6", ports(http), at("fd00:244::"), at("fd00:244:1::"), at("2001:db8:1:2::5:6"))
	// Pods with hostname and subdomain; several with one hostname; one that
	// terminates and one that is published before it is ready.
	f.service("shop", "twins", headless, http, port("admin", "TCP", 8081))
	f.slice("shop", "twins", "4", ports(http, port("admin", "TCP", 8081)), at("10.244.1.30").host("twin"), at("10.244.2.30").host("twin"), at("10.244.2.31").host("other"))
	f.service("shop", "early", headless, http).Spec.PublishNotReadyAddresses = true
	f.slice("shop", "early", "4", ports(http), at("10.244.1.31").host("early-0").ready(&yes).serving(false), at("10.244.1.32").host("late-0").ready(&no).terminating())
	// Headless with nothing, with nothing ready, with no port and with one
	// that has no name; in two slices at once, and in two Services.
	f.service("shop", "empty", headless, http)
	f.service("shop", "idle", headless, http)
	f.slice("shop", "idle", "4", ports(http), at("10.244.1.33").host("idle-0").ready(&no))
	f.service("shop", "portless", headless)
	f.slice("shop", "portless", "4", nil, at("10.244.1.34").host("p-0"))
	f.service("shop", "nameless", headless, port("", "TCP", 80))
	f.slice("shop", "nameless", "4", ports(port("", "TCP", 80)), at("10.244.1.35").host("n-0"))
	f.service("shop", "moving", headless, http)
	f.slice("shop", "moving", "a", ports(http), at("10.244.1.36").host("m-0"))
	f.slice("shop", "moving", "b", ports(http), at("10.244.1.36").host("m-0"), at("10.244.1.37").host("m-1"))
	f.service("pay", "db", headless, pg)
	f.slice("pay", "db", "4", ports(pg), at("10.244.1.10").host("db-0"))
	// More than one answer over UDP can hold.
	f.service("shop", "crowd", headless, http)
	var crowd []endpoint
	for i := range 60 {
		crowd = append(crowd, at(fmt.Sprintf("10.244.9.%d", i+1)))
	}
	f.slice("shop", "crowd", "4", ports(http), crowd...)
	// A slice whose Service is not there.
	f.slice("shop", "orphan", "4", ports(http), at("10.244.1.38").host("o-0"))

	// Aliases: of a name outside, with one family or both, of one that is not
	// there; of Services of each kind; of an alias, of itself, of an address.
	for name, target := range map[string]string{
		"ext": "example.com", "ext-both": "both.example.com", "ext-gone": "gone.example.com", "ext-case": "Example.COM.",
		"alias": "web.shop.svc." + zone, "alias-db": "db.shop.svc." + zone, "alias-six": "six.shop.svc." + zone, "alias-idle": "idle.shop.svc." + zone,
		"alias-gone": "gone.shop.svc." + zone, "alias-alias": "alias.shop.svc." + zone, "alias-ext": "ext.shop.svc." + zone, "alias-pod": "10-244-1-40.shop.pod." + zone,
		"loop": "loop.shop.svc." + zone, "digits": "192.0.2.1",
	} {
		s := f.service("shop", name, nil)
		s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, strings.ToLower(strings.TrimSuffix(target, "."))
	}
	f.service("shop", "ext-port", nil, http).Spec.Type = corev1.ServiceTypeExternalName
	f.objects[len(f.objects)-1].(*corev1.Service).Spec.ExternalName = "example.com"
	return f
}

// create makes the objects, in their order.
func (f *fixture) create(t testing.TB, c client.Client) {
	t.Helper()
	for _, o := range f.objects {
		if err := c.Create(t.Context(), o.DeepCopyObject().(client.Object)); err != nil {
			t.Fatal(err)
		}
	}
}

func (f *fixture) add(o client.Object) { f.objects = append(f.objects, o) }

var headless = []string{corev1.ClusterIPNone}

func ips(s ...string) []string { return s }

func (f *fixture) service(ns, name string, ips []string, ports ...corev1.ServicePort) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	s.Spec.ClusterIPs, s.Spec.Ports = ips, ports
	if len(ips) > 0 {
		s.Spec.ClusterIP = ips[0]
		policy := corev1.IPFamilyPolicySingleStack
		if len(ips) > 1 || ips[0] == corev1.ClusterIPNone {
			policy = corev1.IPFamilyPolicyPreferDualStack
		}
		s.Spec.IPFamilyPolicy = &policy
	}
	f.add(s)
	return s
}

func port(name string, proto corev1.Protocol, n int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: proto, Port: n}
}

// ports are the endpoints' of these Service ports, at other numbers.
func ports(of ...corev1.ServicePort) []discoveryv1.EndpointPort {
	var out []discoveryv1.EndpointPort
	for _, p := range of {
		n := p.Port + 8000
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &n})
	}
	return out
}

func (f *fixture) slice(ns, service, suffix string, ports []discoveryv1.EndpointPort, endpoints ...endpoint) {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: ns, Name: service + "-" + suffix, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: ports,
	}
	if netip.MustParseAddr(endpoints[0].Addresses[0]).Is6() {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, e := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint(e))
	}
	f.add(s)
}

// endpoint of a slice, put together word by word.
type endpoint discoveryv1.Endpoint

func at(addr string) endpoint { return endpoint{Addresses: []string{addr}} }

func (e endpoint) host(name string) endpoint { e.Hostname = &name; return e }
func (e endpoint) ready(r *bool) endpoint    { e.Conditions.Ready = r; return e }
func (e endpoint) serving(s bool) endpoint   { e.Conditions.Serving = &s; return e }
func (e endpoint) terminating() endpoint     { yes := true; e.Conditions.Terminating = &yes; return e }
func (e endpoint) pod(name string) endpoint {
	e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: name}
	return e
}

// zone is where the aliases of the fixture lead.
const zone = "cluster.local"

// names are what is worth asking for: every name that any of the objects
// could have in a domain, those above and below, and what nobody has. In
// another domain than zone the aliases are left out.
func (f *fixture) names(domain string) []string {
	all := map[string]bool{}
	add := func(names ...string) {
		for _, n := range names {
			all[n] = true
		}
	}
	add("", "svc", "pod", "dns", "nope", "svc.nope", "a.b.c.d.e.f", "dns-version", "x.dns-version", "ns.dns",
		"default.svc", "kubernetes.default.svc", "_https._tcp.kubernetes.default.svc", "nope.svc", "web.nope.svc", "nope.pod",
		"shop.nope", "web.shop", "web.shop.svc.svc", "shop.pod", "1.shop.pod", "10-244-1-40.shop.pod", "10-244-1-99.shop.pod", "10-244-1.shop.pod", "10-244-1-300.shop.pod",
		"web-0.shop.pod", "a.10-244-1-40.shop.pod", "fd00-244-1--40.shop.pod", "fd00-244--0.shop.pod", "--1.shop.pod", "10-244-1-40.nope.pod", "10-244-1-40.pay.pod", "_.shop.svc", "legacy.shop.svc")
	service := func(ns, name string) string { return name + "." + ns + ".svc" }
	for _, o := range f.objects {
		switch o := o.(type) {
		case *corev1.Namespace:
			add(o.Name+".svc", o.Name+".pod", service(o.Name, "gone"), "a.b."+service(o.Name, "gone"))
		case *corev1.Service:
			s := service(o.Namespace, o.Name)
			add(s, "nope."+s, "_tcp."+s, "_udp."+s, "_sctp."+s, "_nope._tcp."+s, "_80._tcp."+s, "_http._udp."+s, "a.b."+s, "a.b.c."+s, "_http._tcp.nope."+s)
			for _, p := range o.Spec.Ports {
				add(fmt.Sprintf("_%s._%s.%s", p.Name, strings.ToLower(string(p.Protocol)), s))
			}
		case *discoveryv1.EndpointSlice:
			s := service(o.Namespace, o.Labels[discoveryv1.LabelServiceName])
			for _, p := range o.Ports {
				add(fmt.Sprintf("_%s._%s.%s", *p.Name, strings.ToLower(string(*p.Protocol)), s))
			}
			for i, e := range o.Endpoints {
				if i > 3 {
					break // the crowd is all alike
				}
				if e.Hostname != nil {
					add(*e.Hostname+"."+s, "x."+*e.Hostname+"."+s)
				}
				if e.TargetRef != nil && len(e.TargetRef.Name) < 64 {
					add(e.TargetRef.Name + "." + s)
				}
				dashed := strings.NewReplacer(".", "-", ":", "-").Replace(e.Addresses[0])
				add(dashed+"."+s, dashed+"0."+s)
			}
		}
	}
	var out []string
	for n := range all {
		if strings.HasPrefix(n, "_._") {
			continue // an unnamed port has no name, and this is none either
		}
		if domain != zone && (strings.Contains(n, "alias") || strings.Contains(n, "loop.")) || len(n)+len(domain) > 252 {
			continue
		}
		out = append(out, strings.TrimPrefix(n+"."+domain+".", "."))
	}
	slices.Sort(out)
	return out
}

// addresses are those of all objects, and some that nobody has.
func (f *fixture) addresses() []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr("10.96.0.99"), netip.MustParseAddr("10.244.1.99"), netip.MustParseAddr("fd00:244::99"), netip.MustParseAddr("192.0.2.80")}
	for _, o := range f.objects {
		var texts []string
		switch o := o.(type) {
		case *corev1.Service:
			texts = o.Spec.ClusterIPs
		case *discoveryv1.EndpointSlice:
			for _, e := range o.Endpoints {
				texts = append(texts, e.Addresses...)
			}
		}
		for _, s := range texts {
			if a, err := netip.ParseAddr(s); err == nil {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
