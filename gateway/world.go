package gateway

import (
	"context"
	"fmt"
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
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	podnet "podnet.dev/api/v1alpha1"
	"podnet.dev/deploy"
	"podnet.dev/gateway/enrol"
	"podnet.dev/gateway/policy"
	"podnet.dev/gateway/ranges"
	"podnet.dev/gateway/steering"
	"podnet.dev/internal/wake"
)

// world is what the gateway knows of the cluster, kept by informer events.
type world struct {
	o      Options
	log    *slog.Logger
	policy *policy.Engine

	// peersChanged and netChanged hold one token each: something is to do.
	peersChanged, netChanged chan struct{}

	heard    atomic.Int64  // unix seconds of the last event of a watch
	renewals atomic.Uint64 // of Peers

	mu           sync.Mutex // the policy engine's changes as well
	peers        map[types.UID]peerObject
	accesses     map[types.UID]accessObject
	rules        map[types.UID]ruleObject
	exposures    map[types.UID]exposureObject
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

type peerObject struct {
	object *podnet.Peer // the informer's: not to be changed
	peer   enrol.Peer
}

type accessObject struct {
	object *podnet.Access
	access enrol.Access
}

type ruleObject struct {
	object *podnet.SteeringRule
	rule   steering.Object
}

func newWorld(o Options) *world {
	return &world{
		o: o, log: o.Log,
		policy: policy.New(policy.Config{
			DNS: []netip.Addr{Service4, Service6}, Tunnel: o.tunnelRanges(), Self: o.PodIPs,
			GatewayNamespace: o.Namespace, GatewayService: deploy.StatefulSetName,
		}),
		peersChanged: make(chan struct{}, 1), netChanged: make(chan struct{}, 1),
		peers: map[types.UID]peerObject{}, accesses: map[types.UID]accessObject{}, rules: map[types.UID]ruleObject{},
		exposures: map[types.UID]exposureObject{}, nodes: map[string]node{}, ownServices: map[string]*corev1.Service{},
		services: map[types.NamespacedName]*corev1.Service{}, steered: map[types.NamespacedName]bool{}, slices: map[string]map[string]*discoveryv1.EndpointSlice{},
		serviceCIDRs: map[string][]netip.Prefix{}, podCIDRs: ranges.Parse(o.PodCIDRs),
	}
}

// newCache watches what the gateway reads, and keeps only what it needs.
func newCache(o Options, c client.Client) (cache.Cache, error) {
	return cache.New(patiently(o.REST), cache.Options{
		Scheme: c.Scheme(), Mapper: c.RESTMapper(), DefaultTransform: slim,
		ByObject: map[client.Object]cache.ByObject{&podnet.Peer{}: {Namespaces: map[string]cache.Config{o.Namespace: {}}}},
	})
}

// subscription is one kind of object and what to do with it.
type subscription struct {
	object client.Object
	set    func(client.Object)
	remove func(client.Object)
}

func (w *world) subscriptions(mapper meta.RESTMapper) []subscription {
	all := []subscription{
		{&podnet.Peer{}, w.setPeer, w.removePeer},
		{&podnet.Access{}, w.setAccess, w.removeAccess},
		{&podnet.SteeringRule{}, w.setRule, w.removeRule},
		{&podnet.Exposure{}, w.setExposure, w.removeExposure},
		{&corev1.Service{}, w.setService, w.removeService},
		{&discoveryv1.EndpointSlice{}, w.setSlice, w.removeSlice},
		{&corev1.Node{}, w.setNode, w.removeNode},
	}
	// ServiceCIDR is there from 1.33 on, as v1beta1 and off by default before.
	kind := schema.GroupKind{Group: networkingv1.GroupName, Kind: "ServiceCIDR"}
	for _, o := range []client.Object{&networkingv1.ServiceCIDR{}, &networkingv1beta1.ServiceCIDR{}} {
		version := networkingv1.SchemeGroupVersion.Version
		if _, beta := o.(*networkingv1beta1.ServiceCIDR); beta {
			version = networkingv1beta1.SchemeGroupVersion.Version
		}
		if _, err := mapper.RESTMapping(kind, version); err == nil {
			return append(all, subscription{o, w.setServiceCIDR, w.removeServiceCIDR})
		}
	}
	return all
}

// watch follows the cluster until ctx ends. It calls synced once everything
// that existed at the start is known.
func (w *world) watch(ctx context.Context, c cache.Cache, mapper meta.RESTMapper, synced func()) error {
	var registered []toolscache.ResourceEventHandlerRegistration
	for _, s := range w.subscriptions(mapper) {
		informer, err := w.informer(ctx, c, s.object)
		if err != nil {
			return nil // ctx has ended
		}
		r, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.event(s.set, o) },
			UpdateFunc: func(_, o any) { w.event(s.set, o) },
			DeleteFunc: func(o any) {
				if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
					o = unknown.Obj
				}
				w.event(s.remove, o)
			},
		})
		if err != nil {
			return fmt.Errorf("watch %T: %w", s.object, err)
		}
		registered = append(registered, r)
	}
	unsynced := func(r toolscache.ResourceEventHandlerRegistration) bool { return !r.HasSynced() }
	for slices.ContainsFunc(registered, unsynced) {
		if !wake.After(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	synced()
	<-ctx.Done()
	return nil
}

// informer asks until the API server knows the kind: the CRDs may be applied a
// moment after the gateway, and the server itself may be away.
func (w *world) informer(ctx context.Context, c cache.Cache, o client.Object) (cache.Informer, error) {
	for told := ""; ; {
		i, err := c.GetInformer(ctx, o, cache.BlockUntilSynced(false))
		if err == nil {
			return i, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if text := err.Error(); text != told {
			told = text
			w.log.Warn("cannot watch yet", "kind", fmt.Sprintf("%T", o), "err", err)
		}
		if !wake.After(ctx, time.Second) {
			return nil, ctx.Err()
		}
	}
}

func (w *world) event(f func(client.Object), o any) {
	if object, ok := o.(client.Object); ok {
		w.heard.Store(time.Now().Unix())
		w.mu.Lock()
		defer w.mu.Unlock()
		f(object)
	}
}

// The methods below run with mu held.

func (w *world) setPeer(o client.Object) {
	p := o.(*podnet.Peer)
	if p.DeletionTimestamp != nil { // a finalizer of somebody's holds the object, not the peer
		w.removePeer(o)
		return
	}
	if old, known := w.peers[p.UID]; known && p.Spec.Renew > old.peer.Renew {
		w.renewals.Add(1)
	}
	w.peers[p.UID] = peerObject{p, peerOf(p)}
	wake.Up(w.peersChanged)
}

func (w *world) removePeer(o client.Object) {
	delete(w.peers, o.GetUID())
	wake.Up(w.peersChanged)
}

func (w *world) setAccess(o client.Object) {
	a := o.(*podnet.Access)
	if a.DeletionTimestamp != nil {
		w.removeAccess(o)
		return
	}
	w.accesses[a.UID] = accessObject{a, accessOf(a, w.o.Namespace)}
	wake.Up(w.peersChanged)
}

func (w *world) removeAccess(o client.Object) {
	delete(w.accesses, o.GetUID())
	wake.Up(w.peersChanged)
}

func (w *world) setRule(o client.Object) {
	r := o.(*podnet.SteeringRule)
	if r.DeletionTimestamp != nil {
		w.removeRule(o)
		return
	}
	w.rules[r.UID] = ruleObject{r, ruleOf(r)}
	w.concern(r)
	wake.Up(w.peersChanged)
}

func (w *world) removeRule(o client.Object) {
	delete(w.rules, o.GetUID())
	wake.Up(w.peersChanged)
}

func (w *world) setService(o client.Object) {
	s := o.(*corev1.Service)
	changed := w.policy.SetService(serviceOf(s))
	w.services[client.ObjectKeyFromObject(s)] = s
	w.concern(s)
	if s.Namespace == w.o.Namespace {
		w.ownServices[s.Name] = s
		w.kept(s)
		changed = true
	}
	w.changed(changed)
}

func (w *world) removeService(o client.Object) {
	w.concern(o)
	delete(w.services, client.ObjectKeyFromObject(o))
	if o.GetNamespace() == w.o.Namespace {
		delete(w.ownServices, o.GetName())
		w.kept(o)
	}
	w.changed(w.policy.DeleteService(o.GetNamespace(), o.GetName()))
}

func (w *world) setSlice(o client.Object) {
	s := o.(*discoveryv1.EndpointSlice)
	if w.slices[s.Namespace] == nil {
		w.slices[s.Namespace] = map[string]*discoveryv1.EndpointSlice{}
	}
	w.slices[s.Namespace][s.Name] = s
	w.kept(s)
	w.concern(s)
	changed := w.policy.SetSlice(sliceOf(s))
	w.changed(changed || s.Namespace == w.o.Namespace)
}

func (w *world) removeSlice(o client.Object) {
	w.kept(o)
	w.concern(o)
	delete(w.slices[o.GetNamespace()], o.GetName())
	if len(w.slices[o.GetNamespace()]) == 0 {
		delete(w.slices, o.GetNamespace())
	}
	w.changed(w.policy.DeleteSlice(o.GetNamespace(), o.GetName()))
}

func (w *world) setNode(o client.Object) {
	n := o.(*corev1.Node)
	next := reachable(n)
	changed := w.policy.SetNode(nodeOf(n))
	if old, ok := w.nodes[n.Name]; !ok || !old.equal(next) {
		changed = true
	}
	w.nodes[n.Name] = next
	w.changed(changed)
}

func (w *world) removeNode(o client.Object) {
	delete(w.nodes, o.GetName())
	w.changed(w.policy.DeleteNode(o.GetName()))
}

func (w *world) setServiceCIDR(o client.Object) {
	var cidrs []string
	switch s := o.(type) {
	case *networkingv1.ServiceCIDR:
		cidrs = s.Spec.CIDRs
	case *networkingv1beta1.ServiceCIDR:
		cidrs = s.Spec.CIDRs
	}
	w.serviceCIDRs[o.GetName()] = ranges.Parse(cidrs)
	w.changed(true)
}

func (w *world) removeServiceCIDR(o client.Object) {
	delete(w.serviceCIDRs, o.GetName())
	w.changed(true)
}

func (w *world) changed(yes bool) {
	if yes {
		wake.Up(w.netChanged)
	}
}

// publish makes what has changed about Services, endpoints and nodes count:
// for policy, and for what Peers are told. It reports whether the latter is
// different now.
func (w *world) publish() (told bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.policy.Rebuild()

	var podCIDRs, serviceCIDRs []netip.Prefix
	for _, n := range w.nodes {
		podCIDRs = append(podCIDRs, n.podCIDRs...)
	}
	for _, p := range w.serviceCIDRs {
		serviceCIDRs = append(serviceCIDRs, p...)
	}
	pods := ranges.Pods(w.podCIDRs, podCIDRs, w.policy.PodAddrs())
	services := ranges.Services(serviceCIDRs, w.policy.ServiceAddrs())
	w.tellOutside(pods)
	network := podnet.Network{
		PodCIDRs:     ranges.Texts(pods),
		ServiceCIDRs: ranges.Texts(services),
		DNSDomain:    w.o.DNSDomain,
		DNSAddresses: []string{Service4.String(), Service6.String()},
		STUN:         w.o.STUN,
	}
	endpoints := w.udpEndpoints()
	told = !sameNetwork(network, w.network) || !slices.Equal(endpoints, w.endpoints)
	w.network, w.endpoints, w.ranges = network, endpoints, slices.Concat(pods, services)
	w.policy.SetRanges(w.ranges)
	return told
}

// outside reports whether an address is nothing of the cluster's, as far as is
// published.
func (s snapshot) outside(a netip.Addr) bool {
	return s.policy.Outside(a) && !slices.ContainsFunc(s.ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}

// gatewayPods are the gateways that run, by what the headless Service selects:
// UIDs by names. It is nil while this gateway itself is not among them, for then
// the list proves nothing. It runs with mu held.
func (w *world) gatewayPods() map[string]string {
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
func (w *world) tellOutside(published []netip.Prefix) {
	if w.toldOutside {
		return
	}
	for a := range w.policy.PodAddrs() {
		if !ranges.Cover(published, a) {
			w.toldOutside = true
			w.log.Warn("laptops do not route to this endpoint: no published pod range has it; podnet install --pod-cidr names others", "addr", a)
			return
		}
	}
}

func sameNetwork(a, b podnet.Network) bool {
	return a.DNSDomain == b.DNSDomain && slices.Equal(a.DNSAddresses, b.DNSAddresses) &&
		slices.Equal(a.PodCIDRs, b.PodCIDRs) && slices.Equal(a.ServiceCIDRs, b.ServiceCIDRs) && slices.Equal(a.STUN, b.STUN)
}

// snapshot is what enrolment and status need, taken at one moment.
type snapshot struct {
	peers        []peerObject
	accesses     []accessObject
	rules        []ruleObject
	exposures    []exposureObject
	exposedBy    exposedBy
	services     []steeredService
	pods         map[string][]netip.Addr // the steered pods' addresses by UID, as far as EndpointSlices tell; of a Service's UID the gateways'
	network      podnet.Network
	ranges       []netip.Prefix
	endpoints    []string
	gateways     map[string]string // see gatewayPods
	gatewayAddrs []netip.Addr
	policy       *policy.Engine
}

func (w *world) snapshot() snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := snapshot{
		peers: make([]peerObject, 0, len(w.peers)), accesses: make([]accessObject, 0, len(w.accesses)),
		network: w.network, ranges: w.ranges, endpoints: w.endpoints, gateways: w.gatewayPods(), policy: w.policy,
	}
	for _, p := range w.peers {
		s.peers = append(s.peers, p)
	}
	for _, a := range w.accesses {
		s.accesses = append(s.accesses, a)
	}
	for _, r := range w.rules {
		s.rules = append(s.rules, r)
	}
	for _, e := range w.exposures {
		s.exposures = append(s.exposures, e)
	}
	s.exposedBy, s.services = w.exposedBy(), w.steeredServices()
	if len(s.services) > 0 {
		s.gatewayAddrs = w.gatewayAddrs(s.gateways)
	}
	s.pods = w.steeredPods(s.gatewayAddrs)
	return s
}

// enrolment is the snapshot as package enrol sees it, index by index.
func (s snapshot) enrolment() enrol.World {
	w := enrol.World{Peers: make([]enrol.Peer, len(s.peers)), Accesses: make([]enrol.Access, len(s.accesses))}
	for i, p := range s.peers {
		w.Peers[i] = p.peer
	}
	for i, a := range s.accesses {
		w.Accesses[i] = a.access
	}
	return w
}
