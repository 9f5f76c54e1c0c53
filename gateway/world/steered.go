package world

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/reroute"
)

// This file is what the world knows of pods and Services that are steered, or were.
// All of it runs with mu held.

// keptAnnotations keeps only the annotation that stands on steered Services.
func keptAnnotations(o client.Object) map[string]string {
	if _, service := o.(*corev1.Service); !service {
		return nil
	}
	note, ok := o.GetAnnotations()[podnet.AnnotationSelector]
	if !ok {
		return nil
	}
	return map[string]string{podnet.AnnotationSelector: note}
}

// concern notes which steered Service an object is about, if any, and has the
// admitter look.
func (w *World) concern(o client.Object) {
	name := types.NamespacedName{Namespace: o.GetNamespace()}
	switch o := o.(type) {
	case *podnet.SteeringRule:
		if o.Spec.Via == "" {
			return
		}
		name.Name = o.Spec.Service
		w.steered[name] = true
	case *corev1.Service:
		name.Name = o.Name
		if of := o.Labels[podnet.LabelShadow]; of != "" {
			name.Name = of
		}
		if name.Name != o.Name || reroute.Marked(o) {
			w.steered[name] = true
		}
	case *discoveryv1.EndpointSlice:
		name.Name = o.Labels[discoveryv1.LabelServiceName]
		if s := w.services[name]; s != nil && s.Labels[podnet.LabelShadow] != "" {
			name.Name = s.Labels[podnet.LabelShadow]
		}
		if o.Labels[discoveryv1.LabelManagedBy] == reroute.ManagedBy {
			w.steered[name] = true
		}
	}
	if w.steered[name] {
		w.LookAgain()
	}
}

// steeredServices are those that rules or something of podnet's are about.
func (w *World) steeredServices() (all []Service) {
	if len(w.steered) == 0 {
		return nil
	}
	ruled := map[types.NamespacedName]bool{}
	for _, r := range w.rules {
		if r.Via() {
			ruled[types.NamespacedName{Namespace: r.Rule.Namespace, Name: r.Object.Spec.Service}] = true
		}
	}
	for name := range w.steered {
		shadow := types.NamespacedName{Namespace: name.Namespace, Name: reroute.ShadowName(name.Name)}
		s := reroute.State{Service: w.services[name], Shadow: w.services[shadow]}
		for _, slice := range w.slices[name.Namespace] {
			if of := slice.Labels[discoveryv1.LabelServiceName]; of == name.Name || of == shadow.Name {
				s.Slices = append(s.Slices, slice)
			}
		}
		if !ruled[name] && s.Idle() {
			delete(w.steered, name)
			continue
		}
		all = append(all, Service{name, s})
	}
	return all
}

// gatewayAddrs are the addresses of the gateways' pods that run, this one's
// included: those of the families that their headless Service has, and those that
// they have written into a Peer.
func (w *World) gatewayAddrs(running map[string]string) []netip.Addr {
	all := slices.Clone(w.o.PodIPs)
	add := func(a netip.Addr) {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, s := range w.slices[w.o.Namespace] {
		if s.Labels[discoveryv1.LabelServiceName] != deploy.StatefulSetName {
			continue
		}
		for _, e := range s.Endpoints {
			for _, text := range e.Addresses {
				if a, err := netip.ParseAddr(text); err == nil {
					add(a.Unmap())
				}
			}
		}
	}
	read := map[string]bool{}
	for _, p := range w.peers {
		for _, g := range p.Object.Status.Gateways {
			if read[g.PodUID] || running != nil && running[g.Pod] != g.PodUID {
				continue
			}
			read[g.PodUID] = true
			for _, at := range AddrPorts(g.ClusterEndpoints) {
				add(at.Addr().Unmap())
			}
		}
	}
	return all
}

// steeredPods finds the addresses of the pods that rules are about; of Services
// those of the gateways, where they are steered.
func (w *World) steeredPods(gateways []netip.Addr) map[string][]netip.Addr {
	pods, namespaces := map[string][]netip.Addr{}, map[string]bool{}
	for _, r := range w.rules {
		pods[r.Rule.PodUID] = nil
		if r.Via() {
			pods[r.Rule.PodUID] = gateways
			continue
		}
		namespaces[r.Rule.Namespace] = true
	}
	for ns := range namespaces {
		for _, s := range w.slices[ns] {
			for _, e := range s.Endpoints {
				if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
					continue
				}
				all, steered := pods[string(e.TargetRef.UID)]
				if !steered {
					continue
				}
				for _, text := range e.Addresses {
					if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(all, a.Unmap()) {
						all = append(all, a.Unmap())
					}
				}
				pods[string(e.TargetRef.UID)] = all
			}
		}
	}
	return pods
}
