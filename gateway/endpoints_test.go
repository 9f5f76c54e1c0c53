package gateway

import (
	"log/slog"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"podnet.dev/deploy"
	"podnet.dev/gateway/enrol"
)

func testWorld(advertise ...string) *world {
	return newWorld(Options{Namespace: "podnet-system", Pod: "podnet-gateway-0", Node: "node2", Advertise: advertise, Enrol: enrol.DefaultConfig(), Log: slog.New(slog.DiscardHandler)})
}

func testNode(name string, ready bool, internal, external string) *corev1.Node {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}},
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: internal}},
	}}
	if external != "" {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: external})
	}
	return n
}

func udpService(kind corev1.ServiceType, nodePort int32) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: deploy.UDPServiceName},
		Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolUDP, Port: 51820, TargetPort: intstr.FromString("wireguard"), NodePort: nodePort}}}}
}

func sliceOfPods(pods ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: deploy.UDPServiceName}}}
	for _, p := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: p}})
	}
	return s
}

func TestUDPEndpoints(t *testing.T) {
	nodes := []*corev1.Node{
		testNode("node1", true, "172.16.0.10", ""), testNode("node2", true, "172.16.0.11", "203.0.113.2"), testNode("node3", false, "172.16.0.12", "203.0.113.3"),
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
			w.event(w.setNode, n)
		}
		w.event(w.setService, c.service)
		w.event(w.setSlice, sliceOfPods(c.pods...))
		w.publish()
		if want := append([]string{"192.0.2.7:4500"}, c.want...); !slices.Equal(w.endpoints, want) {
			t.Errorf("%s: %v, want %v", c.what, w.endpoints, want)
		}
		w.event(w.removeService, c.service)
		if told := w.publish(); told != (c.want != nil) || len(w.endpoints) != 1 {
			t.Errorf("%s, deleted: %v, told %v", c.what, w.endpoints, told)
		}
	}
}
