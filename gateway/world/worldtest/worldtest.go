// Package worldtest makes objects of a cluster, for tests of what knows it.
package worldtest

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"podnet.dev/deploy"
)

// EndpointsByController is the managed-by label's value on slices whose endpoints a
// Service's selector chose.
const EndpointsByController = "endpointslice-controller.k8s.io"

// Slice is what the endpointslice controller writes of a Service and the pods at these
// addresses.
func Slice(namespace, name string, pods ...string) *discoveryv1.EndpointSlice {
	port, tcp := int32(8080), corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: EndpointsByController}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port, Protocol: &tcp}},
	}
	for _, p := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{p}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "p"}})
	}
	return s
}

// Service is one with a selector and the port 80.
func Service(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
}

// Node is one with these addresses; external may be "".
func Node(name string, ready bool, internal, external string) *corev1.Node {
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

// Gateways is a slice of the Service for UDP, with these pods.
func Gateways(pods ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "podnet-system", Name: "s", Labels: map[string]string{discoveryv1.LabelServiceName: deploy.UDPServiceName}}}
	for _, p := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.244.0.9"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: p}})
	}
	return s
}
