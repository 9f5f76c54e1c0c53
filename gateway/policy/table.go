package policy

import (
	"maps"
	"net/netip"
)

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

// table is the published state: read-only, shared by all who ask. Its entries
// are in parts, by the last byte of their address, so that the next table can
// share with this one what has not changed.
type table struct {
	parts    [256]map[netip.Addr]entry
	podCIDRs map[netip.Prefix]struct{}
	lengths  []int                 // the prefix lengths among podCIDRs, IPv6 ones negative
	taken    map[netip.Addr][]Port // at external IPs, by Services that are not clean
}

func part(a netip.Addr) byte { return a.As16()[15] }

func (t *table) at(a netip.Addr) (e entry, known bool) {
	e, known = t.parts[part(a)][a]
	return e, known
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

// writer makes a table out of another one.
type writer struct {
	table
	own [256]bool // the parts that are not the other's any more
}

func (w *writer) set(a netip.Addr, e entry, known bool) {
	p := part(a)
	if !w.own[p] {
		w.own[p] = true
		if w.parts[p] = maps.Clone(w.parts[p]); w.parts[p] == nil {
			w.parts[p] = map[netip.Addr]entry{}
		}
	}
	if known {
		w.parts[p][a] = e
	} else {
		delete(w.parts[p], a)
	}
}

// ground is what decides about addresses before Services and slices do.
type ground struct {
	nodes  map[netip.Addr]struct{}
	api    map[netip.Addr][]Port // the API server's endpoints
	barred map[netip.Addr]struct{}
	fronts map[netip.Addr]struct{} // the gateways' pods
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

// Rebuild publishes all changes since the last one. What it costs is by what
// has changed; see BenchmarkRebuild for everything, BenchmarkChange for one slice
// of 10,000.
func (e *Engine) Rebuild() {
	x := &e.index
	w := &writer{}
	if x.stale.all {
		e.survey(&w.table)
		x.everything(&e.ground)
		e.unclean = map[name]struct{}{}
	} else {
		w.table = *e.table.Load()
	}
	// Whether a Service is clean hangs on whose pods its endpoints are.
	for a := range x.stale.addrs {
		for _, r := range x.refs[a] {
			x.stale.services[r.slice.of()] = struct{}{}
		}
	}
	for k := range x.stale.services {
		if e.clean(k) {
			delete(e.unclean, k)
		} else {
			e.unclean[k] = struct{}{}
		}
		if s := x.services[k]; s != nil {
			for _, a := range s.ClusterIPs {
				x.stale.addrs[a.Unmap()] = struct{}{}
			}
		}
	}
	for a := range x.stale.addrs {
		entry, known := e.look(a)
		w.set(a, entry, known)
	}
	w.taken = e.taken()
	x.fresh()
	e.table.Store(&w.table)
}

// taken is where kube-proxy leads to the endpoints of Services that are not clean,
// beside their cluster IPs.
func (e *Engine) taken() map[netip.Addr][]Port {
	all := map[netip.Addr][]Port{}
	for k := range e.unclean {
		if s := e.index.services[k]; s != nil && len(s.ClusterIPs) > 0 { // a headless one takes nothing
			for _, a := range s.External {
				all[a.Unmap()] = append(all[a.Unmap()], s.Ports...)
			}
		}
	}
	return all
}

// everything makes all stale.
func (x *index) everything(g *ground) {
	for k := range x.services {
		x.stale.services[k] = struct{}{}
	}
	for a := range x.vips {
		x.stale.addrs[a] = struct{}{}
	}
	for a := range x.refs {
		x.stale.addrs[a] = struct{}{}
	}
	for _, addrs := range []map[netip.Addr]struct{}{g.nodes, g.barred} {
		for a := range addrs {
			x.stale.addrs[a] = struct{}{}
		}
	}
}

// survey looks at nodes, API server and gateways anew.
func (e *Engine) survey(t *table) {
	e.ground = ground{
		nodes: map[netip.Addr]struct{}{}, api: map[netip.Addr][]Port{},
		barred: map[netip.Addr]struct{}{}, fronts: map[netip.Addr]struct{}{},
	}
	t.podCIDRs = map[netip.Prefix]struct{}{}
	e.surveyNodes(t)
	e.surveyControlPlane()
}

// surveyNodes notes node addresses, the pod ranges, and the two addresses at the
// start of each node's range, where the common CNIs put the node's own bridge
// and tunnel device: through them kubelet would answer.
func (e *Engine) surveyNodes(t *table) {
	seen := map[int]bool{}
	for _, n := range e.index.nodes {
		for _, a := range n.Addrs {
			e.ground.nodes[a.Unmap()] = struct{}{}
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
				e.ground.barred[p.Addr()] = struct{}{}
				e.ground.barred[p.Addr().Next()] = struct{}{}
			}
		}
	}
}

// apiServer is the Service whose endpoints are the API server.
var apiServer = name{"default", "kubernetes"}

// isControlPlane reports whether a slice says where the API server or the
// gateways are.
func (e *Engine) isControlPlane(s *Slice) bool { return s.of() == apiServer || e.isGateways(s.of()) }

func (e *Engine) isGateways(k name) bool {
	return k.name != "" && k == name{e.config.GatewayNamespace, e.config.GatewayService}
}

// surveyControlPlane bars the API server and the gateways. A control plane node
// serves other things as well, so there only the API server's port is barred.
func (e *Engine) surveyControlPlane() {
	for _, s := range e.index.slicesOf[apiServer] {
		for _, ep := range s.Endpoints {
			a := ep.Addr.Unmap()
			e.ground.api[a] = append(e.ground.api[a], s.Ports...)
			if !e.isNode(a) {
				e.ground.barred[a] = struct{}{}
			}
		}
	}
	for _, s := range e.index.slicesOf[name{e.config.GatewayNamespace, e.config.GatewayService}] {
		if !e.isGateways(s.of()) {
			continue
		}
		for _, ep := range s.Endpoints {
			e.ground.barred[ep.Addr.Unmap()] = struct{}{}
			e.ground.fronts[ep.Addr.Unmap()] = struct{}{}
		}
	}
}

func (e *Engine) isNode(a netip.Addr) bool {
	_, is := e.ground.nodes[a]
	return is
}

func (e *Engine) isBarred(a netip.Addr) bool {
	_, barred := e.ground.barred[a]
	return barred || e.never(a)
}

// look says what is at an address. The cluster IP of a Service that is not clean
// is nobody's.
func (e *Engine) look(a netip.Addr) (_ entry, known bool) {
	if _, barred := e.ground.barred[a]; barred {
		return entry{kind: forbidden}, true
	}
	services := e.index.vips[a]
	for _, k := range services {
		if _, bad := e.unclean[k]; bad {
			return entry{kind: forbidden}, true
		}
	}
	if e.isNode(a) {
		return entry{kind: host, hosts: e.hosts(a)}, true
	}
	if len(services) > 0 { // whatever a slice says: the pods behind are another's, on every port
		s := e.index.services[services[0]]
		return entry{kind: service, namespace: s.Namespace, ports: s.Ports}, true
	}
	switch c, ok := e.claimed(a); {
	case !ok:
		return entry{}, false
	case c.disputed:
		return entry{kind: forbidden}, true
	default:
		return entry{kind: pod, namespace: c.namespace, managed: c.managed}, true
	}
}

// managed reports whether a slice is the endpointslice controller's. Its label
// alone proves nothing. But slices with the label, of a Service with a selector,
// the controller makes true again as soon as they change: it deletes them, or
// puts what the selector chose into them. A forged one lasts about a second, or
// as long as somebody fights the controller over it.
func (x *index) managed(s *Slice) bool {
	of := x.services[s.of()]
	return s.Managed && of != nil && of.Selector
}

// claimed says whose pod is at an address, which is no node's.
func (e *Engine) claimed(a netip.Addr) (c claim, ok bool) {
	if len(e.index.vips[a]) > 0 || e.isBarred(a) {
		return claim{}, false
	}
	for _, r := range e.index.refs[a] {
		if !r.pod {
			continue
		}
		managed := e.index.managed(r.slice)
		switch {
		case !ok || managed && !c.managed:
			c, ok = claim{namespace: r.slice.Namespace, managed: managed}, true
		case managed == c.managed && r.slice.Namespace != c.namespace:
			c.disputed = true
		}
	}
	return c, ok
}

// hosts are the declared ports of pods in their node's network. A slice by hand
// could declare anything that listens on the node.
func (e *Engine) hosts(node netip.Addr) []hostPort {
	var all []hostPort
	for _, r := range e.index.refs[node] {
		if !r.pod || !e.index.managed(r.slice) {
			continue
		}
		for _, p := range r.slice.Ports {
			if h := (hostPort{p, r.slice.Namespace}); e.mayServe(node, p) && !has(all, h) {
				all = append(all, h)
			}
		}
	}
	return all
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
func (e *Engine) mayServe(node netip.Addr, p Port) bool {
	return !nodePort(p.Proto, p.Port) && !contains(e.ground.api[node], p)
}

// clean reports whether every endpoint of a Service is a pod of the same
// namespace. The API server's is not.
func (e *Engine) clean(k name) bool {
	if k == apiServer {
		return false
	}
	if k.name == "" {
		return true // slices of no Service
	}
	for _, s := range e.index.slicesOf[k] {
		if !e.cleanSlice(s) {
			return false
		}
	}
	return true
}

// cleanSlice reports whether every endpoint of a slice is a pod of its namespace
// that a peer with access to the namespace could reach directly. A cluster IP
// is nobody's claim, so a Service that leads to another Service is not clean. One
// that a gateway steers is: what comes to the gateway goes on to the Service's pods.
func (e *Engine) cleanSlice(s *Slice) bool {
	if s.Opaque {
		return false
	}
	for _, ep := range s.Endpoints {
		a := ep.Addr.Unmap()
		if _, isGateway := e.ground.fronts[a]; isGateway && s.Front {
			continue
		}
		if !ep.Pod || e.isBarred(a) {
			return false
		}
		if e.isNode(a) {
			if !e.index.managed(s) {
				return false
			}
			for _, p := range s.Ports {
				if !e.mayServe(a, p) {
					return false
				}
			}
			continue
		}
		if c, ok := e.claimed(a); !ok || c.disputed || c.namespace != s.Namespace {
			return false
		}
	}
	return true
}
