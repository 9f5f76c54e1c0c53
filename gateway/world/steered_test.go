package world

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/steering"
	"podnet.dev/gateway/world/worldtest"
)

func TestPodsThatAreSteeredHaveAddresses(t *testing.T) {
	w := testWorld()
	w.rules["r"] = Rule{&podnet.SteeringRule{}, steering.Object{Namespace: "shop", PodUID: "u"}}
	w.rules["s"] = Rule{&podnet.SteeringRule{}, steering.Object{Namespace: "shop", PodUID: "nowhere"}}
	v4, v6, pay := worldtest.Slice("shop", "a", "10.244.0.7", "10.244.0.8"), worldtest.Slice("shop", "b", "fd00:10::7", "10.244.0.7"), worldtest.Slice("pay", "c", "10.244.9.9")
	for _, s := range []*discoveryv1.EndpointSlice{v4, v6, pay} {
		for i := range s.Endpoints {
			s.Endpoints[i].TargetRef.UID = "u"
		}
	}
	v4.Endpoints[1].TargetRef.UID = "another"
	for _, s := range []*discoveryv1.EndpointSlice{v4, v6, pay} {
		w.Set(s)
	}
	got := w.Snapshot().Pods
	slices.SortFunc(got["u"], netip.Addr.Compare)
	if want := []netip.Addr{netip.MustParseAddr("10.244.0.7"), netip.MustParseAddr("fd00:10::7")}; !slices.Equal(got["u"], want) || len(got["nowhere"]) != 0 || len(got) != 2 {
		t.Errorf("%v", got)
	}
	w.Remove(v4)
	w.Remove(v6)
	if got := w.Snapshot().Pods["u"]; len(got) != 0 {
		t.Errorf("they stay: %v", got)
	}
	w.Remove(pay)
	if len(w.slices) != 0 {
		t.Errorf("slices %v", w.slices)
	}
}

// Another gateway's front may send from an address of a family that the headless
// Service does not have.
func TestWhereFrontsSendFrom(t *testing.T) {
	w := testWorld()
	w.o.PodUID, w.o.PodIPs = "uid-0", []netip.Addr{netip.MustParseAddr("10.244.0.9")}
	w.Set(&podnet.SteeringRule{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "alice-web", UID: "uid-rule-web"},
		Spec: podnet.SteeringRuleSpec{User: "alice", Peer: "laptop", Via: podnet.ViaService, Service: "web", ServiceUID: "uid-web", Port: 80, Protocol: "tcp", Mode: "steal", RelayPort: 20000}})
	w.Set(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-web"}})
	pods := worldtest.Slice("podnet-system", "podnet-gateway-x", "10.244.0.9", "10.244.0.10")
	pods.Labels[discoveryv1.LabelServiceName] = deploy.StatefulSetName
	pods.Endpoints[0].TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: "podnet-gateway-0", UID: "uid-0"}
	pods.Endpoints[1].TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: "podnet-gateway-1", UID: "uid-1"}
	w.Set(pods)
	w.Set(&podnet.Peer{ObjectMeta: metav1.ObjectMeta{Name: "laptop", UID: "uid-laptop"}, Status: podnet.PeerStatus{Gateways: []podnet.Gateway{
		{Pod: "podnet-gateway-1", PodUID: "uid-1", ClusterEndpoints: []string{"10.244.0.10:51820", "[fd00:10::10]:51820"}},
		{Pod: "podnet-gateway-2", PodUID: "uid-2", ClusterEndpoints: []string{"10.244.0.11:51820"}}, // it has gone
	}}})
	got := w.Snapshot().Pods["uid-web"]
	slices.SortFunc(got, netip.Addr.Compare)
	want := []netip.Addr{netip.MustParseAddr("10.244.0.9"), netip.MustParseAddr("10.244.0.10"), netip.MustParseAddr("fd00:10::10")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
