package world

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/exposure"
	"podnet.dev/gateway/lease"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/reroute"
	"podnet.dev/gateway/steering"
)

// Peer is a Peer as it is and as package enrol sees it. The objects here and below are
// the informers': not to be changed.
type Peer struct {
	Object *podnet.Peer
	Peer   enrol.Peer
}

// Access is an Access as it is and as package enrol sees it.
type Access struct {
	Object *podnet.Access
	Access enrol.Access
}

// Rule is a SteeringRule as it is and as package steering sees it.
type Rule struct {
	Object *podnet.SteeringRule
	Rule   steering.Object
}

// Via reports whether it is about a Service, which a gateway steers by itself.
func (r Rule) Via() bool { return r.Object.Spec.Via != "" }

// Exposure is an Exposure as it is and as package exposure sees it.
type Exposure struct {
	Object   *podnet.Exposure
	Exposure exposure.Object
}

// ExposedBy is what the gateways keep for exposures in their own namespace.
type ExposedBy struct {
	Services []*corev1.Service
	Slices   []*discoveryv1.EndpointSlice
}

// Service is a Service that a rule or something of podnet's is about.
type Service struct {
	Name  types.NamespacedName
	State reroute.State
}

// Snapshot is what is known of the peers and what they ask for, at one moment.
type Snapshot struct {
	Peers        []Peer
	Accesses     []Access
	Rules        []Rule
	Exposures    []Exposure
	ExposedBy    ExposedBy
	Services     []Service
	Pods         map[string][]netip.Addr // the steered pods' addresses by UID, as far as EndpointSlices tell; of a Service's UID the gateways'
	Network      podnet.Network
	Ranges       []netip.Prefix
	Endpoints    []string
	Gateways     map[string]string // that run: see gatewayPods
	GatewayAddrs []netip.Addr
	policy       *policy.Engine
}

// Snapshot takes one.
func (w *World) Snapshot() Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Snapshot{
		Peers: make([]Peer, 0, len(w.peers)), Accesses: make([]Access, 0, len(w.accesses)),
		Network: w.network, Ranges: w.ranges, Endpoints: w.endpoints, Gateways: w.gatewayPods(), policy: w.Policy,
	}
	for _, p := range w.peers {
		s.Peers = append(s.Peers, p)
	}
	for _, a := range w.accesses {
		s.Accesses = append(s.Accesses, a)
	}
	for _, r := range w.rules {
		s.Rules = append(s.Rules, r)
	}
	for _, e := range w.exposures {
		s.Exposures = append(s.Exposures, e)
	}
	s.ExposedBy, s.Services = w.exposedBy(), w.steeredServices()
	if len(s.Services) > 0 {
		s.GatewayAddrs = w.gatewayAddrs(s.Gateways)
	}
	s.Pods = w.steeredPods(s.GatewayAddrs)
	return s
}

// Outside reports whether an address is nothing of the cluster's, as far as is
// published.
func (s Snapshot) Outside(a netip.Addr) bool {
	return s.policy.Outside(a) && !slices.ContainsFunc(s.Ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Enrolment is the snapshot as package enrol sees it, index by index.
func (s Snapshot) Enrolment() enrol.World {
	w := enrol.World{Peers: make([]enrol.Peer, len(s.Peers)), Accesses: make([]enrol.Access, len(s.Accesses))}
	for i, p := range s.Peers {
		w.Peers[i] = p.Peer
	}
	for i, a := range s.Accesses {
		w.Accesses[i] = a.Access
	}
	return w
}

// Laptops are the laptops that are admitted, and the leases of all Peers by
// name.
func (s Snapshot) Laptops(admitted []enrol.Admitted) ([]lease.Laptop, map[string]time.Duration) {
	leases := make(map[string]time.Duration, len(s.Peers))
	for _, p := range s.Peers {
		leases[p.Peer.Name] = p.Peer.Lease
	}
	laptops := make([]lease.Laptop, len(admitted))
	for i, p := range admitted {
		laptops[i] = lease.Laptop{Name: p.Name, User: p.User, Key: p.Key, Lease: leases[p.Name]}
	}
	return laptops, leases
}
