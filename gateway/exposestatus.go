package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	discoveryv1apply "k8s.io/client-go/applyconfigurations/discovery/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/exposure"
	"podnet.dev/gateway/status"
	"podnet.dev/gateway/world"
	"podnet.dev/gateway/write"
	"podnet.dev/internal/steer"
)

// This file decides what to write about exposures: their status, and for each
// that lives a Service without a selector, which the leading gateway keeps, and
// an EndpointSlice of each gateway that leads to the laptop. A slice goes with
// its gateway's Pod, which owns it.

// exposureHost is the name by which pods reach an exposure.
func (x *exposer) exposureHost(l exposure.Live) string {
	return l.Service + "." + x.o.Namespace + ".svc." + x.o.DNSDomain
}

// exposurePatch is the apply patch for an Exposure's status, or nil when nothing
// is worth a write or another gateway leads. host is where it is reached, "" as
// long as it is not known there.
func (a author) exposurePatch(o *podnet.Exposure, v exposure.Verdict, host string, lease time.Duration) *unstructured.Unstructured {
	if !a.leads {
		return nil
	}
	s := o.Status
	ready, same := status.Condition(s.Conditions, podnet.ConditionReady, v.Ready, v.Reason, v.Message, a.now)
	switch {
	case v.Ready && host == "" && !meta.IsStatusConditionTrue(s.Conditions, podnet.ConditionReady):
		return nil // nobody is sent to a name that is not there yet
	case !same,
		v.Ready && (host != "" && s.Host != host || status.Stale(s.ExpiresAt, v.Expires, lease)),
		v.Reason == podnet.ReasonExpired && s.ObservedRenew != v.Renew:
	default:
		return nil
	}
	fields := map[string]any{"observedRenew": v.Renew, "conditions": []any{status.Plain(ready)}}
	if v.Ready {
		fields["expiresAt"] = v.Expires.UTC().Format(time.RFC3339)
	} else if s.ExpiresAt != nil {
		fields["expiresAt"] = s.ExpiresAt.UTC().Format(time.RFC3339)
	}
	if host == "" {
		host = s.Host
	}
	if host != "" {
		fields["host"] = host
	}
	return status.Patch("Exposure", o, fields)
}

// exposureWrites is where the exposer's wishes go.
type exposureWrites struct {
	status func(uid string, patch *unstructured.Unstructured)
	apply  func(key, manager string, o runtime.ApplyConfiguration)
	remove func(client.Object)
}

// report writes what became of the exposures, and keeps Services and slices.
func (x *exposer) report(a author, p exposed, w world.Snapshot, do exposureWrites) {
	x.keepSlices(p, w, do)
	if !a.leads {
		return
	}
	live := make(map[types.UID]exposure.Live, len(p.plan.Live))
	for _, l := range p.plan.Live {
		live[types.UID(l.UID)] = l
		if _, whole := served(l); whole && !l.Settled {
			do.apply("service/"+l.Service, write.Shared, x.service(l))
		}
	}
	for i, e := range w.Exposures {
		host := ""
		if l, ok := live[e.Object.UID]; ok && l.Settled {
			host = x.exposureHost(l)
		}
		if patch := a.exposurePatch(e.Object, p.plan.Verdicts[i], host, p.leases[e.Exposure.Peer]); patch != nil {
			do.status(e.Exposure.UID, patch)
		}
	}
	for _, i := range p.plan.Delete {
		do.remove(w.Exposures[i].Object)
	}
	for _, s := range w.ExposedBy.Services {
		if l, ok := live[uidOf(s)]; !ok || l.Service != s.Name {
			do.remove(s)
		}
	}
	for _, s := range w.ExposedBy.Slices {
		if _, ok := live[uidOf(s)]; !ok {
			do.remove(s)
		}
	}
}

// keepSlices keeps a slice for each exposure and family that leads to a laptop
// here, and no other.
func (x *exposer) keepSlices(p exposed, w world.Snapshot, do exposureWrites) {
	have := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range w.ExposedBy.Slices {
		if x.wroteSlice(s) {
			have[s.Name] = s
		}
	}
	for _, l := range p.plan.Live {
		if !p.ready[l.UID] {
			continue
		}
		for family, addrs := range families(x.o.PodIPs) {
			want := x.slice(l, family, addrs)
			old := have[*want.Name]
			delete(have, *want.Name)
			if old == nil || !sameSlice(want, old) {
				do.apply("slice/"+*want.Name, x.o.Pod, want)
			}
		}
	}
	for _, s := range have {
		do.remove(s)
	}
}

// wroteSlice reports whether a slice is of this gateway, or of a former one of
// this name.
func (x *exposer) wroteSlice(s *discoveryv1.EndpointSlice) bool {
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		if strings.HasSuffix(s.Name, x.sliceSuffix(family)) {
			return true
		}
	}
	return false
}

func (x *exposer) sliceSuffix(family discoveryv1.AddressType) string {
	return "-" + x.o.Pod + "-" + strings.ToLower(string(family))
}

// families sorts addresses into the slices that they may be in.
func families(addrs []netip.Addr) map[discoveryv1.AddressType][]string {
	all := map[discoveryv1.AddressType][]string{}
	for _, a := range addrs {
		family := discoveryv1.AddressTypeIPv6
		if a.Is4() {
			family = discoveryv1.AddressTypeIPv4
		}
		all[family] = append(all[family], a.String())
	}
	return all
}

// exposureManagedBy is the managed-by label's value on what is kept here.
const exposureManagedBy = "podnet-gateway"

func exposureLabels(l exposure.Live) map[string]string {
	return map[string]string{
		"app.kubernetes.io/managed-by": exposureManagedBy, "app.kubernetes.io/part-of": "podnet", podnet.LabelExposure: l.UID,
	}
}

// portName is a Service port's, by which a slice's port finds it.
func portName(p exposure.Port) string { return fmt.Sprintf("%s-%d", p.Protocol, p.Port) }

func protocolOf(p exposure.Port) corev1.Protocol {
	if p.Protocol == steer.UDP {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// service is the Service of an exposure.
func (x *exposer) service(l exposure.Live) *corev1apply.ServiceApplyConfiguration {
	spec := corev1apply.ServiceSpec().WithType(corev1.ServiceTypeClusterIP).WithIPFamilyPolicy(corev1.IPFamilyPolicyPreferDualStack)
	for _, p := range l.Ports {
		spec.WithPorts(corev1apply.ServicePort().WithName(portName(p)).WithProtocol(protocolOf(p)).
			WithPort(int32(p.Port)).WithTargetPort(intstr.FromInt32(int32(p.Pod))))
	}
	return corev1apply.Service(l.Service, x.o.Namespace).WithLabels(exposureLabels(l)).WithSpec(spec)
}

// slice is this gateway's EndpointSlice of an exposure.
func (x *exposer) slice(l exposure.Live, family discoveryv1.AddressType, addrs []string) *discoveryv1apply.EndpointSliceApplyConfiguration {
	labels := exposureLabels(l)
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = l.Service, exposureManagedBy
	s := discoveryv1apply.EndpointSlice(l.Service+x.sliceSuffix(family), x.o.Namespace).WithLabels(labels).WithAddressType(family).
		WithOwnerReferences(metav1apply.OwnerReference().WithAPIVersion("v1").WithKind("Pod").WithName(x.o.Pod).WithUID(types.UID(x.o.PodUID)))
	for _, p := range l.Ports {
		s.WithPorts(discoveryv1apply.EndpointPort().WithName(portName(p)).WithProtocol(protocolOf(p)).WithPort(int32(p.Pod)))
	}
	for _, a := range addrs {
		e := discoveryv1apply.Endpoint().WithAddresses(a).
			WithConditions(discoveryv1apply.EndpointConditions().WithReady(true).WithServing(true).WithTerminating(false)).
			WithTargetRef(corev1apply.ObjectReference().WithKind("Pod").WithNamespace(x.o.Namespace).WithName(x.o.Pod).WithUID(types.UID(x.o.PodUID)))
		if x.o.Node != "" {
			e.WithNodeName(x.o.Node)
		}
		s.WithEndpoints(e)
	}
	return s
}

// sameSlice reports whether a slice says what it should.
func sameSlice(want *discoveryv1apply.EndpointSliceApplyConfiguration, have *discoveryv1.EndpointSlice) bool {
	if have.DeletionTimestamp != nil || len(have.OwnerReferences) != 1 || have.OwnerReferences[0].UID != *want.OwnerReferences[0].UID ||
		len(have.Endpoints) != len(want.Endpoints) || len(have.Ports) != len(want.Ports) {
		return false
	}
	for name, value := range want.Labels {
		if have.Labels[name] != value {
			return false
		}
	}
	for i, e := range want.Endpoints {
		h := have.Endpoints[i]
		if !slices.Equal(h.Addresses, e.Addresses) || h.Conditions.Ready == nil || !*h.Conditions.Ready || h.TargetRef == nil || h.TargetRef.UID != *e.TargetRef.UID {
			return false
		}
	}
	for i, p := range want.Ports {
		h := have.Ports[i]
		if h.Name == nil || h.Port == nil || h.Protocol == nil || *h.Name != *p.Name || *h.Port != *p.Port || *h.Protocol != *p.Protocol {
			return false
		}
	}
	return true
}

// exposedService is a Service of ours as package exposure sees it.
func exposedService(o *corev1.Service) exposure.Service {
	s := exposure.Service{Name: o.Name, Exposure: string(uidOf(o)), Created: o.CreationTimestamp.Time}
	for _, p := range o.Spec.Ports {
		port := exposure.Port{Protocol: steer.TCP, Port: uint16(p.Port)}
		if p.Protocol == corev1.ProtocolUDP {
			port.Protocol = steer.UDP
		}
		if p.Name == portName(port) { // else it leads nowhere
			port.Pod = uint16(p.TargetPort.IntValue())
		}
		s.Ports = append(s.Ports, port)
	}
	return s
}
