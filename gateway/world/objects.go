package world

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/exposure"
	"podnet.dev/gateway/front"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/steering"
	"podnet.dev/internal/key"
	"podnet.dev/internal/steer"
	"podnet.dev/internal/steer/object"
)

// This file turns API objects into what the pure packages speak of.

// PeerOf is a Peer as package enrol sees it.
func PeerOf(o *podnet.Peer) enrol.Peer {
	p := enrol.Peer{
		UID: string(o.UID), Name: o.Name, Created: o.CreationTimestamp.Time, User: o.Spec.User, Device: o.Spec.Device,
		Lease: time.Duration(o.Spec.LeaseSeconds) * time.Second, Renew: o.Spec.Renew, Beyond: beyondOf(o.Spec),
	}
	if k, err := key.ParsePublic(o.Spec.PublicKey); err == nil {
		p.Key = k
	}
	if a, err := netip.ParseAddr(o.Status.Address4); err == nil {
		p.Address4 = a
	}
	p.Ready = meta.IsStatusConditionTrue(o.Status.Conditions, podnet.ConditionReady)
	p.Ended = ended(podnet.ConditionReady, o.Status.Conditions, o.Status.ObservedRenew, o.Spec.Renew)
	return p
}

// beyondOf reads what a Peer asks for beside the cluster. Admission has asked for
// each as it is spelt; what is not spelt as podnet does is nothing here: a prefix
// with bits behind its length, or too wide to be meant, a domain of one label.
func beyondOf(s podnet.PeerSpec) (b enrol.Beyond) {
	for _, text := range s.AlsoRoutes {
		if p, err := deploy.ParseRange(text); err == nil && p.String() == text {
			b.Routes = append(b.Routes, p)
		}
	}
	for _, d := range s.AlsoDomains {
		if d == strings.ToLower(d) && strings.Contains(strings.Trim(d, "."), ".") && d == strings.Trim(d, ".") {
			b.Domains = append(b.Domains, d+".")
		}
	}
	return b
}

func accessOf(o *podnet.Access, gatewayNamespace string) enrol.Access {
	return enrol.Access{
		UID: string(o.UID), Namespace: o.Namespace, Name: o.Name, User: o.Spec.User, Peer: o.Spec.Peer, Renew: o.Spec.Renew,
		// Admission refuses the scope elsewhere; here it would be the namespace's.
		Cluster: o.Spec.Scope == podnet.ScopeCluster && o.Namespace == gatewayNamespace,
		Ended:   ended(podnet.ConditionReady, o.Status.Conditions, o.Status.ObservedRenew, o.Spec.Renew),
	}
}

// RuleOf is a SteeringRule as package steering sees it.
func RuleOf(o *podnet.SteeringRule) steering.Object {
	s := steering.Object{
		UID: string(o.UID), Namespace: o.Namespace, Name: o.Name, Created: o.CreationTimestamp.Time,
		User: o.Spec.User, Peer: o.Spec.Peer, Rule: o.Spec.Rule, Pod: o.Spec.Pod, PodUID: o.Spec.PodUID,
		Renew: o.Spec.Renew, RelayPort: uint16(o.Spec.RelayPort),
		Ended: ended(podnet.ConditionAccepted, o.Status.Conditions, o.Status.ObservedRenew, o.Spec.Renew),
	}
	agent := o.Spec.AgentKey
	if o.Spec.Via != "" { // its agent is a gateway's front, whose key only gateways write
		s.Pod, s.PodUID = "service/"+o.Spec.Service, o.Spec.ServiceUID
		if o.Status.Agent != nil {
			agent = o.Status.Agent.PublicKey
		}
	}
	if k, err := key.ParsePublic(agent); err == nil {
		s.Agent = k
	}
	if s.Egress = o.Spec.Mode == podnet.SteeringEgress; s.Egress {
		s.Steer = steer.Rule{Name: o.Name, Owner: s.User, Since: s.Created}
		return s
	}
	s.Steer, s.Invalid = object.Rule(o)
	return s
}

// ExposureOf is an Exposure as package exposure sees it.
func ExposureOf(o *podnet.Exposure) exposure.Object {
	e := exposure.Object{
		UID: string(o.UID), Namespace: o.Namespace, Name: o.Name, Created: o.CreationTimestamp.Time,
		User: o.Spec.User, Peer: o.Spec.Peer, Renew: o.Spec.Renew,
		Ended: ended(podnet.ConditionReady, o.Status.Conditions, o.Status.ObservedRenew, o.Spec.Renew),
	}
	for _, p := range o.Spec.Ports {
		e.Ports = append(e.Ports, exposure.Port{Protocol: steer.Protocol(p.Protocol), Port: uint16(p.Port), Relay: uint16(p.RelayPort)})
	}
	return e
}

// ended reports whether a gateway has written, into a condition of that type,
// that the lease with this renew ran out.
func ended(condition string, conditions []metav1.Condition, observed, renew int64) bool {
	c := meta.FindStatusCondition(conditions, condition)
	return c != nil && c.Status == metav1.ConditionFalse && c.Reason == podnet.ReasonExpired && observed >= renew
}

func serviceOf(o *corev1.Service) policy.Service {
	s := policy.Service{Namespace: o.Namespace, Name: o.Name}
	// An ExternalName's slices the endpointslice controller leaves alone.
	if o.Spec.Type == corev1.ServiceTypeExternalName {
		return s
	}
	s.Selector = len(o.Spec.Selector) > 0
	for _, c := range o.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(c); err == nil { // "None" is no address
			s.ClusterIPs = append(s.ClusterIPs, a)
		}
	}
	external := slices.Clone(o.Spec.ExternalIPs)
	for _, in := range o.Status.LoadBalancer.Ingress {
		if in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP { // else it comes through the balancer
			external = append(external, in.IP)
		}
	}
	for _, text := range external {
		if a, err := netip.ParseAddr(text); err == nil {
			s.External = append(s.External, a)
		}
	}
	for _, p := range o.Spec.Ports {
		if proto, ok := protoOf(p.Protocol); ok {
			s.Ports = append(s.Ports, policy.Port{Proto: proto, Port: uint16(p.Port)})
		}
	}
	return s
}

// endpointsByController is the managed-by label's value on slices whose
// endpoints a Service's selector chose.
const endpointsByController = "endpointslice-controller.k8s.io"

func sliceOf(o *discoveryv1.EndpointSlice) policy.Slice {
	s := policy.Slice{
		Namespace: o.Namespace, Name: o.Name, Service: o.Labels[discoveryv1.LabelServiceName],
		// A slice whose deletion a finalizer holds up the controller leaves alone,
		// while kube-proxy may still follow it.
		Managed: o.Labels[discoveryv1.LabelManagedBy] == endpointsByController && o.DeletionTimestamp == nil,
		Front:   isFront(o),
	}
	for _, p := range o.Ports {
		if p.Port == nil {
			continue
		}
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if proto, ok := protoOf(protocol); ok {
			s.Ports = append(s.Ports, policy.Port{Proto: proto, Port: uint16(*p.Port)})
		}
	}
	for _, e := range o.Endpoints {
		isPod := e.TargetRef != nil && e.TargetRef.Kind == "Pod" && (e.TargetRef.Namespace == "" || e.TargetRef.Namespace == o.Namespace)
		for _, text := range e.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				s.Opaque = true
				continue
			}
			s.Endpoints = append(s.Endpoints, policy.Endpoint{Addr: a.Unmap(), Pod: isPod})
		}
	}
	return s
}

// isFront reports whether a slice leads to gateways at ports where Services are
// steered. Whoever may write slices can say so, and gets no further than there.
func isFront(o *discoveryv1.EndpointSlice) bool {
	return o.Labels[discoveryv1.LabelManagedBy] == reroute.ManagedBy && !slices.ContainsFunc(o.Ports, func(p discoveryv1.EndpointPort) bool {
		return p.Port == nil || *p.Port < front.FirstPort || *p.Port > front.LastPort || p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP
	})
}

func protoOf(p corev1.Protocol) (policy.Proto, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return policy.TCP, true
	case corev1.ProtocolUDP:
		return policy.UDP, true
	}
	return 0, false // SCTP: podnet does not carry it
}

func nodeOf(o *corev1.Node) policy.Node {
	n := policy.Node{Name: o.Name}
	for _, a := range o.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil { // names are no addresses
			n.Addrs = append(n.Addrs, ip.Unmap())
		}
	}
	cidrs := o.Spec.PodCIDRs
	if len(cidrs) == 0 && o.Spec.PodCIDR != "" {
		cidrs = []string{o.Spec.PodCIDR}
	}
	n.PodCIDRs = ranges.Parse(cidrs)
	return n
}

// AddrPorts reads those that are addresses with ports.
func AddrPorts(texts []string) []netip.AddrPort {
	var all []netip.AddrPort
	for _, t := range texts {
		if a, err := netip.ParseAddrPort(t); err == nil {
			all = append(all, a)
		}
	}
	return all
}
