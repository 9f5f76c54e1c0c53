package world

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
)

// slim takes out of an object that is to be remembered what the gateway does not
// read: in a large cluster that is a good part of its memory.
func slim(obj any) (any, error) {
	o, ok := obj.(client.Object)
	if !ok {
		return obj, nil
	}
	o.SetManagedFields(nil)
	switch o := o.(type) {
	case *podnet.Peer: // few, and theirs who wrote them
		return obj, nil
	case *corev1.Node: // its list of images is most of it
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses, Conditions: o.Status.Conditions}
	case *discoveryv1.EndpointSlice:
		slimSlice(o)
	}
	o.SetAnnotations(keptAnnotations(o))
	return obj, nil
}

// slimSlice leaves out where the endpoints of a slice run, and has them share
// what is the same for all. Slices that gateways write are compared with what
// they should be, and stay whole.
func slimSlice(s *discoveryv1.EndpointSlice) {
	if s.Labels[discoveryv1.LabelManagedBy] != endpointsByController {
		return
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		e.NodeName, e.Zone, e.Hints, e.DeprecatedTopology = nil, nil, nil, nil
		if r := e.TargetRef; r != nil && r.Kind == "Pod" {
			r.Kind = "Pod"
			if r.Namespace == s.Namespace {
				r.Namespace = s.Namespace
			}
		}
	}
}
