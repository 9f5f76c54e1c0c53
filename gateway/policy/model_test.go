package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// model answers the same questions as Engine by walking over everything, one
// sentence of the package comment at a time. Slow, and plain to read.
type model struct {
	config   Config
	services []Service
	slices   []Slice
	nodes    []Node
	grants   []Grant
}

func (m *model) allow(peer netip.Addr, proto Proto, dst netip.AddrPort) bool {
	g := m.grant(peer)
	if g == nil {
		return false
	}
	a, p := dst.Addr().Unmap(), Port{proto, dst.Port()}
	if slices.Contains(m.config.DNS, a) {
		return proto == ICMP || p.Port == 53
	}
	if m.outOfReach(a) {
		return false
	}
	if m.isNode(a) {
		return slices.ContainsFunc(m.slices, func(s Slice) bool {
			return m.managed(s) && m.may(g, s.Namespace) && hasPod(s, a) && slices.Contains(s.Ports, p) && !m.kubernetesOwn(a, p)
		})
	}
	for _, s := range m.services {
		if slices.Contains(s.ClusterIPs, a) {
			return m.may(g, s.Namespace) && m.trusted(s) && (proto == ICMP || slices.Contains(s.Ports, p))
		}
	}
	switch owners := m.owners(a); len(owners) {
	case 0:
		return g.Cluster && m.inPodRange(a) && !nodePort(proto, p.Port)
	case 1:
		byHand := !slices.ContainsFunc(m.slices, func(s Slice) bool { return m.managed(s) && hasPod(s, a) })
		return m.may(g, owners[0]) && !(byHand && nodePort(proto, p.Port))
	default:
		return false
	}
}

func (m *model) grant(peer netip.Addr) *Grant {
	for i := range m.grants {
		if slices.Contains(m.grants[i].Addrs, peer) {
			return &m.grants[i]
		}
	}
	return nil
}

func (m *model) may(g *Grant, namespace string) bool {
	return g.Cluster || slices.Contains(g.Namespaces, namespace)
}

func (m *model) isNode(a netip.Addr) bool {
	return slices.ContainsFunc(m.nodes, func(n Node) bool { return slices.Contains(n.Addrs, a) })
}

func (m *model) inPodRange(a netip.Addr) bool {
	return slices.ContainsFunc(m.nodes, func(n Node) bool {
		return slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// outOfReach: whatever nobody reaches, nodes and the API server on a node aside.
func (m *model) outOfReach(a netip.Addr) bool {
	if (&Engine{config: m.config}).never(a) {
		return true
	}
	for _, n := range m.nodes {
		for _, p := range n.PodCIDRs {
			if a == p.Masked().Addr() || a == p.Masked().Addr().Next() {
				return true
			}
		}
	}
	for _, s := range m.slices {
		here := slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.Addr == a })
		if here && s.Namespace == "podnet-system" && s.Service == "podnet-gateway" {
			return true
		}
		if here && s.Namespace == "default" && s.Service == "kubernetes" && !m.isNode(a) {
			return true
		}
	}
	return false
}

func (m *model) kubernetesOwn(node netip.Addr, p Port) bool {
	return nodePort(p.Proto, p.Port) || slices.ContainsFunc(m.slices, func(s Slice) bool {
		return s.Namespace == "default" && s.Service == "kubernetes" && slices.Contains(s.Ports, p) &&
			slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.Addr == node })
	})
}

// managed: the controller looks after the slice.
func (m *model) managed(s Slice) bool {
	return s.Managed && slices.ContainsFunc(m.services, func(o Service) bool { return o.Namespace == s.Namespace && o.Name == s.Service && o.Selector })
}

func hasPod(s Slice, a netip.Addr) bool {
	return slices.ContainsFunc(s.Endpoints, func(e Endpoint) bool { return e.Pod && e.Addr == a })
}

func (m *model) isService(a netip.Addr) bool {
	return slices.ContainsFunc(m.services, func(s Service) bool { return slices.Contains(s.ClusterIPs, a) })
}

// owners are the namespaces whose pod a is, by the best word there is. A
// Service is no pod.
func (m *model) owners(a netip.Addr) []string {
	if m.isService(a) {
		return nil
	}
	var managed, other []string
	for _, s := range m.slices {
		if !hasPod(s, a) {
			continue
		}
		if m.managed(s) {
			managed = append(managed, s.Namespace)
		} else {
			other = append(other, s.Namespace)
		}
	}
	if managed == nil {
		managed = other
	}
	slices.Sort(managed)
	return slices.Compact(managed)
}

// trusted: every endpoint of the Service is a pod of its namespace.
func (m *model) trusted(s Service) bool {
	if s.Namespace == "default" && s.Name == "kubernetes" {
		return false
	}
	for _, sl := range m.slices {
		if sl.Namespace != s.Namespace || sl.Service != s.Name {
			continue
		}
		if sl.Opaque {
			return false
		}
		for _, ep := range sl.Endpoints {
			switch {
			case !ep.Pod || m.outOfReach(ep.Addr):
				return false
			case m.isNode(ep.Addr):
				if !m.managed(sl) || slices.ContainsFunc(sl.Ports, func(p Port) bool { return m.kubernetesOwn(ep.Addr, p) }) {
					return false
				}
			case !slices.Equal(m.owners(ep.Addr), []string{s.Namespace}):
				return false
			}
		}
	}
	return true
}

// universe draws from few names and few addresses, so that they collide.
type universe struct{ *rand.Rand }

func pick[T any](u universe, from ...T) T { return from[u.IntN(len(from))] }

func (u universe) namespace() string { return pick(u, "shop", "pay", "default", "podnet-system") }

func (u universe) service() string { return pick(u, "a", "b", "kubernetes", "podnet-gateway", "") }

func (u universe) addr() netip.Addr {
	if u.IntN(12) == 0 {
		return pick(u, ip("127.0.0.1"), ip("169.254.169.254"), ip("198.18.0.2"), ip("10.244.0.9"), ip("192.0.2.7"), ip("fd00:10:244::5"), ip("198.18.0.1"))
	}
	if u.IntN(8) == 0 {
		return u.clusterIP(u.namespace(), u.service())
	}
	if u.IntN(4) == 0 {
		return netip.AddrFrom4([4]byte{172, 16, 0, byte(u.IntN(4))}) // 0 to 2 may be nodes
	}
	return netip.AddrFrom4([4]byte{10, 244, byte(u.IntN(2)), byte(u.IntN(6))})
}

// clusterIP is the one that a Service of this name has, if it has one.
func (u universe) clusterIP(namespace, service string) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 96, byte(len(namespace)), (service + "-")[0]})
}

func (u universe) port() Port {
	return Port{pick(u, TCP, UDP), pick[uint16](u, 53, 80, 6443, 10250)}
}

func some[T any](u universe, most int, draw func() T) []T {
	var all []T
	for range u.IntN(most + 1) {
		all = append(all, draw())
	}
	return all
}

func (u universe) endpoint() Endpoint { return Endpoint{Addr: u.addr(), Pod: u.IntN(5) > 0} }

// TestAgainstModel changes a random cluster step by step and compares every
// answer with the model's.
func TestAgainstModel(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for seed := range uint64(rounds) {
		u := universe{rand.New(rand.NewPCG(seed, 7))}
		e, m := New(testConfig), &model{config: testConfig}
		for step := range 12 {
			u.change(e, m)
			e.Rebuild()
			if !compare(t, u, e, m) || !sameAsAnew(t, e) {
				t.Fatalf("seed %d, step %d\nservices %+v\nslices %+v\nnodes %+v\ngrants %+v", seed, step, m.services, m.slices, m.nodes, m.grants)
			}
		}
	}
}

func (u universe) change(e *Engine, m *model) {
	for range 3 {
		switch u.IntN(10) {
		case 0, 1:
			// A cluster IP belongs to one Service, as the API server sees to.
			ns, n := u.namespace(), pick(u, "a", "b", "kubernetes")
			s := Service{Namespace: ns, Name: n, Ports: some(u, 2, u.port), Selector: u.IntN(4) > 0}
			if u.IntN(4) > 0 {
				s.ClusterIPs = []netip.Addr{u.clusterIP(ns, n)}
			}
			e.SetService(s)
			m.services = append(slices.DeleteFunc(m.services, func(o Service) bool { return o.Namespace == ns && o.Name == n }), s)
		case 2, 3, 4:
			s := Slice{Namespace: u.namespace(), Name: fmt.Sprint(u.IntN(3)), Service: u.service(), Managed: u.IntN(3) > 0, Opaque: u.IntN(20) == 0,
				Endpoints: some(u, 3, u.endpoint), Ports: some(u, 2, u.port)}
			e.SetSlice(s)
			m.slices = append(slices.DeleteFunc(m.slices, func(o Slice) bool { return o.Namespace == s.Namespace && o.Name == s.Name }), s)
		case 5:
			ns, n := u.namespace(), fmt.Sprint(u.IntN(3))
			e.DeleteSlice(ns, n)
			m.slices = slices.DeleteFunc(m.slices, func(o Slice) bool { return o.Namespace == ns && o.Name == n })
		case 6:
			i := u.IntN(3)
			n := Node{Name: fmt.Sprint(i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, 0, byte(i)})}}
			if u.IntN(3) > 0 {
				n.PodCIDRs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i), 0}), pick(u, 24, 30)), cidr("fd00:10:244::/64")}
			}
			e.SetNode(n)
			m.nodes = append(slices.DeleteFunc(m.nodes, func(o Node) bool { return o.Name == n.Name }), n)
		case 7:
			m.grants = nil
			for _, a := range []netip.Addr{alice, admin} {
				m.grants = append(m.grants, Grant{Addrs: []netip.Addr{a}, Cluster: u.IntN(4) == 0, Namespaces: some(u, 2, u.namespace)})
			}
			e.SetGrants(m.grants)
		case 8:
			ns, n := u.namespace(), pick(u, "a", "b", "kubernetes")
			e.DeleteService(ns, n)
			m.services = slices.DeleteFunc(m.services, func(o Service) bool { return o.Namespace == ns && o.Name == n })
		case 9:
			n := fmt.Sprint(u.IntN(3))
			e.DeleteNode(n)
			m.nodes = slices.DeleteFunc(m.nodes, func(o Node) bool { return o.Name == n })
		}
	}
}

// sameAsAnew compares what changes have made of the table with one that is made
// of nothing, and looks for what the index keeps of what is gone.
func sameAsAnew(t *testing.T, e *Engine) bool {
	t.Helper()
	anew := New(e.config)
	for _, s := range e.index.services {
		anew.SetService(*s)
	}
	for _, s := range e.index.slices {
		anew.SetSlice(*s)
	}
	for _, n := range e.index.nodes {
		anew.SetNode(n)
	}
	anew.Rebuild()
	have, want := e.table.Load(), anew.table.Load()
	for i := range want.parts {
		same := maps.EqualFunc(have.parts[i], want.parts[i], func(a, b entry) bool {
			return a.kind == b.kind && a.namespace == b.namespace && a.managed == b.managed && slices.Equal(a.ports, b.ports) && len(a.hosts) == len(b.hosts)
		})
		if !same {
			t.Errorf("addresses that end in %d: %+v, made anew %+v", i, have.parts[i], want.parts[i])
			return false
		}
	}
	if x, y := &e.index, &anew.index; len(x.vips) != len(y.vips) || len(x.refs) != len(y.refs) || len(x.slicesOf) != len(y.slicesOf) {
		t.Errorf("%d cluster IPs, %d endpoints, slices of %d Services are known, and there are %d, %d, %d", len(x.vips), len(x.refs), len(x.slicesOf), len(y.vips), len(y.refs), len(y.slicesOf))
		return false
	}
	return true
}

func compare(t *testing.T, u universe, e *Engine, m *model) bool {
	t.Helper()
	try := func(dst netip.Addr) bool {
		for _, peer := range []netip.Addr{alice, admin, nobody} {
			for _, p := range []Port{u.port(), u.port(), {ICMP, 0}} {
				to := netip.AddrPortFrom(dst, p.Port)
				if got, want := e.Allow(peer, p.Proto, to), m.allow(peer, p.Proto, to); got != want {
					t.Errorf("Allow(%s, %d, %s) = %v, the model says %v", peer, p.Proto, to, got, want)
					return false
				}
			}
		}
		return true
	}
	for range 20 {
		if !try(u.addr()) {
			return false
		}
	}
	for _, s := range m.services {
		for _, a := range s.ClusterIPs {
			if !try(a) {
				return false
			}
		}
	}
	return true
}
