package world

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/virtual"
)

// nobodysKey is RFC 7748 section 6.1's: a valid key that is nobody's.
const nobodysKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="

// decoded is what the API server might send, false when it is no such object.
func decoded[T any](text string) (o T, ok bool) {
	return o, json.Unmarshal([]byte(text), &o) == nil
}

// FuzzPeer reads what a user may write into a Peer: what he asks for beside the cluster is
// spelt in one way, and not too wide to be meant.
func FuzzPeer(f *testing.F) {
	f.Add(`{"spec":{"user":"alice","publicKey":"` + nobodysKey + `","leaseSeconds":300,"alsoRoutes":["192.0.2.0/24"],"alsoDomains":["corp.example"]},"status":{"address4":"198.18.0.2"}}`)
	f.Add(`{"spec":{"alsoRoutes":["10.0.0.1/8","::/0","::ffff:10.0.0.0/104"],"alsoDomains":["com",".a.b","A.b","a..b"],"virtual":[{"real":"10.244.0.0/16","virtual":"240.0.0.0/16"}]}}`)
	published := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}
	f.Fuzz(func(t *testing.T, text string) {
		o, ok := decoded[podnet.Peer](text)
		if !ok {
			return
		}
		p := PeerOf(&o)
		for _, r := range p.Beyond.Routes {
			if again, err := deploy.ParseRange(r.String()); err != nil || again != r || r != r.Masked() {
				t.Errorf("%s is routed: %v", r, err)
			}
		}
		for _, d := range p.Beyond.Domains {
			if !slices.Contains(o.Spec.AlsoDomains, strings.TrimSuffix(d, ".")) || strings.Count(d, ".") < 2 || d != strings.ToLower(d) {
				t.Errorf("%q is resolved", d)
			}
		}
		m := virtual.Of(o.Spec.Virtual, published)
		for _, pair := range m.Pairs() {
			if pair.Real.Bits() != pair.Virtual.Bits() || !slices.ContainsFunc(published, pair.Real.Overlaps) {
				t.Errorf("%v is mapped", pair)
			}
		}
		if a, ok := decoded[podnet.Access](text); ok {
			accessOf(&a, deploy.DefaultNamespace)
		}
		if e, ok := decoded[podnet.Exposure](text); ok {
			ExposureOf(&e)
		}
	})
}

// FuzzSteeringRule reads what a user may write into a SteeringRule: one without a fault
// has a port, and is a pod's by name and UID.
func FuzzSteeringRule(f *testing.F) {
	f.Add(`{"spec":{"user":"alice","peer":"a","pod":"web-1","podUID":"u","port":8080,"protocol":"tcp","mode":"steal","relayPort":20000,"matches":[{"headers":[{"name":"x-user","value":"alice"}]}]}}`)
	f.Add(`{"spec":{"mode":"egress","agentKey":"` + nobodysKey + `"}}`)
	f.Add(`{"spec":{"via":"gateway","service":"web","serviceUID":"u","port":80,"protocol":"tcp","mode":"mirror"},"status":{"agent":{"publicKey":"` + nobodysKey + `"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		o, ok := decoded[podnet.SteeringRule](text)
		if !ok {
			return
		}
		r := RuleOf(&o)
		if r.Invalid == nil && !r.Egress && (r.Steer.Port == 0 || int32(r.Steer.Port) != o.Spec.Port) {
			t.Errorf("port %d became %d", o.Spec.Port, r.Steer.Port)
		}
		if o.Spec.Via == "" && (r.Pod != o.Spec.Pod || r.PodUID != o.Spec.PodUID) {
			t.Errorf("%s/%s became %s/%s", o.Spec.Pod, o.Spec.PodUID, r.Pod, r.PodUID)
		}
	})
}

// FuzzReach has somebody write an EndpointSlice and a Service into their namespace, and a
// node say what it likes: what is always denied stays so, for whoever may reach
// everything as well.
func FuzzReach(f *testing.F) {
	f.Add(`{"metadata":{"namespace":"shop","name":"web","labels":{"kubernetes.io/service-name":"web"}},"ports":[{"port":8080}],"endpoints":[{"addresses":["10.244.0.9"],"targetRef":{"kind":"Pod","name":"web-0"}}]}`,
		`{"metadata":{"namespace":"shop","name":"web"},"spec":{"clusterIPs":["10.96.0.9"],"ports":[{"port":80}]}}`, `{"metadata":{"name":"node1"},"spec":{"podCIDR":"10.244.0.0/24"},"status":{"addresses":[{"address":"192.0.2.1"}]}}`)
	f.Add(`{"metadata":{"namespace":"shop","labels":{"endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"}},"endpoints":[{"addresses":["127.0.0.1","::ffff:169.254.169.254","fe80::1%eth0","198.18.0.3","ff02::1","0.0.0.0"],"targetRef":{"kind":"Pod"}}]}`,
		`{"metadata":{"namespace":"shop"},"spec":{"clusterIPs":["127.0.0.1","::1"],"ports":[{"port":6443}]}}`, `{"spec":{"podCIDRs":["0.0.0.0/0","::/0"]}}`)
	alice, admin, self := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.4"), netip.MustParseAddr("10.244.0.2")
	tunnel := netip.MustParsePrefix("198.18.0.0/16")
	f.Fuzz(func(t *testing.T, slice, service, node string) {
		e := policy.New(policy.Config{Tunnel: []netip.Prefix{tunnel}, Self: []netip.Addr{self}, GatewayNamespace: deploy.DefaultNamespace, GatewayService: "podnet-gateway"})
		e.SetGrants([]policy.Grant{{Addrs: []netip.Addr{alice}, Namespaces: []string{"shop"}}, {Addrs: []netip.Addr{admin}, Cluster: true}})
		tried := []netip.Addr{self, alice, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254"), netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1")}
		strange := false // nothing of shop
		if o, ok := decoded[discoveryv1.EndpointSlice](slice); ok {
			s := sliceOf(&o)
			e.SetSlice(s)
			for _, p := range s.Endpoints {
				tried = append(tried, p.Addr)
			}
			strange = s.Namespace != "shop"
		}
		if o, ok := decoded[corev1.Service](service); ok {
			s := serviceOf(&o)
			e.SetService(s)
			tried = append(tried, s.ClusterIPs...)
			strange = strange && s.Namespace != "shop"
		}
		if o, ok := decoded[corev1.Node](node); ok {
			n := nodeOf(&o)
			e.SetNode(n)
			tried = append(tried, n.Addrs...)
		}
		e.Rebuild()
		for _, a := range tried {
			u := a.Unmap()
			never := !u.IsValid() || u.Zone() != "" || u.IsLoopback() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified() || u == self || tunnel.Contains(u)
			for _, proto := range []policy.Proto{policy.TCP, policy.UDP, policy.ICMP} {
				for _, port := range []uint16{0, 80, 8080, 10250} {
					at := netip.AddrPortFrom(a, port)
					if never && (e.Allow(alice, proto, at) || e.Allow(admin, proto, at)) {
						t.Errorf("%d to %s is allowed", proto, at)
					}
					if strange && e.Allow(alice, proto, at) {
						t.Errorf("who may reach shop may reach %d to %s, which nobody in shop has", proto, at)
					}
				}
			}
		}
	})
}

// kube-proxy takes what is sent to a Service's external IPs, and to those of load
// balancers that say nothing else.
func TestExternalIPsOfServices(t *testing.T) {
	o, ok := decoded[corev1.Service](`{"spec":{"clusterIPs":["10.96.0.9"],"externalIPs":["10.244.0.20","x"]},
		"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"},{"ip":"192.0.2.8","ipMode":"VIP"},{"ip":"192.0.2.9","ipMode":"Proxy"},{"hostname":"lb.example"}]}}}`)
	if !ok {
		t.Fatal("not read")
	}
	if got := texts(serviceOf(&o).External); !slices.Equal(got, []string{"10.244.0.20", "192.0.2.7", "192.0.2.8"}) {
		t.Errorf("%v", got)
	}
}

func TestBeyondIsReadAsItIsSpelt(t *testing.T) {
	b := beyondOf(podnet.PeerSpec{
		AlsoRoutes:  []string{"10.20.0.0/16", "10.20.3.0/16", "0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "x", "2001:DB8::/32", "2001:db8::/32"},
		AlsoDomains: []string{"corp.internal", "Corp.Internal", "internal", "corp.internal.", ".corp.internal", "."},
	})
	if got := ranges.Texts(b.Routes); len(got) != 2 || got[0] != "10.20.0.0/16" || got[1] != "2001:db8::/32" || len(b.Domains) != 1 || b.Domains[0] != "corp.internal." {
		t.Errorf("%v, %v", got, b.Domains)
	}
}
