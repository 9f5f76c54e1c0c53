// Package world is what a gateway knows of the cluster: its own objects, Services,
// EndpointSlices and Nodes, kept by the API server's watches. What they say of who may
// reach what goes to gateway/policy, and counts when it is published; the rest is told by
// snapshots, in the words of the packages that decide. It decides nothing and writes
// nothing.
package world

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/internal/wake"
)

// Config is what a World must be told: which gateway's it is, and what an administrator
// has said of the cluster. See gateway.Options.
type Config struct {
	Namespace, Pod, PodUID, Node string
	PodIPs                       []netip.Addr
	DNSDomain                    string
	DNS                          []netip.Addr   // where laptops ask it
	Tunnel                       []netip.Prefix // the peers' addresses
	WireGuardPort                int            // as Services name it
	Advertise, PodCIDRs, STUN    []string
	Log                          *slog.Logger
}

// World is what the gateway knows of the cluster.
type World struct {
	o   Config
	log *slog.Logger

	// Policy is who may reach what.
	Policy *policy.Engine
	// PeersChanged and NetChanged hold one token each: a snapshot says something new, and
	// there is something to publish.
	PeersChanged, NetChanged chan struct{}

	heard    atomic.Int64  // unix seconds of the last event of a watch
	renewals atomic.Uint64 // of Peers

	mu           sync.Mutex // the policy engine's changes as well
	peers        map[types.UID]Peer
	accesses     map[types.UID]Access
	rules        map[types.UID]Rule
	exposures    map[types.UID]Exposure
	nodes        map[string]node
	ownServices  map[string]*corev1.Service                       // of the gateway's namespace
	services     map[types.NamespacedName]*corev1.Service         // of all
	steered      map[types.NamespacedName]bool                    // Services that rules or something of podnet's may be about
	slices       map[string]map[string]*discoveryv1.EndpointSlice // by namespace and name
	serviceCIDRs map[string][]netip.Prefix
	podCIDRs     []netip.Prefix // by the administrator, in place of the nodes'
	toldOutside  bool           // that there are pods outside of what is published
	network      podnet.Network
	ranges       []netip.Prefix // the pods' and Services' that network publishes
	endpoints    []string       // UDP, of this gateway
}

// New makes a World that knows nothing yet.
func New(o Config) *World {
	return &World{
		o: o, log: o.Log,
		Policy: policy.New(policy.Config{
			DNS: o.DNS, Tunnel: o.Tunnel, Self: o.PodIPs,
			GatewayNamespace: o.Namespace, GatewayService: deploy.StatefulSetName,
		}),
		PeersChanged: make(chan struct{}, 1), NetChanged: make(chan struct{}, 1),
		peers: map[types.UID]Peer{}, accesses: map[types.UID]Access{}, rules: map[types.UID]Rule{},
		exposures: map[types.UID]Exposure{}, nodes: map[string]node{}, ownServices: map[string]*corev1.Service{},
		services: map[types.NamespacedName]*corev1.Service{}, steered: map[types.NamespacedName]bool{}, slices: map[string]map[string]*discoveryv1.EndpointSlice{},
		serviceCIDRs: map[string][]netip.Prefix{}, podCIDRs: ranges.Parse(o.PodCIDRs),
	}
}

// LookAgain says that there is something to do about the peers.
func (w *World) LookAgain() { wake.Up(w.PeersChanged) }

// Heard is when a watch last told of a change, in seconds of unix; 0 for never.
func (w *World) Heard() int64 { return w.heard.Load() }

// Renewals is how many renewals of Peers were seen.
func (w *World) Renewals() uint64 { return w.renewals.Load() }

// Set takes note of an object as it is now.
func (w *World) Set(o client.Object) {
	w.heard.Store(time.Now().Unix())
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := o.(type) {
	case *podnet.Peer:
		w.setPeer(o)
	case *podnet.Access:
		w.setAccess(o)
	case *podnet.SteeringRule:
		w.setRule(o)
	case *podnet.Exposure:
		w.setExposure(o)
	case *corev1.Service:
		w.setService(o)
	case *discoveryv1.EndpointSlice:
		w.setSlice(o)
	case *corev1.Node:
		w.setNode(o)
	case *networkingv1.ServiceCIDR:
		w.setServiceCIDR(o.Name, o.Spec.CIDRs)
	case *networkingv1beta1.ServiceCIDR:
		w.setServiceCIDR(o.Name, o.Spec.CIDRs)
	}
}

// Remove takes note that an object is gone.
func (w *World) Remove(o client.Object) {
	w.heard.Store(time.Now().Unix())
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := o.(type) {
	case *podnet.Peer:
		w.removePeer(o)
	case *podnet.Access:
		w.removeAccess(o)
	case *podnet.SteeringRule:
		w.removeRule(o)
	case *podnet.Exposure:
		w.removeExposure(o)
	case *corev1.Service:
		w.removeService(o)
	case *discoveryv1.EndpointSlice:
		w.removeSlice(o)
	case *corev1.Node:
		w.removeNode(o)
	case *networkingv1.ServiceCIDR, *networkingv1beta1.ServiceCIDR:
		delete(w.serviceCIDRs, o.GetName())
		w.changed(true)
	}
}

// The methods below run with mu held.

func (w *World) setPeer(p *podnet.Peer) {
	if p.DeletionTimestamp != nil { // a finalizer of somebody's holds the object, not the peer
		w.removePeer(p)
		return
	}
	if old, known := w.peers[p.UID]; known && p.Spec.Renew > old.Peer.Renew {
		w.renewals.Add(1)
	}
	w.peers[p.UID] = Peer{p, PeerOf(p)}
	w.LookAgain()
}

func (w *World) removePeer(o client.Object) {
	delete(w.peers, o.GetUID())
	w.LookAgain()
}

func (w *World) setAccess(a *podnet.Access) {
	if a.DeletionTimestamp != nil {
		w.removeAccess(a)
		return
	}
	w.accesses[a.UID] = Access{a, accessOf(a, w.o.Namespace)}
	w.LookAgain()
}

func (w *World) removeAccess(o client.Object) {
	delete(w.accesses, o.GetUID())
	w.LookAgain()
}

func (w *World) setRule(r *podnet.SteeringRule) {
	if r.DeletionTimestamp != nil {
		w.removeRule(r)
		return
	}
	w.rules[r.UID] = Rule{r, RuleOf(r)}
	w.concern(r)
	w.LookAgain()
}

func (w *World) removeRule(o client.Object) {
	delete(w.rules, o.GetUID())
	w.LookAgain()
}

func (w *World) setService(s *corev1.Service) {
	changed := w.Policy.SetService(serviceOf(s))
	w.services[client.ObjectKeyFromObject(s)] = s
	w.concern(s)
	if s.Namespace == w.o.Namespace {
		w.ownServices[s.Name] = s
		w.kept(s)
		changed = true
	}
	w.changed(changed)
}

func (w *World) removeService(o client.Object) {
	w.concern(o)
	delete(w.services, client.ObjectKeyFromObject(o))
	if o.GetNamespace() == w.o.Namespace {
		delete(w.ownServices, o.GetName())
		w.kept(o)
	}
	w.changed(w.Policy.DeleteService(o.GetNamespace(), o.GetName()))
}

func (w *World) setSlice(s *discoveryv1.EndpointSlice) {
	if w.slices[s.Namespace] == nil {
		w.slices[s.Namespace] = map[string]*discoveryv1.EndpointSlice{}
	}
	w.slices[s.Namespace][s.Name] = s
	w.kept(s)
	w.concern(s)
	changed := w.Policy.SetSlice(sliceOf(s))
	w.changed(changed || s.Namespace == w.o.Namespace)
}

func (w *World) removeSlice(o client.Object) {
	w.kept(o)
	w.concern(o)
	delete(w.slices[o.GetNamespace()], o.GetName())
	if len(w.slices[o.GetNamespace()]) == 0 {
		delete(w.slices, o.GetNamespace())
	}
	w.changed(w.Policy.DeleteSlice(o.GetNamespace(), o.GetName()))
}

func (w *World) setNode(n *corev1.Node) {
	next := reachable(n)
	changed := w.Policy.SetNode(nodeOf(n))
	if old, ok := w.nodes[n.Name]; !ok || !old.equal(next) {
		changed = true
	}
	w.nodes[n.Name] = next
	w.changed(changed)
}

func (w *World) removeNode(o client.Object) {
	delete(w.nodes, o.GetName())
	w.changed(w.Policy.DeleteNode(o.GetName()))
}

func (w *World) setServiceCIDR(name string, cidrs []string) {
	w.serviceCIDRs[name] = ranges.Parse(cidrs)
	w.changed(true)
}

func (w *World) changed(yes bool) {
	if yes {
		wake.Up(w.NetChanged)
	}
}

// Publish makes what has changed about Services, endpoints and nodes count:
// for policy, and for what Peers are told. It reports whether the latter is
// different now.
func (w *World) Publish() (told bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Policy.Rebuild()

	var podCIDRs, serviceCIDRs []netip.Prefix
	for _, n := range w.nodes {
		podCIDRs = append(podCIDRs, n.podCIDRs...)
	}
	for _, p := range w.serviceCIDRs {
		serviceCIDRs = append(serviceCIDRs, p...)
	}
	pods := ranges.Pods(w.podCIDRs, podCIDRs, w.Policy.PodAddrs())
	services := ranges.Services(serviceCIDRs, w.Policy.ServiceAddrs())
	w.tellOutside(pods)
	network := podnet.Network{
		PodCIDRs:     ranges.Texts(pods),
		ServiceCIDRs: ranges.Texts(services),
		DNSDomain:    w.o.DNSDomain,
		DNSAddresses: texts(w.o.DNS),
		STUN:         w.o.STUN,
	}
	endpoints := w.udpEndpoints()
	told = !SameNetwork(network, w.network) || !slices.Equal(endpoints, w.endpoints)
	w.network, w.endpoints, w.ranges = network, endpoints, slices.Concat(pods, services)
	w.Policy.SetRanges(w.ranges)
	return told
}

// gatewayPods are the gateways that run, by what the headless Service selects:
// UIDs by names. It is nil while this gateway itself is not among them, for then
// the list proves nothing. It runs with mu held.
func (w *World) gatewayPods() map[string]string {
	pods := map[string]string{}
	for _, s := range w.slices[w.o.Namespace] {
		if s.Labels[discoveryv1.LabelServiceName] != deploy.StatefulSetName {
			continue
		}
		for _, e := range s.Endpoints {
			if e.TargetRef != nil && e.TargetRef.Kind == "Pod" {
				pods[e.TargetRef.Name] = string(e.TargetRef.UID)
			}
		}
	}
	if pods[w.o.Pod] != w.o.PodUID {
		return nil
	}
	return pods
}

// tellOutside warns, once, of a pod that laptops will not route to.
func (w *World) tellOutside(published []netip.Prefix) {
	if w.toldOutside {
		return
	}
	for a := range w.Policy.PodAddrs() {
		if !ranges.Cover(published, a) {
			w.toldOutside = true
			w.log.Warn("laptops do not route to this endpoint: no published pod range has it; podnet install --pod-cidr names others", "addr", a)
			return
		}
	}
}

// SameNetwork reports whether two say the same.
func SameNetwork(a, b podnet.Network) bool {
	return a.DNSDomain == b.DNSDomain && slices.Equal(a.DNSAddresses, b.DNSAddresses) &&
		slices.Equal(a.PodCIDRs, b.PodCIDRs) && slices.Equal(a.ServiceCIDRs, b.ServiceCIDRs) && slices.Equal(a.STUN, b.STUN)
}

func texts(addrs []netip.Addr) []string {
	all := make([]string, len(addrs))
	for i, a := range addrs {
		all[i] = a.String()
	}
	return all
}
