// Package policy decides which peer may reach what. It is pure: it is told of
// Services, EndpointSlices, Nodes and grants in its own small types, and knows
// no clock, no socket and no Kubernetes.
//
// The default is no. A peer with access to a namespace reaches
//
//   - the pods there, on every port, at the addresses that EndpointSlices name.
//     A pod behind no Service, headless ones included, is in no EndpointSlice,
//     and the gateway may not read pods: it cannot be reached by its address
//     except with access to the whole cluster;
//   - the cluster IPs of Services there, on the Services' ports, if every one
//     of a Service's endpoints is a pod of the same namespace. Else whoever may
//     edit Endpoints could send kube-proxy, and with it the peer, anywhere
//     (CVE-2021-25740). Nobody reaches anything at such a Service's ports by its
//     external IPs, which may be anybody's (CVE-2020-8554);
//   - the gateway's own DNS;
//   - the networks beside the cluster that it was granted, where the cluster
//     itself has nothing.
//
// Nodes, the API server, the gateways, other peers, loopback, link-local (which
// is where clouds keep their metadata) and multicast stay out of reach even
// with access to the whole cluster.
package policy

import (
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
)

// Proto is an IP protocol number.
type Proto uint8

const (
	ICMP Proto = 1 // and ICMPv6; a flow of echo requests, its port is 0
	TCP  Proto = 6
	UDP  Proto = 17
)

// Port is a port of one protocol.
type Port struct {
	Proto Proto
	Port  uint16
}

// Config is what never changes while a gateway runs.
type Config struct {
	// DNS are the tunnel addresses at which the gateway answers DNS and pings.
	DNS []netip.Addr
	// Tunnel are the ranges of tunnel addresses: other peers.
	Tunnel []netip.Prefix
	// Self are the gateway pod's own addresses.
	Self []netip.Addr
	// Gateways names the headless Service of all gateway pods.
	GatewayNamespace, GatewayService string
}

// Grant is what one live peer may reach.
type Grant struct {
	Addrs      []netip.Addr // the peer's tunnel addresses
	Namespaces []string
	Cluster    bool // every namespace
	// Routes and Domains are what it may have beside the cluster; domains in lower
	// case, with the final dot.
	Routes  []netip.Prefix
	Domains []string
}

// Engine answers Allow and Visible from the latest published state, without
// locks and in constant time. Tell it of changes with the Set and Delete
// methods, then publish them with Rebuild; SetGrants publishes by itself. One
// goroutine may change it at a time; any number may ask.
type Engine struct {
	config Config
	index  index
	// As of the last Rebuild: the ground, and the Services that are not clean.
	ground  ground
	unclean map[name]struct{}

	grants atomic.Pointer[grants]
	table  atomic.Pointer[table]
	ranges atomic.Pointer[[]netip.Prefix] // see SetRanges
}

// grants finds a peer's rights by its tunnel address.
type grants map[netip.Addr]*rights

type rights struct {
	cluster    bool
	namespaces map[string]struct{}
	routes     []netip.Prefix
	domains    []string
}

func (r *rights) has(namespace string) bool {
	if r.cluster {
		return true
	}
	_, ok := r.namespaces[namespace]
	return ok
}

// New makes an Engine that allows nothing yet.
func New(c Config) *Engine {
	e := &Engine{config: c, index: newIndex()}
	e.grants.Store(&grants{})
	e.Rebuild()
	return e
}

// SetGrants replaces all grants.
func (e *Engine) SetGrants(all []Grant) {
	next := make(grants, 2*len(all))
	for _, g := range all {
		r := &rights{cluster: g.Cluster, namespaces: make(map[string]struct{}, len(g.Namespaces)), routes: g.Routes, domains: g.Domains}
		for _, n := range g.Namespaces {
			r.namespaces[n] = struct{}{}
		}
		for _, a := range g.Addrs {
			next[a] = r
		}
	}
	e.grants.Store(&next)
}

// Allow reports whether the peer at a tunnel address may open a flow to dst.
// For ICMP the port does not matter.
func (e *Engine) Allow(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	r := (*e.grants.Load())[peer.Unmap()]
	if r == nil {
		return false
	}
	addr, port := dst.Addr().Unmap(), Port{proto, dst.Port()}
	for _, dns := range e.config.DNS {
		if addr == dns {
			return proto == ICMP || port.Port == 53
		}
	}
	if e.never(addr) {
		return false
	}
	t := e.table.Load()
	if contains(t.taken[addr], port) {
		return false
	}
	entry, known := t.at(addr)
	if !known {
		return r.cluster && t.isPodAddress(addr) && !nodePort(proto, port.Port) || e.beside(t, r, addr)
	}
	switch entry.kind {
	case pod:
		return r.has(entry.namespace) && (entry.managed || !nodePort(proto, port.Port))
	case service:
		return r.has(entry.namespace) && (proto == ICMP || contains(entry.ports, port))
	case host:
		for _, h := range entry.hosts {
			if h.port == port && r.has(h.namespace) {
				return true
			}
		}
	}
	return false
}

// Serves reports whether the endpointslice controller says that a pod of a
// namespace is at an address, where a gateway may connect to it.
func (e *Engine) Serves(namespace string, proto Proto, dst netip.AddrPort) bool {
	addr, port := dst.Addr().Unmap(), Port{proto, dst.Port()}
	if e.never(addr) {
		return false
	}
	t := e.table.Load()
	if contains(t.taken[addr], port) {
		return false
	}
	switch entry, _ := t.at(addr); entry.kind {
	case pod:
		return entry.managed && entry.namespace == namespace
	case host:
		return has(entry.hosts, hostPort{port, namespace})
	}
	return false
}

// Visible reports whether the peer at a tunnel address may know what is in a
// namespace: names are information too.
func (e *Engine) Visible(peer netip.Addr, namespace string) bool {
	r := (*e.grants.Load())[peer.Unmap()]
	return r != nil && r.has(namespace)
}

// Outside reports whether an address is nothing of the cluster's, nor one that
// nobody may have: where a laptop may be.
func (e *Engine) Outside(a netip.Addr) bool {
	if a = a.Unmap(); e.never(a) {
		return false
	}
	t := e.table.Load()
	_, known := t.at(a)
	return !known && !t.isPodAddress(a)
}

func contains(ports []Port, p Port) bool {
	for _, q := range ports {
		if p == q {
			return true
		}
	}
	return false
}

// neverRanges are out of reach whatever a table says. Multicast, loopback and
// link-local are asked of netip.
var neverRanges = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),    // "this network", RFC 791: some stacks take it for loopback
	netip.MustParsePrefix("240.0.0.0/4"),  // reserved, and the broadcast address
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64, RFC 6052: another way to write any of these
	netip.MustParsePrefix("2002::/16"),    // 6to4, RFC 3056: the same
}

// Metadata reports whether an address is one at which a cloud gives away its machines'
// credentials, or serves them otherwise. Where most do, it is link-local.
func Metadata(a netip.Addr) bool {
	return slices.ContainsFunc(metadata, func(p netip.Prefix) bool { return p.Contains(a) })
}

var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::/32"),          // AWS over IPv6: metadata at ::254, credentials of EKS's pods at ::23
	netip.MustParsePrefix("fd20:ce::254/128"),       // Google over IPv6
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle over IPv6
	netip.MustParsePrefix("fd00:a9fe:a9fe::1/128"),  // Akamai over IPv6
	netip.MustParsePrefix("fd00:42::42/128"),        // Scaleway over IPv6
	netip.MustParsePrefix("fd00:100::100:200/128"),  // Alibaba over IPv6
	netip.MustParsePrefix("100.100.100.200/32"),     // Alibaba
	netip.MustParsePrefix("168.63.129.16/32"),       // Azure's host agent
	netip.MustParsePrefix("192.0.0.192/32"),         // Oracle
}

// never reports whether an address is out of reach for everybody.
func (e *Engine) never(a netip.Addr) bool { return e.config.never(a) }

func (c *Config) never(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || Metadata(a) {
		return true
	}
	for _, p := range neverRanges {
		if p.Contains(a) {
			return true
		}
	}
	for _, p := range c.Tunnel {
		if p.Contains(a) {
			return true
		}
	}
	for _, self := range c.Self {
		if a == self {
			return true
		}
	}
	return false
}

// nodePort reports whether a port belongs to Kubernetes itself on every node:
// kubelet, kube-proxy, control plane and etcd. They are refused at node
// addresses even if somebody declares them as endpoints, and wherever only
// a slice by hand says that there is a pod, or none at all: a node's bridge may
// answer there. A pod's own are not: metrics-server listens on 10250.
func nodePort(proto Proto, port uint16) bool {
	if proto != TCP {
		return false
	}
	switch port {
	case 10250, 10255, // kubelet
		10248, 10249, 10256, // kubelet's and kube-proxy's health and metrics
		10257, 10259, 6443, // controller-manager, scheduler, API server
		10258, 10260, // cloud-controller-manager and its webhooks
		9345,             // the supervisor of RKE2, where nodes join
		2379, 2380, 2381: // etcd
		return true
	}
	return false
}

// PodAddrs are the addresses of pods, in no order, as of the last Rebuild.
func (e *Engine) PodAddrs() iter.Seq[netip.Addr] { return e.addrs(pod) }

// ServiceAddrs are the cluster IPs that peers may be let to, in no order, as of
// the last Rebuild.
func (e *Engine) ServiceAddrs() iter.Seq[netip.Addr] { return e.addrs(service) }

func (e *Engine) addrs(k kind) iter.Seq[netip.Addr] {
	t := e.table.Load()
	return func(yield func(netip.Addr) bool) {
		for _, part := range t.parts {
			for a, entry := range part {
				if entry.kind == k && !yield(a) {
					return
				}
			}
		}
	}
}
