package kube

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// remember is how long a Service that has gone is known to be gone: as long
// as a cluster DNS server may still answer for it out of its cache (30 s
// with kubeadm), and a little more.
const remember = 45 * time.Second

// serviceKey names a Service.
type serviceKey struct{ namespace, name string }

// entry is a Service and what belongs to it. Slices may come before their
// Service.
type entry struct {
	service *corev1.Service              // the informer's object, not to be changed; nil: not there
	slices  []*discoveryv1.EndpointSlice // mostly one
	addrs   []netip.Addr                 // under which reverse lists this entry, sorted
	records atomic.Pointer[records]
}

// index is the cluster as DNS sees it. Events change single entries; the
// records of an entry are made when somebody asks for them, so a rollout of a
// thousand pods nobody looks up costs next to nothing.
type index struct {
	compile func(*entry) *records
	now     func() time.Time

	mu         sync.RWMutex
	namespaces map[string]bool // Namespace objects
	entries    map[serviceKey]*entry
	reverse    map[netip.Addr][]serviceKey
	gone       map[serviceKey]time.Time
	serial     uint32 // counts changes
}

func newIndex(compile func(*entry) *records) *index {
	return &index{
		compile:    compile,
		now:        time.Now,
		namespaces: map[string]bool{},
		entries:    map[serviceKey]*entry{},
		reverse:    map[netip.Addr][]serviceKey{},
		gone:       map[serviceKey]time.Time{},
	}
}

// lookup gives the records of a Service, nil if there is none. recent says
// that there was one a moment ago.
func (x *index) lookup(key serviceKey) (r *records, recent bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e := x.entries[key]
	if e == nil || e.service == nil {
		t, gone := x.gone[key]
		return nil, gone && x.now().Sub(t) < remember
	}
	return x.recordsLocked(e), true
}

func (x *index) recordsLocked(e *entry) *records {
	r := e.records.Load()
	if r == nil {
		// Two readers may both make it; they make the same.
		r = x.compile(e)
		e.records.Store(r)
	}
	return r
}

func (x *index) hasNamespace(ns string) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.namespaces[ns]
}

// owners gives the Services, with their records, that have a.
func (x *index) owners(a netip.Addr) map[serviceKey]*records {
	x.mu.RLock()
	defer x.mu.RUnlock()
	keys := x.reverse[a]
	if len(keys) == 0 {
		return nil
	}
	out := make(map[serviceKey]*records, len(keys))
	for _, k := range keys {
		if e := x.entries[k]; e != nil && e.service != nil {
			out[k] = x.recordsLocked(e)
		}
	}
	return out
}

// crowded says whether more than n Services have a.
func (x *index) crowded(a netip.Addr, n int) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.reverse[a]) > n
}

// version is a number that grows with every change.
func (x *index) version() uint32 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.serial
}

// recompile forgets all records: they are made in another way from now on.
func (x *index) recompile() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.serial++
	for _, e := range x.entries {
		e.records.Store(nil)
	}
}

// unnamedEndpoint is a ready endpoint of a pod without a hostname, and the two
// names that it can have.
type unnamedEndpoint struct {
	of          serviceKey
	addr        netip.Addr
	pod, dashed string
}

// unnamed gives n of them at most, of different Services and not always of
// the same ones.
func (x *index) unnamed(n int) []unnamedEndpoint {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var out []unnamedEndpoint
	for key, e := range x.entries { // in no order
		if len(out) == n {
			break
		}
		if found, ok := e.unnamed(); ok {
			found.of = key
			out = append(out, found)
		}
	}
	return out
}

func (e *entry) unnamed() (unnamedEndpoint, bool) {
	if e.service == nil || e.service.Spec.Type == corev1.ServiceTypeExternalName {
		return unnamedEndpoint{}, false
	}
	for _, s := range e.slices {
		for i := range s.Endpoints {
			ep := &s.Endpoints[i]
			pod := podOf(ep)
			if !ready(ep) || pod == "" || strings.Contains(pod, ".") || ep.Hostname != nil && *ep.Hostname != "" {
				continue
			}
			for _, text := range ep.Addresses {
				if a, ok := parseAddr(text); ok {
					return unnamedEndpoint{addr: a, pod: pod, dashed: dashed(text)}, true
				}
			}
		}
	}
	return unnamedEndpoint{}, false
}

// size is the number of Services.
func (x *index) size() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	n := 0
	for _, e := range x.entries {
		if e.service != nil {
			n++
		}
	}
	return n
}

func (x *index) setNamespace(name string, there bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.serial++
	if there {
		x.namespaces[name] = true
	} else {
		delete(x.namespaces, name)
	}
}

func (x *index) setService(svc *corev1.Service) {
	key := serviceKey{svc.Namespace, svc.Name}
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entryLocked(key)
	e.service = svc
	delete(x.gone, key)
	x.changedLocked(key, e)
}

func (x *index) deleteService(key serviceKey) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[key]
	if e == nil || e.service == nil {
		return
	}
	e.service = nil
	now := x.now()
	for k, t := range x.gone {
		if now.Sub(t) >= remember {
			delete(x.gone, k)
		}
	}
	x.gone[key] = now
	x.changedLocked(key, e)
}

// setSlice takes a new or changed slice. A slice may change its owner by its
// label, so old, if not nil, is taken out first.
func (x *index) setSlice(old, new *discoveryv1.EndpointSlice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old != nil && sliceKey(old) != sliceKey(new) {
		x.deleteSliceLocked(old)
	}
	key := sliceKey(new)
	if key.name == "" {
		return
	}
	e := x.entryLocked(key)
	if at := e.find(new.Name); at >= 0 {
		e.slices[at] = new
	} else {
		e.slices = append(e.slices, new)
	}
	x.changedLocked(key, e)
}

func (x *index) deleteSlice(s *discoveryv1.EndpointSlice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.deleteSliceLocked(s)
}

func (x *index) deleteSliceLocked(s *discoveryv1.EndpointSlice) {
	key := sliceKey(s)
	e := x.entries[key]
	if e == nil {
		return
	}
	if at := e.find(s.Name); at >= 0 {
		e.slices = slices.Delete(e.slices, at, at+1)
		x.changedLocked(key, e)
	}
}

// find is where a slice is among an entry's, -1 if it is not.
func (e *entry) find(name string) int {
	return slices.IndexFunc(e.slices, func(s *discoveryv1.EndpointSlice) bool { return s.Name == name })
}

func sliceKey(s *discoveryv1.EndpointSlice) serviceKey {
	return serviceKey{s.Namespace, s.Labels[discoveryv1.LabelServiceName]}
}

func (x *index) entryLocked(key serviceKey) *entry {
	e := x.entries[key]
	if e == nil {
		e = new(entry)
		x.entries[key] = e
	}
	return e
}

// changedLocked forgets the entry's records and keeps reverse in step.
func (x *index) changedLocked(key serviceKey, e *entry) {
	x.serial++
	e.records.Store(nil)
	now := addressesOf(e)
	for _, a := range e.addrs {
		if _, still := slices.BinarySearchFunc(now, a, netip.Addr.Compare); !still {
			x.unlistLocked(a, key)
		}
	}
	for _, a := range now {
		if _, had := slices.BinarySearchFunc(e.addrs, a, netip.Addr.Compare); !had {
			x.reverse[a] = append(x.reverse[a], key)
		}
	}
	e.addrs = now
	if e.service == nil && len(e.slices) == 0 {
		delete(x.entries, key)
	}
}

func (x *index) unlistLocked(a netip.Addr, key serviceKey) {
	keys := slices.DeleteFunc(x.reverse[a], func(k serviceKey) bool { return k == key })
	if len(keys) == 0 {
		delete(x.reverse, a)
	} else {
		x.reverse[a] = keys
	}
}

// addressesOf are all that have a PTR record because of e, sorted, each once.
func addressesOf(e *entry) []netip.Addr {
	if e.service == nil || e.service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	out := clusterIPs(e.service)
	for _, s := range e.slices {
		for i := range s.Endpoints {
			if ready(&s.Endpoints[i]) {
				out = appendAddrs(out, s.Endpoints[i].Addresses)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// clusterIPs is empty for headless Services.
func clusterIPs(svc *corev1.Service) []netip.Addr {
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		return appendAddrs(nil, []string{svc.Spec.ClusterIP})
	}
	return appendAddrs(nil, svc.Spec.ClusterIPs)
}

// appendAddrs leaves out what is no address: "None", and the names that
// slices of type FQDN hold.
func appendAddrs(out []netip.Addr, in []string) []netip.Addr {
	for _, s := range in {
		if a, ok := parseAddr(s); ok {
			out = append(out, a)
		}
	}
	return out
}

func parseAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

// ready: nil means ready (EndpointConditions). A Service that publishes
// addresses that are not ready has them marked as ready in its slices.
func ready(e *discoveryv1.Endpoint) bool {
	return e.Conditions.Ready == nil || *e.Conditions.Ready
}
