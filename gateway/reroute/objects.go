package reroute

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
)

// frontLabel is on slices that lead to a gateway. Its value is the gateways'
// namespace.
const frontLabel = podnet.LabelSteeredBy

// partOf is on all that podnet keeps, so that an uninstall finds it.
func partOf(labels map[string]string) map[string]string {
	labels["app.kubernetes.io/part-of"] = "podnet"
	return labels
}

// shadow is a Service's shadow.
func shadow(s *corev1.Service, selector map[string]string) *corev1.Service {
	o := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: ShadowName(s.Name), OwnerReferences: ownedBy(s),
			Labels: partOf(map[string]string{podnet.LabelShadow: s.Name}),
		},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone, Selector: selector,
			IPFamilies: s.Spec.IPFamilies, IPFamilyPolicy: s.Spec.IPFamilyPolicy, PublishNotReadyAddresses: s.Spec.PublishNotReadyAddresses,
		},
	}
	for _, p := range s.Spec.Ports {
		o.Spec.Ports = append(o.Spec.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, TargetPort: p.TargetPort})
	}
	return o
}

// sameShadow reports whether a shadow is as it should be.
func sameShadow(want, have *corev1.Service) bool {
	if have.DeletionTimestamp != nil || !includes(have.Labels, want.Labels) || !sameOwner(want, have) ||
		!maps.Equal(have.Spec.Selector, want.Spec.Selector) || !slices.Equal(have.Spec.IPFamilies, want.Spec.IPFamilies) ||
		have.Spec.PublishNotReadyAddresses != want.Spec.PublishNotReadyAddresses || len(have.Spec.Ports) != len(want.Spec.Ports) {
		return false
	}
	for i, p := range want.Spec.Ports {
		if h := have.Spec.Ports[i]; h.Name != p.Name || h.Protocol != p.Protocol || h.Port != p.Port || h.TargetPort != p.TargetPort {
			return false
		}
	}
	return true
}

func sameOwner(want, have metav1.Object) bool {
	owners := have.GetOwnerReferences()
	return len(owners) == 1 && owners[0].UID == want.GetOwnerReferences()[0].UID
}

func includes(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func newSlice(s *corev1.Service, name string, family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discoveryv1.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: name, OwnerReferences: ownedBy(s),
			Labels: partOf(map[string]string{discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: ManagedBy}),
		},
		AddressType: family,
	}
}

// fronts are the slices that lead to a front, one of each family.
func (c Config) fronts(s *corev1.Service, f Front, carried []uint16) (all []*discoveryv1.EndpointSlice) {
	for _, family := range s.Spec.IPFamilies {
		o := newSlice(s, ShadowName(s.Name)+"-front-"+strings.ToLower(string(family)), discoveryv1.AddressType(family))
		o.Labels[frontLabel] = c.Namespace
		for _, p := range s.Spec.Ports {
			if isTCP(p) && slices.Contains(carried, uint16(p.Port)) {
				protocol, to := corev1.ProtocolTCP, int32(f.Ports[uint16(p.Port)])
				o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &protocol, Port: &to})
			}
		}
		yes, no := true, false
		for _, a := range f.Addrs {
			if a.Is4() != (family == corev1.IPv4Protocol) {
				continue
			}
			e := discoveryv1.Endpoint{
				Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: f.Namespace, Name: f.Pod, UID: types.UID(f.PodUID)},
			}
			if f.Node != "" {
				e.NodeName = &f.Node
			}
			o.Endpoints = append(o.Endpoints, e)
		}
		all = append(all, o)
	}
	return all
}

// copies are the shadow's slices for the Service itself, but for some ports.
func copies(s *corev1.Service, behind []*discoveryv1.EndpointSlice, without []uint16) (all []*discoveryv1.EndpointSlice) {
	names := map[string]bool{}
	for _, p := range s.Spec.Ports {
		if !isTCP(p) || !slices.Contains(without, uint16(p.Port)) {
			names[p.Name] = true
		}
	}
	for _, b := range behind {
		o := newSlice(s, b.Name+"-copy", b.AddressType)
		for _, p := range b.Ports {
			if p.Name != nil && names[*p.Name] {
				o.Ports = append(o.Ports, p)
			}
		}
		if len(o.Ports) > 0 && len(b.Endpoints) > 0 {
			o.Endpoints = b.Endpoints
			all = append(all, o)
		}
	}
	return all
}

// seen reports whether all of these are there as they should be.
func seen(have, want []*discoveryv1.EndpointSlice) bool {
	return !slices.ContainsFunc(want, func(w *discoveryv1.EndpointSlice) bool {
		return !slices.ContainsFunc(have, func(h *discoveryv1.EndpointSlice) bool { return sameSlice(w, h) })
	})
}

// has reports whether some slice has a port of that name.
func has(all []*discoveryv1.EndpointSlice, port string) bool {
	return slices.ContainsFunc(all, func(o *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(o.Ports, func(p discoveryv1.EndpointPort) bool { return *p.Name == port })
	})
}

// write wishes for exactly these slices.
func (p *Plan) write(have, want []*discoveryv1.EndpointSlice) {
	for _, w := range want {
		if !seen(have, []*discoveryv1.EndpointSlice{w}) {
			p.Slices = append(p.Slices, w)
		}
	}
	p.Remove = append(p.Remove, except(have, want)...)
}

// still reports whether there is nothing to write to slices.
func (p *Plan) still() bool { return len(p.Slices) == 0 && len(p.Remove) == 0 }

// except are those that have none of these names.
func except(all, these []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	return slices.DeleteFunc(slices.Clone(all), func(o *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(these, func(t *discoveryv1.EndpointSlice) bool { return t.Name == o.Name })
	})
}

// unlike are those that are not as any of these should be.
func unlike(all, these []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	return slices.DeleteFunc(slices.Clone(all), func(o *discoveryv1.EndpointSlice) bool {
		return slices.ContainsFunc(these, func(t *discoveryv1.EndpointSlice) bool { return sameSlice(t, o) })
	})
}

// sameSlice reports whether a slice is as it should be.
func sameSlice(want, have *discoveryv1.EndpointSlice) bool {
	return have.Name == want.Name && includes(have.Labels, want.Labels) && sameOwner(want, have) && have.AddressType == want.AddressType &&
		reflect.DeepEqual(have.Endpoints, want.Endpoints) && reflect.DeepEqual(have.Ports, want.Ports)
}

// takePatch notes a Service's selector and replaces it.
func takePatch(s *corev1.Service, selector map[string]string, namespace string) []byte {
	noted, _ := json.Marshal(selector) // strings: it never fails
	return patch(s, string(noted), map[string]string{podnet.LabelSteeredBy: namespace})
}

// backPatch puts a Service's selector back.
func backPatch(s *corev1.Service, selector map[string]string) []byte { return patch(s, nil, selector) }

// patch is a merge patch of one very version of a Service.
func patch(s *corev1.Service, note any, selector map[string]string) []byte {
	change := map[string]any{}
	for k := range s.Spec.Selector {
		change[k] = nil
	}
	for k, v := range selector {
		change[k] = v
	}
	b, _ := json.Marshal(map[string]any{ // nor does this
		"metadata": map[string]any{"uid": s.UID, "resourceVersion": s.ResourceVersion, "annotations": map[string]any{podnet.AnnotationSelector: note}},
		"spec":     map[string]any{"selector": change},
	})
	return b
}

// Refuse says in a sentence why a port of a Service cannot be steered, or "". The
// addresses are the gateway's.
func (c Config) Refuse(s State, port uint16, addrs []netip.Addr) string {
	o := s.Service
	switch {
	case o == nil || o.DeletionTimestamp != nil:
		return "The Service is gone."
	case o.Namespace == c.Namespace || o.Labels[podnet.LabelShadow] != "":
		return "The Service is podnet's own."
	case o.Spec.Type == corev1.ServiceTypeExternalName:
		return "The Service is of type ExternalName: it is a name, and has no endpoints."
	case o.Spec.ClusterIP == corev1.ClusterIPNone || o.Spec.ClusterIP == "":
		return "The Service is headless: its clients call its pods themselves."
	case isTaken(o) && o.Spec.Selector[podnet.LabelSteeredBy] != c.Namespace:
		return "The Service is steered by the gateways in namespace " + o.Spec.Selector[podnet.LabelSteeredBy] + " already."
	case !Marked(o) && len(o.Spec.Selector) == 0:
		return "The Service has no selector: somebody keeps its endpoints by hand."
	case o.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		return "The Service has session affinity, which cannot be kept on the way through a gateway."
	case o.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
		o.Spec.InternalTrafficPolicy != nil && *o.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal:
		return "The Service leads to pods of the client's own node alone (its traffic policy is Local), and the gateway is on one node."
	case s.Shadow != nil && !isShadow(s.Shadow, o.Name):
		return "There is a Service " + s.Shadow.Name + " in the namespace, which is not podnet's: podnet needs that name."
	}
	for _, family := range o.Spec.IPFamilies {
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Is4() == (family == corev1.IPv4Protocol) }) {
			return "The gateway has no address for the Service's " + string(family) + " clients."
		}
	}
	refusal := "The Service has no such port."
	for _, p := range o.Spec.Ports {
		switch {
		case uint16(p.Port) != port:
		case isTCP(p):
			return ""
		default:
			refusal = "The Service's port speaks " + string(p.Protocol) + ": only TCP can be steered there."
		}
	}
	return refusal
}
