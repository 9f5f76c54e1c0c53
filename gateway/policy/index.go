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
	// can say so; see builder.managed for when it counts.
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

// index holds what the Engine was told, until Rebuild makes a table of it.
type index struct {
	services map[name]Service
	slices   map[name]Slice
	nodes    map[string]Node
}

func newIndex() index {
	return index{services: map[name]Service{}, slices: map[name]Slice{}, nodes: map[string]Node{}}
}

// SetService adds or replaces a Service and reports whether that changes
// anything. The Engine keeps the slices in it.
func (e *Engine) SetService(s Service) (changed bool) {
	k := name{s.Namespace, s.Name}
	old, ok := e.index.services[k]
	e.index.services[k] = s
	return !ok || old.Selector != s.Selector || !slices.Equal(old.ClusterIPs, s.ClusterIPs) || !slices.Equal(old.Ports, s.Ports)
}

// DeleteService forgets a Service and reports whether it was known.
func (e *Engine) DeleteService(namespace, service string) (changed bool) {
	return remove(e.index.services, name{namespace, service})
}

// SetSlice adds or replaces an EndpointSlice and reports whether that changes
// anything.
func (e *Engine) SetSlice(s Slice) (changed bool) {
	k := name{s.Namespace, s.Name}
	old, ok := e.index.slices[k]
	e.index.slices[k] = s
	return !ok || old.Service != s.Service || old.Managed != s.Managed || old.Front != s.Front || old.Opaque != s.Opaque ||
		!slices.Equal(old.Endpoints, s.Endpoints) || !slices.Equal(old.Ports, s.Ports)
}

// DeleteSlice forgets an EndpointSlice and reports whether it was known.
func (e *Engine) DeleteSlice(namespace, slice string) (changed bool) {
	return remove(e.index.slices, name{namespace, slice})
}

// SetNode adds or replaces a Node and reports whether that changes anything.
func (e *Engine) SetNode(n Node) (changed bool) {
	old, ok := e.index.nodes[n.Name]
	e.index.nodes[n.Name] = n
	return !ok || !slices.Equal(old.Addrs, n.Addrs) || !slices.Equal(old.PodCIDRs, n.PodCIDRs)
}

// DeleteNode forgets a Node and reports whether it was known.
func (e *Engine) DeleteNode(node string) (changed bool) { return remove(e.index.nodes, node) }

func remove[K comparable, V any](m map[K]V, k K) bool {
	_, ok := m[k]
	delete(m, k)
	return ok
}
