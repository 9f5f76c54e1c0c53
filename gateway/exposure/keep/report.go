package keep

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	discoveryv1apply "k8s.io/client-go/applyconfigurations/discovery/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"

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

// host is the name by which pods reach an exposure.
func (x *Keeper) host(l exposure.Live) string {
	return l.Service + "." + x.o.Namespace + ".svc." + x.o.DNSDomain
}

// patch is the apply patch for an Exposure's status, or nil when nothing is worth a
// write. host is where it is reached, "" as long as it is not known there.
func patch(now time.Time, o *podnet.Exposure, v exposure.Verdict, host string, lease time.Duration) *unstructured.Unstructured {
	s := o.Status
	ready, same := status.Condition(s.Conditions, podnet.ConditionReady, v.Ready, v.Reason, v.Message, now)
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

// Report writes what became of the exposures, and keeps Services and slices. What all
// gateways share is the leader's to write.
func (x *Keeper) Report(ctx context.Context, now time.Time, leads bool, p Exposed, w world.Snapshot) {
	x.keepSlices(ctx, p, w)
	if !leads {
		return
	}
	live := make(map[types.UID]exposure.Live, len(p.Plan.Live))
	for _, l := range p.Plan.Live {
		live[types.UID(l.UID)] = l
		if _, whole := served(l); whole && !l.Settled {
			x.o.Write.Object(ctx, "service/"+l.Service, write.Shared, x.service(l))
		}
	}
	for i, e := range w.Exposures {
		host := ""
		if l, ok := live[e.Object.UID]; ok && l.Settled {
			host = x.host(l)
		}
		if told := patch(now, e.Object, p.Plan.Verdicts[i], host, p.leases[e.Exposure.Peer]); told != nil {
			x.o.Write.Status(ctx, "exposure/"+e.Exposure.UID, write.Patch{Manager: write.Shared, Object: told})
		}
	}
	for _, i := range p.Plan.Delete {
		x.o.Write.Remove(ctx, w.Exposures[i].Object)
	}
	for _, s := range w.ExposedBy.Services {
		if l, ok := live[uidOf(s)]; !ok || l.Service != s.Name {
			x.o.Write.Remove(ctx, s)
		}
	}
	for _, s := range w.ExposedBy.Slices {
		if _, ok := live[uidOf(s)]; !ok {
			x.o.Write.Remove(ctx, s)
		}
	}
}

// Retire takes this gateway off the ways to exposed ports.
func (x *Keeper) Retire(ctx context.Context, w world.Snapshot) { x.keepSlices(ctx, Exposed{}, w) }

// keepSlices keeps a slice for each exposure and family that leads to a laptop
// here, and no other.
func (x *Keeper) keepSlices(ctx context.Context, p Exposed, w world.Snapshot) {
	have := map[string]*discoveryv1.EndpointSlice{}
	for _, s := range w.ExposedBy.Slices {
		if x.wroteSlice(s) {
			have[s.Name] = s
		}
	}
	for _, l := range p.Plan.Live {
		if !p.Ready[l.UID] {
			continue
		}
		for family, addrs := range families(x.o.PodIPs) {
			want := x.slice(l, family, addrs)
			old := have[*want.Name]
			delete(have, *want.Name)
			if old == nil || !sameSlice(want, old) {
				x.o.Write.Object(ctx, "slice/"+*want.Name, x.o.Pod, want)
			}
		}
	}
	for _, s := range have {
		x.o.Write.Remove(ctx, s)
	}
}

// wroteSlice reports whether a slice is of this gateway, or of a former one of
// this name.
func (x *Keeper) wroteSlice(s *discoveryv1.EndpointSlice) bool {
	for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
		if strings.HasSuffix(s.Name, x.sliceSuffix(family)) {
			return true
		}
	}
	return false
}

func (x *Keeper) sliceSuffix(family discoveryv1.AddressType) string {
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

// managedBy is the managed-by label's value on what is kept here.
const managedBy = "podnet-gateway"

func labelsOf(l exposure.Live) map[string]string {
	return map[string]string{
		"app.kubernetes.io/managed-by": managedBy, "app.kubernetes.io/part-of": "podnet", podnet.LabelExposure: l.UID,
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
func (x *Keeper) service(l exposure.Live) *corev1apply.ServiceApplyConfiguration {
	spec := corev1apply.ServiceSpec().WithType(corev1.ServiceTypeClusterIP).WithIPFamilyPolicy(corev1.IPFamilyPolicyPreferDualStack)
	for _, p := range l.Ports {
		spec.WithPorts(corev1apply.ServicePort().WithName(portName(p)).WithProtocol(protocolOf(p)).
			WithPort(int32(p.Port)).WithTargetPort(intstr.FromInt32(int32(p.Pod))))
	}
	return corev1apply.Service(l.Service, x.o.Namespace).WithLabels(labelsOf(l)).WithSpec(spec)
}

// slice is this gateway's EndpointSlice of an exposure.
func (x *Keeper) slice(l exposure.Live, family discoveryv1.AddressType, addrs []string) *discoveryv1apply.EndpointSliceApplyConfiguration {
	labels := labelsOf(l)
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = l.Service, managedBy
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
