package policy

import "net/netip"

// kind is what is known to be at an address.
type kind uint8

const (
	forbidden kind = iota // the API server, a gateway, a node's bridge, or two namespaces claim it
	pod
	service
	host // a node
)

// entry is what is at an address.
type entry struct {
	kind      kind
	namespace string     // of a pod or Service
	managed   bool       // of a pod: the claim is the endpointslice controller's
	ports     []Port     // of a Service
	hosts     []hostPort // of a node: what its host-network pods declare
}

type hostPort struct {
	port      Port
	namespace string
}

// table is the published state: read-only, shared by all who ask.
type table struct {
	entries  map[netip.Addr]entry
	podCIDRs map[netip.Prefix]struct{}
	lengths  []int // the prefix lengths among podCIDRs, IPv6 ones negative
}

func (t *table) isPodAddress(a netip.Addr) bool {
	for _, n := range t.lengths {
		if (n < 0) != a.Is6() {
			continue
		}
		if p, err := a.Prefix(max(n, -n)); err == nil {
			if _, ok := t.podCIDRs[p]; ok {
				return true
			}
		}
	}
	return false
}

// builder makes a table of an index.
type builder struct {
	*Engine
	nodes  map[netip.Addr][]hostPort
	api    map[netip.Addr][]Port // the API server's endpoints
	barred map[netip.Addr]struct{}
	fronts map[netip.Addr]struct{} // the gateways' pods
	vips   map[netip.Addr]struct{} // cluster IPs, which are no pod's whatever a slice says
	claims map[netip.Addr]claim
}

// claim says whose pod an address is. The endpointslice controller's word is
// worth more than a slice that somebody may have written by hand; where two of
// equal rank name different namespaces, nobody gets the address. To let the
// older of the two have it would be worse: a forger could claim addresses before
// there is a pod, and a pod could be reached by the right to its predecessor.
type claim struct {
	namespace string
	managed   bool
	disputed  bool
}

// Rebuild publishes all changes since the last one. It takes some 70 ms for
// 10,000 Services with 50,000 endpoints; see BenchmarkRebuild.
func (e *Engine) Rebuild() {
	b := &builder{
		Engine: e,
		nodes:  map[netip.Addr][]hostPort{},
		api:    map[netip.Addr][]Port{},
		barred: map[netip.Addr]struct{}{},
		fronts: map[netip.Addr]struct{}{},
		vips:   map[netip.Addr]struct{}{},
		claims: map[netip.Addr]claim{},
	}
	t := &table{podCIDRs: map[netip.Prefix]struct{}{}}
	b.addNodes(t)
	b.addControlPlane()
	for _, s := range e.index.services {
		for _, a := range s.ClusterIPs {
			b.vips[a.Unmap()] = struct{}{}
		}
	}
	for _, s := range e.index.slices {
		b.claim(s)
	}
	t.entries = make(map[netip.Addr]entry, len(b.claims)+len(e.index.services)+len(b.nodes)+len(b.barred))
	b.addServices(t)
	for a, c := range b.claims {
		if c.disputed {
			t.entries[a] = entry{kind: forbidden}
		} else {
			t.entries[a] = entry{kind: pod, namespace: c.namespace, managed: c.managed}
		}
	}
	for a, hosts := range b.nodes {
		t.entries[a] = entry{kind: host, hosts: hosts}
	}
	for a := range b.barred {
		t.entries[a] = entry{kind: forbidden}
	}
	e.table.Store(t)
}

// addNodes notes node addresses, the pod ranges, and the two addresses at the
// start of each node's range, where the common CNIs put the node's own bridge
// and tunnel device: through them kubelet would answer.
func (b *builder) addNodes(t *table) {
	seen := map[int]bool{}
	for _, n := range b.index.nodes {
		for _, a := range n.Addrs {
			b.nodes[a.Unmap()] = nil
		}
		for _, p := range n.PodCIDRs {
			p = p.Masked()
			length := p.Bits()
			if p.Addr().Is6() {
				length = -length
			}
			if !seen[length] {
				seen[length] = true
				t.lengths = append(t.lengths, length)
			}
			t.podCIDRs[p] = struct{}{}
			if !p.IsSingleIP() {
				b.barred[p.Addr()] = struct{}{}
				b.barred[p.Addr().Next()] = struct{}{}
			}
		}
	}
}

// addControlPlane bars the API server and the gateways. A control plane node
// serves other things as well, so there only the API server's port is barred.
func (b *builder) addControlPlane() {
	for _, s := range b.index.slices {
		switch {
		case s.Namespace == "default" && s.Service == "kubernetes":
			for _, ep := range s.Endpoints {
				a := ep.Addr.Unmap()
				b.api[a] = append(b.api[a], s.Ports...)
				if _, isNode := b.nodes[a]; !isNode {
					b.barred[a] = struct{}{}
				}
			}
		case s.Namespace == b.config.GatewayNamespace && s.Service == b.config.GatewayService && s.Service != "":
			for _, ep := range s.Endpoints {
				b.barred[ep.Addr.Unmap()] = struct{}{}
				b.fronts[ep.Addr.Unmap()] = struct{}{}
			}
		}
	}
}

func (b *builder) isBarred(a netip.Addr) bool {
	_, barred := b.barred[a]
	return barred || b.never(a)
}

// managed reports whether a slice is the endpointslice controller's. Its label
// alone proves nothing. But slices with the label, of a Service with a selector,
// the controller makes true again as soon as they change: it deletes them, or
// puts what the selector chose into them. A forged one lasts about a second, or
// as long as somebody fights the controller over it.
func (b *builder) managed(s Slice) bool {
	return s.Managed && b.index.services[name{s.Namespace, s.Service}].Selector
}

// claim notes whose the addresses of a slice are.
func (b *builder) claim(s Slice) {
	managed := b.managed(s)
	for _, ep := range s.Endpoints {
		a := ep.Addr.Unmap()
		if !ep.Pod || b.isBarred(a) {
			continue
		}
		if _, isNode := b.nodes[a]; isNode {
			if managed { // a slice by hand could declare anything that listens on the node
				b.claimHost(s, a)
			}
			continue
		}
		if _, isService := b.vips[a]; isService {
			continue // a forged claim: the pods behind are another's, on every port
		}
		c, ok := b.claims[a]
		switch {
		case !ok || managed && !c.managed:
			c = claim{namespace: s.Namespace, managed: managed}
		case managed == c.managed && s.Namespace != c.namespace:
			c.disputed = true
		}
		b.claims[a] = c
	}
}

// claimHost notes the declared ports of a pod in its node's network.
func (b *builder) claimHost(s Slice, a netip.Addr) {
	for _, p := range s.Ports {
		if h := (hostPort{p, s.Namespace}); b.mayServe(a, p) && !has(b.nodes[a], h) {
			b.nodes[a] = append(b.nodes[a], h)
		}
	}
}

func has(hosts []hostPort, h hostPort) bool {
	for _, o := range hosts {
		if o == h {
			return true
		}
	}
	return false
}

// mayServe reports whether a port at a node is neither Kubernetes' own nor the
// API server's.
func (b *builder) mayServe(node netip.Addr, p Port) bool {
	return !nodePort(p.Proto, p.Port) && !contains(b.api[node], p)
}

// addServices adds the cluster IPs of the Services whose every endpoint is a
// pod of the same namespace, and bars the API server's.
func (b *builder) addServices(t *table) {
	unclean := map[name]struct{}{{"default", "kubernetes"}: {}}
	for _, s := range b.index.slices {
		if s.Service != "" && !b.clean(s) {
			unclean[name{s.Namespace, s.Service}] = struct{}{}
		}
	}
	for k, s := range b.index.services {
		_, bad := unclean[k]
		for _, a := range s.ClusterIPs {
			if bad {
				b.barred[a.Unmap()] = struct{}{}
			} else {
				t.entries[a.Unmap()] = entry{kind: service, namespace: s.Namespace, ports: s.Ports}
			}
		}
	}
}

// clean reports whether every endpoint of a slice is a pod of its namespace
// that a peer with access to the namespace could reach directly. A cluster IP
// is nobody's claim, so a Service that leads to another Service is not clean. One
// that a gateway steers is: what comes to the gateway goes on to the Service's pods.
func (b *builder) clean(s Slice) bool {
	if s.Opaque {
		return false
	}
	for _, ep := range s.Endpoints {
		a := ep.Addr.Unmap()
		if _, isGateway := b.fronts[a]; isGateway && s.Front {
			continue
		}
		if !ep.Pod || b.isBarred(a) {
			return false
		}
		if _, isNode := b.nodes[a]; isNode {
			if !b.managed(s) {
				return false
			}
			for _, p := range s.Ports {
				if !b.mayServe(a, p) {
					return false
				}
			}
			continue
		}
		if c := b.claims[a]; c.disputed || c.namespace != s.Namespace {
			return false
		}
	}
	return true
}
