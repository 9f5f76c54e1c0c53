package world

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/deploy"
	"podnet.dev/gateway/world/worldtest"
	"podnet.dev/internal/key"
)

func testWorld(advertise ...string) *World {
	return New(Config{Namespace: "podnet-system", Pod: "podnet-gateway-0", Node: "node2", WireGuardPort: 51820, Advertise: advertise,
		DNS: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, Tunnel: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/16"), key.Prefix6, key.RelayPrefix6}, Log: slog.New(slog.DiscardHandler)})
}

func udpService(kind corev1.ServiceType, nodePort int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: deploy.UDPServiceName},
		Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: 51820, TargetPort: intstr.FromString("wireguard"), NodePort: nodePort}}}}
}

func TestUDPEndpoints(t *testing.T) {
	nodes := []*corev1.Node{
		worldtest.Node("node1", true, "172.16.0.10", ""), worldtest.Node("node2", true, "172.16.0.11", "203.0.113.2"), worldtest.Node("node3", false, "172.16.0.12", "203.0.113.3"),
	}
	balancer := udpService(corev1.ServiceTypeLoadBalancer, 31820)
	balancer.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.9"}, {Hostname: "lb.example.org"}}
	local := udpService(corev1.ServiceTypeNodePort, 31820)
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	tcp := udpService(corev1.ServiceTypeNodePort, 31820)
	tcp.Spec.Ports[0].Protocol = corev1.ProtocolTCP
	for _, c := range []struct {
		what    string
		service *corev1.Service
		pods    []string
		want    []string
	}{
		{"node port", udpService(corev1.ServiceTypeNodePort, 31820), []string{"podnet-gateway-0"}, []string{"203.0.113.2:31820", "172.16.0.11:31820", "172.16.0.10:31820"}},
		{"node port of its own node only", local, []string{"podnet-gateway-0"}, []string{"203.0.113.2:31820", "172.16.0.11:31820"}},
		{"load balancer", balancer, []string{"podnet-gateway-0"}, []string{"203.0.113.9:51820", "203.0.113.2:31820", "172.16.0.11:31820", "172.16.0.10:31820"}},
		{"a Service in front of two gateways", udpService(corev1.ServiceTypeNodePort, 31820), []string{"podnet-gateway-0", "podnet-gateway-1"}, nil},
		{"another gateway's", udpService(corev1.ServiceTypeNodePort, 31820), []string{"podnet-gateway-1"}, nil},
		{"one without endpoints", udpService(corev1.ServiceTypeNodePort, 31820), nil, nil},
		{"a cluster IP", udpService(corev1.ServiceTypeClusterIP, 0), []string{"podnet-gateway-0"}, nil},
		{"a TCP port", tcp, []string{"podnet-gateway-0"}, nil},
	} {
		w := testWorld("192.0.2.7:4500")
		for _, n := range nodes {
			w.Set(n)
		}
		w.Set(c.service)
		w.Set(worldtest.Gateways(c.pods...))
		w.Publish()
		if want := append([]string{"192.0.2.7:4500"}, c.want...); !slices.Equal(w.endpoints, want) {
			t.Errorf("%s: %v, want %v", c.what, w.endpoints, want)
		}
		w.Remove(c.service)
		if told := w.Publish(); told != (c.want != nil) || len(w.endpoints) != 1 {
			t.Errorf("%s, deleted: %v, told %v", c.what, w.endpoints, told)
		}
	}
}
