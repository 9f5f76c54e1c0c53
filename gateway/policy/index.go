package policy

import (
	"net/netip"
	"slices"
)

// Service is a Service as far as policy cares. One of type ExternalName and a
// headless one have no ClusterIPs.
type Service struct {
	Namespace, Name string
	ClusterIPs      []netip.Addr
	External        []netip.Addr // kube-proxy takes what is sent to its ports there
	Ports           []Port
	// Selector is true when the Service selects pods, so that the endpointslice
	// controller looks after its slices.
	Selector bool
}

// Slice is an EndpointSlice as far as policy cares.
type Slice struct {
	Namespace, Name string
	Service         string // the Service it belongs to; may be ""
	// Managed is true for a slice that says it is the endpointslice controller's,
	// which names only pods that a selector chose. Anybody who may write slices
	// can say so; see index.managed for when it counts.
	Managed bool
	// Front is true for a slice that leads a steered Service to a gateway, at the
	// ports that are there for that.
	Front bool
	// Opaque is true when there are endpoints that are no addresses (FQDN).
	Opaque    bool
	Endpoints []Endpoint
	Ports     []Port
}

// Endpoint is one address of a Slice.
type Endpoint struct {
	Addr netip.Addr
	// Pod is true when targetRef names a Pod of the slice's own namespace.
	Pod bool
}

// Node is a Node as far as policy cares.
type Node struct {
	Name     string
	Addrs    []netip.Addr
	PodCIDRs []netip.Prefix
}

type name struct{ namespace, name string }

// index holds what the Engine was told, by what a decision looks for, and what
// of it the table does not know yet.
type index struct {
	services map[name]*Service
	slices   map[name]*Slice
	nodes    map[string]Node

	vips     map[netip.Addr][]name // the Services with a cluster IP
	refs     map[netip.Addr][]ref  // the slices with an endpoint
	slicesOf map[name][]*Slice     // a Service's

	stale stale
}

// ref is a slice's word that there is an endpoint, and maybe a pod.
type ref struct {
	slice *Slice
	pod   bool
}

// stale is what has changed since the last Rebuild.
type stale struct {
	all      bool // nodes, the API server or the gateways: everything is to be seen anew
	addrs    map[netip.Addr]struct{}
	services map[name]struct{}
}

func newIndex() index {
	x := index{
		services: map[name]*Service{}, slices: map[name]*Slice{}, nodes: map[string]Node{},
		vips: map[netip.Addr][]name{}, refs: map[netip.Addr][]ref{}, slicesOf: map[name][]*Slice{},
	}
	x.fresh()
	x.stale.all = true
	return x
}

// fresh says that the table knows everything.
func (x *index) fresh() {
	x.stale = stale{addrs: map[netip.Addr]struct{}{}, services: map[name]struct{}{}}
}

// SetService adds or replaces a Service and reports whether that changes
// anything. The Engine keeps the slices in it.
func (e *Engine) SetService(s Service) (changed bool) {
	k := name{s.Namespace, s.Name}
	old, ok := e.index.services[k]
	if ok && old.Selector == s.Selector && slices.Equal(old.ClusterIPs, s.ClusterIPs) && slices.Equal(old.External, s.External) && slices.Equal(old.Ports, s.Ports) {
		return false
	}
	e.index.putService(k, &s)
	return true
}

// DeleteService forgets a Service and reports whether it was known.
func (e *Engine) DeleteService(namespace, service string) (changed bool) {
	k := name{namespace, service}
	if _, ok := e.index.services[k]; !ok {
		return false
	}
	e.index.putService(k, nil)
	return true
}

// putService puts next, nil for none, in the place of a Service.
func (x *index) putService(k name, next *Service) {
	old := x.services[k]
	if old != nil {
		for _, a := range old.ClusterIPs {
			a = a.Unmap()
			drop(x.vips, a, func(o name) bool { return o == k })
			x.stale.addrs[a] = struct{}{}
		}
		delete(x.services, k)
	}
	if next != nil {
		for _, a := range next.ClusterIPs {
			a = a.Unmap()
			x.vips[a] = append(x.vips[a], k)
			x.stale.addrs[a] = struct{}{}
		}
		x.services[k] = next
	}
	x.stale.services[k] = struct{}{}
	if (old != nil && old.Selector) != (next != nil && next.Selector) { // see managed
		for _, s := range x.slicesOf[k] {
			x.touch(s)
		}
	}
}

// SetSlice adds or replaces an EndpointSlice and reports whether that changes
// anything.
func (e *Engine) SetSlice(s Slice) (changed bool) {
	k := name{s.Namespace, s.Name}
	old, ok := e.index.slices[k]
	if ok && old.Service == s.Service && old.Managed == s.Managed && old.Front == s.Front && old.Opaque == s.Opaque &&
		slices.Equal(old.Endpoints, s.Endpoints) && slices.Equal(old.Ports, s.Ports) {
		return false
	}
	e.putSlice(k, &s)
	return true
}

// DeleteSlice forgets an EndpointSlice and reports whether it was known.
func (e *Engine) DeleteSlice(namespace, slice string) (changed bool) {
	k := name{namespace, slice}
	if _, ok := e.index.slices[k]; !ok {
		return false
	}
	e.putSlice(k, nil)
	return true
}

// putSlice puts next, nil for none, in the place of a slice.
func (e *Engine) putSlice(k name, next *Slice) {
	x := &e.index
	if old := x.slices[k]; old != nil {
		for _, ep := range old.Endpoints {
			drop(x.refs, ep.Addr.Unmap(), func(r ref) bool { return r.slice == old })
		}
		drop(x.slicesOf, old.of(), func(s *Slice) bool { return s == old })
		delete(x.slices, k)
		x.touch(old)
		x.stale.all = x.stale.all || e.isControlPlane(old)
	}
	if next != nil {
		for _, ep := range next.Endpoints {
			a := ep.Addr.Unmap()
			x.refs[a] = append(x.refs[a], ref{next, ep.Pod})
		}
		x.slicesOf[next.of()] = append(x.slicesOf[next.of()], next)
		x.slices[k] = next
		x.touch(next)
		x.stale.all = x.stale.all || e.isControlPlane(next)
	}
}

// touch notes that what a slice says has changed, or how much that counts.
func (x *index) touch(s *Slice) {
	x.stale.services[s.of()] = struct{}{}
	for _, ep := range s.Endpoints {
		x.stale.addrs[ep.Addr.Unmap()] = struct{}{}
	}
}

// of is the Service that a slice belongs to.
func (s *Slice) of() name { return name{s.Namespace, s.Service} }

// SetNode adds or replaces a Node and reports whether that changes anything.
func (e *Engine) SetNode(n Node) (changed bool) {
	old, ok := e.index.nodes[n.Name]
	e.index.nodes[n.Name] = n
	changed = !ok || !slices.Equal(old.Addrs, n.Addrs) || !slices.Equal(old.PodCIDRs, n.PodCIDRs)
	e.index.stale.all = e.index.stale.all || changed
	return changed
}

// DeleteNode forgets a Node and reports whether it was known.
func (e *Engine) DeleteNode(node string) (changed bool) {
	_, changed = e.index.nodes[node]
	delete(e.index.nodes, node)
	e.index.stale.all = e.index.stale.all || changed
	return changed
}

// drop takes out of the list at k what is unwanted, and an empty list out of m.
func drop[K comparable, V any](m map[K][]V, k K, unwanted func(V) bool) {
	if left := slices.DeleteFunc(m[k], unwanted); len(left) > 0 {
		m[k] = left
	} else {
		delete(m, k)
	}
}
