// Package reroute decides what to write to Kubernetes so that what is sent to a
// Service comes to a gateway, and so that it goes to the Service's pods again. It
// is pure: it is told what there is and answers what to write next, and is asked
// again when that has changed.
//
// A Service that is steered selects nothing. An EndpointSlice of podnet's leads its
// steered ports to the gateway. A headless Service, the shadow, selects the pods
// meanwhile, so that Kubernetes goes on to say which of them are ready: that is
// where the gateway passes on what it does not steer, and where the other ports
// lead. At each step, there and back, the Service has endpoints.
//
//	          shadow written,       slices written,       selector
//	          its pods known        and seen              replaced
//	(pods) ──────────────▶ (pods) ──────────────▶ (both) ──────────▶ (gateway)
//	   ▲                                             ▲                   │
//	   └──── shadow deleted ◀── slices deleted ◀─────┴──── selector put back
//	                            once the Service's pods are ready as it says
package reroute

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
)

// ManagedBy is the managed-by label's value of podnet's EndpointSlices.
const ManagedBy = "podnet.dev"

// byController is that of the slices which Kubernetes keeps for a selector.
const byController = "endpointslice-controller.k8s.io"

// State is what there is of a Service. Its objects are not to be changed.
type State struct {
	Service *corev1.Service // nil: it is gone
	Shadow  *corev1.Service // whatever has that name
	// Slices are those of the Service and of its shadow.
	Slices []*discoveryv1.EndpointSlice
}

// Front is the gateway to which clients are sent.
type Front struct {
	Namespace, Pod, PodUID, Node string
	Addrs                        []netip.Addr
	// Ports are where it listens, by the Service's ports.
	Ports map[uint16]uint16
}

// Wish is what is wanted of a Service.
type Wish struct {
	// Steer says that there are rules, Ports for which of its TCP ports.
	Steer bool
	Ports []uint16
	Front Front
	// Begin lets a Service that leads to its pods lead to the gateway, Switch one
	// that leads to another gateway.
	Begin, Switch bool
}

// Plan is what to write now, in this order. It must follow from what there is at
// that moment, not from what a watch has told a moment before: the Service could be
// without endpoints for as long.
type Plan struct {
	Shadow *corev1.Service              // to be applied
	Slices []*discoveryv1.EndpointSlice // to be applied
	Remove []*discoveryv1.EndpointSlice // to be deleted
	Patch  []byte                       // a merge patch for Of
	Of     *corev1.Service              // the Service itself
	Forget *corev1.Service              // the shadow, to be deleted

	// Settled says that the Service leads to the gateway and nowhere else.
	Settled bool
	// Trouble says what nobody but a person can put right; "" for nothing.
	Trouble string
}

// Empty reports whether there is nothing to write.
func (p *Plan) Empty() bool {
	return p.Shadow == nil && p.still() && p.Patch == nil && p.Forget == nil
}

// ShadowName is the name of a Service's shadow, at most 63 bytes long.
func ShadowName(service string) string {
	const prefix, most = "podnet-", 63
	if len(prefix)+len(service) <= most {
		return prefix + service
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(service))
	hash := fmt.Sprintf("-%08x", h.Sum32())
	return prefix + service[:most-len(prefix)-len(hash)] + hash
}

// Marked reports whether a Service is steered, or was and has yet to be put right.
func Marked(s *corev1.Service) bool { return note(s) != "" || isTaken(s) }

// Overruled reports whether somebody has given a steered Service another selector.
func Overruled(s *corev1.Service) bool { return note(s) != "" && !isTaken(s) }

func note(s *corev1.Service) string { return s.Annotations[podnet.AnnotationSelector] }

func isTaken(s *corev1.Service) bool {
	_, taken := s.Spec.Selector[podnet.LabelSteeredBy]
	return taken
}

// Selector is what a Service selects when nobody steers it; nil: nothing, or it
// cannot be known any more. What somebody has added to the selector meanwhile is
// what they want.
func (s State) Selector() map[string]string {
	own := maps.Clone(s.Service.Spec.Selector)
	delete(own, podnet.LabelSteeredBy)
	if len(own) > 0 {
		return own
	}
	var noted map[string]string
	if json.Unmarshal([]byte(note(s.Service)), &noted) == nil && len(noted) > 0 {
		return noted
	}
	if s.Shadow != nil && isShadow(s.Shadow, s.Service.Name) && isTaken(s.Service) {
		return s.Shadow.Spec.Selector
	}
	return nil
}

func isShadow(o *corev1.Service, of string) bool { return o.Labels[podnet.LabelShadow] == of }

// Config is what never changes.
type Config struct {
	// Namespace is the gateways'. It marks what is theirs.
	Namespace string
}

// Plan says what to write next.
func (c Config) Plan(s State, w Wish) Plan {
	if s.Service == nil || s.Service.DeletionTimestamp != nil {
		return Plan{} // Kubernetes deletes what it owned
	}
	if w.Steer {
		return c.take(s, w)
	}
	return c.giveBack(s)
}

// take leads the Service to the front.
func (c Config) take(s State, w Wish) (p Plan) {
	selector := s.Selector()
	if len(selector) == 0 {
		p.Trouble = "What the Service selected is lost: give it its selector again."
		return p
	}
	want := shadow(s.Service, selector)
	if s.Shadow == nil || !sameShadow(want, s.Shadow) {
		p.Shadow = want
	}
	carried := s.Carried(w.Ports)
	for _, port := range carried {
		if w.Front.Ports[port] == 0 {
			return p // the front does not listen yet
		}
	}
	own, theirs := s.slices(s.Service.Name, ManagedBy), s.slices(s.Service.Name, byController)
	behind := s.slices(ShadowName(s.Service.Name), byController)
	fronts := c.fronts(s.Service, w.Front, carried)
	if !isTaken(s.Service) {
		all := append(fronts, copies(s.Service, behind, carried)...)
		if p.Shadow != nil || !w.Begin || !covers(behind, theirs) {
			if covers(theirs, behind) {
				p.Remove = unlike(own, all) // of a gateway that began this and came no further
			}
			return p
		}
		if p.write(own, all); p.still() {
			p.Of, p.Patch = s.Service, takePatch(s.Service, selector, c.Namespace)
		}
		return p
	}
	if len(s.frontSlices()) > 0 && !w.Switch {
		return p
	}
	led := carried
	if !seen(own, fronts) {
		led = nil // the pods have these ports as well until the front is seen to
	}
	p.write(own, append(fronts, copies(s.Service, behind, led)...))
	p.Settled = led != nil && len(ready(theirs)) == 0 && !slices.ContainsFunc(own, func(o *discoveryv1.EndpointSlice) bool {
		return o.Labels[frontLabel] == "" && slices.ContainsFunc(o.Ports, func(q discoveryv1.EndpointPort) bool { return has(fronts, *q.Name) })
	})
	return p
}

// giveBack leads the Service to its pods.
func (c Config) giveBack(s State) (p Plan) {
	own := s.slices(s.Service.Name, ManagedBy)
	switch {
	case isTaken(s.Service) && s.Service.Spec.Selector[podnet.LabelSteeredBy] != c.Namespace:
		return p // other gateways'
	case Marked(s.Service):
		selector := s.Selector()
		if len(selector) == 0 {
			p.Trouble = "What the Service selected is lost: give it its selector again."
			return p
		}
		p.Of, p.Patch = s.Service, backPatch(s.Service, selector)
	case len(own) > 0:
		if covers(s.slices(s.Service.Name, byController), s.slices(ShadowName(s.Service.Name), byController)) {
			p.Remove = own
		}
	case s.Shadow != nil && isShadow(s.Shadow, s.Service.Name) && s.Shadow.DeletionTimestamp == nil:
		p.Forget = s.Shadow
	}
	return p
}

// Idle reports whether nothing of podnet's is left of a Service.
func (s State) Idle() bool {
	return s.Service == nil || !Marked(s.Service) && len(s.slices(s.Service.Name, ManagedBy)) == 0 &&
		(s.Shadow == nil || !isShadow(s.Shadow, s.Service.Name))
}

// Carried are the ports of the Service that are to lead to the front: those that
// have rules, and those that lead to one already. Sorted.
func (s State) Carried(ports []uint16) []uint16 {
	names := map[string]bool{}
	for _, f := range s.frontSlices() {
		for _, p := range f.Ports {
			names[*p.Name] = true
		}
	}
	var all []uint16
	for _, p := range s.Service.Spec.Ports {
		if n := uint16(p.Port); isTCP(p) && (names[p.Name] || slices.Contains(ports, n)) {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// Leads are the addresses of gateways to which the Service leads.
func (s State) Leads() (all []netip.Addr) {
	for _, f := range s.frontSlices() {
		for _, e := range f.Endpoints {
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					all = append(all, a)
				}
			}
		}
	}
	return all
}

// Pods are where the pods that are ready take what comes for each TCP port of the
// Service, by the word of Kubernetes. Sorted.
func (s State) Pods() map[uint16][]netip.AddrPort {
	ports := map[string]uint16{}
	for _, p := range s.Service.Spec.Ports {
		if isTCP(p) {
			ports[p.Name] = uint16(p.Port)
		}
	}
	all := map[uint16][]netip.AddrPort{}
	for _, slice := range append(s.slices(s.Service.Name, byController), s.slices(ShadowName(s.Service.Name), byController)...) {
		for _, p := range slice.Ports {
			if p.Name == nil || p.Port == nil || ports[*p.Name] == 0 {
				continue
			}
			for a := range ready([]*discoveryv1.EndpointSlice{slice}) {
				at := netip.AddrPortFrom(a, uint16(*p.Port))
				if n := ports[*p.Name]; !slices.Contains(all[n], at) {
					all[n] = append(all[n], at)
				}
			}
		}
	}
	for _, at := range all {
		slices.SortFunc(at, netip.AddrPort.Compare)
	}
	return all
}

// slices are the slices of a Service that somebody keeps.
func (s State) slices(service, managedBy string) (all []*discoveryv1.EndpointSlice) {
	for _, o := range s.Slices {
		if o.DeletionTimestamp == nil && o.Labels[discoveryv1.LabelServiceName] == service && o.Labels[discoveryv1.LabelManagedBy] == managedBy {
			all = append(all, o)
		}
	}
	return all
}

// frontSlices are those that lead to a gateway.
func (s State) frontSlices() []*discoveryv1.EndpointSlice {
	return slices.DeleteFunc(s.slices(s.Service.Name, ManagedBy), func(o *discoveryv1.EndpointSlice) bool { return o.Labels[frontLabel] == "" })
}

// ready are the addresses of the pods in slices that are ready.
func ready(all []*discoveryv1.EndpointSlice) map[netip.Addr]bool {
	found := map[netip.Addr]bool{}
	for _, s := range all {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready || e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
				continue
			}
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					found[a.Unmap()] = true
				}
			}
		}
	}
	return found
}

// covers reports whether each pod that is ready in these is so in those.
func covers(those, these []*discoveryv1.EndpointSlice) bool {
	have := ready(those)
	for a := range ready(these) {
		if !have[a] {
			return false
		}
	}
	return true
}

func isTCP(p corev1.ServicePort) bool { return p.Protocol == corev1.ProtocolTCP || p.Protocol == "" }

func ownedBy(s *corev1.Service) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: s.Name, UID: types.UID(s.UID)}}
}
