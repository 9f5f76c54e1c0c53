package world

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maxEndpoints bounds the UDP endpoints a Peer is told of, and thereby what a
// laptop tries.
const maxEndpoints = 8

// node is what a Node means to UDP endpoints and ranges.
type node struct {
	ready    bool
	external []netip.Addr
	internal []netip.Addr
	podCIDRs []netip.Prefix
}

func (n node) equal(o node) bool {
	return n.ready == o.ready && slices.Equal(n.external, o.external) && slices.Equal(n.internal, o.internal) && slices.Equal(n.podCIDRs, o.podCIDRs)
}

func reachable(o *corev1.Node) node {
	n := node{podCIDRs: nodeOf(o).PodCIDRs}
	for _, c := range o.Status.Conditions {
		if c.Type == corev1.NodeReady {
			n.ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, a := range o.Status.Addresses {
		ip, err := netip.ParseAddr(a.Address)
		switch {
		case err != nil:
		case a.Type == corev1.NodeExternalIP:
			n.external = append(n.external, ip)
		case a.Type == corev1.NodeInternalIP:
			n.internal = append(n.internal, ip)
		}
	}
	return n
}

// udpEndpoints lists where this gateway's WireGuard port may be reached from
// outside: what the flag says, then load balancers, then node ports, this
// gateway's own node first. It runs with mu held.
func (w *World) udpEndpoints() []string {
	all := slices.Clone(w.o.Advertise)
	var balanced, onNodes []string
	for _, name := range slices.Sorted(maps.Keys(w.ownServices)) {
		s := w.ownServices[name]
		port := w.wireGuardPort(s)
		if port == nil || !w.leadsOnlyHere(name) {
			continue
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			// A balancer known by name alone is left out: an endpoint is an address.
			if a, err := netip.ParseAddr(in.IP); err == nil {
				balanced = append(balanced, endpoint(a, port.Port))
			}
		}
		if port.NodePort != 0 {
			local := s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
			for _, a := range w.nodeAddresses(local) {
				onNodes = append(onNodes, endpoint(a, port.NodePort))
			}
		}
	}
	for _, e := range append(balanced, onNodes...) {
		if len(all) < maxEndpoints && !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}

func endpoint(a netip.Addr, port int32) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

// wireGuardPort finds the port of a published Service that leads to WireGuard.
func (w *World) wireGuardPort(s *corev1.Service) *corev1.ServicePort {
	if s.Spec.Type != corev1.ServiceTypeNodePort && s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return nil
	}
	for i, p := range s.Spec.Ports {
		target := p.TargetPort == intstr.FromString("wireguard") || p.TargetPort == intstr.FromInt32(int32(w.o.WireGuardPort)) ||
			p.TargetPort == intstr.IntOrString{} && p.Port == int32(w.o.WireGuardPort)
		if p.Protocol == corev1.ProtocolUDP && target {
			return &s.Spec.Ports[i]
		}
	}
	return nil
}

// leadsOnlyHere reports whether every endpoint of a Service is this pod. Each
// gateway has a key of its own, so a Service in front of several is of no use.
func (w *World) leadsOnlyHere(service string) bool {
	here := false
	for _, s := range w.slices[w.o.Namespace] {
		if s.Labels[discoveryv1.LabelServiceName] != service {
			continue
		}
		for _, e := range s.Endpoints {
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.TargetRef.Name != w.o.Pod {
				return false
			}
			here = true
		}
	}
	return here
}

// nodeAddresses lists addresses of ready nodes, this gateway's own node first,
// external ones before internal ones.
func (w *World) nodeAddresses(ownOnly bool) []netip.Addr {
	names := slices.SortedFunc(maps.Keys(w.nodes), func(a, b string) int {
		return cmp.Or(-compareBool(a == w.o.Node, b == w.o.Node), cmp.Compare(a, b))
	})
	var external, internal []netip.Addr
	for _, name := range names {
		n := w.nodes[name]
		if name != w.o.Node && (ownOnly || !n.ready) {
			continue
		}
		external, internal = append(external, n.external...), append(internal, n.internal...)
	}
	return append(external, internal...)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
