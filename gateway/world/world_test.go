package world

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/world/worldtest"
	"podnet.dev/internal/key"
	"podnet.dev/internal/measure"
)

// TestOneChangeInALargeCluster: 10,000 Services with 50,000 endpoints, of which
// one changes, and counts within a second.
func TestOneChangeInALargeCluster(t *testing.T) {
	w := testWorld()
	ip := func(first byte, n int) string {
		return netip.AddrFrom4([4]byte{10, first + byte(n>>16), byte(n >> 8), byte(n)}).String()
	}
	for i := range 10_000 {
		ns, name := fmt.Sprintf("ns%d", i%100), fmt.Sprintf("s%d", i)
		w.Set(worldtest.Service(ns, name, ip(96, i)))
		w.Set(worldtest.Slice(ns, name, ip(200, 5*i), ip(200, 5*i+1), ip(200, 5*i+2), ip(200, 5*i+3), ip(200, 5*i+4)))
	}
	w.Publish()
	peer := netip.MustParseAddr("198.18.0.2")
	w.Policy.SetGrants([]policy.Grant{{Addrs: []netip.Addr{peer}, Namespaces: []string{"ns7"}}})
	dst := netip.MustParseAddrPort("10.222.9.9:8080")
	if w.Policy.Allow(peer, policy.TCP, dst) {
		t.Fatal("allowed before it exists")
	}
	began := time.Now()
	w.Set(worldtest.Slice("ns7", "s7", "10.222.9.9"))
	w.Publish()
	measure.AtMost(t, "[38] one change, without its way to the gateway", time.Since(began), time.Second)
	if !w.Policy.Allow(peer, policy.TCP, dst) || w.Policy.Allow(peer, policy.TCP, netip.MustParseAddrPort(ip(200, 35)+":8080")) {
		t.Error("the change does not count")
	}
	if n := len(w.network.PodCIDRs); n == 0 || n > ranges.Most {
		t.Errorf("%d pod ranges are published", n)
	}
}

// What was only seen is published for as long as it is there, and where a node
// or the administrator says which ranges there are it is not published at all.
func TestSeenRangesComeAndGo(t *testing.T) {
	w := testWorld()
	check := func(when string, want ...string) {
		t.Helper()
		w.Publish()
		if !slices.Equal(w.network.PodCIDRs, want) {
			t.Errorf("%s: %v is published, want %v", when, w.network.PodCIDRs, want)
		}
	}
	forged := worldtest.Slice("shop", "forged", "192.168.1.7")
	forged.Labels = nil
	w.Set(worldtest.Slice("shop", "web", "10.20.0.7"))
	w.Set(forged)
	check("no node declares anything", "10.20.0.0/24", "192.168.1.0/24")
	w.Remove(forged)
	check("the endpoint is gone", "10.20.0.0/24")
	w.Set(forged)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.20.0.0/16"}}}
	w.Set(node)
	check("a node declares", "10.20.0.0/16")
	w.podCIDRs = ranges.Parse([]string{"10.30.0.0/16"})
	check("the administrator knows better", "10.30.0.0/16")
}

func TestObjectsAsPolicySeesThem(t *testing.T) {
	headless := worldtest.Service("shop", "db", "None")
	external := worldtest.Service("shop", "ext", "")
	external.Spec.Type = corev1.ServiceTypeExternalName
	sctp := worldtest.Service("shop", "sctp", "10.96.0.9")
	sctp.Spec.Ports[0].Protocol = corev1.ProtocolSCTP
	for _, s := range []*corev1.Service{headless, external} {
		if got := serviceOf(s); len(got.ClusterIPs) != 0 {
			t.Errorf("%s has cluster IPs %v", s.Name, got.ClusterIPs)
		}
	}
	if got := serviceOf(sctp); len(got.Ports) != 0 || len(got.ClusterIPs) != 1 {
		t.Errorf("SCTP: %+v", got)
	}

	s := worldtest.Slice("shop", "web", "10.244.0.2", "web.example.org")
	s.Endpoints = append(s.Endpoints,
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.3"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.4"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "pay"}},
		discoveryv1.Endpoint{Addresses: []string{"10.244.0.5"}, TargetRef: &corev1.ObjectReference{Kind: "Node", Name: "n"}})
	got := sliceOf(s)
	if !got.Opaque || !got.Managed || got.Service != "web" {
		t.Errorf("%+v", got)
	}
	now := metav1.Now()
	s.DeletionTimestamp = &now
	if sliceOf(s).Managed {
		t.Error("a slice that a finalizer holds is taken for the controller's")
	}
	if !serviceOf(headless).Selector || serviceOf(external).Selector {
		t.Error("which Services select is wrong")
	}
	for i, want := range []bool{true, false, false, false} {
		if got.Endpoints[i].Pod != want {
			t.Errorf("endpoint %s: pod %v, want %v", got.Endpoints[i].Addr, got.Endpoints[i].Pod, want)
		}
	}
}

func TestObjectsAsEnrolmentSeesThem(t *testing.T) {
	p := &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "podnet-system", UID: "1"}}
	p.Spec.PublicKey = "AAAA"
	if got := PeerOf(p); got.Key != (key.Public{}) {
		t.Errorf("a key that is none became %s", got.Key)
	}
	a := &podnet.Access{ObjectMeta: metav1.ObjectMeta{Namespace: "shop"}, Spec: podnet.AccessSpec{Scope: podnet.ScopeCluster}}
	if accessOf(a, "podnet-system").Cluster {
		t.Error("an Access of scope Cluster counts outside the gateway's namespace")
	}
	a.Namespace = "podnet-system"
	if !accessOf(a, "podnet-system").Cluster {
		t.Error("an Access of scope Cluster does not count in the gateway's namespace")
	}
	// Somebody's finalizer keeps a deleted object: the peer goes all the same.
	w := testWorld()
	p = &podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "podnet-system", UID: "1"}}
	w.Set(p)
	p = p.DeepCopy()
	now := metav1.Now()
	p.DeletionTimestamp = &now
	w.Set(p)
	if n := len(w.Snapshot().Peers); n != 0 {
		t.Errorf("%d peers after the deletion began", n)
	}
}
